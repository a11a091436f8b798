//! Asks agents: HTTP over the unix socket in an agent's run directory, a fresh connection for each question. An agent of a
//! cluster is reached by a command in its pod that relays to that socket: who may do that, Kubernetes decides.

mod exec;
mod place;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

pub use place::AgentAt;

use exec::AgentPod;

/// How long an answer may take that nobody asked to wait for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where a command must be started first, by the API server, a kubelet and a container runtime.
const PATIENCE_IN_POD: Duration = Duration::from_secs(30);

/// An agent that can be asked.
#[derive(Debug, Clone)]
pub enum Agent {
    /// On this machine.
    Here {
        /// Its run directory.
        run_dir: PathBuf,
    },
    /// In a cluster.
    InPod(Box<AgentPod>),
}

/// Nobody answers.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// No agent runs there.
    #[error(
        "no agent runs at {dir} (start one with `weft agent --standalone DIR --run-dir {dir}`, or name another with --run-dir)",
        dir = dir.display()
    )]
    Nobody {
        /// The run directory.
        dir: PathBuf,
    },
    /// Not for us to ask.
    #[error("not allowed to ask the agent at {dir} (run this as root: sudo weft …)", dir = dir.display())]
    Forbidden {
        /// The run directory.
        dir: PathBuf,
    },
    /// Something else.
    #[error("cannot reach the agent at {dir}", dir = dir.display())]
    Other {
        /// The run directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Unreachable {
    /// What it means that a socket cannot be connected to.
    pub fn new(run_dir: &Path, source: io::Error) -> Self {
        let dir = run_dir.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::Nobody { dir },
            io::ErrorKind::PermissionDenied => Self::Forbidden { dir },
            _ => Self::Other { dir, source },
        }
    }
}

/// Runs a command's questions.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?.block_on(work)
}

impl Agent {
    /// The node, of an agent in a cluster.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Here { .. } => None,
            Self::InPod(pod) => Some(&pod.node),
        }
    }

    /// Gets a value.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let body = self.send(Method::GET, path, Bytes::new());
        parse(tokio::time::timeout(self.patience(), body).await.map_err(|_| self.silent())??).await
    }

    /// Asks a question and gets the answer, waiting as long as `patience` beyond what the question itself takes.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
        patience: Duration,
    ) -> anyhow::Result<T> {
        let body = serde_json::to_vec(question)?;
        let answer = async { parse(self.send(Method::POST, path, body.into()).await?).await };
        tokio::time::timeout(patience + self.patience(), answer).await.map_err(|_| self.silent())?
    }

    /// Asks a question whose answer is a stream.
    pub async fn stream(&self, path: &str, question: &impl Serialize) -> anyhow::Result<Incoming> {
        let body = serde_json::to_vec(question)?;
        let answer = self.send(Method::POST, path, body.into());
        let answer = tokio::time::timeout(self.patience(), answer).await.map_err(|_| self.silent())??;
        Ok(good(answer).await?.into_body())
    }

    fn patience(&self) -> Duration {
        match self {
            Self::Here { .. } => PATIENCE,
            Self::InPod(_) => PATIENCE_IN_POD,
        }
    }

    fn silent(&self) -> anyhow::Error {
        anyhow!("{self} does not answer")
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "weft")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        match self {
            Self::Here { run_dir } => {
                let stream = UnixStream::connect(socket(run_dir)).await;
                exchange(stream.map_err(|source| Unreachable::new(run_dir, source))?, request).await
            }
            Self::InPod(pod) => {
                let answer = pod.in_any(async |container| relay(pod, container, request.clone()).await);
                answer.await.with_context(|| self.to_string())
            }
        }
    }
}

async fn relay(
    pod: &AgentPod,
    container: &str,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Incoming>> {
    let relayed = pod.dial(container).await?;
    let complaint = relayed.complaint();
    match exchange(relayed, request).await {
        Err(error) => Err(complaint.or(error).await),
        answer => answer,
    }
}

impl std::fmt::Display for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Here { run_dir } => write!(f, "the agent at {}", run_dir.display()),
            Self::InPod(pod) => write!(f, "the agent of node {}", pod.node),
        }
    }
}

/// The socket of the agent with this run directory.
pub fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("admin.sock")
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.context("the agent does not speak HTTP")?;
    tokio::spawn(connection);
    sender.send_request(request).await.context("the agent ended while it was asked")
}

async fn good(answer: Response<Incoming>) -> anyhow::Result<Response<Incoming>> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = answer.into_body().collect().await?.to_bytes();
    let told = String::from_utf8_lossy(&body);
    match (status, told.trim()) {
        (StatusCode::NOT_FOUND, told) => bail!("{told}; it may be older than this command"),
        (_, "") => bail!("the agent answers {status}"),
        (_, told) => bail!("{told}"),
    }
}

async fn parse<T: DeserializeOwned>(answer: Response<Incoming>) -> anyhow::Result<T> {
    let body =
        good(answer).await?.into_body().collect().await.context("the agent ended while it answered")?;
    serde_json::from_slice(&body.to_bytes()).context("cannot understand the agent's answer")
}
