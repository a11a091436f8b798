//! The one connector: everything upstream of routing. A caller asks for a destination and gets a byte stream; whether it
//! is a program on this node, a pod of another one or an address outside of the mesh is decided here and nowhere else.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use weft_api::istio::{ClientTlsSettings, TlsMode};
use weft_datapath::LocalPod;
use weft_limits::{Charge, Cost};
use weft_rules::snapshot::reach::{self, Plaintext, Reach};
use weft_rules::upstream::cluster::Cluster;
use weft_rules::workload::Workload;
use weft_telemetry::Security;

use super::connection::Downstream;
use super::error::{Error, Kind};
use super::inbound::{self, Caller, Seen, Verdict};
use super::limits;
use super::originate::{self, Origination};
use super::stream::Stream;

/// A connection, and what it holds: whoever keeps the connection keeps both.
#[derive(Debug)]
pub(super) struct Connection {
    /// The connection.
    pub(super) stream: Stream,
    /// What it holds.
    pub(super) pod: Held,
    /// How its ends know each other.
    pub(super) security: Security,
    /// As its destination sees it, where that was decided here: in a pod of this node.
    pub(super) arrived: Option<Rc<Downstream>>,
}

/// What a connection holds for as long as it is open.
#[derive(Debug)]
pub(super) struct Held {
    /// The pod in whose network namespace it is. The pod's routing rules stay for as long as anybody holds it, also after it has
    /// left the mesh.
    pod: Arc<LocalPod>,
    /// What is paid for it; `None`: it is one of many on a connection that is paid for.
    _charge: Option<Charge>,
}

impl Held {
    /// A connection in `pod`'s namespace.
    pub(super) fn new(pod: Arc<LocalPod>, charge: Option<Charge>) -> Self {
        Self { pod, _charge: charge }
    }

    /// The pod.
    pub(super) fn pod(&self) -> &Arc<LocalPod> {
        &self.pod
    }
}

impl std::ops::Deref for Held {
    type Target = LocalPod;

    fn deref(&self) -> &LocalPod {
        &self.pod
    }
}

/// What is connected to.
#[derive(Debug, Clone)]
pub(super) struct Towards {
    /// The endpoint.
    pub(super) address: SocketAddr,
    /// The service's name, where it is one's.
    pub(super) host: Option<Arc<str>>,
    /// What a DestinationRule says of TLS.
    pub(super) tls: Option<Arc<ClientTlsSettings>>,
    /// Longest wait for a connection.
    pub(super) timeout: Duration,
}

impl Towards {
    /// An endpoint of a cluster.
    pub(super) fn endpoint(cluster: &Cluster, address: SocketAddr) -> Self {
        Self {
            address,
            host: Some(Arc::clone(&cluster.service.host)),
            tls: cluster.tls.clone(),
            timeout: cluster.connect_timeout,
        }
    }

    /// An address that is no service's endpoint.
    pub(super) fn address(address: SocketAddr) -> Self {
        Self { address, host: None, tls: None, timeout: limits::CONNECT_TIMEOUT }
    }

    fn mode(&self) -> Option<TlsMode> {
        self.tls.as_ref().and_then(|tls| tls.mode)
    }

    /// Whether a DestinationRule forbids mesh identities.
    pub(super) fn is_plaintext(&self) -> bool {
        self.mode().is_some_and(|mode| mode != TlsMode::IstioMutual)
    }

    /// TLS that is not the mesh's, where a DestinationRule wants that.
    pub(super) fn originated(&self) -> Option<Origination> {
        let settings = self.tls.as_ref()?;
        matches!(settings.mode, Some(TlsMode::Simple | TlsMode::Mutual))
            .then(|| Origination { settings: Arc::clone(settings), host: self.host.clone() })
    }
}

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Requests, each of which was or will be admitted by itself.
    Requests {
        /// In this version.
        http2: bool,
    },
    /// Bytes, or what nobody has looked at.
    Bytes {
        /// The first of them are looked at here: what turns out to be HTTP becomes requests.
        detected: bool,
    },
}

impl Purpose {
    fn seen(self) -> Seen {
        match self {
            Self::Requests { .. } => Seen::Requests,
            Self::Bytes { detected: true } => Seen::Bytes,
            Self::Bytes { detected: false } => Seen::Unread,
        }
    }
}

/// How a destination is reached. What is kept for one way is of no use for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Way {
    /// It arrived for a pod of this node: to the program there.
    Arrived,
    /// To a program in another pod of this node, or in the same one.
    Local,
    /// Through a tunnel to a pod of another node.
    Tunnel,
    /// As it is, to an address that weft knows nothing better for, or may not do better for.
    Plain,
}

/// A way, and what it takes.
enum Path {
    Arrived {
        peer: SocketAddr,
        security: Security,
    },
    /// `without`: why the caller is not known there by what the kernel proves.
    Local {
        pod: Arc<LocalPod>,
        from: IpAddr,
        without: Option<Plaintext>,
    },
    Tunnel(Arc<Workload>),
    Plain(Plaintext),
    /// A DestinationRule wants mesh identities, and nobody there has one.
    NoPeer,
}

impl Way {
    /// The way that leads there by the rules in force.
    pub(super) fn of(down: &Downstream, to: &Towards) -> Self {
        match path(down, to) {
            Path::Arrived { .. } => Self::Arrived,
            Path::Local { .. } => Self::Local,
            Path::Tunnel(_) => Self::Tunnel,
            Path::Plain(_) | Path::NoPeer => Self::Plain,
        }
    }
}

fn path(down: &Downstream, to: &Towards) -> Path {
    if let Some(Caller { peer, security, .. }) = down.visitor() {
        return Path::Arrived { peer: *peer, security: security.clone() };
    }
    let address = to.address.ip().to_canonical();
    let shared = &down.core.shared;
    let snapshot = shared.snapshot.load();
    let pods = shared.pods.load();
    let local = pods.get(&address).and_then(|pod| Some((pod, down.source_towards(address)?)));
    let workload = snapshot.workload_at(address);
    let asked = reach::Towards {
        workload: workload.map(|workload| &**workload),
        port: to.address.port(),
        tls: to.mode(),
        node: snapshot.node(),
        is_local: local.is_some(),
        has_certificates: shared.identities.is_some(),
    };
    match (asked.reach(&snapshot), local, workload) {
        (Reach::Local(without), Some((pod, from)), _) => Path::Local { pod: Arc::clone(pod), from, without },
        (Reach::Tunnel, _, Some(workload)) => Path::Tunnel(Arc::clone(workload)),
        (Reach::Plain(why), ..) => Path::Plain(why),
        // What is local has a pod, and a tunnel a workload: without, nothing is sent.
        (Reach::Local(_) | Reach::Tunnel | Reach::NoPeer, ..) => Path::NoPeer,
    }
}

/// Opens a connection on behalf of the caller of `down`.
pub(super) async fn connect(
    down: &Rc<Downstream>,
    to: &Towards,
    purpose: Purpose,
) -> Result<Connection, Error> {
    let address = canonical(to.address);
    match path(down, to) {
        Path::Arrived { peer, security } => {
            let held = Held::new(Arc::clone(&down.pod), Some(pay(down, limits::UPSTREAM).await?));
            let stream = dial_inside(&down.pod, peer.ip(), to).await?.into();
            Ok(Connection { stream, pod: held, security, arrived: None })
        }
        Path::Local { pod, from, without } => local(down, pod, (from, without), to, purpose).await,
        Path::Tunnel(destination) => {
            let (stream, security) = down.core.tunnels.connect(down, to, &destination, purpose).await?;
            let held = Held::new(Arc::clone(&down.pod), None);
            Ok(Connection { stream, pod: held, security, arrived: None })
        }
        Path::NoPeer => Err(Error::new(
            Kind::ConnectFailure,
            format!("a DestinationRule wants ISTIO_MUTUAL, and {address} is no pod in the mesh"),
        )),
        Path::Plain(why) => {
            let held = Held::new(Arc::clone(&down.pod), Some(pay(down, limits::UPSTREAM).await?));
            let socket = finish(down.pod.dial_outside(address), to.timeout).await?;
            let stream = originate::wrap(&down.core, socket, to, purpose).await?;
            let security = Security::Plaintext(why);
            Ok(Connection { stream, pod: held, security, arrived: None })
        }
    }
}

/// Has the caller of `down` pay for a connection, in its turn; what it has of idle ones goes first.
pub(super) async fn pay(down: &Downstream, cost: Cost) -> Result<Charge, Error> {
    let account = down.pays_onward();
    account.turn_to_dial().await;
    let charge = account.charge(cost).or_else(|| {
        down.core.pool.close_idle_of(&down.pod);
        account.charge(cost)
    });
    charge.ok_or_else(|| Kind::Overloaded.into())
}

/// To a program on this node: what the destination's node would decide of a tunnel is decided here, of the same
/// identity, which the kernel proves.
async fn local(
    down: &Rc<Downstream>,
    pod: Arc<LocalPod>,
    (from, without): (IpAddr, Option<Plaintext>),
    to: &Towards,
    purpose: Purpose,
) -> Result<Connection, Error> {
    let trust_domain = &down.core.shared.trust_domain;
    let peer = SocketAddr::new(from, down.peer.port());
    let (identity, security) = match without {
        None => {
            let identity = down.decide(|_, caller| caller.identity(trust_domain));
            (Some(Arc::new(identity)), Security::SameNode { trust_domain: Arc::clone(trust_domain) })
        }
        Some(why) => (None, Security::Plaintext(why)),
    };
    let caller = Caller { peer, identity, security, node: false, seen: purpose.seen() };
    let (arrived, verdict) = inbound::decide(&down.core, &pod, canonical(to.address), caller);
    let verdict = match purpose {
        Purpose::Bytes { .. } => inbound::consult(&arrived, verdict).await,
        Purpose::Requests { .. } => verdict,
    };
    if let Some(refusal) = inbound::refusal(&verdict) {
        return Err(refusal);
    }
    let security = arrived.visitor().map(|caller| caller.security.clone()).unwrap_or_default();
    let unread = matches!((purpose, &verdict), (Purpose::Bytes { .. }, Verdict::Requests(_)));
    let (stream, arrived, charge) = if unread {
        // Nobody has read what is in it: that is done as for a connection from another node.
        let charge = pay(down, limits::PIPE).await?;
        let (near, far) = Stream::pipe();
        let entered = down.core.enter();
        tokio::task::spawn_local(async move {
            inbound::serve(arrived, far, verdict, None).await;
            drop(entered);
        });
        (near, None, charge)
    } else {
        let charge = pay(down, limits::UPSTREAM).await?;
        let socket = dial_inside(&pod, from, to).await?;
        (originate::wrap(&down.core, socket, to, purpose).await?, Some(arrived), charge)
    };
    Ok(Connection { stream, pod: Held::new(pod, Some(charge)), security, arrived })
}

/// To a program in `pod`, shown to it as coming from `from`.
async fn dial_inside(pod: &LocalPod, from: IpAddr, to: &Towards) -> Result<TcpStream, Error> {
    finish(pod.dial_inside(from.to_canonical(), canonical(to.address)), to.timeout).await
}

/// Sees a connecting socket through.
pub(super) async fn finish(
    dialling: io::Result<std::net::TcpStream>,
    timeout: Duration,
) -> Result<TcpStream, Error> {
    let stream = dialling
        .and_then(TcpStream::from_std)
        .map_err(|error| Error::new(Kind::ConnectFailure, Reason(error)))?;
    // Between two ends on one machine the handshake is over before the dialling call returns.
    if stream.peer_addr().is_err() {
        tokio::time::timeout(timeout, stream.writable())
            .await
            .map_err(|_| Error::from(Kind::ConnectTimeout))?
            .map_err(|error| Error::new(Kind::ConnectFailure, Reason(error)))?;
        if let Some(error) = stream.take_error().unwrap_or_else(Some) {
            return Err(Error::new(Kind::ConnectFailure, Reason(error)));
        }
    }
    Ok(stream)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// An error number in the words of `strerror`, without Rust's `(os error …)`.
#[derive(Debug)]
struct Reason(io::Error);

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.split(" (os error").next().unwrap_or_default())
    }
}

impl std::error::Error for Reason {}
