//! What is accepted as the head of a tunnel: within which bounds it is read, and where it leads. Whatever else it tells of its
//! caller (`baggage`, `forwarded`, `traceparent`) decides nothing.

use std::net::{IpAddr, SocketAddr};

use http::{Method, Request};

use crate::{authority, limits};

/// How a connection is read.
pub(crate) fn builder() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits::HBONE_STREAMS)
        .initial_window_size(limits::HBONE_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HBONE_CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::HBONE_FRAME_BYTES)
        .max_header_list_size(limits::HBONE_HEADER_BYTES)
        .max_send_buffer_size(limits::HBONE_SEND_BUFFER_BYTES);
    builder
}

/// Where a tunnel leads that arrived at a pod with these addresses; `None`: it is none, or may not lead there.
pub(crate) fn destination<B>(request: &Request<B>, addresses: &[IpAddr]) -> Option<SocketAddr> {
    let authority = request.uri().authority().filter(|_| *request.method() == Method::CONNECT)?;
    authority::destination(authority.as_str(), addresses)
}
