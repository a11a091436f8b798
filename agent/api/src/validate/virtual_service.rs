//! VirtualService: hosts, gateways, TLS and TCP rules. HTTP rules have a file of their own.

use std::collections::HashSet;

use super::text::{is_ip, is_label, wrong_host};
use super::{Report, export, http_route, reach};
use crate::finding::code;
use crate::istio::{
    Destination, L4Match, MESH, RouteDestination, TcpRoute, TlsMatch, TlsRoute, VirtualServiceSpec,
    claim_path,
};
use crate::yaml::shorten;

/// Checks `spec`.
pub(super) fn check(report: &mut Report, namespace: &str, spec: &VirtualServiceSpec) {
    let is_delegate = spec.hosts.is_empty();
    if is_delegate {
        check_delegate(report, spec);
    }
    export::gateways(report, &spec.gateways);
    hosts(report, spec);
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        report.error(code::MISSING_FIELD, "there is no rule (write http, tcp or tls)");
    }
    report.each("http", &spec.http, |r, route| http_route::check(r, route, is_delegate));
    report.each("tls", &spec.tls, |r, route| tls_route(r, route, &spec.hosts));
    report.each("tcp", &spec.tcp, tcp_route);
    export::export_to(report, namespace, &spec.export_to);
    reach::check(report, spec);
    if !is_delegate {
        out_of_place(report, spec);
    }
}

/// What a rule asks where nobody can answer: of tokens in the mesh, of callers' pods and addresses at gateways.
fn out_of_place(report: &mut Report, spec: &VirtualServiceSpec) {
    if spec.gateways.iter().all(|gateway| gateway == MESH) {
        report.each("http", &spec.http, |r, route| {
            r.each("match", &route.r#match, |r, one| {
                let mut names = one.headers.keys().chain(one.without_headers.keys());
                if let Some(name) = names.find(|name| claim_path(name).is_some()) {
                    let message = format!(
                        "{}: no token is looked at where pods of the mesh call, so none has the claim (bind it to a gateway whose \
                         pods a RequestAuthentication selects)",
                        shorten(name)
                    );
                    r.field("headers", |r| r.warning(code::NO_EFFECT, message));
                }
            });
        });
    } else if spec.gateways.iter().all(|gateway| gateway != MESH) {
        report.each("tls", &spec.tls, |r, route| {
            r.each("match", &route.r#match, |r, one| {
                unasked(r, "destinationSubnets", !one.destination_subnets.is_empty());
                unasked(r, "sourceLabels", !one.source_labels.is_empty());
                unasked(r, "sourceNamespace", one.source_namespace.is_some());
            });
        });
        report.each("tcp", &spec.tcp, |r, route| {
            r.each("match", &route.r#match, |r, one| {
                unasked(r, "destinationSubnets", !one.destination_subnets.is_empty());
                unasked(r, "sourceSubnet", one.source_subnet.is_some());
                unasked(r, "sourceLabels", !one.source_labels.is_empty());
                unasked(r, "sourceNamespace", one.source_namespace.is_some());
            });
        });
    }
}

/// Tells that a field of a match on connections has no effect at gateways.
fn unasked(report: &mut Report, field: &'static str, is_set: bool) {
    if is_set {
        let message = "at gateways, connections are routed by port and server name alone";
        report.field(field, |r| r.info(code::NO_EFFECT, message));
    }
}

/// Without hosts it can only be another one's delegate, and must look like one.
fn check_delegate(report: &mut Report, spec: &VirtualServiceSpec) {
    if spec.http.is_empty() {
        let message = "there are no hosts (name the services that the rules are for)";
        return report.field("hosts", |r| r.error(code::MISSING_FIELD, message));
    }
    for (name, set) in [
        ("gateways", !spec.gateways.is_empty()),
        ("tls", !spec.tls.is_empty()),
        ("tcp", !spec.tcp.is_empty()),
    ] {
        if set {
            report.field(name, |r| {
                r.error(
                    code::CONFLICTING_FIELDS,
                    format!("a delegate, which has no hosts, has no {name} either (add hosts)"),
                );
            });
        }
    }
}

fn hosts(report: &mut Report, spec: &VirtualServiceSpec) {
    let in_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == MESH);
    let mut valid = true;
    report.each("hosts", &spec.hosts, |r, host| {
        if is_ip(host) {
            if in_mesh {
                r.warning(
                    code::NO_EFFECT,
                    "an address is a host at gateways only: rules for callers in the mesh go by a service's name (write that)",
                );
            }
        } else if let Some(wrong) = wrong_host(host) {
            valid = false;
            r.error(code::INVALID_HOST, wrong);
        } else if host == "*" && in_mesh {
            valid = false;
            r.error(
                code::INVALID_HOST,
                "`*` is for gateways only (name the services, or bind it to a gateway)",
            );
        }
    });
    if valid {
        duplicate_hosts(report, &spec.hosts);
    }
}

/// A host that is there twice, or that a wildcard beside it covers.
fn duplicate_hosts(report: &mut Report, hosts: &[String]) {
    let lower: Vec<String> = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
    let all: HashSet<&str> = lower.iter().map(String::as_str).collect();
    let mut seen = HashSet::new();
    for (index, host) in lower.iter().enumerate() {
        if !seen.insert(host.as_str()) {
            report.item("hosts", index, |r| {
                r.error(code::DUPLICATE_HOST, format!("{:?} is there twice", shorten(host)));
            });
            continue;
        }
        let name = host.strip_prefix("*.").unwrap_or(host);
        let mut suffixes = name.match_indices('.').map(|(at, _)| format!("*{}", &name[at..]));
        let covering = suffixes.find(|wildcard| all.contains(wildcard.as_str()));
        let covering = covering.or_else(|| (host != "*" && all.contains("*")).then(|| "*".to_owned()));
        if let Some(wildcard) = covering {
            report.item("hosts", index, |r| {
                let shown = shorten(host);
                r.error(
                    code::DUPLICATE_HOST,
                    format!("{shown:?} is covered by {wildcard:?} (keep one of them)"),
                );
            });
        }
    }
}

fn tls_route(report: &mut Report, route: &TlsRoute, hosts: &[String]) {
    if route.r#match.is_empty() {
        report.field("match", |r| r.error(code::MISSING_FIELD, "a TLS rule needs a match with sniHosts"));
    }
    report.each("match", &route.r#match, |r, one| tls_match(r, one, hosts));
    destinations(report, &route.route);
}

fn tls_match(report: &mut Report, one: &TlsMatch, hosts: &[String]) {
    if one.sni_hosts.is_empty() {
        report.field("sniHosts", |r| {
            r.error(code::MISSING_FIELD, "a TLS match needs the server names that it is for");
        });
    }
    report.each("sniHosts", &one.sni_hosts, |r, sni| {
        let shown = shorten(sni);
        if is_ip(sni) {
            r.warning(code::NO_EFFECT, format!("{shown:?} is an address: TLS clients send names only"));
        } else if let Some(wrong) = wrong_host(sni) {
            r.error(code::INVALID_HOST, wrong);
        } else if !hosts.iter().any(|host| covers(host, sni)) {
            r.error(code::INVALID_HOST, format!("{shown:?} is not among the hosts (add it to spec.hosts)"));
        }
    });
    l4_match(report, one.port, &one.destination_subnets, one.source_namespace.as_deref());
    report.labels_field("sourceLabels", &one.source_labels);
    export::gateways(report, &one.gateways);
}

/// Whether every name that `narrow` stands for is one of `wide`.
fn covers(wide: &str, narrow: &str) -> bool {
    match wide.strip_prefix('*') {
        Some(suffix) => narrow.strip_prefix('*').unwrap_or(narrow).ends_with(suffix),
        None => wide == narrow,
    }
}

fn tcp_route(report: &mut Report, route: &TcpRoute) {
    report.each("match", &route.r#match, tcp_match);
    destinations(report, &route.route);
}

fn tcp_match(report: &mut Report, one: &L4Match) {
    l4_match(report, one.port, &one.destination_subnets, one.source_namespace.as_deref());
    if let Some(subnet) = &one.source_subnet {
        report.field("sourceSubnet", |r| r.subnet(subnet));
    }
    report.labels_field("sourceLabels", &one.source_labels);
    export::gateways(report, &one.gateways);
}

fn l4_match(report: &mut Report, port: Option<u32>, subnets: &[String], source_namespace: Option<&str>) {
    if let Some(port) = port {
        report.field("port", |r| r.port(port));
    }
    report.each("destinationSubnets", subnets, |r, subnet| r.subnet(subnet));
    self::source_namespace(report, source_namespace);
}

/// Checks a match's `sourceNamespace`.
pub(super) fn source_namespace(report: &mut Report, namespace: Option<&str>) {
    if let Some(namespace) = namespace.filter(|namespace| !is_label(namespace)) {
        report.field("sourceNamespace", |r| {
            r.error(code::INVALID_VALUE, format!("{:?} is no namespace", shorten(namespace)));
        });
    }
}

fn destinations(report: &mut Report, routes: &[RouteDestination]) {
    if routes.is_empty() {
        report
            .field("route", |r| r.error(code::MISSING_FIELD, "the rule leads nowhere (name a destination)"));
    }
    report.each("route", routes, |r, route| destination(r, "destination", &route.destination));
    weights(report, routes.iter().map(|route| route.weight));
}

/// Checks a field that holds a destination.
pub(super) fn destination(report: &mut Report, name: &'static str, destination: &Destination) {
    report.field(name, |report| {
        if *destination == Destination::default() {
            return report.error(code::MISSING_FIELD, "there is no destination (name its host)");
        }
        report.field("host", |r| match destination.host.as_str() {
            "*" => r.error(code::INVALID_HOST, "`*` is no destination (name a service)"),
            host => {
                if let Some(wrong) = wrong_host(host).filter(|_| !is_ip(host)) {
                    r.error(code::INVALID_HOST, wrong);
                } else if host.starts_with('*') {
                    r.warning(
                        code::UNKNOWN_HOST,
                        format!("no service is called {:?}: answers 503", shorten(host)),
                    );
                }
            }
        });
        if let Some(subset) =
            destination.subset.as_deref().filter(|subset| !subset.is_empty() && !is_label(subset))
        {
            report.field("subset", |r| {
                r.error(
                    code::INVALID_VALUE,
                    format!("{:?} can be no subset's name (a-z, 0-9 and `-`)", shorten(subset)),
                );
            });
        }
        if let Some(port) = &destination.port {
            report.field("port", |r| r.field("number", |r| r.port(port.number)));
        }
    });
}

/// Checks the weights of a rule's destinations, in a list called `route`.
pub(super) fn weights(report: &mut Report, weights: impl ExactSizeIterator<Item = i32>) {
    let count = weights.len();
    let mut total = 0i64;
    for (index, weight) in weights.enumerate() {
        total += i64::from(weight);
        if weight < 0 {
            report.item("route", index, |r| {
                r.field("weight", |r| r.error(code::INVALID_WEIGHT, format!("{weight} is negative")));
            });
        }
    }
    let message = match total {
        0 if count > 1 => {
            "the weights of several destinations are all 0 (give at least one a weight)".to_owned()
        }
        total if total > i64::from(u32::MAX) => format!("the weights sum up to {total}, which is too much"),
        _ => return,
    };
    report.field("route", |r| r.error(code::INVALID_WEIGHT, message));
}
