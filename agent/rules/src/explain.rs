//! Why a request would go where it would go: the decision comes from the functions that decide for real requests;
//! the notes retell it, condition by condition.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::uri::PathAndQuery;
use weft_api::admin::{Backend, ExplainRequest, Explanation, FaultPlan, Matched, RetryPlan};

use crate::path;
use crate::registry::hostname;
use crate::registry::protocol::Protocol;
use crate::route::http_route::{Destination, HttpAction, HttpRoute, MatchedHttpRoute};
use crate::route::tcp_route::{L4Rule, L4Rules, TcpDecision};
use crate::snapshot::{HttpDecision, Snapshot};
use crate::upstream::cluster::Endpoint;
use crate::workload::Workload;

mod entry;
mod gateway;
mod stranger;
mod target;
mod trace;

pub use target::{ExplainError, callers};

use entry::{Caller, Entries, Place};
use target::{Resolved, Target};

/// More of a kind are not listed with each thing that has them: what is told would be a product of what users write.
pub(crate) const MOST_LISTED: usize = 32;

/// Explains a request that is described in words, as `weft explain` sends it. `certificates`: whether this agent has
/// any to speak mutual TLS with.
pub fn answer(
    snapshot: &Snapshot,
    request: &ExplainRequest,
    certificates: bool,
) -> Result<Explanation, ExplainError> {
    if let Some(address) = request.from_address.as_ref().filter(|_| request.from.is_empty()) {
        return stranger::answer(snapshot, (address, false), request);
    }
    let mut found = callers(snapshot, &request.from)?;
    let caller = found.swap_remove(0);
    let from = Caller {
        snapshot,
        workload: Some(caller),
        address: caller.addresses.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        is_node: false,
        certificates,
    };
    let mut explanation = if snapshot.gateways.contains_key(&caller.key) {
        gateway::answer(&from, caller, request)?
    } else if request.from_address.is_some() {
        return Err(ExplainError::TwoCallers(caller.key.to_string()));
    } else {
        of_caller(&from, caller, request)?
    };
    if !found.is_empty() {
        let others = found.len();
        explanation
            .notes
            .push(format!("{} stands for {others} more workloads of {}", caller.key, request.from));
    }
    Ok(explanation)
}

/// Explains what a process of this agent's node would get, which is in no pod: the kubelet, for example. `address`: one of
/// the node's.
pub fn answer_for_node(
    snapshot: &Snapshot,
    address: &str,
    request: &ExplainRequest,
) -> Result<Explanation, ExplainError> {
    stranger::answer(snapshot, (address, true), request)
}

/// Explains what a workload of the mesh asks for.
fn of_caller(
    from: &Caller<'_>,
    caller: &Workload,
    request: &ExplainRequest,
) -> Result<Explanation, ExplainError> {
    let snapshot = from.snapshot;
    let target = Target::parse(&request.to)?;
    let in_words = request.method.is_some() || request.path.is_some() || !request.headers.is_empty();
    let path = request.path.as_deref().or(target.path.as_deref());
    let mut explanation = if in_words || target.path.is_some() {
        let headers: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let method = request.method.as_deref().unwrap_or("GET");
        explain(from, caller, &target, method, path.unwrap_or("/"), &headers)?
    } else {
        let to = target.resolve(snapshot, caller)?;
        match snapshot.outbound(caller, to.address).protocol {
            Protocol::Tcp => connection(from, caller, &target.host, to),
            _ => explain(from, caller, &target, "GET", "/", &[])?,
        }
    };
    if caller.is_gateway() && caller.node != snapshot.node {
        let note = format!("as a gateway, {} is explained by the agent of node {}", caller.key, caller.node);
        explanation.notes.push(note);
    }
    Ok(explanation)
}

/// Explains a request from `caller`.
fn explain(
    from: &Caller<'_>,
    caller: &Workload,
    target: &Target,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Explanation, ExplainError> {
    let snapshot = from.snapshot;
    let (host, port) = (&*target.host, target.port);
    let to = target.resolve(snapshot, caller)?;
    let dst = to.address;
    let parts = request(snapshot, (host, port), method, path, headers)?;
    let mut explanation = Explanation::default();
    let outbound = snapshot.outbound(caller, dst);
    trace::name_target(snapshot, caller, host, dst, &outbound, &mut explanation.notes);
    if outbound.protocol == Protocol::Tcp {
        let note =
            format!("port {port} does not speak HTTP here: only rules for connections and addresses count");
        explanation = connection(from, caller, host, to);
        explanation.notes.insert(0, note);
        return Ok(explanation);
    }
    explanation.notes.extend(told_otherwise(path, &parts));
    let decision = snapshot.route_http(caller, dst, &parts);
    trace::rules(snapshot, caller, dst, &parts, &mut explanation.notes);
    match decision {
        HttpDecision::Route(matched) => {
            describe_route(&matched, &parts, port, &mut explanation);
            backends(from, caller, &|_| port, to.dialled(), &matched, &parts, &mut explanation);
        }
        HttpDecision::NoRoute | HttpDecision::Misdirected => {
            "notFound".clone_into(&mut explanation.action);
            explanation
                .notes
                .push("404: the host has rules for this caller, and none of them matches".into());
        }
        HttpDecision::Passthrough => {
            "passthrough".clone_into(&mut explanation.action);
            let note = format!(
                "no service or rule of port {port} has this Host: the request goes to {} as it is",
                to.in_words(host)
            );
            explanation.notes.push(note);
            straight(from, dst, outbound.protocol, Some(&parts), &mut explanation);
        }
        HttpDecision::BlackHole => {
            "deny".clone_into(&mut explanation.action);
            explanation
                .notes
                .push("502: nobody knows the Host, and outboundTrafficPolicy is REGISTRY_ONLY".into());
        }
    }
    Ok(explanation)
}

/// A request as it is compared with rules: with its path in normal form.
fn request(
    snapshot: &Snapshot,
    (host, port): (&str, u16),
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Parts, ExplainError> {
    let unfit = |error: String| ExplainError::NotARequest(error);
    let target = PathAndQuery::try_from(path).map_err(|error| unfit(error.to_string()))?;
    let mut builder = http::Request::builder().method(method).uri(target);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        // Clients leave the default port out.
        let host = if port == 80 { host.to_owned() } else { format!("{host}:{port}") };
        builder = builder.header("host", host);
    }
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let mut parts = builder.body(()).map_err(|error| unfit(error.to_string()))?.into_parts().0;
    path::settle(&mut parts.uri, snapshot.path_normalization())
        .map_err(|path::NotAPath| unfit(format!("{path} is not a path")))?;
    Ok(parts)
}

/// Tells where rules see another path than was asked for.
fn told_otherwise(path: &str, parts: &Parts) -> Option<String> {
    let asked = path.split_once('?').map_or(path, |(path, _)| path);
    let seen = parts.uri.path();
    (asked != seen)
        .then(|| format!("rules and the destination see the path {seen} (MeshConfig's pathNormalization)"))
}

fn describe_route(matched: &MatchedHttpRoute, parts: &Parts, port: u16, explanation: &mut Explanation) {
    let route = &matched.route;
    explanation.matched = route
        .virtual_service
        .as_ref()
        .map(|key| Matched { virtual_service: key.to_string(), route: route_name(route) });
    let delegated = route.delegate.as_ref();
    explanation
        .notes
        .extend(delegated.map(|key| format!("http[{}] delegates to VirtualService {key}", route.index)));
    explanation.action = match &route.action {
        HttpAction::Forward(_) => "route".into(),
        HttpAction::Respond(response) => format!("directResponse {}", response.status.as_u16()),
        HttpAction::Redirect(redirect) => {
            let (status, location) = redirect.location(parts, matched.matched_prefix, "http", port);
            format!("redirect {} {location}", status.as_u16())
        }
    };
    explanation.timeout = route.timeout.map(duration);
    if matches!(route.action, HttpAction::Forward(_)) {
        explanation.retries = route.retry.as_ref().map(|retry| RetryPlan {
            attempts: retry.attempts,
            retry_on: retry.conditions(),
            per_try_timeout: retry.per_try_timeout.map(duration),
        });
    }
    if let Some(fault) = &route.fault {
        let (delay, abort) = fault.describe();
        explanation.faults = Some(FaultPlan { delay, abort });
    }
    if let HttpAction::Respond(response) = &route.action
        && response.status.is_server_error()
    {
        explanation.notes.push(String::from_utf8_lossy(&response.body).into_owned());
    }
    for mirror in &route.mirrors {
        let share = f64::from(mirror.parts_per_million) / 10_000.0;
        explanation
            .notes
            .push(format!("{share}% of the requests are copied to {}", in_words(&mirror.destination)));
    }
    rewritten(matched, parts, &mut explanation.notes);
}

/// Tells what the first destination would see of a changed request.
fn rewritten(matched: &MatchedHttpRoute, parts: &Parts, notes: &mut Vec<String>) {
    let HttpAction::Forward(destinations) = &matched.route.action else { return };
    let Some(first) = destinations.first() else { return };
    let mut after = parts.clone();
    matched.route.rewrite_request(first, matched.matched_prefix, &mut after);
    if after.uri != parts.uri {
        notes.push(format!("the path becomes {}", after.uri));
    }
    let (before_host, after_host) =
        (crate::route::http_route::authority(parts), crate::route::http_route::authority(&after));
    if before_host != after_host {
        notes.push(format!("the Host becomes {after_host}"));
    }
}

/// Tells where a route leads. `addressed`: the port of a destination that names none. `dialled`: the address, where that counts.
fn backends(
    from: &Caller<'_>,
    caller: &Workload,
    addressed: &dyn Fn(&Destination) -> u16,
    dialled: Option<SocketAddr>,
    matched: &MatchedHttpRoute,
    parts: &Parts,
    explanation: &mut Explanation,
) {
    let snapshot = from.snapshot;
    let HttpAction::Forward(destinations) = &matched.route.action else { return };
    let mut reachable = false;
    let mut entries = Entries::default();
    for backend in destinations {
        let port = addressed(&backend.destination);
        let cluster = snapshot.cluster(caller, &backend.destination, port);
        let usable = cluster.as_ref().is_ok_and(|cluster| !cluster.endpoints.is_empty());
        let takes = backend.weight > 0 || destinations.len() == 1;
        reachable |= usable && takes;
        let answering = cluster.as_ref().map_or(&[][..], |cluster| cluster.answering(dialled));
        explanation.backends.push(row(&backend.destination, backend.weight, answering));
        trace::destination(snapshot, caller, &backend.destination, port, &mut explanation.notes);
        if let (Ok(cluster), true) = (&cluster, takes) {
            // The destination decides on what the source has made of the request.
            let mut seen = parts.clone();
            matched.route.rewrite_request(backend, matched.matched_prefix, &mut seen);
            // A rewritten path begins with a slash, which is all that can be wanting.
            path::settle(&mut seen.uri, snapshot.path_normalization()).unwrap_or_default();
            let rules = rules_of(snapshot, caller, &backend.destination);
            entries.add(from, (cluster, dialled), rules, Some(&seen));
        }
    }
    if !reachable {
        "unavailable".clone_into(&mut explanation.action);
    }
    entries.tell(explanation);
}

/// `NAMESPACE/NAME` of the DestinationRules that a caller falls under.
fn rules_of<'a>(snapshot: &'a Snapshot, caller: &Workload, destination: &Destination) -> &'a [Arc<str>] {
    snapshot.registry.host(&destination.host).map_or(&[][..], |entry| &entry.clusters(caller).rules)
}

/// What goes to an address as it is may still reach a pod.
fn straight(
    from: &Caller<'_>,
    dst: SocketAddr,
    protocol: Protocol,
    head: Option<&Parts>,
    explanation: &mut Explanation,
) {
    let mut entries = Entries::default();
    if let Some(workload) = from.snapshot.workload_at(dst.ip()) {
        entries.meet(from, &Place { workload, address: dst, protocol, tls: None }, head);
    } else if let Some((entry, port)) = target::node_port(from.snapshot, dst.port())
        && let Some(clusters) = entry.policies.others.port(port)
    {
        explanation.notes.push(format!(
            "if {} is a node, its port {} leads to port {port} of {}, and who comes by it counts as from outside the mesh",
            dst.ip(),
            dst.port(),
            entry.service.host
        ));
        let outside = Caller { workload: None, ..*from };
        entries.add(&outside, (&clusters.whole, None), &[], head);
    }
    entries.tell(explanation);
}

fn connection(from: &Caller<'_>, caller: &Workload, host: &str, to: Resolved) -> Explanation {
    let (snapshot, dst) = (from.snapshot, to.address);
    let mut explanation = Explanation::default();
    let outbound = snapshot.outbound(caller, dst);
    trace::name_target(snapshot, caller, host, dst, &outbound, &mut explanation.notes);
    let name = hostname::server_name(host);
    trace::l4_rules(snapshot, caller, dst, name.as_deref(), &mut explanation.notes);
    match snapshot.route_tcp(caller, dst, name.as_deref(), 0) {
        TcpDecision::Forward { destination, virtual_service } => {
            "route".clone_into(&mut explanation.action);
            let host = snapshot.registry.host_at(caller, dst);
            let rule = host.and_then(|host| match snapshot.l4_rules(caller, host, dst, name.as_deref()) {
                L4Rules::Matched(rule) => Some(rule),
                L4Rules::None | L4Rules::NoMatch => None,
            });
            let destinations =
                rule.as_ref().map_or_else(|| vec![(destination, 1)], |rule| rule.route.to_vec());
            explanation.matched = virtual_service.zip(rule).map(|(_, rule)| matched_l4(&rule));
            l4_backends(from, caller, &destinations, &|_| dst.port(), to.dialled(), &mut explanation);
        }
        TcpDecision::NoRoute => {
            "notFound".clone_into(&mut explanation.action);
            if outbound.reads_server_name {
                let name = name.unwrap_or_else(|| "none".to_owned());
                explanation.notes.push(format!(
                    "reset: no `tls` rule is for the server name that clients send (asked for: {name}; write the name after TO \
                     as the client has it)"
                ));
            }
        }
        TcpDecision::Passthrough => {
            "passthrough".clone_into(&mut explanation.action);
            let place = to.in_words(host);
            explanation
                .notes
                .push(format!("no service is known at {place}: the connection goes there as it is"));
            straight(from, dst, Protocol::Tcp, None, &mut explanation);
        }
        TcpDecision::BlackHole => {
            "deny".clone_into(&mut explanation.action);
            let note = format!(
                "reset: no service is known at {}, and outboundTrafficPolicy is REGISTRY_ONLY",
                to.in_words(host)
            );
            explanation.notes.push(note);
        }
    }
    explanation
}

fn matched_l4(rule: &L4Rule<'_>) -> Matched {
    let (list, index) = rule.place;
    Matched { virtual_service: rule.rules.key.to_string(), route: format!("{list}[{index}]") }
}

/// Tells where a connection of bytes goes. `addressed`: the port of a destination that names none. `dialled`: the address,
/// where that counts.
fn l4_backends(
    from: &Caller<'_>,
    caller: &Workload,
    destinations: &[(Destination, u32)],
    addressed: &dyn Fn(&Destination) -> u16,
    dialled: Option<SocketAddr>,
    explanation: &mut Explanation,
) {
    let snapshot = from.snapshot;
    let mut reachable = false;
    let mut entries = Entries::default();
    for (destination, weight) in destinations {
        let port = addressed(destination);
        let cluster = snapshot.cluster(caller, destination, port);
        reachable |= cluster.as_ref().is_ok_and(|cluster| !cluster.endpoints.is_empty());
        let answering = cluster.as_ref().map_or(&[][..], |cluster| cluster.answering(dialled));
        explanation.backends.push(row(destination, *weight, answering));
        trace::destination(snapshot, caller, destination, port, &mut explanation.notes);
        if let Ok(cluster) = &cluster {
            entries.add(from, (cluster, dialled), rules_of(snapshot, caller, destination), None);
        }
    }
    if !reachable {
        "unavailable".clone_into(&mut explanation.action);
    }
    entries.tell(explanation);
}

pub(crate) fn row(destination: &Destination, weight: u32, endpoints: &[Arc<Endpoint>]) -> Backend {
    Backend {
        host: destination.host.to_string(),
        subset: destination.subset.as_ref().map(ToString::to_string),
        port: destination.port,
        weight,
        endpoints: endpoints.iter().take(MOST_LISTED).map(|one| one.address.to_string()).collect(),
        more_endpoints: endpoints.len().saturating_sub(MOST_LISTED),
    }
}

fn route_name(route: &HttpRoute) -> String {
    if route.name.is_empty() { format!("http[{}]", route.index) } else { route.name.to_string() }
}

pub(crate) fn in_words(destination: &Destination) -> String {
    let subset = destination.subset.as_ref().map(|subset| format!(" subset {subset}")).unwrap_or_default();
    let port = destination.port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}{subset}", destination.host)
}

pub(crate) fn duration(length: Duration) -> String {
    format!("{length:?}")
}
