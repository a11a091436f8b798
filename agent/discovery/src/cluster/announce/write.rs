//! Writes conditions: one task for each pod of the node, so that a pod whose condition is refused holds no other up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::core::Request;
use kube::core::params::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use weft_api::names;

use super::{Statement, Taken};
use crate::cluster::contact::Contact;
use crate::cluster::trouble::Trouble;

/// Requests at once.
const AT_ONCE: usize = 32;
/// How long the server may take for one.
const ANSWER: Duration = Duration::from_secs(10);
/// Bounds of the waits between attempts.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What to do.
#[derive(Debug)]
pub enum Order {
    /// Make it so that the server knows.
    Write {
        /// `namespace/name` of the pod.
        key: Arc<str>,
        /// What is true.
        statement: Statement,
        /// The condition was another, or none, until now.
        turns: bool,
    },
    /// The pod is none of ours any more.
    Forget(Arc<str>),
}

/// What every pod's task needs.
struct Shared<F> {
    client: Client,
    contact: Contact,
    room: Semaphore,
    report: F,
}

/// Carries out orders, forever; `report` hears what the server has taken.
pub async fn keep(
    client: Client,
    contact: Contact,
    mut orders: mpsc::UnboundedReceiver<Order>,
    report: impl Fn(Taken) + 'static,
) {
    let shared = Arc::new(Shared { client, contact, room: Semaphore::new(AT_ONCE), report });
    let mut pods: HashMap<Arc<str>, watch::Sender<(Statement, bool)>> = HashMap::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Forget(key) => _ = pods.remove(&key),
            Order::Write { key, statement, turns } => {
                if let Some(pod) = pods.get(&key) {
                    pod.send_replace((statement, turns));
                } else {
                    let (sender, wanted) = watch::channel((statement, turns));
                    tokio::task::spawn_local(one(shared.clone(), key.clone(), wanted));
                    pods.insert(key, sender);
                }
            }
        }
    }
}

/// Writes one pod's condition whenever it changes, until it is forgotten.
async fn one<F: Fn(Taken)>(
    shared: Arc<Shared<F>>,
    key: Arc<str>,
    mut wanted: watch::Receiver<(Statement, bool)>,
) {
    let mut contact = shared.contact.clone();
    let mut failures = 0;
    loop {
        let (statement, turns) = wanted.borrow_and_update().clone();
        let wait = match shared.write(&key, &statement, turns).await {
            Ok(()) => {
                failures = 0;
                (shared.report)(Taken { key: key.clone(), statement });
                None
            }
            Err(error) => {
                let text = error.to_string();
                if failures == 0 {
                    tracing::warn!(pod = %key, error = text, "cannot write the condition {}", names::ENROLLED_CONDITION);
                }
                if matches!(error, Trouble::Other(_)) {
                    contact.doubt();
                }
                failures += 1;
                Some(SHORTEST_WAIT.saturating_mul(1 << failures.min(10)).min(LONGEST_WAIT))
            }
        };
        let again = async {
            match wait {
                Some(wait) => _ = timeout(wait.mul_f64(0.5 + fastrand::f64()), contact.regained()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = again => {}
            changed = wanted.changed() => if changed.is_err() { return },
        }
    }
}

impl<F> Shared<F> {
    async fn write(&self, key: &str, statement: &Statement, turns: bool) -> Result<(), Trouble> {
        let (namespace, name) = key.split_once('/').unwrap_or(("default", key));
        let patch = patch(statement, turns);
        let request = Request::new(format!("/api/v1/namespaces/{namespace}/pods"))
            .patch_subresource(
                "status",
                name,
                &PatchParams { field_manager: Some(names::AGENT.to_owned()), ..PatchParams::default() },
                &Patch::Strategic(patch),
            )
            .map_err(|error| Trouble::other(&error))?;
        // Never closed.
        let _room = self.room.acquire().await;
        match timeout(ANSWER, self.client.request_text(request)).await {
            Ok(Ok(_)) => Ok(()),
            // Nobody is left to be told.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Trouble::silent(ANSWER)),
        }
    }
}

/// The pod's uid keeps it from being taken for another pod of its name.
fn patch(statement: &Statement, turns: bool) -> serde_json::Value {
    let mut condition = json!({
        "type": names::ENROLLED_CONDITION,
        "status": if statement.enrolled { "True" } else { "False" },
        "reason": statement.reason,
        "message": statement.message,
    });
    if turns {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        condition["lastTransitionTime"] = now.into();
    }
    json!({ "metadata": { "uid": &*statement.uid }, "status": { "conditions": [condition] } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_last_turn() {
        let statement =
            Statement { uid: "u".into(), enrolled: true, reason: "Enrolled", message: String::new() };
        let condition = |turns| patch(&statement, turns)["status"]["conditions"][0].clone();
        assert!(condition(true)["lastTransitionTime"].is_string());
        assert!(condition(false).get("lastTransitionTime").is_none());
        assert_eq!(patch(&statement, true)["metadata"]["uid"], "u");
    }
}
