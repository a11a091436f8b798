//! Hands gateways' Secrets to the agents of the nodes on which live pods need them: which an agent gets, and when.
//!
//! An agent has no right to read a Secret. It asks for those that its gateways' servers name, with what it has of them, and is
//! answered when there is something else. It gets one only if a live gateway pod of its node is in the Secret's namespace, and
//! a Gateway that selects that pod names it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::runtime::watcher::{Config, Event};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use weft_api::causes;
use weft_api::names::{OWN_CA_SECRET, USER_CA_SECRET};
use weft_identity::wire::{SecretAsked, SecretTold, SecretsRequest, SecretsResponse};

use crate::gateways::Gateways;
use crate::pods::Pods;
use crate::watching;

/// Changes that belong together come within so long.
const SETTLES: Duration = Duration::from_millis(100);
/// Questions of one node's agent that may wait: it asks one by one, and a successor beside it.
const MOST_WAITING: usize = 8;
/// The most that one question may be about.
const MOST_ASKED: usize = 4096;
/// The most that one answer holds, unless one Secret alone is more.
const ANSWER_BYTES: usize = 768 << 10;
/// The most that a Secret may hold.
const SECRET_BYTES: usize = 256 << 10;
/// So many are read at once, and for so long at most.
const AT_ONCE: usize = 16;
const READ: Duration = Duration::from_secs(3);
/// What is handed over of a Secret.
const KEYS: [&str; 8] = ["tls.crt", "tls.key", "ca.crt", "ca.crl", "cert", "key", "cacert", "crl"];
/// Kinds of Secrets that hold nothing for gateways, and may be many.
const NOT_FOR_GATEWAYS: &str = "type!=kubernetes.io/service-account-token,type!=helm.sh/release.v1";

/// The Secrets of a namespace that has gateway pods: the version of each. What they hold is read when somebody is to have it, and
/// not kept.
#[derive(Debug, Default)]
pub struct OfNamespace {
    complete: bool,
    versions: HashMap<String, String>,
}

impl OfNamespace {
    fn apply(&mut self, secret: &Secret) {
        self.versions.insert(secret.name_any(), version(secret));
    }
}

fn version(secret: &Secret) -> String {
    let meta = &secret.metadata;
    let (uid, version) = (meta.uid.as_deref(), meta.resource_version.as_deref());
    format!("{}/{}", uid.unwrap_or_default(), version.unwrap_or_default())
}

/// What a Secret holds for a gateway; else why that is not handed over.
fn handed_over(secret: Secret) -> Result<HashMap<String, Vec<u8>>, &'static str> {
    let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
    let data: HashMap<String, Vec<u8>> = data.filter(|(key, _)| KEYS.contains(&&**key)).collect();
    let size: usize = data.values().map(Vec::len).sum();
    match size {
        0 => Err("it holds no certificate"),
        1..=SECRET_BYTES => Ok(data),
        _ => Err("it is larger than 256 KiB"),
    }
}

/// What is to be said of a Secret.
enum Answer {
    /// That it is there, in this version.
    There(String),
    /// That it cannot be had, and why.
    Refused(String),
    /// Nothing yet.
    NotYet,
}

/// Answers agents.
pub struct GatewaySecrets {
    /// How long an answer is held back while there is nothing new.
    pub held_back: Duration,
    /// So long, a pod or Gateway may be known to an agent and not here.
    pub patience: Duration,
    client: Client,
    /// Where weft itself is.
    own_namespace: String,
    /// How many questions of each node's agent wait.
    waiting: Mutex<HashMap<String, usize>>,
    pods: Arc<Pods>,
    gateways: Gateways,
    namespaces: RwLock<HashMap<String, OfNamespace>>,
    /// Rings when a Secret has changed.
    changed: watch::Sender<()>,
}

impl GatewaySecrets {
    /// Nothing is known yet.
    pub fn new(client: Client, own_namespace: &str, pods: Arc<Pods>) -> Self {
        Self {
            held_back: Duration::from_secs(5),
            patience: Duration::from_secs(2),
            client,
            own_namespace: own_namespace.to_owned(),
            waiting: Mutex::default(),
            pods,
            gateways: Gateways::default(),
            namespaces: RwLock::default(),
            changed: watch::Sender::default(),
        }
    }

    /// What the agent of `node` does not have yet; waits for it, but not for long.
    /// `None`: too many of its questions wait already.
    pub async fn changed(&self, node: &str, request: &SecretsRequest) -> Option<SecretsResponse> {
        let _turn = Turn::of(&self.waiting, node)?;
        let began = Instant::now();
        let (mut secrets, mut gateways, mut pods) =
            (self.changed.subscribe(), self.gateways.changes(), self.pods.changes());
        loop {
            let (waited, impatient) = (began.elapsed(), began.elapsed() >= self.patience);
            let told = self.told(node, &request.secrets, impatient).await;
            if !told.is_empty() || waited >= self.held_back {
                return Some(SecretsResponse { secrets: told });
            }
            let next = began + if impatient { self.held_back } else { self.patience };
            // What has changed meanwhile rings at once.
            tokio::select! {
                _ = secrets.changed() => {}
                _ = gateways.changed() => {}
                _ = pods.changed() => {}
                () = tokio::time::sleep_until(next) => continue,
            }
            // Of many changes at once, all are taken in together.
            tokio::time::sleep(SETTLES).await;
        }
    }

    /// What is other than the agent knows, as much as an answer holds.
    async fn told(&self, node: &str, asked: &[SecretAsked], impatient: bool) -> Vec<SecretTold> {
        let answers = asked.iter().take(MOST_ASKED).filter_map(|asked| {
            let answer = self.answer(node, &asked.namespace, &asked.name, impatient);
            let is_new = match &answer {
                Answer::NotYet => false,
                Answer::There(version) => *version != asked.version,
                Answer::Refused(why) => refused_version(why) != asked.version,
            };
            is_new.then_some((asked, answer))
        });
        let read = answers.map(async |(asked, answer)| match answer {
            Answer::Refused(why) => Some(refused(asked, why)),
            Answer::There(_) => self.read(asked).await,
            Answer::NotYet => None,
        });
        let read = futures_util::stream::iter(read.collect::<Vec<_>>()).buffered(AT_ONCE);
        let (mut read, mut told, mut size) = (std::pin::pin!(read), Vec::new(), 0);
        while let Some(one) = read.next().await {
            let Some(one) = one else { continue };
            size += one.data.values().map(Vec::len).sum::<usize>() + one.refused.len();
            if size > ANSWER_BYTES && !told.is_empty() {
                break;
            }
            told.push(one);
        }
        told
    }

    /// Reads a Secret; `None`: the API server does not say.
    async fn read(&self, asked: &SecretAsked) -> Option<SecretTold> {
        let SecretAsked { namespace, name, version: known } = asked;
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = match tokio::time::timeout(READ, api.get_opt(name)).await {
            Ok(Ok(Some(secret))) => secret,
            // Its deletion is going to be heard of; who does not answer is asked again.
            Ok(Ok(None)) | Err(_) => return None,
            Ok(Err(error)) => {
                tracing::warn!(namespace, name, "a gateway's Secret cannot be read: {}", causes::all(&error));
                return None;
            }
        };
        let version = version(&secret);
        match handed_over(secret) {
            Ok(data) => Some(SecretTold {
                namespace: namespace.clone(),
                name: name.clone(),
                version,
                data,
                refused: String::new(),
            }),
            Err(why) => {
                let told = refused(asked, format!("Secret {namespace}/{name}: {why}"));
                // So that it is read again when it has changed, and not before.
                Some(SecretTold { version, ..told }).filter(|told| told.version != *known)
            }
        }
    }

    fn answer(&self, node: &str, namespace: &str, name: &str, impatient: bool) -> Answer {
        // Gateways' pods are there as well, and anybody may write a Gateway for them.
        if namespace == self.own_namespace && [OWN_CA_SECRET, USER_CA_SECRET].contains(&name) {
            return Answer::Refused(format!(
                "Secret {namespace}/{name} is the mesh's own CA: no gateway gets it"
            ));
        }
        if !self.pods.is_complete() || !self.gateways.is_complete() {
            return Answer::NotYet;
        }
        if !self.pods.any_gateway(node, namespace, |labels| self.gateways.need(labels, name)) {
            return if impatient {
                Answer::Refused(format!(
                    "no live gateway pod of namespace {namespace} on node {node} is selected by a Gateway that names Secret {name}"
                ))
            } else {
                Answer::NotYet
            };
        }
        let namespaces = self.namespaces.read().unwrap_or_else(PoisonError::into_inner);
        let Some(all) = namespaces.get(namespace).filter(|all| all.complete) else { return Answer::NotYet };
        match all.versions.get(name) {
            Some(version) => Answer::There(version.clone()),
            None => Answer::Refused(format!("there is no Secret {namespace}/{name}")),
        }
    }

    /// Follows Gateways, and the Secrets of namespaces with gateway pods, for as long as the process lives.
    pub async fn follow(self: Arc<Self>) {
        tokio::join!(self.gateways.follow(self.client.clone()), self.follow_namespaces());
    }

    async fn follow_namespaces(self: &Arc<Self>) {
        let mut following: HashMap<String, AbortHandle> = HashMap::new();
        let mut pods = self.pods.changes();
        loop {
            let wanted: BTreeSet<String> = self.pods.gateway_namespaces();
            following.retain(|namespace, task| {
                let stays = wanted.contains(namespace);
                if !stays {
                    task.abort();
                    self.namespaces.write().unwrap_or_else(PoisonError::into_inner).remove(namespace);
                }
                stays
            });
            for namespace in wanted {
                following.entry(namespace.clone()).or_insert_with(|| {
                    let (this, api) = (self.clone(), Api::namespaced(self.client.clone(), &namespace));
                    tokio::spawn(async move { this.follow_secrets(api, &namespace).await }).abort_handle()
                });
            }
            if pods.changed().await.is_err() {
                return;
            }
        }
    }

    async fn follow_secrets(&self, api: Api<Secret>, namespace: &str) {
        let mut fresh = OfNamespace::default();
        let config = Config::default().fields(NOT_FOR_GATEWAYS);
        watching::follow(api, config, "secrets", |event| self.take(namespace, event, &mut fresh)).await;
    }

    /// Takes an event in; `fresh` is the list that is under way.
    fn take(&self, namespace: &str, event: Event<Secret>, fresh: &mut OfNamespace) {
        let mut namespaces = self.namespaces.write().unwrap_or_else(PoisonError::into_inner);
        let all = namespaces.entry(namespace.to_owned()).or_default();
        match event {
            Event::Init => return *fresh = OfNamespace::default(),
            Event::InitApply(secret) => return fresh.apply(&secret),
            Event::InitDone => {
                *all = std::mem::take(fresh);
                all.complete = true;
            }
            Event::Apply(secret) => all.apply(&secret),
            Event::Delete(secret) => _ = all.versions.remove(&secret.name_any()),
        }
        drop(namespaces);
        self.changed.send_replace(());
    }
}

/// A question that waits.
struct Turn<'a> {
    waiting: &'a Mutex<HashMap<String, usize>>,
    node: String,
}

impl<'a> Turn<'a> {
    /// `None`: as many of the node's wait as may.
    fn of(waiting: &'a Mutex<HashMap<String, usize>>, node: &str) -> Option<Self> {
        let mut all = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(node.to_owned()).or_default();
        if *count >= MOST_WAITING {
            return None;
        }
        *count += 1;
        Some(Self { waiting, node: node.to_owned() })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.node);
            }
        }
    }
}

fn refused(asked: &SecretAsked, why: String) -> SecretTold {
    SecretTold {
        namespace: asked.namespace.clone(),
        name: asked.name.clone(),
        version: refused_version(&why),
        data: HashMap::new(),
        refused: why,
    }
}

/// By which an agent says that it knows of a refusal.
fn refused_version(why: &str) -> String {
    format!("refused: {why}")
}

impl std::fmt::Debug for GatewaySecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewaySecrets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
