//! Programs that a world runs: recorded, so that a later run can end them, and ended when dropped.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::within;

/// `USER_HZ` is 100 on every architecture that weft runs on: part of the kernel's ABI.
const MS_PER_TICK: u64 = 10;

/// What a program said, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; -N for signal N.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Runs `command` to its end.
    pub fn of(command: &mut Command) -> Result<Self> {
        let name = command.get_program().display().to_string();
        let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
        Ok(Self {
            code: exit_code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Its standard output, if it ended with 0.
    pub fn good(self) -> Result<String> {
        if self.code == 0 {
            return Ok(self.stdout);
        }
        bail!("exit code {}: {} {}", self.code, self.stderr.trim(), self.stdout.trim())
    }

    /// Its standard output as JSON, whatever its exit code.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("not JSON (exit code {}): {}{}", self.code, self.stdout, self.stderr))
    }
}

/// The exit code as a shell's user thinks of it.
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
}

/// A program that runs until it is told or dropped. What it says is in files.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` and writes it down in `records`. Its output is appended to `log`, its errors to the file of
    /// that name that ends in `.err`.
    pub fn start(command: &mut Command, log: &Path, records: &Path) -> Result<Self> {
        let mut append = OpenOptions::new();
        append.create(true).append(true);
        let child = command
            .stdin(Stdio::null())
            .stdout(append.open(log)?)
            .stderr(append.open(log.with_extension("err"))?)
            // Ctrl-C is for the harness, which ends its programs in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        record(records, child.id())?;
        Ok(Self { child, log: log.to_path_buf() })
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it printed.
    pub fn output(&self) -> String {
        text_of(&self.log)
    }

    /// All that it printed as errors.
    pub fn errors(&self) -> String {
        text_of(&self.log.with_extension("err"))
    }

    /// Its exit code, if it has ended.
    pub fn ended(&mut self) -> Result<Option<i32>> {
        Ok(self.child.try_wait()?.map(exit_code))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(pid(self.id())?, signal).with_context(|| format!("cannot signal process {}", self.id()))
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Result<i32> {
        let id = self.id();
        crate::eventually(&format!("end of process {id}"), patience, || {
            self.child.try_wait()?.map(exit_code).context("still runs")
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn text_of(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// A process id as the kernel's calls want it.
pub fn pid(id: u32) -> Result<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw).with_context(|| format!("{id} is no process id"))
}

/// A process, named for good: another one may get its id, but not with the same start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Process id.
    pub id: u32,
    /// When it was started, in ticks since boot.
    start: u64,
}

impl Recorded {
    /// The process that has this id now.
    pub fn of(id: u32) -> Option<Self> {
        Some(Self { id, start: start_time(id)? })
    }

    /// Reads what its `Display` wrote.
    pub fn read(line: &str) -> Option<Self> {
        let (id, start) = line.trim().split_once(' ')?;
        Some(Self { id: id.parse().ok()?, start: start.parse().ok()? })
    }

    /// Whether it still runs. One that has ended and is not yet waited for does not.
    pub fn is_alive(&self) -> bool {
        start_time(self.id) == Some(self.start) && !is_zombie(self.id)
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive()
            && let Ok(pid) = pid(self.id)
        {
            kill_process(pid, signal).ok();
        }
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id, self.start)
    }
}

fn record(records: &Path, id: u32) -> Result<()> {
    let Some(process) = Recorded::of(id) else { return Ok(()) };
    let mut file = OpenOptions::new().create(true).append(true).open(records)?;
    Ok(writeln!(file, "{process}")?)
}

/// When a process was started, in ticks since boot.
fn start_time(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field is a name in parentheses, which may hold blanks.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Ends what is written down, where it is still the same process: agents get the time to leave in order.
pub fn end_recorded(records: &Path) {
    let recorded: Vec<Recorded> = text_of(records).lines().filter_map(Recorded::read).collect();
    end_all(&recorded, Duration::from_secs(3));
}

/// Ends these: told first, and killed after `patience`.
pub fn end_all(processes: &[Recorded], patience: Duration) {
    for process in processes {
        process.signal(Signal::TERM);
    }
    within("end", patience, || !processes.iter().any(Recorded::is_alive)).ok();
    for process in processes.iter().filter(|process| process.is_alive()) {
        end_now(process.id);
    }
}

/// Whether all of it has ended, and its parent does not know yet. Its first thread may have while others still hold its
/// sockets.
fn is_zombie(id: u32) -> bool {
    let proc = PathBuf::from(format!("/proc/{id}"));
    let others = fs::read_dir(proc.join("task")).map_or(0, |threads| threads.skip(1).count());
    others == 0 && text_of(&proc.join("stat")).contains(") Z ")
}

/// SIGKILL, and its end awaited for a while.
pub fn end_now(id: u32) {
    let Ok(pid) = pid(id) else { return };
    kill_process(pid, Signal::KILL).ok();
    within("end", Duration::from_secs(10), || start_time(id).is_none() || is_zombie(id)).ok();
}

/// CPU time that a process has used, user and system.
pub fn cpu_time(id: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * MS_PER_TICK))
}

/// Resident memory of a process.
pub fn rss_bytes(id: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// A file that is written whole or not at all: a reader never sees half of it.
pub fn write_whole(path: &Path, text: &str) -> Result<()> {
    let name = path.file_name().context("a path without a name")?.to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.new"));
    File::create(&draft)?.write_all(text.as_bytes())?;
    fs::rename(&draft, path).with_context(|| format!("cannot write {}", path.display()))
}
