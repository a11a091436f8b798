//! The cluster's processes: written down by name, so that any later command finds them.

use std::fs::{self, OpenOptions};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use weft_tests::process::Recorded;

use super::layout;

/// Starts `command` as `name`, to outlive this program. What it says is in the log of that name.
pub fn start(name: &str, command: &mut Command) -> Result<()> {
    let log = layout::log(name);
    let output = OpenOptions::new().create(true).append(true).open(&log);
    let output = output.with_context(|| format!("cannot write {}", log.display()))?;
    let child = command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let process = Recorded::of(child.id()).with_context(|| format!("{name} has ended at once"))?;
    let file = layout::state("processes").join(name);
    fs::write(&file, process.to_string()).with_context(|| format!("cannot write {}", file.display()))
}

/// A program in a session of its own: Ctrl-C and the end of a terminal are not for it.
pub fn session(program: &std::path::Path) -> Command {
    let mut command = Command::new("setsid");
    command.arg(program);
    command
}

/// The process of that name, if it is written down.
pub fn recorded(name: &str) -> Option<Recorded> {
    Recorded::read(&fs::read_to_string(layout::state("processes").join(name)).ok()?)
}

/// The process of that name, if it runs.
pub fn running(name: &str) -> Option<Recorded> {
    recorded(name).filter(Recorded::is_alive)
}
