//! Where the network namespaces of this node's pods are.

use std::path::{Path, PathBuf};

use weft_rules::workload::Workload;

use super::pods::{NetnsId, find_netns};
use super::process::PodProcesses;

/// Finds network namespaces.
#[derive(Debug)]
pub enum NetnsFinder {
    /// Standalone mode: the pod's annotation says it.
    Annotation,
    /// In a cluster: the pod's processes are in it. An annotation could name another pod's.
    Processes(PodProcesses),
}

impl NetnsFinder {
    /// Where a pod's namespace is, and which it is; `Err` says why it cannot be told, which may pass.
    pub fn find(&mut self, pod: &Workload) -> Result<(PathBuf, NetnsId), String> {
        let path = match (self, &pod.netns) {
            (Self::Annotation, Some(netns)) => netns_path(netns),
            (Self::Annotation, None) => return Err(NO_ANNOTATION.to_owned()),
            (Self::Processes(processes), _) => processes.netns(&pod.uid)?,
        };
        let id = find_netns(&path)?;
        Ok((path, id))
    }
}

/// Why a pod of a file has no namespace.
pub const NO_ANNOTATION: &str = "no annotation weft.dev/netns says which network namespace is the pod's";

/// Where a pod's network namespace is by its annotation: a name below `/var/run/netns`, or a path.
pub fn netns_path(annotation: &str) -> PathBuf {
    // `join` takes an absolute path as it is.
    Path::new("/var/run/netns").join(annotation)
}
