//! One service with its endpoints and policies, compiled.

use std::net::IpAddr;
use std::sync::Arc;

use crate::compile::policy::{self, PolicyRecord};
use crate::intern::Interner;
use crate::registry::endpoints;
use crate::registry::host::Host;
use crate::registry::hostname;
use crate::registry::pods::Pods;
use crate::registry::scope::Scope;
use crate::registry::services::{Addressing, ServiceRecord, Services};
use crate::route::http_route::HttpRoute;
use crate::shard::Map;
use crate::snapshot::Snapshot;

/// DestinationRules by host, oldest first.
pub(super) type PolicyTable = Map<Arc<str>, Vec<Arc<PolicyRecord>>>;

/// What a service is compiled from.
pub(super) struct Parts<'a> {
    pub(super) record: &'a ServiceRecord,
    pub(super) root_namespace: &'a str,
    pub(super) services: &'a Services,
    pub(super) pods: &'a Pods,
    pub(super) exact_policies: &'a PolicyTable,
    pub(super) wildcard_policies: &'a PolicyTable,
    /// Settings, and workloads by address.
    pub(super) snapshot: &'a Snapshot,
    /// The service as it was: its state goes on.
    pub(super) old: Option<&'a Host>,
}

impl Parts<'_> {
    /// Compiles; the second value is the addresses that callers dial.
    pub(super) fn build(self, default_name: &Arc<str>, intern: &mut Interner) -> (Host, Vec<IpAddr>) {
        let record = self.record;
        let host = &record.service.host;
        let mesh = &self.snapshot.mesh;
        let endpoints =
            endpoints::resolve(record, self.services, self.pods, &self.snapshot.registry, self.old);
        let wildcards = hostname::suffixes(host).filter_map(|suffix| self.wildcard_policies.get(suffix));
        let policies = policy::Build {
            record,
            endpoints: &endpoints,
            mesh,
            root_namespace: self.root_namespace,
            candidates: self.exact_policies.get(host).into_iter().chain(wildcards).flatten().collect(),
            old: self.old,
        }
        .policies(intern);
        let own = &record.service.namespace;
        let route = HttpRoute::default_for(host.clone(), default_name.clone(), mesh.retry.clone());
        let (addresses, address, alias_of) = match &record.addressing {
            Addressing::Addressed(addresses) => (addresses.to_vec(), addresses.first().copied(), None),
            Addressing::Headless => (endpoints::addresses(&endpoints), None, None),
            Addressing::External(target) => (Vec::new(), None, Some(target.clone())),
        };
        let entry = Host {
            scope: Scope::compile(&record.export_to, &mesh.service_export_to, own, intern),
            ports: record.ports.iter().map(|port| port.entry.clone()).collect(),
            default_route: Arc::new(route),
            service: record.service.clone(),
            address,
            alias_of,
            policies,
        };
        (entry, addresses)
    }
}
