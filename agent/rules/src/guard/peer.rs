//! A PeerAuthentication, compiled, and which of several decides.

use std::sync::Arc;

use weft_api::meta::Labels;

use super::Mtls;
use crate::guard::namespace::NamespaceSecurity;
use crate::route::matching::is_subset;
use crate::route::virtual_service::Age;
use crate::workload::Workload;

/// A PeerAuthentication, compiled.
#[derive(Debug)]
pub(crate) struct PeerPolicy {
    /// `NAMESPACE/NAME`.
    pub(crate) key: Arc<str>,
    pub(crate) age: Age,
    /// `None`: it is for all workloads of its namespace, or of the mesh.
    pub(crate) selector: Option<Arc<Labels>>,
    /// `None`: as the wider policy says.
    pub(crate) mode: Option<Mtls>,
    /// By the workload's own port; `None`: as the policy's `mode`.
    pub(crate) ports: Box<[(u16, Option<Mtls>)]>,
}

/// The policies that a workload's mode is from, the narrowest first: the oldest each of workload, namespace and mesh.
pub(crate) fn chain<'a>(
    own: Option<&'a NamespaceSecurity>,
    root: Option<&'a NamespaceSecurity>,
    workload: &Workload,
) -> [Option<&'a Arc<PeerPolicy>>; 3] {
    let of = |security: Option<&'a NamespaceSecurity>| security.map_or(&[][..], |security| &security.peers);
    let selects = |policy: &&Arc<PeerPolicy>| {
        policy.selector.as_ref().is_some_and(|selector| is_subset(selector, &workload.labels))
    };
    let wide = |policy: &&Arc<PeerPolicy>| policy.selector.is_none();
    [of(own).iter().find(selects), of(own).iter().find(wide), of(root).iter().find(wide)]
}

/// The mode of a workload's port, and the policy that it is from. What a narrower policy leaves open, the next wider
/// one says.
pub(crate) fn effective<'a>(
    own: Option<&'a NamespaceSecurity>,
    root: Option<&'a NamespaceSecurity>,
    workload: &Workload,
    port: u16,
) -> (Mtls, Option<&'a Arc<PeerPolicy>>) {
    let chain = chain(own, root, workload);
    let of_port = chain[0].and_then(|policy| {
        let (_, mode) = policy.ports.iter().find(|(number, _)| *number == port)?;
        mode.map(|mode| (mode, policy))
    });
    let decided = chain.into_iter().flatten().find_map(|policy| policy.mode.map(|mode| (mode, policy)));
    match of_port.or(decided) {
        Some((mode, policy)) => (mode, Some(policy)),
        None => (Mtls::Permissive, None),
    }
}
