//! What the agent answers over HTTP: the admin API on a unix socket that only root reaches; metrics and readiness on TCP, to the
//! node itself and to who is named, and, where wanted, the registry, to everybody. Runs on the control runtime; traffic never
//! waits for it.

mod answers;
mod callers;
mod ports;
mod registry;
mod scrape;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use weft_api::admin::{Applied, ExplainRequest, TapEvent, TapFilter, WaitApplied, paths};
use weft_datapath::DatapathStatus;

use crate::agent::{Message, Shared};

pub use callers::{DEFAULT_READERS, NotAReader, Readers};
pub use ports::{serve_metrics, serve_readiness};
pub use registry::serve_registry;

/// Connections that one listener serves at a time.
const CONNECTIONS: usize = 64;
/// Longest wait for a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest body of a request.
const BODY_BYTES: usize = 1 << 20;
/// Longest wait that `wait-applied` grants.
const LONGEST_WAIT: Duration = Duration::from_hours(1);
/// Longest wait for the kernel's counters.
const DATAPATH_ANSWER: Duration = Duration::from_millis(250);
/// How much of a tap is written at once.
const TAP_BATCH_BYTES: usize = 32 << 10;

type Answer = Response<Either<Full<Bytes>, Chunks>>;

/// Serves the admin API.
pub async fn serve_admin(listener: UnixListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::task::spawn_local(async move {
                    let _permit = permit;
                    serve(stream, HEADER_TIMEOUT, async |request| admin(request, shared.clone()).await).await;
                });
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// Out of file descriptors, most likely: wait a moment rather than spin.
async fn pause(error: &std::io::Error) {
    tracing::warn!(%error, "cannot accept");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn serve<S>(stream: S, header_timeout: Duration, answer: impl AsyncFn(Request<Incoming>) -> Answer)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(async |request| Ok::<_, Infallible>(answer(request).await));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the agent ended badly");
    }
}

async fn admin(request: Request<Incoming>, shared: Arc<Shared>) -> Answer {
    let get = request.method() == Method::GET;
    let post = request.method() == Method::POST;
    let path = request.uri().path().to_owned();
    match &*path {
        paths::STATUS if get => {
            let datapath = datapath(&shared, DATAPATH_ANSWER).await;
            aside(move || json(&answers::status(&shared, datapath.as_ref()))).await
        }
        paths::ROUTES if get => aside(move || json(&answers::routes(&shared))).await,
        paths::ENDPOINTS if get => aside(move || json(&answers::endpoints(&shared))).await,
        paths::WORKLOADS if get => aside(move || json(&answers::workloads(&shared))).await,
        paths::EDGES if get => aside(move || json(&shared.telemetry.edges())).await,
        paths::POLICIES if get => aside(move || json(&answers::policies(&shared))).await,
        paths::SECRETS if get => aside(move || json(&answers::secrets(&shared))).await,
        paths::GATEWAYS if get => aside(move || json(&answers::gateways(&shared))).await,
        paths::CERTIFICATES if get => json(&answers::certificates(&shared)),
        paths::WAIT_APPLIED if post => match read::<WaitApplied>(request).await {
            Ok(wait) => json(&wait_applied(&shared, &wait).await),
            Err(answer) => answer,
        },
        paths::EXPLAIN if post => match read::<ExplainRequest>(request).await {
            Ok(question) => match answers::explanation(&shared, &question) {
                Ok(explanation) => json(&explanation),
                Err(problem) => text(StatusCode::UNPROCESSABLE_ENTITY, format!("{problem}\n")),
            },
            Err(answer) => answer,
        },
        paths::TAP if post => match read::<TapFilter>(request).await {
            Ok(filter) => tap(&shared, filter),
            Err(answer) => answer,
        },
        paths::STATUS
        | paths::ROUTES
        | paths::ENDPOINTS
        | paths::WORKLOADS
        | paths::CERTIFICATES
        | paths::POLICIES
        | paths::GATEWAYS
        | paths::SECRETS
        | paths::EDGES => only("GET"),
        paths::WAIT_APPLIED | paths::EXPLAIN | paths::TAP => only("POST"),
        _ => text(
            StatusCode::NOT_FOUND,
            format!("this agent ({}) knows no {path}\n", env!("CARGO_PKG_VERSION")),
        ),
    }
}

/// Makes a long answer on another thread, so that nobody's readiness waits for it.
async fn aside(make: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    let made = tokio::task::spawn_blocking(make).await;
    made.unwrap_or_else(|error| text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
}

/// What the kernel's side counts, unless the control thread is busy.
async fn datapath(shared: &Shared, patience: Duration) -> Option<DatapathStatus> {
    let (reply, answer) = oneshot::channel();
    shared.control.send(Message::Datapath(reply)).ok()?;
    tokio::time::timeout(patience, answer).await.ok()?.ok()
}

async fn wait_applied(shared: &Shared, wait: &WaitApplied) -> Applied {
    let (reply, answer) = oneshot::channel();
    let timeout = Duration::from_millis(wait.timeout_ms).min(LONGEST_WAIT);
    let ended = || Applied { waiting_for: vec!["the agent is ending".to_owned()], ..Applied::default() };
    if shared.control.send(Message::Wait { reply, timeout }).is_err() {
        return ended();
    }
    answer.await.unwrap_or_else(|_| ended())
}

/// Streams events, one JSON object per line, until the listener leaves.
fn tap(shared: &Shared, filter: TapFilter) -> Answer {
    let Some(mut subscription) = shared.telemetry.tap(filter) else {
        let problem = "as many taps listen as can at a time; end one first\n".to_owned();
        return text(StatusCode::SERVICE_UNAVAILABLE, problem);
    };
    let (sender, chunks) = mpsc::channel::<Bytes>(1);
    tokio::task::spawn_local(async move {
        loop {
            let first = tokio::select! {
                event = subscription.next() => event,
                () = sender.closed() => return,
            };
            let mut batch = Vec::new();
            let mut next = Some(first);
            while let Some(event) = next {
                append(&mut batch, &event);
                next = if batch.len() < TAP_BATCH_BYTES { subscription.ready() } else { None };
            }
            if sender.send(batch.into()).await.is_err() {
                return;
            }
        }
    });
    let mut answer = Response::new(Either::Right(Chunks { chunks, broken: Arc::default() }));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    answer
}

fn append(batch: &mut Vec<u8>, event: &TapEvent) {
    // Events hold nothing that JSON cannot say.
    if serde_json::to_writer(&mut *batch, event).is_ok() {
        batch.push(b'\n');
    }
}

/// A body that arrives through a channel.
#[derive(Debug)]
pub struct Chunks {
    chunks: mpsc::Receiver<Bytes>,
    /// It ends here, and not because all was said.
    broken: Arc<AtomicBool>,
}

/// A body that could not be written to its end.
#[derive(Debug, thiserror::Error)]
#[error("the answer could not be written to its end")]
pub struct Broken;

impl Body for Chunks {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.chunks.poll_recv(context).map(|chunk| match chunk {
            Some(bytes) => Some(Ok(Frame::data(bytes))),
            None => self.broken.load(Ordering::Acquire).then_some(Err(Broken)),
        })
    }
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Answer> {
    let bytes = Limited::new(request.into_body(), BODY_BYTES)
        .collect()
        .await
        .map_err(|error| text(StatusCode::BAD_REQUEST, format!("cannot read the request: {error}\n")))?
        .to_bytes();
    let bytes = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
    serde_json::from_slice(&bytes)
        .map_err(|error| text(StatusCode::BAD_REQUEST, format!("cannot understand the request: {error}\n")))
}

fn json<T: Serialize>(value: &T) -> Answer {
    match serde_json::to_string(value) {
        Ok(body) => respond(StatusCode::OK, HeaderValue::from_static("application/json"), body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot say it in JSON: {error}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Answer {
    respond(status, HeaderValue::from_static("text/plain; charset=utf-8"), body)
}

fn only(method: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {method}\n"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    answer
}

fn respond(status: StatusCode, kind: HeaderValue, body: String) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}
