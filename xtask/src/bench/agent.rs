//! The agent under measurement: its start, and what the kernel says of it.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::world::{Node, World};
use super::{Programs, figures};

/// How long an agent may take to serve what it finds at its start.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// Memory that changes by less than this (in MiB) for so long has settled: allocators give back with delay.
const SETTLED_MIB: f64 = 0.5;
const SETTLED_FOR: Duration = Duration::from_secs(5);
const SETTLES_WITHIN: Duration = Duration::from_secs(30);

/// A running agent.
pub struct Agent<'a> {
    world: &'a World,
    weft: &'a Path,
    node: Node,
    child: Child,
    ticks_per_second: f64,
}

impl<'a> Agent<'a> {
    /// Starts a node's agent with the objects in `config` and further flags; returns it, ready, with how long that took.
    pub fn start(
        world: &'a World,
        programs: &'a Programs,
        node: Node,
        config: &Path,
        flags: &[&OsStr],
    ) -> Result<(Self, Duration)> {
        let start = Instant::now();
        let mut command = world.command(node.name, &programs.weft);
        command.arg("agent").arg("--standalone").arg(config).args(["--node", node.name]);
        command.arg("--run-dir").arg(world.run_dir(node)).args(flags);
        // As nginx, with which it is compared.
        command.env("WEFT_ACCESS_LOG", "off");
        let child = world.start(&log(node), &mut command)?;
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        let mut agent = Self { world, weft: &programs.weft, node, child, ticks_per_second };
        loop {
            let output = agent.applied()?;
            if output.status.success() {
                return Ok((agent, start.elapsed()));
            }
            if let Some(status) = agent.child.try_wait()? {
                bail!("the agent left: {status}\n{}", agent.last_words());
            }
            if start.elapsed() > READY_WITHIN {
                let said = [output.stdout, output.stderr].concat();
                let said = String::from_utf8_lossy(&said).into_owned();
                bail!("the agent is not ready: {}\n{}", said.trim(), agent.last_words());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until everything in the agent's directory is in force; returns how long that took, as a user sees it.
    pub fn wait_applied(&self) -> Result<Duration> {
        let start = Instant::now();
        let output = self.applied()?;
        let took = start.elapsed();
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("weft status: {}\n{}", String::from_utf8_lossy(&said).trim(), self.last_words());
        }
        Ok(took)
    }

    fn applied(&self) -> Result<Output> {
        Command::new(self.weft)
            .args(["status", "--wait-applied=30", "--run-dir"])
            .arg(self.world.run_dir(self.node))
            .stdin(Stdio::null())
            .output()
            .context("cannot run weft status")
    }

    /// User and system time so far.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        let ticks = figures::cpu_ticks(&stat).context("/proc/PID/stat has no times")?;
        Ok(Duration::from_secs_f64(ticks as f64 / self.ticks_per_second))
    }

    /// Resident memory in MiB, now and at its highest.
    pub fn rss_mib(&self) -> Result<(f64, f64)> {
        let status = self.proc("status")?;
        let field = |name| figures::status_mib(&status, name).context("/proc/PID/status has no memory");
        Ok((field("VmRSS")?, field("VmHWM")?))
    }

    /// Resident memory once it no longer changes, and at its highest.
    pub fn settled_rss_mib(&self) -> Result<(f64, f64)> {
        let start = Instant::now();
        let (mut settled, mut since) = (self.rss_mib()?.0, start);
        loop {
            thread::sleep(Duration::from_millis(500));
            let (now, highest) = self.rss_mib()?;
            if (now - settled).abs() > SETTLED_MIB {
                (settled, since) = (now, Instant::now());
            }
            if since.elapsed() >= SETTLED_FOR || start.elapsed() >= SETTLES_WITHIN {
                return Ok((now, highest));
            }
        }
    }

    /// That so many objects are in force, and none was refused.
    pub fn check_objects(&self, kind: &str, count: u32) -> Result<()> {
        let mut command = Command::new(self.weft);
        command.args(["status", "--output", "json", "--run-dir"]).arg(self.world.run_dir(self.node));
        let output = command.stdin(Stdio::null()).output().context("cannot run weft status")?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).context("weft status")?;
        ensure!(status["objects"][kind] == count, "of {count} {kind} in force: {}", status["objects"][kind]);
        let refused = status["refused"].as_array().map_or(0, Vec::len);
        ensure!(refused == 0, "{refused} objects are refused, the first: {}", status["refused"][0]);
        Ok(())
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).with_context(|| format!("the agent is gone\n{}", self.last_words()))
    }

    /// The end of its output.
    fn last_words(&self) -> String {
        self.world.last_words(&log(self.node))
    }
}

/// The name of its output.
fn log(node: Node) -> String {
    format!("agent-{}", node.name)
}
