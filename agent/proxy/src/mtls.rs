//! TLS between nodes: the handshake, who the peer proves to be, and what is spoken then. Nothing of HTTP/2 is here.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, CommonState};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft_api::identity::Identity;
use weft_identity::{Identities, Tls, alpn, peer};
use weft_rules::workload::Workload;

use super::limits;
use super::wire::{Socket, Wire};

/// Why there is no mutual TLS with somebody.
#[derive(Debug, thiserror::Error)]
pub(super) enum MtlsError {
    /// The agent has no certificate authority.
    #[error("this agent has no certificate authority: it cannot prove whose connection it is")]
    NoAuthority,
    /// The account has no certificate.
    #[error("there is no certificate for {0} (see `weft get certificates`)")]
    NoCertificate(Account),
    /// The handshake failed.
    #[error("TLS handshake: {0}")]
    Handshake(#[from] io::Error),
    /// The handshake takes too long.
    #[error("TLS handshake: timed out")]
    Timeout,
    /// The peer has proved to be somebody else.
    #[error("the endpoint is {found}, and not {expected}")]
    Stranger {
        /// Whom the connection is for.
        expected: Account,
        /// Who is there.
        found: Identity,
    },
    /// The peer's certificate says nothing that weft understands, or it speaks nothing that weft does.
    #[error("the peer speaks no protocol of the mesh")]
    Unknown,
}

/// A service account of this mesh.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Account {
    /// Namespace.
    pub(super) namespace: Arc<str>,
    /// Name.
    pub(super) name: Arc<str>,
}

impl Account {
    /// The account that a workload has.
    pub(super) fn of(workload: &Workload) -> Self {
        Self { namespace: workload.namespace.clone(), name: workload.service_account.clone() }
    }

    /// Whether a peer that passed the handshake, and so is of a trusted domain, is this account.
    fn is(&self, identity: &Identity) -> bool {
        self.namespace == identity.namespace && self.name == identity.service_account
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service account {}/{}", self.namespace, self.name)
    }
}

/// The TLS of an account, after waiting for a certificate that is on its way.
pub(super) async fn of_account(
    identities: Option<&Arc<Identities>>,
    account: &Account,
    patience: Duration,
) -> Result<Arc<Tls>, MtlsError> {
    let identities = identities.ok_or(MtlsError::NoAuthority)?;
    let (namespace, name) = (&account.namespace, &account.name);
    if let Some(tls) = identities.tls(namespace, name) {
        return Ok(tls);
    }
    tokio::time::timeout(patience, identities.tls_soon(namespace, name))
        .await
        .ok()
        .flatten()
        .ok_or_else(|| MtlsError::NoCertificate(account.clone()))
}

/// The client's side of a handshake, with a peer that must be `expected`.
pub(super) async fn connect(
    config: &Arc<ClientConfig>,
    socket: TcpStream,
    expected: &Account,
) -> Result<(Wire, Identity, Spoken), MtlsError> {
    // An address is never sent as a server name.
    let name = ServerName::IpAddress(socket.peer_addr()?.ip().into());
    let handshake = TlsConnector::from(Arc::clone(config)).connect(name, Socket::from(socket));
    let wire = Wire::new(handshake.await?);
    let found = peer(wire.state()).ok_or(MtlsError::Unknown)?;
    if !expected.is(&found) {
        return Err(MtlsError::Stranger { expected: expected.clone(), found });
    }
    let spoken = Spoken::of(wire.state())?;
    Ok((wire, found, spoken))
}

/// The server's side of a handshake, and who calls.
pub(super) async fn accept(tls: &Tls, socket: TcpStream) -> Result<(Wire, Identity, Spoken), MtlsError> {
    let handshake = TlsAcceptor::from(Arc::clone(&tls.server)).accept(Socket::from(socket));
    let timely = tokio::time::timeout(limits::HANDSHAKE, handshake).await;
    let wire = Wire::new(timely.map_err(|_| MtlsError::Timeout)??);
    let identity = peer(wire.state()).ok_or(MtlsError::Unknown)?;
    let spoken = Spoken::of(wire.state())?;
    Ok((wire, identity, spoken))
}

/// What both ends have agreed to speak (ALPN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    /// weft's own.
    Lean,
    /// HTTP/2.
    Hbone,
}

impl Spoken {
    fn of(connection: &CommonState) -> Result<Self, MtlsError> {
        match connection.alpn_protocol() {
            Some(alpn::LEAN) => Ok(Self::Lean),
            Some(alpn::HBONE) => Ok(Self::Hbone),
            Some(_) | None => Err(MtlsError::Unknown),
        }
    }
}
