//! What the node itself asks of a pod: its kubelet's probes and hooks. They pass mutual TLS and all policies; the rest of what
//! the node's processes say is decided upon as a stranger's.

use std::net::SocketAddr;
use std::sync::Arc;

use weft_datapath::{LocalPod, Watched};

use super::connection::Downstream;

/// Whether a process of the node itself, outside of every pod, opened a connection to a pod.
pub(super) async fn opened_by_node(pod: &LocalPod, peer: SocketAddr, to: SocketAddr) -> bool {
    let Some(opener) = pod.opener(peer, to) else { return false };
    let is_node = match pod.node().opened(opener, peer, to) {
        Ok(is_node) => is_node,
        Err(unknown) => {
            let node = Arc::clone(pod.node());
            tokio::task::spawn_blocking(move || node.look_for(&unknown)).await.unwrap_or(false)
        }
    };
    if is_node {
        match pod.is_node(opener) {
            Ok(None) => {}
            Ok(Some(watched)) => drop(tokio::task::spawn_local(watch(watched))),
            Err(error) => tracing::debug!(%peer, %error, "the kernel's side does not know the node"),
        }
    }
    is_node
}

async fn watch(watched: Watched) {
    if let Err(error) = watched.end().await {
        tracing::warn!(%error, "a process that has ended is taken for the node itself");
    }
}

/// Whether a request on a connection that the node opened is one that the pod's probes ask for. What switches to another
/// protocol is none.
pub(super) fn is_request(down: &Downstream, method: &http::Method, path: &str, upgrade: bool) -> bool {
    !upgrade && down.is_of_node() && down.own_workload().probes.ask_for(down.dialled.port(), method, path)
}

/// Whether the bytes of a connection that the node opened are what the pod's probes ask for: none at all, or TLS.
pub(super) fn are_bytes(down: &Downstream, first: &[u8]) -> bool {
    let port = down.dialled.port();
    let asked = |down: &Downstream| {
        let probes = &down.own_workload().probes;
        if first.is_empty() { probes.connect_to(port) } else { probes.begin_tls(port, first) }
    };
    down.is_of_node() && asked(down)
}
