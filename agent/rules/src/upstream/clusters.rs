//! All clusters of a host, by caller.

use std::sync::Arc;

use weft_api::meta::Labels;

use crate::shard::Map;
use crate::upstream::cluster::Cluster;

/// The clusters by caller: DestinationRules are looked up in the caller's namespace first.
#[derive(Debug)]
pub(crate) struct Policies {
    /// Callers of these namespaces have rules of their own.
    pub(crate) by_namespace: Option<Box<Map<Arc<str>, CallerPolicy>>>,
    /// Everybody else.
    pub(crate) others: Arc<Clusters>,
}

/// The clusters for callers of one namespace.
#[derive(Debug, Clone)]
pub(crate) struct CallerPolicy {
    /// For callers with these labels, the first that fits.
    pub(crate) selected: Arc<[(Arc<Labels>, Arc<Clusters>)]>,
    pub(crate) others: Arc<Clusters>,
}

/// All clusters of a service under one policy.
#[derive(Debug)]
pub(crate) struct Clusters {
    /// `namespace/name` of the DestinationRules in force.
    pub(crate) rules: Box<[Arc<str>]>,
    pub(crate) ports: Box<[PortClusters]>,
}

/// The clusters of one port.
#[derive(Debug)]
pub(crate) struct PortClusters {
    pub(crate) port: u16,
    pub(crate) whole: Arc<Cluster>,
    pub(crate) subsets: Box<[Arc<Cluster>]>,
}

impl Policies {
    /// Every set of clusters, some of them more than once.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Clusters>> {
        let of_namespaces = self.by_namespace.iter().flat_map(|map| map.values()).flat_map(|policy| {
            policy.selected.iter().map(|(_, clusters)| clusters).chain(std::iter::once(&policy.others))
        });
        std::iter::once(&self.others).chain(of_namespaces)
    }
}

impl Clusters {
    pub(crate) fn port(&self, port: u16) -> Option<&PortClusters> {
        self.ports.iter().find(|clusters| clusters.port == port)
    }
}

impl PortClusters {
    pub(crate) fn subset(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.subsets.iter().find(|cluster| cluster.subset.as_deref() == Some(name))
    }
}
