//! Kubernetes' own kinds, reduced to the fields that weft reads. Other fields are ignored, not refused.

pub mod network_policy;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::meta::{Labels, ObjectMeta, Resource, null_as_default};

/// `v1` Namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its labels opt pods in.
    pub metadata: ObjectMeta,
}

/// `v1` ConfigMap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigMap {
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// Text values by key.
    #[serde(default, deserialize_with = "null_as_default")]
    pub data: BTreeMap<String, String>,
}

/// `v1` Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// Values in base64, by key.
    #[serde(default, deserialize_with = "null_as_default")]
    pub data: BTreeMap<String, Hidden>,
    /// Values as they are; they win.
    #[serde(default, deserialize_with = "null_as_default")]
    pub string_data: BTreeMap<String, Hidden>,
}

/// A text that no log may hold.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hidden")
    }
}

impl Secret {
    /// A value, as bytes; `None`: it has none of this key, or one that is not in base64.
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        match self.string_data.get(key) {
            Some(text) => Some(text.0.clone().into_bytes()),
            None => BASE64_STANDARD.decode(self.data.get(key)?.0.trim()).ok(),
        }
    }

    /// Its keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.data.keys().chain(self.string_data.keys()).map(String::as_str)
    }
}

/// `v1` Service.
pub type Service = Resource<ServiceSpec>;

/// `Service.spec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `ClusterIP` when empty.
    #[serde(rename = "type")]
    pub type_: String,
    /// `None` for headless; empty when none is assigned.
    #[serde(rename = "clusterIP")]
    #[serde(deserialize_with = "null_as_default")]
    pub cluster_ip: String,
    /// Both families, the first equal to `cluster_ip`.
    #[serde(rename = "clusterIPs")]
    #[serde(deserialize_with = "null_as_default")]
    pub cluster_ips: Vec<String>,
    /// Target of an `ExternalName` service.
    #[serde(deserialize_with = "null_as_default")]
    pub external_name: String,
    /// Pods that it selects; empty selects none.
    #[serde(deserialize_with = "null_as_default")]
    pub selector: Labels,
    /// Its ports.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<ServicePort>,
    /// Not-ready pods count as endpoints too.
    pub publish_not_ready_addresses: bool,
}

/// One of `Service.spec.ports`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// May declare the protocol: `http`, `http-web`, `tcp`, `grpc-api`.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// TCP when empty.
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
    /// Declares the protocol, before the name does.
    pub app_protocol: Option<String>,
    /// The port that clients dial.
    pub port: u16,
    /// The port of the pods; `port` when absent.
    pub target_port: Option<IntOrString>,
    /// The port of every node that leads there, of a `NodePort` or `LoadBalancer` service.
    pub node_port: Option<u16>,
}

/// A port by number or by the name of a container's port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(u16),
    /// A container port's name, or a number in quotes.
    String(String),
}

/// `v1` Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Name, labels, the `weft.dev/netns` annotation.
    pub metadata: ObjectMeta,
    /// What should run.
    #[serde(default)]
    pub spec: PodSpec,
    /// What runs.
    #[serde(default)]
    pub status: PodStatus,
}

/// `Pod.spec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// The node it runs on; empty in standalone mode means this one.
    #[serde(deserialize_with = "null_as_default")]
    pub node_name: String,
    /// `default` when empty.
    #[serde(deserialize_with = "null_as_default")]
    pub service_account_name: String,
    /// Uses the node's network namespace: never enrolled.
    pub host_network: bool,
    /// Its name in DNS, below that of the headless service that `subdomain` names.
    #[serde(deserialize_with = "null_as_default")]
    pub hostname: String,
    /// A headless service of its namespace.
    #[serde(deserialize_with = "null_as_default")]
    pub subdomain: String,
    /// Containers, for their named ports and their probes.
    #[serde(deserialize_with = "null_as_default")]
    pub containers: Vec<Container>,
    /// As above; those that keep running have probes too.
    #[serde(deserialize_with = "null_as_default")]
    pub init_containers: Vec<Container>,
}

/// One of `Pod.spec.containers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Container name; `istio-proxy` means that the pod has its own sidecar.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// Declared ports.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<ContainerPort>,
    /// Whether it still works.
    pub liveness_probe: Option<Probe>,
    /// Whether it takes traffic.
    pub readiness_probe: Option<Probe>,
    /// Whether it has started.
    pub startup_probe: Option<Probe>,
    /// What its node does when it starts and before it stops.
    pub lifecycle: Option<Lifecycle>,
}

/// One of a container's probes, or a hook of its life: what the node's kubelet connects to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Probe {
    /// Asks for a page.
    pub http_get: Option<ProbeTarget>,
    /// Opens a connection.
    pub tcp_socket: Option<ProbeTarget>,
    /// Asks the gRPC health service.
    pub grpc: Option<ProbeTarget>,
}

/// Where a probe goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeTarget {
    /// A number, or the name of one of the container's ports.
    pub port: Option<IntOrString>,
    /// The pod itself when empty.
    #[serde(deserialize_with = "null_as_default")]
    pub host: String,
    /// Of a page: its path, with a query.
    #[serde(deserialize_with = "null_as_default")]
    pub path: String,
    /// Of a page: `HTTP` when empty, or `HTTPS`.
    #[serde(deserialize_with = "null_as_default")]
    pub scheme: String,
}

/// `lifecycle` of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Lifecycle {
    /// After its start.
    pub post_start: Option<Probe>,
    /// Before its end.
    pub pre_stop: Option<Probe>,
}

/// One of a container's ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Name that a Service's `targetPort` may use.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// Number.
    pub container_port: u16,
    /// TCP when empty.
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
}

/// `Pod.status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Running` when empty (standalone files may leave it out).
    #[serde(deserialize_with = "null_as_default")]
    pub phase: String,
    /// Primary address.
    #[serde(rename = "podIP")]
    #[serde(deserialize_with = "null_as_default")]
    pub pod_ip: String,
    /// All addresses.
    #[serde(rename = "podIPs")]
    #[serde(deserialize_with = "null_as_default")]
    pub pod_ips: Vec<PodIp>,
    /// Missing means Ready.
    #[serde(deserialize_with = "null_as_default")]
    pub conditions: Vec<PodCondition>,
}

/// One of `Pod.status.podIPs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// The address.
    pub ip: String,
}

/// One of `Pod.status.conditions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodCondition {
    /// For example `Ready`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

/// `discovery.k8s.io/v1` EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// Label `kubernetes.io/service-name` names its Service.
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// Addresses with their conditions.
    #[serde(deserialize_with = "null_as_default")]
    pub endpoints: Vec<SliceEndpoint>,
    /// Ports, by the Service port's name.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<SlicePort>,
}

/// One of `EndpointSlice.endpoints`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceEndpoint {
    /// Its addresses; consumers use the first.
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<String>,
    /// Whether it takes traffic.
    #[serde(deserialize_with = "null_as_default")]
    pub conditions: SliceConditions,
    /// The pod behind it.
    pub target_ref: Option<TargetRef>,
    /// Its node.
    pub node_name: Option<String>,
}

/// `EndpointSlice.endpoints[].conditions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SliceConditions {
    /// `None` counts as ready.
    pub ready: Option<bool>,
    /// `None` follows `ready`.
    pub serving: Option<bool>,
    /// `None` counts as false.
    pub terminating: Option<bool>,
}

/// `EndpointSlice.endpoints[].targetRef`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// `Pod` for pods.
    pub kind: String,
    /// Name.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// Namespace.
    pub namespace: String,
}

/// One of `EndpointSlice.ports`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SlicePort {
    /// The Service port's name; empty for an unnamed one.
    pub name: Option<String>,
    /// The target port's number.
    pub port: Option<u16>,
    /// TCP when absent.
    pub protocol: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_absent_as_the_api_server_has_it() {
        let slice = r#"{"metadata": {"name": "a", "labels": null}, "addressType": "IPv4", "endpoints": null, "ports": null}"#;
        let slice: EndpointSlice = serde_json::from_str(slice).expect("a slice");
        assert!(slice.endpoints.is_empty() && slice.ports.is_empty());
        let pod = r#"{"metadata": {"name": "a", "creationTimestamp": null}, "spec": {"containers": null}, "status": {"podIP": null}}"#;
        let pod: Pod = serde_json::from_str(pod).expect("a pod");
        assert_eq!(pod.status.pod_ip, "");
    }
}
