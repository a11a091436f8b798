//! A compiled VirtualService: its routes, in their order, and who sees them.

use std::net::IpAddr;
use std::sync::Arc;

use weft_api::delegate::Untaken;

use crate::registry::hostname::{self, HostPattern};
use crate::registry::scope::Scope;
use crate::route::http_route::{Destination, HttpRoute, pick_weighted};
use crate::route::matching::{At, HttpMatch, MatchedPath, RequestView, SourceMatch};
use crate::workload::Workload;

pub(crate) mod compile;

/// When and by whom an object was made: the order of "oldest wins".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age {
    /// RFC 3339 in UTC, as the API server writes it; empty is oldest.
    pub(crate) created: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) namespace: Arc<str>,
}

/// VirtualServices of one host, oldest first.
pub(crate) type RuleList = Arc<[Arc<Rules>]>;

/// A VirtualService, compiled.
#[derive(Debug)]
pub(crate) struct Rules {
    /// `namespace/name`.
    pub(crate) key: Arc<str>,
    pub(crate) age: Age,
    pub(crate) scope: Scope,
    /// Bound to the reserved gateway `mesh`.
    pub(crate) on_mesh: bool,
    /// Gateways that it is bound to, as `namespace/name`.
    pub(crate) gateways: Box<[Arc<str>]>,
    pub(crate) hosts: Box<[HostPattern]>,
    pub(crate) http: Box<[HttpEntry]>,
    pub(crate) tls: Box<[L4Entry<TlsMatch>]>,
    pub(crate) tcp: Box<[L4Entry<TcpMatch>]>,
    /// What is missing of what it delegates, with the place in `http`.
    pub(crate) untaken: Box<[(usize, Untaken)]>,
}

/// One of `http`.
#[derive(Debug)]
pub(crate) struct HttpEntry {
    /// Empty: everything matches.
    pub(crate) matches: Box<[HttpMatch]>,
    pub(crate) route: Arc<HttpRoute>,
}

/// One of `tls`, or of `tcp`.
#[derive(Debug)]
pub(crate) struct L4Entry<M> {
    /// Any of these; of `tcp`, none at all: everything matches.
    pub(crate) matches: Box<[M]>,
    pub(crate) route: Box<[(Destination, u32)]>,
}

/// One entry of a `tls` route's `match`.
#[derive(Debug)]
pub(crate) struct TlsMatch {
    pub(crate) source: SourceMatch,
    /// Server names, any of these.
    pub(crate) names: Box<[HostPattern]>,
    /// Where the address is that the caller dials; `None`: anywhere.
    pub(crate) subnets: Option<Box<[Subnet]>>,
}

/// One entry of a `tcp` route's `match`.
#[derive(Debug)]
pub(crate) struct TcpMatch {
    pub(crate) source: SourceMatch,
    /// Where the caller's addresses are; `None`: anywhere.
    pub(crate) from: Option<Box<[Subnet]>>,
    /// Where the address is that it dials; `None`: anywhere.
    pub(crate) subnets: Option<Box<[Subnet]>>,
}

/// What a VirtualService does with a request.
pub(crate) enum HttpOutcome<'a> {
    /// This route takes it.
    Matched(&'a Arc<HttpRoute>, MatchedPath),
    /// Routes exist for this caller, and none matches.
    NoMatch,
    /// No route is for this caller and port: the VirtualService does not exist for it.
    Invisible,
}

impl Rules {
    /// Finds the first route that matches.
    pub(crate) fn route_http<'a>(
        &'a self,
        caller: &Workload,
        port: u16,
        at: At<'_>,
        request: &RequestView<'_>,
    ) -> HttpOutcome<'a> {
        let mut visible = false;
        for entry in &self.http {
            if entry.matches.is_empty() {
                return HttpOutcome::Matched(&entry.route, MatchedPath::Prefix(1));
            }
            for candidate in entry.matches.iter().filter(|entry| entry.source.admits(caller, port, at)) {
                if candidate.matches(request) {
                    return HttpOutcome::Matched(&candidate.route, candidate.matched);
                }
                visible = true;
            }
        }
        if visible { HttpOutcome::NoMatch } else { HttpOutcome::Invisible }
    }

    /// Finds the first route that matches at a gateway among those that match everything, or among the others. As Istio
    /// makes none of what comes after one that matches everything, nothing behind that counts.
    pub(crate) fn route_at_gateway<'a>(
        &'a self,
        gateway: &Workload,
        port: u16,
        at: At<'_>,
        request: &RequestView<'_>,
        catch_alls: bool,
    ) -> Option<(&'a Arc<HttpRoute>, MatchedPath)> {
        for entry in &self.http {
            if entry.matches.is_empty() {
                return catch_alls.then_some((&entry.route, MatchedPath::Prefix(1)));
            }
            for candidate in entry.matches.iter().filter(|entry| entry.source.admits(gateway, port, at)) {
                let catch_all = candidate.is_catch_all();
                if catch_all == catch_alls && candidate.matches(request) {
                    return Some((&candidate.route, candidate.matched));
                }
                if catch_all && candidate.source.is_open() {
                    return None;
                }
            }
        }
        None
    }

    /// Finds the first `tcp` route that is for a gateway's port, which is all that is asked there.
    pub(crate) fn route_tcp_at_gateway(&self, port: u16, at: At<'_>) -> Option<usize> {
        let fits = |entry: &TcpMatch| entry.source.admits_at_gateway(port, at);
        self.tcp.iter().position(|entry| entry.matches.is_empty() || entry.matches.iter().any(fits))
    }

    /// Finds the first `tcp` route that matches.
    pub(crate) fn route_tcp(&self, caller: &Workload, address: IpAddr, port: u16) -> Option<usize> {
        let fits = |entry: &TcpMatch| {
            entry.source.admits(caller, port, At::Mesh) && entry.contains(address) && entry.is_from(caller)
        };
        self.tcp.iter().position(|entry| entry.matches.is_empty() || entry.matches.iter().any(fits))
    }
}

impl TlsMatch {
    /// How well it fits a connection by its server name, more is better; `None`: it does not.
    pub(crate) fn fits(&self, name: Option<&str>) -> Option<usize> {
        let name = name?;
        let fits = |pattern: &HostPattern| match pattern {
            HostPattern::Exact(exact) => (**exact == *name).then_some(usize::MAX),
            HostPattern::Below(suffix) => hostname::is_below(name, suffix).then_some(suffix.len()),
        };
        self.names.iter().filter_map(fits).max()
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        is_in(self.subnets.as_deref(), address)
    }
}

impl TcpMatch {
    /// Whether it is for a caller of these addresses.
    pub(crate) fn is_from(&self, caller: &Workload) -> bool {
        self.from.is_none() || caller.addresses.iter().any(|address| is_in(self.from.as_deref(), *address))
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        is_in(self.subnets.as_deref(), address)
    }
}

/// Whether an address is in one of these; `None`: all are.
fn is_in(nets: Option<&[Subnet]>, address: IpAddr) -> bool {
    nets.is_none_or(|nets| nets.iter().any(|net| net.contains(address)))
}

/// Chooses one of the destinations of a `tls` or `tcp` rule.
pub(crate) fn pick(route: &[(Destination, u32)], seed: u64) -> Option<&Destination> {
    pick_weighted(route, |destination| destination.1, seed).map(|destination| &destination.0)
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    address: IpAddr,
    length: u8,
}

impl Subnet {
    /// Reads `10.0.0.0/8`, or an address alone.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address.parse().ok()?, Some(length.parse().ok()?)),
            None => (text.parse().ok()?, None),
        };
        let full = if matches!(address, IpAddr::V4(_)) { 32 } else { 128 };
        let length = length.unwrap_or(full);
        (length <= full).then_some(Self { address, length })
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let (ours, theirs, width) = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        self.length == 0 || (ours ^ theirs) >> (width - u32::from(self.length)) == 0
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_hold_their_addresses() {
        for (net, address, expected) in [
            ("10.1.0.0/16", "10.1.2.3", true),
            ("10.1.0.0/16", "10.2.2.3", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fd12::1", true),
            ("::/0", "fd12::1", true),
        ] {
            assert_eq!(Subnet::parse(net).unwrap().contains(address.parse().unwrap()), expected, "{net}");
        }
        assert!(Subnet::parse("10.0.0.0/33").is_none());
        assert!(Subnet::parse("x").is_none());
    }
}
