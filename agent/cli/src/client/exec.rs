//! An agent in a cluster, reached as `kubectl exec … weft relay` does.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::anyhow;
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use kube::client::UpgradeConnectionError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Join, ReadBuf, ReadHalf, SimplexStream, WriteHalf};
use tokio::sync::watch;
use weft_api::names::NAMESPACE;

/// Longest wait for the last words of a relay that has failed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The pod of an agent.
#[derive(Clone)]
pub struct AgentPod {
    /// The agent's node.
    pub node: String,
    pods: Api<Pod>,
    name: String,
    containers: Vec<String>,
}

impl std::fmt::Debug for AgentPod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentPod").field("node", &self.node).field("name", &self.name).finish_non_exhaustive()
    }
}

impl AgentPod {
    /// The pod `name` on `node`; its agent is reached by any of these containers that runs.
    pub fn new(pods: Api<Pod>, node: String, name: String, containers: Vec<String>) -> Self {
        Self { node, pods, name, containers }
    }

    /// Does something in the first container where it works; else, what the likeliest of them said tells most.
    pub async fn in_any<T>(
        &self,
        mut attempt: impl AsyncFnMut(&str) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut said = None;
        for container in &self.containers {
            match attempt(container).await {
                Ok(done) => return Ok(done),
                Err(error) => _ = said.get_or_insert(error),
            }
        }
        Err(said.unwrap_or_else(|| anyhow!("pod {} has no container", self.name)))
    }

    /// Starts a relay to the agent's socket in one of the containers.
    pub async fn dial(&self, container: &str) -> anyhow::Result<Relayed> {
        let how = AttachParams::default().container(container).stdin(true).stdout(true).stderr(true);
        let mut process =
            self.pods.exec(&self.name, ["/weft", "relay"], &how).await.map_err(|e| self.told(e))?;
        let no_stream = || anyhow!("the API server gave no stream to pod {}", self.name);
        let (output, input) = (process.stdout(), process.stdin());
        let stream = tokio::io::join(output.ok_or_else(no_stream)?, input.ok_or_else(no_stream)?);
        let stderr = process.stderr().ok_or_else(no_stream)?;
        let ended = process.take_status();
        let words = Arc::new(Mutex::new(String::new()));
        let (over, is_over) = watch::channel(false);
        tokio::spawn(listen(stderr, ended, words.clone(), over));
        Ok(Relayed { stream, _process: process, complaint: Complaint { words, is_over } })
    }

    /// Runs a weft command that says something in the first container that does; its standard output.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        self.in_any(async |container| self.run_in(container, args).await).await
    }

    async fn run_in(&self, container: &str, args: &[&str]) -> anyhow::Result<String> {
        let how = AttachParams::default().container(container).stdout(true).stderr(false);
        let command = std::iter::once("/weft").chain(args.iter().copied());
        let mut process =
            self.pods.exec(&self.name, command, &how).await.map_err(|error| self.told(error))?;
        let mut text = String::new();
        if let Some(mut output) = process.stdout() {
            output.read_to_string(&mut text).await?;
        }
        // A container that has ended says so elsewhere.
        anyhow::ensure!(!text.is_empty(), "the command says nothing in pod {}", self.name);
        Ok(text)
    }

    fn told(&self, error: kube::Error) -> anyhow::Error {
        use UpgradeConnectionError::ProtocolSwitch;
        let forbidden = || {
            anyhow!(
                "not allowed to ask the agent of node {}: that takes the right to get and create pods/exec in namespace {NAMESPACE}",
                self.node
            )
        };
        match error {
            kube::Error::Api(status) if status.code == StatusCode::FORBIDDEN.as_u16() => forbidden(),
            kube::Error::UpgradeConnection(ProtocolSwitch(StatusCode::FORBIDDEN)) => forbidden(),
            kube::Error::UpgradeConnection(ProtocolSwitch(status)) => {
                anyhow!("cannot run a command in pod {} on node {}: {status}", self.name, self.node)
            }
            kube::Error::Api(status) => {
                anyhow!("cannot run a command in pod {} on node {}: {}", self.name, self.node, status.message)
            }
            error => anyhow!(error).context(format!("cannot run a command in pod {}", self.name)),
        }
    }
}

/// Gathers what a relay says when it fails.
async fn listen(
    mut stderr: ReadHalf<SimplexStream>,
    ended: Option<impl Future<Output = Option<Status>>>,
    words: Arc<Mutex<String>>,
    over: watch::Sender<bool>,
) {
    let mut text = String::new();
    let _ = (&mut stderr).take(4_096).read_to_string(&mut text).await;
    if let Some(ended) = ended
        && let Some(status) = ended.await
        && text.trim().is_empty()
        && status.status.as_deref() == Some("Failure")
    {
        text = status.message.unwrap_or_default();
    }
    *words.lock().unwrap_or_else(PoisonError::into_inner) = text;
    let _ = over.send(true);
}

/// What a relay said before it ended.
#[derive(Debug, Clone)]
pub struct Complaint {
    words: Arc<Mutex<String>>,
    is_over: watch::Receiver<bool>,
}

impl Complaint {
    /// The relay's words, or else `error`.
    pub async fn or(mut self, error: anyhow::Error) -> anyhow::Error {
        let _ = tokio::time::timeout(LAST_WORDS, self.is_over.wait_for(|over| *over)).await;
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        match words.trim().trim_start_matches("weft: ") {
            "" => error,
            words => anyhow!("{words}"),
        }
    }
}

/// A stream to an agent's socket.
pub struct Relayed {
    stream: Join<ReadHalf<SimplexStream>, WriteHalf<SimplexStream>>,
    /// It ends with this.
    _process: AttachedProcess,
    complaint: Complaint,
}

impl Relayed {
    /// Where to look when nothing comes.
    pub fn complaint(&self) -> Complaint {
        self.complaint.clone()
    }
}

impl AsyncRead for Relayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Relayed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
