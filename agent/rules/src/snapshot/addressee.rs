//! Whom an HTTP request is for. Its Host decides, among what the mesh knows on the port that was dialled, as in a sidecar; a
//! Host that nobody knows leaves the service whose address was dialled.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::registry::host::Host;
use crate::registry::hostname::{self, HostBuffer, RequestHost};
use crate::registry::protocol::Protocol;
use crate::route::matching::{At, MatchedPath, RequestView};
use crate::route::virtual_service::HttpOutcome;
use crate::route::virtual_service::RuleList;
use crate::snapshot::owner::{Owner, may_take};
use crate::snapshot::{HttpDecision, Snapshot, matched};
use crate::workload::Workload;

/// What a request's Host names.
#[derive(Debug)]
pub(crate) struct Addressee<'a> {
    /// The service that it names, with the port that was dialled.
    pub(crate) service: Option<&'a Arc<Host>>,
    /// The name that rules know it by.
    pub(crate) name: &'a str,
    /// The name of one of the service's pods, as it was written, where it names one.
    pod: Option<&'a str>,
}

impl<'a> Addressee<'a> {
    fn service(entry: &'a Arc<Host>) -> Self {
        Self { service: Some(entry), name: &entry.service.host, pod: None }
    }
}

impl Snapshot {
    /// Decides where a request goes.
    pub(crate) fn find_http(
        &self,
        caller: &Workload,
        dst: SocketAddr,
        request: RequestView<'_>,
    ) -> HttpDecision {
        let mut lower = HostBuffer::new();
        let addressee = self.addressee(caller, dst, request.authority, &mut lower);
        addressee
            .and_then(|addressee| self.decide(caller, dst.port(), &addressee, &request))
            .unwrap_or_else(|| self.for_nobody(caller, dst, &request))
    }

    /// What a Host (or `:authority`) names to this caller; `None`: nothing that rules could be for.
    pub(crate) fn addressee<'a>(
        &'a self,
        caller: &Workload,
        dst: SocketAddr,
        authority: &'a str,
        lower: &'a mut HostBuffer,
    ) -> Option<Addressee<'a>> {
        let port = dst.port();
        // A sniffed port has a listener of its own for each service: the address decides, whatever the Host.
        let is_sniffed =
            |entry: &&Arc<Host>| entry.port(port).is_some_and(|port| port.protocol == Protocol::Detect);
        if let Some(entry) = self.registry.host_at(caller, dst).filter(is_sniffed) {
            return Some(Addressee::service(entry));
        }
        if !self.registry.http_ports.contains(port) {
            return None;
        }
        match hostname::normalize(authority, lower) {
            RequestHost::Nothing => None,
            RequestHost::Address(address) => self
                .registry
                .host_at(caller, (address, port).into())
                .filter(|entry| entry.serves_http(port))
                .map(Addressee::service),
            RequestHost::Name(name) => Some(self.named(caller, dst, name)),
        }
    }

    /// Finds the service that a normalised name means.
    fn named<'a>(&'a self, caller: &Workload, dst: SocketAddr, name: &'a str) -> Addressee<'a> {
        // What is a service's short name is not looked for literally: `reviews.default` in a rule names nobody.
        if let Some(entry) = self.service_named(caller, dst.port(), name) {
            return Addressee::service(entry);
        }
        match self.service_of_pod(caller, dst, name) {
            Some(entry) => Addressee { pod: Some(name), ..Addressee::service(entry) },
            None => Addressee { service: None, name, pod: None },
        }
    }

    /// The visible service of this name, in full or short, that speaks HTTP on this port.
    fn service_named(&self, caller: &Workload, port: u16, name: &str) -> Option<&Arc<Host>> {
        let visible = |name: &str| {
            self.registry
                .host(name)
                .filter(|entry| entry.serves_http(port) && entry.scope.admits(&caller.namespace))
        };
        let mut full = HostBuffer::new();
        visible(name).or_else(|| {
            visible(hostname::expand(name, &caller.namespace, &self.mesh.cluster_domain, &mut full)?)
        })
    }

    /// The headless service whose pod is called `name`, `POD.SERVICE[.NAMESPACE[.svc[.DOMAIN]]]`. Only where an endpoint of it
    /// was dialled: it is that one that is meant, and another could not answer for it.
    fn service_of_pod(&self, caller: &Workload, dst: SocketAddr, name: &str) -> Option<&Arc<Host>> {
        let owners = self.registry.owners.get(&dst.ip().to_canonical())?;
        let (_, service) = name.split_once('.')?;
        let entry = self.service_named(caller, dst.port(), service)?;
        (entry.address.is_none() && owners.contains(&entry.service.host)).then_some(entry)
    }

    /// What the Host's rules say, or the service's default; `None`: there is neither.
    fn decide(
        &self,
        caller: &Workload,
        port: u16,
        addressee: &Addressee<'_>,
        request: &RequestView<'_>,
    ) -> Option<HttpDecision> {
        let owner = self.owner(addressee.name);
        for rules in self.rules_of(addressee) {
            if let Some(decision) = decide_by_rules(caller, port, rules, owner, request) {
                return Some(decision);
            }
        }
        let entry = addressee.service?;
        Some(matched(&entry.default_route, MatchedPath::Prefix(1), request))
    }

    /// All rules that name an addressee, in the order in which they are asked.
    pub(crate) fn rules_of<'a>(&'a self, addressee: &Addressee<'a>) -> impl Iterator<Item = &'a RuleList> {
        let of_pod = addressee.pod.map(|pod| self.rules_of_pod(pod, addressee.name));
        of_pod.into_iter().flatten().flatten().chain(self.rules_for(addressee.name))
    }

    /// Rules for a pod of a headless service alone, by its name as written or in full, and for all pods of that service.
    fn rules_of_pod(&self, pod: &str, service: &str) -> [Option<&RuleList>; 3] {
        let mut buffer = HostBuffer::new();
        let full = pod.split_once('.').and_then(|(label, _)| hostname::join(label, service, &mut buffer));
        let in_full = full.filter(|full| *full != pod).and_then(|full| self.exact_rules.get(full));
        [self.exact_rules.get(pod), in_full, self.wildcard_rules.get(service)]
    }

    /// The rules that name this host: exactly, then by ever shorter wildcards.
    pub(crate) fn rules_for(&self, name: &str) -> impl Iterator<Item = &RuleList> {
        let wildcards = (!self.wildcard_rules.is_empty())
            .then(|| hostname::suffixes(name).filter_map(|suffix| self.wildcard_rules.get(suffix)));
        self.exact_rules.get(name).into_iter().chain(wildcards.into_iter().flatten())
    }

    fn for_nobody(&self, caller: &Workload, dst: SocketAddr, request: &RequestView<'_>) -> HttpDecision {
        if self.mesh.registry_only {
            return HttpDecision::BlackHole;
        }
        match self.stands_in(caller, dst) {
            Some(entry) => matched(&entry.default_route, MatchedPath::Prefix(1), request),
            None => HttpDecision::Passthrough,
        }
    }

    /// The service that gets requests whose Host nobody knows: the one that was dialled. Its VirtualServices are for requests
    /// that name it.
    pub(crate) fn stands_in(&self, caller: &Workload, dst: SocketAddr) -> Option<&Arc<Host>> {
        self.registry
            .host_at(caller, dst)
            .filter(|entry| !self.mesh.registry_only && entry.serves_http(dst.port()))
    }
}

/// The oldest visible rule with routes for this caller decides, of those that may. `None`: there is none.
fn decide_by_rules(
    caller: &Workload,
    port: u16,
    rules: &RuleList,
    owner: Option<Owner<'_>>,
    request: &RequestView<'_>,
) -> Option<HttpDecision> {
    let mut visible = rules.iter().filter(|rules| may_take(rules, caller, owner));
    visible.find_map(|rules| match rules.route_http(caller, port, At::Mesh, request) {
        HttpOutcome::Matched(route, path) => Some(matched(route, path, request)),
        HttpOutcome::NoMatch => Some(HttpDecision::NoRoute),
        HttpOutcome::Invisible => None,
    })
}
