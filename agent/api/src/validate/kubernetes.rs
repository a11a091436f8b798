//! Kubernetes' own kinds. The API server has checked them; a file has nobody but this.

use std::collections::HashSet;

use super::Report;
use super::text::is_ip;
use crate::finding::code;
use crate::kubernetes::{ConfigMap, EndpointSlice, IntOrString, Pod, Secret, ServiceSpec};
use crate::mesh_config;
use crate::settings;
use crate::yaml::shorten;

fn address(report: &mut Report, text: &str) {
    if !is_ip(text) {
        report.error(code::INVALID_VALUE, format!("{:?} is no address", shorten(text)));
    }
}

/// Checks a Pod's addresses.
pub(super) fn pod(report: &mut Report, pod: &Pod) {
    report.field("status", |r| {
        if !pod.status.pod_ip.is_empty() {
            r.field("podIP", |r| address(r, &pod.status.pod_ip));
        }
        r.each("podIPs", &pod.status.pod_ips, |r, ip| r.field("ip", |r| address(r, &ip.ip)));
    });
}

/// Checks `Service.spec`.
pub(super) fn service(report: &mut Report, spec: &ServiceSpec) {
    for (name, ips) in
        [("clusterIP", std::slice::from_ref(&spec.cluster_ip)), ("clusterIPs", &spec.cluster_ips)]
    {
        for ip in ips.iter().filter(|ip| !ip.is_empty() && *ip != "None") {
            report.field(name, |r| address(r, ip));
        }
    }
    report.word_field(
        "type",
        Some(spec.type_.as_str()).filter(|kind| !kind.is_empty()),
        &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"],
    );
    let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
    report.each("ports", &spec.ports, |r, port| {
        r.field("port", |r| r.port(port.port.into()));
        if let Some(IntOrString::Int(0)) = port.target_port {
            r.field("targetPort", |r| r.port(0));
        }
        let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
        r.word_field("protocol", Some(protocol), &["TCP", "UDP", "SCTP"]);
        if !numbers.insert((port.port, protocol)) {
            r.field("port", |r| {
                r.error(code::DUPLICATE_NAME, format!("port {} {protocol} is there twice", port.port));
            });
        }
        if !names.insert(port.name.as_str()) {
            let message = match port.name.as_str() {
                "" => "several ports need names".to_owned(),
                name => format!("there are two ports called {:?}", shorten(name)),
            };
            r.field("name", |r| r.error(code::DUPLICATE_NAME, message));
        }
    });
}

/// Checks an EndpointSlice's addresses.
pub(super) fn endpoint_slice(report: &mut Report, slice: &EndpointSlice) {
    if !slice.metadata.labels.contains_key("kubernetes.io/service-name") {
        report.field("metadata", |r| {
            r.field("labels", |r| {
                r.warning(code::NO_EFFECT, "no service owns it (add the label kubernetes.io/service-name)");
            });
        });
    }
    if slice.address_type == "FQDN" {
        return;
    }
    report.each("endpoints", &slice.endpoints, |r, endpoint| {
        r.each("addresses", &endpoint.addresses, |r, ip| address(r, ip));
    });
}

/// Checks that the values of a Secret can be read.
pub(super) fn secret(report: &mut Report, secret: &Secret) {
    for key in secret.data.keys().filter(|key| secret.value(key).is_none()) {
        let message = "the value is not in base64 (write plain text under stringData)";
        report.field("data", |r| r.field(key.clone(), |r| r.error(code::INVALID_VALUE, message)));
    }
}

/// Checks the MeshConfig and the settings that a ConfigMap may hold.
pub(super) fn config_map(report: &mut Report, map: &ConfigMap) {
    report.extend(mesh_config::check(map).into_iter().flat_map(|(_, problems)| problems));
    report.extend(settings::check(map).into_iter().flat_map(|(_, problems)| problems));
}
