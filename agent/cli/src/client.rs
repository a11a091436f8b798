//! Asks an agent: HTTP over the unix socket in its run directory, a fresh connection for each question.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// How long an answer may take that nobody asked to wait for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which agent to ask.
#[derive(Debug, Clone, Args)]
pub struct AgentAt {
    /// Run directory of the agent to ask (on this node)
    #[arg(long, value_name = "DIR", env = "WEFT_RUN_DIR", default_value = "/run/weft")]
    pub run_dir: PathBuf,
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

/// Runs a command's questions.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?.block_on(work)
}

impl AgentAt {
    /// Gets a value.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let body = self.send(Method::GET, path, Bytes::new());
        parse(tokio::time::timeout(PATIENCE, body).await.map_err(|_| self.silent())??).await
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
        tokio::time::timeout(patience + PATIENCE, answer).await.map_err(|_| self.silent())?
    }

    /// Asks a question whose answer is a stream.
    pub async fn stream(&self, path: &str, question: &impl Serialize) -> anyhow::Result<Incoming> {
        let body = serde_json::to_vec(question)?;
        let answer = self.send(Method::POST, path, body.into());
        let answer = tokio::time::timeout(PATIENCE, answer).await.map_err(|_| self.silent())??;
        Ok(good(answer).await?.into_body())
    }

    fn silent(&self) -> anyhow::Error {
        anyhow!("the agent at {} does not answer", self.run_dir.display())
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Response<Incoming>> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.context("the agent does not speak HTTP")?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "weft")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        sender.send_request(request).await.context("the agent ended while it was asked")
    }

    async fn connect(&self) -> Result<UnixStream, Unreachable> {
        let dir = self.run_dir.clone();
        UnixStream::connect(self.run_dir.join("admin.sock")).await.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Unreachable::Nobody { dir },
            io::ErrorKind::PermissionDenied => Unreachable::Forbidden { dir },
            _ => Unreachable::Other { dir, source },
        })
    }
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
