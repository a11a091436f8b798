//! What gateway pods do with a request.

use std::sync::Arc;

use http::request::Parts;
use weft_api::istio::Termination;

use crate::pattern;
use crate::route::gateway::{GatewayPlace, GatewayPort};
use crate::route::http_route::Destination;
use crate::route::matching::{MatchedPath, RequestView};
use crate::route::tcp_route::TcpDecision;
use crate::snapshot::{HttpDecision, Snapshot, Unroutable, matched, too_much_work};
use crate::upstream::cluster::Cluster;
use crate::workload::Workload;

impl Snapshot {
    /// What a pod of this node serves as a gateway on one of its ports; `None`: nothing.
    pub fn gateway_port(&self, pod: &str, port: u16) -> Option<&GatewayPort> {
        self.gateways.get(pod)?.iter().find(|served| served.pod_port == port)
    }

    /// How this node's gateways end TLS; some more than once.
    pub fn terminations(&self) -> impl Iterator<Item = &Arc<Termination>> {
        self.gateways.values().flat_map(|ports| ports.iter()).flat_map(GatewayPort::terminations)
    }

    /// Decides where a request goes that came to a gateway pod. `gateway` is the pod itself, for whose labels and namespace
    /// the rules are.
    pub fn route_at_gateway(
        &self,
        gateway: &Workload,
        place: &GatewayPlace<'_>,
        request: &Parts,
    ) -> HttpDecision {
        let request = RequestView::of(request);
        let Some(served) = place.served() else { return HttpDecision::Misdirected };
        if place.is_misdirected(request.authority) {
            return HttpDecision::Misdirected;
        }
        let Some(virtual_host) = served.hosts().and_then(|hosts| hosts.find(request.authority)) else {
            return HttpDecision::NoRoute;
        };
        if let Some(redirect) = &virtual_host.redirect {
            return matched(redirect, MatchedPath::Prefix(1), &request);
        }
        match pattern::bounded(|| virtual_host.first_route(gateway, served, &request)) {
            Some(Some((_, route, path))) => matched(route, path, &request),
            Some(None) => HttpDecision::NoRoute,
            None => too_much_work(),
        }
    }

    /// Decides where a connection of bytes goes that came to a gateway pod. `server_name` is what its first bytes say, where
    /// that is read: a DNS name in lower case. `seed` is fresh randomness.
    pub fn route_tcp_at_gateway(
        &self,
        gateway: &Workload,
        served: &GatewayPort,
        server_name: Option<&str>,
        seed: u64,
    ) -> TcpDecision {
        served.l4_rules(gateway, server_name).decision(seed).unwrap_or(TcpDecision::NoRoute)
    }

    /// As [`Snapshot::cluster`], for what came to a gateway: where the destination names no port, a service's only one is
    /// meant, else that of the gateway's server.
    pub fn cluster_at_gateway(
        &self,
        gateway: &Workload,
        served: &GatewayPort,
        destination: &Destination,
    ) -> Result<Arc<Cluster>, Unroutable> {
        self.cluster(gateway, destination, self.port_at_gateway(served, destination))
    }

    /// The port of a destination that names none, at a gateway.
    pub(crate) fn port_at_gateway(&self, served: &GatewayPort, destination: &Destination) -> u16 {
        match self.registry.host(&destination.host).map(|entry| &*entry.ports) {
            Some([only]) => only.port,
            _ => served.server_port,
        }
    }
}
