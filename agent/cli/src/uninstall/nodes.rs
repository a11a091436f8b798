//! Ending the agents, so that they take along what they have in the kernel, and doing it for those that cannot.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::bail;
use futures_util::future::join_all;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use weft_api::names::{AGENT, ENROLLED_CONDITION, NAMESPACE};

use super::{LOOK, agents};
use crate::cluster::{Cluster, is_not_found};
use crate::install::{done, node_pod::NodePod, removal};
use crate::output::{Paint, count};

/// Nodes that are cleaned at a time.
const AT_ONCE: usize = 16;
/// How long it may take on one node.
const CLEANUP: Duration = Duration::from_mins(1);

/// Ends the agents and cleans up after those that were dead. Answers the nodes that could not be cleaned, and why.
pub async fn release(cluster: &Cluster, patience: Duration, paint: Paint) -> anyhow::Result<Vec<String>> {
    let set = cluster.api::<DaemonSet>(NAMESPACE).get_opt(AGENT).await;
    let Some(set) = set.map_err(|error| cluster.told(error))? else { return Ok(Vec::new()) };
    let nodes = nodes_of_agents(cluster).await?;
    // An agent that sees its DaemonSet gone knows that nobody follows it, and leaves nothing.
    removal::delete(cluster, &agents()).await?;
    wait_for_end(cluster, patience).await?;
    done(&agents().to_string(), "removed", paint)?;
    let Some(like) = set.spec.and_then(|spec| spec.template.spec) else { return Ok(Vec::new()) };
    let left = clean(cluster, &like, &nodes).await?;
    done(&count(nodes.len() - left.len(), "node"), "cleaned", paint)?;
    Ok(left)
}

async fn nodes_of_agents(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    let pods = list_agents(cluster).await?;
    Ok(pods.into_iter().filter_map(|pod| pod.spec?.node_name).collect())
}

async fn list_agents(cluster: &Cluster) -> anyhow::Result<Vec<Pod>> {
    let how = ListParams::default().labels(&format!("app.kubernetes.io/name={AGENT}"));
    Ok(cluster.api::<Pod>(NAMESPACE).list(&how).await.map_err(|error| cluster.told(error))?.items)
}

/// Waits until no agent is left; those on nodes that are away will not be.
async fn wait_for_end(cluster: &Cluster, patience: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + patience;
    loop {
        let away = nodes_away(cluster).await?;
        let left: Vec<String> = list_agents(cluster)
            .await?
            .into_iter()
            .filter(|pod| {
                pod.spec
                    .as_ref()
                    .and_then(|spec| spec.node_name.as_ref())
                    .is_some_and(|node| !away.contains(node))
            })
            .map(|pod| pod.name_any())
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            bail!("the agents have not ended after {} s: {}", patience.as_secs(), left.join(", "));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Nodes whose kubelet does not answer, or that are gone.
async fn nodes_away(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    let nodes = cluster.all::<Node>().list(&ListParams::default()).await;
    let nodes = nodes.map_err(|error| cluster.told(error))?.items;
    Ok(nodes.iter().filter(|node| !is_ready(node)).map(ResourceExt::name_any).collect())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|it| it.type_ == "Ready" && it.status == "True"))
}

/// Runs `weft cleanup` on each node: after an agent that has ended well it finds nothing.
async fn clean(cluster: &Cluster, like: &PodSpec, nodes: &BTreeSet<String>) -> anyhow::Result<Vec<String>> {
    let away = nodes_away(cluster).await?;
    let mut left: Vec<String> = nodes
        .intersection(&away)
        .map(|node| format!("{node} is not ready: `weft cleanup` there, or a reboot, removes what is left"))
        .collect();
    let here: Vec<&String> = nodes.difference(&away).collect();
    for some in here.chunks(AT_ONCE) {
        left.extend(
            join_all(some.iter().map(|node| clean_node(cluster, like, node))).await.into_iter().flatten(),
        );
    }
    Ok(left)
}

/// What is wrong, if something is.
async fn clean_node(cluster: &Cluster, like: &PodSpec, node: &str) -> Option<String> {
    let pod = NodePod {
        namespace: NAMESPACE,
        name: format!("weft-cleanup-{node}"),
        node,
        like,
        args: &["cleanup"],
    };
    match pod.run(cluster, CLEANUP).await {
        Ok(ended) if ended.good => None,
        Ok(ended) => Some(format!("{node}: {}", ended.log.trim())),
        Err(error) => Some(format!("{node}: {error:#}")),
    }
}

/// Takes the condition off every pod that has it, for agents that could not.
pub async fn forget_enrolment(cluster: &Cluster) -> anyhow::Result<usize> {
    let pods = cluster.all::<Pod>().list(&ListParams::default()).await;
    let pods = pods.map_err(|error| cluster.told(error))?.items;
    let has = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|it| it.type_ == ENROLLED_CONDITION))
    };
    let patch = json!({"status": {"conditions": [{"type": ENROLLED_CONDITION, "$patch": "delete"}]}});
    let mut patched = 0;
    for pod in pods.iter().filter(|pod| has(pod)) {
        let api = cluster.api::<Pod>(&pod.namespace().unwrap_or_default());
        match api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&patch)).await {
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(cluster.told(error)),
            Ok(_) => patched += 1,
        }
    }
    Ok(patched)
}
