//! Load from a pod, and what came of it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

/// A load generator at work in a pod.
#[derive(Debug)]
pub struct Load {
    child: Child,
}

/// What it counted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadReport {
    /// All requests.
    pub requests: u32,
    /// Those without an answer, or with one of 500 and above.
    pub failed: u32,
    /// Why, by words.
    pub errors: BTreeMap<String, u32>,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u32>,
    /// Answers by the application's version.
    pub versions: BTreeMap<String, u32>,
    /// Answers by the application's name.
    pub apps: BTreeMap<String, u32>,
    /// Longest time without a good answer.
    pub longest_gap_ms: f64,
    /// The whole run.
    pub seconds: f64,
    /// Half of the good answers took less.
    pub p50_ms: f64,
    /// 99 of 100 good answers took less.
    pub p99_ms: f64,
}

impl Load {
    /// Starts a command that comes to `weft-app load ARGS…` somewhere.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let child = child.with_context(|| format!("cannot run {}", command.get_program().display()))?;
        Ok(Self { child })
    }

    /// Ends it, if it has no end of its own, and answers what it counted.
    pub fn finish(mut self) -> Result<LoadReport> {
        drop(self.child.stdin.take());
        self.wait()
    }

    /// Waits for its own end.
    pub fn wait(mut self) -> Result<LoadReport> {
        let mut text = String::new();
        self.child.stdout.take().context("no output")?.read_to_string(&mut text)?;
        let status = self.child.wait()?;
        serde_json::from_str(&text).with_context(|| format!("load generator: {status}: {text}"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl LoadReport {
    /// A version's share of the answers, in percent.
    pub fn percent(&self, version: &str) -> f64 {
        let all: u32 = self.versions.values().sum();
        100.0 * f64::from(self.versions.get(version).copied().unwrap_or(0)) / f64::from(all.max(1))
    }

    /// Fails if any request did.
    pub fn none_failed(&self) -> Result<&Self> {
        anyhow::ensure!(self.requests > 0, "no request was sent");
        anyhow::ensure!(self.failed == 0, "{} of {} failed: {:?}", self.failed, self.requests, self.errors);
        Ok(self)
    }
}
