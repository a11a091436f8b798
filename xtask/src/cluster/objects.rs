//! What a new cluster holds: its nodes, the API server's right to speak to kubelets, and the cluster DNS.

use anyhow::Result;

use super::layout::{DNS_SERVICE, DOMAIN, NODES};
use crate::image;

/// The nodes come before their kubelets, so that each has the addresses for its pods that its CNI was told.
const KUBELET_API: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: weft-cluster:apiserver-kubelet}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:kubelet-api-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: kube-apiserver-kubelet-client}]
";

/// All of it, as YAML.
pub fn yaml() -> Result<String> {
    let mut documents: Vec<String> = NODES
        .iter()
        .map(|node| {
            format!(
                "apiVersion: v1\n\
                 kind: Node\n\
                 metadata: {{name: {0}, labels: {{kubernetes.io/hostname: {0}}}}}\n\
                 spec: {{podCIDR: {1}, podCIDRs: [{1}]}}\n",
                node.name, node.pods
            )
        })
        .collect();
    documents.push(KUBELET_API.to_owned());
    documents.push(
        include_str!("../../cluster/objects/coredns.yaml")
            .replace("COREDNS_IMAGE", &image::coredns_name()?)
            .replace("DNS_SERVICE", DNS_SERVICE)
            .replace("DOMAIN", DOMAIN),
    );
    Ok(documents.join("---\n"))
}
