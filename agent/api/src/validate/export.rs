//! `exportTo` and `gateways`, which VirtualService and others share.

use std::collections::HashSet;

use super::Report;
use super::text::{is_label, is_subdomain};
use crate::finding::code;
use crate::yaml::shorten;

/// Checks `exportTo` of an object in `namespace`.
pub(super) fn export_to(report: &mut Report, namespace: &str, export_to: &[String]) {
    let mut seen = HashSet::new();
    for (index, to) in export_to.iter().enumerate() {
        report.item("exportTo", index, |r| {
            let meant = if to == "." { namespace } else { to };
            if !seen.insert(meant) {
                r.error(code::DUPLICATE_NAME, format!("{:?} is there twice", shorten(to)));
            } else if !matches!(meant, "*" | "~") && !is_label(meant) {
                let shown = shorten(to);
                r.error(
                    code::INVALID_VALUE,
                    format!("{shown:?} is no namespace (write `.`, `*`, `~` or a name)"),
                );
            }
        });
    }
    for (only, whom) in [("*", "everybody"), ("~", "nobody")] {
        if export_to.len() > 1 && seen.contains(only) {
            report.field("exportTo", |r| {
                r.error(
                    code::CONFLICTING_FIELDS,
                    format!("`{only}` is {whom} already (take the others away)"),
                );
            });
        }
    }
}

/// Checks a list of gateway names.
pub(super) fn gateways(report: &mut Report, gateways: &[String]) {
    report.each("gateways", gateways, |r, gateway| {
        let shown = shorten(gateway);
        match gateway.split_once('/') {
            Some((namespace, name)) if is_label(namespace) && is_label(name) => {}
            None if gateway.contains('.') && is_subdomain(gateway) => {
                let mut parts = gateway.split('.');
                let (name, namespace) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
                r.warning(
                    code::DEPRECATED_FIELD,
                    format!("{shown:?} is an old form (write {namespace}/{name})"),
                );
            }
            None if is_label(gateway) => {}
            _ => r.error(
                code::INVALID_VALUE,
                format!("{shown:?} is no gateway (write NAMESPACE/NAME, NAME or mesh)"),
            ),
        }
    });
}
