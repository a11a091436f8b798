//! `weft edges`: who talks to whom, and how safely.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Peer, PeerSelector};

/// A line of `weft edges`: what a workload asks of another, as this node's agent has counted since it started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EdgeRow {
    /// The caller.
    pub source: EdgeEnd,
    /// The destination.
    pub destination: EdgeEnd,
    /// `http`, `grpc` or `tcp`: at the destination, what did not need to be read is bytes.
    pub protocol: String,
    /// Which side has counted: `source`, or `destination` for what came from another node or from outside.
    pub reporter: String,
    /// Requests answered; 0 for connections of bytes.
    pub requests: u64,
    /// Requests answered 5xx or not at all; connections that reached nobody.
    pub failed: u64,
    /// Requests and connections that a policy refused.
    pub denied: u64,
    /// Connections of bytes that were opened.
    pub connections: u64,
    /// Bytes from the caller, over connections of bytes.
    pub bytes_from_source: u64,
    /// Bytes to the caller, over connections of bytes.
    pub bytes_to_source: u64,
    /// Requests, or connections, in a second, where that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// How both ends know each other.
    pub security: EdgeSecurity,
    /// Why not, for [`EdgeSecurity::Plaintext`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// One side of an edge. What is empty is not known: the side is not in the mesh, or not a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EdgeEnd {
    /// Namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The Deployment's name, or that of what else made the pods.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload: String,
    /// The service addressed (destination only).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// `spiffe://…`, where proved.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// Label `app`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub app: String,
    /// Label `version`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// How both ends of an edge know each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EdgeSecurity {
    /// No endpoint was reached.
    #[default]
    Unknown,
    /// The kernel proves both: they are on one node.
    SameNode,
    /// By their certificates.
    MutualTls,
    /// They do not.
    Plaintext,
}

impl EdgeEnd {
    /// Says whether a selector means this side; `None`: an edge does not know that much of its sides.
    pub fn is(&self, selector: &PeerSelector) -> Option<bool> {
        match selector {
            PeerSelector::Pod(_) | PeerSelector::Address(_) | PeerSelector::Port(_) => return None,
            PeerSelector::Label(key, _) if !matches!(key.as_str(), "app" | "version") => return None,
            _ => {}
        }
        let labels = [("app", &self.app), ("version", &self.version)];
        let labels: BTreeMap<String, String> = labels
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .collect();
        let peer = Peer {
            namespace: self.namespace.clone(),
            workload: self.workload.clone(),
            service: self.service.clone(),
            labels,
            ..Peer::default()
        };
        Some(selector.matches(&peer))
    }
}
