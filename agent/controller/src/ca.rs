//! The CA of the mesh: what signs, what is trusted, and what takes over. Its Secret is read elsewhere.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;
use weft_api::identity::Identity;
use weft_identity::{Authority, AuthorityError, LONGEST_LIFE, Succession};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Its Secret has not been read yet.
    #[error("the CA has no key yet")]
    NoKey,
    /// Not PEM of PKCS #10.
    #[error("the request is refused: it is no certificate signing request in PEM")]
    NotARequest,
    /// The authority says no.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// The CA of the mesh.
#[derive(Debug)]
pub struct Ca {
    trust_domain: String,
    /// No certificate of a workload lives longer.
    longest: Duration,
    signs: Mutex<Option<Succession>>,
    /// Rings when it signs or trusts by another key than before.
    changed: watch::Sender<()>,
}

impl Ca {
    /// Signs nothing yet.
    pub fn new(trust_domain: String, longest: Duration) -> Self {
        let longest = longest.min(LONGEST_LIFE);
        Self { trust_domain, longest, signs: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// The trust domain of the mesh.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Takes in what the Secret holds now. False: nothing is new.
    pub fn take(&self, authority: Authority, now: Instant) -> bool {
        match &mut *self.lock() {
            Some(signs) if signs.newest() == &authority => return false,
            Some(signs) => signs.take(authority, now),
            empty => *empty = Some(Succession::new(authority)),
        }
        self.changed.send_replace(());
        true
    }

    /// Lets a new key take over when its time has come, for as long as the CA lives.
    pub async fn settle(&self) {
        let mut changed = self.changed.subscribe();
        loop {
            let due = self.lock().as_ref().and_then(Succession::due);
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {
                    if self.lock().as_mut().is_some_and(|signs| signs.settle(Instant::now())) {
                        tracing::info!("the CA signs with its new key");
                        self.changed.send_replace(());
                    }
                }
                changed = changed.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Rings when the CA signs or trusts by another key than before.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What is trusted, in PEM; `None` as long as there is no key.
    pub fn roots(&self) -> Option<String> {
        self.lock().as_ref().map(|signs| pem_of_all(signs.roots()))
    }

    /// Whether it can sign.
    pub fn is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// Signs a request in PEM for `identity`: leaf to root, each in PEM, all roots in the last.
    pub fn issue(
        &self,
        csr: &str,
        identity: &Identity,
        life: Duration,
        now: SystemTime,
    ) -> Result<Vec<String>, CaError> {
        let csr =
            CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).map_err(|_| CaError::NotARequest)?;
        let signs = self.lock();
        let signs = signs.as_ref().ok_or(CaError::NoKey)?;
        let life = life.min(self.longest);
        let chain = signs.signer().sign(&csr, identity, &self.trust_domain, life, now)?;
        let roots = pem_of_all(signs.roots());
        Ok(chain.iter().map(pem).chain([roots]).collect())
    }

    /// A key and a certificate for a server of the mesh itself.
    pub fn server(
        &self,
        names: &[String],
        now: SystemTime,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivatePkcs8KeyDer<'static>), CaError> {
        let signs = self.lock();
        Ok(signs.as_ref().ok_or(CaError::NoKey)?.signer().sign_server(names, LONGEST_LIFE, now)?)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Succession>> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pem_of_all(all: &[CertificateDer<'_>]) -> String {
    all.iter().map(pem).collect()
}

fn pem(der: &CertificateDer<'_>) -> String {
    const COLUMNS: usize = 64;
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(COLUMNS));
        text += line;
        text.push('\n');
        rest = tail;
    }
    text + "-----END CERTIFICATE-----\n"
}
