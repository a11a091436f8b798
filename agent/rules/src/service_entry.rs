//! A service as the snapshot holds it: ports, who sees it, and its clusters for each kind of caller.

use std::net::IpAddr;
use std::sync::Arc;

use weft_api::meta::Labels;

use crate::cluster::{Cluster, Service};
use crate::http_route::HttpRoute;
use crate::matching::is_subset;
use crate::shard::Map;
use crate::snapshot::Protocol;
use crate::visibility::Visibility;
use crate::workload::Workload;

/// A service, compiled.
#[derive(Debug)]
pub(crate) struct ServiceEntry {
    pub(crate) service: Arc<Service>,
    pub(crate) visibility: Visibility,
    pub(crate) ports: Box<[PortEntry]>,
    /// Its own address; `None` for a headless one and one without.
    pub(crate) address: Option<IpAddr>,
    /// `ExternalName`: another name for this host.
    pub(crate) alias_of: Option<Arc<str>>,
    /// Where a request goes that no rule sends elsewhere.
    pub(crate) default_route: Arc<HttpRoute>,
    pub(crate) policies: Policies,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortEntry {
    pub(crate) port: u16,
    /// The port of nodes that leads there.
    pub(crate) node_port: Option<u16>,
    pub(crate) protocol: Protocol,
    pub(crate) name: Arc<str>,
}

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

impl ServiceEntry {
    pub(crate) fn port(&self, port: u16) -> Option<&PortEntry> {
        self.ports.iter().find(|entry| entry.port == port)
    }

    /// What a resolver would say: its own address, or an endpoint's.
    pub(crate) fn first_address(&self) -> Option<IpAddr> {
        let mut ports = self.policies.others.ports.iter();
        self.address.or_else(|| ports.find_map(|port| Some(port.whole.endpoints.first()?.address.ip())))
    }

    /// The pod that DNS calls `label.SERVICE`, of a headless service, and the address it gives; `None`: it knows none.
    pub(crate) fn pod_called(&self, label: &str) -> Option<(&Arc<Workload>, IpAddr)> {
        let ports = (self.address.is_none()).then_some(&self.policies.others.ports)?;
        let mut endpoints = ports.iter().flat_map(|port| port.whole.endpoints.iter());
        endpoints.find_map(|endpoint| {
            let (pod, address) = (endpoint.workload.as_ref()?, endpoint.address.ip());
            let named = match &pod.dns_name {
                Some(name) => *name.hostname == *label && *name.subdomain == *self.service.name,
                None => address.to_string().replace(['.', ':'], "-") == label,
            };
            named.then_some((pod, address))
        })
    }

    /// Whether the service is in the host table of this port.
    pub(crate) fn serves_http(&self, port: u16) -> bool {
        self.port(port).is_some_and(|entry| entry.protocol != Protocol::Tcp)
    }

    pub(crate) fn clusters(&self, caller: &Workload) -> &Arc<Clusters> {
        let own = self.policies.by_namespace.as_ref().and_then(|map| map.get(&caller.namespace));
        let Some(own) = own else { return &self.policies.others };
        let selected = own.selected.iter().find(|(labels, _)| is_subset(labels, &caller.labels));
        selected.map_or(&own.others, |(_, clusters)| clusters)
    }
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
