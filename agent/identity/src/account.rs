//! One service account: its certificate, and how the last attempt to get one went.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use weft_api::identity::Identity;

use super::certificate::Facts;
use super::tls::Tls;

/// One service account with pods on this node.
#[derive(Debug)]
pub struct Account {
    identity: Identity,
    tls: ArcSwapOption<Tls>,
    /// Whether the first attempt has ended.
    attempted: watch::Sender<bool>,
    record: Mutex<Record>,
}

/// What status tells of an account.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Of the certificate that came last.
    pub facts: Option<Facts>,
    /// When the next attempt is due.
    pub next: Option<SystemTime>,
    /// Since when attempts have failed, and the last one's reason.
    pub failure: Option<(SystemTime, String)>,
}

impl Account {
    /// Nothing is there yet.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            tls: ArcSwapOption::empty(),
            attempted: watch::Sender::new(false),
            record: Mutex::default(),
        }
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The TLS that serves now.
    pub fn tls(&self, now: SystemTime) -> Option<Arc<Tls>> {
        self.tls.load_full().filter(|tls| now < tls.not_after)
    }

    /// Whether the first attempt has ended.
    pub fn was_attempted(&self) -> bool {
        *self.attempted.borrow()
    }

    /// Waits until the first attempt has ended. Cancel-safe.
    pub async fn attempted(&self) {
        // The sender is part of this account.
        let _ = self.attempted.subscribe().wait_for(|attempted| *attempted).await;
    }

    /// A certificate has come; the next attempt is due at `next`. True: attempts had failed before.
    pub fn succeed(&self, tls: Tls, facts: Facts, next: SystemTime) -> bool {
        self.tls.store(Some(Arc::new(tls)));
        let before = std::mem::replace(
            &mut *self.lock(),
            Record { facts: Some(facts), next: Some(next), failure: None },
        );
        self.attempted.send_replace(true);
        before.failure.is_some()
    }

    /// None has come; what there is stays. True: it is the first failure in a row.
    pub fn fail(&self, why: String, now: SystemTime, next: SystemTime) -> bool {
        let mut record = self.lock();
        let first = record.failure.is_none();
        let since = record.failure.take().map_or(now, |(since, _)| since);
        record.failure = Some((since, why));
        record.next = Some(next);
        drop(record);
        self.attempted.send_replace(true);
        first
    }

    /// What status tells.
    pub fn record(&self) -> Record {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
