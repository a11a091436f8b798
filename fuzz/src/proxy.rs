//! What clients, and agents of other nodes, send to the proxy.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

#[path = "../../agent/proxy/src/authority.rs"]
pub(crate) mod authority;
#[path = "../../agent/proxy/src/first_bytes.rs"]
mod first_bytes;
mod hbone;
mod lean;
#[path = "../../agent/proxy/src/limits.rs"]
pub(crate) mod limits;
mod spoken;

pub use hbone::tunnels;
pub use lean::{carries, listens};
pub use spoken::is_told_by_first_bytes;

/// The port that tunnels arrive at.
pub(crate) mod tunnels {
    pub(crate) const PORT: u16 = 15008;
}

/// The pod that everything arrives at.
static ADDRESSES: LazyLock<[IpAddr; 2]> =
    LazyLock::new(|| ["10.0.0.7".parse().expect("v4"), "fd00::7".parse().expect("v6")]);

/// Whatever is asked, a tunnel leads to the pod that it arrived at.
pub fn leads_to_its_pod(authority: &str) {
    if let Some(to) = authority::destination(authority, &*ADDRESSES) {
        check(to);
    }
}

fn check(to: SocketAddr) {
    let own = [0, tunnels::PORT, weft_common::INBOUND_PORT, weft_common::OUTBOUND_PORT];
    assert!(ADDRESSES.contains(&to.ip()) && !own.contains(&to.port()), "{to}");
}
