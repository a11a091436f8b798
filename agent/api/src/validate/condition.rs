//! Conditions of an AuthorizationPolicy: `when`.

use super::Report;
use super::security::{glob, namespace, port, principal, service_accounts, values};
use super::text::is_header_name;
use crate::finding::code;
use crate::istio::Condition;
use crate::load::closest;
use crate::yaml::shorten;

/// Attributes that may be asked for, and whether they have a name in brackets.
const ATTRIBUTES: [(&str, bool); 15] = [
    ("request.headers", true),
    ("request.experimental.inline.headers", true),
    ("request.auth.principal", false),
    ("request.auth.audiences", false),
    ("request.auth.presenter", false),
    ("request.auth.claims", true),
    ("source.ip", false),
    ("remote.ip", false),
    ("source.namespace", false),
    ("source.principal", false),
    ("source.serviceAccount", false),
    ("source.trustDomain", false),
    ("destination.ip", false),
    ("destination.port", false),
    ("connection.sni", false),
];

/// Attributes of Envoy's filters, which nothing has here.
pub(super) const FILTERS: &str = "experimental.envoy.filters.";

/// Checks one of `when`; `custom` is the policy's action.
pub(super) fn check(report: &mut Report, custom: bool, condition: &Condition) {
    let key = condition.key.as_str();
    report.field("key", |r| attribute(r, custom, key));
    if condition.values.is_empty() && condition.not_values.is_empty() {
        report.error(
            code::MISSING_FIELD,
            "neither values nor notValues: the condition says nothing (write one)",
        );
    }
    for (name, list) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        match key {
            "source.ip" | "remote.ip" | "destination.ip" => values(report, name, list, Report::subnet),
            "destination.port" => values(report, name, list, port),
            "source.serviceAccount" => service_accounts(report, name, list),
            "source.principal" => values(report, name, list, principal),
            "source.namespace" => values(report, name, list, namespace),
            _ => values(report, name, list, |r, value| _ = glob(r, value)),
        }
    }
}

/// What Istio's external authorization cannot decide by.
pub(super) fn not_with_custom(report: &mut Report, what: &str) {
    report.error(
        code::CONFLICTING_FIELDS,
        format!("{what} cannot be used with CUSTOM (say it in a DENY or ALLOW policy beside this one)"),
    );
}

fn attribute(report: &mut Report, custom: bool, key: &str) {
    if key.is_empty() {
        return report.error(code::MISSING_FIELD, "the key is missing (for example request.headers[NAME])");
    }
    let (name, brackets) = key.split_once('[').map_or((key, None), |(name, rest)| (name, Some(rest)));
    let shown = shorten(key);
    let Some((_, bracketed)) = ATTRIBUTES.iter().find(|(known, _)| *known == name) else {
        if !key.starts_with(FILTERS) {
            unknown(report, name);
        }
        return;
    };
    match brackets {
        None if *bracketed => {
            return report.error(code::INVALID_VALUE, format!("{shown} needs a name (write {shown}[NAME])"));
        }
        Some(_) if !bracketed => {
            return report
                .error(code::INVALID_VALUE, format!("{name} has no names in brackets (write {name})"));
        }
        Some(inner) => {
            let inner = inner.strip_suffix(']').filter(|inner| inner.split("][").all(|one| !one.is_empty()));
            let is_header = name.ends_with(".headers");
            match inner {
                Some(header) if is_header && !is_header_name(header.trim_start_matches(':')) => {
                    return report.error(
                        code::INVALID_HEADER,
                        format!("{:?} can be no header's name", shorten(header)),
                    );
                }
                Some(_) => {}
                None => {
                    return report
                        .error(code::INVALID_VALUE, format!("{shown} is cut off (write {name}[NAME])"));
                }
            }
        }
        None => {}
    }
    let of_identity = ["source.namespace", "source.serviceAccount", "source.principal"].contains(&name);
    if custom && (of_identity || name.starts_with("request.auth.")) {
        not_with_custom(report, name);
    }
}

fn unknown(report: &mut Report, name: &str) {
    let shown = shorten(name);
    let cure = match name {
        "destination.namespace" => "the policy's own namespace says it".to_owned(),
        "destination.labels" => "the policy's selector says it".to_owned(),
        "destination.name" | "destination.user" => "use the policy's selector".to_owned(),
        _ => {
            let known = ATTRIBUTES.map(|(known, _)| known);
            closest(name, known.into_iter()).map_or_else(
                || format!("choose one of {}", known.join(", ")),
                |known| format!("did you mean {known}?"),
            )
        }
    };
    report.error(code::INVALID_VALUE, format!("{shown:?} is no attribute ({cure})"));
}
