//! Steps that take long say so: a spinner with the time on a terminal, a line at start and end elsewhere.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// How many lines of a failed step's output are shown.
const SHOWN_LINES: usize = 30;

/// A running step; ends with [`Step::done`], or as failed when it is dropped.
pub struct Step {
    bar: ProgressBar,
    what: String,
    start: Instant,
    ended: bool,
}

impl Step {
    /// Shows that `what` has begun; `estimate` is a human hint such as "about a minute".
    pub fn begin(what: &str, estimate: &str) -> Self {
        let hint = if estimate.is_empty() { String::new() } else { format!(" ({estimate})") };
        let bar = ProgressBar::new_spinner();
        if bar.is_hidden() {
            eprintln!("  … {what}{hint}");
        } else {
            let style =
                ProgressStyle::with_template("  {spinner} {msg} {elapsed}").expect("a fixed template");
            bar.set_style(style);
            bar.set_message(format!("{what}{hint}"));
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self { bar, what: what.to_owned(), start: Instant::now(), ended: false }
    }

    /// The step went well.
    pub fn done(mut self) {
        self.end("✓");
    }

    fn end(&mut self, mark: &str) {
        self.ended = true;
        self.bar.finish_and_clear();
        eprintln!("  {mark} {} [{:.1} s]", self.what, self.start.elapsed().as_secs_f32());
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end("✗");
        }
    }
}

/// Says that `what` is there already.
pub fn already(what: &str) {
    eprintln!("  ✓ {what}");
}

/// Runs `command` as a step. Its output goes to `log`, whose end is shown if it fails.
pub fn run_logged(what: &str, estimate: &str, command: &mut Command, log: &Path) -> Result<()> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir)?;
    }
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let step = Step::begin(what, estimate);
    let status = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if status.success() {
        step.done();
        return Ok(());
    }
    drop(step);
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
        eprintln!("    {line}");
    }
    bail!("{what}: {status} (all of its output: {})", log.display())
}

/// Runs `command` with its output on this terminal: cargo shows its own progress.
pub fn run_shown(what: &str, command: &mut Command) -> Result<()> {
    let start = Instant::now();
    eprintln!("  … {what}");
    let status =
        command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{what}: {status}");
    }
    eprintln!("  ✓ {what} [{:.1} s]", start.elapsed().as_secs_f32());
    Ok(())
}
