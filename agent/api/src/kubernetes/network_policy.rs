//! NetworkPolicy, which the cluster's network enforces and weft only looks at: what it keeps out is kept out of the mesh, too.

use serde::{Deserialize, Serialize};

use super::IntOrString;
use crate::meta::{Labels, Resource, null_as_default};

/// `networking.k8s.io/v1` NetworkPolicy.
pub type NetworkPolicy = Resource<NetworkPolicySpec>;

/// `NetworkPolicy.spec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// The pods that it is for; empty: all of the namespace.
    #[serde(deserialize_with = "null_as_default")]
    pub pod_selector: LabelSelector,
    /// What may come in.
    #[serde(deserialize_with = "null_as_default")]
    pub ingress: Vec<IngressRule>,
    /// What may go out.
    #[serde(deserialize_with = "null_as_default")]
    pub egress: Vec<EgressRule>,
}

/// Lets connections in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressRule {
    /// To these ports; empty: to all.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<PolicyPort>,
    /// From these; empty: from everywhere.
    #[serde(deserialize_with = "null_as_default")]
    pub from: Vec<PolicyPeer>,
}

/// Lets connections out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EgressRule {
    /// To these ports; empty: to all.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<PolicyPort>,
    /// To these; empty: to everywhere.
    #[serde(deserialize_with = "null_as_default")]
    pub to: Vec<PolicyPeer>,
}

/// One port, or several.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyPort {
    /// TCP when empty.
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
    /// All ports when absent.
    pub port: Option<IntOrString>,
    /// The last one, of a range that begins with `port`.
    pub end_port: Option<u16>,
}

/// Who is at the other end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyPeer {
    /// Pods of the policy's namespace, or of those that `namespace_selector` finds.
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces.
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses, which are nobody's in the cluster.
    pub ip_block: Option<IpBlock>,
}

/// A range of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpBlock {
    /// The range.
    pub cidr: String,
    /// What is not meant of it.
    #[serde(deserialize_with = "null_as_default")]
    pub except: Vec<String>,
}

/// Selects by labels; an empty one selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels with their values.
    #[serde(deserialize_with = "null_as_default")]
    pub match_labels: Labels,
    /// Conditions on labels.
    #[serde(deserialize_with = "null_as_default")]
    pub match_expressions: Vec<LabelCondition>,
}

/// A condition on a label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LabelCondition {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`.
    pub operator: String,
    /// Values of the first two.
    #[serde(deserialize_with = "null_as_default")]
    pub values: Vec<String>,
}

impl LabelSelector {
    /// Whether it selects all.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}
