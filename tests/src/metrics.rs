//! Prometheus' text format, read.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// A line of metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its name, suffixes such as `_count` included.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// All that an agent counts.
#[derive(Debug, Clone, Default)]
pub struct Metrics(pub Vec<Sample>);

impl Metrics {
    /// Reads the text.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|line| sample(line).with_context(|| format!("not a metric: {line}")))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The sum of all samples of a name with these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// The same of a counter.
    #[expect(clippy::cast_sign_loss, reason = "counters are not below 0")]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.sum(name, labels).round() as u64
    }

    /// Samples of a name with these labels.
    pub fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|has| has == value))
        })
    }
}

fn sample(line: &str) -> Option<Sample> {
    let Some((name, rest)) = line.split_once('{') else {
        let (name, value) = line.split_once(' ')?;
        return Some(Sample { name: name.to_owned(), labels: BTreeMap::new(), value: number(value)? });
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(value) = rest.strip_prefix('}') {
            return Some(Sample { name: name.to_owned(), labels, value: number(value)? });
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        loop {
            match chars.next()? {
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (at, '"') => {
                    rest = &after[at + 1..];
                    break;
                }
                (_, other) => value.push(other),
            }
        }
        labels.insert(key.to_owned(), value);
    }
}

/// A value; a time stamp or an exemplar may follow.
fn number(text: &str) -> Option<f64> {
    match text.split_whitespace().next()? {
        "+Inf" => Some(f64::INFINITY),
        word => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_may_hold_anything() -> Result<()> {
        let text = "# TYPE a counter\na_total{x=\"1\",y=\"a,b}\\\"\\\\\"} 3\na_total{x=\"2\"} 4 # {id=\"7\"} 1\nb 1.5\n";
        let metrics = Metrics::parse(text)?;
        assert_eq!(metrics.count("a_total", &[]), 7);
        assert_eq!(metrics.count("a_total", &[("y", "a,b}\"\\")]), 3);
        assert_eq!(metrics.sum("b", &[]).to_string(), "1.5");
        Ok(())
    }
}
