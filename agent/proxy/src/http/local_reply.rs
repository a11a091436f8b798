//! Answers of weft's own, in Envoy's words. A gRPC client gets them as a gRPC status.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::headers;
use crate::error::{Error, Kind};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Says to clients that trying again soon is of no use, as Envoy does.
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Answers a failure, and notes it.
pub(super) fn failure(exchange: &Rc<Exchange>, error: &Error) -> Response<ResponseBody> {
    let down = &exchange.down;
    tracing::debug!(peer = %down.peer, dialled = %down.dialled, %error, side = ?error.kind.side(), "request failed");
    exchange.note(|outcome| {
        if let Some(flag) = error.kind.flag() {
            outcome.flag(flag);
        }
        // A refusal says by itself who refused.
        outcome.details = if error.refusal().is_some() { "" } else { error.kind.details() };
        outcome.upstream.refused = error.refusal().cloned().map(Box::new);
        outcome.failure = error.cause();
    });
    let body = match error.body() {
        std::borrow::Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        std::borrow::Cow::Owned(text) => Bytes::from(text),
    };
    let mut headers = HeaderMap::new();
    if error.kind == Kind::Overloaded {
        headers.insert(OVERLOADED, HeaderValue::from_static("true"));
    }
    plain_with(exchange, error.kind.status(), headers, body)
}

/// Answers with a status and a text.
pub(super) fn plain(exchange: &Rc<Exchange>, status: StatusCode, body: Bytes) -> Response<ResponseBody> {
    plain_with(exchange, status, HeaderMap::new(), body)
}

/// As [`plain`], with headers besides. A gRPC client gets them too.
pub(super) fn plain_with(
    exchange: &Rc<Exchange>,
    status: StatusCode,
    mut headers: HeaderMap,
    body: Bytes,
) -> Response<ResponseBody> {
    if exchange.grpc {
        let mut response = grpc(exchange, grpc_status(status), &body);
        headers.remove(CONTENT_TYPE);
        response.headers_mut().extend(headers);
        return response;
    }
    if !body.is_empty() {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"));
    }
    with_headers(exchange, status, headers, body)
}

/// Answers with a gRPC status: headers alone.
pub(super) fn grpc(exchange: &Rc<Exchange>, status: u32, message: &[u8]) -> Response<ResponseBody> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(status));
    if !message.is_empty()
        && let Ok(message) = HeaderValue::from_str(&percent_encode(message))
    {
        headers.insert(GRPC_MESSAGE, message);
    }
    exchange.note(|outcome| outcome.grpc_status = Some(status));
    with_headers(exchange, StatusCode::OK, headers, Bytes::new())
}

/// Answers with headers as given.
pub(super) fn with_headers(
    exchange: &Rc<Exchange>,
    status: StatusCode,
    mut headers: HeaderMap,
    body: Bytes,
) -> Response<ResponseBody> {
    headers::sign(&mut headers);
    exchange.note(|outcome| outcome.status = status.as_u16());
    let mut response = Response::new(ResponseBody::own(body, Rc::clone(exchange)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The gRPC status that a status of HTTP means, as Envoy and gRPC's own clients map it: a proxy that gave up waiting makes
/// the service unavailable (14), and says nothing of the caller's deadline.
/// <https://github.com/grpc/grpc/blob/v1.70.0/doc/http-grpc-status-mapping.md>
fn grpc_status(status: StatusCode) -> u32 {
    match status.as_u16() {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// `grpc-message` is percent-encoded ASCII. <https://github.com/grpc/grpc/blob/v1.70.0/doc/PROTOCOL-HTTP2.md>
fn percent_encode(message: &[u8]) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(message.len());
    for &byte in message {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(byte.into());
        } else {
            encoded.write_fmt(format_args!("%{byte:02X}")).unwrap_or_default();
        }
    }
    encoded
}
