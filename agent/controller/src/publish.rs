//! Publishes the roots of the mesh: the ConfigMap that agents read, and the webhook's `caBundle`. Whoever edits them
//! finds them restored.

use std::time::Duration;

use base64::Engine;
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watch_object};
use serde_json::{Value, json};
use weft_api::causes;
use weft_api::names::{CA_ROOT_CONFIG_MAP, CA_ROOT_KEY, CONTROLLER, WEBHOOK_CONFIGURATION};

use crate::ca::Ca;

/// Replicas hear of a new root one after the other: whoever finds an older one waits before it restores its own.
const PATIENCE: Duration = Duration::from_secs(1);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Something that holds the roots.
trait Publication {
    type Object: Send + 'static;

    /// For the log.
    fn name(&self) -> String;
    fn watch(&self) -> impl Stream<Item = watcher::Result<Option<Self::Object>>> + Send + 'static;
    /// What to change; `None`: it is as it should be, or nobody wants it.
    fn change(&self, found: Option<&Self::Object>, roots: &str) -> Option<Value>;
    async fn apply(&self, change: Value) -> kube::Result<()>;
}

/// Keeps the ConfigMap of `namespace` and the webhook's configuration, for as long as the process lives.
pub async fn keep(client: kube::Client, namespace: &str, ca: &Ca) {
    let config_map = RootConfigMap(Api::namespaced(client.clone(), namespace));
    let webhook = CaBundle(Api::all(client));
    tokio::join!(keep_one(&config_map, ca), keep_one(&webhook, ca));
}

async fn keep_one<P: Publication>(publication: &P, ca: &Ca) {
    let mut changes = ca.changes();
    let mut events = publication.watch().boxed();
    // Known from the watch's first answer on.
    let mut found: Option<Option<P::Object>> = None;
    let mut wait = None;
    let mut told = String::new();
    loop {
        let due = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        let mut failure = None;
        tokio::select! {
            Some(event) = events.next() => match event {
                Ok(object) => {
                    wait = Some(if object.is_some() { PATIENCE } else { Duration::ZERO });
                    found = Some(object);
                }
                Err(error) => failure = Some(causes::all(&error)),
            },
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                wait = Some(Duration::ZERO);
            }
            () = due => {
                wait = None;
                let (Some(found), Some(roots)) = (&found, ca.roots()) else { continue };
                if let Some(change) = publication.change(found.as_ref(), &roots) {
                    match publication.apply(change).await {
                        Ok(()) => tracing::info!("published the roots in {}", publication.name()),
                        Err(error) => {
                            wait = Some(RETRY);
                            failure = Some(causes::all(&error));
                        }
                    }
                }
            }
        }
        if let Some(failure) = failure {
            if failure != told {
                tracing::warn!("cannot keep the roots in {}: {failure}", publication.name());
            }
            told = failure;
        }
    }
}

/// The ConfigMap that agents read.
struct RootConfigMap(Api<ConfigMap>);

impl Publication for RootConfigMap {
    type Object = ConfigMap;

    fn name(&self) -> String {
        format!("ConfigMap {CA_ROOT_CONFIG_MAP}")
    }

    fn watch(&self) -> impl Stream<Item = watcher::Result<Option<ConfigMap>>> + Send + 'static {
        watch_object(self.0.clone(), CA_ROOT_CONFIG_MAP).default_backoff()
    }

    fn change(&self, found: Option<&ConfigMap>, roots: &str) -> Option<Value> {
        let held = found.and_then(|found| found.data.as_ref()?.get(CA_ROOT_KEY));
        (held.map(String::as_str) != Some(roots)).then(|| {
            json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": { "name": CA_ROOT_CONFIG_MAP },
                "data": { CA_ROOT_KEY: roots },
            })
        })
    }

    async fn apply(&self, change: Value) -> kube::Result<()> {
        let params = PatchParams::apply(CONTROLLER).force();
        self.0.patch(CA_ROOT_CONFIG_MAP, &params, &Patch::Apply(change)).await.map(drop)
    }
}

/// What the API server recognises the webhook by.
struct CaBundle(Api<ValidatingWebhookConfiguration>);

impl Publication for CaBundle {
    type Object = ValidatingWebhookConfiguration;

    fn name(&self) -> String {
        format!("ValidatingWebhookConfiguration {WEBHOOK_CONFIGURATION}")
    }

    fn watch(
        &self,
    ) -> impl Stream<Item = watcher::Result<Option<ValidatingWebhookConfiguration>>> + Send + 'static {
        watch_object(self.0.clone(), WEBHOOK_CONFIGURATION).default_backoff()
    }

    fn change(&self, found: Option<&ValidatingWebhookConfiguration>, roots: &str) -> Option<Value> {
        let webhooks = found?.webhooks.as_ref()?;
        let bundle = base64::engine::general_purpose::STANDARD.encode(roots);
        let changes: Vec<Value> = webhooks
            .iter()
            .enumerate()
            .filter(|(_, webhook)| {
                webhook.client_config.ca_bundle.as_ref().is_none_or(|held| held.0 != roots.as_bytes())
            })
            .flat_map(|(index, webhook)| {
                // The list may have changed meanwhile: then the test fails, and the watch tells the new list.
                [
                    json!({ "op": "test", "path": format!("/webhooks/{index}/name"), "value": webhook.name }),
                    json!({ "op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": bundle }),
                ]
            })
            .collect();
        (!changes.is_empty()).then_some(Value::Array(changes))
    }

    async fn apply(&self, change: Value) -> kube::Result<()> {
        let patch = serde_json::from_value(change).map_err(kube::Error::SerdeError)?;
        let params = PatchParams { field_manager: Some(CONTROLLER.to_owned()), ..PatchParams::default() };
        self.0.patch(WEBHOOK_CONFIGURATION, &params, &Patch::Json::<()>(patch)).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
