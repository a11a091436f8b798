//! Which service accounts run where, and what agents have said of pods: the controller's own watch of Pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource};
use kube::core::Object;
use kube::runtime::watcher::{Config, Event};
use kube::{Client, ResourceExt};
use serde::Deserialize;
use tokio::sync::watch;
use weft_api::istio::is_gateway_pod;
use weft_api::meta::Labels;

use crate::away::{Orphan, Standing};
use crate::watching;

/// Pods that are on a node and have not finished: the server sends no others.
const ALIVE: &str = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";

/// The annotation of a pod that a node has from a file of its own (a static pod), which nobody can take away.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What is read of a Pod's spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Where it runs.
    pub node_name: Option<String>,
    /// As whom.
    pub service_account_name: Option<String>,
}

/// What is read of a Pod's status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// `Succeeded` and `Failed` have finished.
    pub phase: Option<String>,
    conditions: Vec<Condition>,
    container_statuses: Vec<Container>,
}

/// A condition of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// In RFC 3339.
    pub last_transition_time: String,
}

/// How a container is, and how it ended last.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    state: ContainerState,
    last_state: ContainerState,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    finished_at: Option<String>,
}

impl Status {
    /// The condition of a type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// When its containers have ended, in RFC 3339.
    pub fn ends(&self) -> impl Iterator<Item = &str> {
        let states = self.container_statuses.iter().flat_map(|one| [&one.state, &one.last_state]);
        states.filter_map(|state| state.terminated.as_ref()?.finished_at.as_deref())
    }
}

/// Namespace and name.
pub type Name = (String, String);

/// A Pod as the CA sees it.
pub type LeanPod = Object<Spec, Status>;

/// A service account on a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    node: String,
    namespace: String,
    account: String,
}

/// Where each live pod is, and how many are at each place.
#[derive(Debug, Default)]
pub struct Index {
    pods: HashMap<Name, Place>,
    places: HashMap<Place, usize>,
    /// Gateways' pods, by namespace and name: the node, and their labels.
    gateways: BTreeMap<Name, (String, Labels)>,
    standing: Standing,
}

impl Index {
    fn apply(&mut self, pod: LeanPod, own: &str) {
        let name = name_of(&pod);
        self.remove(&name);
        self.standing.apply(&name, &pod, own);
        let finished = pod.status.and_then(|status| status.phase);
        if finished.is_some_and(|phase| phase == "Succeeded" || phase == "Failed") {
            return;
        }
        // A node may make such pods, in every namespace and with all labels, and no others: one that was taken over would get
        // everybody's certificates.
        if pod.metadata.annotations.is_some_and(|all| all.contains_key(MIRROR)) {
            return;
        }
        let Some(node) = pod.spec.node_name.filter(|node| !node.is_empty()) else { return };
        let labels = pod.metadata.labels.unwrap_or_default();
        if is_gateway_pod(&labels) {
            self.gateways.insert(name.clone(), (node.clone(), labels));
        }
        let account = pod.spec.service_account_name.filter(|account| !account.is_empty());
        let account = account.unwrap_or_else(|| "default".to_owned());
        let place = Place { node, namespace: name.0.clone(), account };
        *self.places.entry(place.clone()).or_default() += 1;
        self.pods.insert(name, place);
    }

    fn remove(&mut self, name: &Name) {
        self.standing.remove(name);
        self.gateways.remove(name);
        let Some(place) = self.pods.remove(name) else { return };
        if let Some(count) = self.places.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.places.remove(&place);
            }
        }
    }
}

fn name_of(pod: &LeanPod) -> Name {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

/// Every live pod of the cluster, by node and service account.
#[derive(Debug, Default)]
pub struct Pods {
    /// Where agents are.
    own: String,
    index: RwLock<Index>,
    /// True once the first list is complete; rings with each change.
    complete: watch::Sender<bool>,
}

impl Pods {
    /// None are known yet; weft itself is in the namespace `own`.
    pub fn new(own: &str) -> Self {
        Self { own: own.to_owned(), ..Self::default() }
    }

    /// The conditions `weft.dev/Enrolled` that nobody stands behind, as [`Standing::orphans`] has it.
    pub fn orphans(&self, now: Timestamp, missing: &mut HashMap<String, Timestamp>) -> Vec<Orphan> {
        if !self.is_complete() {
            return Vec::new();
        }
        self.index.read().unwrap_or_else(PoisonError::into_inner).standing.orphans(now, missing)
    }

    /// Whether the first list is complete.
    pub fn is_complete(&self) -> bool {
        *self.complete.borrow()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.index.read().unwrap_or_else(PoisonError::into_inner).pods.len()
    }

    /// Whether a live pod of the account is on the node.
    pub fn runs(&self, node: &str, namespace: &str, account: &str) -> bool {
        let place =
            Place { node: node.to_owned(), namespace: namespace.to_owned(), account: account.to_owned() };
        self.index.read().unwrap_or_else(PoisonError::into_inner).places.contains_key(&place)
    }

    /// As [`Self::runs`], after waiting at most so long for the watch to hear of it: the node's agent may be quicker.
    pub async fn runs_soon(&self, node: &str, namespace: &str, account: &str, longest: Duration) -> bool {
        let mut changes = self.complete.subscribe();
        let waiting = async {
            while !self.runs(node, namespace, account) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        // What counts is what is there now.
        let _ = tokio::time::timeout(longest, waiting).await;
        self.runs(node, namespace, account)
    }

    /// Rings with each change.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.complete.subscribe()
    }

    /// Whether a live gateway pod of the namespace is on the node whose labels fit.
    pub fn any_gateway(&self, node: &str, namespace: &str, fits: impl Fn(&Labels) -> bool) -> bool {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let from = (namespace.to_owned(), String::new());
        let in_namespace = index.gateways.range(from..).take_while(|((ns, _), _)| ns == namespace);
        in_namespace.filter(|(_, (on, _))| on == node).any(|(_, (_, labels))| fits(labels))
    }

    /// The namespaces that have gateway pods.
    pub fn gateway_namespaces(&self) -> BTreeSet<String> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.gateways.keys().map(|(namespace, _)| namespace.clone()).collect()
    }

    /// Follows the API server for as long as the process lives.
    pub async fn follow(&self, client: Client) {
        let api: Api<LeanPod> = Api::all_with(client, &ApiResource::erase::<Pod>(&()));
        let mut fresh = Index::default();
        watching::follow(api, Config::default().fields(ALIVE), "pods", |event| self.take(event, &mut fresh))
            .await;
    }

    /// Takes an event in; `fresh` is the list that is under way.
    pub fn take(&self, event: Event<LeanPod>, fresh: &mut Index) {
        match event {
            Event::Init => return *fresh = Index::default(),
            Event::InitApply(pod) => return fresh.apply(pod, &self.own),
            Event::InitDone => {
                let listed = std::mem::take(fresh);
                *self.index.write().unwrap_or_else(PoisonError::into_inner) = listed;
            }
            Event::Apply(pod) => {
                self.index.write().unwrap_or_else(PoisonError::into_inner).apply(pod, &self.own);
            }
            Event::Delete(pod) => {
                self.index.write().unwrap_or_else(PoisonError::into_inner).remove(&name_of(&pod));
            }
        }
        self.complete.send_replace(true);
    }
}

#[cfg(test)]
mod tests;
