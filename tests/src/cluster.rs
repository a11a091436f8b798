//! The Kubernetes cluster of `cargo xtask cluster`, as its administrator uses it.
//!
//! ```no_run
//! weft_tests::cluster_story(|cluster| {
//!     let shop = cluster.namespace("shop")?;
//!     shop.apply("{apiVersion: v1, kind: Pod, metadata: {name: client}, …}")?;
//!     shop.kubectl(&["wait", "--for=condition=Ready", "pod/client"])?;
//!     assert_eq!(shop.pod("client")?.get("http://catalog/items")?.status, 200);
//!     Ok(())
//! });
//! ```

mod etcd;
mod namespace;
mod pod;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::http::{Caller, Request};
use crate::mesh::{note_failure, note_time};
use crate::process::Output;
use crate::traffic::Load;
use crate::world::built_binary;

pub use etcd::Etcd;
pub use namespace::Namespace;
pub use pod::ClusterPod;

/// Lines of each of weft's pods that are looked through when a story fails.
const READ_LINES: &str = "--tail=5000";
/// Lines of each that are shown.
const SHOWN_LINES: usize = 40;
/// What is in the access log's line of a request that was answered well: a failed one is not to be lost among those.
const ANSWERED: &str = " 200 - via_upstream ";

/// A cluster that stands.
#[derive(Debug, Clone)]
pub struct Cluster {
    kubeconfig: String,
    kubectl: PathBuf,
    xtask: PathBuf,
}

impl Cluster {
    /// The cluster that stands on this machine; brought up if there is none.
    pub fn attach() -> Result<Self> {
        let xtask = built_binary("xtask")?;
        let said = Output::of(Command::new(&xtask).args(["cluster", "up"]))?.good()?;
        let (kubeconfig, bin) = exports(&said).with_context(|| format!("no exports: {said:?}"))?;
        Ok(Self { kubeconfig, kubectl: bin.join("kubectl"), xtask })
    }

    /// A file by which any client speaks to it as its administrator.
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// `kubectl`, to be given its words.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.args(self.kubectl_words());
        command
    }

    fn kubectl_words(&self) -> [&str; 2] {
        ["--kubeconfig", &self.kubeconfig]
    }

    /// Runs `kubectl`; answers what it printed.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        let output = Output::of(self.kubectl_command().args(words))?;
        output.good().with_context(|| format!("kubectl {}", words.join(" ")))
    }

    /// `kubectl get … -o json`.
    pub fn get(&self, words: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "--output=json"];
        all.extend(words);
        Ok(serde_json::from_str(&self.kubectl(&all)?)?)
    }

    /// `kubectl apply` of these manifests.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        self.feed(&["apply", "--filename=-"], yaml).map(drop)
    }

    /// Runs `kubectl` with something to read.
    pub fn feed(&self, words: &[&str], text: &str) -> Result<String> {
        let mut command = self.kubectl_command();
        let mut child = command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("no stdin")?.write_all(text.as_bytes())?;
        let output = child.wait_with_output()?;
        let (said, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "kubectl {}: {} {}", words.join(" "), error.trim(), said.trim());
        Ok(said.into_owned())
    }

    /// Waits until a Deployment, a DaemonSet or a StatefulSet (`deployment/NAME`) is as its manifest says.
    pub fn rolled_out(&self, namespace: &str, what: &str) -> Result<()> {
        self.kubectl(&["--namespace", namespace, "rollout", "status", what, "--timeout=180s"]).map(drop)
    }

    /// Runs the built `weft` against the cluster.
    pub fn weft(&self, words: &[&str]) -> Result<Output> {
        Output::of(self.weft_command()?.args(words))
    }

    /// The same, to be given its words and run by the caller.
    pub fn weft_command(&self) -> Result<Command> {
        let mut command = Command::new(built_binary("weft")?);
        command.env("KUBECONFIG", &self.kubeconfig);
        Ok(command)
    }

    /// Runs a command on a node.
    pub fn on_node(&self, node: &str, words: &[&str]) -> Result<Output> {
        Output::of(self.xtask(&["cluster", "exec", node, "--"]).args(words))
    }

    /// Switches a node off: its processes end where they stand.
    pub fn stop_node(&self, node: &str) -> Result<()> {
        Output::of(&mut self.xtask(&["cluster", "node", "stop", node]))?.good().map(drop)
    }

    /// Switches it on again.
    pub fn start_node(&self, node: &str) -> Result<()> {
        Output::of(&mut self.xtask(&["cluster", "node", "start", node]))?.good().map(drop)
    }

    /// Ends the API server where it stands.
    pub fn stop_apiserver(&self) -> Result<()> {
        Output::of(&mut self.xtask(&["cluster", "apiserver", "stop"]))?.good().map(drop)
    }

    /// Starts it again, and waits until it is ready.
    pub fn start_apiserver(&self) -> Result<()> {
        self.start_apiserver_with(&[])
    }

    /// The same, with more flags of its own.
    pub fn start_apiserver_with(&self, flags: &[&str]) -> Result<()> {
        let mut command = self.xtask(&["cluster", "apiserver", "start", "--"]);
        Output::of(command.args(flags))?.good().map(drop)
    }

    /// Ends the controller manager: objects stay as they are until it is started again.
    pub fn stop_controllers(&self) -> Result<()> {
        Output::of(&mut self.xtask(&["cluster", "controllers", "stop"]))?.good().map(drop)
    }

    /// Starts it again.
    pub fn start_controllers(&self) -> Result<()> {
        Output::of(&mut self.xtask(&["cluster", "controllers", "start"]))?.good().map(drop)
    }

    /// Where the API server keeps all objects.
    pub fn etcd(&self) -> Etcd {
        Etcd::beside(&self.kubeconfig)
    }

    /// A request from outside of the cluster.
    pub fn http(&self, url: &str) -> Request {
        Request::new(Caller { name: "outside".to_owned(), words: Vec::new() }, url)
    }

    /// Starts `weft-app load ARGS…` outside of the cluster.
    pub fn load(&self, args: &[&str]) -> Result<Load> {
        Load::start(Command::new(built_binary("weft-app")?).arg("load").args(args))
    }

    fn xtask(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.xtask);
        command.args(words);
        command
    }

    /// A namespace for one story, new and empty, gone when it is dropped.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        Namespace::create(self.clone(), name)
    }

    /// What a person would look at first.
    fn explain_failure(&self) -> String {
        let mut text = String::new();
        for words in [
            &[
                "logs",
                "--namespace=weft-system",
                "--selector=app.kubernetes.io/name=weft-agent",
                "--prefix",
                READ_LINES,
            ][..],
            &[
                "logs",
                "--namespace=weft-system",
                "--selector=app.kubernetes.io/name=weft-controller",
                "--prefix",
                READ_LINES,
            ],
            &["get", "pods", "--all-namespaces", "--output=wide"],
            &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"],
        ] {
            let said = self.kubectl(words).unwrap_or_else(|error| format!("{error:#}"));
            // Writing to a string cannot fail.
            let _ = writeln!(text, "--- kubectl {}:\n{}", words.join(" "), last_of_each(&said));
        }
        text
    }
}

/// The last lines of each namespace or pod, which the first word names.
fn last_of_each(said: &str) -> String {
    let mut of_each = BTreeMap::<&str, usize>::new();
    let mut lines: Vec<&str> = said
        .lines()
        .rev()
        .filter(|line| !line.contains(ANSWERED))
        .filter(|line| {
            let seen = of_each.entry(line.split(' ').next().unwrap_or_default()).or_default();
            *seen += 1;
            *seen <= SHOWN_LINES
        })
        .collect();
    lines.reverse();
    lines.join("\n")
}

/// The kubeconfig, and the folder in front of `PATH`.
fn exports(said: &str) -> Option<(String, PathBuf)> {
    let rest = said.lines().find_map(|line| line.strip_prefix("export KUBECONFIG="))?;
    let (kubeconfig, path) = rest.split_once(" PATH=")?;
    Some((kubeconfig.to_owned(), path.split(':').next()?.into()))
}

/// Plays a story on the cluster, and fails with what its pods said, and last what went wrong: whoever sees but the end
/// of the output sees that.
///
/// # Panics
/// When the story does not end well.
pub fn cluster_story(play: impl FnOnce(&Cluster) -> Result<()>) {
    let start = Instant::now();
    let cluster = Cluster::attach().expect("a cluster");
    if let Err(error) = play(&cluster) {
        note_failure(&error);
        panic!("{}{error:#}", cluster.explain_failure());
    }
    note_time(start.elapsed());
}

#[cfg(test)]
mod tests {
    #[test]
    fn exports_are_read() {
        let said = "export KUBECONFIG=/a/admin.conf PATH=/b/bin:$PATH\n";
        assert_eq!(super::exports(said), Some(("/a/admin.conf".to_owned(), "/b/bin".into())));
        assert_eq!(super::exports("no cluster\n"), None);
    }
}
