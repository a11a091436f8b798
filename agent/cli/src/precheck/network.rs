//! What the cluster's network keeps out of the mesh.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy as Served;
use kube::ResourceExt;
use kube::api::ListParams;
use weft_api::analyze::without_tunnels;
use weft_api::kubernetes::network_policy::NetworkPolicy;
use weft_api::names::{TUNNEL_PORT, namespace_opts_in};

use super::Line;
use crate::cluster::Cluster;

/// Looks at the NetworkPolicies of namespaces that are labelled for the mesh.
pub async fn look(cluster: &Cluster) -> anyhow::Result<Vec<Line>> {
    let all = ListParams::default();
    let namespaces = cluster.all::<Namespace>().list_metadata(&all).await;
    let mut namespaces = namespaces.map_err(|error| cluster.told(error))?.items;
    namespaces.retain(|namespace| namespace_opts_in(namespace.labels()) == Some(true));
    let served = cluster.all::<Served>().list(&all).await.map_err(|error| cluster.told(error))?.items;
    let mut policies: BTreeMap<String, Vec<NetworkPolicy>> = BTreeMap::new();
    for policy in served {
        let namespace = policy.namespace().unwrap_or_default();
        if namespaces.iter().any(|labelled| labelled.name_any() == namespace) {
            let policy = serde_json::from_value(serde_json::to_value(policy)?)?;
            policies.entry(namespace).or_default().push(policy);
        }
    }
    let mut all: Vec<Line> = policies.values().flat_map(|policies| lines(policies)).collect();
    if !policies.is_empty() {
        let namespaces: Vec<&str> = policies.keys().map(String::as_str).collect();
        let told = format!(
            "NetworkPolicies in {} do not hold between pods of one node: weft connects them past the network",
            namespaces.join(", ")
        );
        all.push(Line::note(
            "network",
            told,
            "say by AuthorizationPolicies who may call whom: they hold everywhere",
        ));
    }
    Ok(all)
}

/// One for each policy of a namespace that stands in the way.
fn lines(policies: &[NetworkPolicy]) -> Vec<Line> {
    let mut gaps = without_tunnels(&policies.iter().collect::<Vec<_>>());
    gaps.dedup_by(|a, b| std::ptr::eq(a.policy, b.policy));
    let line = |policy: &NetworkPolicy| {
        let meta = &policy.metadata;
        let told = format!(
            "NetworkPolicy {}/{} leaves out TCP port {TUNNEL_PORT}, to which the mesh's traffic between nodes goes",
            meta.namespace, meta.name
        );
        let cure = "add {port: 15008} to the ports of its rules, if the network enforces it; an AuthorizationPolicy says what is behind";
        Line::note("network", told, cure)
    };
    gaps.iter().map(|gap| line(gap.policy)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_is_one_line_however_many_of_its_rules_are_wrong() {
        let policy: NetworkPolicy = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"ingress": [{"ports": [{"port": 80}]}, {"ports": [{"port": 90}]}]},
        }))
        .unwrap();
        let [line] = &lines(&[policy])[..] else { panic!("not one line") };
        assert!(line.told.contains("shop/web") && line.cure.contains("15008"), "{line:?}");
    }
}
