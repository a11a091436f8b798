//! Checks between objects.

use std::collections::{BTreeSet, HashMap};

use super::Source;
use super::index::{Index, Protocol, full_host, protocol};
use super::{hosts, network, security};
use crate::delegate::{self, Found};
use crate::finding::{Severity, code};
use crate::istio::{Destination, DestinationRule, MESH, VirtualService};
use crate::kubernetes::Service;
use crate::load::Loaded;
use crate::object::Object;
use crate::validate::{Problem, Report, is_ip};

/// Makes all checks; answers problems with the places of their objects.
pub(super) fn check(sources: &[Source<'_>], loaded: &[Loaded]) -> Vec<(usize, Problem)> {
    let index = Index::of(sources, loaded);
    let mut problems = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        let mut report = Report::default();
        match &source.loaded.object {
            Object::VirtualService(o) => virtual_service(&mut report, &index, o),
            Object::DestinationRule(o) => destination_rule(&mut report, &index, o),
            Object::Service(o) => service(&mut report, &index, o),
            Object::PeerAuthentication(o) => security::peer_authentication(&mut report, &index, o),
            Object::AuthorizationPolicy(o) => security::authorization_policy(&mut report, &index, o),
            Object::RequestAuthentication(o) => security::request_authentication(&mut report, &index, o),
            _ => {}
        }
        problems.extend(report.into_problems().into_iter().map(|problem| (at, problem)));
    }
    shadowed_virtual_services(&index, &mut problems);
    security::shadowed(&index, &mut problems);
    tunnels_kept_out(&index, &mut problems);
    for rules in index.destination_rules.values() {
        shadowed_destination_rules(rules, &mut problems);
    }
    problems
}

/// NetworkPolicies that would break the mesh's traffic between nodes, where their namespace is in the mesh, or may be.
fn tunnels_kept_out(index: &Index<'_>, problems: &mut Vec<(usize, Problem)>) {
    for (namespace, policies) in &index.network_policies {
        let severity = match index.namespaces.get(namespace) {
            Some(false) => continue,
            Some(true) => Severity::Warning,
            None => Severity::Info,
        };
        let all: Vec<_> = policies.iter().map(|(_, policy)| *policy).collect();
        for gap in network::without_tunnels(&all) {
            let Some((at, _)) = policies.iter().find(|(_, policy)| std::ptr::eq(*policy, gap.policy)) else {
                continue;
            };
            let mut report = Report::default();
            report.field("spec", |r| {
                r.item(gap.direction, gap.rule, |r| {
                    r.field("ports", |r| r.push(severity, code::TUNNELS_KEPT_OUT, gap.message()));
                });
            });
            problems.extend(report.into_problems().into_iter().map(|problem| (*at, problem)));
        }
    }
}

fn virtual_service(report: &mut Report, index: &Index<'_>, object: &VirtualService) {
    let (spec, namespace) = (&object.spec, object.metadata.namespace.as_str());
    report.field("spec", |report| {
        delegates(report, index, object);
        report.each("http", &spec.http, |r, route| {
            r.each("route", &route.route, |r, one| {
                destination(r, index, "destination", &one.destination, object);
            });
            if let Some(mirror) = &route.mirror {
                destination(r, index, "mirror", mirror, object);
            }
            r.each("mirrors", &route.mirrors, |r, one| {
                destination(r, index, "destination", &one.destination, object);
            });
        });
        report.each("tls", &spec.tls, |r, route| {
            r.each("route", &route.route, |r, one| {
                destination(r, index, "destination", &one.destination, object);
            });
        });
        report.each("tcp", &spec.tcp, |r, route| {
            r.each("route", &route.route, |r, one| {
                destination(r, index, "destination", &one.destination, object);
            });
        });
        if in_mesh(object) {
            hosts::of_rules(report, index, object);
            for (at, host) in spec.hosts.iter().enumerate() {
                if let Some(service) = index.services.get(&full_host(host, namespace)) {
                    report.item("hosts", at, |r| rules_for_ports(r, object, service));
                }
            }
        }
    });
}

/// Delegates that it does not get, and whether anybody delegates to one that is nothing else.
fn delegates(report: &mut Report, index: &Index<'_>, object: &VirtualService) {
    let namespace = object.metadata.namespace.as_str();
    let own = format!("{namespace}/{}", object.metadata.name);
    let find = |key: &str| match index.delegate(key, namespace) {
        Found::Delegate(_) if index.beyond.contains(&(own.clone(), key.to_owned())) => Found::NoRoom,
        found => found,
    };
    for (at, untaken) in delegate::expand(object, find, full_host, |_| ()) {
        report.item("http", at, |r| {
            r.field("delegate", |r| r.warning(untaken.code(), untaken.to_string()));
        });
    }
    if object.spec.hosts.is_empty() && !index.delegated_to.contains(&own) {
        report.field("hosts", |r| {
            r.info(code::NO_EFFECT, "it has no hosts, and none of the files has rules that delegate to it");
        });
    }
}

fn in_mesh(object: &VirtualService) -> bool {
    let gateways = &object.spec.gateways;
    gateways.is_empty() || gateways.iter().any(|gateway| gateway == MESH)
}

/// Whether the service has ports that the rules can be for.
fn rules_for_ports(report: &mut Report, object: &VirtualService, service: &Service) {
    let ports: Vec<_> = service.spec.ports.iter().map(|port| (protocol(port), port.port)).collect();
    let has =
        |wanted: Protocol| ports.iter().any(|(speaks, _)| *speaks == wanted || *speaks == Protocol::Detect);
    let listed = || {
        let names: Vec<_> =
            service.spec.ports.iter().map(|port| format!("{} {:?}", port.port, port.name)).collect();
        names.join(", ")
    };
    if ports.is_empty() {
        return;
    }
    if !object.spec.http.is_empty() && !has(Protocol::Http) {
        let message =
            format!("no port of the service speaks HTTP: its http rules are for none (ports: {})", listed());
        report.warning(code::PROTOCOL_MISMATCH, message);
    }
    if !object.spec.tcp.is_empty() && !has(Protocol::Tcp) {
        let message =
            format!("no port of the service is plain TCP: its tcp rules are for none (ports: {})", listed());
        report.warning(code::PROTOCOL_MISMATCH, message);
    }
    if !object.spec.tls.is_empty() && !ports.iter().any(|(speaks, _)| *speaks == Protocol::Tls) {
        let message = format!(
            "no port of the service is declared to speak TLS: its tls rules are for none (name the port tls or https; ports: {})",
            listed()
        );
        report.warning(code::PROTOCOL_MISMATCH, message);
    }
}

/// A destination that the files do not define: the calls would be answered with 503.
fn destination(
    report: &mut Report,
    index: &Index<'_>,
    field: &'static str,
    to: &Destination,
    object: &VirtualService,
) {
    let host = full_host(&to.host, &object.metadata.namespace);
    report.field(field, |report| {
        let service = index.services.get(&host);
        if service.is_none() && !is_ip(&to.host) {
            report.field("host", |r| unknown_host(r, index, &to.host, &host));
        }
        if let (Some(service), Some(port)) = (service, &to.port)
            && !service.spec.ports.iter().any(|p| u32::from(p.port) == port.number)
        {
            let ports: Vec<_> = service.spec.ports.iter().map(|port| port.port.to_string()).collect();
            let message = format!("{host} has no port {} (it has {})", port.number, ports.join(", "));
            report.field("port", |r| r.field("number", |r| r.warning(code::UNKNOWN_PORT, message)));
        }
        if let Some(subset) = to.subset.as_deref().filter(|subset| !subset.is_empty()) {
            report.field("subset", |r| {
                unknown_subset(r, index, &host, subset);
                hosts::subset_at_gateways(r, index, object, &host, subset);
            });
        }
    });
}

fn unknown_host(report: &mut Report, index: &Index<'_>, written: &str, host: &str) {
    // `reviews.default` is a name of its own, not a short one.
    let cure = hosts::meant(index, written).map_or_else(String::new, |full| format!(" (write {full})"));
    let message = format!("none of the files defines a service {host}{cure}");
    // Without a single service the files are not meant to be complete.
    let sure = !index.services.is_empty() && !index.other_hosts;
    let severity = if sure || !cure.is_empty() { Severity::Warning } else { Severity::Info };
    report.push(severity, code::UNKNOWN_HOST, message);
}

fn unknown_subset(report: &mut Report, index: &Index<'_>, host: &str, subset: &str) {
    let rules = index.destination_rules.get(host).map_or(&[][..], Vec::as_slice);
    let names: BTreeSet<&str> =
        rules.iter().flat_map(|(_, rule)| &rule.spec.subsets).map(|s| s.name.as_str()).collect();
    if names.contains(subset) {
        return;
    }
    let names: Vec<&str> = names.into_iter().collect();
    let message = match names[..] {
        [] => format!("none of the files has a DestinationRule for {host} that defines subset {subset:?}"),
        _ => format!("no DestinationRule for {host} defines subset {subset:?} (it has {})", names.join(", ")),
    };
    let sure = !rules.is_empty() || !index.destination_rules.is_empty();
    report.push(if sure { Severity::Warning } else { Severity::Info }, code::UNKNOWN_SUBSET, message);
}

fn destination_rule(report: &mut Report, index: &Index<'_>, object: &DestinationRule) {
    let host = full_host(&object.spec.host, &object.metadata.namespace);
    let Some(service) = index.services.get(&host) else {
        if !host.starts_with('*') && !is_ip(&object.spec.host) {
            report.field("spec", |r| r.field("host", |r| unknown_host(r, index, &object.spec.host, &host)));
        }
        return;
    };
    security::plaintext_to_strict(report, index, service, object);
    let Some(pods) = index.pods_of(service).filter(|pods| !pods.is_empty()) else { return };
    report.field("spec", |report| {
        report.each("subsets", &object.spec.subsets, |r, subset| {
            let has = |pod: &&&crate::kubernetes::Pod| {
                subset.labels.iter().all(|(key, value)| pod.metadata.labels.get(key) == Some(value))
            };
            if pods.iter().find(has).is_none() {
                r.field("labels", |r| {
                    r.warning(
                        code::EMPTY_SUBSET,
                        format!("no pod of {host} has these labels: calls answer 503"),
                    );
                });
            }
        });
    });
}

fn service(report: &mut Report, index: &Index<'_>, object: &Service) {
    report.field("spec", |report| {
        report.each("ports", &object.spec.ports, |r, port| {
            let tcp = port.protocol.is_empty() || port.protocol == "TCP";
            if tcp && protocol(port) == Protocol::Detect {
                r.field("name", |r| {
                    r.info(
                        code::PORT_NAMING,
                        format!(
                            "port {} declares no protocol: it is found out from the first bytes (begin the name with http, grpc, \
                             tcp, …, or write appProtocol)",
                            port.port
                        ),
                    );
                });
            }
        });
        if index.pods_of(object).is_some_and(|pods| pods.is_empty()) {
            report.field("selector", |r| r.info(code::NO_ENDPOINTS, "no pod in the files has these labels"));
        }
    });
}

/// Whether callers of one namespace see both.
fn seen_together(a: (&str, &[String]), b: (&str, &[String])) -> bool {
    let everywhere = |to: &[String]| to.is_empty() || to.iter().any(|to| to == "*");
    let seen_in = |(own, to): (&str, &[String]), namespace: &str| {
        everywhere(to) || to.iter().any(|to| to == namespace || (to == "." && own == namespace))
    };
    let namespaces = |(own, to): (&str, &[String])| -> Vec<String> {
        to.iter().map(|to| if to == "." { own.to_owned() } else { to.clone() }).collect()
    };
    match (everywhere(a.1), everywhere(b.1)) {
        (true, true) => true,
        (true, false) => namespaces(b).iter().any(|namespace| namespace != "~"),
        _ => namespaces(a).iter().any(|namespace| namespace != "~" && seen_in(b, namespace)),
    }
}

/// Of several VirtualServices for one host the oldest holds, alone.
fn shadowed_virtual_services(index: &Index<'_>, problems: &mut Vec<(usize, Problem)>) {
    let mut first: HashMap<String, &VirtualService> = HashMap::new();
    for (at, object) in index.virtual_services.iter().filter(|(_, object)| in_mesh(object)) {
        let meta = &object.metadata;
        let mut report = Report::default();
        report.field("spec", |report| {
            report.each("hosts", &object.spec.hosts, |r, host| {
                let host = full_host(host, &meta.namespace);
                let Some(older) = first.get(host.as_str()) else {
                    first.insert(host, object);
                    return;
                };
                let place = |o: &'_ VirtualService| format!("{}/{}", o.metadata.namespace, o.metadata.name);
                let together = seen_together(
                    (&older.metadata.namespace, &older.spec.export_to),
                    (&meta.namespace, &object.spec.export_to),
                );
                if together && !std::ptr::eq(*older, *object) {
                    let why = if older.metadata.creation_timestamp == meta.creation_timestamp {
                        "comes first by its name"
                    } else {
                        "is older"
                    };
                    r.warning(
                        code::SHADOWED,
                        format!(
                            "the rules for {host} are not in force: VirtualService {} has the host too and {why} (put all rules \
                             into one)",
                            place(older)
                        ),
                    );
                }
            });
        });
        problems.extend(report.into_problems().into_iter().map(|problem| (*at, problem)));
    }
}

/// Of several DestinationRules for one host in one namespace the first definition of a subset holds, and the first
/// policy. Rules for other callers are other rules.
fn shadowed_destination_rules(rules: &[(usize, &DestinationRule)], problems: &mut Vec<(usize, Problem)>) {
    let mut subsets: HashMap<(&str, &str), &str> = HashMap::new();
    let mut policies: HashMap<&str, &str> = HashMap::new();
    for (at, rule) in rules.iter().filter(|(_, rule)| rule.spec.workload_selector.is_none()) {
        let (namespace, name) = (rule.metadata.namespace.as_str(), rule.metadata.name.as_str());
        let mut report = Report::default();
        report.field("spec", |report| {
            report.each("subsets", &rule.spec.subsets, |r, subset| {
                if let Some(older) = subsets.get(&(namespace, subset.name.as_str())) {
                    r.field("name", |r| {
                        r.warning(
                            code::SHADOWED,
                            format!("not in force: {older} defines the subset too and comes first"),
                        );
                    });
                } else {
                    subsets.insert((namespace, &subset.name), name);
                }
            });
            if rule.spec.traffic_policy.is_some() {
                if let Some(older) = policies.get(namespace) {
                    report.field("trafficPolicy", |r| {
                        r.warning(
                            code::SHADOWED,
                            format!("not in force: {older} has a policy too and comes first"),
                        );
                    });
                } else {
                    policies.insert(namespace, name);
                }
            }
        });
        problems.extend(report.into_problems().into_iter().map(|problem| (*at, problem)));
    }
}
