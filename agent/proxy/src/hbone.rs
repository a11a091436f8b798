//! HBONE: connections between nodes as Istio's ambient mesh has them. Each is an HTTP/2 CONNECT stream within mutual TLS,
//! from the calling pod's namespace to port 15008 of the destination pod. What ztunnel speaks, in both directions.

mod client;
mod head;
mod metadata;
mod server;
mod tunnel;

use h2::{Ping, PingPong};

pub(super) use client::{Client, GoingAway};
pub(super) use server::serve;
pub(super) use tunnel::Tunnel;

use super::limits;

/// Asks the peer now and then whether it is there; returns when it does not answer.
async fn until_silent(ping: Option<PingPong>) {
    let Some(mut ping) = ping else { return std::future::pending().await };
    loop {
        tokio::time::sleep(limits::PING_INTERVAL).await;
        match tokio::time::timeout(limits::PING_TIMEOUT, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection ends by itself, and tells why.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}
