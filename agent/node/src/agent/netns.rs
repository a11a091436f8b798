//! Where the network namespaces of this node's pods are.
//!
//! One counts as a pod's only if it holds one of the pod's addresses: a process of a pod may be in a namespace that it has
//! made for itself, and an annotation may name another pod's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_rules::workload::Workload;

use super::pods::{NetnsId, find_netns};
use super::process::PodProcesses;

/// Finds network namespaces.
#[derive(Debug)]
pub struct NetnsFinder {
    places: Places,
    /// Namespaces that were found to hold one of the addresses that their pod had then.
    held: HashMap<Arc<str>, (NetnsId, Vec<IpAddr>)>,
}

#[derive(Debug)]
enum Places {
    /// Standalone mode: the pod's annotation says it.
    Annotation,
    /// In a cluster: the pod's processes are in it. An annotation could name another pod's.
    Processes(PodProcesses),
}

impl NetnsFinder {
    /// For standalone mode.
    pub fn by_annotation() -> Self {
        Self { places: Places::Annotation, held: HashMap::new() }
    }

    /// For a cluster.
    pub fn by_processes() -> Self {
        Self { places: Places::Processes(PodProcesses::default()), held: HashMap::new() }
    }

    /// Whether only an annotation tells it.
    pub fn needs_annotation(&self) -> bool {
        matches!(self.places, Places::Annotation)
    }

    /// Forgets what was found of other pods than these.
    pub fn keep(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.held.retain(|key, _| is_wanted(key));
    }

    /// Where a pod's namespace is, and which it is; `Err` says why it cannot be told, which may pass.
    pub fn find(&mut self, pod: &Workload) -> Result<(PathBuf, NetnsId), String> {
        let Self { places, held } = self;
        let found = match (places, &pod.netns) {
            (Places::Annotation, Some(netns)) => {
                let path = netns_path(netns);
                counts(pod, &path, held).map(|id| (path, id))
            }
            (Places::Annotation, None) => Err(NO_ANNOTATION.to_owned()),
            (Places::Processes(processes), _) => processes.netns(&pod.uid, |path| counts(pod, path, held)),
        };
        match &found {
            Ok((_, id)) => _ = held.insert(pod.key.clone(), (*id, pod.addresses.clone())),
            Err(_) => _ = held.remove(&pod.key),
        }
        found
    }
}

/// Whether a namespace is the pod's, and which it is.
fn counts(
    pod: &Workload,
    path: &Path,
    held: &HashMap<Arc<str>, (NetnsId, Vec<IpAddr>)>,
) -> Result<NetnsId, String> {
    let id = find_netns(path)?;
    if held.get(&pod.key).is_some_and(|(known, of)| *known == id && *of == pod.addresses) {
        return Ok(id);
    }
    let there = weft_datapath::addresses_in(path).map_err(|error| {
        format!("the addresses in network namespace {} cannot be read: {error}", path.display())
    })?;
    if pod.addresses.iter().any(|address| there.contains(address)) {
        return Ok(id);
    }
    let wanted: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
    Err(format!(
        "network namespace {} holds none of its addresses ({}), so it is not taken for the pod's",
        path.display(),
        wanted.join(", ")
    ))
}

/// Why a pod of a file has no namespace.
pub const NO_ANNOTATION: &str = "no annotation weft.dev/netns says which network namespace is the pod's";

/// Where a pod's network namespace is by its annotation: a name below `/var/run/netns`, or a path.
pub fn netns_path(annotation: &str) -> PathBuf {
    // `join` takes an absolute path as it is.
    Path::new("/var/run/netns").join(annotation)
}
