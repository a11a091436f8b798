//! What gateway pods serve: their ports, the hosts of each, and the VirtualServices bound to these.

use std::sync::Arc;

use crate::registry::hostname::{self, HostBuffer, HostPattern, RequestHost};
use crate::route::http_route::HttpRoute;
use crate::route::matching::{At, MatchedPath, RequestView};
use crate::route::virtual_service::RuleList;
use crate::route::virtual_service::Rules;
use crate::shard::Map;
use crate::workload::Workload;

/// What the gateway pods of this node serve, by `namespace/name`.
pub(crate) type GatewayPods = Map<Arc<str>, Arc<[GatewayPort]>>;

/// A port of a gateway pod that speaks plain HTTP.
#[derive(Debug)]
pub struct GatewayPort {
    /// The pod's own port.
    pub(crate) pod_port: u16,
    /// As the Gateways call it: the port of the Service.
    pub(crate) server_port: u16,
    /// The Gateways that have it, as `namespace/name`.
    pub(crate) gateways: Box<[Arc<str>]>,
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

impl GatewayPort {
    /// The host with the most specific name for a request; Envoy looks no further when none of its routes matches.
    pub(crate) fn virtual_host(&self, authority: &str) -> Option<&VirtualHost> {
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
