//! Ending the agents, so that they take along what they have in the kernel, and doing it for those that cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use weft_api::names::{AGENT, ENROLLED_CONDITION, NAMESPACE};

use super::{LOOK, agent_set};
use crate::cluster::{Cluster, is_not_found};
use crate::install::{done, node_pod::NodePod, removal};
use crate::output::{Paint, count};

/// Nodes that are cleaned at a time.
const AT_ONCE: usize = 16;
/// How long it may take on one node, at most.
const CLEANUP: Duration = Duration::from_mins(1);

/// Ends the agents and cleans up after those that were dead. Answers the nodes that could not be cleaned, and why.
pub async fn release(
    cluster: &Cluster,
    patience: Duration,
    paint: Paint,
) -> anyhow::Result<BTreeMap<String, String>> {
    let set = cluster.api::<DaemonSet>(NAMESPACE).get_opt(AGENT).await;
    let set = set.map_err(|error| cluster.told(error))?;
    let agents = list_agents(cluster).await?;
    // A node whose agent is gone altogether shows in its pods alone.
    let mut nodes = nodes_of_enrolled(cluster).await?;
    nodes.extend(agents.iter().filter_map(node_of).map(str::to_owned));
    let like = set.as_ref().and_then(|set| like(set, &agents));
    let mut left = BTreeMap::new();
    if set.is_some() {
        // An agent that sees its DaemonSet gone knows that nobody follows it, and leaves nothing.
        removal::delete(cluster, &agent_set()).await?;
        left = wait_for_end(cluster, patience).await?;
        done(&agent_set().to_string(), "removed", paint)?;
    }
    nodes.retain(|node| !left.contains_key(node));
    let cleaned = nodes.len();
    let failed = match like {
        Some(like) => clean(cluster, &like, nodes, patience.min(CLEANUP)).await?,
        None => nodes.into_iter().map(|node| (node, "no agent's image is known".to_owned())).collect(),
    };
    if cleaned > failed.len() {
        done(&count(cleaned - failed.len(), "node"), "cleaned", paint)?;
    }
    left.extend(failed);
    Ok(left)
}

/// A pod as the agents' are, by an image that has run: the newest may be one that no node can have.
fn like(set: &DaemonSet, agents: &[Pod]) -> Option<PodSpec> {
    let mut like = set.spec.as_ref()?.template.spec.clone()?;
    let image_of = |pod: &Pod| pod.spec.as_ref()?.containers.first()?.image.clone();
    if let Some(image) = agents.iter().filter(|pod| has_run(pod)).find_map(image_of) {
        for container in &mut like.containers {
            container.image = Some(image.clone());
        }
    }
    Some(like)
}

/// Whether its program has begun at least once, that of its first container.
fn has_run(pod: &Pod) -> bool {
    let first = pod.spec.as_ref().and_then(|spec| spec.containers.first()).map(|container| &container.name);
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let mut own = containers.into_iter().flatten().filter(|container| Some(&container.name) == first);
    own.any(|container| {
        let states = [&container.state, &container.last_state];
        states.into_iter().flatten().any(|state| state.running.is_some() || state.terminated.is_some())
    })
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

async fn nodes_of_enrolled(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    let pods = enrolled(cluster).await?;
    Ok(pods.iter().filter_map(node_of).map(str::to_owned).collect())
}

async fn list_agents(cluster: &Cluster) -> anyhow::Result<Vec<Pod>> {
    let how = ListParams::default().labels(&format!("app.kubernetes.io/name={AGENT}"));
    Ok(cluster.api::<Pod>(NAMESPACE).list(&how).await.map_err(|error| cluster.told(error))?.items)
}

/// Waits until no agent is left. Answers the nodes whose agents do not end.
async fn wait_for_end(cluster: &Cluster, patience: Duration) -> anyhow::Result<BTreeMap<String, String>> {
    let until = Instant::now() + patience;
    loop {
        let away = nodes_away(cluster).await?;
        let (gone, left): (Vec<Pod>, Vec<Pod>) = list_agents(cluster)
            .await?
            .into_iter()
            .partition(|pod| node_of(pod).is_none_or(|node| away.contains(node)));
        // Their kubelets will not say that they have ended, and the DaemonSet would wait for that.
        for pod in gone {
            removal::forget_pod(cluster, NAMESPACE, &pod.name_any()).await?;
        }
        if left.is_empty() {
            return Ok(BTreeMap::new());
        }
        if Instant::now() >= until {
            let why = format!("its agent has not ended after {} s", patience.as_secs());
            return Ok(left.iter().filter_map(node_of).map(|node| (node.to_owned(), why.clone())).collect());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Nodes whose kubelet does not answer.
async fn nodes_away(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    let nodes = cluster.all::<Node>().list(&ListParams::default()).await;
    let nodes = nodes.map_err(|error| cluster.told(error))?.items;
    Ok(nodes.iter().filter(|node| !is_ready(node)).map(ResourceExt::name_any).collect())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|it| it.type_ == "Ready" && it.status == "True"))
}

/// Runs `weft cleanup` on each node: after an agent that has ended well it finds nothing. Answers where it could not, and
/// why.
async fn clean(
    cluster: &Cluster,
    like: &PodSpec,
    nodes: BTreeSet<String>,
    patience: Duration,
) -> anyhow::Result<BTreeMap<String, String>> {
    let away = nodes_away(cluster).await?;
    let (away, here): (Vec<String>, Vec<String>) = nodes.into_iter().partition(|node| away.contains(node));
    let mut left: BTreeMap<String, String> =
        away.into_iter().map(|node| (node, "is not ready".to_owned())).collect();
    for some in here.chunks(AT_ONCE) {
        let ended = join_all(some.iter().map(|node| clean_node(cluster, like, node, patience))).await;
        let failed = some.iter().zip(ended).filter_map(|(node, why)| Some((node.clone(), why?)));
        left.extend(failed);
    }
    Ok(left)
}

/// What is wrong, if something is.
async fn clean_node(cluster: &Cluster, like: &PodSpec, node: &str, patience: Duration) -> Option<String> {
    let pod = NodePod {
        namespace: NAMESPACE,
        name: format!("weft-cleanup-{node}"),
        node,
        like,
        args: &["cleanup"],
    };
    match pod.run(cluster, patience).await {
        Ok(ended) if ended.good => None,
        Ok(ended) => Some(ended.log.trim().to_owned()),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// Pods with the condition.
async fn enrolled(cluster: &Cluster) -> anyhow::Result<Vec<Pod>> {
    let pods = cluster.all::<Pod>().list(&ListParams::default()).await;
    let mut pods = pods.map_err(|error| cluster.told(error))?.items;
    pods.retain(|pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|it| it.type_ == ENROLLED_CONDITION))
    });
    Ok(pods)
}

/// Takes the condition off every pod that has it, for agents that could not.
pub async fn forget_enrolment(cluster: &Cluster) -> anyhow::Result<usize> {
    let patch = json!({"status": {"conditions": [{"type": ENROLLED_CONDITION, "$patch": "delete"}]}});
    let mut patched = 0;
    for pod in enrolled(cluster).await? {
        let api = cluster.api::<Pod>(&pod.namespace().unwrap_or_default());
        match api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&patch)).await {
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(cluster.told(error)),
            Ok(_) => patched += 1,
        }
    }
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(image: &str, state: &serde_json::Value) -> Pod {
        let container = json!({"name": "agent", "image": image, "imageID": "", "ready": false, "restartCount": 0, "state": state});
        serde_json::from_value(json!({
            "spec": {"nodeName": "n1", "containers": [{"name": "agent", "image": image}]},
            "status": {"containerStatuses": [container]},
        }))
        .unwrap()
    }

    #[test]
    fn nodes_are_cleaned_by_an_image_that_has_run() {
        let set: DaemonSet = serde_json::from_value(json!({"spec": {
            "selector": {},
            "template": {"spec": {"hostPID": true, "containers": [{"name": "agent", "image": "new"}]}},
        }}))
        .unwrap();
        let stuck = agent("new", &json!({"waiting": {"reason": "ImagePullBackOff"}}));
        let image = |agents: &[Pod]| like(&set, agents).unwrap().containers[0].image.clone().unwrap();
        assert_eq!(image(std::slice::from_ref(&stuck)), "new");
        assert_eq!(image(&[stuck, agent("old", &json!({"running": {}}))]), "old");
    }
}
