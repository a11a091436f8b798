//! The one connector: everything upstream of routing. A caller asks for a destination and gets a byte stream; whether it
//! is a program on this node or an address elsewhere is decided here and nowhere else. A tunnel between nodes is a
//! third branch of [`connect`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::connection::Downstream;
use super::error::{Error, Kind};
use crate::datapath::LocalPod;

/// A connection, and the pod in whose network namespace it is open. The pod's routing rules stay for as long as anybody
/// holds it, also after it has left the mesh: whoever keeps the connection keeps both.
#[derive(Debug)]
pub(super) struct Connection {
    /// The connection.
    pub(super) stream: TcpStream,
    /// Whose namespace it is in.
    pub(super) pod: Arc<LocalPod>,
}

/// Opens a connection to `to` on behalf of the pod that `down` comes from.
pub(super) async fn connect(
    down: &Downstream,
    to: SocketAddr,
    timeout: Duration,
) -> Result<Connection, Error> {
    let to = canonical(to);
    let destination = down.core.shared.pods.load().get(&to.ip()).map(Arc::clone);
    let (pod, dialling) = match (destination, down.source_towards(to.ip())) {
        (Some(pod), Some(from)) => {
            let dialling = pod.dial_inside(from, to);
            (pod, dialling)
        }
        _ => (Arc::clone(&down.pod), down.pod.dial_outside(to)),
    };
    Ok(Connection { stream: finish(dialling, timeout).await?, pod })
}

/// Opens a connection to a program in `pod`, shown to it as coming from `from`.
pub(super) async fn connect_inside(
    pod: &LocalPod,
    from: SocketAddr,
    to: SocketAddr,
    timeout: Duration,
) -> Result<TcpStream, Error> {
    finish(pod.dial_inside(from.ip().to_canonical(), canonical(to)), timeout).await
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
