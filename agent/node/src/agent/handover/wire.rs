//! What two agents say to each other over `RUNDIR/handover.sock`.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Version of all this. What is added later must not be needed by those who do not know it.
pub const PROTOCOL: u32 = 1;

/// A message. The successor says `Hello`, `Ask` and `Taken`, its predecessor everything else.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// Who wants to take over.
    Hello(Hello),
    /// It may, and from whom: it prepares itself now.
    Welcome(Welcome),
    /// It may not.
    Refused(String),
    /// It is prepared.
    Ask,
    /// Sockets of the agent itself, by name, in the order of the attached files.
    Doors(Vec<String>),
    /// A pod, with its network namespace attached.
    Pod(PodMessage),
    /// Listeners in pods: network namespace cookie, kind and worker of each attached file.
    Listeners(Vec<(u64, u32, u32)>),
    /// There is no more.
    End,
    /// All of that serves: from here on, it is the successor's.
    Taken,
    /// So be it.
    Released,
}

/// Who wants to take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Version of weft, to be told to people.
    pub version: String,
    /// `weft_common::LAYOUT_VERSION`.
    pub layout: u32,
    /// The node that it serves.
    pub node: String,
    /// Where it pins.
    pub bpf_dir: PathBuf,
    /// The Kubernetes pod that it is in, if any.
    pub pod: Option<String>,
}

/// From whom it may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// Version of weft, to be told to people.
    pub version: String,
    /// The Kubernetes pod that it is in, if any.
    pub pod: Option<String>,
    /// Names of the sockets that are going to be handed over.
    pub doors: Vec<String>,
}

/// A pod in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodMessage {
    /// `namespace/name`.
    pub key: String,
    /// Cookie of its network namespace.
    pub cookie: u64,
    /// Path by which that was found.
    pub netns: PathBuf,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}
