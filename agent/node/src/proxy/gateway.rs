//! What comes to a gateway pod: the node's agent serves it from inside the pod's namespace, by the Gateways that select the
//! pod and the VirtualServices bound to these. The pod's own program serves nothing there.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::connection::Downstream;
use super::stream::Stream;
use super::worker::Core;
use super::{detect, http};
use crate::datapath::LocalPod;

/// Whether a Gateway has this port of the pod.
pub(super) fn serves(core: &Core, pod: &LocalPod, port: u16) -> bool {
    core.shared.snapshot.load().gateway_port(&pod.network.key, port).is_some()
}

/// Serves a connection from outside: each request is decided upon by the pod's own policies, then by the rules.
pub(super) async fn arrive(
    core: &Rc<Core>,
    pod: &Arc<LocalPod>,
    mut stream: Stream,
    peer: SocketAddr,
    to: SocketAddr,
) {
    let down = Downstream::at_gateway(Rc::clone(core), Arc::clone(pod), peer, to);
    if let Some(first) = detect::http_version(&mut stream).await {
        http::serve(down, stream, first).await;
    }
}
