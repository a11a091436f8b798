//! One try of a request on one endpoint, and what its failure was.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::rc::Rc;

use http::{Request, response};
use hyper::body::Incoming;
use weft_rules::upstream::cluster::InUse;
use weft_telemetry::{ResponseFlag, Security};

use super::MeteredRequestBody as RequestBody;
use super::body::{Lease, Leased};
use super::framing;
use super::target::Escaped;
use super::upgrade::Switched;
use crate::connection::Downstream;
use crate::error::{Error, Kind};
use crate::upstream::Towards;

/// Where a try goes.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Its address, and how to get there.
    pub(super) to: Towards,
    /// Its load counts while this lives.
    pub(super) in_use: Option<InUse>,
    /// Whether it is spoken to in HTTP/2.
    pub(super) http2: bool,
}

/// A response that has begun.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its head.
    pub(super) head: response::Parts,
    /// Its body.
    pub(super) body: Incoming,
    /// What it holds until its end.
    pub(super) lease: Lease,
    /// The agent's own address on the connection.
    pub(super) local_address: Option<SocketAddr>,
    /// How both ends know each other.
    pub(super) security: Security,
    /// The socket, if this is a 101.
    pub(super) switched: Option<Switched>,
}

/// A try that got no response.
#[derive(Debug)]
pub(super) struct Failed {
    /// Why.
    pub(super) error: Error,
    /// The request, if none of it was sent.
    pub(super) unsent: Option<Box<Request<RequestBody>>>,
}

/// Sends a request to an endpoint. A kept connection that turns out to be closed is replaced without a word.
/// Dropping the future cancels the request at the endpoint.
pub(super) async fn send(
    down: &Rc<Downstream>,
    endpoint: Endpoint,
    request: Request<RequestBody>,
) -> Result<Answer, Failed> {
    if endpoint.http2 {
        send_http2(down, endpoint, request).await
    } else {
        send_http1(down, endpoint, request).await
    }
}

async fn send_http1(
    down: &Rc<Downstream>,
    endpoint: Endpoint,
    mut request: Request<RequestBody>,
) -> Result<Answer, Failed> {
    loop {
        let connecting = down.core.pool.http1(down, &endpoint.to).await;
        let mut connection = match connecting {
            Ok(connection) => connection,
            Err(error) => return Err(Failed { error, unsent: Some(Box::new(request)) }),
        };
        if request.extensions().get::<Escaped>().is_some() {
            connection.restore.set(true);
        }
        match connection.sender.try_send_request(request).await {
            Ok(response) if !framing::is_framed_plainly(response.headers()) => {
                let error = Error::new(Kind::UpstreamProtocol, "a transfer coding that weft does not know");
                return Err(Failed { error, unsent: None });
            }
            Ok(response) => {
                let (head, body) = response.into_parts();
                let local_address = connection.local_address;
                let security = connection.security.clone();
                let lease = Lease { connection: Leased::Http1(connection), in_use: endpoint.in_use };
                return Ok(Answer { head, body, lease, local_address, security, switched: None });
            }
            Err(mut failure) => match failure.take_message() {
                Some(unsent) if connection.reused => request = unsent,
                unsent => {
                    return Err(Failed {
                        error: classify(failure.into_error()),
                        unsent: unsent.map(Box::new),
                    });
                }
            },
        }
    }
}

async fn send_http2(
    down: &Rc<Downstream>,
    endpoint: Endpoint,
    mut request: Request<RequestBody>,
) -> Result<Answer, Failed> {
    let mut again = true;
    loop {
        let connecting = down.core.pool.http2(down, &endpoint.to).await;
        let stream = match connecting {
            Ok(stream) => stream,
            Err(error) => return Err(Failed { error, unsent: Some(Box::new(request)) }),
        };
        let mut sender = stream.0.sender.clone();
        match sender.try_send_request(request).await {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let local_address = stream.0.local_address;
                let security = stream.0.security.clone();
                let lease = Lease { connection: Leased::Http2(stream), in_use: endpoint.in_use };
                return Ok(Answer { head, body, lease, local_address, security, switched: None });
            }
            Err(mut failure) => match failure.take_message() {
                // The connection was closing: once more on a new one.
                Some(unsent) if std::mem::take(&mut again) => {
                    down.core.pool.forget(down, &endpoint.to, &stream.0);
                    request = unsent;
                }
                unsent => {
                    return Err(Failed {
                        error: classify(failure.into_error()),
                        unsent: unsent.map(Box::new),
                    });
                }
            },
        }
    }
}

/// What hyper's error means for the exchange.
pub(super) fn classify(error: hyper::Error) -> Error {
    let kind = if let Some(reset) = find::<h2::Error>(&error) {
        match reset.reason() {
            Some(h2::Reason::REFUSED_STREAM) => Kind::RefusedStream,
            _ if reset.is_go_away() || reset.is_io() => Kind::ConnectionTermination,
            _ if reset.is_library() => Kind::UpstreamProtocol,
            _ => Kind::RemoteReset,
        }
    } else if error.is_parse() {
        Kind::UpstreamProtocol
    } else if error.is_user() {
        // The body that was being sent broke off: the client's doing.
        Kind::DownstreamGone
    } else {
        Kind::ConnectionTermination
    };
    Error::new(kind, error)
}

/// Flag and details of a response body that broke off.
pub(super) fn broken_off(error: &hyper::Error) -> (ResponseFlag, &'static str) {
    match find::<h2::Error>(error) {
        Some(reset) if reset.is_reset() => {
            (ResponseFlag::UpstreamRemoteReset, "upstream_reset_after_response_started{remote_reset}")
        }
        Some(_) | None => (
            ResponseFlag::UpstreamConnectionTermination,
            "upstream_reset_after_response_started{connection_termination}",
        ),
    }
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
        .find_map(|error| error.downcast_ref())
}
