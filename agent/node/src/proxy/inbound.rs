//! What arrives for a program in a pod: admitted by the pod's policies, then read as far as those need it. Plaintext from
//! outside, tunnels, and connections between pods of this node all come through [`decide`].

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use weft_rules::guard::{ConnectionVerdict, Denial, Inbound, Mtls};
use weft_rules::identity::Identity;
use weft_rules::snapshot::{Protocol, Snapshot};
use weft_rules::workload::Workload;

use super::connection::{self, Downstream};
use super::error::{Error, Kind};
use super::stream::Stream;
use super::worker::Core;
use super::{detect, http, tcp};
use crate::datapath::LocalPod;

/// Why a caller without an identity is refused.
pub(super) const UNPROVED: &str = "the destination takes mutual TLS only (PeerAuthentication STRICT)";

/// What may happen with a connection to a program in a pod.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Its bytes may pass.
    Bytes,
    /// It speaks, or may speak, HTTP, and each request is decided upon.
    Requests(Protocol),
    /// A policy refuses it. What speaks HTTP may be told so.
    Denied {
        /// By whom.
        denial: Denial,
        /// What it speaks.
        protocol: Protocol,
    },
    /// Only callers with an identity are let in, and this one has none.
    Unproved,
}

/// Decides upon a connection. `is_probe` is asked only of one that has no identity where one is required.
pub(super) fn decide(
    core: &Rc<Core>,
    pod: &Arc<LocalPod>,
    peer: SocketAddr,
    to: SocketAddr,
    identity: Option<Arc<Identity>>,
    is_probe: impl FnOnce() -> bool,
) -> (Rc<Downstream>, Verdict) {
    let snapshot = core.shared.snapshot.load();
    let workload = connection::workload_of(&snapshot, pod);
    let identity = match snapshot.mtls(&workload, to.port()) {
        Mtls::Disable => None,
        Mtls::Strict | Mtls::Permissive => identity,
    };
    let verdict = if identity.is_none() && snapshot.mtls(&workload, to.port()) == Mtls::Strict && !is_probe()
    {
        Verdict::Unproved
    } else {
        let protocol = snapshot.inbound_protocol(&workload, to.port());
        admit(&snapshot, &workload, peer, to, identity.as_deref(), protocol)
    };
    (Downstream::inbound(Rc::clone(core), Arc::clone(pod), peer, to, identity), verdict)
}

fn admit(
    snapshot: &Snapshot,
    workload: &Workload,
    peer: SocketAddr,
    to: SocketAddr,
    identity: Option<&Identity>,
    protocol: Protocol,
) -> Verdict {
    let Some(guard) = snapshot.guard(workload) else { return Verdict::Bytes };
    let connection = Inbound { identity, peer: peer.ip().to_canonical(), to, sni: None };
    match guard.admit_connection(&connection, protocol) {
        ConnectionVerdict::Allowed => Verdict::Bytes,
        ConnectionVerdict::ByRequest => Verdict::Requests(protocol),
        ConnectionVerdict::Denied(denial) => Verdict::Denied { denial, protocol },
    }
}

/// What may happen with a connection that turned out to be bytes.
pub(super) fn decide_as_bytes(down: &Downstream) -> Verdict {
    let snapshot = down.core.shared.snapshot.load();
    let workload = connection::workload_of(&snapshot, &down.pod);
    let identity = down.identity().map(|identity| &**identity);
    admit(&snapshot, &workload, down.peer, down.dialled, identity, Protocol::Tcp)
}

/// Serves a plaintext connection from outside.
pub(super) async fn arrive(
    core: &Rc<Core>,
    pod: &Arc<LocalPod>,
    stream: Stream,
    peer: SocketAddr,
    to: SocketAddr,
) {
    let (down, verdict) = decide(core, pod, peer, to, None, || false);
    serve(down, stream, verdict).await;
}

/// Serves a connection that was decided upon.
pub(super) async fn serve(down: Rc<Downstream>, stream: Stream, verdict: Verdict) {
    match verdict {
        Verdict::Bytes => tcp::serve(&down, stream).await,
        Verdict::Requests(protocol)
        | Verdict::Denied {
            protocol: protocol @ (Protocol::Http | Protocol::Http2 | Protocol::Detect),
            ..
        } => {
            read(down, stream, protocol).await;
        }
        Verdict::Denied { denial, protocol: Protocol::Tcp } => refuse(&down, stream, &denial),
        Verdict::Unproved => {
            tcp::refuse(&down, stream, &Error::new(Kind::ConnectionTermination, UNPROVED));
        }
    }
}

/// Reads what a connection speaks: requests are admitted, or refused, one by one.
async fn read(down: Rc<Downstream>, mut stream: Stream, protocol: Protocol) {
    match protocol {
        Protocol::Http | Protocol::Http2 => {
            if let Some(first) = detect::http_version(&mut stream).await {
                http::serve(down, stream, first).await;
            }
        }
        Protocol::Detect | Protocol::Tcp => match detect::race(&down, &mut stream).await {
            detect::Spoke::Http(first) => http::serve(down, stream, first).await,
            detect::Spoke::Bytes { first, upstream } => match decide_as_bytes(&down) {
                Verdict::Bytes => tcp::serve_detected(&down, stream, first, upstream).await,
                Verdict::Denied { denial, .. } => refuse(&down, stream, &denial),
                Verdict::Requests(_) | Verdict::Unproved => stream.reset(),
            },
            detect::Spoke::Gone => {}
        },
    }
}

fn refuse(down: &Rc<Downstream>, stream: Stream, denial: &Denial) {
    tcp::refuse(down, stream, &Error::new(Kind::Denied, words(denial)));
}

/// Who refused, in words.
pub(super) fn words(denial: &Denial) -> String {
    match (&denial.policy, denial.rule) {
        (Some(policy), Some(rule)) => format!("denied by AuthorizationPolicy {policy}, rule {rule}"),
        (Some(policy), None) => format!("denied by AuthorizationPolicy {policy}"),
        (None, _) => "no AuthorizationPolicy allows it".to_owned(),
    }
}
