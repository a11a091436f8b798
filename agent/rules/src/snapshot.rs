//! The whole of the rules at one moment: immutable, shared by all workers, swapped whole. Parts that did not
//! change are shared with the snapshot before.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::request::Parts;
use weft_api::mesh_config::Normalization;

use crate::guard::namespace::NamespaceSecurity;
use crate::guard::{Entrance, Guard};
use crate::mesh::MeshSettings;
use crate::pattern;
use crate::registry::Registry;
use crate::registry::host::Host;
use crate::registry::protocol::Protocol;
use crate::route::gateway::GatewayPods;
use crate::route::http_route::{Destination, DirectResponse, HttpAction, HttpRoute, MatchedHttpRoute};
use crate::route::matching::{At, MatchedPath, RequestView};
use crate::route::tcp_route::{L4Rule, L4Rules, TcpDecision};
use crate::route::virtual_service::{RuleList, Rules};
use crate::shard::{Map, Sharded};
use crate::upstream::cluster::{Cluster, Service};
use crate::workload::{Enrolment, Workload};

mod addressee;
mod gateway;
mod owner;
pub mod reach;

use owner::may_take;

/// Everything that routing reads.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Increases by one with each publication.
    pub generation: u64,
    /// This node.
    pub(crate) node: Arc<str>,
    pub(crate) mesh: Arc<MeshSettings>,
    pub(crate) registry: Registry,
    /// VirtualServices on the mesh by exact host, oldest first.
    pub(crate) exact_rules: Sharded<Arc<str>, RuleList>,
    /// VirtualServices on the mesh by what follows `*.`, oldest first.
    pub(crate) wildcard_rules: Arc<Map<Arc<str>, RuleList>>,
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
            registry: Registry::default(),
            exact_rules: Sharded::default(),
            wildcard_rules: Arc::default(),
            root_namespace: "".into(),
            security: Sharded::default(),
            entrances: Sharded::default(),
            gateways: Arc::default(),
            closed: Arc::new(Guard::closed()),
        }
    }
}

/// What a captured connection is for.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// How to read it.
    pub protocol: Protocol,
    /// The service that owns the address, where one does.
    pub service: Option<Arc<Service>>,
    /// It is to be read until it says which server it is for: its port is declared to speak TLS, and there are rules by that
    /// name for this caller.
    pub reads_server_name: bool,
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum HttpDecision {
    /// A route of a VirtualService, or the default route of a service.
    Route(MatchedHttpRoute),
    /// The host has rules and none matches: 404, flag `NR`.
    NoRoute,
    /// Another server of the gateway's port has the host: 421 (RFC 9110, 15.5.20).
    Misdirected,
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

impl Snapshot {
    /// The workload that has this address. Pods on the host's network share theirs, and have none here.
    pub fn workload_at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.registry.addresses.get(&address)
    }

    /// Whether a service has this address: its own, or, of a headless one, an endpoint's.
    pub fn is_service_address(&self, address: IpAddr) -> bool {
        self.registry.owners.get(&address).is_some()
    }

    /// This node's name.
    pub fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// The workload of this `namespace/name`.
    pub fn workload(&self, key: &str) -> Option<&Arc<Workload>> {
        self.registry.workloads.get(key)
    }

    /// All workloads known, in no particular order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.registry.workloads.iter().map(|(_, workload)| workload)
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
        if let Some(entry) = self.registry.host_at(caller, dst)
            && let Some(port) = entry.port(dst.port())
        {
            let by_name = port.is_tls && !matches!(self.tls_rule(caller, entry, dst, None), L4Rules::None);
            return Outbound {
                protocol: port.protocol,
                service: Some(entry.service.clone()),
                reads_server_name: by_name,
            };
        }
        // On a port that services speak HTTP on, a Host may name one of them; a pod of the mesh must not get headers that
        // nobody has read; for all others bytes are bytes.
        let is_read = self.registry.http_ports.contains(dst.port())
            || self
                .workload_at(dst.ip().to_canonical())
                .is_some_and(|to| to.enrolment == Enrolment::Enrolled);
        let protocol = if is_read { Protocol::Detect } else { Protocol::Tcp };
        Outbound { protocol, service: None, reads_server_name: false }
    }

    /// Decides where a request goes. `dst` is the address that was dialled. Allocates nothing unless the host has
    /// capital letters beyond a small buffer's room; takes no lock.
    pub fn route_http(&self, caller: &Workload, dst: SocketAddr, request: &Parts) -> HttpDecision {
        let request = RequestView::of(request);
        pattern::bounded(|| self.find_http(caller, dst, request)).unwrap_or_else(too_much_work)
    }

    /// Decides where a TCP connection goes. `server_name` is what its first bytes say of that, where
    /// [`Outbound::reads_server_name`] asks for it: a DNS name in lower case. `seed` is fresh randomness.
    pub fn route_tcp(
        &self,
        caller: &Workload,
        dst: SocketAddr,
        server_name: Option<&str>,
        seed: u64,
    ) -> TcpDecision {
        let Some(entry) = self.registry.host_at(caller, dst) else {
            return if self.mesh.registry_only { TcpDecision::BlackHole } else { TcpDecision::Passthrough };
        };
        self.l4_rules(caller, entry, dst, server_name).decision(seed).unwrap_or_else(|| {
            let host = entry.service.host.clone();
            let destination = Destination { host, subset: None, port: None };
            TcpDecision::Forward { destination, virtual_service: None }
        })
    }

    /// The rule that takes a connection to a host: of a port that is declared to speak TLS one by the server name, of HTTP none.
    pub(crate) fn l4_rules(
        &self,
        caller: &Workload,
        host: &Host,
        dst: SocketAddr,
        server_name: Option<&str>,
    ) -> L4Rules<'_> {
        match host.port(dst.port()) {
            Some(port) if port.is_tls => self.tls_rule(caller, host, dst, server_name),
            Some(port) if !matches!(port.protocol, Protocol::Http | Protocol::Http2) => {
                self.tcp_rule(caller, host, dst)
            }
            Some(_) | None => L4Rules::None,
        }
    }

    /// The `tls` rule that takes a connection.
    fn tls_rule(&self, caller: &Workload, host: &Host, dst: SocketAddr, name: Option<&str>) -> L4Rules<'_> {
        L4Rules::by_name(
            self.visible_rules(caller, &host.service.host),
            |source| source.admits(caller, dst.port(), At::Mesh),
            |entry| entry.fits(name).filter(|_| entry.contains(dst.ip())),
        )
    }

    /// The first `tcp` rule that takes a connection.
    fn tcp_rule(&self, caller: &Workload, host: &Host, dst: SocketAddr) -> L4Rules<'_> {
        let found = self.visible_rules(caller, &host.service.host).find_map(|rules| {
            let index = rules.route_tcp(caller, dst.ip(), dst.port())?;
            Some(L4Rule { rules, place: ("tcp", index), route: &rules.tcp[index].route })
        });
        found.map_or(L4Rules::None, L4Rules::Matched)
    }

    /// The VirtualServices that may say where a caller's connections to a service go, in the order in which they are asked.
    pub(crate) fn visible_rules<'a, 'b>(
        &'a self,
        caller: &'b Workload,
        host: &'b str,
    ) -> impl Iterator<Item = &'a Arc<Rules>> + use<'a, 'b>
    where
        'a: 'b,
    {
        let owner = self.owner(host);
        self.rules_for(host).flat_map(|list| list.iter()).filter(move |rules| may_take(rules, caller, owner))
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
            self.registry.host(host).filter(|entry| entry.scope.admits(&caller.namespace)).ok_or_else(
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
