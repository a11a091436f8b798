//! The keys of all issuers, shared by the workers. A request never waits for a fetch, except for the first one of keys that
//! nobody has asked for before: workers read what is here, and a [`Fetcher`] on another thread keeps it fresh.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use ipnet::IpNet;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use weft_rules::guard::token::{KeySource, TokenRule};
use weft_rules::snapshot::Snapshot;

use super::keys::KeySet;
use super::{Refusal, Token, fetch};

/// Age at which keys are fetched again (Istio's `PILOT_JWT_PUB_KEY_REFRESH_INTERVAL`).
const REFRESH: Duration = Duration::from_mins(20);
/// A token of an unknown key has keys fetched again, but not more often than this.
const REFRESH_EARLY: Duration = Duration::from_secs(3);
/// How long after a failure it is tried again: twice as long each time, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

type Sources = HashMap<KeySource, Arc<Issuer>, foldhash::fast::RandomState>;

/// The keys of all issuers.
#[derive(Debug)]
pub struct Keyring {
    issuers: ArcSwap<Sources>,
    /// Where keys may be fetched from besides, `--jwks-allow`.
    allowed: Box<[IpNet]>,
    wanted: mpsc::UnboundedSender<Arc<Issuer>>,
}

/// One issuer's keys.
#[derive(Debug)]
struct Issuer {
    source: KeySource,
    timeout: Duration,
    keys: ArcSwapOption<KeySet>,
    /// Whether the first fetch has ended.
    tried: watch::Sender<bool>,
    /// Somebody has a token of a key that is not among them.
    outdated: Notify,
    /// Why the last fetch failed, if it did.
    trouble: ArcSwapOption<String>,
}

impl Keyring {
    /// A ring without keys, and what fills it. `allowed`: where keys may be fetched from besides where anybody may.
    pub fn new(allowed: &[IpNet]) -> (Arc<Self>, Fetcher) {
        let (wanted, queue) = mpsc::unbounded_channel();
        let ring = Arc::new(Self { issuers: ArcSwap::default(), allowed: allowed.into(), wanted });
        (Arc::clone(&ring), Fetcher { ring, queue })
    }

    /// Whether the rule's issuer has signed the token. Waits only for the first fetch of the issuer's keys. Cancel-safe.
    ///
    /// # Errors
    /// It has not, or its keys cannot be had.
    pub async fn verify(&self, rule: &TokenRule, token: &Token<'_>) -> Result<(), Refusal> {
        let issuer = self.issuer(rule);
        if issuer.keys.load().is_none() {
            let mut tried = issuer.tried.subscribe();
            let first = tokio::time::timeout(issuer.timeout, tried.wait_for(|tried| *tried));
            if first.await.is_err() {
                issuer.tried.send_replace(true);
            }
        }
        let keys = issuer.keys.load();
        let Some(keys) = &*keys else { return Err(Refusal::KeysUnavailable) };
        let outcome = keys.verify(token);
        if outcome == Err(Refusal::NoSuchKey) {
            issuer.outdated.notify_one();
        }
        outcome
    }

    /// Whose keys cannot be fetched, and why, in the order of their URLs.
    pub fn troubles(&self) -> Vec<String> {
        let issuers = self.issuers.load();
        let mut all: Vec<String> = issuers
            .values()
            .filter_map(|issuer| {
                let trouble = issuer.trouble.load();
                let kept = if issuer.keys.load().is_some() {
                    "those of the last fetch stay"
                } else {
                    "its tokens are refused"
                };
                let why = trouble.as_deref()?;
                Some(format!("keys at {} cannot be fetched, {kept}: {why}", issuer.url().escape_debug()))
            })
            .collect();
        all.sort_unstable();
        all
    }

    fn issuer(&self, rule: &TokenRule) -> Arc<Issuer> {
        let issuers = self.issuers.load();
        issuers.get(&rule.keys).map_or_else(|| self.add(rule), Arc::clone)
    }

    fn add(&self, rule: &TokenRule) -> Arc<Issuer> {
        let new = Arc::new(Issuer::new(rule));
        let before = self.issuers.rcu(|issuers| {
            let mut issuers = Sources::clone(issuers);
            issuers.entry(rule.keys.clone()).or_insert_with(|| Arc::clone(&new));
            issuers
        });
        if let Some(earlier) = before.get(&rule.keys) {
            return Arc::clone(earlier);
        }
        if !*new.tried.borrow() {
            // Fails only at the agent's end, when there is nobody to fetch them.
            self.wanted.send(Arc::clone(&new)).ok();
        }
        new
    }

    /// Keeps the issuers of these rules and no others.
    fn keep(&self, rules: &[Arc<TokenRule>]) {
        for rule in rules {
            self.issuer(rule);
        }
        let named: HashSet<&KeySource> = rules.iter().map(|rule| &rule.keys).collect();
        if self.issuers.load().keys().any(|source| !named.contains(source)) {
            self.issuers.rcu(|issuers| {
                let mut issuers = Sources::clone(issuers);
                issuers.retain(|source, _| named.contains(source));
                issuers
            });
        }
    }
}

impl Issuer {
    fn new(rule: &TokenRule) -> Self {
        let inline = match &rule.keys {
            KeySource::Inline(keys) => KeySet::read(keys.as_bytes())
                .inspect_err(
                    |error| tracing::warn!(issuer = %rule.issuer, %error, "jwks: tokens are refused"),
                )
                .ok(),
            KeySource::Uri(_) | KeySource::Discovery(_) => None,
        };
        let given = matches!(rule.keys, KeySource::Inline(_));
        Self {
            source: rule.keys.clone(),
            timeout: rule.keys_timeout,
            keys: ArcSwapOption::from_pointee(inline),
            tried: watch::channel(given).0,
            outdated: Notify::new(),
            trouble: ArcSwapOption::empty(),
        }
    }

    fn url(&self) -> &str {
        match &self.source {
            KeySource::Inline(_) => "inline",
            KeySource::Uri(url) | KeySource::Discovery(url) => url,
        }
    }

    /// Fetches the keys, and again when they are old or a token's key is not among them, until the issuer is on no
    /// ring any more.
    async fn refresh(issuer: Arc<Self>, ring: Arc<Keyring>, snapshot: Arc<ArcSwap<Snapshot>>) {
        let mut retry = RETRY.0;
        loop {
            let fetched = Instant::now();
            let network = fetch::Network { snapshot: &snapshot, allowed: &ring.allowed };
            let wait = match fetch::keys(&issuer.source, network, issuer.timeout).await {
                Ok(keys) => {
                    issuer.keys.store(Some(Arc::new(keys)));
                    issuer.trouble.store(None);
                    retry = RETRY.0;
                    REFRESH
                }
                Err(error) => {
                    let kept = issuer.keys.load().is_some();
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::warn!(url = issuer.url(), error, kept, "an issuer's keys cannot be fetched");
                    issuer.trouble.store(Some(Arc::new(error)));
                    let wait = retry;
                    retry = (retry * 2).min(RETRY.1);
                    wait
                }
            };
            issuer.tried.send_replace(true);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = issuer.outdated.notified() => tokio::time::sleep_until(fetched + REFRESH_EARLY).await,
            }
            let current = ring.issuers.load();
            if !current.get(&issuer.source).is_some_and(|current| Arc::ptr_eq(current, &issuer)) {
                return;
            }
        }
    }
}

/// Fetches what a [`Keyring`] lacks.
#[derive(Debug)]
pub struct Fetcher {
    ring: Arc<Keyring>,
    queue: mpsc::UnboundedReceiver<Arc<Issuer>>,
}

impl Fetcher {
    /// Fetches until it is dropped: what is asked for, and what some rule in force names.
    pub async fn run(mut self, snapshot: Arc<ArcSwap<Snapshot>>) {
        self.fill(snapshot, |snapshot| snapshot.token_rules().map(Arc::clone).collect()).await;
    }

    async fn fill(
        &mut self,
        snapshot: Arc<ArcSwap<Snapshot>>,
        rules: impl Fn(&Snapshot) -> Vec<Arc<TokenRule>>,
    ) {
        let mut fetching = JoinSet::new();
        let mut generation = None;
        let mut look = tokio::time::interval(Duration::from_millis(250));
        loop {
            tokio::select! {
                Some(issuer) = self.queue.recv() => {
                    fetching.spawn(Issuer::refresh(issuer, Arc::clone(&self.ring), Arc::clone(&snapshot)));
                }
                Some(_) = fetching.join_next() => {}
                _ = look.tick() => {
                    let current = snapshot.load();
                    if generation.replace(current.generation) != Some(current.generation) {
                        self.ring.keep(&rules(&current));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
