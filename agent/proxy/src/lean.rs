//! The tunnel between two weft agents (ALPN `weft/1`): as HBONE mutual TLS to port 15008 of the destination's pod, but
//! without HTTP/2's streams and windows. A TLS connection carries one application connection after another; TCP is its
//! flow control.
//!
//! ```text
//! client                         server
//!   OPEN 10.0.0.7:8080     ──▶     policy, dials the program (`OPEN 10.0.0.7:8080 read` for requests)
//!                          ◀──     ANSWER 200          (or 400, 401, 503: the tunnel is free again)
//!   DATA* END              ◀─▶     DATA* END           (each direction by itself)
//!   OPEN …                 ──▶                         (the next)
//!                          ◀──     LEAVE               (amid DATA: the server's agent has a successor)
//! ```
//!
//! After LEAVE the connection goes on, and a client that can end it soon without losing anything does so.
//!
//! A reset, or a peer that is cut off, ends the TLS connection without END: the other side resets its own.

mod client;
mod frames;
mod leg;
mod server;
mod words;

pub(super) use client::{Kept, open};
pub(super) use leg::Leg;
pub(super) use server::serve;
