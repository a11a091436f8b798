//! The controller's own certificates: made by its CA, renewed while it runs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use weft_identity::LONGEST_LIFE;
use weft_identity::crypto;

use crate::ca::{Ca, CaError};

/// A certificate is made anew after so long, long before its end.
const RENEWED: Duration = Duration::from_secs(LONGEST_LIFE.as_secs() / 2);
/// After a failure.
const RETRY: Duration = Duration::from_secs(10);

/// Why there is no certificate of one's own.
#[derive(Debug, thiserror::Error)]
enum ServingError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// A certificate under some names of DNS, always fresh.
#[derive(Debug)]
pub struct Serving {
    names: Vec<String>,
    provider: Arc<CryptoProvider>,
    key: ArcSwapOption<CertifiedKey>,
}

impl Serving {
    /// For a Service of `namespace`; handshakes fail until the CA has a key.
    pub fn new(service: &str, namespace: &str) -> Arc<Self> {
        let names = ["", ".svc", ".svc.cluster.local"];
        let names = names.map(|end| format!("{service}.{namespace}{end}")).to_vec();
        Arc::new(Self { names, provider: crypto::provider().into(), key: ArcSwapOption::empty() })
    }

    /// TLS by this certificate.
    pub fn tls(self: &Arc<Self>, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut tls = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(tls.into())
    }

    /// Keeps it fresh for as long as the CA lives: in time, and whenever the CA signs by another key.
    pub async fn keep(&self, ca: &Ca) {
        let mut changes = ca.changes();
        loop {
            let wait = match self.renew(ca) {
                // A key rings.
                Ok(()) | Err(ServingError::Ca(CaError::NoKey)) => RENEWED,
                Err(error) => {
                    tracing::error!(names = ?self.names, "no certificate of its own: {error}");
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    fn renew(&self, ca: &Ca) -> Result<(), ServingError> {
        let (chain, key) = ca.server(&self.names, SystemTime::now())?;
        let key = CertifiedKey::from_der(chain, key.into(), &self.provider)?;
        self.key.store(Some(key.into()));
        tracing::debug!(names = ?self.names, "has a new certificate of its own");
        Ok(())
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key.load_full()
    }
}
