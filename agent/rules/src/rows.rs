//! What `weft get` lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_api::admin::{EndpointRow, RouteRow, WorkloadRow};
use weft_api::finding::{Finding, Severity, code};
use weft_api::istio::MESH;

use crate::explain::{duration, row};
use crate::registry::host::Host;
use crate::registry::hostname::HostPattern;
use crate::registry::protocol::Protocol;
use crate::route::gateway::GatewayPort;
use crate::route::http_route::{Destination, HttpAction};
use crate::route::matching::HttpMatch;
use crate::route::virtual_service::{HttpEntry, L4Entry, Rules, Subnet, TcpMatch, TlsMatch};
use crate::shard::{Map, Set};
use crate::snapshot::Snapshot;
use crate::upstream::cluster::Endpoint;
use crate::workload::{Enrolment, Workload};

mod policies;
mod registry;

pub use policies::policies;
pub use registry::{hosts, registrations};

/// One row for each route of each VirtualService in force: in the mesh, or at gateway pods of this node. Then one for each
/// service port without rules. Sorted by namespace and name.
pub fn routes(snapshot: &Snapshot) -> Vec<RouteRow> {
    let bound = all(snapshot);
    let mut rows: Vec<RouteRow> =
        bound.iter().flat_map(|bound| lines(snapshot, bound)).map(|line| line.row).collect();
    let mut services: Vec<_> = snapshot.registry.hosts.iter().map(|(_, entry)| entry).collect();
    services.sort_unstable_by(|a, b| a.service.host.cmp(&b.service.host));
    let bare = services.into_iter().filter(|entry| snapshot.rules_for(&entry.service.host).next().is_none());
    rows.extend(bare.flat_map(|entry| default_rows(entry)));
    rows
}

/// What is wrong with accepted VirtualServices, seen together with everything else: destinations that lead nowhere, hosts of
/// others that they take, and delegates that they do not get.
pub fn warnings(snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
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
        for Line { row, nowhere } in lines(snapshot, &bound) {
            let path = || format!("spec.{}[{}]", row.protocol, row.index);
            findings.extend(nowhere.into_iter().map(|message| finding(code::UNROUTABLE, path(), message)));
        }
    }
    findings
}

/// A row in the making.
struct Line {
    row: RouteRow,
    /// Destinations that cannot be resolved; the row's notes name them too.
    nowhere: Vec<String>,
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

fn lines(snapshot: &Snapshot, bound: &Bound<'_>) -> Vec<Line> {
    let rules = &*bound.rules;
    let gateways = rules.gateways.iter().map(ToString::to_string);
    let common = |protocol: &str, index: usize| Line {
        row: RouteRow {
            namespace: rules.age.namespace.to_string(),
            virtual_service: rules.age.name.to_string(),
            hosts: rules.hosts.iter().map(ToString::to_string).collect(),
            gateways: rules.on_mesh.then(|| MESH.to_owned()).into_iter().chain(gateways.clone()).collect(),
            protocol: protocol.to_owned(),
            index,
            ..RouteRow::default()
        },
        nowhere: Vec::new(),
    };
    let mut everywhere = shadows(snapshot, rules);
    everywhere.extend(snapshot.taken(&bound.rules).into_iter().map(|finding| finding.message));
    let mut catch_all: Option<usize> = None;
    let mut rows = Vec::new();
    for entry in &rules.http {
        let index = entry.route.index;
        let mut line = http_row(snapshot, bound, entry, common("http", index));
        line.row.notes.extend(everywhere.iter().cloned());
        if let Some(earlier) = catch_all {
            line.row.notes.push(format!("never reached: http[{earlier}] matches everything"));
        } else if matches_all(entry) {
            catch_all = Some(index);
        }
        rows.push(line);
    }
    let tls = rules.tls.iter().enumerate();
    let tls = tls.map(|(index, entry)| (common("tls", index), tls_match(entry), &entry.route));
    let tcp = rules.tcp.iter().enumerate();
    let tcp = tcp.map(|(index, entry)| (common("tcp", index), tcp_match(entry), &entry.route));
    for (mut line, matches, route) in tls.chain(tcp) {
        line.row.r#match = matches;
        line.row.action = "route".into();
        for (destination, weight) in route {
            add_backend(snapshot, bound, destination, *weight, &mut line);
        }
        line.row.notes.extend(everywhere.iter().cloned());
        rows.push(line);
    }
    rows
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

fn http_row(snapshot: &Snapshot, bound: &Bound<'_>, entry: &HttpEntry, mut line: Line) -> Line {
    let route = &entry.route;
    line.row.name = Some(route.name.to_string()).filter(|name| !name.is_empty());
    line.row.r#match = or_all(entry.matches.iter().map(|entry| {
        let conditions = entry.conditions.iter().map(ToString::to_string);
        entry.source.describe().into_iter().chain(conditions).collect::<Vec<_>>().join(" and ")
    }));
    line.row.notes.extend(route.delegate.as_ref().map(|key| format!("delegated to VirtualService {key}")));
    line.row.timeout = route.timeout.map(duration);
    line.row.action = match &route.action {
        HttpAction::Forward(destinations) => {
            for destination in destinations {
                add_backend(snapshot, bound, &destination.destination, destination.weight, &mut line);
            }
            "route".into()
        }
        HttpAction::Redirect(_) => "redirect".into(),
        HttpAction::Respond(response) => {
            if response.status.is_server_error() {
                line.row.notes.push(String::from_utf8_lossy(&response.body).into_owned());
            }
            format!("directResponse {}", response.status.as_u16())
        }
    };
    line
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

/// Resolves a backend as a caller of the rule's own namespace would, where the rule is for callers, and as each gateway
/// that serves it does.
fn add_backend(
    snapshot: &Snapshot,
    bound: &Bound<'_>,
    destination: &Destination,
    weight: u32,
    line: &mut Line,
) {
    // Without a port of its own, any port that the service has may be the one addressed.
    let entry = snapshot.registry.host(&destination.host);
    let addressed = entry.and_then(|entry| entry.ports.first()).map_or(0, |port| port.port);
    let somebody = Workload::unknown(bound.rules.age.namespace.clone(), "".into());
    let mesh =
        bound.rules.on_mesh.then(|| (String::new(), snapshot.cluster(&somebody, destination, addressed)));
    let gateways = bound.places.iter().map(|(pod, served)| {
        (format!("at gateway {}: ", pod.key), snapshot.cluster_at_gateway(pod, served, destination))
    });
    let found: Vec<_> = mesh.into_iter().chain(gateways).collect();
    for (place, found) in &found {
        let note = match (found, entry) {
            (Ok(cluster), _) if cluster.endpoints.is_empty() => {
                format!("{place}503: {} has no ready endpoint", crate::explain::in_words(destination))
            }
            (Ok(_), _) => continue,
            (Err(_), None) => format!("{place}503: no service {}", destination.host),
            (Err(error), Some(_)) => format!("{place}503: {error}"),
        };
        if line.row.notes.contains(&note) {
            continue;
        }
        if found.is_err() {
            line.nowhere.push(note.clone());
        }
        line.row.notes.push(note);
    }
    let first = found.iter().find_map(|(_, found)| found.as_ref().ok());
    line.row.backends.push(row(destination, weight, first.map_or(&[][..], |cluster| &cluster.endpoints)));
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
            backends: vec![row(
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
