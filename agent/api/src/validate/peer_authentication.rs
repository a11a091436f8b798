//! PeerAuthentication.

use super::{Report, security};
use crate::finding::code;
use crate::istio::PeerAuthenticationSpec;

/// Checks `spec`.
pub(super) fn check(report: &mut Report, spec: &PeerAuthenticationSpec) {
    security::selector(report, spec.selector.as_ref());
    let everyone = spec.selector.as_ref().is_none_or(|selector| selector.match_labels.is_empty());
    report.field("portLevelMtls", |report| {
        if everyone && !spec.port_level_mtls.is_empty() {
            report.error(
                code::CONFLICTING_FIELDS,
                "ports differ from workload to workload: without a selector there is no portLevelMtls (add \
                 selector.matchLabels)",
            );
        }
        for port in spec.port_level_mtls.keys().filter(|port| **port == 0) {
            report.field(port.to_string(), |r| r.port(0));
        }
    });
    if spec.mtls.is_none() && spec.port_level_mtls.is_empty() {
        report.warning(
            code::NO_EFFECT,
            "without mtls and portLevelMtls it changes nothing (write mtls: {mode: STRICT})",
        );
    }
}
