//! A host of the registry: its ports, who sees it, and its clusters for each kind of caller.

use std::net::IpAddr;
use std::sync::Arc;

use crate::registry::protocol::Protocol;
use crate::registry::scope::Scope;
use crate::route::http_route::HttpRoute;
use crate::route::matching::is_subset;
use crate::upstream::cluster::Service;
use crate::upstream::clusters::{Clusters, Policies};
use crate::workload::Workload;

/// A host: a Service, today.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) service: Arc<Service>,
    pub(crate) scope: Scope,
    pub(crate) ports: Box<[HostPort]>,
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
pub(crate) struct HostPort {
    pub(crate) port: u16,
    /// The port of nodes that leads there.
    pub(crate) node_port: Option<u16>,
    pub(crate) protocol: Protocol,
    /// It is bytes of TLS.
    pub(crate) is_tls: bool,
    pub(crate) name: Arc<str>,
}

impl Host {
    pub(crate) fn port(&self, port: u16) -> Option<&HostPort> {
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
