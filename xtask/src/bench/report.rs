//! The table, against what weft must reach and what it aims at.

use serde::Serialize;

/// A measured row, as `--json` writes it.
#[derive(Debug, Default, Serialize)]
pub struct Row {
    /// Its name, for example `same-node/http/c32`.
    #[serde(rename = "row")]
    pub name: &'static str,
    /// Of `direct` and `weft`.
    pub unit: &'static str,
    /// Median of the direct runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct: Option<f64>,
    /// Median of the runs through weft, or the figure that has no direct counterpart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weft: Option<f64>,
    /// `weft / direct`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Median latency, through weft / directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ratio: Option<f64>,
    /// The same, 99th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ratio: Option<f64>,
    /// User and system time of the agents in microseconds; an operation of a stream is a gigabyte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_op: Option<f64>,
    /// Resident memory of the agent at the row's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_mib: Option<f64>,
    /// What a person should know besides.
    #[serde(skip)]
    pub notes: String,
}

impl Row {
    /// A row with no figures yet.
    pub fn new(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit, ..Self::default() }
    }
}

/// What a figure must reach, and what weft aims at.
#[derive(Clone, Copy)]
struct Budget {
    must: f64,
    aim: f64,
}

/// The budgets of a row.
#[derive(Clone, Copy, Default)]
struct Budgets {
    /// At least this.
    ratio: Option<Budget>,
    /// At most this.
    cpu_us: Option<Budget>,
    /// At most this, for a figure that has no direct counterpart.
    weft: Option<Budget>,
}

/// What is asked of each row. Rows that are not here only show.
fn budgets(row: &str) -> Budgets {
    let budget = |must, aim| Some(Budget { must, aim });
    let none = Budgets::default();
    match row {
        "same-node/http/c32" => Budgets { ratio: budget(0.25, 0.40), cpu_us: budget(45.0, 20.0), ..none },
        "same-node/tcp/stream" => Budgets { ratio: budget(0.65, 0.95), ..none },
        "same-node/tcp/rr1" => Budgets { ratio: budget(0.75, 0.95), ..none },
        "same-node/tcp/rr32" => Budgets { ratio: budget(0.42, 0.95), ..none },
        "same-node/tcp/crr32" => Budgets { ratio: budget(0.33, 0.95), ..none },
        "two-nodes/http/c32" => Budgets { ratio: budget(0.18, 0.30), cpu_us: budget(90.0, 50.0), ..none },
        "two-nodes/tcp/stream" => Budgets { ratio: budget(0.34, 0.50), cpu_us: budget(1.5e6, 0.9e6), ..none },
        "two-nodes/tcp/rr1" => Budgets { ratio: budget(0.40, 0.50), cpu_us: budget(40.0, 23.0), ..none },
        "two-nodes/tcp/rr32" => Budgets { ratio: budget(0.30, 0.45), cpu_us: budget(40.0, 23.0), ..none },
        "two-nodes/tcp/crr32" => Budgets { ratio: budget(0.25, 0.35), cpu_us: budget(220.0, 130.0), ..none },
        "scale/rss" => Budgets { weft: budget(200.0, 100.0), ..none },
        "scale/change" => Budgets { weft: budget(200.0, 50.0), ..none },
        _ => none,
    }
}

impl Budget {
    /// The figure's mark, and the budget in words; `sign` says which side is good.
    fn judge(self, figure: Option<f64>, sign: f64) -> String {
        let Some(figure) = figure else { return String::new() };
        let reaches = |bound: f64| figure * sign >= bound * sign;
        let mark = match (reaches(self.must), reaches(self.aim)) {
            (_, true) => "✓✓",
            (true, false) => "✓",
            (false, false) => "✗",
        };
        format!("{mark} {}/{}", self.must, self.aim)
    }
}

const HEADINGS: [&str; 12] = [
    "ROW", "UNIT", "DIRECT", "WEFT", "MUST/AIM", "RATIO", "MUST/AIM", "P50", "P99", "CPU/OP", "MUST/AIM",
    "RSS",
];
/// Columns of words, which begin at the left; numbers end at the right.
const WORDS: [usize; 5] = [0, 1, 4, 6, 10];

/// Prints the table.
pub fn print(rows: &[Row]) {
    let cells: Vec<[String; 12]> =
        std::iter::once(HEADINGS.map(str::to_owned)).chain(rows.iter().map(cells)).collect();
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    println!();
    // A column in which no row has anything is not shown.
    let shown: Vec<usize> =
        (0..HEADINGS.len()).filter(|&column| cells[1..].iter().any(|row| !row[column].is_empty())).collect();
    for row in &cells {
        let line: Vec<String> = shown
            .iter()
            .map(|&column| {
                let (cell, width) = (&row[column], widths[column]);
                if WORDS.contains(&column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            })
            .collect();
        println!("{}", line.join("  ").trim_end());
    }
    println!();
    for row in rows.iter().filter(|row| !row.notes.is_empty()) {
        println!("{}: {}", row.name, row.notes);
    }
    println!(
        "✓✓ reaches the aim, ✓ what it must, ✗ neither. Ratios are weft / direct; latencies: less is better."
    );
}

fn cells(row: &Row) -> [String; 12] {
    let budgets = budgets(row.name);
    let judged = |budget: Option<Budget>, figure, sign| {
        budget.map_or_else(String::new, |budget| budget.judge(figure, sign))
    };
    let two = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
    [
        row.name.to_owned(),
        row.unit.to_owned(),
        row.direct.map_or_else(String::new, amount),
        row.weft.map_or_else(String::new, amount),
        judged(budgets.weft, row.weft, -1.0),
        two(row.ratio),
        judged(budgets.ratio, row.ratio, 1.0),
        two(row.p50_ratio),
        two(row.p99_ratio),
        row.cpu_us_per_op.map_or_else(String::new, |micros| {
            if row.unit == "Gbit/s" { format!("{:.2} s/GB", micros / 1e6) } else { format!("{micros:.1} us") }
        }),
        if row.unit == "Gbit/s" {
            let seconds = |budget: Budget| Budget { must: budget.must / 1e6, aim: budget.aim / 1e6 };
            judged(budgets.cpu_us.map(seconds), row.cpu_us_per_op.map(|micros| micros / 1e6), -1.0)
        } else {
            judged(budgets.cpu_us, row.cpu_us_per_op, -1.0)
        },
        row.rss_mib.map_or_else(String::new, |mib| format!("{mib:.0} MiB")),
    ]
}

/// Large numbers need no decimals.
fn amount(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        let budget = Budget { must: 0.25, aim: 0.4 };
        assert_eq!(budget.judge(Some(0.2), 1.0), "✗ 0.25/0.4");
        assert_eq!(budget.judge(Some(0.25), 1.0), "✓ 0.25/0.4");
        assert_eq!(budget.judge(Some(0.4), 1.0), "✓✓ 0.25/0.4");
        let at_most = Budget { must: 200.0, aim: 100.0 };
        assert_eq!(at_most.judge(Some(150.0), -1.0), "✓ 200/100");
        assert_eq!(at_most.judge(Some(250.0), -1.0), "✗ 200/100");
        assert_eq!(at_most.judge(None, -1.0), "");
    }

    #[test]
    fn absent_figures_are_not_written() {
        let row = Row { weft: Some(1.5), notes: "for people".to_owned(), ..Row::new("scale/change", "ms") };
        let json = serde_json::to_string(&row).expect("a row");
        assert_eq!(json, r#"{"row":"scale/change","unit":"ms","weft":1.5}"#);
    }
}
