//! Annotations of pods by which users of Istio steer its sidecar, and what they mean where there is none.
//!
//! `sidecar.istio.io/inject: "false"`, as a label or an annotation, is obeyed: it keeps the pod out of the mesh.

use super::Report;
use crate::finding::{Severity, code};
use crate::meta::Labels;

/// An annotation, or with `*` at its end those that begin so; how bad it is that nothing comes of it; and what holds
/// instead. The first that fits counts.
const TABLE: &[(&str, Severity, &str)] = &[
    ("traffic.sidecar.istio.io/kubevirtInterfaces", Severity::Warning, VIRTUAL_MACHINES),
    ("istio.io/reroute-virtual-interfaces", Severity::Warning, VIRTUAL_MACHINES),
    ("traffic.sidecar.istio.io/*", Severity::Warning, ALL_IS_CAPTURED),
    ("traffic.weft.dev/*", Severity::Warning, ALL_IS_CAPTURED),
    ("ambient.istio.io/bypass-inbound-capture", Severity::Warning, ALL_IS_CAPTURED),
    ("ambient.istio.io/dns-capture", Severity::Info, "DNS is left alone"),
    ("proxy.istio.io/*", Severity::Warning, "there is no sidecar whose settings these could be"),
    ("sidecar.istio.io/inject", Severity::Info, ""),
    ("sidecar.istio.io/status", Severity::Info, ""),
    ("sidecar.istio.io/*", Severity::Info, NO_SIDECAR),
    ("status.sidecar.istio.io/*", Severity::Info, NO_SIDECAR),
    ("readiness.status.sidecar.istio.io/*", Severity::Info, NO_SIDECAR),
    ("inject.istio.io/*", Severity::Info, NO_SIDECAR),
    ("prometheus.istio.io/merge-metrics", Severity::Info, "the pod's own metrics are scraped from the pod"),
];

const ALL_IS_CAPTURED: &str = "every TCP connection of the pod goes through the mesh (its label weft.dev/mesh: disabled keeps all of it out)";
const VIRTUAL_MACHINES: &str = "connections of a virtual machine in the pod are not captured";
const NO_SIDECAR: &str = "there is no sidecar";

/// Tells the annotations that have no effect; the place is that of the metadata.
pub(crate) fn without_force(report: &mut Report, annotations: &Labels) {
    for name in annotations.keys() {
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        let Some((_, severity, instead)) = TABLE.iter().find(|(pattern, ..)| fits(pattern)) else { continue };
        if instead.is_empty() {
            continue;
        }
        let message = format!("not in force in this version of weft: {instead}");
        report.field("annotations", |r| {
            r.field(name.clone(), |r| r.push(*severity, code::NOT_IN_FORCE, message));
        });
    }
}
