//! From a Pod to a workload.

use std::net::IpAddr;
use std::sync::Arc;

use weft_api::istio::is_gateway_pod;
use weft_api::kubernetes::{Pod, PodSpec};
use weft_api::meta::{Labels, ObjectMeta};
use weft_api::names::{ENROLLED_CONDITION, namespace_opts_in};

use crate::compile::CompilerOptions;
use crate::intern::{Interner, NamedPorts};
use crate::probe::{self, Probes};
use crate::workload::{Announced, DnsName, Enrolment, Workload};

/// Labels of a pod that opt in or out, and the value that does. The first that says decides.
const POD_SWITCHES: [(&str, &str, &str); 3] = [
    ("weft.dev/mesh", "enabled", "disabled"),
    ("sidecar.istio.io/inject", "true", "false"),
    ("istio.io/dataplane-mode", "ambient", "none"),
];

/// What a label says about being in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Wish {
    In,
    Out,
    /// Out, by an annotation.
    Annotated,
    #[default]
    Unsaid,
}

impl Wish {
    fn read(switches: &[(&str, &str, &str)], labels: &Labels) -> Self {
        let said = switches.iter().find_map(|(label, on, off)| match labels.get(*label) {
            Some(value) if value == on => Some(Self::In),
            Some(value) if value == off => Some(Self::Out),
            _ => None,
        });
        said.unwrap_or_default()
    }

    fn said(opts_in: Option<bool>) -> Self {
        match opts_in {
            Some(true) => Self::In,
            Some(false) => Self::Out,
            None => Self::Unsaid,
        }
    }

    pub(crate) fn of_namespace(labels: &Labels) -> Self {
        Self::said(namespace_opts_in(labels))
    }
}

/// What is kept of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PodRecord {
    pub(crate) workload: Arc<Workload>,
    pub(crate) created: Arc<str>,
    /// Takes traffic.
    pub(crate) ready: bool,
    /// Would take traffic if it were ready: has addresses, is not finished nor going.
    pub(crate) serving: bool,
    /// Named container ports.
    pub(crate) ports: NamedPorts,
    wish: Wish,
    obstacle: Option<Enrolment>,
    /// Runs on another node of a cluster, whose agent says whether it is in the mesh.
    elsewhere: bool,
}

impl PodRecord {
    /// Reduces a pod. Its namespace's wish is added by [`Self::enrol`].
    pub(crate) fn compile(pod: &Pod, options: &CompilerOptions, intern: &mut Interner) -> Self {
        let meta = &pod.metadata;
        let addresses = addresses(pod);
        let finished = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
        let has_sidecar = pod.spec.containers.iter().any(|container| container.name == "istio-proxy");
        let obstacle = if finished {
            Some(Enrolment::NotRunning)
        } else if pod.spec.host_network {
            Some(Enrolment::HostNetwork)
        } else if has_sidecar {
            Some(Enrolment::HasSidecar)
        } else if addresses.is_empty() {
            Some(Enrolment::Starting)
        } else {
            None
        };
        let condition = pod.status.conditions.iter().find(|condition| condition.type_ == "Ready");
        let serving = !finished && !addresses.is_empty() && meta.deletion_timestamp.is_none();
        let pending = pod.status.phase == "Pending";
        let mut wish = Wish::read(&POD_SWITCHES, &meta.labels);
        // A gateway serves whoever its node's agent is told of, whatever namespace it stands in.
        if wish == Wish::Unsaid && is_gateway_pod(&meta.labels) {
            wish = Wish::In;
        }
        if meta.annotations.get("sidecar.istio.io/inject").is_some_and(|value| value == "false") {
            wish = Wish::Annotated;
        }
        let ports = pod.spec.containers.iter().flat_map(|container| &container.ports);
        let named = ports.filter(|port| !port.name.is_empty());
        let named: Vec<_> = named.map(|port| (intern.text(&port.name), port.container_port)).collect();
        let ports = intern.ports(&named);
        let workload = workload(pod, addresses, options, intern);
        Self {
            created: intern.text(&meta.creation_timestamp),
            ready: serving && !pending && condition.is_none_or(|condition| condition.status == "True"),
            serving,
            ports,
            wish,
            obstacle,
            elsewhere: options.cluster && *workload.node != *options.node,
            workload: Arc::new(workload),
        }
    }

    /// Decides whether the pod is in the mesh, given what its namespace says. True if that changed.
    pub(crate) fn enrol(&mut self, namespace: Wish) -> bool {
        let wanted = match (self.obstacle, self.wish, namespace) {
            (Some(Enrolment::NotRunning), ..) => Enrolment::NotRunning,
            (_, Wish::Out, _) => Enrolment::OptedOut,
            (_, Wish::Annotated, _) => Enrolment::AnnotatedOut,
            (_, Wish::Unsaid, Wish::Out | Wish::Annotated | Wish::Unsaid) => Enrolment::NotSelected,
            (Some(obstacle), ..) => obstacle,
            (None, ..) => Enrolment::Enrolled,
        };
        let enrolment = match self.workload.announced {
            // Also one that has lost its label a moment ago: its node ends the enrolment after it has said so.
            Some(said) if said.is_called() && self.elsewhere && self.obstacle.is_none() => {
                Enrolment::Enrolled
            }
            _ if self.elsewhere && wanted == Enrolment::Enrolled => Enrolment::NotYet,
            _ => wanted,
        };
        if self.workload.enrolment == enrolment {
            return false;
        }
        Arc::make_mut(&mut self.workload).enrolment = enrolment;
        true
    }

    /// Whether its addresses are its own.
    pub(crate) fn owns_addresses(&self) -> bool {
        !matches!(self.obstacle, Some(Enrolment::NotRunning | Enrolment::Starting | Enrolment::HostNetwork))
    }
}

/// What the condition `weft.dev/Enrolled` says.
fn announced(pod: &Pod) -> Option<Announced> {
    let conditions = &pod.status.conditions;
    let condition = conditions.iter().find(|condition| condition.type_ == ENROLLED_CONDITION)?;
    Some(match condition.status.as_str() {
        "True" => Announced::Enrolled,
        "Unknown" => Announced::Unsure,
        _ => Announced::Left,
    })
}

fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let primary = std::iter::once(&pod.status.pod_ip);
    let mut addresses = Vec::new();
    for text in primary.chain(pod.status.pod_ips.iter().map(|ip| &ip.ip)) {
        if let Ok(address) = text.parse::<IpAddr>()
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses.shrink_to_fit();
    addresses
}

fn workload(pod: &Pod, addresses: Vec<IpAddr>, options: &CompilerOptions, intern: &mut Interner) -> Workload {
    let meta = &pod.metadata;
    let label =
        |keys: &[&str]| keys.iter().find_map(|key| meta.labels.get(*key)).filter(|value| !value.is_empty());
    let workload_name = owner_name(meta);
    let service = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision = label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    let account = match pod.spec.service_account_name.as_str() {
        "" => "default",
        name => name,
    };
    let node = match pod.spec.node_name.as_str() {
        "" if !options.cluster => options.node.as_str(),
        name => name,
    };
    let local = node == options.node;
    Workload {
        probes: if local { probe::of(pod, &addresses) } else { Probes::default() },
        key: intern.text(&format!("{}/{}", meta.namespace, meta.name)),
        namespace: intern.text(&meta.namespace),
        name: meta.name.as_str().into(),
        service_account: intern.text(account),
        canonical_service: intern.text(service.map_or(workload_name, String::as_str)),
        canonical_revision: intern.text(revision.map_or("latest", String::as_str)),
        workload_name: intern.text(workload_name),
        labels: intern.labels(&meta.labels),
        addresses,
        node: intern.text(node),
        uid: if local { meta.uid.as_str().into() } else { intern.text("") },
        netns: (meta.annotations.get("weft.dev/netns"))
            .filter(|_| !options.cluster)
            .map(|netns| netns.as_str().into()),
        announced: if options.cluster { announced(pod) } else { None },
        dns_name: dns_name(&pod.spec),
        terminating: meta.deletion_timestamp.is_some(),
        enrolment: Enrolment::NotSelected,
    }
}

/// Its own name in DNS, which it has if it asks for it.
fn dns_name(spec: &PodSpec) -> Option<Box<DnsName>> {
    let asked = !spec.hostname.is_empty() && !spec.subdomain.is_empty();
    let name =
        || DnsName { hostname: spec.hostname.as_str().into(), subdomain: spec.subdomain.as_str().into() };
    asked.then(|| Box::new(name()))
}

/// The Deployment behind a ReplicaSet, the CronJob behind a Job, else the owner, else the pod itself.
fn owner_name(meta: &ObjectMeta) -> &str {
    let owners = &meta.owner_references;
    let Some(owner) = owners.iter().find(|owner| owner.controller).or(owners.first()) else {
        return &meta.name;
    };
    let cut = match owner.kind.as_str() {
        "ReplicaSet" => {
            let hash = meta.labels.get("pod-template-hash");
            hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'))
        }
        // A CronJob names its Jobs by the minute they were due at.
        "Job" => owner.name.rsplit_once('-').and_then(|(name, minute)| {
            (minute.len() >= 8 && minute.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
        }),
        _ => None,
    };
    cut.filter(|name| !name.is_empty()).unwrap_or(&owner.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compiled(pod: serde_json::Value, namespace: Wish) -> PodRecord {
        let options = CompilerOptions {
            node: "n1".into(),
            cluster_domain: "cluster.local".into(),
            trust_domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            cluster: false,
        };
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let mut record = PodRecord::compile(&pod, &options, &mut Interner::default());
        record.enrol(namespace);
        record
    }

    #[test]
    fn names_come_from_owners_and_labels() {
        let record = compiled(
            json!({"metadata": {"name": "reviews-v1-5d8f-x", "namespace": "shop",
                "labels": {"pod-template-hash": "5d8f", "app": "reviews", "version": "v1"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "reviews-v1-5d8f", "controller": true}]},
                "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}),
            Wish::In,
        );
        let workload = &record.workload;
        assert_eq!(&*workload.key, "shop/reviews-v1-5d8f-x");
        assert_eq!(&*workload.workload_name, "reviews-v1");
        assert_eq!((&*workload.canonical_service, &*workload.canonical_revision), ("reviews", "v1"));
        assert_eq!(&*workload.service_account, "default");
        assert_eq!(&*workload.node, "n1");
        assert_eq!(workload.addresses.len(), 2);
        assert_eq!(workload.enrolment, Enrolment::Enrolled);
        assert!(record.ready);
    }

    #[test]
    fn a_pod_is_known_to_end() {
        let ending = |node: &str| {
            let pod = json!({"metadata": {"name": "p", "namespace": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"nodeName": node}, "status": {"podIP": "10.0.0.1"}});
            let record = compiled(pod, Wish::In);
            (record.workload.terminating, record.workload.enrolment, record.ready)
        };
        assert_eq!(ending("n1"), (true, Enrolment::Enrolled, false));
        assert_eq!(ending("n2"), (true, Enrolment::Enrolled, false));
    }

    #[test]
    fn probes_are_the_business_of_the_pods_own_node() {
        let pod = |node: &str| {
            json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"podIP": "10.0.0.1"}, "spec": {
                "nodeName": node, "containers": [{"name": "db", "livenessProbe": {"tcpSocket": {"port": 8082}}}]}})
        };
        assert!(compiled(pod(""), Wish::In).workload.probes.connect_to(8082));
        assert_eq!(compiled(pod("n2"), Wish::In).workload.probes, Probes::default());
    }

    #[test]
    fn enrolment_says_why_not() {
        let pod = |labels: serde_json::Value, spec: serde_json::Value, phase: &str| {
            json!({"metadata": {"name": "p", "namespace": "n", "labels": labels}, "spec": spec,
                "status": {"podIP": "10.0.0.1", "phase": phase}})
        };
        let none = || json!({});
        let annotated = |inject: &str| {
            json!({"metadata": {"name": "p", "namespace": "n", "annotations": {"sidecar.istio.io/inject": inject}},
                "status": {"podIP": "10.0.0.1"}})
        };
        for (given, namespace, expected) in [
            (pod(none(), none(), ""), Wish::In, Enrolment::Enrolled),
            (pod(none(), none(), ""), Wish::Unsaid, Enrolment::NotSelected),
            (pod(none(), none(), ""), Wish::Out, Enrolment::NotSelected),
            (pod(json!({"weft.dev/mesh": "enabled"}), none(), ""), Wish::Unsaid, Enrolment::Enrolled),
            (pod(json!({"weft.dev/mesh": "disabled"}), none(), ""), Wish::In, Enrolment::OptedOut),
            (pod(json!({"sidecar.istio.io/inject": "false"}), none(), ""), Wish::In, Enrolment::OptedOut),
            (pod(json!({"istio.io/dataplane-mode": "none"}), none(), ""), Wish::In, Enrolment::OptedOut),
            (annotated("false"), Wish::In, Enrolment::AnnotatedOut),
            (annotated("true"), Wish::Unsaid, Enrolment::NotSelected),
            (pod(none(), json!({"hostNetwork": true}), ""), Wish::In, Enrolment::HostNetwork),
            (pod(none(), json!({"hostNetwork": true}), ""), Wish::Unsaid, Enrolment::NotSelected),
            (
                pod(none(), json!({"containers": [{"name": "istio-proxy"}]}), ""),
                Wish::In,
                Enrolment::HasSidecar,
            ),
            (pod(none(), none(), "Succeeded"), Wish::In, Enrolment::NotRunning),
        ] {
            assert_eq!(compiled(given.clone(), namespace).workload.enrolment, expected, "{given}");
        }
    }

    #[test]
    fn in_a_cluster_the_condition_says_which_pods_of_other_nodes_are_in_the_mesh() {
        let options = CompilerOptions {
            node: "n1".into(),
            cluster_domain: "cluster.local".into(),
            trust_domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            cluster: true,
        };
        let compiled = |node: &str, condition: Option<&str>, host_network: bool, namespace| {
            let conditions: Vec<_> = condition
                .iter()
                .map(|status| json!({"type": ENROLLED_CONDITION, "status": status}))
                .collect();
            let pod = json!({"metadata": {"name": "a", "namespace": "shop", "uid": "u", "annotations": {"weft.dev/netns": "b"}},
                "spec": {"nodeName": node, "hostNetwork": host_network},
                "status": {"podIP": "10.0.0.1", "conditions": conditions}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let mut record = PodRecord::compile(&pod, &options, &mut Interner::default());
            record.enrol(namespace);
            record.workload
        };
        for (node, condition, host_network, namespace, expected) in [
            ("n2", None, false, Wish::In, Enrolment::NotYet),
            ("n2", Some("False"), false, Wish::In, Enrolment::NotYet),
            ("n2", Some("True"), false, Wish::In, Enrolment::Enrolled),
            ("n2", Some("True"), false, Wish::Unsaid, Enrolment::Enrolled),
            // Its agent is away: it refuses everybody, and plain text would be no better an idea.
            ("n2", Some("Unknown"), false, Wish::In, Enrolment::Enrolled),
            ("n2", Some("True"), true, Wish::In, Enrolment::HostNetwork),
            ("n2", Some("False"), false, Wish::Unsaid, Enrolment::NotSelected),
            ("n1", None, false, Wish::In, Enrolment::Enrolled),
            ("n1", Some("True"), false, Wish::Unsaid, Enrolment::NotSelected),
            ("", None, false, Wish::In, Enrolment::NotYet),
        ] {
            let workload = compiled(node, condition, host_network, namespace);
            assert_eq!(workload.enrolment, expected, "{node} {condition:?} {namespace:?}");
            // A pod's owner could name another's.
            assert_eq!(workload.netns, None);
            assert_eq!(&*workload.uid, if node == "n1" { "u" } else { "" });
        }
    }

    #[test]
    fn a_cron_job_is_known_behind_its_jobs() {
        let meta = |kind: &str, name: &str| ObjectMeta {
            owner_references: vec![weft_api::meta::OwnerReference {
                kind: kind.into(),
                name: name.into(),
                controller: true,
            }],
            ..Default::default()
        };
        assert_eq!(owner_name(&meta("Job", "backup-28411230")), "backup");
        assert_eq!(owner_name(&meta("Job", "migrate-2")), "migrate-2");
        assert_eq!(owner_name(&meta("StatefulSet", "db")), "db");
    }
}
