//! Takes back conditions `weft.dev/Enrolled` that nobody stands behind: of pods whose node's agent is not ready. By one replica
//! at a time.
//!
//! They become `Unknown`, not `False`: such a pod refuses everything until its agent is back, and other nodes go on calling it
//! by mutual TLS, for plain text is never what was meant. The agent says `True` again when it is back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use weft_api::causes;
use weft_api::names::{AGENT, CONTROLLER, ENROLLED_CONDITION};

use crate::pods::{LeanPod, Name, Pods};

/// An agent that is killed, or upgraded, is back by then.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// Between two writes.
const PACE: Duration = Duration::from_millis(20);
/// The label by which agents are known in their namespace.
const APP: &str = "app.kubernetes.io/name";

/// An agent's pod.
#[derive(Debug)]
struct Agent {
    node: String,
    ready: bool,
    /// Since when; of one that is not ready, when a container of it ended last, if that is later.
    since: Timestamp,
}

/// A pod that was said to be in the mesh.
#[derive(Debug)]
struct Announced {
    node: String,
    uid: String,
    since: Timestamp,
}

/// A condition that nobody stands behind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Orphan {
    /// Namespace and name of the pod.
    pub name: Name,
    /// Its UID.
    pub uid: String,
    /// Its node.
    pub node: String,
    /// Since when the condition said so.
    since: Timestamp,
}

/// Agents, and what they have said.
#[derive(Debug, Default)]
pub struct Standing {
    agents: HashMap<Name, Agent>,
    announced: HashMap<Name, Announced>,
}

impl Standing {
    /// Takes a live pod in; agents are in the namespace `own`.
    pub fn apply(&mut self, name: &Name, pod: &LeanPod, own: &str) {
        self.remove(name);
        let Some(node) = pod.spec.node_name.clone() else { return };
        let Some(status) = &pod.status else { return };
        if name.0 == own && pod.labels().get(APP).is_some_and(|app| app == AGENT) {
            let condition = status.condition("Ready");
            let ready = condition.is_some_and(|condition| condition.status == "True");
            let since = condition.map_or(Timestamp::MIN, |condition| time(&condition.last_transition_time));
            let since = if ready { since } else { status.ends().map(time).fold(since, Timestamp::max) };
            self.agents.insert(name.clone(), Agent { node, ready, since });
        } else if let Some(condition) =
            status.condition(ENROLLED_CONDITION).filter(|one| one.status == "True")
        {
            let (uid, since) = (pod.uid().unwrap_or_default(), time(&condition.last_transition_time));
            self.announced.insert(name.clone(), Announced { node, uid, since });
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, name: &Name) {
        self.agents.remove(name);
        self.announced.remove(name);
    }

    /// The conditions that nobody stands behind at `now`. `missing` holds the nodes that have no agent at all, with the time at
    /// which that was seen first.
    pub fn orphans(&self, now: Timestamp, missing: &mut HashMap<String, Timestamp>) -> Vec<Orphan> {
        // A condition that was written after its agent was last seen to fail is the word of one that is about to be ready.
        let mut away: HashMap<&str, Timestamp> = HashMap::new();
        let mut ready = HashSet::new();
        for agent in self.agents.values() {
            if agent.ready {
                ready.insert(&*agent.node);
            }
            let last = away.entry(&agent.node).or_insert(agent.since);
            *last = agent.since.max(*last);
        }
        missing.retain(|node, _| !away.contains_key(&**node));
        let orphans =
            self.announced.iter().filter(|(_, pod)| !ready.contains(&*pod.node)).filter(|(_, pod)| {
                let since = match away.get(&*pod.node) {
                    Some(since) => *since,
                    None => *missing.entry(pod.node.clone()).or_insert(now),
                };
                pod.since <= since && now.duration_since(since).unsigned_abs() >= PATIENCE
            });
        orphans
            .map(|(name, pod)| Orphan {
                name: name.clone(),
                uid: pod.uid.clone(),
                node: pod.node.clone(),
                since: pod.since,
            })
            .collect()
    }
}

/// What cannot be read is long ago.
fn time(text: impl AsRef<str>) -> Timestamp {
    text.as_ref().parse().unwrap_or(Timestamp::MIN)
}

/// Takes back what nobody stands behind while `leads` says so, for as long as the process lives.
pub async fn keep(client: &Client, pods: &Arc<Pods>, mut leads: watch::Receiver<bool>) {
    while leads.wait_for(|leads| *leads).await.is_ok() {
        tokio::select! {
            () = take_back(client, pods) => {}
            _ = leads.wait_for(|leads| !*leads) => {}
        }
    }
}

async fn take_back(client: &Client, pods: &Pods) {
    let mut missing = HashMap::new();
    let mut done: HashSet<Orphan> = HashSet::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let orphans = pods.orphans(Timestamp::now(), &mut missing);
        // The watch tells a moment after the write.
        done.retain(|orphan| orphans.contains(orphan));
        for orphan in orphans {
            if done.contains(&orphan) {
                continue;
            }
            let (namespace, name) = &orphan.name;
            match write(client, &orphan).await {
                Ok(()) => {
                    tracing::info!(namespace, name, node = orphan.node, "its node's agent is not ready");
                }
                // It has gone, or is another one.
                Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
                Err(error) => {
                    let error = causes::all(&error);
                    tracing::warn!(
                        namespace,
                        name,
                        error,
                        "cannot take back the condition {ENROLLED_CONDITION}"
                    );
                    break;
                }
            }
            done.insert(orphan);
            tokio::time::sleep(PACE).await;
        }
    }
}

async fn write(client: &Client, orphan: &Orphan) -> kube::Result<()> {
    let (namespace, name) = &orphan.name;
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams { field_manager: Some(CONTROLLER.to_owned()), ..PatchParams::default() };
    let patch = patch(orphan, Timestamp::now());
    api.patch_status(name, &params, &Patch::Strategic(&patch)).await.map(drop)
}

/// The pod's uid keeps it from being taken for another pod of its name.
fn patch(orphan: &Orphan, now: Timestamp) -> Value {
    json!({
        "metadata": { "uid": orphan.uid },
        "status": { "conditions": [{
            "type": ENROLLED_CONDITION,
            "status": "Unknown",
            "reason": "AgentNotReady",
            "message": format!("the agent of node {} is not ready: what the pod sends and gets is refused until it is", orphan.node),
            "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }] },
    })
}

#[cfg(test)]
mod tests;
