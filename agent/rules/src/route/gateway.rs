//! What gateway pods serve: their ports, what is spoken there, and the VirtualServices bound to each.

use std::sync::Arc;

use crate::registry::hostname::{self, HostBuffer, HostPattern, RequestHost};
use crate::route::http_route::HttpRoute;
use crate::route::matching::{At, MatchedPath, RequestView};
use crate::route::tcp_route::{L4Rule, L4Rules};
use crate::route::virtual_service::{RuleList, Rules};
use crate::shard::Map;
use crate::workload::Workload;

/// What the gateway pods of this node serve, by `namespace/name`.
pub(crate) type GatewayPods = Map<Arc<str>, Arc<[GatewayPort]>>;

/// A port of a gateway pod.
#[derive(Debug)]
pub struct GatewayPort {
    /// The pod's own port.
    pub(crate) pod_port: u16,
    /// As the Gateways call it: the port of the Service.
    pub(crate) server_port: u16,
    /// The Gateways that have it, as `namespace/name`.
    pub(crate) gateways: Box<[Arc<str>]>,
    pub(crate) serves: Serves,
    /// Servers that wanted the port and do not have it; of many, the first ones.
    pub(crate) unserved: Vec<Unserved>,
}

/// A server of a Gateway whose port is another one's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unserved {
    /// `namespace/name`.
    pub(crate) gateway: Arc<str>,
    /// Its place in `servers`.
    pub(crate) server: usize,
    pub(crate) wants: Wanted,
    /// The Gateway whose the port is.
    pub(crate) holder: Arc<str>,
}

/// What a server wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// That a port is read so, which is read otherwise.
    Protocol(GatewayProtocol, GatewayProtocol),
    /// A port of the pod that is behind another port of its Service already.
    PodPort(u16, u16),
}

impl std::fmt::Display for Unserved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { gateway, server, wants, holder } = self;
        match wants {
            Wanted::Protocol(own, other) => write!(
                f,
                "servers[{server}] of Gateway {gateway} is not served: its port is read as {own}, and Gateway {holder} has it as \
                 {other} (give one of them another port)"
            ),
            Wanted::PodPort(port, other) => write!(
                f,
                "servers[{server}] of Gateway {gateway} is not served: the pod's port {port} serves port {other} of Gateway {holder} \
                 already (give the Service another targetPort)"
            ),
        }
    }
}

/// What comes to a port.
#[derive(Debug)]
pub(crate) enum Serves {
    /// Requests of plain HTTP.
    Http(VirtualHosts),
    /// Bytes: the first `tcp` rule takes them, of these VirtualServices, oldest first.
    Bytes(RuleList),
    /// TLS that the destination ends: a `tls` rule takes it by the server name.
    ServerNames(RuleList),
}

/// How what comes to a port is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayProtocol {
    /// As requests of HTTP.
    Http,
    /// Not at all.
    Bytes,
    /// Until it says which server it is for.
    ServerName,
}

/// What is done with requests, by their host.
#[derive(Debug, Default)]
pub(crate) struct VirtualHosts {
    pub(crate) exact: Map<Arc<str>, VirtualHost>,
    /// By what follows `*.`; empty for `*`.
    pub(crate) below: Map<Arc<str>, VirtualHost>,
}

/// What is done with the requests for one host.
#[derive(Debug, Default)]
pub(crate) struct VirtualHost {
    /// The VirtualServices that serve it, oldest first.
    pub(crate) rules: RuleList,
    /// The server asks for https.
    pub(crate) redirect: Option<Arc<HttpRoute>>,
}

impl VirtualHost {
    /// The first route that matches, of all VirtualServices that the gateway sees. Envoy has their routes in one list: those
    /// of the oldest first, and of all of them those last that match everything.
    pub(crate) fn first_route<'a>(
        &'a self,
        gateway: &Workload,
        served: &GatewayPort,
        request: &RequestView<'_>,
    ) -> Option<(&'a Arc<Rules>, &'a Arc<HttpRoute>, MatchedPath)> {
        let at = At::Gateways(&served.gateways);
        let first = |catch_alls: bool| {
            let mut visible = self.rules.iter().filter(|rules| rules.scope.admits(&gateway.namespace));
            visible.find_map(|rules| {
                let found = rules.route_at_gateway(gateway, served.server_port, at, request, catch_alls);
                found.map(|(route, path)| (rules, route, path))
            })
        };
        first(false).or_else(|| first(true))
    }
}

impl std::fmt::Display for GatewayProtocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Bytes => "TCP",
            Self::ServerName => "TLS",
        })
    }
}

impl GatewayPort {
    /// How it is read.
    pub fn protocol(&self) -> GatewayProtocol {
        match self.serves {
            Serves::Http(_) => GatewayProtocol::Http,
            Serves::Bytes(_) => GatewayProtocol::Bytes,
            Serves::ServerNames(_) => GatewayProtocol::ServerName,
        }
    }

    /// The hosts whose requests it serves.
    pub(crate) fn hosts(&self) -> Option<&VirtualHosts> {
        match &self.serves {
            Serves::Http(hosts) => Some(hosts),
            Serves::Bytes(_) | Serves::ServerNames(_) => None,
        }
    }

    /// The VirtualServices that it serves by; some more than once.
    pub(crate) fn rules(&self) -> Vec<&Arc<Rules>> {
        match &self.serves {
            Serves::Http(hosts) => {
                let hosts = hosts.exact.values().chain(hosts.below.values());
                hosts.flat_map(|host| host.rules.iter()).collect()
            }
            Serves::Bytes(rules) | Serves::ServerNames(rules) => rules.iter().collect(),
        }
    }

    /// The rule that takes a connection of bytes.
    pub(crate) fn l4_rules(&self, gateway: &Workload, server_name: Option<&str>) -> L4Rules<'_> {
        let at = At::Gateways(&self.gateways);
        let is_seen = |rules: &&Arc<Rules>| rules.scope.admits(&gateway.namespace);
        match &self.serves {
            Serves::Http(_) => L4Rules::None,
            Serves::Bytes(list) => {
                let found = list.iter().filter(is_seen).find_map(|rules| {
                    let index = rules.route_tcp_at_gateway(self.server_port, at)?;
                    Some(L4Rule { rules, place: ("tcp", index), route: &rules.tcp[index].route })
                });
                found.map_or(L4Rules::None, L4Rules::Matched)
            }
            Serves::ServerNames(list) => L4Rules::by_name(
                list.iter().filter(is_seen),
                |source| source.admits_at_gateway(self.server_port, at),
                |entry| entry.fits(server_name),
            ),
        }
    }
}

impl VirtualHosts {
    /// What is done for a host.
    pub(crate) fn entry(&mut self, pattern: &HostPattern) -> &mut VirtualHost {
        match pattern {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostPattern::Below(suffix) => self.below.entry(suffix.clone()).or_default(),
        }
    }

    /// The host with the most specific name for a request; Envoy looks no further when none of its routes matches.
    pub(crate) fn find(&self, authority: &str) -> Option<&VirtualHost> {
        let mut lower = HostBuffer::new();
        let name = match hostname::normalize(authority, &mut lower) {
            RequestHost::Name(name) => name,
            // Rules may name addresses, and `*` takes them too.
            RequestHost::Address(address) => {
                let name = address.to_string();
                return self.exact.get(&*name).or_else(|| self.below.get(""));
            }
            RequestHost::Nothing => return self.below.get(""),
        };
        self.exact.get(name).or_else(|| hostname::suffixes(name).find_map(|suffix| self.below.get(suffix)))
    }
}

/// The more specific of two patterns where one holds the other; `None`: nothing is in both.
pub(crate) fn common(a: &HostPattern, b: &HostPattern) -> Option<HostPattern> {
    let holds = |wide: &HostPattern, narrow: &HostPattern| match (wide, narrow) {
        (HostPattern::Exact(wide), HostPattern::Exact(narrow)) => wide == narrow,
        (HostPattern::Below(wide), HostPattern::Exact(narrow)) => hostname::is_below(narrow, wide),
        (HostPattern::Below(wide), HostPattern::Below(narrow)) => {
            wide == narrow || hostname::is_below(narrow, wide)
        }
        (HostPattern::Exact(_), HostPattern::Below(_)) => false,
    };
    if holds(a, b) { Some(b.clone()) } else { holds(b, a).then(|| a.clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrower_of_two_hosts_is_served() {
        for (a, b, both) in [
            ("*", "shop.example.com", Some("shop.example.com")),
            ("*.example.com", "shop.example.com", Some("shop.example.com")),
            ("*.example.com", "*", Some("*.example.com")),
            ("*.example.com", "*.shop.example.com", Some("*.shop.example.com")),
            ("shop.example.com", "shop.example.com", Some("shop.example.com")),
            ("*.example.com", "example.com", None),
            ("a.example.com", "b.example.com", None),
            ("a.example.com", "*.b.example.com", None),
        ] {
            let (a, b) = (HostPattern::parse(a), HostPattern::parse(b));
            let both = both.map(HostPattern::parse);
            assert_eq!(common(&a, &b), both, "{a} {b}");
            assert_eq!(common(&b, &a), both, "{b} {a}");
        }
    }
}
