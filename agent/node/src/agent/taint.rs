//! A node may be registered with a taint that keeps pods off it until its agent is ready, which then takes the taint away.
//! Pods that start on a new node before the agent has ever run there are outside of the mesh for a while otherwise.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::{sleep, timeout};
use weft_api::causes;
use weft_api::names::{AGENT, AGENT_TAINT};
use weft_discovery::cluster::{ClusterOptions, ConnectError, connect};

use super::{Shared, SourceOptions};
use crate::cni::install;

/// How often it is looked whether the agent is ready.
const LOOK: Duration = Duration::from_millis(100);
/// For the API server to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before the next attempt.
const PAUSE: Duration = Duration::from_secs(2);

/// Takes the taint from this node once the agent is ready, and told of every pod that starts, where it is to be.
pub async fn lift(shared: Arc<Shared>) {
    let SourceOptions::Cluster(cluster) = &shared.options.source else { return };
    let told = || shared.options.cni.as_ref().is_none_or(|cni| install::is_entered(&cni.conf_dir));
    while !(shared.readiness.waiting_for().is_empty() && told()) {
        sleep(LOOK).await;
    }
    let node = &shared.options.node;
    let mut said = String::new();
    loop {
        let problem = match timeout(PATIENCE, remove(cluster, node)).await {
            Ok(Ok(lifted)) => {
                if lifted {
                    tracing::info!(node, "pods may come: the taint {AGENT_TAINT} is taken away");
                }
                return;
            }
            Ok(Err(error)) => causes::all(&error),
            Err(_) => "the API server does not answer".to_owned(),
        };
        if problem != said {
            tracing::warn!(node, "cannot take away the taint {AGENT_TAINT}: {problem}; trying again");
            said = problem;
        }
        sleep(PAUSE).await;
    }
}

/// Whether there was one.
async fn remove(cluster: &ClusterOptions, name: &str) -> Result<bool, ConnectError> {
    let client = connect::client(connect::config(cluster.kubeconfig.as_ref()).await?)?;
    let nodes: Api<Node> = Api::all(client);
    let node = nodes.get(name).await.map_err(ConnectError::Client)?;
    let Some(rest) = without(node.spec.and_then(|spec| spec.taints).unwrap_or_default()) else {
        return Ok(false);
    };
    // The whole list is replaced: not if somebody else has changed it meanwhile.
    let patch = json!({
        "metadata": { "resourceVersion": node.metadata.resource_version },
        "spec": { "taints": rest },
    });
    let params = PatchParams { field_manager: Some(AGENT.to_owned()), ..PatchParams::default() };
    nodes.patch(name, &params, &Patch::Merge(&patch)).await.map_err(ConnectError::Client)?;
    Ok(true)
}

/// The other taints; `None`: it is not among them.
fn without(mut taints: Vec<Taint>) -> Option<Vec<Taint>> {
    let before = taints.len();
    taints.retain(|taint| taint.key != AGENT_TAINT);
    (taints.len() < before).then_some(taints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_taints_stay() {
        let taint =
            |key: &str| Taint { key: key.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        assert_eq!(without(vec![taint("a"), taint("b")]), None);
        assert_eq!(
            without(vec![taint("a"), taint(AGENT_TAINT), taint("b")]),
            Some(vec![taint("a"), taint("b")])
        );
    }
}
