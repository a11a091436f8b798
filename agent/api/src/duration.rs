//! Durations as Istio's manifests write them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time written as Go and protobuf do: `1h`, `1m30s`, `250ms`, `0.5s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// Not a duration: the text that was found.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a duration; write a number with a unit, such as 1h, 1m, 1s or 1ms")]
pub struct NotADuration(String);

impl std::str::FromStr for Span {
    type Err = NotADuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let err = || NotADuration(text.to_owned());
        let mut rest = text;
        let mut nanos = 0f64;
        if rest.is_empty() {
            return Err(err());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(err)?;
            let (number, tail) = rest.split_at(digits);
            let number: f64 = number.parse().map_err(|_| err())?;
            // `ms` before `m`: the longest unit wins.
            let (scale, unit) =
                [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)]
                    .into_iter()
                    .filter(|(unit, _)| tail.starts_with(unit))
                    .map(|(unit, scale)| (scale, unit))
                    .max_by_key(|(_, unit)| unit.len())
                    .ok_or_else(err)?;
            nanos += number * scale;
            rest = &tail[unit.len()..];
        }
        if !nanos.is_finite() || nanos > 1e18 {
            return Err(err());
        }
        #[expect(clippy::cast_sign_loss, reason = "a sum of unsigned numbers")]
        Ok(Self(Duration::from_nanos(nanos.round() as u64)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 1h, 1m, 1s or 1ms")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl schemars::JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in
            [("1h", 3_600_000), ("1m30s", 90_000), ("0.5s", 500), ("2.3s", 2300), ("0s", 0), ("1500ms", 1500)]
        {
            assert_eq!(text.parse::<Span>().expect(text).0, Duration::from_millis(millis), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1 s", "1d", "1.2.3s", "1e3s", "99999999999h", "5S", "s5"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_duration_reads_what_it_writes() {
        for text in ["1h", "1m30s", "250ms", "1ns", "7us", "1.000000001s"] {
            let span: Span = text.parse().expect(text);
            assert_eq!(span.to_string().parse::<Span>().expect(text), span, "{text}");
        }
    }
}
