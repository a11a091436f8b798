//! Tells on each Istio object whether weft accepts it: a condition in its status, and an Event where it is refused. By one
//! replica at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{self, Config};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use weft_api::causes;
use weft_api::kinds::{Entry, Kind};
use weft_api::names::CONTROLLER;

use crate::condition::{Verdict, cut};
use crate::{admission, watching};

/// Between two writes: a thousand objects are told within a minute, and the API server hardly feels it.
const PACE: Duration = Duration::from_millis(50);
/// After a failed write, before the next one.
const PAUSE: Duration = Duration::from_secs(1);
/// Events hold no longer note.
const LONGEST_NOTE: usize = 1024;

/// A version that every Istio since 1.5 serves, as weft's own definitions do.
const VERSION: &str = "v1beta1";

/// What is to be written, the newest of each object: by kind, namespace and name.
#[derive(Default)]
struct Queue {
    waiting: Mutex<HashMap<(Kind, String, String), DynamicObject>>,
    more: Notify,
}

impl Queue {
    fn put(&self, kind: Kind, object: DynamicObject) {
        let key = (kind, object.namespace().unwrap_or_default(), object.name_any());
        self.lock().insert(key, object);
        self.more.notify_one();
    }

    fn forget(&self, kind: Kind, object: &DynamicObject) {
        let key = (kind, object.namespace().unwrap_or_default(), object.name_any());
        self.lock().remove(&key);
    }

    async fn take(&self) -> (Kind, DynamicObject) {
        loop {
            let next = {
                let mut waiting = self.lock();
                let key = waiting.keys().next().cloned();
                key.and_then(|key| Some((key.0, waiting.remove(&key)?)))
            };
            match next {
                Some(next) => return next,
                None => self.more.notified().await,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(Kind, String, String), DynamicObject>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes while `leads` says so, for as long as the process lives; Events come from `instance`.
pub async fn keep(client: &Client, mut leads: watch::Receiver<bool>, instance: &str) {
    while leads.wait_for(|leads| *leads).await.is_ok() {
        let writer = Writer { client: client.clone(), instance: instance.to_owned() };
        let queue = Arc::new(Queue::default());
        let follow = Kind::ALL.into_iter().filter(|kind| kind.is_users());
        let follow = follow.map(|kind| follow_kind(client.clone(), kind, queue.clone()));
        tokio::select! {
            _ = futures_util::future::join_all(follow) => {}
            () = writer.run(&queue) => {}
            _ = leads.wait_for(|leads| !*leads) => {}
        }
    }
}

fn resource(kind: Kind) -> ApiResource {
    let Entry { group, plural, .. } = kind.entry();
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, VERSION, kind.name()), plural)
}

async fn follow_kind(client: Client, kind: Kind, queue: Arc<Queue>) {
    let resource = resource(kind);
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    watching::follow(api, Config::default(), &resource.plural, |event| match event {
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
            if change(&object, kind).is_some() {
                queue.put(kind, object);
            }
        }
        watcher::Event::Delete(object) => queue.forget(kind, &object),
        watcher::Event::Init | watcher::Event::InitDone => {}
    })
    .await;
}

/// What an object's status is to say.
struct Change {
    verdict: Verdict,
    conditions: Vec<Value>,
    /// Whether the user has not been told.
    news: bool,
}

/// `None`: all is said.
fn change(object: &DynamicObject, kind: Kind) -> Option<Change> {
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut whole = serde_json::to_value(object).ok()?;
    whole["apiVersion"] = json!(format!("{}/{VERSION}", kind.entry().group));
    whole["kind"] = json!(kind.name());
    let verdict = Verdict::new(&admission::findings(whole, ""), object.metadata.generation.unwrap_or(0));
    let none = Vec::new();
    let before = object.data.pointer("/status/conditions").and_then(Value::as_array).unwrap_or(&none);
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let conditions = verdict.among(before, &now)?;
    let news = verdict.is_news_to(before);
    Some(Change { verdict, conditions, news })
}

struct Writer {
    client: Client,
    instance: String,
}

impl Writer {
    /// Writes what is waiting, one after the other.
    async fn run(&self, queue: &Queue) {
        loop {
            let (kind, object) = queue.take().await;
            let pace = match self.write(kind, &object).await {
                Ok(()) => PACE,
                // It has changed or gone meanwhile: the watch tells.
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => PACE,
                Err(error) => {
                    let name = object.name_any();
                    let namespace = object.namespace().unwrap_or_default();
                    tracing::warn!(
                        kind = kind.name(),
                        namespace,
                        name,
                        "cannot write its status: {}",
                        causes::all(&error)
                    );
                    PAUSE
                }
            };
            tokio::time::sleep(pace).await;
        }
    }

    async fn write(&self, kind: Kind, object: &DynamicObject) -> kube::Result<()> {
        let Some(change) = change(object, kind) else { return Ok(()) };
        let resource = resource(kind);
        let namespace = object.namespace().unwrap_or_default();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, &resource);
        // The whole list is replaced: not if somebody else has changed it meanwhile.
        let patch = json!({
            "metadata": { "resourceVersion": object.metadata.resource_version },
            "status": { "conditions": change.conditions },
        });
        let params = PatchParams { field_manager: Some(CONTROLLER.to_owned()), ..PatchParams::default() };
        api.patch_status(&object.name_any(), &params, &Patch::Merge(&patch)).await?;
        if change.verdict.accepted || !change.news {
            return Ok(());
        }
        let event = self.event(object.object_ref(&resource), change.verdict);
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        events.create(&PostParams::default(), &event).await.map(drop)
    }

    /// A refusal, where `kubectl describe` shows it.
    fn event(&self, regarding: ObjectReference, verdict: Verdict) -> Event {
        let now = Timestamp::now();
        // As Kubernetes names Events itself; the ending makes it unique.
        let object = regarding.name.as_deref().unwrap_or(CONTROLLER);
        let metadata = ObjectMeta {
            name: Some(format!("{object}.{:x}", now.as_nanosecond())),
            namespace: regarding.namespace.clone(),
            ..ObjectMeta::default()
        };
        Event {
            metadata,
            regarding: Some(regarding),
            type_: Some("Warning".to_owned()),
            reason: Some(verdict.reason().to_owned()),
            action: Some("Validate".to_owned()),
            note: Some(cut(verdict.message, LONGEST_NOTE)),
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(format!("weft.dev/{CONTROLLER}")),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}
