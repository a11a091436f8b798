//! The kernel edge: loads and pins the eBPF programs, enrols pods, owns the listeners inside their network
//! namespaces and opens the agent's own sockets there.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the datapath keeps its state and how many proxy workers share each pod's connections.
#[derive(Debug, Clone)]
pub struct DatapathOptions {
    /// Directory of this agent's own files.
    pub run_dir: PathBuf,
    /// Directory on a bpffs for pinned programs, links and maps; mounted if missing.
    pub bpf_dir: PathBuf,
    /// Number of proxy workers; every pod gets one listener of each kind for each worker.
    pub workers: usize,
}

/// A pod to enrol: what the kernel side needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetwork {
    /// `namespace/name`, unique on a node.
    pub key: Arc<str>,
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
    /// The pod's addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
}

/// Why a listener exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Connections that the pod's programs open.
    Outbound,
    /// Connections that arrive for the pod's programs.
    Inbound,
}

/// A listening socket inside a pod's namespace, non-blocking, for one worker.
#[derive(Debug)]
pub struct PodListener {
    /// Which way its connections go.
    pub direction: Direction,
    /// The listening socket.
    pub socket: std::net::TcpListener,
}

/// An enrolled pod, shared with the workers that serve it.
#[derive(Debug)]
pub struct LocalPod {
    /// What was enrolled.
    pub network: PodNetwork,
    /// `SO_NETNS_COOKIE` of its namespace.
    pub cookie: u64,
    _netns: OwnedFd,
}

impl LocalPod {
    /// Takes the address that the pod's program dialled, for an outbound connection accepted from `peer`.
    /// Consumes the kernel's entry. `None`: the connection was not captured (somebody dialled the listener itself).
    pub fn take_orig_dst(&self, _peer: SocketAddr) -> io::Result<Option<SocketAddr>> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    /// Starts a connection to a program *in this pod* at `to`, shown to it as coming from `from`
    /// (transparent; port chosen by the kernel). The returned socket is non-blocking and connecting:
    /// await writability, then read `SO_ERROR`.
    pub fn dial_inside(&self, _from: IpAddr, _to: SocketAddr) -> io::Result<std::net::TcpStream> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    /// Starts a connection *from this pod's network namespace* to `to`, exempt from capture. As [`Self::dial_inside`].
    pub fn dial_outside(&self, _to: SocketAddr) -> io::Result<std::net::TcpStream> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}
