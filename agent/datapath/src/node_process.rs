//! Whether a connection into a pod was opened by the node itself: by a process in the agent's network namespace that is
//! outside of every pod. The kubelet is one. What only comes from the node's address may be somebody's whose address was
//! replaced on the way (kube-proxy does that), or a pod's on the host's network; neither is the node.
//!
//! The kernel tells who opens a connection from that namespace to a port that probes name: its cgroup2 group, and its
//! process. Where version 1 hierarchies hold the pods, the process tells; on a node that is a container itself, whose
//! processes have other numbers, those that have the socket.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use weft_common::Opener;

use super::node_socket;
use crate::cgroups;

/// `PROC_PID_INIT_INO`: the inode of the machine's first PID namespace.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Control groups that are remembered; the next one wipes the memory.
const MAX_GROUPS: usize = 4_096;

/// Knows the node's own processes.
#[derive(Debug)]
pub struct NodeProcesses {
    proc: PathBuf,
    /// The root of the cgroup2 hierarchy, where that holds the pods.
    groups: Option<File>,
    /// Processes have the numbers here that the kernel's side tells.
    counts_as_kernel: bool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether a control group is outside of every pod. Ids are not used again.
    groups: HashMap<u64, bool>,
    /// The process that was the last one found to be the node's own: the kubelet, mostly.
    holder: Option<PathBuf>,
    /// Processes that somebody watches, as the kernel's side calls them.
    watched: HashSet<u64>,
}

/// Somebody who has yet to be looked for.
#[derive(Debug)]
pub struct Unknown {
    opener: Opener,
    ends: (SocketAddr, SocketAddr),
}

impl NodeProcesses {
    /// `cgroup2`: the root of that hierarchy.
    pub fn new(cgroup2: File) -> Self {
        Self::at("/proc".into(), cgroup2)
    }

    /// For whoever asks nothing of it.
    pub fn unasked() -> Self {
        Self { proc: "/proc".into(), groups: None, counts_as_kernel: false, known: Mutex::default() }
    }

    fn at(proc: PathBuf, cgroup2: File) -> Self {
        let own = fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
        let is_only = own.lines().all(|line| line.starts_with("0::"));
        let namespace = fs::metadata(proc.join("self/ns/pid")).map(|meta| meta.ino());
        let counts_as_kernel = namespace.is_ok_and(|inode| inode == FIRST_PID_NAMESPACE);
        Self { proc, groups: is_only.then_some(cgroup2), counts_as_kernel, known: Mutex::default() }
    }

    /// Whether the node itself opened the connection from `peer` to `to`, as far as that is told at once. `Err`: ask
    /// [`Self::look_for`], which takes milliseconds.
    ///
    /// # Errors
    /// Its opener has not been met before.
    pub fn opened(&self, opener: Opener, peer: SocketAddr, to: SocketAddr) -> Result<bool, Unknown> {
        let unknown = Unknown { opener, ends: (peer, to) };
        if self.groups.is_some() {
            return self.known().groups.get(&opener.group).copied().ok_or(unknown);
        }
        if self.counts_as_kernel {
            return Ok(is_outside(&self.process(opener)));
        }
        let known = self.known();
        match (&known.holder, node_socket::find(peer, to)) {
            (_, Ok(None) | Err(_)) => Ok(false),
            (Some(process), Ok(Some(socket))) if is_outside(process) && holds(process, socket) => Ok(true),
            _ => Err(unknown),
        }
    }

    /// Finds out who opened a connection, and remembers it.
    pub fn look_for(&self, unknown: &Unknown) -> bool {
        let Unknown { opener, ends: (peer, to) } = *unknown;
        if let Some(root) = &self.groups {
            let root = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
            let Some(path) = group_path(&root, opener.group) else { return false };
            let is_outside = cgroups::pod_uid(&path).is_none();
            let mut known = self.known();
            if known.groups.len() >= MAX_GROUPS {
                known.groups.clear();
            }
            known.groups.insert(opener.group, is_outside);
            return is_outside;
        }
        let Ok(Some(socket)) = node_socket::find(peer, to) else { return false };
        let holders = self.holders(socket);
        // A pod that has it too may have opened it.
        let are_outside = !holders.is_empty() && holders.iter().all(|process| is_outside(process));
        if are_outside {
            self.known().holder = holders.into_iter().next();
        }
        are_outside
    }

    /// Whether control groups tell, and not processes.
    pub fn knows_groups(&self) -> bool {
        self.groups.is_some()
    }

    /// The process that opened a connection, as was found, to be watched under the name `id`; `None`: somebody does, or it has
    /// ended.
    pub fn watch(&self, opener: Opener, id: u64) -> io::Result<Option<OwnedFd>> {
        let mut known = self.known();
        if known.watched.contains(&id) {
            return Ok(None);
        }
        let process = if self.counts_as_kernel { Some(self.process(opener)) } else { known.holder.clone() };
        let Some(process) = process else { return Ok(None) };
        let number = process.file_name().and_then(|name| name.to_str()?.parse().ok()).and_then(Pid::from_raw);
        let Some(number) = number else { return Ok(None) };
        let opened = pidfd_open(number, PidfdFlags::NONBLOCK)?;
        // Its number may have become somebody else's before it was opened.
        if !is_outside(&process) {
            return Ok(None);
        }
        known.watched.insert(id);
        Ok(Some(opened))
    }

    /// Nobody watches it any more.
    pub fn forget(&self, id: u64) {
        self.known().watched.remove(&id);
    }

    fn process(&self, opener: Opener) -> PathBuf {
        self.proc.join(opener.process.to_string())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holders(&self, inode: u32) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        let processes = entries.filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        });
        processes.map(|entry| entry.path()).filter(|process| holds(process, inode)).collect()
    }
}

/// Whether a process is there, and in no pod.
fn is_outside(process: &Path) -> bool {
    matches!(cgroups::pod_of(process), Ok(None))
}

/// Whether a process has a socket.
fn holds(process: &Path, inode: u32) -> bool {
    let wanted = format!("socket:[{inode}]");
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    files.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|name| name.as_os_str() == &*wanted))
}

/// The path of the control group with this id below `dir`: ids are inode numbers.
fn group_path(dir: &Path, id: u64) -> Option<String> {
    let mut left = vec![(dir.to_path_buf(), String::new())];
    while let Some((dir, path)) = left.pop() {
        if fs::metadata(&dir).is_ok_and(|meta| meta.ino() == id) {
            return Some(if path.is_empty() { "/".to_owned() } else { path });
        }
        let children = fs::read_dir(&dir).into_iter().flatten().flatten();
        for child in children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir())) {
            left.push((child.path(), format!("{path}/{}", child.file_name().to_string_lossy())));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use tempfile::TempDir;

    use super::*;

    fn connected() -> (TcpListener, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener, client)
    }

    fn process(proc: &Path, name: &str, cgroup: &str, socket: u32) {
        let dir = proc.join(name);
        fs::create_dir_all(dir.join("fd")).unwrap();
        fs::write(dir.join("cgroup"), format!("4:memory:{cgroup}\n")).unwrap();
        std::os::unix::fs::symlink(format!("socket:[{socket}]"), dir.join("fd/3")).unwrap();
    }

    const OPENER: Opener = Opener { group: 1, process: 7, at: 0 };
    const POD: &str = "/kubepods/pod0f6b1f9e-2a30-4c7e-9d55-7a3c1f0e8b11/x";

    #[test]
    fn a_socket_is_the_nodes_if_every_process_that_has_it_is_outside_of_pods() {
        let (_listener, client) = connected();
        let (own, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let inode = node_socket::find(own, peer).unwrap().unwrap();
        let dir = TempDir::new().unwrap();
        let proc = dir.path();
        process(proc, "self", "/", 0);
        process(proc, "10", "/system.slice/kubelet.service", inode);
        process(proc, "20", "/system.slice/cron.service", 1);
        let node = NodeProcesses::at(proc.to_owned(), File::open("/").unwrap());
        let opened = || node.opened(OPENER, own, peer);
        let unknown = opened().unwrap_err();
        assert!(node.look_for(&unknown));
        assert!(matches!(opened(), Ok(true)), "it is known from then on");
        // Its process id went to a process of a pod.
        fs::write(proc.join("10/cgroup"), format!("4:memory:{POD}\n")).unwrap();
        assert!(!node.look_for(&opened().unwrap_err()));
        // One of two has it from a pod.
        process(proc, "30", "/system.slice/kubelet.service", inode);
        assert!(!node.look_for(&opened().unwrap_err()));
        // Nobody has it, or nobody can be seen.
        assert!(!node.look_for(&opened().unwrap_err()));
        let mut other = own;
        other.set_port(own.port() ^ 1);
        assert!(matches!(node.opened(OPENER, other, peer), Ok(false)), "no socket of the node's");
    }

    #[test]
    fn a_control_group_is_found_by_its_id() {
        let dir = TempDir::new().unwrap();
        let root = dir.path();
        let pod = root.join(&POD[1..]);
        fs::create_dir_all(&pod).unwrap();
        let id = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(group_path(root, id(&pod)).as_deref(), Some(POD));
        assert_eq!(group_path(root, id(root)).as_deref(), Some("/"));
        assert_eq!(group_path(root, 1), None);
    }
}
