//! What came of a run.

use std::time::Instant;

/// How many of the slowest are shown.
const SLOWEST: usize = 8;

/// What came of one part.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Tests that passed.
    pub passed: u32,
    /// Tests that did not.
    pub failed: u32,
    /// Their names.
    pub failures: Vec<String>,
    /// What was not run, and why.
    pub skips: Vec<String>,
    /// Names and seconds, of what is known.
    pub times: Vec<(String, f32)>,
}

impl Outcome {
    /// So many passed.
    pub fn passed(count: u32) -> Self {
        Self { passed: count, ..Self::default() }
    }

    /// These failed.
    pub fn failed(failures: Vec<String>) -> Self {
        Self { failed: failures.len().try_into().unwrap_or(u32::MAX), failures, ..Self::default() }
    }

    /// Nothing was run.
    pub fn skipped(reason: &str) -> Self {
        Self { skips: vec![reason.to_owned()], ..Self::default() }
    }

    /// Adds another one's.
    pub fn merge(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
        self.times.extend(other.times);
    }
}

/// What came of everything.
pub struct Report {
    parts: Vec<(String, Outcome, f32)>,
    last: Instant,
}

impl Report {
    /// Time runs from here.
    pub fn begin() -> Self {
        Self { parts: Vec::new(), last: Instant::now() }
    }

    /// What took long until here was no test.
    pub fn restart_clock(&mut self) {
        self.last = Instant::now();
    }

    /// A part has ended.
    pub fn add(&mut self, name: &str, outcome: Outcome) {
        let seconds = self.last.elapsed().as_secs_f32();
        self.last = Instant::now();
        self.parts.push((name.to_owned(), outcome, seconds));
    }

    /// Prints it all; false if something is not as it should be. The last line holds the counts.
    pub fn print(self, skips_fail: bool) -> bool {
        let mut all = Outcome::default();
        println!("\nSummary");
        for (name, outcome, seconds) in self.parts {
            let mark = match (outcome.failed, outcome.skips.is_empty()) {
                (0, true) => "✓",
                (0, false) => "-",
                _ => "✗",
            };
            println!(
                "  {mark} {name:<32} {:>5} passed {:>4} failed {seconds:>7.1} s",
                outcome.passed, outcome.failed
            );
            all.merge(outcome);
        }
        all.times.sort_by(|a, b| b.1.total_cmp(&a.1));
        if !all.times.is_empty() {
            println!("Slowest");
            for (name, seconds) in all.times.iter().take(SLOWEST) {
                println!("  {seconds:>6.1} s  {name}");
            }
        }
        for (title, list) in [("Failed", &all.failures), ("Skipped", &all.skips)] {
            if !list.is_empty() {
                println!("{title}");
                for line in list {
                    println!("  {line}");
                }
            }
        }
        let skipped = all.skips.len();
        if skips_fail && skipped > 0 {
            println!("With CI=true a skip is a failure.");
        }
        println!("\n{} passed, {} failed, {skipped} skipped", all.passed, all.failed);
        all.failed == 0 && (skipped == 0 || !skips_fail)
    }
}
