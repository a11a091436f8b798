//! Certificates by which this node's gateways end TLS: from Secrets, or from files, made into what handshakes need.
//!
//! ```text
//! control ── want: how servers end TLS ──▶ made ◀── put: Secrets ── folder, or the controller (fetch)
//! workers ◀── a configuration, without a lock ── made
//! ```
//!
//! A server whose certificate is missing or broken has none: nobody else's stands in. Keys live in memory only.

mod client_certificate;
mod clients;
mod fetch;
mod secret;
mod server;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use weft_api::admin::{SecretRow, SecretState};
use weft_api::istio::{ServerTlsMode, Termination};
use weft_api::kubernetes::Secret;

pub use client_certificate::ClientCertificate;
pub(crate) use fetch::keep;
use rustls::ServerConfig;
use secret::{KEYS, SecretData};
use server::Lack;

/// Namespace and name of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Box<str>,
}

/// The certificates of this node's gateways. Shared by the control thread, which says what is wanted, and by the workers, which
/// read without a lock.
#[derive(Debug, Default)]
pub struct Credentials {
    state: Mutex<State>,
    made: ArcSwap<HashMap<Arc<Termination>, Made>>,
    /// Rings when other Secrets are wanted.
    asked: Notify,
}

/// What a server's handshakes are made by; else why there are none.
type Made = Result<Arc<server::Server>, Arc<str>>;

/// Where Secrets come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SecretsFrom {
    /// They are objects in a folder; certificates may be files, too.
    Folder,
    /// The controller hands them over.
    Controller,
    /// Nobody has any.
    #[default]
    Nobody,
}

#[derive(Debug, Default)]
struct State {
    secrets: HashMap<SecretName, Kept>,
    wanted: BTreeSet<SecretName>,
    /// The files among what is wanted, and when they were written.
    files: HashMap<PathBuf, Option<SystemTime>>,
    terminations: Vec<Arc<Termination>>,
    from: SecretsFrom,
}

/// A Secret as it was told last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    /// In the words of who told it.
    version: String,
    data: Result<Arc<SecretData>, Arc<str>>,
    /// There was no room for so many bytes that it holds.
    over: Option<usize>,
}

/// What the Secrets of one namespace may hold together, and those of all: whoever may write Gateways and Secrets could fill the
/// agent otherwise.
const OF_NAMESPACE: usize = 8 << 20;
const OF_ALL: usize = 32 << 20;

impl Credentials {
    /// Nothing is wanted yet.
    pub fn new(from: SecretsFrom) -> Arc<Self> {
        let state = State { from, ..State::default() };
        Arc::new(Self { state: Mutex::new(state), ..Self::default() })
    }

    /// Whether the controller is asked for Secrets.
    pub(crate) fn are_handed_over(&self) -> bool {
        self.state().from == SecretsFrom::Controller
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the set of what ends TLS on this node. What is not wanted any more is forgotten.
    pub fn want<'a>(&self, terminations: impl Iterator<Item = &'a Arc<Termination>>) {
        let by_secret = |of: &&Arc<Termination>| of.settings.mode != ServerTlsMode::IstioMutual;
        let terminations: Vec<_> = terminations.filter(by_secret).cloned().collect();
        let mut state = self.state();
        if state.terminations.is_empty() && terminations.is_empty() {
            return;
        }
        let names: BTreeSet<SecretName> = terminations.iter().flat_map(|of| secrets_of(of)).collect();
        let others = names != state.wanted;
        if state.from == SecretsFrom::Controller {
            let before = state.secrets.len();
            state.secrets.retain(|name, _| names.contains(name));
            if state.secrets.len() < before {
                state.ask_again();
            }
        }
        let known = self.made.load();
        let mut made = HashMap::with_capacity(terminations.len());
        for of in &terminations {
            made.entry(of.clone()).or_insert_with(|| {
                if let Some(before) = known.get(of) {
                    return before.clone();
                }
                let fresh = state.make(of);
                if state.from != SecretsFrom::Controller {
                    tell(of, None, &fresh);
                }
                fresh
            });
        }
        state.files = terminations.iter().flat_map(|of| server::files(of)).map(written).collect();
        state.terminations = terminations;
        state.wanted = names;
        self.made.store(Arc::new(made));
        drop(state);
        if others {
            self.asked.notify_one();
        }
    }

    /// Looks whether files have changed, where TLS ends by any.
    pub fn look_at_files(&self) {
        let mut state = self.state();
        if state.from != SecretsFrom::Folder || state.files.is_empty() {
            return;
        }
        let now: HashMap<_, _> = state.files.keys().map(written).collect();
        if now != state.files {
            state.files = now;
            self.make_again(&state, |of| server::files(of).next().is_some());
        }
    }

    /// Makes some anew, of what there is now.
    fn make_again(&self, state: &State, concerns: impl Fn(&Termination) -> bool) {
        let mut made = HashMap::clone(&self.made.load());
        for of in state.terminations.iter().filter(|of| concerns(of)) {
            let fresh = state.make(of);
            tell(of, made.get(of), &fresh);
            made.insert(of.clone(), fresh);
        }
        self.made.store(Arc::new(made));
    }

    /// Takes in a Secret of the folder's; `None`: there is none any more.
    pub fn put_object(&self, namespace: &str, name: &str, secret: Option<&Secret>) {
        let name = SecretName { namespace: namespace.into(), name: name.into() };
        match secret {
            None => self.put(vec![(name, None)]),
            Some(secret) => {
                let values = KEYS.iter().filter_map(|key| Some(((*key).to_owned(), secret.value(key)?)));
                let data = Ok(Arc::new(SecretData::new(values)));
                self.put(vec![(name, Some(Kept { version: String::new(), data, over: None }))]);
            }
        }
    }

    fn put(&self, told: Vec<(SecretName, Option<Kept>)>) {
        let mut state = self.state();
        let mut changed = BTreeSet::new();
        for (name, kept) in told {
            let is_new = match kept.map(|kept| state.within_room(&name, kept)) {
                Some(kept) => state.secrets.insert(name.clone(), kept.clone()) != Some(kept),
                None => state.secrets.remove(&name).is_some(),
            };
            if is_new {
                changed.insert(name);
            }
        }
        if !changed.is_empty() {
            self.make_again(&state, |of| secrets_of(of).any(|name| changed.contains(&name)));
            if state.ask_again() {
                self.asked.notify_one();
            }
        }
    }

    /// What handshakes are made by where TLS ends so.
    ///
    /// # Errors
    /// Why there are none: the certificate is missing, or broken.
    pub fn server(&self, of: &Arc<Termination>) -> Result<Arc<ServerConfig>, Arc<str>> {
        match self.made.load().get(of) {
            Some(made) => made.as_ref().map(|server| server.config.clone()).map_err(Arc::clone),
            None => Err("it is not served".into()),
        }
    }

    /// Why servers are closed, each once.
    pub fn closed(&self) -> Vec<Arc<str>> {
        let mut all: Vec<_> =
            self.made.load().values().filter_map(|made| made.as_ref().err().cloned()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The Secrets that nobody has told of yet.
    pub fn on_their_way(&self) -> Vec<String> {
        let state = self.state();
        if state.from != SecretsFrom::Controller {
            return Vec::new();
        }
        let untold = state.wanted.iter().filter(|name| !state.secrets.contains_key(name));
        untold.map(ToString::to_string).collect()
    }

    /// By Secret, when the certificate ends by which a server ends TLS, in order.
    pub fn serving(&self) -> Vec<(String, SystemTime)> {
        let made = self.made.load();
        let mut ends = BTreeMap::new();
        for (of, server) in made.iter().filter_map(|(of, made)| Some((of, made.as_ref().ok()?))) {
            for (name, facts) in of.settings.certificate_secrets().zip(&server.certificates) {
                ends.insert(format!("{}/{name}", of.namespace), facts.not_after);
            }
        }
        ends.into_iter().collect()
    }

    /// What `weft get secrets` lists: the Secrets with the servers' own certificates, in order.
    pub fn rows(&self) -> Vec<SecretRow> {
        let made = self.made.load();
        let mut rows = BTreeMap::new();
        for (of, made) in made.iter() {
            for (at, name) in of.settings.certificate_secrets().enumerate() {
                let name = SecretName { namespace: of.namespace.clone(), name: name.into() };
                let row = rows.entry(name.clone()).or_insert_with(|| SecretRow {
                    namespace: name.namespace.to_string(),
                    name: name.name.to_string(),
                    ..SecretRow::default()
                });
                match made {
                    Ok(server) => {
                        let Some(facts) = server.certificates.get(at) else { continue };
                        let is_over = facts.not_after <= SystemTime::now();
                        row.state = if is_over { SecretState::Expired } else { SecretState::Serves };
                        row.names.clone_from(&facts.names);
                        row.not_after = Some(jiff_time(facts.not_after));
                    }
                    Err(why) if row.state == SecretState::Closed => {
                        row.state = SecretState::Closed;
                        row.message = Some(why.to_string());
                    }
                    Err(_) => {}
                }
            }
        }
        rows.into_values().collect()
    }
}

/// When a file was written; `None`: it is not there.
fn written(path: impl AsRef<Path>) -> (PathBuf, Option<SystemTime>) {
    let path = path.as_ref();
    (path.to_owned(), std::fs::metadata(path).and_then(|file| file.modified()).ok())
}

fn jiff_time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| at.to_string()).unwrap_or_default()
}

impl State {
    /// What is kept of a Secret: not what it holds, where that is too much.
    fn within_room(&self, name: &SecretName, kept: Kept) -> Kept {
        let Ok(data) = &kept.data else { return kept };
        let size = data.size();
        let Some(too_much) = self.lacks_room(name, size) else { return kept };
        let why = format!("Secret {name} has no room: {too_much}");
        Kept { data: Err(why.into()), over: Some(size), ..kept }
    }

    /// Why there is no room for so many bytes in a Secret; `None`: there is.
    fn lacks_room(&self, name: &SecretName, size: usize) -> Option<String> {
        let (mut of_namespace, mut of_all) = (size, size);
        for (other, kept) in self.secrets.iter().filter(|(other, _)| *other != name) {
            let size = kept.data.as_ref().map_or(0, |data| data.size());
            of_all += size;
            if other.namespace == name.namespace {
                of_namespace += size;
            }
        }
        if of_namespace > OF_NAMESPACE {
            let (namespace, most) = (&name.namespace, OF_NAMESPACE >> 20);
            return Some(format!("those of namespace {namespace} would hold more than {most} MiB together"));
        }
        (of_all > OF_ALL)
            .then(|| format!("all of the node's gateways would hold more than {} MiB", OF_ALL >> 20))
    }

    /// Forgets that it knows of Secrets that had no room and have by now, so that they are told again. True: there are some.
    fn ask_again(&mut self) -> bool {
        let over = self.secrets.iter().filter_map(|(name, kept)| Some((name, kept.over?)));
        let fits = over.filter(|(name, size)| self.lacks_room(name, *size).is_none());
        let fits: Vec<SecretName> = fits.map(|(name, _)| name.clone()).collect();
        for name in &fits {
            self.secrets.remove(name);
        }
        !fits.is_empty()
    }

    fn make(&self, of: &Termination) -> Made {
        server::make(of, |name| self.find(&of.namespace, name), self.from == SecretsFrom::Folder)
            .map(Arc::new)
            .map_err(Arc::from)
    }

    /// A Secret, else why there is none.
    fn find(&self, namespace: &Arc<str>, name: &str) -> Result<Arc<SecretData>, Lack> {
        let full = SecretName { namespace: namespace.clone(), name: name.into() };
        match self.secrets.get(&full) {
            Some(Kept { data: Ok(data), .. }) => Ok(data.clone()),
            // Nobody has answered.
            Some(Kept { data: Err(why), version, .. }) if version.is_empty() => {
                Err(Lack::Unknown(why.to_string()))
            }
            Some(Kept { data: Err(why), .. }) => Err(Lack::Absent(why.to_string())),
            None => Err(match self.from {
                SecretsFrom::Folder => Lack::Absent(format!("there is no Secret {full}")),
                SecretsFrom::Controller => Lack::Unknown(format!("Secret {full} is on its way")),
                SecretsFrom::Nobody => Lack::Absent(format!(
                    "Secret {full} cannot be had: this agent has no controller (--ca-address)"
                )),
            }),
        }
    }
}

/// Says what has changed, where somebody may want to know.
fn tell(of: &Termination, before: Option<&Made>, now: &Made) {
    let secrets: Vec<&str> = of.settings.certificate_secrets().collect();
    let (namespace, secrets) = (&of.namespace, secrets.join(", "));
    match (before, now) {
        (Some(Err(_)), Ok(_)) => tracing::info!(%namespace, secrets, "the gateway's server is open"),
        (Some(Ok(_)), Ok(_)) => {
            tracing::info!(%namespace, secrets, "the gateway's server has another certificate");
        }
        (_, Err(why)) => tracing::warn!(%namespace, secrets, "the gateway's server is closed: {why}"),
        (None, Ok(_)) => {}
    }
}

fn secrets_of(of: &Termination) -> impl Iterator<Item = SecretName> {
    let namespace = of.namespace.clone();
    of.settings
        .secrets()
        .into_iter()
        .map(move |name| SecretName { namespace: namespace.clone(), name: name.into() })
}

impl std::fmt::Display for SecretName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests;
