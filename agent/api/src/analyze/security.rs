//! Checks between security policies, the workloads that they are for, and MeshConfig.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::index::{Index, Protocol, protocol};
use crate::finding::code;
use crate::istio::{
    AuthorizationPolicy, DestinationRule, MutualTlsMode, PeerAuthentication, PolicyAction,
    RequestAuthentication, Rule, TlsMode, TrafficPolicy, WorkloadSelector,
};
use crate::kubernetes::{IntOrString, Pod, Service};
use crate::meta::{Labels, ObjectMeta};
use crate::validate::{Problem, Report};
use crate::yaml::shorten;

/// The namespace whose policies hold for the whole mesh. A file cannot tell that it is another.
const ROOT: &str = "istio-system";

/// Checks whom the policy is for, and its ports.
pub(super) fn peer_authentication(report: &mut Report, index: &Index<'_>, object: &PeerAuthentication) {
    let spec = &object.spec;
    let pods = selected(index, &object.metadata, spec.selector.as_ref());
    report.field("spec", |report| {
        no_workload(report, spec.selector.as_ref(), pods.as_deref());
        let Some(pods) = pods.as_deref().filter(|pods| !pods.is_empty()) else { return };
        report.field("portLevelMtls", |report| {
            for port in spec.port_level_mtls.keys() {
                report.field(port.to_string(), |r| unknown_port(r, index, pods, *port));
            }
        });
    });
}

/// Checks whom the policy is for.
pub(super) fn request_authentication(report: &mut Report, index: &Index<'_>, object: &RequestAuthentication) {
    let selector = object.spec.selector.as_ref();
    let pods = selected(index, &object.metadata, selector);
    report.field("spec", |r| no_workload(r, selector, pods.as_deref()));
}

/// Checks whom the policy is for, whom it names, and whom it asks.
pub(super) fn authorization_policy(report: &mut Report, index: &Index<'_>, object: &AuthorizationPolicy) {
    let (meta, spec) = (&object.metadata, &object.spec);
    let for_targets = spec.target_ref.is_some() || !spec.target_refs.is_empty();
    let pods = selected(index, meta, spec.selector.as_ref()).filter(|_| !for_targets);
    report.field("spec", |report| {
        no_workload(report, spec.selector.as_ref(), pods.as_deref());
        if let Some(provider) = &spec.provider {
            report.field("provider", |r| r.field("name", |r| unknown_provider(r, index, &provider.name)));
        }
        report.each("rules", &spec.rules, |r, rule| {
            callers(r, index, &meta.namespace, rule);
            let Some(pods) = pods.as_deref().filter(|pods| !pods.is_empty()) else { return };
            r.each("to", &rule.to, |r, to| {
                let Some(operation) = &to.operation else { return };
                r.field("operation", |r| {
                    r.each("ports", &operation.ports, |r, port| {
                        if let Ok(port) = port.parse() {
                            unknown_port(r, index, pods, port);
                        }
                    });
                });
            });
            requests_on_tcp(r, index, pods, spec.action, rule);
        });
    });
}

/// The pods that a policy is for; `None` when the files cannot tell.
fn selected<'a>(
    index: &Index<'a>,
    meta: &ObjectMeta,
    selector: Option<&WorkloadSelector>,
) -> Option<Vec<&'a Pod>> {
    let everywhere = meta.namespace == ROOT;
    let pods = index
        .pods
        .iter()
        .filter(|(namespace, _)| everywhere || **namespace == meta.namespace)
        .flat_map(|(_, pods)| pods.iter().copied());
    let pods: Vec<&Pod> = pods.collect();
    if pods.is_empty() {
        return None;
    }
    let wanted = selector.map(|selector| &selector.match_labels);
    Some(pods.into_iter().filter(|pod| wanted.is_none_or(|labels| has(pod, labels))).collect())
}

fn has(pod: &Pod, labels: &Labels) -> bool {
    labels.iter().all(|(key, value)| pod.metadata.labels.get(key) == Some(value))
}

fn no_workload(report: &mut Report, selector: Option<&WorkloadSelector>, pods: Option<&[&Pod]>) {
    if selector.is_some_and(|selector| !selector.match_labels.is_empty()) && pods.is_some_and(<[_]>::is_empty)
    {
        report.field("selector", |r| {
            r.field("matchLabels", |r| {
                r.warning(
                    code::NO_ENDPOINTS,
                    "no pod in the files has these labels: the policy is for nobody",
                );
            });
        });
    }
}

fn unknown_provider(report: &mut Report, index: &Index<'_>, name: &str) {
    let shown = shorten(name);
    let Some(providers) = &index.providers else {
        let message =
            format!("none of the files holds MeshConfig, whose extensionProviders must have {shown:?}");
        return report.info(code::UNKNOWN_PROVIDER, message);
    };
    match providers.iter().find(|provider| provider.name == name) {
        Some(it) if it.envoy_ext_authz_http.is_none() && it.envoy_ext_authz_grpc.is_none() => {
            report.warning(
                code::UNKNOWN_PROVIDER,
                format!(
                    "{shown:?} decides nothing: it is neither envoyExtAuthzHttp nor envoyExtAuthzGrpc, and requests \
                     that match are refused"
                ),
            );
        }
        Some(_) => {}
        None => {
            let names: Vec<&str> = providers.iter().map(|provider| provider.name.as_str()).collect();
            let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            report.warning(
                code::UNKNOWN_PROVIDER,
                format!(
                    "MeshConfig has no extensionProvider {shown:?}, and requests that match are refused (it has {has})"
                ),
            );
        }
    }
}

/// Identities that no pod in the files has, in namespaces whose pods are there.
fn callers(report: &mut Report, index: &Index<'_>, own: &str, rule: &Rule) {
    report.each("from", &rule.from, |report, from| {
        let Some(source) = &from.source else { return };
        report.field("source", |report| {
            for (name, list) in
                [("principals", &source.principals), ("notPrincipals", &source.not_principals)]
            {
                report.each(name, list, |r, principal| {
                    if let [_, "ns", namespace, "sa", account] = principal.split('/').collect::<Vec<_>>()[..]
                    {
                        unknown_account(r, index, namespace, account);
                    }
                });
            }
            for (name, list) in [
                ("serviceAccounts", &source.service_accounts),
                ("notServiceAccounts", &source.not_service_accounts),
            ] {
                report.each(name, list, |r, account| {
                    let (namespace, account) = account.split_once('/').unwrap_or((own, account));
                    unknown_account(r, index, namespace, account);
                });
            }
        });
    });
}

fn unknown_account(report: &mut Report, index: &Index<'_>, namespace: &str, account: &str) {
    let Some(pods) = index.pods.get(namespace) else { return };
    let accounts: BTreeSet<&str> = pods.iter().map(|pod| account_of(pod)).collect();
    if !account.contains('*') && !accounts.contains(account) {
        let known: Vec<&str> = accounts.into_iter().collect();
        report.warning(
            code::UNKNOWN_SERVICE_ACCOUNT,
            format!(
                "no pod of namespace {namespace} in the files has service account {:?} (they have {})",
                shorten(account),
                known.join(", ")
            ),
        );
    }
}

fn account_of(pod: &Pod) -> &str {
    if pod.spec.service_account_name.is_empty() { "default" } else { &pod.spec.service_account_name }
}

/// The services in the files that lead to a pod.
fn services_of<'a>(index: &'a Index<'_>, pod: &'a Pod) -> impl Iterator<Item = &'a Service> {
    index.services.values().copied().filter(|service| {
        let selector = &service.spec.selector;
        service.metadata.namespace == pod.metadata.namespace && !selector.is_empty() && has(pod, selector)
    })
}

/// The pod's own port that a service's port leads to.
fn own_port(pod: &Pod, port: &crate::kubernetes::ServicePort) -> Option<u16> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => name.parse().ok().or_else(|| {
            let mut ports = pod.spec.containers.iter().flat_map(|container| &container.ports);
            ports.find(|port| port.name == *name).map(|port| port.container_port)
        }),
    }
}

/// A port that neither a container nor a service names.
fn unknown_port(report: &mut Report, index: &Index<'_>, pods: &[&Pod], port: u16) {
    let mut known = BTreeSet::new();
    let mut meant = None;
    for pod in pods {
        known.extend(pod.spec.containers.iter().flat_map(|it| &it.ports).map(|port| port.container_port));
        for service in services_of(index, pod) {
            for one in &service.spec.ports {
                let Some(own) = own_port(pod, one) else { continue };
                known.insert(own);
                if one.port == port && own != port {
                    meant = Some((service.metadata.name.as_str(), own));
                }
            }
        }
    }
    if known.is_empty() || known.contains(&port) {
        return;
    }
    let message = if let Some((service, own)) = meant {
        format!("{port} is a port of service {service}, and policies go by the workload's own (write {own})")
    } else {
        let known: Vec<_> = known.iter().map(u16::to_string).collect();
        let known = known.join(", ");
        format!("no container and no service of these workloads has port {port} (they have {known})")
    };
    report.warning(code::UNKNOWN_PORT, message);
}

/// A rule about requests that is for a port without requests.
fn requests_on_tcp(report: &mut Report, index: &Index<'_>, pods: &[&Pod], action: PolicyAction, rule: &Rule) {
    if !is_of_requests(rule) {
        return;
    }
    let named: BTreeSet<&str> = rule
        .to
        .iter()
        .flat_map(|to| to.operation.iter().flat_map(|operation| &operation.ports))
        .map(String::as_str)
        .collect();
    let mut tcp = BTreeMap::new();
    for pod in pods {
        for service in services_of(index, pod) {
            for port in service.spec.ports.iter().filter(|port| protocol(port) == Protocol::Tcp) {
                if let Some(own) = own_port(pod, port) {
                    tcp.insert(own, service.metadata.name.as_str());
                }
            }
        }
    }
    tcp.retain(|port, _| named.is_empty() || named.contains(port.to_string().as_str()));
    let Some((port, service)) = tcp.into_iter().next() else { return };
    let message = match action {
        PolicyAction::Audit => return,
        PolicyAction::Allow => format!(
            "port {port} (service {service}) is plain TCP: there the rule matches nothing, because it is about \
             requests (give it a rule of its own, with ports)"
        ),
        PolicyAction::Deny | PolicyAction::Custom => format!(
            "port {port} (service {service}) is plain TCP: there only the part counts that is not about requests, \
             and more is refused than it seems (limit the rule with ports)"
        ),
    };
    report.warning(code::PROTOCOL_MISMATCH, message);
}

fn is_of_requests(rule: &Rule) -> bool {
    let sources = rule.from.iter().filter_map(|from| from.source.as_ref());
    let operations = rule.to.iter().filter_map(|to| to.operation.as_ref());
    sources.into_iter().any(|it| !(it.request_principals.is_empty() && it.not_request_principals.is_empty()))
        || operations.into_iter().any(|it| {
            [&it.hosts, &it.not_hosts, &it.methods, &it.not_methods, &it.paths, &it.not_paths]
                .into_iter()
                .any(|list| !list.is_empty())
        })
        || rule.when.iter().any(|when| when.key.starts_with("request."))
}

/// A rule that turns TLS off towards workloads that take nothing else.
pub(super) fn plaintext_to_strict(
    report: &mut Report,
    index: &Index<'_>,
    service: &Service,
    object: &DestinationRule,
) {
    let Some(pods) = index.pods_of(service).filter(|pods| !pods.is_empty()) else { return };
    if pods.iter().any(|pod| mode(index, pod) != MutualTlsMode::Strict) {
        return;
    }
    let tell = |report: &mut Report, policy: Option<&TrafficPolicy>| {
        let mode = policy.and_then(|policy| policy.tls.as_ref()?.mode);
        if !matches!(mode, Some(TlsMode::Disable | TlsMode::Simple | TlsMode::Mutual)) {
            return;
        }
        report.field("trafficPolicy", |r| {
            r.field("tls", |r| {
                r.field("mode", |r| {
                    r.warning(
                        code::CONFLICTING_FIELDS,
                        "PeerAuthentication asks for STRICT mutual TLS there: calls are refused (write ISTIO_MUTUAL, or \
                         take tls away)",
                    );
                });
            });
        });
    };
    report.field("spec", |report| {
        tell(report, object.spec.traffic_policy.as_ref());
        report.each("subsets", &object.spec.subsets, |r, subset| tell(r, subset.traffic_policy.as_ref()));
    });
}

/// What a pod's ports take, but for those with a setting of their own.
fn mode(index: &Index<'_>, pod: &Pod) -> MutualTlsMode {
    let labels = |object: &PeerAuthentication| {
        object.spec.selector.as_ref().map(|selector| selector.match_labels.clone()).unwrap_or_default()
    };
    let find = |namespace: &str, own: bool| {
        let mut all = index.peer_authentications.iter().map(|(_, object)| *object);
        let object = all.find(|object| {
            let labels = labels(object);
            object.metadata.namespace == namespace && labels.is_empty() != own && has(pod, &labels)
        });
        object.and_then(|object| object.spec.mtls.as_ref()).map(|mtls| mtls.mode)
    };
    let namespace = pod.metadata.namespace.as_str();
    let mut modes = [find(namespace, true), find(namespace, false), find(ROOT, false)].into_iter().flatten();
    modes.find(|mode| *mode != MutualTlsMode::Unset).unwrap_or(MutualTlsMode::Permissive)
}

/// Of several PeerAuthentications for the same workloads the oldest holds.
pub(super) fn shadowed(index: &Index<'_>, problems: &mut Vec<(usize, Problem)>) {
    let mut first: HashMap<(&str, Labels), &str> = HashMap::new();
    for (at, object) in &index.peer_authentications {
        let meta = &object.metadata;
        let labels = object.spec.selector.as_ref().map(|it| it.match_labels.clone()).unwrap_or_default();
        let whom = if !labels.is_empty() {
            "these workloads"
        } else if meta.namespace == ROOT {
            "the mesh"
        } else {
            "the namespace"
        };
        let Some(older) = first.get(&(meta.namespace.as_str(), labels.clone())) else {
            first.insert((&meta.namespace, labels), &meta.name);
            continue;
        };
        let mut report = Report::default();
        report.field("spec", |r| {
            let message =
                format!("not in force: {older} is for {whom} too and comes first (keep one of them)");
            r.warning(code::SHADOWED, message);
        });
        problems.extend(report.into_problems().into_iter().map(|problem| (*at, problem)));
    }
}
