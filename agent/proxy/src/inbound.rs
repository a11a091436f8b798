//! What arrives for a program in a pod: admitted by the pod's policies, then read as far as those need it. Plaintext from
//! outside, tunnels, and connections between pods of this node all come through [`decide`].

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use weft_api::identity::Identity;
use weft_datapath::LocalPod;
use weft_rules::guard::{ConnectionVerdict, Denial, DryRun, Guard, Inbound, Mtls};
use weft_rules::registry::protocol::Protocol;
use weft_rules::snapshot::Snapshot;
use weft_rules::snapshot::reach::Plaintext;
use weft_rules::workload::Workload;
use weft_telemetry::{Refusal, Security};

use super::connection::{self, Downstream};
use super::core::Core;
use super::error::{Error, Kind};
use super::stream::Stream;
use super::{detect, http, probe, tcp};

/// Who comes, as far as it is known.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The address.
    pub(super) peer: SocketAddr,
    /// The identity, where it is proved.
    pub(super) identity: Option<Arc<Identity>>,
    /// How it is.
    pub(super) security: Security,
    /// It is the node itself, at a port that the pod's probes name: what they ask for passes.
    pub(super) node: bool,
    /// What an agent of the mesh has seen in it.
    pub(super) seen: Seen,
}

/// What an agent of the mesh has seen in a connection that comes to a program: headers that claim an identity must not
/// reach it as their sender wrote them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nobody has looked.
    Unread,
    /// It is no HTTP, as far as its first bytes tell.
    Bytes,
    /// Its requests were read, and what callers may not claim was taken out.
    Requests,
}

/// What may happen with a connection to a program in a pod.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Its bytes may pass.
    Bytes,
    /// It speaks, or may speak, HTTP, and each request is decided upon.
    Requests(Protocol),
    /// A policy refuses it. What speaks HTTP may be told so.
    Denied {
        /// Which one.
        denial: Denial,
        /// What it speaks.
        protocol: Protocol,
    },
    /// Only callers with an identity are let in, and this one has none.
    Unproved,
}

/// Decides upon a connection.
pub(super) fn decide(
    core: &Rc<Core>,
    pod: &Arc<LocalPod>,
    to: SocketAddr,
    caller: Caller,
) -> (Rc<Downstream>, Verdict) {
    decide_at(core, pod, to, caller, Moment::Arrival)
}

/// When a connection is decided upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Nothing of it has passed.
    Arrival,
    /// It stands. Policies that are tried out end none, so as to read it.
    Standing,
}

fn decide_at(
    core: &Rc<Core>,
    pod: &Arc<LocalPod>,
    to: SocketAddr,
    mut caller: Caller,
    moment: Moment,
) -> (Rc<Downstream>, Verdict) {
    let snapshot = core.shared.snapshot.load();
    let workload = connection::workload_of(&snapshot, pod);
    let mtls = snapshot.mtls(&workload, to.port());
    if mtls == Mtls::Disable && caller.identity.take().is_some() {
        caller.security = Security::Plaintext(Plaintext::PeerAuthentication);
    }
    let unproved = mtls == Mtls::Strict && caller.identity.is_none() && !is_between(pod, &caller);
    let verdict = if caller.node {
        // Each of its requests may be a probe; what is none is decided upon then.
        Verdict::Requests(Protocol::Detect)
    } else if unproved {
        Verdict::Unproved
    } else {
        let protocol = snapshot.inbound_protocol(&workload, to.port());
        let verdict = admit(&snapshot, &workload, pod, to, &caller, protocol);
        let tried = || snapshot.guard_and_dry_runs(&workload).1.is_some();
        match verdict {
            // Each request is judged by what is tried out.
            Verdict::Bytes if protocol != Protocol::Tcp && moment == Moment::Arrival && tried() => {
                Verdict::Requests(protocol)
            }
            verdict => verdict,
        }
    };
    (Downstream::inbound(Rc::clone(core), Arc::clone(pod), to, caller), verdict)
}

/// Whether a caller without an identity may have come so because it cannot know better: nothing is asked of it then.
fn is_between(pod: &LocalPod, caller: &Caller) -> bool {
    caller.identity.is_none() && pod.is_between()
}

/// The same, of a connection that arrived.
pub(super) fn came_between(down: &Downstream) -> bool {
    down.visitor().is_some_and(|caller| is_between(&down.pod, caller))
}

fn admit(
    snapshot: &Snapshot,
    workload: &Workload,
    pod: &LocalPod,
    to: SocketAddr,
    caller: &Caller,
    protocol: Protocol,
) -> Verdict {
    let passed = match (protocol, caller.seen) {
        (Protocol::Tcp, _) | (_, Seen::Requests) | (Protocol::Detect, Seen::Bytes) => Verdict::Bytes,
        (Protocol::Http | Protocol::Http2 | Protocol::Detect, _) => Verdict::Requests(protocol),
    };
    let guard = snapshot.guard(workload).filter(|_| !is_between(pod, caller));
    let Some(guard) = guard else { return passed };
    let peer = caller.peer.ip().to_canonical();
    let connection = Inbound { identity: caller.identity.as_deref(), peer, to, sni: None };
    by_guard(guard, &connection, protocol).unwrap_or(passed)
}

/// What policies say of a connection; `None`: it may pass.
fn by_guard(guard: &Guard, connection: &Inbound<'_>, protocol: Protocol) -> Option<Verdict> {
    match guard.admit_connection(connection, protocol) {
        ConnectionVerdict::Allowed => None,
        ConnectionVerdict::ByRequest => Some(Verdict::Requests(protocol)),
        ConnectionVerdict::Denied(denial) => Some(Verdict::Denied { denial, protocol }),
    }
}

/// What may happen with a connection that was let in as bytes, by the rules that are in force now.
pub(super) fn decide_again(down: &Downstream) -> Verdict {
    let Some(caller) = down.visitor() else { return decide_as_bytes(down) };
    let (core, pod) = (&down.core, &down.pod);
    let (_, verdict) = decide_at(core, pod, down.dialled, caller.clone(), Moment::Standing);
    match verdict {
        Verdict::Requests(_) if caller.node => match decide_as_bytes(down) {
            Verdict::Bytes => Verdict::Bytes,
            _ => verdict,
        },
        // Nobody has looked what it speaks, or it was bytes.
        Verdict::Requests(Protocol::Detect) => decide_as_bytes(down),
        verdict => verdict,
    }
}

/// Whether a connection that arrived without an identity would be refused by now: STRICT also ends what it finds.
pub(super) fn is_unproved(down: &Downstream, workload: &Workload) -> bool {
    let snapshot = down.core.shared.snapshot.load();
    down.visitor().is_some_and(|caller| caller.identity.is_none())
        && !came_between(down)
        && snapshot.mtls(workload, down.dialled.port()) == Mtls::Strict
}

/// What policies that are tried out say of a connection of bytes that arrived and was let in.
pub(super) fn dry_runs(down: &Downstream) -> Vec<DryRun> {
    if !down.arrived() {
        return Vec::new();
    }
    let snapshot = down.core.shared.snapshot.load();
    let workload = connection::workload_of(&snapshot, &down.pod);
    let (guard, Some(dry_runs)) = snapshot.guard_and_dry_runs(&workload) else { return Vec::new() };
    dry_runs.judge(guard.map(|guard| &**guard), &as_policies_see(down), None)
}

/// Has an external authorizer asked about bytes that may pass otherwise, where a policy wants that.
pub(super) async fn consult(down: &Rc<Downstream>, verdict: Verdict) -> Verdict {
    if !matches!(verdict, Verdict::Bytes) || !down.arrived() || came_between(down) {
        return verdict;
    }
    let (consult, own_identity) = {
        let snapshot = down.core.shared.snapshot.load();
        let workload = connection::workload_of(&snapshot, &down.pod);
        let Some(guard) = snapshot.guard(&workload) else { return verdict };
        let Some(consult) = guard.consult_connection(&as_policies_see(down)) else { return verdict };
        (consult, workload.identity(&down.core.shared.trust_domain))
    };
    let parties = http::Parties {
        core: Rc::clone(&down.core),
        pod: Arc::clone(&down.pod),
        to: down.dialled,
        own_identity,
        peer: down.peer,
        identity: down.identity().cloned(),
        server_name: down.server_name().map(Into::into),
    };
    // Asking takes a connection, and connecting may ask.
    if Box::pin(http::admits_connection(&parties, &consult)).await {
        return verdict;
    }
    Verdict::Denied { denial: Denial { policy: Some(consult.policy), rule: None }, protocol: Protocol::Tcp }
}

/// A connection that arrived, as policies see it.
fn as_policies_see(down: &Downstream) -> Inbound<'_> {
    Inbound {
        identity: down.identity().map(|identity| &**identity),
        peer: down.peer.ip().to_canonical(),
        to: down.dialled,
        sni: down.server_name(),
    }
}

/// What may happen with a connection that arrived and turned out to be bytes.
pub(super) fn decide_as_bytes(down: &Downstream) -> Verdict {
    if !down.arrived() {
        return Verdict::Bytes;
    }
    let snapshot = down.core.shared.snapshot.load();
    let workload = connection::workload_of(&snapshot, &down.pod);
    let Some(caller) = down.visitor() else {
        // As a gateway's own: mutual TLS is not for who comes from outside.
        let said = |guard: &Arc<Guard>| by_guard(guard, &as_policies_see(down), Protocol::Tcp);
        return snapshot.guard(&workload).and_then(said).unwrap_or(Verdict::Bytes);
    };
    if is_unproved(down, &workload) {
        return Verdict::Unproved;
    }
    admit(&snapshot, &workload, &down.pod, down.dialled, caller, Protocol::Tcp)
}

/// The failure that a verdict is to a caller who can be told; `None`: it is none.
pub(super) fn refusal(verdict: &Verdict) -> Option<Error> {
    match verdict {
        Verdict::Bytes | Verdict::Requests(_) => None,
        Verdict::Denied { denial, .. } => Some(denied(denial)),
        // As a sidecar's client sees it: there is no listener for plaintext.
        Verdict::Unproved => Some(Error::refused(Kind::ConnectionTermination, Refusal::Strict)),
    }
}

fn denied(denial: &Denial) -> Error {
    Error::refused(Kind::Denied, Refusal::Policy(denial.clone()))
}

/// Serves a plaintext connection from outside.
pub(super) async fn arrive(
    core: &Rc<Core>,
    pod: &Arc<LocalPod>,
    stream: Stream,
    peer: SocketAddr,
    to: SocketAddr,
) {
    let caller = Caller {
        peer,
        identity: None,
        security: Security::Plaintext(Plaintext::CallerOutside),
        node: is_probed(core, pod, to) && probe::opened_by_node(pod, peer, to).await,
        seen: Seen::Unread,
    };
    let (down, verdict) = decide(core, pod, to, caller);
    let verdict = consult(&down, verdict).await;
    serve(down, stream, verdict, None).await;
}

fn is_probed(core: &Core, pod: &LocalPod, to: SocketAddr) -> bool {
    let snapshot = core.shared.snapshot.load();
    snapshot.workload(&pod.network.key).is_some_and(|workload| workload.probes.are_at(to.port()))
}

/// Serves a connection that was decided upon; `upstream` may stand already.
pub(super) async fn serve(
    down: Rc<Downstream>,
    stream: Stream,
    verdict: Verdict,
    upstream: Option<Box<tcp::Upstream>>,
) {
    match verdict {
        Verdict::Bytes => tcp::serve_detected(&down, stream, bytes::Bytes::new(), None, upstream).await,
        Verdict::Requests(protocol) => read(down, stream, protocol, upstream, None).await,
        Verdict::Denied { denial, protocol: Protocol::Tcp } => refuse(&down, stream, &denied(&denial)),
        Verdict::Denied { denial, protocol } => read(down, stream, protocol, None, Some(denial)).await,
        Verdict::Unproved => {
            refuse(&down, stream, &Error::refused(Kind::ConnectionTermination, Refusal::Strict));
        }
    }
}

/// Reads what a connection speaks: requests are admitted or refused one by one, bytes as a whole. `denial`: all of it is
/// refused, and requests shall hear so.
async fn read(
    down: Rc<Downstream>,
    mut stream: Stream,
    protocol: Protocol,
    upstream: Option<Box<tcp::Upstream>>,
    denial: Option<Denial>,
) {
    match protocol {
        Protocol::Http | Protocol::Http2 => {
            if let Some(first) = detect::http_version(&mut stream).await {
                // Of who leaves without a word nothing is kept.
                tcp::keep_for_http(&down, upstream.filter(|_| protocol == Protocol::Http));
                http::serve(down, stream, first).await;
            }
        }
        Protocol::Detect | Protocol::Tcp => {
            let server = match denial {
                None => detect::Server::of(upstream),
                Some(_) => detect::Server::Forbidden,
            };
            match detect::race(&down, &mut stream, server).await {
                detect::Spoke::Http(first) => http::serve(down, stream, first).await,
                detect::Spoke::Bytes { first, upstream, .. } if probe::are_bytes(&down, &first) => {
                    tcp::serve_probe(&down, stream, first, upstream).await;
                }
                detect::Spoke::Bytes { first, line, upstream } => {
                    let verdict = match denial {
                        Some(denial) => Verdict::Denied { denial, protocol: Protocol::Tcp },
                        None => consult(&down, decide_as_bytes(&down)).await,
                    };
                    match refusal(&verdict) {
                        None => tcp::serve_detected(&down, stream, first, line, upstream).await,
                        Some(error) => refuse(&down, stream, &error),
                    }
                }
                detect::Spoke::Gone => {}
            }
        }
    }
}

/// Ends a connection by a reset, before anything of it has reached a program.
pub(super) fn refuse(down: &Rc<Downstream>, stream: Stream, error: &Error) {
    stream.reset();
    tcp::report_refused(down, error);
}
