//! What a gateway pod does with what comes from outside: its own policies first, then the VirtualServices bound to the Gateways
//! that select it, then onward as the pod.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::request::Parts;
use http::uri::Scheme;
use weft_api::admin::{ExplainRequest, Explanation};
use weft_api::istio::{ServerTlsMode, Termination};

use super::entry::{Caller, Place, services_of};
use super::target::{self, Target};
use super::{
    ExplainError, backends, describe_route, l4_backends, matched_l4, request, told_otherwise, trace,
};
use crate::registry::hostname::{self, HostPattern};
use crate::registry::protocol::Protocol;
use crate::route::gateway::{AtServerName, GatewayPlace, GatewayPort, GatewayProtocol};
use crate::route::matching::{At, RequestView};
use crate::route::tcp_route::L4Rules;
use crate::snapshot::{HttpDecision, Snapshot};
use crate::workload::Workload;

const MISDIRECTED: &str = "421: another server of the port has this host: TLS has to ask for it by its name";
/// More hosts than these are not listed.
const MOST_HOSTS: usize = 8;

/// Explains a request, or a connection, to `pod`, which serves as a gateway; `from` is the pod, as which it goes on.
pub(super) fn answer(
    from: &Caller<'_>,
    pod: &Workload,
    question: &ExplainRequest,
) -> Result<Explanation, ExplainError> {
    let snapshot = from.snapshot;
    let client = match &question.from_address {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| ExplainError::NotAnAddress(text.clone()))?),
    };
    let target = Target::parse(&question.to)?;
    let headers: Vec<(&str, &str)> =
        question.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let method = question.method.as_deref().unwrap_or("GET");
    let path = question.path.as_deref().or(target.path.as_deref()).unwrap_or("/");
    let mut parts = request(snapshot, (&target.host, target.port), method, path, &headers)?;
    let mut explanation = Explanation::default();
    let ports = snapshot.gateways.get(&pod.key).map_or(&[][..], |ports| ports);
    let as_named = port(ports, target.port);
    let Some(served) = as_named.or_else(|| by_node_port(snapshot, pod, ports, target.port)) else {
        "passthrough".clone_into(&mut explanation.action);
        let all: Vec<String> = ports.iter().map(in_words).collect();
        explanation.notes.push(format!(
            "no Gateway that selects pod {} has a server with port {}, but {}: a connection goes to the pod's own program",
            pod.key,
            target.port,
            all.join(" and ")
        ));
        return Ok(explanation);
    };
    let of_nodes = match as_named {
        Some(_) => String::new(),
        None => format!(", port {} of each node,", target.port),
    };
    let (at, gateways) = (in_words(served), served.gateways.join(", "));
    explanation.notes.push(format!("pod {} serves {at}{of_nodes} by Gateway {gateways}", pod.key));
    let name =
        hostname::server_name(&target.host).filter(|_| served.protocol() == GatewayProtocol::ServerName);
    let ended = match served.at_server_name(name.as_deref()) {
        AtServerName::Ends(termination) => Some(termination),
        AtServerName::Passed | AtServerName::Nobody => None,
    };
    let place = GatewayPlace { port: served, tls: ended.as_ref().map(|ended| (name.as_deref(), ended)) };
    let served = place.served().unwrap_or(served);
    if let Some(termination) = &ended {
        let asked = name.as_deref().unwrap_or("none");
        explanation
            .notes
            .push(format!("TLS ends here for the server name {asked}, {}", in_short(termination)));
    }
    if ended.is_some() {
        parts.extensions.insert(Scheme::HTTPS);
    }
    let is_http = served.protocol() == GatewayProtocol::Http;
    if is_http {
        explanation.notes.extend(told_otherwise(path, &parts));
    }
    let address = SocketAddr::new(from.address, served.pod_port);
    let outside = Caller {
        snapshot,
        workload: None,
        address: client.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |client: IpAddr| client.to_canonical()),
        is_node: false,
        certificates: false,
    };
    let protocol = if is_http { Protocol::Http } else { Protocol::Tcp };
    let target_place = Place { workload: pod, address, protocol, tls: None };
    let head = is_http.then_some(&parts);
    let refused = outside.ask_gateway(&target_place, head, name.as_deref(), &mut explanation.policies);
    if client.is_none() && !explanation.policies.is_empty() {
        let note = "the client's address is not known (--from-address tells it): to policies it is 0.0.0.0";
        explanation.notes.push(note.to_owned());
    }
    if let Some(refused) = refused {
        "deny".clone_into(&mut explanation.action);
        "plaintext".clone_into(&mut explanation.tls);
        explanation.notes.push(refused);
        return Ok(explanation);
    }
    if !is_http {
        connection(from, pod, served, name.as_deref(), &mut explanation);
        return Ok(explanation);
    }
    rules(pod, served, &parts, &mut explanation.notes);
    match snapshot.route_at_gateway(pod, &place, &parts) {
        HttpDecision::Route(matched) => {
            describe_route(&matched, &parts, served.pod_port, &mut explanation);
            let addressed = |destination: &_| snapshot.port_at_gateway(served, destination);
            backends(from, pod, &addressed, None, &matched, &parts, &mut explanation);
        }
        HttpDecision::Misdirected => {
            "respond".clone_into(&mut explanation.action);
            explanation.notes.push(MISDIRECTED.to_owned());
        }
        HttpDecision::NoRoute | HttpDecision::Passthrough | HttpDecision::BlackHole => {
            "notFound".clone_into(&mut explanation.action);
        }
    }
    Ok(explanation)
}

fn in_short(termination: &Termination) -> String {
    let Termination { settings, namespace, .. } = termination;
    let secrets: Vec<String> =
        settings.certificate_secrets().map(|name| format!("{namespace}/{name}")).collect();
    let by = match (&*secrets, settings.mode) {
        (_, ServerTlsMode::IstioMutual) => "by the certificate of the gateway's service account".to_owned(),
        ([], _) => "by files".to_owned(),
        ([..], _) => format!("by Secret {}", secrets.join(" and ")),
    };
    let clients = match settings.mode {
        ServerTlsMode::Mutual | ServerTlsMode::IstioMutual => "; clients must show a certificate",
        ServerTlsMode::OptionalMutual => "; clients may show a certificate",
        _ => "",
    };
    format!("{by}{clients}")
}

/// Explains a connection of bytes, by the name that a TLS client asks for where that is read.
fn connection(
    from: &Caller<'_>,
    pod: &Workload,
    served: &GatewayPort,
    name: Option<&str>,
    explanation: &mut Explanation,
) {
    let by_name = served.protocol() == GatewayProtocol::ServerName;
    if by_name && matches!(served.at_server_name(name), AtServerName::Nobody) {
        "notFound".clone_into(&mut explanation.action);
        let name = name.unwrap_or("none");
        explanation.notes.push(format!(
            "reset: TLS ends nowhere at {} for the server name that clients send, and no `tls` rule bound to it takes that \
             (asked for: {name})",
            served.gateways.join(", ")
        ));
        return;
    }
    let note = if by_name {
        "TLS goes through: `tls` rules count, by the server name"
    } else {
        "bytes go through: `tcp` rules count"
    };
    explanation.notes.push(note.to_owned());
    for rules in served.rules().into_iter().filter(|rules| !rules.scope.admits(&pod.namespace)) {
        let note = format!("VirtualService {} is not exported to namespace {}", rules.key, pod.namespace);
        explanation.notes.push(note);
    }
    if let L4Rules::Matched(rule) = served.l4_rules(pod, name) {
        "route".clone_into(&mut explanation.action);
        explanation.matched = Some(matched_l4(&rule));
        let addressed = |destination: &_| from.snapshot.port_at_gateway(served, destination);
        l4_backends(from, pod, rule.route, &addressed, None, explanation);
        return;
    }
    "notFound".clone_into(&mut explanation.action);
    let bound = served.gateways.join(", ");
    explanation.notes.push(if by_name {
        let name = name.unwrap_or("none");
        format!("reset: no `tls` rule of a VirtualService bound to {bound} is for the server name that clients send (asked for: {name})")
    } else {
        format!("reset: no VirtualService bound to {bound} has a `tcp` rule for port {}", served.server_port)
    });
}

/// The port that is meant: the Gateway's, which clients see, else the pod's own.
fn port(ports: &[GatewayPort], number: u16) -> Option<&GatewayPort> {
    let by = |own: fn(&GatewayPort) -> u16| ports.iter().find(|served| own(served) == number);
    by(|served| served.server_port).or_else(|| by(|served| served.pod_port))
}

/// The port that a port of nodes leads to, by a service of the pod's.
fn by_node_port<'a>(
    snapshot: &Snapshot,
    pod: &Workload,
    ports: &'a [GatewayPort],
    number: u16,
) -> Option<&'a GatewayPort> {
    let (entry, service_port) = target::node_port(snapshot, number)?;
    let leads_here = services_of(snapshot, pod).contains(&entry.service.host);
    ports.iter().find(|served| leads_here && served.server_port == service_port)
}

fn in_words(served: &GatewayPort) -> String {
    let GatewayPort { server_port, pod_port, .. } = served;
    if server_port == pod_port {
        format!("port {server_port}")
    } else {
        format!("port {server_port} at its own port {pod_port}")
    }
}

/// Walks the rules of the request's host as the decision does: one list of all, oldest first.
fn rules(pod: &Workload, served: &GatewayPort, parts: &Parts, notes: &mut Vec<String>) {
    let request = RequestView::of(parts);
    let Some(all) = served.hosts() else { return };
    let Some(host) = all.find(request.authority) else {
        let mut hosts: Vec<String> = all.exact.keys().map(ToString::to_string).collect();
        hosts.extend(all.below.keys().map(|suffix| HostPattern::Below(suffix.clone()).to_string()));
        hosts.sort_unstable();
        let more = hosts.len().saturating_sub(MOST_HOSTS);
        hosts.truncate(MOST_HOSTS);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let known = if hosts.is_empty() { "none".to_owned() } else { hosts.join(", ") };
        notes.push(format!(
            "404: no VirtualService bound to {} serves the host {}; hosts served: {known}{more}",
            served.gateways.join(", "),
            request.authority
        ));
        return;
    };
    if host.redirect.is_some() {
        notes.push("the Gateway's server has tls.httpsRedirect: no rule is asked".to_owned());
        return;
    }
    let at = At::Gateways(&served.gateways);
    let decider = host.first_route(pod, served, &request).map(|(rules, ..)| rules);
    let mut decided = false;
    for rules in host.rules.iter() {
        let decides = decider.is_some_and(|decider| decider.key == rules.key);
        let matches = || rules.route_at_gateway(pod, served.server_port, at, &request, true).is_some();
        if !rules.scope.admits(&pod.namespace) {
            let note = format!("VirtualService {} is not exported to namespace {}", rules.key, pod.namespace);
            notes.push(note);
        } else if let Some(decider) = decider.filter(|_| decided) {
            notes.push(format!("VirtualService {} serves the host too, after {}", rules.key, decider.key));
        } else if let Some(decider) = decider.filter(|_| !decides && matches()) {
            notes.push(format!(
                "VirtualService {} has a route that matches everything: it comes after those of {}",
                rules.key, decider.key
            ));
        } else {
            trace::routes(rules, pod, served.server_port, at, &request, notes);
            decided = decides;
        }
    }
    if decider.is_none() {
        notes.push("404: the host has rules at this gateway, and none of them matches".to_owned());
    }
}
