//! What the cluster looks like: its nodes, its addresses, and where its files are.

use std::path::{Path, PathBuf};

/// Where a cluster keeps all that it has, on disk. The nodes' own `/run` lies over the machine's, so it is not there.
pub const STATE: &str = "/var/lib/weft-cluster";

/// The bridge that joins the nodes and the control plane.
pub const BRIDGE: &str = "weft-cluster";
/// The control plane's address: the machine's on the bridge.
pub const CONTROL: &str = "10.77.0.1";
/// The API server's port.
pub const API_PORT: u16 = 6443;
/// Where etcd listens for the API server.
pub const ETCD_PORT: u16 = 23_791;
/// Where etcd listens for members that never come.
pub const ETCD_PEER_PORT: u16 = 23_792;
/// Addresses of Services. The machine has a route to them, so they are none that a world of the stories has.
pub const SERVICES: &str = "10.97.0.0/16";
/// The API server's address as a Service.
pub const API_SERVICE: &str = "10.97.0.1";
/// The cluster DNS's.
pub const DNS_SERVICE: &str = "10.97.0.10";
/// Addresses of all pods, and no world's either.
pub const PODS: &str = "10.245.0.0/16";
/// The domain of Services.
pub const DOMAIN: &str = "cluster.local";

/// A node, as planned.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name, and its host name.
    pub name: &'static str,
    /// Its address on the bridge.
    pub address: &'static str,
    /// The addresses of its pods.
    pub pods: &'static str,
}

/// All nodes.
pub const NODES: [Node; 2] = [
    Node { name: "n1", address: "10.77.0.11", pods: "10.245.1.0/24" },
    Node { name: "n2", address: "10.77.0.12", pods: "10.245.2.0/24" },
];

/// The node of that name.
pub fn node(name: &str) -> Option<&'static Node> {
    NODES.iter().find(|node| node.name == name)
}

impl Node {
    /// Its network namespace.
    pub fn netns(&self) -> String {
        format!("weft-cluster-{}", self.name)
    }

    /// Its network card's other end, a port of the bridge.
    pub fn port(&self) -> String {
        format!("weft-cl-{}", self.name)
    }

    /// Its control group, in every hierarchy.
    pub fn cgroup(&self) -> String {
        format!("weft-cluster-{}", self.name)
    }

    /// Its files: what is in them is under `/var/lib/kubelet` and other usual places on the node.
    pub fn dir(&self) -> PathBuf {
        state(self.name)
    }
}

/// A path in the cluster's state.
pub fn state(path: &str) -> PathBuf {
    Path::new(STATE).join(path)
}

/// A certificate or key.
pub fn pki(file: &str) -> String {
    format!("{STATE}/pki/{file}")
}

/// How `name` speaks to the API server.
pub fn kubeconfig(name: &str) -> String {
    format!("{STATE}/{name}.conf")
}

/// What a process says.
pub fn log(name: &str) -> PathBuf {
    state("log").join(format!("{name}.log"))
}

/// What the nodes have in common beyond one kernel. A node of one's own shares nothing; a machine that is the only node
/// has process ids and control groups as the kernel numbers and roots them, which is what sharing shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct Shared {
    /// Nodes without process ids of their own: what BPF sees as a process is then what /proc of a node shows
    #[arg(long = "share-pids")]
    pub pids: bool,
    /// Nodes without a root of control groups of their own: both nodes' agents then attach to the machine's
    #[arg(long = "share-cgroups")]
    pub cgroups: bool,
}

impl Shared {
    /// As the standing cluster was brought up.
    pub fn read() -> Self {
        let is_there = |name: &str| state(name).exists();
        Self { pids: is_there("share-pids"), cgroups: is_there("share-cgroups") }
    }

    /// Keeps it for nodes that are switched on later.
    pub fn write(self) -> std::io::Result<()> {
        for (name, holds) in [("share-pids", self.pids), ("share-cgroups", self.cgroups)] {
            if holds {
                std::fs::write(state(name), "")?;
            }
        }
        Ok(())
    }
}

/// Here once the API server has the objects without which a kubelet need not begin.
pub fn go() -> PathBuf {
    state("nodes-go")
}
