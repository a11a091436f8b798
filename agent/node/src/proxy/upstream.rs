//! The one connector: everything upstream of routing. A caller asks for a destination and gets a byte stream; whether it
//! is a program on this node or an address elsewhere is decided here and nowhere else. A tunnel between nodes is a
//! third branch of [`connect`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use weft_api::istio::{ClientTlsSettings, TlsMode};
use weft_rules::identity::Identity;

use super::connection::Downstream;
use super::error::{Error, Kind};
use super::inbound::{self, Verdict};
use super::stream::Stream;
use crate::datapath::LocalPod;

/// A connection, and the pod in whose network namespace it is open. The pod's routing rules stay for as long as anybody
/// holds it, also after it has left the mesh: whoever keeps the connection keeps both.
#[derive(Debug)]
pub(super) struct Connection {
    /// The connection.
    pub(super) stream: Stream,
    /// Whose namespace it is in.
    pub(super) pod: Arc<LocalPod>,
}

/// What is connected to.
#[derive(Debug, Clone)]
pub(super) struct Towards {
    /// The endpoint.
    pub(super) address: SocketAddr,
    /// What a DestinationRule says of TLS.
    pub(super) tls: Option<Arc<ClientTlsSettings>>,
    /// Longest wait for a connection.
    pub(super) timeout: Duration,
}

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Requests, each of which was or will be admitted by itself.
    Requests,
    /// Bytes, or what nobody has looked at.
    Bytes,
}

/// How a destination is reached. What is kept for one way is of no use for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Way {
    /// It arrived for a pod of this node: to the program there.
    Arrived,
    /// To a program in another pod of this node, or in the same one.
    Local,
    /// As it is, to an address that weft knows nothing better for.
    Plain,
}

impl Way {
    /// The way that leads there by the rules in force.
    pub(super) fn of(down: &Downstream, to: &Towards) -> Self {
        if down.is_inbound() {
            return Self::Arrived;
        }
        let to = to.address.ip().to_canonical();
        if down.core.shared.pods.load().contains_key(&to) && down.source_towards(to).is_some() {
            return Self::Local;
        }
        Self::Plain
    }
}

/// Opens a connection on behalf of the caller of `down`.
pub(super) async fn connect(
    down: &Rc<Downstream>,
    to: &Towards,
    purpose: Purpose,
) -> Result<Connection, Error> {
    let address = canonical(to.address);
    if down.is_inbound() {
        return inside(&down.pod, down.peer.ip().to_canonical(), address, to.timeout).await;
    }
    let destination = down.core.shared.pods.load().get(&address.ip()).map(Arc::clone);
    if let (Some(pod), Some(from)) = (destination, down.source_towards(address.ip())) {
        return local(down, &pod, from, to, purpose).await;
    }
    let stream = finish(down.pod.dial_outside(address), to.timeout).await?.into();
    Ok(Connection { stream, pod: Arc::clone(&down.pod) })
}

/// To a program on this node: what the destination's node would decide of a tunnel is decided here, of the same
/// identity, which the kernel proves.
async fn local(
    down: &Rc<Downstream>,
    pod: &Arc<LocalPod>,
    from: IpAddr,
    to: &Towards,
    purpose: Purpose,
) -> Result<Connection, Error> {
    let address = canonical(to.address);
    let peer = SocketAddr::new(from, down.peer.port());
    let identity = match to.tls.as_ref().and_then(|tls| tls.mode) {
        None | Some(TlsMode::IstioMutual) => {
            let trust_domain = &down.core.shared.trust_domain;
            Some(Arc::new(down.decide(|_, caller| Identity::of(caller, trust_domain))))
        }
        Some(TlsMode::Disable | TlsMode::Simple | TlsMode::Mutual) => None,
    };
    let (arrived, verdict) = inbound::decide(&down.core, pod, peer, address, identity, || false);
    match (verdict, purpose) {
        (Verdict::Bytes, _) | (Verdict::Requests(_), Purpose::Requests) => {
            inside(pod, from, address, to.timeout).await
        }
        // Nobody has read what is in it: that is done as for a connection from another node.
        (Verdict::Requests(protocol), Purpose::Bytes) => {
            let (stream, far) = Stream::pipe();
            let entered = down.core.enter();
            tokio::task::spawn_local(async move {
                inbound::serve(arrived, far, Verdict::Requests(protocol)).await;
                drop(entered);
            });
            Ok(Connection { stream, pod: Arc::clone(pod) })
        }
        (Verdict::Denied { denial, .. }, _) => Err(Error::new(Kind::Denied, inbound::words(&denial))),
        (Verdict::Unproved, _) => Err(Error::new(Kind::ConnectionTermination, inbound::UNPROVED)),
    }
}

/// Opens a connection to a program in `pod`, shown to it as coming from `from`.
async fn inside(
    pod: &Arc<LocalPod>,
    from: IpAddr,
    to: SocketAddr,
    timeout: Duration,
) -> Result<Connection, Error> {
    let stream = finish(pod.dial_inside(from, to), timeout).await?.into();
    Ok(Connection { stream, pod: Arc::clone(pod) })
}

/// Sees a connecting socket through.
async fn finish(dialling: io::Result<std::net::TcpStream>, timeout: Duration) -> Result<TcpStream, Error> {
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
