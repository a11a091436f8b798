//! Which Secrets gateways need: the controller's own watch of Gateways, and the decision.

use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};

use kube::api::{Api, ApiResource, GroupVersionKind};
use kube::core::DynamicObject;
use kube::runtime::watcher::{Config, Event};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use weft_api::istio::{GatewaySpec, ServerTls};
use weft_api::kinds::{Entry, Kind};
use weft_api::meta::Labels;

use crate::pods::Name;
use crate::watching;

/// The version that is watched; the API server makes it of any other.
const VERSION: &str = "v1";

/// Every Gateway that names a Secret.
#[derive(Debug, Default)]
pub struct Index {
    /// By Secret, whom the Gateways select that name it.
    selectors: HashMap<String, HashMap<Name, Labels>>,
    /// By Gateway, the Secrets that it names.
    secrets: HashMap<Name, BTreeSet<String>>,
}

impl Index {
    fn apply(&mut self, object: &DynamicObject) {
        let name = name_of(object);
        let spec = object.data.get("spec").cloned().unwrap_or_default();
        // Of one that cannot be read, agents keep the last good version.
        let Ok(spec) = serde_json::from_value::<GatewaySpec>(spec) else { return };
        self.remove(&name);
        if spec.selector.is_empty() {
            return;
        }
        let secrets: BTreeSet<String> = spec
            .servers
            .iter()
            .filter_map(|server| server.tls.as_ref())
            .flat_map(ServerTls::secrets)
            .collect();
        for secret in &secrets {
            self.selectors.entry(secret.clone()).or_default().insert(name.clone(), spec.selector.clone());
        }
        self.secrets.insert(name, secrets);
    }

    fn remove(&mut self, name: &Name) {
        for secret in self.secrets.remove(name).unwrap_or_default() {
            if let Some(selectors) = self.selectors.get_mut(&secret) {
                selectors.remove(name);
                if selectors.is_empty() {
                    self.selectors.remove(&secret);
                }
            }
        }
    }

    /// Whether pods with such labels need a Secret of this name in their namespace.
    fn need(&self, labels: &Labels, secret: &str) -> bool {
        let selects = |selector: &Labels| selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        self.selectors.get(secret).is_some_and(|selectors| selectors.values().any(selects))
    }
}

fn name_of(object: &DynamicObject) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Every Gateway of the cluster, as far as it names Secrets.
#[derive(Debug, Default)]
pub struct Gateways {
    index: RwLock<Index>,
    /// True once the first list is complete; rings with each change.
    complete: watch::Sender<bool>,
}

impl Gateways {
    /// Whether the first list is complete.
    pub fn is_complete(&self) -> bool {
        *self.complete.borrow()
    }

    /// Rings with each change.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.complete.subscribe()
    }

    /// Whether pods with such labels need a Secret of this name in their namespace.
    pub fn need(&self, labels: &Labels, secret: &str) -> bool {
        self.index.read().unwrap_or_else(PoisonError::into_inner).need(labels, secret)
    }

    /// Follows the API server for as long as the process lives.
    pub async fn follow(&self, client: Client) {
        let Entry { group, plural, .. } = Kind::Gateway.entry();
        let resource = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(group, VERSION, Kind::Gateway.name()),
            plural,
        );
        let mut fresh = Index::default();
        watching::follow(Api::all_with(client, &resource), Config::default(), plural, |event| {
            self.take(event, &mut fresh);
        })
        .await;
    }

    /// Takes an event in; `fresh` is the list that is under way.
    pub fn take(&self, event: Event<DynamicObject>, fresh: &mut Index) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => return *fresh = Index::default(),
            Event::InitApply(object) => return fresh.apply(&object),
            Event::InitDone => *index = std::mem::take(fresh),
            Event::Apply(object) => index.apply(&object),
            Event::Delete(object) => index.remove(&name_of(&object)),
        }
        drop(index);
        self.complete.send_replace(true);
    }
}
