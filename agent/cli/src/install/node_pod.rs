//! Runs a weft command on a node: a pod like the agent's, once.

use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::{DeleteParams, LogParams, ObjectMeta, PostParams};

use super::rollout;
use crate::cluster::{Cluster, is_not_found};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code 0.
    pub good: bool,
    /// What it printed.
    pub log: String,
}

/// What to run, and where.
#[derive(Debug)]
pub struct NodePod<'a> {
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Name of the pod.
    pub name: String,
    /// The node.
    pub node: &'a str,
    /// The agent's pod, for image, volumes and capabilities.
    pub like: &'a PodSpec,
    /// Arguments of `weft`.
    pub args: &'a [&'a str],
}

impl NodePod<'_> {
    /// Runs it and takes it away.
    pub async fn run(&self, cluster: &Cluster, patience: Duration) -> anyhow::Result<Ended> {
        let pods = cluster.api::<Pod>(self.namespace);
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        match pods.delete(&self.name, &at_once).await {
            Err(error) if !is_not_found(&error) => return Err(cluster.told(error)),
            _ => {}
        }
        let created = pods.create(&PostParams::default(), &self.pod()).await;
        created.map_err(|error| cluster.told(error))?;
        let ended = self.wait(cluster, patience).await;
        let _ = pods.delete(&self.name, &at_once).await;
        ended
    }

    fn pod(&self) -> Pod {
        let mut spec = self.like.clone();
        // Not through the scheduler: this is about the node as it is.
        spec.node_name = Some(self.node.to_owned());
        spec.restart_policy = Some("Never".to_owned());
        spec.termination_grace_period_seconds = Some(5);
        // Nobody needs to stand by for it.
        spec.containers.truncate(1);
        for container in &mut spec.containers {
            container.args = Some(self.args.iter().map(|arg| (*arg).to_owned()).collect());
            container.liveness_probe = None;
            container.readiness_probe = None;
            container.startup_probe = None;
        }
        Pod {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.to_owned()),
                labels: Some([("app.kubernetes.io/part-of".to_owned(), "weft".to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
            status: None,
        }
    }

    async fn wait(&self, cluster: &Cluster, patience: Duration) -> anyhow::Result<Ended> {
        let pods = cluster.api::<Pod>(self.namespace);
        let until = Instant::now() + patience;
        loop {
            let pod = pods.get(&self.name).await.map_err(|error| cluster.told(error))?;
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
            if matches!(phase, "Succeeded" | "Failed") {
                let log = pods.logs(&self.name, &LogParams::default()).await;
                let log = log.map_err(|error| cluster.told(error))?;
                return Ok(Ended { good: phase == "Succeeded", log });
            }
            if Instant::now() >= until {
                let problem = rollout::problem(&pod).unwrap_or_else(|| "it does not end".to_owned());
                bail!("{}", anyhow!("pod {} on node {}: {problem}", self.name, self.node));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
