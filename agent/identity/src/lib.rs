//! Certificates of the service accounts on this node: fetched, rotated, and made into what TLS needs.
//!
//! ```text
//! control ── want ──▶ renew: one task per account ── request ──▶ ca: folder (embedded) or service (external)
//!                         │                                          │
//! workers ◀── Tls ── account ◀── tls, verify ◀── certificate chain ──┤
//!                                     ▲                              │
//!                                   trust ◀──────── roots ───────────┘
//! ```
//!
//! All of it runs on a thread of its own, `weft-identity`. Workers read what is there without a lock and never wait
//! for a rotation. Keys live in memory only.

mod account;
mod authority;
mod ca;
mod certificate;
mod credentials;
pub mod crypto;
mod folder;
mod renew;
mod request;
mod revocation;
mod rotation;
mod service;
mod status;
mod succession;
mod tls;
mod trust;
mod verify;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use weft_api::admin::Certificates;
use weft_api::identity::Identity;

use account::Account;
pub use authority::{Authority, AuthorityError, Parts, new_root};
use ca::{Ca, Health};
pub use certificate::Refusal;
pub use credentials::{ClientCertificate, Credentials, SecretsFrom};
pub use folder::REVOCATIONS;
use renew::Renewer;
pub use request::Request;
use revocation::RevocationFile;
pub use service::ServiceOptions;
pub use succession::Succession;
pub use tls::{Tls, alpn};
use trust::Trust;
pub use trust::{LONGEST_LIFE, Root};
use verify::Verifier;

/// Clocks of nodes may differ by so much.
pub const SKEW: Duration = Duration::from_mins(1);
/// The shortest life of a certificate that may be asked for.
pub const SHORTEST_LIFE: Duration = Duration::from_secs(3);

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaOptions {
    /// The embedded CA, its root in this folder.
    Folder(PathBuf),
    /// An external one.
    Service(ServiceOptions),
}

/// What identities are made by.
#[derive(Debug, Clone)]
pub struct IdentityOptions {
    /// `cluster.local`.
    pub trust_domain: String,
    /// Who signs.
    pub ca: CaOptions,
    /// How long certificates should live, [`SHORTEST_LIFE`] to [`LONGEST_LIFE`].
    pub life: Duration,
    /// Where revocation lists of the CA are, if there may be any.
    pub revocations: Option<PathBuf>,
    /// What gateways end TLS by: a controller that signs hands their Secrets over, too.
    pub credentials: Arc<Credentials>,
}

/// Why identities cannot be had at all.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The embedded CA.
    #[error(transparent)]
    Folder(#[from] folder::FolderError),
    /// An external one.
    #[error(transparent)]
    Service(#[from] service::ServiceError),
    /// The system gives no thread.
    #[error("cannot start the thread of certificates")]
    Thread(#[source] std::io::Error),
}

/// What a CA answers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Issued {
    /// From the leaf up, without a root.
    chain: Vec<rustls::pki_types::CertificateDer<'static>>,
    /// What the CA names as trusted.
    roots: Vec<rustls::pki_types::CertificateDer<'static>>,
}

/// Accounts by namespace and name.
type Accounts = HashMap<Arc<str>, HashMap<Arc<str>, Arc<Account>>>;

/// The certificates of this node. Shared by the control thread, which says what is wanted, and by the workers, which
/// read without a lock.
#[derive(Debug)]
pub struct Identities {
    trust: Arc<Trust>,
    verifier: Verifier,
    ca: CaOptions,
    revocations: Option<PathBuf>,
    health: Arc<Health>,
    accounts: ArcSwap<Accounts>,
    /// To the thread, which ends when this goes.
    wanted: mpsc::UnboundedSender<Vec<Arc<Account>>>,
}

impl Identities {
    /// Starts the thread that fetches certificates. `report` is called there whenever an attempt has ended.
    pub fn start(
        options: IdentityOptions,
        report: impl Fn() + Send + Sync + 'static,
    ) -> Result<Arc<Self>, IdentityError> {
        let trust = Arc::new(Trust::new(options.trust_domain.into()));
        let health = Arc::new(Health::default());
        let ca = Ca::open(&options.ca, &trust, &health)?;
        let controller = match &options.ca {
            CaOptions::Service(service) if options.credentials.are_handed_over() => {
                Some(service::Service::new(service.clone())?)
            }
            CaOptions::Service(_) | CaOptions::Folder(_) => None,
        };
        let report = Arc::new(report);
        let (wanted, wants) = mpsc::unbounded_channel();
        let identities = Arc::new(Self {
            ca: options.ca,
            revocations: options.revocations.clone(),
            verifier: Verifier::new(trust.clone(), tls::algorithms()),
            trust: trust.clone(),
            health: health.clone(),
            accounts: ArcSwap::default(),
            wanted,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(IdentityError::Thread)?;
        std::thread::Builder::new()
            .name("weft-identity".to_owned())
            .spawn(move || {
                let revocations = options.revocations.map(RevocationFile::new);
                let told = report.clone();
                let reports = Box::new(move || report());
                let renewer = Renewer::new(ca, trust, health, options.life, revocations, reports);
                let local = tokio::task::LocalSet::new();
                if let Some(controller) = controller {
                    local.spawn_local(async move {
                        credentials::keep(options.credentials, &controller, || told()).await;
                    });
                }
                local.block_on(&runtime, renewer.run(wants));
            })
            .map_err(IdentityError::Thread)?;
        Ok(identities)
    }

    /// The trust domain of this mesh.
    pub fn trust_domain(&self) -> &Arc<str> {
        self.trust.domain()
    }

    /// Whether the agent signs by itself: then certificates are there within milliseconds.
    pub fn is_embedded(&self) -> bool {
        matches!(self.ca, CaOptions::Folder(_))
    }

    /// Replaces the trust domains whose workloads are believed beside this mesh's own.
    pub fn set_trust_domains(&self, all: &[Arc<str>]) {
        self.trust.set_domains(all);
    }

    /// Replaces the set of accounts, by (namespace, service account), that need a certificate. What is new is fetched;
    /// what is not wanted any more is forgotten.
    pub fn want(&self, wanted: &BTreeSet<(Arc<str>, Arc<str>)>) {
        let current = self.accounts.load();
        let known = current.values().map(HashMap::len).sum::<usize>();
        let find = |namespace: &str, name: &str| current.get(namespace)?.get(name).cloned();
        if known == wanted.len() && wanted.iter().all(|(ns, name)| find(ns, name).is_some()) {
            return;
        }
        let mut accounts = Accounts::default();
        for (namespace, name) in wanted {
            let account = find(namespace, name).unwrap_or_else(|| {
                Arc::new(Account::new(Identity {
                    trust_domain: self.trust.domain().clone(),
                    namespace: namespace.clone(),
                    service_account: name.clone(),
                }))
            });
            accounts.entry(namespace.clone()).or_default().insert(name.clone(), account);
        }
        let all = accounts.values().flat_map(HashMap::values).cloned().collect();
        self.accounts.store(Arc::new(accounts));
        // The thread lives as long as this.
        let _ = self.wanted.send(all);
    }

    /// The TLS of a service account; `None`: there is no certificate (yet, or any more).
    pub fn tls(&self, namespace: &str, service_account: &str) -> Option<Arc<Tls>> {
        self.accounts.load().get(namespace)?.get(service_account)?.tls(SystemTime::now())
    }

    /// As [`Self::tls`], after waiting for a certificate that is on its way; for how long, the caller bounds. `None`
    /// at once when the last attempt has failed. Cancel-safe.
    pub async fn tls_soon(&self, namespace: &str, service_account: &str) -> Option<Arc<Tls>> {
        let account = self.accounts.load().get(namespace)?.get(service_account)?.clone();
        account.attempted().await;
        account.tls(SystemTime::now())
    }

    /// What `weft status` and `weft get certificates` tell.
    pub fn status(&self) -> Certificates {
        let revocations = self.revocations.as_deref();
        let revocations = revocations.and_then(|file| status::revocations(file, self.health.revocations()));
        let (state, roots) = (self.health.state(), self.trust.roots());
        status::certificates(&self.ca, &state, &roots, revocations, self.all().values())
    }

    /// The lists of what is good no more; others, when they are other lists.
    pub fn revoked(&self) -> Revoked {
        Revoked(self.trust.revoked())
    }

    /// Whether the certificate of a peer, with what it chains through, has been revoked since its handshake.
    pub fn is_revoked(&self, chain: &[CertificateDer<'_>]) -> bool {
        self.verifier.is_revoked(chain, SystemTime::now())
    }

    /// When each certificate that serves now ends.
    pub fn ends(&self) -> Vec<(Identity, SystemTime)> {
        let now = SystemTime::now();
        let serves = |account: &Arc<Account>| Some((account.identity().clone(), account.tls(now)?.not_after));
        self.all().values().filter_map(serves).collect()
    }

    /// How many accounts need a certificate.
    pub fn wanted(&self) -> usize {
        self.accounts.load().values().map(HashMap::len).sum()
    }

    /// Waits until there is no account whose first attempt is under way. Cancel-safe.
    pub async fn attempted(&self) {
        for account in self.all().into_values() {
            account.attempted().await;
        }
    }

    /// The accounts whose first attempt is under way, as `namespace/name`.
    pub fn on_their_way(&self) -> Vec<String> {
        let all = self.all();
        let waiting = all.iter().filter(|(_, account)| !account.was_attempted());
        waiting.map(|((namespace, name), _)| format!("{namespace}/{name}")).collect()
    }

    fn all(&self) -> BTreeMap<(Arc<str>, Arc<str>), Arc<Account>> {
        let accounts = self.accounts.load();
        let by_namespace = accounts.values().flat_map(HashMap::values);
        by_namespace
            .map(|account| {
                let Identity { namespace, service_account, .. } = account.identity();
                ((namespace.clone(), service_account.clone()), account.clone())
            })
            .collect()
    }
}

/// Revocation lists as of a moment.
#[derive(Debug, Clone)]
pub struct Revoked(Arc<revocation::Lists>);

impl PartialEq for Revoked {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Who the peer of a finished handshake is.
pub fn peer(connection: &rustls::CommonState) -> Option<Identity> {
    certificate::identity_of(connection.peer_certificates()?.first()?).ok()
}

#[cfg(test)]
mod tests;
