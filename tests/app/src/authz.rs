//! An external authorizer, as Istio's sample is one, over HTTP and over gRPC on the same port. It lets pass what has the header
//! `x-ext-authz: allow`, and connections of the service account `allowed`. `/asked` tells how often it was asked.
//!
//! A request that may pass gets `x-ext-authz-check-result: allowed` and, over gRPC, `x-ext-authz-caller`; one that may not,
//! 403, or what `x-ext-authz: STATUS` says.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use prost::Message;
use serde_json::json;

use crate::echo::channel_body;
use crate::http_server::{Args, Body, BoxError, Call, answer, json as as_json, serve};

const DENIED: &str = "denied by ext_authz for not found header `x-ext-authz: allow` in the request";

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(Clone, PartialEq, Message)]
struct Attributes {
    #[prost(message, optional, tag = "1")]
    source: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    request: Option<Asked>,
}

#[derive(Clone, PartialEq, Message)]
struct Peer {
    #[prost(string, tag = "4")]
    principal: String,
}

#[derive(Clone, PartialEq, Message)]
struct Asked {
    #[prost(message, optional, tag = "2")]
    http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct HttpRequest {
    #[prost(map = "string, string", tag = "3")]
    headers: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(message, optional, tag = "2")]
    denied: Option<Denied>,
    #[prost(message, optional, tag = "3")]
    ok: Option<Allowed>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Denied {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderOption>,
    #[prost(string, tag = "3")]
    body: String,
}

#[derive(Clone, PartialEq, Message)]
struct Allowed {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderOption>,
    #[prost(string, repeated, tag = "5")]
    headers_to_remove: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct HeaderOption {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// Serves.
pub async fn run(args: Args) -> Result<()> {
    let asked = Arc::new(AtomicU32::new(0));
    serve(&args, move |call| {
        let asked = Arc::clone(&asked);
        async move { respond(&asked, call).await }
    })
    .await
}

async fn respond(asked: &AtomicU32, call: Call) -> Result<Response<Body>, BoxError> {
    let head = call.request.headers();
    if call.request.uri().path() == "/asked" {
        return Ok(as_json(&json!({"asked": asked.load(Ordering::Relaxed)})));
    }
    asked.fetch_add(1, Ordering::Relaxed);
    let grpc = head.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if grpc {
        let question = call.request.into_body().collect().await?.to_bytes();
        let question = CheckRequest::decode(question.get(5..).context("no message")?)?;
        return Ok(grpc_answer(&decide(question)));
    }
    let wish = head.get("x-ext-authz").and_then(|wish| wish.to_str().ok()).unwrap_or_default().to_owned();
    let seen = head.keys().map(http::HeaderName::as_str).collect::<Vec<_>>().join(",");
    let path = call.request.uri().path().to_owned();
    let body = call.request.into_body().collect().await?.to_bytes();
    let (status, result) = verdict(&wish);
    let text = if status == StatusCode::OK { String::new() } else { DENIED.to_owned() };
    let mut response = answer(status, "text/plain", text);
    for (name, value) in [
        ("x-ext-authz-check-result", result),
        ("x-ext-authz-check-received", &format!("{path} {seen}")),
        ("x-ext-authz-body", &String::from_utf8_lossy(&body)),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_str(value)?);
    }
    Ok(response)
}

fn verdict(wish: &str) -> (StatusCode, &'static str) {
    match wish.parse::<StatusCode>() {
        _ if wish == "allow" => (StatusCode::OK, "allowed"),
        Ok(status) => (status, "denied"),
        Err(_) => (StatusCode::FORBIDDEN, "denied"),
    }
}

fn decide(question: CheckRequest) -> CheckResponse {
    let attributes = question.attributes.unwrap_or_default();
    let caller = attributes.source.unwrap_or_default().principal;
    let header = |key: &str, value: &str| HeaderOption {
        header: Some(Header { key: key.to_owned(), value: value.to_owned() }),
    };
    let Some(http) = attributes.request.and_then(|request| request.http) else {
        let code = if caller.ends_with("/sa/allowed") { 0 } else { 7 };
        return CheckResponse { status: Some(Status { code }), denied: None, ok: None };
    };
    let (status, result) = verdict(http.headers.get("x-ext-authz").map_or("", String::as_str));
    let headers = vec![header("x-ext-authz-check-result", result), header("x-ext-authz-caller", &caller)];
    if status == StatusCode::OK {
        let ok = Allowed { headers, headers_to_remove: vec!["x-secret".to_owned()] };
        return CheckResponse { status: Some(Status { code: 0 }), denied: None, ok: Some(ok) };
    }
    let denied =
        Denied { status: Some(Status { code: status.as_u16().into() }), headers, body: DENIED.to_owned() };
    CheckResponse { status: Some(Status { code: 7 }), denied: Some(denied), ok: None }
}

fn grpc_answer(message: &CheckResponse) -> Response<Body> {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(&message.encode_to_vec());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let (frames, body) = channel_body();
    for frame in [Frame::data(framed.freeze()), Frame::trailers(trailers)] {
        frames.try_send(Ok(frame)).unwrap_or_default();
    }
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}
