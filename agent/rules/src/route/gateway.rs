//! What gateway pods serve: their ports, what is spoken there, and the VirtualServices bound to each.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use weft_api::istio::Termination;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// That a port is read so, which is read otherwise.
    Protocol(GatewayProtocol, GatewayProtocol),
    /// A port of the pod that is behind another port of its Service already.
    PodPort(u16, u16),
    /// A server name that leads to another server.
    Host(HostPattern),
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
            Wanted::Host(host) => write!(
                f,
                "servers[{server}] of Gateway {gateway} is not served: TLS for {host} at its port is Gateway {holder}'s already (name \
                 each host in one server of the port)"
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
    /// TLS, by the server name.
    Tls(TlsServers),
}

/// The servers of a port of TLS.
#[derive(Debug, Default)]
pub(crate) struct TlsServers {
    /// Which one has a server name.
    pub(crate) names: ByName<Behind>,
    /// Those that end TLS, each as the port that it would be without.
    pub(crate) ending: Vec<(Arc<Termination>, GatewayPort)>,
    /// VirtualServices whose `tls` rules take what the destination ends.
    pub(crate) passed: RuleList,
}

/// What is behind a server name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// A destination that ends TLS.
    Passed,
    /// One of the servers that do.
    Ending(usize),
}

/// What a gateway does with a connection of TLS.
#[derive(Debug, Clone)]
pub enum AtServerName {
    /// A `tls` rule takes it as it is.
    Passed,
    /// TLS ends here.
    Ends(Arc<Termination>),
    /// No server has the name.
    Nobody,
}

/// Where at a gateway's pod a connection is.
#[derive(Debug, Clone, Copy)]
pub struct GatewayPlace<'a> {
    /// The port that it came to.
    pub port: &'a GatewayPort,
    /// Of one whose TLS has ended here: the server name that it asked for, and how TLS ended.
    pub tls: Option<(Option<&'a str>, &'a Arc<Termination>)>,
}

impl<'a> GatewayPlace<'a> {
    /// What is served there; `None`: TLS ended by a server that there is no more, or that lets in other clients now.
    pub fn served(&self) -> Option<&'a GatewayPort> {
        match self.tls {
            None => Some(self.port),
            Some((name, termination)) => self.port.behind(name, termination),
        }
    }

    /// Whether a request for this host should have come by another server name: another server of the port has it.
    pub(crate) fn is_misdirected(&self, authority: &str) -> bool {
        self.tls.is_some_and(|(name, _)| self.port.is_misdirected(name, authority))
    }
}

/// Something for each of some hosts.
#[derive(Debug)]
pub(crate) struct ByName<T> {
    pub(crate) exact: Map<Arc<str>, T>,
    /// By what follows `*.`; empty for `*`.
    pub(crate) below: Map<Arc<str>, T>,
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
pub(crate) type VirtualHosts = ByName<VirtualHost>;

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
            Serves::Tls(_) => GatewayProtocol::ServerName,
        }
    }

    /// The hosts whose requests it serves.
    pub(crate) fn hosts(&self) -> Option<&VirtualHosts> {
        match &self.serves {
            Serves::Http(hosts) => Some(hosts),
            Serves::Bytes(_) | Serves::Tls(_) => None,
        }
    }

    /// What happens to a connection for a server name, of TLS.
    pub fn at_server_name(&self, name: Option<&str>) -> AtServerName {
        let Serves::Tls(servers) = &self.serves else { return AtServerName::Nobody };
        match servers.behind(name) {
            Some(Behind::Passed) => AtServerName::Passed,
            Some(Behind::Ending(server)) => AtServerName::Ends(servers.ending[server].0.clone()),
            None => AtServerName::Nobody,
        }
    }

    /// The port behind TLS that ended for this server name by `termination`; `None`: there is none any more, or other clients
    /// are let in.
    pub(crate) fn behind(&self, name: Option<&str>, termination: &Arc<Termination>) -> Option<&Self> {
        let Serves::Tls(servers) = &self.serves else { return None };
        let Some(Behind::Ending(server)) = servers.behind(name) else { return None };
        let (now, port) = &servers.ending[server];
        (Arc::ptr_eq(now, termination) || now.lets_in_as(termination)).then_some(port)
    }

    fn is_misdirected(&self, name: Option<&str>, authority: &str) -> bool {
        let Serves::Tls(servers) = &self.serves else { return false };
        let mut lower = HostBuffer::new();
        let RequestHost::Name(host) = hostname::normalize(authority, &mut lower) else { return false };
        let wanted = servers.behind(Some(host));
        wanted.is_some() && wanted != servers.behind(name)
    }

    /// How TLS ends at it.
    pub fn terminations(&self) -> impl Iterator<Item = &Arc<Termination>> {
        let ending = match &self.serves {
            Serves::Tls(servers) => &*servers.ending,
            Serves::Http(_) | Serves::Bytes(_) => &[],
        };
        ending.iter().map(|(termination, _)| termination)
    }

    /// The VirtualServices that it serves by; some more than once.
    pub(crate) fn rules(&self) -> Vec<&Arc<Rules>> {
        match &self.serves {
            Serves::Http(hosts) => {
                let hosts = hosts.exact.values().chain(hosts.below.values());
                hosts.flat_map(|host| host.rules.iter()).collect()
            }
            Serves::Bytes(rules) => rules.iter().collect(),
            Serves::Tls(servers) => {
                let behind = servers.ending.iter().flat_map(|(_, port)| port.rules());
                servers.passed.iter().chain(behind).collect()
            }
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
            Serves::Tls(servers) => L4Rules::by_name(
                servers.passed.iter().filter(is_seen),
                |source| source.admits_at_gateway(self.server_port, at),
                |entry| entry.fits(server_name),
            ),
        }
    }
}

impl TlsServers {
    /// What has the most specific name for what a client asks for; one that asks for nobody is for who serves every name.
    fn behind(&self, name: Option<&str>) -> Option<Behind> {
        match name {
            Some(name) => self.names.find_name(name),
            None => self.names.below.get(""),
        }
        .copied()
    }
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self { exact: Map::default(), below: Map::default() }
    }
}

impl<T> ByName<T> {
    /// The place of a host.
    pub(crate) fn place(&mut self, pattern: &HostPattern) -> Entry<'_, Arc<str>, T> {
        match pattern {
            HostPattern::Exact(name) => self.exact.entry(name.clone()),
            HostPattern::Below(suffix) => self.below.entry(suffix.clone()),
        }
    }

    /// What a host has.
    pub(crate) fn get(&self, pattern: &HostPattern) -> Option<&T> {
        match pattern {
            HostPattern::Exact(name) => self.exact.get(name),
            HostPattern::Below(suffix) => self.below.get(suffix),
        }
    }

    /// Every host.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = String> {
        let below = self.below.keys().map(|suffix| HostPattern::Below(suffix.clone()).to_string());
        self.exact.keys().map(ToString::to_string).chain(below)
    }

    /// What has the most specific name for this one, which is in lower case.
    fn find_name(&self, name: &str) -> Option<&T> {
        self.exact.get(name).or_else(|| hostname::suffixes(name).find_map(|suffix| self.below.get(suffix)))
    }

    /// What has the most specific name for a request; Envoy looks no further when none of its routes matches.
    pub(crate) fn find(&self, authority: &str) -> Option<&T> {
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
        self.find_name(name)
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
