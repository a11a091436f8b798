//! Whom this node believes: trust domains and roots, shared by all handshakes and replaced while they run.
//!
//! A root that the CA names is trusted at once, before it signs. One that the CA names no more stays trusted for as
//! long as a certificate of it can still be good: [`LONGEST_LIFE`]. An agent that starts knows only what the CA names.
//! What a list of the CA revokes is not believed from then on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, TrustAnchor};

use super::SKEW;
use super::certificate::{self, Refusal};
use super::revocation::Lists;

/// No certificate of a workload lives longer.
pub const LONGEST_LIFE: Duration = Duration::from_hours(24);

/// A root certificate that is believed.
#[derive(Debug, Clone)]
pub struct Root {
    /// Its subject.
    pub subject: Arc<str>,
    /// When it ends.
    pub not_after: SystemTime,
    /// When the CA first named it no more.
    pub retired: Option<SystemTime>,
    anchor: TrustAnchor<'static>,
}

impl Root {
    /// Until when it is trusted.
    pub fn trusted_until(&self) -> SystemTime {
        let end = self.not_after + SKEW;
        self.retired.map_or(end, |since| end.min(since + LONGEST_LIFE + SKEW))
    }
}

/// Roots by fingerprint.
pub type Roots = BTreeMap<String, Root>;

/// Whom this node believes.
#[derive(Debug)]
pub struct Trust {
    domain: Arc<str>,
    others: ArcSwap<Vec<Arc<str>>>,
    anchors: ArcSwap<Vec<TrustAnchor<'static>>>,
    roots: Mutex<Roots>,
    revoked: ArcSwap<Lists>,
}

impl Trust {
    /// Believes nobody yet.
    pub fn new(domain: Arc<str>) -> Self {
        Self {
            domain,
            others: ArcSwap::default(),
            anchors: ArcSwap::default(),
            roots: Mutex::default(),
            revoked: ArcSwap::default(),
        }
    }

    /// The mesh's own trust domain.
    pub fn domain(&self) -> &Arc<str> {
        &self.domain
    }

    /// Replaces the trust domains whose workloads are believed beside the mesh's own, by the same roots.
    pub fn set_domains(&self, all: &[Arc<str>]) {
        if **self.others.load() != *all {
            self.others.store(Arc::new(all.to_vec()));
        }
    }

    /// Whether workloads of a trust domain may be believed.
    pub fn knows(&self, domain: &str) -> bool {
        *self.domain == *domain || self.others.load().iter().any(|other| **other == *domain)
    }

    /// What chains have to end in.
    pub fn anchors(&self) -> Arc<Vec<TrustAnchor<'static>>> {
        self.anchors.load_full()
    }

    /// What is good no more, whatever it chains to.
    pub fn revoked(&self) -> Arc<Lists> {
        self.revoked.load_full()
    }

    /// Replaces the lists of what is good no more; they have been proved.
    pub fn revoke(&self, lists: Lists) {
        self.revoked.store(Arc::new(lists));
    }

    /// All roots, by fingerprint.
    pub fn roots(&self) -> Roots {
        self.lock().clone()
    }

    /// Takes in what the CA names now. True: handshakes go by other roots than before.
    pub fn name(&self, named: &[CertificateDer<'_>], now: SystemTime) -> Result<bool, Refusal> {
        let mut fresh = Roots::new();
        for der in named {
            let facts = certificate::read_ca(der)?;
            if !facts.may_sign {
                return Err(Refusal::NotACa(facts.subject));
            }
            let anchor = webpki::anchor_from_trusted_cert(der).map_err(|_| Refusal::Malformed)?.to_owned();
            let root = Root { subject: facts.subject, not_after: facts.not_after, retired: None, anchor };
            fresh.insert(fingerprint(der), root);
        }
        let mut roots = self.lock();
        let before: Vec<String> = roots.keys().cloned().collect();
        for (fingerprint, mut root) in std::mem::take(&mut *roots) {
            root.retired = root.retired.or(Some(now));
            fresh.entry(fingerprint).or_insert(root);
        }
        *roots = fresh;
        roots.retain(|_, root| root.trusted_until() > now);
        let changed = !roots.keys().eq(&before);
        if changed {
            self.publish(&roots);
        }
        Ok(changed)
    }

    /// Drops the roots whose time has come.
    pub fn prune(&self, now: SystemTime) {
        let mut roots = self.lock();
        let before = roots.len();
        roots.retain(|_, root| root.trusted_until() > now);
        if roots.len() != before {
            self.publish(&roots);
        }
    }

    fn publish(&self, roots: &Roots) {
        self.anchors.store(Arc::new(roots.values().map(|root| root.anchor.clone()).collect()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Roots> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// SHA-256 over a certificate, in hex.
fn fingerprint(der: &[u8]) -> String {
    certificate::hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref())
}
