//! Each node: what Kubernetes says of it, and what its kernel says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::future::join_all;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, Node, PodSpec, ServiceAccount};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;
use weft_api::names::AGENT;

use super::{Line, Verdict};
use crate::client::{Agent, AgentAt};
use crate::cluster::Cluster;
use crate::install::node_pod::NodePod;
use crate::install::values::Values;

/// Where the pods of --node-checks run, and nothing else.
const NAMESPACE: &str = "weft-precheck";
/// What `weft precheck --local` is called there.
const COMMAND: [&str; 4] = ["precheck", "--local", "-o", "json"];
/// How long a pod may take, its image included.
const PATIENCE: Duration = Duration::from_mins(2);

/// Looks at all of them.
pub async fn look(cluster: &Cluster, start_pods: bool, image: Option<&str>) -> anyhow::Result<Vec<Line>> {
    let nodes = cluster.all::<Node>().list(&ListParams::default()).await;
    let nodes = nodes.map_err(|error| cluster.told(error))?.items;
    let mut kernels = from_agents(cluster).await;
    let without: Vec<String> = nodes
        .iter()
        .filter(|node| is_linux(node))
        .map(ResourceExt::name_any)
        .filter(|name| !kernels.contains_key(name))
        .collect();
    if start_pods && !without.is_empty() {
        kernels.extend(from_pods(cluster, &without, image).await?);
    }
    let mut lines = Vec::new();
    for node in &nodes {
        let name = node.name_any();
        lines.extend(said_by_kubernetes(node).into_iter().map(|line| line.on(&name)));
        match kernels.remove(&name) {
            Some(found) => lines.extend(found.into_iter().map(|line| line.on(&name))),
            None if is_linux(node) => lines.push(
                Line::note("bpf", "not looked at: no agent runs here", "--node-checks looks, by a pod")
                    .on(&name),
            ),
            None => {}
        }
    }
    Ok(lines)
}

fn is_linux(node: &Node) -> bool {
    node.labels().get("kubernetes.io/os").is_some_and(|os| os == "linux")
}

fn said_by_kubernetes(node: &Node) -> Vec<Line> {
    if !is_linux(node) {
        return vec![Line::note("system", "is not Linux", "weft leaves it alone")];
    }
    let status = node.status.clone().unwrap_or_default();
    let Some(info) = status.node_info else { return vec![Line::note("system", "is not known yet", "")] };
    let ready = status.conditions.into_iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True");
    let mut lines = vec![match &*info.architecture {
        "amd64" | "arm64" => Line::new("system", Ok(format!("{} {}", info.os_image, info.architecture))),
        other => Line::new("system", Err((format!("architecture {other}"), "weft runs on amd64 and arm64"))),
    }];
    lines.push(Line::new("kernel", kernel(&info.kernel_version)));
    lines.push(Line::new("runtime", Ok(info.container_runtime_version)));
    if !ready {
        lines.push(Line::note("ready", "the node is not ready", "kubectl describe node"));
    }
    lines
}

/// The version that Kubernetes knows.
fn kernel(release: &str) -> Result<String, (String, &'static str)> {
    const OLDEST: (u32, u32) = (5, 15);
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= OLDEST {
        Ok(release.to_owned())
    } else {
        Err((format!("{release} is too old"), "weft needs Linux 5.15 or newer"))
    }
}

/// Asks the nodes where an agent runs, in its pod.
async fn from_agents(cluster: &Cluster) -> BTreeMap<String, Vec<Line>> {
    let Ok(agents) = AgentAt::default().agents_of(cluster).await else { return BTreeMap::new() };
    let answers = join_all(agents.iter().map(|agent| async move {
        let Agent::InPod(pod) = agent else { return None };
        let text = pod.run(&COMMAND).await.ok()?;
        Some((pod.node.clone(), kernel_lines(&text).ok()?))
    }));
    answers.await.into_iter().flatten().collect()
}

/// What a node says itself; Kubernetes has told its kernel's version already.
fn kernel_lines(text: &str) -> anyhow::Result<Vec<Line>> {
    let lines: Vec<Line> = serde_json::from_str(text).with_context(|| format!("it says: {}", text.trim()))?;
    Ok(lines.into_iter().filter(|line| line.what != "kernel" || line.verdict == Verdict::Fail).collect())
}

/// Starts a pod on each node.
async fn from_pods(
    cluster: &Cluster,
    nodes: &[String],
    image: Option<&str>,
) -> anyhow::Result<BTreeMap<String, Vec<Line>>> {
    let like = agent_pod(image)?;
    make_namespace(cluster).await?;
    let found = join_all(nodes.iter().map(|node| from_pod(cluster, node, &like))).await;
    let gone = cluster.all::<Namespace>().delete(NAMESPACE, &DeleteParams::default()).await;
    gone.map_err(|error| cluster.told(error))?;
    Ok(nodes.iter().cloned().zip(found).collect())
}

/// Starts a pod on one node; that it does not start is a finding.
async fn from_pod(cluster: &Cluster, node: &str, like: &PodSpec) -> Vec<Line> {
    let pod = NodePod { namespace: NAMESPACE, name: format!("precheck-{node}"), node, like, args: &COMMAND };
    let lines = match pod.run(cluster, PATIENCE).await {
        Ok(ended) => kernel_lines(&ended.log),
        Err(error) => Err(error),
    };
    lines.unwrap_or_else(|error| {
        let cure = "--image names an image that the node can have";
        vec![Line::new("bpf", Err((format!("cannot look: {error:#}"), cure)))]
    })
}

/// The agent's pod, without what only an installation has.
fn agent_pod(image: Option<&str>) -> anyhow::Result<PodSpec> {
    let image = image.map(|image| format!("image={image}"));
    let objects = Values::parse(image.iter().map(String::as_str))?.objects()?;
    let agent = objects.into_iter().find(|object| object.name() == AGENT && object.kind() == "DaemonSet");
    let set: DaemonSet = serde_json::from_value(agent.context("no DaemonSet")?.0)?;
    let mut pod = set.spec.and_then(|spec| spec.template.spec).context("no pod")?;
    pod.service_account_name = None;
    pod.automount_service_account_token = Some(false);
    pod.priority_class_name = None;
    for volume in pod.volumes.iter_mut().flatten().filter(|volume| volume.projected.is_some()) {
        volume.projected = None;
        volume.empty_dir = Some(k8s_openapi::api::core::v1::EmptyDirVolumeSource::default());
    }
    Ok(pod)
}

/// Makes the namespace, and waits until pods may be made there.
async fn make_namespace(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace: Namespace = serde_json::from_value(json!({
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}
    }))?;
    let created = cluster.all().create(&PostParams::default(), &namespace).await;
    created.map_err(|error| cluster.told(error).context(format!("cannot make the namespace {NAMESPACE}")))?;
    let until = Instant::now() + PATIENCE;
    loop {
        let account = cluster.api::<ServiceAccount>(NAMESPACE).get_opt("default").await;
        if account.map_err(|error| cluster.told(error))?.is_some() {
            return Ok(());
        }
        if Instant::now() >= until {
            bail!("namespace {NAMESPACE} gets no default ServiceAccount: does the controller manager run?");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_to_look_with_needs_no_installation() {
        let pod = agent_pod(Some("example/weft:1")).unwrap();
        assert_eq!(pod.containers[0].image.as_deref(), Some("example/weft:1"));
        assert!(pod.volumes.unwrap().iter().all(|volume| volume.projected.is_none()));
    }

    #[test]
    fn a_node_tells_what_kubernetes_does_not() {
        let text = r#"[{"what":"kernel","verdict":"ok","told":"6.1"},{"what":"btf","verdict":"fail","told":"x","cure":"y"}]"#;
        let lines = kernel_lines(text).unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].verdict, Verdict::Fail);
        assert!(kernel_lines("no such command").is_err());
    }
}
