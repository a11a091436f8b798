//! Tunnels to pods of other nodes, of whichever kind the other node speaks: the leaner one of weft's own where it does,
//! else HBONE. What both kinds share is here: who calls whom, the TLS connection, and what it proves.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use weft_api::identity::Identity;
use weft_datapath::{Life, LocalPod};
use weft_identity::Tls;
use weft_limits::Charge;
use weft_rules::snapshot::Snapshot;
use weft_rules::workload::Workload;
use weft_telemetry::Security;

use super::connection::{self, Downstream};
use super::core::Core;
use super::ends::Place;
use super::error::{Error, Kind};
use super::inbound::{self, Caller, Seen, Verdict};
use super::mtls::{self, Account, Spoken};
use super::stream::Stream;
use super::upstream::{Held, Purpose, Towards, finish, pay};
use super::wire::Wire;
use super::{LocalPods, hbone, lean, limits, tcp};

/// The port that every pod in the mesh takes tunnels at.
pub(super) const PORT: u16 = weft_api::names::TUNNEL_PORT;

/// Whose connection, and to whom. Pods share none: each is made in the pod's own namespace, with its own account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) pod: u64,
    pub(super) destination: IpAddr,
    pub(super) expected: Account,
}

/// One worker's connections to pods of other nodes.
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    lean: lean::Kept,
    hbone: hbone::Client,
}

impl Tunnels {
    /// A tunnel to a pod of another node, on behalf of a program in the pod that `down` comes from.
    pub(super) async fn connect(
        &self,
        down: &Rc<Downstream>,
        to: &Towards,
        destination: &Workload,
        purpose: Purpose,
    ) -> Result<(Stream, Security), Error> {
        let address = SocketAddr::new(to.address.ip().to_canonical(), to.address.port());
        let key = Key { pod: down.pod.cookie, destination: address.ip(), expected: Account::of(destination) };
        if !self.hbone.knows(&key) {
            let first = tokio::time::timeout(
                to.timeout,
                self.connect_lean(down, to, &key, Asking { address, purpose }),
            );
            match first.await.unwrap_or_else(|_| Err(Kind::ConnectTimeout.into()))? {
                Reached::Lean(tunnel) => return Ok(tunnel),
                Reached::Hbone(dialled) => self.hbone.begin(&key, *dialled),
            }
        }
        let (tunnel, security) = self.hbone.connect(down, &key, address, to.timeout).await?;
        Ok((tunnel.into(), security))
    }

    async fn connect_lean(
        &self,
        down: &Rc<Downstream>,
        to: &Towards,
        key: &Key,
        asking: Asking,
    ) -> Result<Reached, Error> {
        let tls = tls_of(down, to.timeout).await?;
        if let Some(tunnel) = self.lean.connect(key, &tls, asking).await? {
            return Ok(Reached::Lean(tunnel));
        }
        // Boxed: connections that find a tunnel need no room for a handshake.
        let dialled = Box::pin(dial(down, key, &tls, to.timeout, &tls.client)).await?;
        match dialled.spoken {
            Spoken::Lean => Ok(Reached::Lean(lean::open(down, key, dialled, asking).await?)),
            Spoken::Hbone => Ok(Reached::Hbone(Box::new(dialled))),
        }
    }

    /// What is open for the next lean tunnel.
    pub(super) fn lean(&self) -> &lean::Kept {
        &self.lean
    }

    /// Closes what has carried nothing for longer than `limit`, and what belongs to a pod that has left.
    pub(super) fn sweep(&self, limit: Duration, pods: &LocalPods) {
        self.lean.sweep(limit, pods);
        self.hbone.sweep(limit, pods);
    }

    /// Closes what carries nothing and leads to where no pod is any more: its end need not have been heard.
    pub(super) fn forget_strangers(&self, snapshot: &Snapshot) {
        let known = |key: &Key| snapshot.workload_at(key.destination).is_some();
        self.lean.retain(known);
        self.hbone.retain(known);
    }

    /// Closes the connections of a pod that leaves the mesh, each when its last tunnel has ended.
    pub(super) fn release(&self, pod: &LocalPod) {
        self.lean.release(pod);
        self.hbone.release(pod);
    }
}

/// What a tunnel is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asking {
    pub(super) address: SocketAddr,
    pub(super) purpose: Purpose,
}

/// What another node turned out to speak.
enum Reached {
    Lean((Stream, Security)),
    Hbone(Box<Dialled>),
}

/// A TLS connection to a pod of another node, which has proved to be that.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) stream: Wire,
    /// What it holds for as long as it is open.
    pub(super) held: Held,
    pub(super) spoken: Spoken,
    pub(super) local_address: Option<SocketAddr>,
    pub(super) security: Security,
    /// By which certificate.
    pub(super) tls: Arc<Tls>,
    /// Whose.
    pub(super) caller: Arc<Workload>,
}

/// The certificate of the pod's own account, whatever address the program has used.
pub(super) async fn tls_of(down: &Downstream, patience: Duration) -> Result<Arc<Tls>, Error> {
    let shared = &down.core.shared;
    let account = Account::of(&connection::workload_of(&shared.snapshot.load(), &down.pod));
    mtls::of_account(shared.identities.as_ref(), &account, patience).await.map_err(|error| failed(&error))
}

/// Dials, and proves and learns who both ends are.
pub(super) async fn dial(
    down: &Downstream,
    key: &Key,
    tls: &Arc<Tls>,
    timeout: Duration,
    config: &Arc<rustls::ClientConfig>,
) -> Result<Dialled, Error> {
    let shared = &down.core.shared;
    let caller = connection::workload_of(&shared.snapshot.load(), &down.pod);
    let held = Held::new(Arc::clone(&down.pod), Some(pay(down, limits::CARRIER).await?));
    let socket = finish(down.pod.dial_outside(SocketAddr::new(key.destination, PORT)), timeout).await?;
    let local_address = socket.local_addr().ok();
    let (stream, found, spoken) =
        mtls::connect(config, socket, &key.expected).await.map_err(|error| failed(&error))?;
    let own = caller.identity(&shared.trust_domain);
    Ok(Dialled {
        stream,
        held,
        spoken,
        local_address,
        security: Security::mutual_tls(own, found),
        tls: Arc::clone(tls),
        caller,
    })
}

fn failed(error: &mtls::MtlsError) -> Error {
    Error::new(Kind::ConnectFailure, error.to_string())
}

/// A TLS connection that arrived at a pod, and what it proves.
#[derive(Debug)]
pub(super) struct Carrier {
    pub(super) core: Rc<Core>,
    /// Where it arrived.
    pub(super) pod: Arc<LocalPod>,
    /// The other end, which is the calling pod.
    pub(super) peer: SocketAddr,
    pub(super) local_address: Option<SocketAddr>,
    identity: Arc<Identity>,
    security: Security,
    /// The pod's end, and how far its life was when this began.
    whole: Rc<Place>,
    began: Life,
}

/// A program's connection that may be tunnelled to, and does stand.
pub(super) struct Opened {
    /// What is paid for the tunnel.
    _charge: Charge,
    down: Rc<Downstream>,
    verdict: Verdict,
    upstream: Box<tcp::Upstream>,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotOpened {
    /// A policy denies it.
    Denied,
    /// The program does not answer.
    Unavailable,
}

impl Carrier {
    /// Decides upon a connection to a program of the pod, and opens it. `read`: its requests have been read already.
    pub(super) async fn open(&self, to: SocketAddr, read: bool) -> Result<Opened, NotOpened> {
        let caller = Caller {
            peer: self.peer,
            identity: Some(Arc::clone(&self.identity)),
            security: self.security.clone(),
            node: false,
            // A peer that says so is the agent of a node of the mesh: nobody else holds its key.
            seen: if read { Seen::Requests } else { Seen::Unread },
        };
        let (down, verdict) = inbound::decide(&self.core, &self.pod, to, caller);
        let verdict = inbound::consult(&down, verdict).await;
        if let Some(error) = inbound::refusal(&verdict) {
            tcp::report_refused(&down, &error);
            return Err(NotOpened::Denied);
        }
        let opened = match pay(&down, limits::TUNNEL).await {
            Ok(charge) => tcp::dial(&down).await.map(|upstream| (charge, upstream)),
            Err(error) => Err(error),
        };
        match opened {
            Ok((charge, upstream)) => Ok(Opened { _charge: charge, down, verdict, upstream }),
            Err(error) => {
                tcp::report_refused(&down, &error);
                Err(NotOpened::Unavailable)
            }
        }
    }

    /// Waits until no more tunnels should be taken: the pod has left the mesh or is being ended, or the agent is about to end
    /// or has a successor. Cancel-safe.
    pub(super) async fn left(&self, stop: &mut watch::Receiver<()>) {
        tokio::select! {
            _ = stop.changed() => {}
            () = self.whole.takes_no_more(&self.core, &self.pod, self.began) => {}
        }
    }
}

impl Opened {
    /// Serves it, to its end.
    pub(super) async fn serve(self, stream: Stream) {
        inbound::serve(self.down, stream, self.verdict, Some(self.upstream)).await;
    }
}

/// Serves a connection to a pod's port 15008. `stop` ends with the pod's time in the mesh.
pub(super) async fn serve(
    core: &Rc<Core>,
    pod: &Arc<LocalPod>,
    socket: TcpStream,
    peer: SocketAddr,
    handshakes: &Semaphore,
    stop: watch::Receiver<()>,
) {
    let local_address = socket.local_addr().ok();
    let shared = &core.shared;
    let account = Account::of(&connection::workload_of(&shared.snapshot.load(), pod));
    let opened = async {
        // Fails only for a semaphore that was closed; this one never is.
        let _permit = handshakes.acquire().await.ok();
        let tls = mtls::of_account(shared.identities.as_ref(), &account, limits::HANDSHAKE).await?;
        mtls::accept(&tls, socket).await
    };
    let (stream, identity, spoken) = match opened.await {
        Ok(accepted) => accepted,
        Err(error) => return tracing::debug!(pod = %pod.network.key, %peer, %error, "no tunnel"),
    };
    let own = Identity {
        trust_domain: shared.trust_domain.clone(),
        namespace: account.namespace,
        service_account: account.name,
    };
    let Some(_charge) = core.account(pod, true, Some(peer.ip())).charge(limits::CARRIED) else {
        return tracing::debug!(pod = %pod.network.key, %peer, "no tunnel: the caller holds as much as it may");
    };
    let carrier = Rc::new(Carrier {
        core: Rc::clone(core),
        pod: Arc::clone(pod),
        peer,
        local_address,
        security: Security::mutual_tls(identity.clone(), own),
        identity: Arc::new(identity),
        whole: core.ends.of_pod(pod),
        began: pod.life(),
    });
    match spoken {
        Spoken::Lean => lean::serve(&carrier, stream, stop).await,
        Spoken::Hbone => hbone::serve(carrier, stream, stop).await,
    }
}
