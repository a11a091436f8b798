//! Which agents to ask: this machine's, or a cluster's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use weft_api::names::{AGENT, NAMESPACE};

use super::exec::AgentPod;
use super::{Agent, Unreachable, socket};
use crate::cluster::{Cluster, ClusterAt, NoCluster};

/// The container of an agent's pod that the agent is in, unless that was killed.
const AGENT_CONTAINER: &str = "agent";
/// The run directory of an agent that was not told another.
const RUN_DIR: &str = "/run/weft";

/// Which agents to ask.
#[derive(Debug, Clone, Default, Args)]
pub struct AgentAt {
    /// Ask the agent on this machine with this run directory [default: /run/weft if an agent is there, else the cluster of
    /// the kubeconfig]
    #[arg(long, value_name = "DIR", env = "WEFT_RUN_DIR")]
    pub run_dir: Option<PathBuf>,
    /// Ask the agent of this node of the cluster [default: all]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Ask the agents of the cluster of this kubeconfig's context
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

impl AgentAt {
    /// The agents: one on this machine, or those of a cluster by the names of their nodes. Never none.
    pub async fn agents(&self) -> anyhow::Result<Vec<Agent>> {
        if self.node.is_none() && self.context.is_none() {
            let told = self.run_dir.clone();
            let default = || Some(PathBuf::from(RUN_DIR)).filter(|dir| socket(dir).exists());
            if let Some(run_dir) = told.or_else(default) {
                return Ok(vec![Agent::Here { run_dir }]);
            }
        }
        let cluster = match (ClusterAt { context: self.context.clone() }).connect().await {
            Err(error) if error.is::<NoCluster>() && self.node.is_none() => {
                let nobody = Unreachable::Nobody { dir: RUN_DIR.into() };
                return Err(anyhow::Error::new(nobody).context(error.to_string()));
            }
            cluster => cluster?,
        };
        self.agents_of(&cluster).await
    }

    /// The agents of a cluster.
    pub async fn agents_of(&self, cluster: &Cluster) -> anyhow::Result<Vec<Agent>> {
        let labels = ListParams::default().labels(&format!("app.kubernetes.io/name={AGENT}"));
        let pods = cluster.api::<Pod>(NAMESPACE);
        let found = pods.list(&labels).await.map_err(|error| cluster.told(error))?.items;
        if found.is_empty() {
            bail!("no mesh was found: no agent runs in namespace {NAMESPACE} (weft install)");
        }
        let mut by_node: BTreeMap<String, &Pod> = BTreeMap::new();
        for pod in found.iter().filter(|pod| is_running(pod)) {
            let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { continue };
            // While an agent is replaced there are two: the newer one has the pods.
            let newer =
                by_node.get(&node).is_none_or(|known| known.creation_timestamp() < pod.creation_timestamp());
            if newer {
                by_node.insert(node, pod);
            }
        }
        if let Some(node) = &self.node {
            let nodes: Vec<&str> = by_node.keys().map(String::as_str).collect();
            let Some(pod) = by_node.get(node) else {
                bail!("no agent runs on node {node:?}; there are agents on {}", nodes.join(", "));
            };
            return Ok(vec![agent_in(&pods, node.clone(), pod)]);
        }
        if by_node.is_empty() {
            bail!("no agent of the {} is running (weft verify-install says why)", found.len());
        }
        Ok(by_node.into_iter().map(|(node, pod)| agent_in(&pods, node, pod)).collect())
    }
}

fn agent_in(pods: &Api<Pod>, node: String, pod: &Pod) -> Agent {
    Agent::InPod(Box::new(AgentPod::new(pods.clone(), node, pod.name_any(), containers(pod))))
}

/// The containers by which to reach the agent of the node: its own, and the one that stands by for it. Those that run come
/// first; that one does no more, the pod's status may not say for a second. Never none.
fn containers(pod: &Pod) -> Vec<String> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut all: Vec<_> = statuses
        .map(|container| {
            let runs = container.state.as_ref().is_some_and(|state| state.running.is_some());
            (!runs, container.name != AGENT_CONTAINER, container.name.clone())
        })
        .collect();
    all.sort();
    if all.is_empty() {
        return vec![AGENT_CONTAINER.to_owned()];
    }
    all.into_iter().map(|(_, _, name)| name).collect()
}

fn is_running(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
}
