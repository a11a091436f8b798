//! Which pods of this node are in the mesh, and which should be: a plan by a pure function, carried out by
//! [`crate::agent::control`].

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Instant;

use weft_api::admin::PodEnrolment;
use weft_datapath::{LocalPod, PodNetwork};
use weft_rules::workload::{Enrolment, Workload};

use super::netns::{self, NetnsFinder, netns_path};

/// Identifies a network namespace, however it is named: the device and inode of its file.
pub type NetnsId = (u64, u64);

/// A pod that is enrolled.
#[derive(Debug)]
pub struct Enrolled {
    /// The pod, as the workers know it.
    pub pod: Arc<LocalPod>,
    /// Its network namespace when it was enrolled.
    pub netns: NetnsId,
    /// Tells the pod from others of its name; empty in standalone mode.
    pub uid: Arc<str>,
    /// Since when it joins: it was called before, by those who are to hear of it now.
    pub joins: Option<Instant>,
}

/// A pod that was enrolled.
#[derive(Debug)]
pub struct Left {
    /// Alive for as long as a connection of its time in the mesh.
    pub pod: Weak<LocalPod>,
    /// `namespace/name`.
    pub key: Arc<str>,
    /// Tells the pod from others of its name; empty in standalone mode.
    pub uid: Arc<str>,
}

/// A pod that should be enrolled.
#[derive(Debug, Clone)]
pub struct Desired {
    /// What the kernel's side needs to know; its path is that of `netns`.
    pub network: PodNetwork,
    /// Its network namespace as it is now, or why there is none.
    pub netns: Result<NetnsId, String>,
}

/// What has to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To release, by key.
    pub release: Vec<Arc<str>>,
    /// To enrol, after the releases.
    pub enrol: Vec<(PodNetwork, NetnsId)>,
    /// To try again later, and why.
    pub waiting: BTreeMap<Arc<str>, String>,
}

/// Compares what is with what should be. A pod whose namespace or addresses changed is released and enrolled anew; one
/// whose namespace cannot be found stays enrolled as it is until it can.
pub fn plan<'a>(
    enrolled: impl Iterator<Item = (&'a Arc<str>, &'a PodNetwork, NetnsId)>,
    desired: &BTreeMap<Arc<str>, Desired>,
) -> Plan {
    let mut plan = Plan::default();
    let mut owners: HashMap<NetnsId, &Arc<str>> = HashMap::new();
    let mut standing: HashMap<&str, (&PodNetwork, NetnsId)> = HashMap::new();
    for (key, network, netns) in enrolled {
        if desired.contains_key(key) {
            standing.insert(key, (network, netns));
        } else {
            plan.release.push(key.clone());
        }
    }
    for (key, want) in desired {
        let have = standing.get(&**key);
        match &want.netns {
            Ok(netns) if *owners.entry(*netns).or_insert(key) != key => {
                let owner = owners[netns];
                plan.waiting.insert(key.clone(), format!("its network namespace is pod {owner}'s already"));
                if have.is_some() {
                    plan.release.push(key.clone());
                }
            }
            Ok(netns) => match have {
                // A namespace may be reached by another path today.
                Some((network, at)) if at == netns && network.has_addresses(&want.network.addresses) => {}
                Some(_) => {
                    plan.release.push(key.clone());
                    plan.enrol.push((want.network.clone(), *netns));
                }
                None => plan.enrol.push((want.network.clone(), *netns)),
            },
            Err(error) => _ = plan.waiting.insert(key.clone(), error.clone()),
        }
    }
    plan.release.sort();
    plan
}

/// Finds the network namespace that a path names. The agent's own is no pod's.
pub fn find_netns(path: &Path) -> Result<NetnsId, String> {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("network namespace {shown} does not exist yet"),
        _ => format!("network namespace {shown} cannot be read: {error}"),
    })?;
    let fs = rustix::fs::statfs(path)
        .map_err(|error| format!("network namespace {shown} cannot be read: {error}"))?;
    // `ip netns add` makes an empty file first and mounts the namespace on it a moment later.
    if fs.f_type != NSFS_MAGIC {
        return Err(format!("{shown} is no network namespace (yet)"));
    }
    let found = (meta.dev(), meta.ino());
    match std::fs::metadata("/proc/self/ns/net") {
        Ok(own) if (own.dev(), own.ino()) == found => {
            Err(format!("{shown} is the node's own network namespace"))
        }
        _ => Ok(found),
    }
}

/// Identifies a network namespace that is open.
pub fn netns_of(netns: BorrowedFd<'_>) -> io::Result<NetnsId> {
    let meta = rustix::fs::fstat(netns)?;
    Ok((meta.st_dev, meta.st_ino))
}

/// Whether a workload is a pod of this node.
pub fn is_local(workload: &Workload, node: &str) -> bool {
    workload.node.is_empty() || *workload.node == *node
}

/// Why a local workload should not be enrolled; `None` for one that should. Without an annotation in a file, it cannot be.
pub fn obstacle(workload: &Workload, finder: &NetnsFinder) -> Option<&'static str> {
    match workload.enrolment {
        Enrolment::Enrolled if finder.needs_annotation() && workload.netns.is_none() => {
            Some(netns::NO_ANNOTATION)
        }
        Enrolment::Enrolled => None,
        enrolment => Some(reason(enrolment)),
    }
}

impl Desired {
    /// A local workload that should be enrolled; where its namespace is, is not known yet.
    pub fn new(workload: &Workload) -> Self {
        let network = PodNetwork {
            key: workload.key.clone(),
            netns: PathBuf::new(),
            addresses: workload.addresses.clone(),
        };
        Self { network, netns: Err(String::new()) }
    }

    /// Looks for its namespace as it is now.
    pub fn locate(&mut self, workload: &Workload, finder: &mut NetnsFinder) {
        self.netns = finder.find(workload).map(|(path, id)| {
            self.network.netns = path;
            id
        });
    }
}

/// Why a pod is not in the mesh, in words.
pub fn reason(enrolment: Enrolment) -> &'static str {
    match enrolment {
        Enrolment::Enrolled => "",
        Enrolment::NotSelected => "neither its namespace nor the pod is labelled weft.dev/mesh=enabled",
        Enrolment::OptedOut => "a label on the pod opts out",
        Enrolment::AnnotatedOut => "its annotation sidecar.istio.io/inject=false opts out",
        Enrolment::HostNetwork => "it shares the node's network",
        Enrolment::HasSidecar => "it brings its own istio-proxy",
        Enrolment::NotRunning => "it has ended",
        Enrolment::Starting => "it has no address yet",
        Enrolment::NotYet => "its node has not said that it is in the mesh",
    }
}

/// A line of `weft status`.
pub fn row(workload: &Workload, problem: Option<&str>, netns: Option<&Path>) -> PodEnrolment {
    let annotated = || workload.netns.as_ref().map(|netns| netns_path(netns));
    PodEnrolment {
        namespace: workload.namespace.to_string(),
        name: workload.name.to_string(),
        addresses: workload.addresses.iter().map(ToString::to_string).collect(),
        enrolled: problem.is_none(),
        reason: problem.map(str::to_owned),
        netns: netns.map(Path::to_owned).or_else(annotated).map(|path| path.display().to_string()),
        ..PodEnrolment::default()
    }
}

#[cfg(test)]
mod tests;
