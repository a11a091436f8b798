//! What the security kinds share: whom a policy is for, and lists of values.

use super::Report;
use super::text::is_label;
use crate::finding::code;
use crate::istio::{PolicyTargetReference, WorkloadSelector};
use crate::yaml::shorten;

/// What `targetRefs` may name: group, kind.
const TARGETS: [(&str, &str); 4] = [
    ("", "Service"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
    ("networking.istio.io", "ServiceEntry"),
];

/// Checks `selector`, if it is there.
pub(super) fn selector(report: &mut Report, selector: Option<&WorkloadSelector>) {
    let Some(selector) = selector else { return };
    report.field("selector", |report| {
        if selector.match_labels.is_empty() {
            report.warning(
                code::NO_EFFECT,
                "no labels: it is for every workload of the namespace (write matchLabels, or take the selector away)",
            );
        }
        report.labels_field("matchLabels", &selector.match_labels);
    });
}

/// Checks whom a policy is for: one of `selector`, `targetRef` and `targetRefs`.
pub(super) fn scope(
    report: &mut Report,
    namespace: &str,
    labels: Option<&WorkloadSelector>,
    target: Option<&PolicyTargetReference>,
    targets: &[PolicyTargetReference],
) {
    selector(report, labels);
    if [labels.is_some(), target.is_some(), !targets.is_empty()].into_iter().filter(|set| *set).count() > 1 {
        let field = if targets.is_empty() { "targetRef" } else { "targetRefs" };
        report.field(field, |r| {
            r.error(
                code::CONFLICTING_FIELDS,
                "a policy is for a selector's workloads or for targetRefs (keep one of selector, targetRef, targetRefs)",
            );
        });
    }
    if let Some(one) = target {
        report.field("targetRef", |r| target_ref(r, namespace, one));
    }
    report.at_most("targetRefs", targets.len(), 16);
    report.each("targetRefs", targets, |r, one| target_ref(r, namespace, one));
}

fn target_ref(report: &mut Report, namespace: &str, target: &PolicyTargetReference) {
    let group = if target.group == "core" { "" } else { target.group.as_str() };
    if target.kind.is_empty() {
        report.field("kind", |r| {
            r.error(code::MISSING_FIELD, "the target's kind is missing (write Service, Gateway, …)");
        });
    } else if !TARGETS.contains(&(group, target.kind.as_str())) {
        let by_kind = TARGETS.iter().find(|(_, kind)| *kind == target.kind);
        let cure = match by_kind {
            Some((group, _)) => format!("write group: {group:?}"),
            None => "a Service, Gateway, GatewayClass or ServiceEntry can be one".to_owned(),
        };
        let (kind, group) = (shorten(&target.kind), shorten(group));
        report.field(if by_kind.is_some() { "group" } else { "kind" }, |r| {
            r.error(
                code::INVALID_VALUE,
                format!("{kind} of group {group:?} can be no target of a policy ({cure})"),
            );
        });
    }
    if target.name.is_empty() {
        report.field("name", |r| r.error(code::MISSING_FIELD, "the target's name is missing"));
    }
    if !(target.namespace.is_empty() || target.namespace == namespace) {
        report.field("namespace", |r| {
            r.error(
                code::INVALID_VALUE,
                "a policy's target is in its own namespace (take the field away, or move the policy)",
            );
        });
    }
}

/// Checks a list of texts: that none is empty, and whatever else `check` says of each.
pub(super) fn values(
    report: &mut Report,
    name: &'static str,
    values: &[String],
    mut check: impl FnMut(&mut Report, &str),
) {
    report.each(name, values, |r, value| {
        if value.is_empty() {
            r.error(code::INVALID_VALUE, "an empty value matches nothing (take it away; `*` is any value)");
        } else {
            check(r, value);
        }
    });
}

/// A text to compare with: as it is, or with `*` at one end.
pub(super) fn glob(report: &mut Report, value: &str) -> bool {
    let inner = value.strip_prefix('*').or_else(|| value.strip_suffix('*')).unwrap_or(value);
    if inner.contains('*') {
        let shown = shorten(value);
        report.warning(
            code::NO_EFFECT,
            format!(
                "{shown:?} is taken to the letter: `*` means anything only at one end (write PREFIX*, *SUFFIX or *)"
            ),
        );
    }
    !value.contains('*')
}

/// A namespace.
pub(super) fn namespace(report: &mut Report, value: &str) {
    if glob(report, value) && !is_label(value) {
        let shown = shorten(value);
        report.warning(code::NO_EFFECT, format!("{shown:?} can be no namespace: it matches nothing"));
    }
}

/// `TRUST_DOMAIN/ns/NS/sa/SA`.
pub(super) fn principal(report: &mut Report, value: &str) {
    if let Some(rest) = value.strip_prefix("spiffe://") {
        let shown = shorten(rest);
        report.warning(code::NO_EFFECT, format!("it matches nothing (write it without spiffe://: {shown})"));
        return;
    }
    let parts: Vec<&str> = value.split('/').collect();
    let is_principal = matches!(parts[..], [domain, "ns", namespace, "sa", account]
        if ![domain, namespace, account].contains(&""));
    if glob(report, value) && !is_principal {
        let shown = shorten(value);
        report.warning(
            code::NO_EFFECT,
            format!("{shown:?} is nobody's principal (write cluster.local/ns/NAMESPACE/sa/SERVICE-ACCOUNT)"),
        );
    }
}

/// `NS/SA` or `SA`. Source: Istio 1.30, `CheckServiceAccount`.
pub(super) fn service_account(report: &mut Report, value: &str) {
    const LONGEST: usize = 320;
    let shown = shorten(value);
    if value.contains('*') {
        report.error(
            code::INVALID_VALUE,
            format!("{shown:?}: service accounts have no wildcards (use principals for those)"),
        );
    } else if value.matches('/').count() > 1 || value.split('/').any(str::is_empty) || value.len() > LONGEST {
        report.error(
            code::INVALID_VALUE,
            format!(
                "{shown:?} is no service account (write NAMESPACE/NAME, or NAME of the policy's namespace)"
            ),
        );
    }
}

/// Checks a list of service accounts.
pub(super) fn service_accounts(report: &mut Report, name: &'static str, accounts: &[String]) {
    const MOST: usize = 16;
    if accounts.len() > MOST {
        report.field(name, |r| {
            r.error(
                code::INVALID_VALUE,
                format!("more than {MOST} service accounts (make several `from` entries of them)"),
            );
        });
    }
    values(report, name, accounts, service_account);
}

/// A workload's port, as text.
pub(super) fn port(report: &mut Report, value: &str) {
    if !value.bytes().all(|b| b.is_ascii_digit()) || !value.parse::<u16>().is_ok_and(|port| port > 0) {
        let shown = shorten(value);
        report.error(code::INVALID_PORT, format!("{shown:?} is no port (write \"1\" to \"65535\")"));
    }
}
