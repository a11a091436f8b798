//! Runs test programs, shows what they print, and reads the results from it.

use std::fs;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use super::binaries::Binary;
use super::report::Outcome;
use crate::workspace;

/// Stories of minutes: run by `--only endurance`, each bears `#[ignore]` so that plain `cargo test` leaves them out.
const ENDURANCE: &str = "endurance::";

/// Runs these programs one after the other, but for what takes minutes.
pub fn run(binaries: &[&Binary], filter: Option<&str>) -> Result<Outcome> {
    run_with(binaries, filter, &["--skip", ENDURANCE])
}

/// Runs what shares one cluster: one after the other, in the order of names.
pub fn run_on_cluster(binaries: &[&Binary], filter: Option<&str>) -> Result<Outcome> {
    run_with(binaries, filter, &["--ignored", "--nocapture", "--test-threads=1"])
}

/// Runs what takes minutes.
pub fn run_endurance(binaries: &[&Binary], filter: Option<&str>) -> Result<Outcome> {
    run_with(binaries, filter.or(Some(ENDURANCE)), &["--ignored", "--nocapture", "--test-threads=1"])
}

fn run_with(binaries: &[&Binary], filter: Option<&str>, flags: &[&str]) -> Result<Outcome> {
    let notes = workspace::target_dir()?.join("test-notes");
    let mut all = Outcome::default();
    for binary in binaries {
        fs::remove_file(&notes).ok();
        let mut command = Command::new(&binary.path);
        // As cargo would run it.
        command.current_dir(&binary.directory).env("CARGO_MANIFEST_DIR", &binary.directory);
        command.env("WEFT_TEST_NOTES", &notes).args(filter).args(flags);
        let start = Instant::now();
        all.merge(read(&binary.name, &mut command)?);
        // Stories write down their own times, and why they failed; for the others the program's time is told.
        let told = fs::read_to_string(&notes).unwrap_or_default();
        for line in told.lines() {
            match line.split_once(' ') {
                Some(("failed", why)) => {
                    let why = format!("{}: {why}", binary.name);
                    all.failures.retain(|name| !why.starts_with(&format!("{name}: ")));
                    all.failures.push(why);
                }
                Some((seconds, name)) => all.times.push((name.to_owned(), seconds.parse().unwrap_or(0.0))),
                None => {}
            }
        }
        if told.is_empty() {
            all.times.push((format!("all of {}", binary.name), start.elapsed().as_secs_f32()));
        }
    }
    Ok(all)
}

/// The examples in documentation comments.
pub fn documentation(filter: Option<&str>) -> Result<Outcome> {
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--doc", "--quiet", "--"]).args(filter);
    read("documentation", &mut command)
}

fn read(name: &str, command: &mut Command) -> Result<Outcome> {
    eprintln!("\n  … {name}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let output = child.stdout.take().context("no output")?;
    // Hundreds of good lines hide a bad one on a terminal; a log wants them all.
    let shows_good = !std::io::stdout().is_terminal();
    let mut outcome = Outcome::default();
    let mut complete = false;
    for line in BufReader::new(output).lines() {
        let line = line?;
        let good = line.starts_with("test ") && line.ends_with("... ok");
        if (shows_good || !good) && !line.is_empty() {
            println!("{line}");
        }
        if let Some((passed, failed, ignored)) = counts(&line) {
            complete = true;
            outcome.passed += passed;
            outcome.failed += failed;
            if ignored > 0 {
                outcome.skips.push(format!("{ignored} of {name} bear #[ignore]"));
            }
        }
        if let Some(test) = line.strip_prefix("test ").and_then(|line| line.strip_suffix("... FAILED")) {
            outcome.failures.push(format!("{name}: {}", test.trim()));
        }
    }
    let status = child.wait()?;
    if !status.success() && (outcome.failed == 0 || !complete) {
        outcome.failed += 1;
        outcome.failures.push(format!("{name}: {status}"));
    }
    Ok(outcome)
}

/// Passed, failed, ignored, from a test program's last line.
fn counts(line: &str) -> Option<(u32, u32, u32)> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |what: &str| {
        let words: Vec<&str> = rest.split_whitespace().collect();
        words.windows(2).find(|pair| pair[1].trim_end_matches(';') == what)?[0].parse().ok()
    };
    Some((number("passed")?, number("failed")?, number("ignored")?))
}

#[cfg(test)]
mod tests {
    use super::counts;

    #[test]
    fn the_last_line_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.1s";
        assert_eq!(counts(line), Some((12, 3, 1)));
        assert_eq!(counts("test a ... ok"), None);
    }
}
