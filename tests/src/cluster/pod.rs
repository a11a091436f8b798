//! A pod of the cluster.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Cluster;
use crate::http::{Answer, Caller, Request};
use crate::process::Output;
use crate::traffic::Load;

/// Names of programs that are run in containers: each needs another one.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// A pod, as it was when it was asked for.
#[derive(Debug, Clone)]
pub struct ClusterPod {
    /// Its name.
    pub name: String,
    /// Its namespace's.
    pub namespace: String,
    /// Its node's.
    pub node: String,
    /// Its address.
    pub ip: IpAddr,
    /// Its first container's id, as the runtime knows it.
    pub container: String,
    /// How often that container was started again.
    pub restarts: u64,
    cluster: Cluster,
}

impl ClusterPod {
    /// Reads a Pod that runs.
    pub(crate) fn of(cluster: &Cluster, pod: &Value) -> Result<Self> {
        let text = |path: &str| {
            let value = pod.pointer(path).and_then(Value::as_str).map(str::to_owned);
            value.with_context(|| format!("pod {} has no {path} yet", pod["metadata"]["name"]))
        };
        let container = text("/status/containerStatuses/0/containerID")?;
        Ok(Self {
            name: text("/metadata/name")?,
            namespace: text("/metadata/namespace")?,
            node: text("/spec/nodeName")?,
            ip: text("/status/podIP")?.parse()?,
            container: container.trim_start_matches("containerd://").to_owned(),
            restarts: pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0),
            cluster: cluster.clone(),
        })
    }

    /// An address of the pod.
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    /// Runs a program in the pod to its end, by `kubectl exec`.
    pub fn exec(&self, words: &[&str]) -> Result<Output> {
        let (program, args) = words.split_first().context("no program to run")?;
        Output::of(self.caller().command(program).args(args))
    }

    /// A request, sent by `curl` in the pod.
    pub fn http(&self, url: &str) -> Request {
        Request::new(self.caller(), url)
    }

    /// GETs it from the pod.
    pub fn get(&self, url: &str) -> Result<Answer> {
        self.http(url).send()
    }

    /// Starts `weft-app load ARGS…` in the pod, past kubelet and API server: it goes on when those do not.
    pub fn load(&self, args: &[&str]) -> Result<Load> {
        let run = format!("load-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let mut command = self.cluster.xtask(&["cluster", "exec", &self.node, "--"]);
        command.args(["ctr", "-n", "k8s.io", "tasks", "exec", "--exec-id", &run, &self.container]);
        Load::start(command.args(["/app", "load"]).args(args))
    }

    /// What its containers said.
    pub fn logs(&self) -> Result<String> {
        self.cluster.kubectl(&["--namespace", &self.namespace, "logs", &self.name, "--all-containers"])
    }

    fn caller(&self) -> Caller {
        let mut words = vec![self.cluster.kubectl.display().to_string()];
        words.extend(self.cluster.kubectl_words().map(str::to_owned));
        let exec = ["--namespace", &self.namespace, "exec", &self.name, "--"];
        words.extend(exec.map(str::to_owned));
        Caller { name: format!("{}/{}", self.namespace, self.name), words }
    }
}
