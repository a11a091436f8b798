//! What `weft get` lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_api::admin::{EndpointRow, RouteRow, WorkloadRow};
use weft_api::finding::{Finding, Severity, code};
use weft_api::istio::MESH;

use crate::explain::{MOST_LISTED, duration, row as backend};
use crate::registry::host::Host;
use crate::registry::hostname::HostPattern;
use crate::registry::protocol::Protocol;
use crate::route::gateway::GatewayPort;
use crate::route::http_route::{Destination, HttpAction, HttpRoute};
use crate::route::matching::HttpMatch;
use crate::route::virtual_service::{HttpEntry, L4Entry, Rules, Subnet, TcpMatch, TlsMatch};
use crate::shard::{Map, Set};
use crate::snapshot::Snapshot;
use crate::upstream::cluster::{Cluster, Endpoint};
use crate::workload::{Enrolment, Workload};

mod gateways;
mod policies;
mod registry;

pub use gateways::gateways;
pub use policies::policies;
pub use registry::{hosts, registrations};

/// Characters of a body that a note tells.
const MOST_OF_BODY: usize = 256;

/// One row for each route of each VirtualService in force: in the mesh, or at gateway pods of this node. Then one for each
/// service port without rules. Sorted by namespace and name.
pub fn routes(snapshot: &Snapshot) -> Vec<RouteRow> {
    let bound = all(snapshot);
    let mut rows: Vec<RouteRow> = bound.iter().flat_map(|bound| lines(snapshot, bound)).collect();
    let mut services: Vec<_> = snapshot.registry.hosts.iter().map(|(_, entry)| entry).collect();
    services.sort_unstable_by(|a, b| a.service.host.cmp(&b.service.host));
    let bare = services.into_iter().filter(|entry| snapshot.rules_for(&entry.service.host).next().is_none());
    rows.extend(bare.flat_map(|entry| default_rows(entry)));
    rows
}

/// What is wrong with accepted objects, seen together with everything else: of VirtualServices destinations that lead nowhere,
/// hosts of others that they take, and delegates that they do not get; of Gateways servers that are not served.
pub fn warnings(snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (_, ports) in snapshot.gateways.iter() {
        for unserved in ports.iter().flat_map(|port| &port.unserved) {
            findings.push(Finding {
                severity: Severity::Warning,
                code: code::PROTOCOL_MISMATCH.to_owned(),
                resource: format!("Gateway/{}", unserved.gateway),
                path: format!("spec.servers[{}].port", unserved.server),
                message: unserved.to_string(),
                file: None,
                line: None,
            });
        }
    }
    // Many pods may be of one Gateway.
    findings
        .sort_unstable_by(|a, b| (&a.resource, &a.path, &a.message).cmp(&(&b.resource, &b.path, &b.message)));
    findings.dedup();
    for bound in all(snapshot) {
        findings.extend(snapshot.taken(&bound.rules));
        let finding = |code: &str, path: String, message: String| Finding {
            severity: Severity::Warning,
            code: code.to_owned(),
            resource: format!("VirtualService/{}", bound.rules.key),
            path,
            message,
            file: None,
            line: None,
        };
        findings.extend(bound.rules.untaken.iter().map(|(index, untaken)| {
            finding(untaken.code(), format!("spec.http[{index}].delegate"), untaken.to_string())
        }));
        for (kind, index, destinations) in rules_of(&bound.rules) {
            let mut told = Vec::new();
            for (destination, _) in destinations {
                let found = resolve(snapshot, &bound, destination);
                told.extend(
                    found.notes.into_iter().filter_map(|(note, is_nowhere)| is_nowhere.then_some(note)),
                );
            }
            told.sort_unstable();
            told.dedup();
            let path = || format!("spec.{kind}[{index}]");
            findings.extend(told.into_iter().map(|message| finding(code::UNROUTABLE, path(), message)));
        }
    }
    findings
}

/// Where the rules of a VirtualService lead: of which list each is, its place there, and its destinations with their weights.
fn rules_of(rules: &Rules) -> impl Iterator<Item = (&'static str, usize, Vec<(&Destination, u32)>)> {
    fn all(route: &[(Destination, u32)]) -> Vec<(&Destination, u32)> {
        route.iter().map(|(destination, weight)| (destination, *weight)).collect()
    }
    let http = rules.http.iter().map(|entry| ("http", entry.route.index, forwards(&entry.route)));
    let tls = rules.tls.iter().enumerate().map(|(index, entry)| ("tls", index, all(&entry.route)));
    let tcp = rules.tcp.iter().enumerate().map(|(index, entry)| ("tcp", index, all(&entry.route)));
    http.chain(tls).chain(tcp)
}

/// The destinations of a route that has any.
fn forwards(route: &HttpRoute) -> Vec<(&Destination, u32)> {
    match &route.action {
        HttpAction::Forward(all) => all.iter().map(|one| (&one.destination, one.weight)).collect(),
        HttpAction::Redirect(_) | HttpAction::Respond(_) => Vec::new(),
    }
}

/// A VirtualService, and where it is in force.
struct Bound<'a> {
    rules: Arc<Rules>,
    /// This node's gateway pods that serve it.
    places: Vec<(&'a Arc<Workload>, &'a GatewayPort)>,
}

/// All VirtualServices in force, by their names.
fn all(snapshot: &Snapshot) -> Vec<Bound<'_>> {
    let mut all: BTreeMap<Arc<str>, Bound<'_>> = BTreeMap::new();
    let exact = snapshot.exact_rules.iter().map(|(_, list)| list);
    for rules in exact.chain(snapshot.wildcard_rules.values()).flat_map(|list| list.iter()) {
        all.entry(rules.key.clone()).or_insert_with(|| Bound { rules: rules.clone(), places: Vec::new() });
    }
    for (pod, ports) in snapshot.gateways.iter() {
        let Some(pod) = snapshot.workload(pod) else { continue };
        for port in ports.iter() {
            for rules in port.rules() {
                let bound = all.entry(rules.key.clone());
                let bound = bound.or_insert_with(|| Bound { rules: rules.clone(), places: Vec::new() });
                if !bound.places.iter().any(|(_, known)| std::ptr::eq(*known, port)) {
                    bound.places.push((pod, port));
                }
            }
        }
    }
    all.into_values()
        .map(|mut bound| {
            bound
                .places
                .sort_unstable_by(|(a, x), (b, y)| (&a.key, x.server_port).cmp(&(&b.key, y.server_port)));
            bound
        })
        .collect()
}

fn lines(snapshot: &Snapshot, bound: &Bound<'_>) -> Vec<RouteRow> {
    let rules = &*bound.rules;
    let mut everywhere = shadows(snapshot, rules);
    everywhere.extend(snapshot.taken(&bound.rules).into_iter().map(|finding| finding.message));
    let more = shorten(&mut everywhere, "notes");
    everywhere.extend(more);
    let gateways = rules.gateways.iter().map(ToString::to_string);
    let mut gateways: Vec<String> =
        rules.on_mesh.then(|| MESH.to_owned()).into_iter().chain(gateways).collect();
    let mut hosts: Vec<String> = rules.hosts.iter().map(ToString::to_string).collect();
    for (list, what) in [(&mut hosts, "hosts"), (&mut gateways, "gateways")] {
        everywhere.extend(shorten(list, what));
    }
    let common = |protocol: &str, index: usize| RouteRow {
        namespace: rules.age.namespace.to_string(),
        virtual_service: rules.age.name.to_string(),
        hosts: hosts.clone(),
        gateways: gateways.clone(),
        protocol: protocol.to_owned(),
        index,
        ..RouteRow::default()
    };
    let mut catch_all: Option<&HttpRoute> = None;
    let mut rows = Vec::new();
    for entry in &rules.http {
        let mut row = http_row(snapshot, bound, entry, common("http", entry.route.index));
        row.notes.extend(everywhere.iter().cloned());
        if let Some(earlier) = catch_all {
            let by = earlier.delegate.as_ref().map(|key| format!(", by {key},")).unwrap_or_default();
            row.notes.push(format!("never reached: http[{}]{by} matches everything", earlier.index));
        } else if matches_all(entry) {
            catch_all = Some(&entry.route);
        }
        rows.push(row);
    }
    let tls = rules.tls.iter().enumerate();
    let tls = tls.map(|(index, entry)| (common("tls", index), tls_match(entry), &entry.route));
    let tcp = rules.tcp.iter().enumerate();
    let tcp = tcp.map(|(index, entry)| (common("tcp", index), tcp_match(entry), &entry.route));
    for (mut row, matches, route) in tls.chain(tcp) {
        row.r#match = matches;
        row.action = "route".into();
        for (destination, weight) in route {
            add_backend(snapshot, bound, destination, *weight, &mut row);
        }
        row.notes.extend(everywhere.iter().cloned());
        rows.push(row);
    }
    rows
}

/// Leaves the first ones of many; says how many it has left out.
fn shorten(list: &mut Vec<String>, what: &str) -> Option<String> {
    let more = list.len().checked_sub(MOST_LISTED).filter(|more| *more > 0)?;
    list.truncate(MOST_LISTED);
    Some(format!("{more} more {what} are not listed"))
}

/// Names the rules that take hosts of these away from callers in the mesh.
fn shadows(snapshot: &Snapshot, rules: &Rules) -> Vec<String> {
    let mut notes = Vec::new();
    for pattern in rules.hosts.iter().filter(|_| rules.on_mesh) {
        let list = match pattern {
            HostPattern::Exact(name) => snapshot.exact_rules.get(name),
            HostPattern::Below(suffix) => snapshot.wildcard_rules.get(suffix),
        };
        let Some(older) = list.and_then(|list| list.first()).filter(|older| older.key != rules.key) else {
            continue;
        };
        notes.push(format!("{pattern} is taken by {}, which is older (where callers see it)", older.key));
    }
    notes
}

fn matches_all(entry: &HttpEntry) -> bool {
    let all = |entry: &HttpMatch| entry.conditions.is_empty() && entry.source.is_open();
    entry.matches.is_empty() || entry.matches.iter().any(all)
}

fn http_row(snapshot: &Snapshot, bound: &Bound<'_>, entry: &HttpEntry, mut row: RouteRow) -> RouteRow {
    let route = &entry.route;
    row.name = Some(route.name.to_string()).filter(|name| !name.is_empty());
    row.r#match = or_all(entry.matches.iter().map(|entry| {
        let conditions = entry.conditions.iter().map(ToString::to_string);
        entry.source.describe().into_iter().chain(conditions).collect::<Vec<_>>().join(" and ")
    }));
    row.notes.extend(route.delegate.as_ref().map(|key| format!("delegated to VirtualService {key}")));
    row.timeout = route.timeout.map(duration);
    for (destination, weight) in forwards(route) {
        add_backend(snapshot, bound, destination, weight, &mut row);
    }
    row.action = match &route.action {
        HttpAction::Forward(_) => "route".into(),
        HttpAction::Redirect(_) => "redirect".into(),
        HttpAction::Respond(response) => {
            if response.status.is_server_error() {
                row.notes.push(String::from_utf8_lossy(&response.body).chars().take(MOST_OF_BODY).collect());
            }
            format!("directResponse {}", response.status.as_u16())
        }
    };
    row
}

fn tls_match(entry: &L4Entry<TlsMatch>) -> String {
    or_all(entry.matches.iter().map(|entry| {
        let names: Vec<String> = entry.names.iter().map(ToString::to_string).collect();
        let name = format!("server name {}", names.join(" or "));
        let all = entry.source.describe().into_iter().chain([name]);
        all.chain(in_subnets("address", entry.subnets.as_deref())).collect::<Vec<_>>().join(" and ")
    }))
}

fn tcp_match(entry: &L4Entry<TcpMatch>) -> String {
    or_all(entry.matches.iter().map(|entry| {
        let all = entry.source.describe().into_iter().chain(in_subnets("caller", entry.from.as_deref()));
        all.chain(in_subnets("address", entry.subnets.as_deref())).collect::<Vec<_>>().join(" and ")
    }))
}

fn in_subnets(what: &str, nets: Option<&[Subnet]>) -> impl Iterator<Item = String> {
    nets.into_iter().flatten().map(move |net| format!("{what} in {net}"))
}

fn or_all(alternatives: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = alternatives.map(|text| if text.is_empty() { "*".into() } else { text }).collect();
    if all.is_empty() || all.iter().any(|text| text == "*") { "*".into() } else { all.join(" or ") }
}

/// What a destination is, seen from where the rule is in force.
struct Resolved {
    /// What is wrong with it, and whether it cannot be resolved at all.
    notes: Vec<(String, bool)>,
    /// As the first sees it that can resolve it.
    cluster: Option<Arc<Cluster>>,
}

/// Resolves a destination as a caller of the rule's own namespace would, where the rule is for callers, and as each gateway
/// that serves it does.
fn resolve(snapshot: &Snapshot, bound: &Bound<'_>, destination: &Destination) -> Resolved {
    // Without a port of its own, any port that the service has may be the one addressed.
    let entry = snapshot.registry.host(&destination.host);
    let addressed = entry.and_then(|entry| entry.ports.first()).map_or(0, |port| port.port);
    let somebody = Workload::unknown(bound.rules.age.namespace.clone(), "".into());
    let mesh =
        bound.rules.on_mesh.then(|| (String::new(), snapshot.cluster(&somebody, destination, addressed)));
    let gateways = bound.places.iter().map(|(pod, served)| {
        (format!("at gateway {}: ", pod.key), snapshot.cluster_at_gateway(pod, served, destination))
    });
    let mut resolved = Resolved { notes: Vec::new(), cluster: None };
    for (place, found) in mesh.into_iter().chain(gateways) {
        let (note, is_nowhere) = match (found, entry) {
            (Ok(cluster), _) => {
                let is_empty = cluster.endpoints.is_empty();
                resolved.cluster.get_or_insert(cluster);
                if !is_empty {
                    continue;
                }
                let name = crate::explain::in_words(destination);
                (format!("{place}503: {name} has no ready endpoint"), false)
            }
            (Err(_), None) => (format!("{place}503: no service {}", destination.host), true),
            (Err(error), Some(_)) => (format!("{place}503: {error}"), true),
        };
        if !resolved.notes.iter().any(|(other, _)| *other == note) {
            resolved.notes.push((note, is_nowhere));
        }
    }
    resolved
}

fn add_backend(
    snapshot: &Snapshot,
    bound: &Bound<'_>,
    destination: &Destination,
    weight: u32,
    row: &mut RouteRow,
) {
    let Resolved { notes, cluster } = resolve(snapshot, bound, destination);
    for (note, _) in notes {
        if !row.notes.contains(&note) {
            row.notes.push(note);
        }
    }
    row.backends.push(backend(destination, weight, cluster.as_ref().map_or(&[][..], |it| &it.endpoints)));
}

fn default_rows(entry: &Host) -> Vec<RouteRow> {
    let line = |(index, port): (usize, &crate::registry::host::HostPort)| {
        let clusters = entry.policies.others.port(port.port);
        let destination =
            Destination { host: entry.service.host.clone(), subset: None, port: Some(port.port) };
        RouteRow {
            namespace: entry.service.namespace.to_string(),
            hosts: vec![entry.service.host.to_string()],
            protocol: if port.protocol == Protocol::Tcp { "tcp".into() } else { "http".into() },
            index,
            name: Some("default".into()),
            r#match: "*".into(),
            action: "route".into(),
            backends: vec![backend(
                &destination,
                1,
                clusters.map_or(&[][..], |clusters| &clusters.whole.endpoints),
            )],
            ..RouteRow::default()
        }
    };
    entry.ports.iter().enumerate().map(line).collect()
}

/// One row for each endpoint of each service port, sorted by service, port and address.
pub fn endpoints(snapshot: &Snapshot) -> Vec<EndpointRow> {
    let mut rows = Vec::new();
    for (_, entry) in snapshot.registry.hosts.iter() {
        for (port, clusters) in entry.ports.iter().zip(&entry.policies.others.ports) {
            for endpoint in clusters.whole.endpoints.iter() {
                let holds = |list: &[Arc<Endpoint>]| list.iter().any(|other| Arc::ptr_eq(other, endpoint));
                let subsets = clusters.subsets.iter().filter(|subset| holds(&subset.endpoints));
                let workload = endpoint.workload.as_ref();
                let node = workload.map(|workload| workload.node.to_string()).filter(|node| !node.is_empty());
                rows.push(EndpointRow {
                    service: entry.service.host.to_string(),
                    port: port.port,
                    port_name: port.name.to_string(),
                    protocol: protocol_name(port.protocol).to_owned(),
                    address: endpoint.address.to_string(),
                    workload: workload.map(|workload| format!("pod/{}", workload.name)),
                    local: node.as_deref() == Some(&*snapshot.node),
                    node,
                    health: "healthy".to_owned(),
                    subsets: subsets
                        .filter_map(|cluster| cluster.subset.as_ref())
                        .map(ToString::to_string)
                        .collect(),
                });
            }
        }
    }
    rows.sort_by(|a, b| (&a.service, a.port, &a.address).cmp(&(&b.service, b.port, &b.address)));
    rows
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Http2 => "http2",
        Protocol::Tcp => "tcp",
        Protocol::Detect => "detect",
    }
}

/// One row for each pod, sorted by namespace and name.
pub fn workloads(snapshot: &Snapshot, trust_domain: &str) -> Vec<WorkloadRow> {
    let mut services: Map<Arc<str>, Set<Arc<str>>> = Map::default();
    for (host, entry) in snapshot.registry.hosts.iter() {
        for endpoint in entry.policies.others.ports.iter().flat_map(|port| port.whole.endpoints.iter()) {
            if let Some(workload) = &endpoint.workload {
                services.entry(workload.key.clone()).or_default().insert(host.clone());
            }
        }
    }
    let mut all: Vec<_> = snapshot.workloads().collect();
    all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let line = |workload: &&Arc<Workload>| {
        let mut of: Vec<String> =
            services.get(&workload.key).into_iter().flatten().map(ToString::to_string).collect();
        of.sort_unstable();
        let (namespace, account) = (&workload.namespace, &workload.service_account);
        WorkloadRow {
            namespace: namespace.to_string(),
            name: workload.name.to_string(),
            owner: Some(workload.workload_name.to_string()).filter(|name| **name != *workload.name),
            addresses: workload.addresses.iter().map(ToString::to_string).collect(),
            node: Some(workload.node.to_string()).filter(|node| !node.is_empty()),
            identity: format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}"),
            labels: (*workload.labels).clone(),
            services: of,
            enrolled: workload.enrolment == Enrolment::Enrolled,
            ending: workload.terminating,
            reason: workload.enrolment.reason().map(str::to_owned),
        }
    };
    all.iter().map(line).collect()
}
