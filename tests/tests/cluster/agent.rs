//! An agent, seen from outside.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use weft_tests::{Cluster, Metrics, eventually};

/// The agent of a node.
pub struct Agent<'a> {
    cluster: &'a Cluster,
    node: &'a str,
}

impl<'a> Agent<'a> {
    /// The one on that node.
    pub fn on(cluster: &'a Cluster, node: &'a str) -> Self {
        Self { cluster, node }
    }

    /// What it counts.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&self.tells("15020/metrics")?)
    }

    /// Whether what was there at its start is in force.
    pub fn is_ready(&self) -> Result<()> {
        self.tells("15021/healthz/ready").map(drop)
    }

    /// What `weft status` says on its node, for which no API server is needed.
    pub fn status_on_its_node(&self) -> Result<String> {
        let program = format!("/proc/{}/root/weft", self.process()?);
        Ok(self.cluster.on_node(self.node, &[&program, "status", "--run-dir", "/run/weft"])?.stdout)
    }

    /// What it answers to its own node: nobody else may ask.
    fn tells(&self, what: &str) -> Result<String> {
        let url = format!("http://127.0.0.1:{what}");
        self.cluster
            .on_node(self.node, &["curl", "--silent", "--show-error", "--fail-with-body", &url])?
            .good()
    }

    /// All that the API server knows is in force.
    pub fn is_current(&self) -> Result<()> {
        self.cluster.weft(&["status", "--node", self.node, "--wait-applied"])?.good().map(drop)
    }

    /// The most memory that it ever had, in bytes.
    pub fn peak(&self) -> Result<f64> {
        memory(self.cluster, self.node, &self.process()?, "VmHWM")
    }

    /// Its process, which its supervisor has started, as the node numbers it.
    pub fn process(&self) -> Result<String> {
        process(self.cluster, self.node, "/weft agent")
    }

    /// Kills it.
    pub fn kill(&self) -> Result<()> {
        self.cluster.on_node(self.node, &["kill", "-9", &self.process()?])?.good().map(drop)
    }

    /// Kills it, and waits for the next to be ready; answers how long after its own start that is.
    pub fn starts_anew(&self) -> Result<Duration> {
        let started = |metrics: &Metrics| metrics.sum("process_start_time_seconds", &[]);
        let before = started(&self.metrics()?);
        self.kill()?;
        let now = eventually("another agent", Duration::from_mins(1), || {
            let now = started(&self.metrics()?);
            ensure!(now > before, "there is the old one");
            Ok(now)
        })?;
        eventually("readiness", Duration::from_mins(1), || self.is_ready())?;
        let ready = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        Ok(Duration::from_secs_f64((ready - now).max(0.0)))
    }
}

/// A process on a node by its words, as the node numbers it.
pub fn process(cluster: &Cluster, node: &str, words: &str) -> Result<String> {
    let find = "for p in /proc/[0-9]*; do [ \"$(tr '\\0' ' ' < $p/cmdline 2>/dev/null)\" = \"$0 \" ] && echo ${p#/proc/}; done; true";
    let pids = cluster.on_node(node, &["sh", "-c", find, words])?.good()?;
    Ok(pids.split_whitespace().next().with_context(|| format!("no process {words:?}"))?.to_owned())
}

/// A process's memory in bytes, by its name in `/proc/PID/status`.
pub fn memory(cluster: &Cluster, node: &str, pid: &str, name: &str) -> Result<f64> {
    let said =
        cluster.on_node(node, &["grep", &format!("^{name}:"), &format!("/proc/{pid}/status")])?.good()?;
    Ok(said.split_whitespace().nth(1).context("no number")?.parse::<f64>()? * 1024.0)
}
