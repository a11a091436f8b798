//! PeerAuthentication.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WorkloadSelector;
use crate::meta::{Resource, not_empty_map};

/// `security.istio.io` PeerAuthentication.
pub type PeerAuthentication = Resource<PeerAuthenticationSpec>;

/// `PeerAuthentication.spec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PeerAuthenticationSpec {
    /// The workloads it is for; absent means all of the namespace (of the mesh, in the root namespace).
    pub selector: Option<WorkloadSelector>,
    /// For every port.
    pub mtls: Option<MutualTls>,
    /// By the workload's own port (not the Service's); only with a selector.
    #[serde(deserialize_with = "not_empty_map", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("minProperties" = 1))]
    pub port_level_mtls: BTreeMap<u16, MutualTls>,
}

/// `mtls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MutualTls {
    /// What is accepted.
    pub mode: MutualTlsMode,
}

/// `mtls.mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MutualTlsMode {
    /// As the wider policy says.
    #[default]
    Unset,
    /// Plaintext only.
    Disable,
    /// Both.
    Permissive,
    /// Mutual TLS only.
    Strict,
}
