//! The cluster as a whole: its version, and what of meshes is there already.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::ListParams;

use super::Line;
use crate::cluster::Cluster;
use crate::install::object::MANAGED_BY;
use crate::install::present::Present;

/// The oldest Kubernetes that tells the node of an agent's token to an admission policy.
const OLDEST: (u32, u32) = (1, 30);

/// Programs that touch the same traffic: their name, where they are known from, and what that means.
const OTHERS: [(&str, &str, &str); 6] = [
    ("ztunnel", "Istio ambient", "a namespace may be in one of the two meshes: label it for one"),
    ("istio-cni-node", "Istio's CNI plugin", "pods with a sidecar are left alone"),
    (
        "cilium",
        "Cilium",
        "fine with kube-proxy; with its own load balancing at sockets, set bpf.lbSock.hostNamespaceOnly",
    ),
    ("linkerd-cni", "Linkerd's CNI plugin", "pods with its proxy must be in namespaces without weft's label"),
    ("calico-node", "Calico", "fine; with its eBPF data plane, set bpfConnectTimeLoadBalancing to Disabled"),
    (
        "kuma-cni-node",
        "Kuma's CNI plugin",
        "pods with its sidecar must be in namespaces without weft's label",
    ),
];

/// Looks at it.
pub async fn look(cluster: &Cluster) -> anyhow::Result<Vec<Line>> {
    let version = cluster.client.apiserver_version().await.map_err(|error| cluster.told(error))?;
    let mut lines =
        vec![Line::new("kubernetes", kubernetes(&version.major, &version.minor, &version.git_version))];
    if let Some(present) = Present::look(cluster).await? {
        let told = format!("profile {}, image {}", present.values.profile(), present.image);
        lines.push(Line::note("weft", format!("is installed: {told}"), "weft install changes it in place"));
    }
    lines.extend(definitions(cluster).await?);
    lines.extend(other_meshes(cluster).await?);
    Ok(lines)
}

fn kubernetes(major: &str, minor: &str, told: &str) -> Result<String, (String, &'static str)> {
    // Some providers write `34+`.
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    if (number(major), number(minor)) >= OLDEST {
        Ok(told.to_owned())
    } else {
        Err((
            format!("{told} is too old"),
            "weft needs Kubernetes 1.30 or newer: older ones cannot keep an agent to the pods of its own node",
        ))
    }
}

/// Whose definitions of Istio's kinds are there.
async fn definitions(cluster: &Cluster) -> anyhow::Result<Vec<Line>> {
    let found = cluster.all::<CustomResourceDefinition>().list_metadata(&ListParams::default()).await;
    let found = found.map_err(|error| cluster.told(error))?.items;
    let istio: Vec<_> = found.iter().filter(|crd| crd.name_any().ends_with(".istio.io")).collect();
    let ours = istio.iter().filter(|crd| crd.labels().get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1));
    let (all, ours) = (istio.len(), ours.count());
    Ok(vec![match (all, ours) {
        (0, _) => Line::new("definitions", Ok("no Istio kinds yet; weft install makes them".to_owned())),
        (all, ours) if all == ours => {
            Line::new("definitions", Ok(format!("{all} of Istio's kinds, weft's own")))
        }
        (all, ours) => Line::note(
            "definitions",
            format!("{} of Istio's kinds are there, and not weft's", all - ours),
            "they stay as they are; weft reads their v1, v1beta1 or v1alpha3",
        ),
    }])
}

async fn other_meshes(cluster: &Cluster) -> anyhow::Result<Vec<Line>> {
    let told = |error| cluster.told(error);
    let all = ListParams::default();
    let sets = cluster.all::<DaemonSet>().list_metadata(&all).await.map_err(told)?.items;
    let control = cluster.all::<Deployment>().list_metadata(&all).await.map_err(told)?.items;
    let mut lines: Vec<Line> = OTHERS
        .iter()
        .filter(|(name, ..)| sets.iter().any(|set| set.name_any() == *name))
        .map(|(_, who, meaning)| Line::note("beside weft", format!("{who} is there"), meaning))
        .collect();
    for (name, who) in [("istiod", "Istio"), ("linkerd-destination", "Linkerd")] {
        if control.iter().any(|deployment| deployment.name_any().starts_with(name)) {
            let meaning = "pods with a sidecar stay with it; a namespace's label istio-injection=enabled puts the others in weft";
            lines.push(Line::note("beside weft", format!("{who} is there"), meaning));
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_kubernetes() {
        assert!(kubernetes("1", "34", "v1.34.2").is_ok());
        assert!(kubernetes("1", "30+", "v1.30.1-gke.2").is_ok());
        assert!(kubernetes("1", "29", "v1.29.9").is_err());
    }
}
