//! Certificates of the service accounts on this node: fetched, rotated, and made into what TLS needs.

use std::sync::Arc;
use std::time::SystemTime;

use weft_rules::identity::Identity;

/// The certificates of this node. Shared by the control thread, which says what is wanted, and by the workers, which
/// read without a lock.
#[derive(Debug)]
pub struct Identities {
    trust_domain: Arc<str>,
}

/// One service account's TLS, until its next rotation. Handshakes prove that the peer's certificate is good (chain,
/// time, one SPIFFE ID of a trusted domain); whether it is the expected one, the caller checks with [`peer`].
#[derive(Debug)]
pub struct Tls {
    /// For connections to the account's pods: asks for a certificate, TLS 1.3, ALPN `h2`.
    pub server: Arc<rustls::ServerConfig>,
    /// For connections from the account's pods.
    pub client: Arc<rustls::ClientConfig>,
    /// When the certificate ends.
    pub not_after: SystemTime,
}

impl Identities {
    /// The trust domain of this mesh.
    pub fn trust_domain(&self) -> &Arc<str> {
        &self.trust_domain
    }

    /// The TLS of a service account; `None`: there is no certificate (yet, or any more).
    pub fn tls(&self, _namespace: &str, _service_account: &str) -> Option<Arc<Tls>> {
        None
    }

    /// As [`Self::tls`], after waiting for a certificate that is on its way. Cancel-safe.
    pub async fn tls_soon(&self, namespace: &str, service_account: &str) -> Option<Arc<Tls>> {
        std::future::ready(self.tls(namespace, service_account)).await
    }
}

/// Who the peer of a finished handshake is.
pub fn peer(_connection: &rustls::CommonState) -> Option<Identity> {
    None
}
