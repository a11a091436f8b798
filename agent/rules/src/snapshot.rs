//! The whole of the rules at one moment: immutable, shared by all workers, swapped whole. Parts that did not
//! change are shared with the snapshot before.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::request::Parts;
use weft_api::mesh_config::Normalization;

use crate::cluster::{Cluster, Service};
use crate::gateway::GatewayPods;
use crate::guard::{Entrance, Guard};
use crate::http_route::{Destination, DirectResponse, HttpAction, HttpRoute, MatchedHttpRoute};
use crate::matching::{MatchedPath, RequestView};
use crate::mesh::MeshSettings;
use crate::pattern;
use crate::port_index::PortIndex;
use crate::security::NamespaceSecurity;
use crate::service_entry::ServiceEntry;
use crate::shard::{Map, Sharded};
use crate::tcp_route::TcpDecision;
use crate::virtual_service::Rules;
use crate::workload::{Enrolment, Workload};

/// Everything that routing reads.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Increases by one with each publication.
    pub generation: u64,
    /// This node.
    pub(crate) node: Arc<str>,
    pub(crate) mesh: Arc<MeshSettings>,
    /// By full name.
    pub(crate) services: Sharded<Arc<str>, Arc<ServiceEntry>>,
    /// Services by their addresses: a ClusterIP, or the endpoints of a headless one.
    pub(crate) vips: Sharded<IpAddr, Arc<[Arc<str>]>>,
    /// VirtualServices on the mesh by exact host, oldest first.
    pub(crate) exact_rules: Sharded<Arc<str>, RuleList>,
    /// VirtualServices on the mesh by what follows `*.`, oldest first.
    pub(crate) wildcard_rules: Arc<Map<Arc<str>, RuleList>>,
    /// Ports on which some service speaks, or may speak, HTTP.
    pub(crate) http_ports: Arc<PortIndex>,
    pub(crate) workloads: Sharded<Arc<str>, Arc<Workload>>,
    pub(crate) addresses: Sharded<IpAddr, Arc<Workload>>,
    /// The namespace whose security policies are the mesh's.
    pub(crate) root_namespace: Arc<str>,
    /// Security policies by their namespace.
    pub(crate) security: Sharded<Arc<str>, Arc<NamespaceSecurity>>,
    /// The workloads of this node.
    pub(crate) entrances: Sharded<Arc<str>, Arc<Entrance>>,
    /// What the gateway pods of this node serve.
    pub(crate) gateways: Arc<GatewayPods>,
    /// For workloads that are not among these.
    pub(crate) closed: Arc<Guard>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            generation: 0,
            node: "".into(),
            mesh: Arc::default(),
            services: Sharded::default(),
            vips: Sharded::default(),
            exact_rules: Sharded::default(),
            wildcard_rules: Arc::default(),
            http_ports: Arc::default(),
            workloads: Sharded::default(),
            addresses: Sharded::default(),
            root_namespace: "".into(),
            security: Sharded::default(),
            entrances: Sharded::default(),
            gateways: Arc::default(),
            closed: Arc::new(Guard::closed()),
        }
    }
}

/// VirtualServices of one host, oldest first.
pub(crate) type RuleList = Arc<[Arc<Rules>]>;

/// What a service port speaks, by declaration (`appProtocol`, then the port's name).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1 or h2c from the client; HTTP/1.1 to the endpoint.
    Http,
    /// HTTP (either version) from the client; HTTP/2 with prior knowledge to the endpoint. `http2`, `grpc`, `grpc-web`, `h2c`.
    Http2,
    /// Bytes. `tcp`, `tls`, `https`, `mongo`, `mysql`, `redis`, …
    Tcp,
    /// Undeclared: what the first bytes show; the endpoint is spoken to in the client's version.
    Detect,
}

/// What a captured connection is for.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// How to read it.
    pub protocol: Protocol,
    /// The service that owns the address, where one does.
    pub service: Option<Arc<Service>>,
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum HttpDecision {
    /// A route of a VirtualService, or the default route of a service.
    Route(MatchedHttpRoute),
    /// The host has rules and none matches: 404, flag `NR`.
    NoRoute,
    /// Nobody knows the host, and no service that the caller sees has the address: there, as it is (ALLOW_ANY,
    /// `PassthroughCluster`).
    Passthrough,
    /// Nobody knows the host: 502, `BlackHoleCluster` (REGISTRY_ONLY).
    BlackHole,
}

/// Why a destination leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unroutable {
    /// No such service is visible: 503, flag `NC`.
    #[error("no service {host} is visible from namespace {namespace}")]
    UnknownHost {
        /// The host asked for.
        host: Arc<str>,
        /// The caller's namespace.
        namespace: Arc<str>,
    },
    /// No DestinationRule defines the subset: 503, flag `NC`.
    #[error("no DestinationRule visible from namespace {namespace} defines subset {subset} of {host}")]
    UnknownSubset {
        /// The host asked for.
        host: Arc<str>,
        /// The subset asked for.
        subset: Arc<str>,
        /// The caller's namespace.
        namespace: Arc<str>,
    },
    /// The service lacks the port: 503, flag `NC`.
    #[error("service {host} has no port {port}")]
    UnknownPort {
        /// The host asked for.
        host: Arc<str>,
        /// The port asked for.
        port: u16,
    },
}

/// How many `ExternalName` services may follow one another.
const ALIAS_HOPS: usize = 4;

impl Snapshot {
    /// The workload that has this address. Pods on the host's network share theirs, and have none here.
    pub fn workload_at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.addresses.get(&address)
    }

    /// Whether a service has this address: its own, or, of a headless one, an endpoint's.
    pub fn is_service_address(&self, address: IpAddr) -> bool {
        self.vips.get(&address).is_some()
    }

    /// This node's name.
    pub fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// The workload of this `namespace/name`.
    pub fn workload(&self, key: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(key)
    }

    /// All workloads known, in no particular order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.iter().map(|(_, workload)| workload)
    }

    /// The mesh's own trust domain, then those that count as it (MeshConfig's `trustDomainAliases`).
    pub fn trust_domains(&self) -> &[Arc<str>] {
        &self.mesh.trust_domains
    }

    /// The form that paths take before any rule sees them (MeshConfig's `pathNormalization`).
    pub fn path_normalization(&self) -> Normalization {
        self.mesh.paths
    }

    /// Classifies a captured connection by the address that was dialled.
    pub fn outbound(&self, caller: &Workload, dst: SocketAddr) -> Outbound {
        if let Some(entry) = self.service_at(caller, dst)
            && let Some(port) = entry.port(dst.port())
        {
            return Outbound { protocol: port.protocol, service: Some(entry.service.clone()) };
        }
        // On a port that services speak HTTP on, a Host may name one of them; a pod of the mesh must not get headers that
        // nobody has read; for all others bytes are bytes.
        let is_read = self.http_ports.contains(dst.port())
            || self
                .workload_at(dst.ip().to_canonical())
                .is_some_and(|to| to.enrolment == Enrolment::Enrolled);
        let protocol = if is_read { Protocol::Detect } else { Protocol::Tcp };
        Outbound { protocol, service: None }
    }

    /// The visible service that has this address and port.
    pub(crate) fn service_at(&self, caller: &Workload, dst: SocketAddr) -> Option<&Arc<ServiceEntry>> {
        let owners = self.vips.get(&dst.ip().to_canonical())?;
        owners.iter().find_map(|host| {
            let entry = self.services.get(host)?;
            (entry.port(dst.port()).is_some() && entry.visibility.admits(&caller.namespace)).then_some(entry)
        })
    }

    /// The visible service that has this address, whatever its ports.
    pub(crate) fn service_at_any_port(
        &self,
        caller: &Workload,
        address: IpAddr,
    ) -> Option<&Arc<ServiceEntry>> {
        let owners = self.vips.get(&address.to_canonical())?;
        let mut entries = owners.iter().filter_map(|host| self.services.get(host));
        entries.find(|entry| entry.visibility.admits(&caller.namespace))
    }

    /// Decides where a request goes. `dst` is the address that was dialled. Allocates nothing unless the host has
    /// capital letters beyond a small buffer's room; takes no lock.
    pub fn route_http(&self, caller: &Workload, dst: SocketAddr, request: &Parts) -> HttpDecision {
        let request = RequestView::of(request);
        pattern::bounded(|| self.find_http(caller, dst, request)).unwrap_or_else(too_much_work)
    }

    /// The service of this full name; an `ExternalName` one is the one it names.
    pub(crate) fn service(&self, host: &str) -> Option<&Arc<ServiceEntry>> {
        let mut entry = self.services.get(host)?;
        for _ in 0..ALIAS_HOPS {
            match &entry.alias_of {
                None => return Some(entry),
                Some(target) => entry = self.services.get(target)?,
            }
        }
        None
    }

    /// Decides where a TCP connection goes. `seed` is fresh randomness.
    pub fn route_tcp(&self, caller: &Workload, dst: SocketAddr, seed: u64) -> TcpDecision {
        let Some(entry) = self.service_at(caller, dst) else {
            return if self.mesh.registry_only { TcpDecision::BlackHole } else { TcpDecision::Passthrough };
        };
        if let Some((rules, index)) = self.tcp_rules_for(caller, dst) {
            return match rules.tcp[index].pick(seed) {
                Some(destination) => TcpDecision::Forward {
                    destination: destination.clone(),
                    virtual_service: Some(rules.key.clone()),
                },
                None => TcpDecision::NoRoute,
            };
        }
        let host = entry.service.host.clone();
        let destination = Destination { host, subset: None, port: None };
        TcpDecision::Forward { destination, virtual_service: None }
    }

    /// The VirtualService whose `tcp` route takes a connection, and which of them.
    pub(crate) fn tcp_rules_for(&self, caller: &Workload, dst: SocketAddr) -> Option<(&Arc<Rules>, usize)> {
        let entry = self.service_at(caller, dst)?;
        let port = entry.port(dst.port())?;
        // A port that is declared to speak HTTP has no `tcp` rules.
        if matches!(port.protocol, Protocol::Http | Protocol::Http2) {
            return None;
        }
        let owner = self.owner(&entry.service.host);
        let all = self.rules_for(&entry.service.host).flat_map(|list| list.iter());
        all.filter(|rules| rules.visibility.admits(&caller.namespace))
            .filter(|rules| owner.is_none_or(|owner| owner.lets(rules)))
            .find_map(|rules| Some((rules, rules.route_tcp(caller, dst.ip(), dst.port())?)))
    }

    /// Resolves a destination for this caller. `addressed` is the port that the caller dialled: it counts where
    /// the destination names none, even if the service has but one (as in Istio's sidecars; its gateways differ).
    pub fn cluster(
        &self,
        caller: &Workload,
        destination: &Destination,
        addressed: u16,
    ) -> Result<Arc<Cluster>, Unroutable> {
        let host = &destination.host;
        let entry =
            self.service(host).filter(|entry| entry.visibility.admits(&caller.namespace)).ok_or_else(
                || Unroutable::UnknownHost { host: host.clone(), namespace: caller.namespace.clone() },
            )?;
        let port = destination.port.unwrap_or(addressed);
        let clusters = entry
            .clusters(caller)
            .port(port)
            .ok_or_else(|| Unroutable::UnknownPort { host: host.clone(), port })?;
        match &destination.subset {
            None => Ok(clusters.whole.clone()),
            Some(subset) => clusters.subset(subset).cloned().ok_or_else(|| Unroutable::UnknownSubset {
                host: host.clone(),
                subset: subset.clone(),
                namespace: caller.namespace.clone(),
            }),
        }
    }
}

pub(crate) fn matched(route: &Arc<HttpRoute>, path: MatchedPath, request: &RequestView<'_>) -> HttpDecision {
    if route.rewrite.as_ref().is_some_and(|rewrite| rewrite.is_too_much(request.path.len())) {
        return too_much_work();
    }
    HttpDecision::Route(MatchedHttpRoute { route: route.clone(), matched_prefix: path.prefix(request.path) })
}

/// What becomes of a request on which the regular expressions of the rules would work for too long: none of the routes, for
/// nobody can know which.
pub(crate) fn too_much_work() -> HttpDecision {
    let body =
        "weft: matching this request against the regular expressions of its routes takes too much work";
    let route = HttpRoute {
        action: HttpAction::Respond(DirectResponse {
            status: http::StatusCode::INTERNAL_SERVER_ERROR,
            body: bytes::Bytes::from_static(body.as_bytes()),
        }),
        ..HttpRoute::default_for("".into(), "regex_work_exceeded".into(), None)
    };
    HttpDecision::Route(MatchedHttpRoute { route: Arc::new(route), matched_prefix: None })
}
