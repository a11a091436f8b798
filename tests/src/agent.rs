//! `weft agent` as a process, and `weft …` asking it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;

use crate::metrics::Metrics;
use crate::network::NETNS_DIR;
use crate::process::{self, Daemon, Output};
use crate::world::{World, bpf_dir, built_binary};

/// For the agent to be ready: it loads programs into the kernel and reads the whole folder.
const START: Duration = Duration::from_mins(1);
/// For everything to be in force.
const APPLY: &str = "--wait-applied=20";

/// The flag that names who may read an agent's ports.
const METRICS_ALLOW: &str = "--metrics-allow";

/// How an agent is to be run.
#[derive(Debug, Clone)]
pub struct AgentSpec {
    /// The node that it serves.
    pub node: String,
    /// The network namespace that it lives in, and its address there; `None` for the machine's own.
    pub netns: Option<(String, Ipv4Addr)>,
    /// Further flags.
    pub flags: Vec<String>,
    /// Its number among the world's agents.
    pub number: u16,
}

/// An agent that runs, or ran.
#[derive(Debug)]
pub struct Agent {
    spec: AgentSpec,
    run_dir: PathBuf,
    bpf_dir: PathBuf,
    manifests: PathBuf,
    records: PathBuf,
    log: PathBuf,
    metrics: SocketAddr,
    readiness: SocketAddr,
    daemon: Option<Daemon>,
    /// How many processes were started beside others.
    turn: u32,
}

impl Agent {
    /// Starts an agent on `manifests`; [`Agent::ready`] waits until it serves.
    pub fn spawned(world: &World, manifests: &Path, spec: AgentSpec) -> Result<Self> {
        let dir = world.dir().join("agents").join(&spec.node);
        fs::create_dir_all(&dir)?;
        let port = 20_000 + u16::from(world.index()) * 20 + spec.number * 2;
        let address = spec.netns.as_ref().map_or(Ipv4Addr::LOCALHOST, |(_, address)| *address);
        let mut agent = Self {
            run_dir: dir.join("run"),
            bpf_dir: bpf_dir(world.label(), &spec.node),
            manifests: manifests.to_path_buf(),
            records: world.records(),
            log: dir.join("agent.log"),
            metrics: (address, port).into(),
            readiness: (address, port + 1).into(),
            spec,
            daemon: None,
            turn: 0,
        };
        agent.spawn()?;
        Ok(agent)
    }

    /// Starts the process again after its end; does not wait for readiness.
    pub fn spawn(&mut self) -> Result<()> {
        self.daemon = Some(self.start(&[])?);
        Ok(())
    }

    /// Starts another process beside the one that runs, to take over from it with further flags, and waits until it has.
    /// Answers the one before, which goes on with the connections that it has.
    pub fn upgrade(&mut self, flags: &[&str]) -> Result<Daemon> {
        let mut before = self.beside(flags)?;
        let daemon = self.daemon.as_mut().context("the agent does not run")?;
        std::mem::swap(&mut before, daemon);
        let id = self.id()?;
        crate::eventually("handover", START, || {
            let daemon = self.daemon.as_mut().context("the agent does not run")?;
            if let Some(code) = daemon.ended()? {
                return Ok(Err(anyhow::anyhow!("it ended with {code}: {}", daemon.errors())));
            }
            let holder = fs::read_to_string(self.run_dir.join("agent.lock"))?;
            anyhow::ensure!(holder.trim() == id.to_string(), "{holder} has the run directory");
            Ok(Ok(()))
        })??;
        self.ready()?;
        Ok(before)
    }

    /// Starts another process that is to take over from the one that runs, and is not this one's business any more.
    pub fn beside(&mut self, flags: &[&str]) -> Result<Daemon> {
        self.turn += 1;
        let name = format!("agent-{}.log", self.turn);
        self.log.set_file_name(name);
        let told = self.spec.flags.iter().any(|flag| flag == "--take-over");
        let take_over: &[&str] = if told { &[] } else { &["--take-over"] };
        self.start(&[take_over, flags].concat())
    }

    fn start(&self, flags: &[&str]) -> Result<Daemon> {
        let weft = built_binary("weft")?;
        let mut command = match &self.spec.netns {
            None => Command::new(weft),
            Some((netns, _)) => {
                // Not `ip netns exec`, which hides mounts that the agent needs.
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net={}", Path::new(NETNS_DIR).join(netns).display()))
                    .arg("--")
                    .arg(weft);
                command
            }
        };
        command.arg("agent").arg("--standalone").arg(&self.manifests);
        command.args(["--node", &self.spec.node]);
        command.arg("--run-dir").arg(&self.run_dir);
        command.arg("--bpf-dir").arg(&self.bpf_dir);
        command.args(["--metrics-addr", &self.metrics.to_string()]);
        command.args(["--readiness-addr", &self.readiness.to_string()]);
        command.args(self.own_flags()?).args(flags);
        Daemon::start(&mut command, &self.log, &self.records)
    }

    /// As the spec has them. An agent in a namespace of its own is asked from here, which is not its node.
    fn own_flags(&self) -> Result<Vec<String>> {
        let mut flags = self.spec.flags.clone();
        if self.spec.netns.is_some() {
            let here = source_towards(self.readiness)?;
            match flags.iter().position(|flag| flag == METRICS_ALLOW) {
                Some(at) => flags[at + 1] = format!("{},{here}", flags[at + 1]),
                None => flags.extend([METRICS_ALLOW.to_owned(), here.to_string()]),
            }
        }
        Ok(flags)
    }

    /// Waits until it serves.
    pub fn ready(&mut self) -> Result<()> {
        let readiness = self.readiness;
        let daemon = self.daemon.as_mut().context("the agent does not run")?;
        let outcome = crate::eventually("agent ready", START, || {
            if let Some(code) = daemon.ended()? {
                // No use in waiting for it.
                return Ok(Some(code));
            }
            let (status, body) = crate::get(readiness, "/healthz/ready")?;
            anyhow::ensure!(status == 200, "status {status}: {body}");
            Ok(None)
        });
        let errors = daemon.errors();
        match outcome {
            Ok(None) => Ok(()),
            Ok(Some(code)) => anyhow::bail!("the agent ended with {code}:\n{errors}"),
            Err(error) => Err(error.context(errors)),
        }
    }

    /// Where it keeps its socket.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Where it pins.
    pub fn bpf_dir(&self) -> &Path {
        &self.bpf_dir
    }

    /// The address of its metrics.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// The address of its readiness.
    pub fn readiness_address(&self) -> SocketAddr {
        self.readiness
    }

    /// The node that it serves.
    pub fn node(&self) -> &str {
        &self.spec.node
    }

    /// Process id.
    pub fn id(&self) -> Result<u32> {
        Ok(self.daemon.as_ref().context("the agent does not run")?.id())
    }

    /// SIGTERM; answers the exit code.
    pub fn terminate(&mut self) -> Result<i32> {
        let mut daemon = self.daemon.take().context("the agent does not run")?;
        daemon.signal(Signal::TERM)?;
        daemon.wait(Duration::from_secs(30))
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        drop(self.daemon.take().context("the agent does not run")?);
        Ok(())
    }

    /// `weft WORDS… --run-dir …`.
    pub fn weft(&self, words: &[&str]) -> Result<Output> {
        Output::of(&mut self.weft_command(words)?)
    }

    /// The same, to be run by the caller.
    pub fn weft_command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(built_binary("weft")?);
        command.args(words).arg("--run-dir").arg(&self.run_dir);
        Ok(command)
    }

    /// Waits until all that its folder holds now is in force.
    pub fn wait_applied(&self) -> Result<()> {
        self.weft(&["status", APPLY])?.good().context("weft status --wait-applied").map(drop)
    }

    /// `weft status -o json`.
    pub fn status(&self) -> Result<Value> {
        self.weft(&["status", "-o", "json"])?.json()
    }

    /// Its metrics now.
    pub fn metrics(&self) -> Result<Metrics> {
        let (status, text) = crate::get(self.metrics, "/metrics")?;
        anyhow::ensure!(status == 200, "metrics: status {status}");
        Metrics::parse(&text)
    }

    /// Its access log so far, line by line.
    pub fn access_log(&self) -> Vec<String> {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        text.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// What it said on standard error.
    pub fn errors(&self) -> String {
        fs::read_to_string(self.log.with_extension("err")).unwrap_or_default()
    }

    /// CPU time used so far.
    pub fn cpu_time(&self) -> Result<Duration> {
        process::cpu_time(self.id()?)
    }

    /// Resident memory.
    pub fn rss_bytes(&self) -> Result<u64> {
        process::rss_bytes(self.id()?)
    }
}

/// The address from which this process reaches another.
fn source_towards(to: SocketAddr) -> Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // In order, so that the kernel is left clean; dropping the process kills what does not go.
            daemon.signal(Signal::TERM).ok();
            daemon.wait(Duration::from_secs(5)).ok();
        }
    }
}
