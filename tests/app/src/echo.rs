//! A server that answers what it was asked, and misbehaves on request:
//!
//! | path | answer |
//! |---|---|
//! | `/status/N` | status N |
//! | `/sleep/MS` | as any path, that much later |
//! | `/bytes/N` | N bytes; chunked with `?chunked` |
//! | `/fail/KEY/N` | 503 (or `?status=`) to the first N requests of that KEY, then as any path |
//! | `/close`, `/hang` | closes without an answer, never answers |
//! | `/break/N` | announces 1,000,000 bytes, sends N and closes |
//! | `/sink` | reads the body; how long it was, and its trailers |
//! | `/trailers` | a chunked body with the trailer `x-trailer: end` |
//! | `/hits/PATH` | how often `/PATH` was asked for, and the last such request; not counted itself |
//! | with `upgrade:` | 101, then the bytes that come |
//! | `content-type: application/grpc` | the messages that come, as they come, then trailers |
//! | any other | the request as JSON |

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::http_server::{Args, Body, BoxError, Call, answer, full, json as as_json, serve};

/// What the server remembers.
#[derive(Default)]
struct Memory {
    /// Requests by path.
    hits: HashMap<String, (u64, Value)>,
    /// Failures still owed, by key.
    failures: HashMap<String, u64>,
}

/// Serves.
pub async fn run(args: Args) -> Result<()> {
    let memory = Arc::new(Mutex::new(Memory::default()));
    let about = Arc::new(json!({"app": args.name, "appVersion": args.version}));
    serve(&args, move |call| {
        let (memory, about) = (memory.clone(), about.clone());
        async move { respond(&memory, &about, call).await }
    })
    .await
}

async fn respond(memory: &Mutex<Memory>, about: &Value, call: Call) -> Result<Response<Body>, BoxError> {
    let uri = call.request.uri().clone();
    let query = uri.query().unwrap_or_default().to_owned();
    let parts: Vec<&str> = uri.path().trim_start_matches('/').split('/').collect();
    if parts.first() == Some(&"hits") {
        let path = format!("/{}", parts[1..].join("/"));
        let hits = memory.lock().expect("no holder panics").hits.get(&path).cloned().unwrap_or_default();
        return Ok(as_json(&json!({"count": hits.0, "last": hits.1})));
    }
    let seen = describe(about, &call);
    {
        let mut memory = memory.lock().expect("no holder panics");
        let hits = memory.hits.entry(uri.path().to_owned()).or_default();
        *hits = (hits.0 + 1, seen.clone());
    }
    if call.request.headers().contains_key(UPGRADE) {
        return upgrade(call);
    }
    let grpc = call
        .request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    if parts == ["hang"] {
        return std::future::pending().await;
    }
    if grpc {
        return Ok(grpc_echo(call.request.into_body()));
    }
    match parts.as_slice() {
        ["status", code] => Ok(answer(code.parse()?, "application/json", format!("{seen}\n"))),
        ["sleep", ms] => {
            tokio::time::sleep(Duration::from_millis(ms.parse()?)).await;
            Ok(as_json(&seen))
        }
        ["bytes", count] => Ok(many_bytes(count.parse()?, query.contains("chunked"))),
        ["fail", key, count] => {
            let count = count.parse()?;
            let owed = {
                let mut memory = memory.lock().expect("no holder panics");
                let owed = memory.failures.entry((*key).to_owned()).or_insert(count);
                let now = *owed;
                *owed = owed.saturating_sub(1);
                now
            };
            let status = query.strip_prefix("status=").map_or(Ok(503), str::parse)?;
            let status = if owed > 0 { StatusCode::from_u16(status)? } else { StatusCode::OK };
            Ok(answer(status, "application/json", format!("{seen}\n")))
        }
        ["close"] => Err(anyhow::anyhow!("asked to close")),
        ["break", count] => Ok(breaking(count.parse()?)),
        ["sink"] => sink(call.request.into_body()).await,
        ["trailers"] => Ok(with_trailers()),
        _ => {
            let body = call.request.into_body().collect().await?.to_bytes();
            let mut seen = seen;
            seen["body"] = String::from_utf8_lossy(&body).into();
            Ok(as_json(&seen))
        }
    }
}

fn describe(about: &Value, call: &Call) -> Value {
    let mut headers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in call.request.headers() {
        headers
            .entry(name.as_str())
            .or_default()
            .push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    let uri = call.request.uri();
    let mut seen = about.clone();
    seen["method"] = call.request.method().as_str().into();
    seen["path"] = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str).into();
    seen["httpVersion"] = format!("{:?}", call.request.version()).into();
    // HTTP/2 has it in `:authority`, HTTP/1.1 in `host`.
    let host = call.request.headers().get("host").and_then(|host| host.to_str().ok());
    seen["host"] = uri.authority().map(http::uri::Authority::as_str).or(host).unwrap_or_default().into();
    seen["headers"] = json!(headers);
    seen["peer"] = call.peer.to_string().into();
    seen["local"] = call.local.to_string().into();
    seen
}

fn upgrade(call: Call) -> Result<Response<Body>, BoxError> {
    let protocol = call.request.headers()[UPGRADE].clone();
    let upgraded = hyper::upgrade::on(call.request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            let (mut from, mut to) = tokio::io::split(hyper_util::rt::TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
        }
    });
    let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    Ok(response.header("connection", "upgrade").header(UPGRADE, protocol).body(full(Bytes::new()))?)
}

/// A body from frames that a task sends.
struct Frames(mpsc::Receiver<Result<Frame<Bytes>, BoxError>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx)
    }
}

/// A body, and where its frames come from; at least four may wait.
pub fn channel_body() -> (mpsc::Sender<Result<Frame<Bytes>, BoxError>>, Body) {
    let (sender, receiver) = mpsc::channel(4);
    (sender, Frames(receiver).boxed())
}

/// Messages as they come, so that both directions stream; then `grpc-status: 0`.
fn grpc_echo(mut incoming: Incoming) -> Response<Body> {
    let (sender, body) = channel_body();
    tokio::spawn(async move {
        let mut bytes = 0_usize;
        while let Some(Ok(frame)) = incoming.frame().await {
            if let Ok(data) = frame.into_data() {
                bytes += data.len();
                if sender.send(Ok(Frame::data(data))).await.is_err() {
                    return;
                }
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("grpc-message", HeaderValue::from_static("echoed"));
        trailers.insert("x-bytes", HeaderValue::from(bytes));
        let _ = sender.send(Ok(Frame::trailers(trailers))).await;
    });
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn many_bytes(count: u64, chunked: bool) -> Response<Body> {
    const CHUNK: usize = 64 * 1024;
    let (sender, body) = channel_body();
    tokio::spawn(async move {
        let chunk = Bytes::from(vec![b'w'; CHUNK]);
        let mut left = count;
        while left > 0 {
            let now = left.min(CHUNK as u64);
            left -= now;
            if sender.send(Ok(Frame::data(chunk.slice(..now as usize)))).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(body);
    if !chunked {
        response.headers_mut().insert(CONTENT_LENGTH, count.into());
    }
    response
}

fn breaking(count: u64) -> Response<Body> {
    let (sender, body) = channel_body();
    tokio::spawn(async move {
        let _ = sender.send(Ok(Frame::data(vec![b'w'; count as usize].into()))).await;
        // What was sent has to leave before the connection breaks.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = sender.send(Err(anyhow::anyhow!("asked to break"))).await;
    });
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_LENGTH, 1_000_000.into());
    response
}

fn with_trailers() -> Response<Body> {
    let (sender, body) = channel_body();
    tokio::spawn(async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-trailer", HeaderValue::from_static("end"));
        let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"hello ")))).await;
        let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"world")))).await;
        let _ = sender.send(Ok(Frame::trailers(trailers))).await;
    });
    let mut response = Response::new(body);
    response.headers_mut().insert("trailer", HeaderValue::from_static("x-trailer"));
    response
}

async fn sink(mut body: Incoming) -> Result<Response<Body>, BoxError> {
    let mut bytes = 0_u64;
    let mut trailers: BTreeMap<String, String> = BTreeMap::new();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => bytes += data.len() as u64,
            Err(frame) => {
                for (name, value) in frame.into_trailers().unwrap_or_default() {
                    let name = name.map(|name| name.to_string()).unwrap_or_default();
                    trailers.insert(name, String::from_utf8_lossy(value.as_bytes()).into_owned());
                }
            }
        }
    }
    Ok(as_json(&json!({"bytes": bytes, "trailers": trailers})))
}
