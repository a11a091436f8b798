//! What the plugin and the agent say to each other.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long the plugin waits for an answer. The agent answers before.
pub const PATIENCE: Duration = Duration::from_secs(12);
/// How long the plugin waits to hear whether anybody is there: an agent answers that in no time, whatever it is at.
pub const PRESENCE: Duration = Duration::from_secs(2);
/// How long the agent waits for an object that tells whether the pod should be in the mesh, and for its own turn to come: with
/// hundreds of pods that start at once, the API server is seconds behind.
pub const OBJECT: Duration = Duration::from_secs(10);

/// The same where the pod's network goes, which nothing may hold up.
pub const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// How long the agent takes to close what it has open in such a network.
pub const CLOSING: Duration = Duration::from_secs(1);

/// What the plugin tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// A pod has its network, which is attached as an open file.
    Add(Pod),
    /// The plugin has closed a pod by itself, having waited in vain. Its network is attached as an open file.
    Enclosed(Pod),
    /// A pod's network goes; it is attached as an open file, where it is there still.
    Delete(Pod),
    /// Is anybody there?
    Status,
}

/// A pod, as the runtime names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID: a pod of the same name may have come before.
    pub uid: String,
    /// The container that holds the network: of pods with the same name, the one that it is about.
    pub container: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Pod {
    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// It is in the mesh.
    Enrolled,
    /// It has no business there.
    NotInMesh(String),
    /// It should be, or may be, and is not yet.
    NotYet(String),
    /// Noted.
    Done,
}
