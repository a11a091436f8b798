//! `http[].match[]`.

use std::collections::BTreeMap;

use super::text::is_header_name;
use super::{Report, export, virtual_service};
use crate::finding::code;
use crate::istio::{HttpMatchRequest, StringMatch, claim_path};
use crate::yaml::shorten;

/// Pseudo-headers that a match may name.
const PSEUDO_HEADERS: &[&str] = &[":authority", ":method", ":path", ":scheme"];

/// Checks one alternative of a match.
pub(super) fn check(report: &mut Report, one: &HttpMatchRequest) {
    if let Some(uri) = &one.uri {
        report.field("uri", |r| self::uri(r, uri));
    }
    for (name, field) in [("scheme", &one.scheme), ("method", &one.method), ("authority", &one.authority)] {
        if let Some(text) = field {
            report.field(name, |r| {
                string_match(r, text);
                if *text == StringMatch::default() {
                    r.warning(code::NO_EFFECT, "no exact, prefix or regex: every request has it");
                }
            });
        }
    }
    headers(report, "headers", &one.headers);
    headers(report, "withoutHeaders", &one.without_headers);
    for (name, text) in &one.query_params {
        report.field("queryParams", |r| r.field(name.clone(), |r| string_match(r, text)));
    }
    if let Some(port) = one.port {
        report.field("port", |r| r.port(port));
    }
    report.labels_field("sourceLabels", &one.source_labels);
    export::gateways(report, &one.gateways);
    virtual_service::source_namespace(report, one.source_namespace.as_deref());
    if one.ignore_uri_case && one.uri.as_ref().is_none_or(|uri| uri.exact.is_none() && uri.prefix.is_none()) {
        report.field("ignoreUriCase", |r| {
            r.warning(
                code::NO_EFFECT,
                "only an exact or prefix match on uri heeds it (write (?i) into a regex)",
            );
        });
    }
}

fn uri(report: &mut Report, uri: &StringMatch) {
    one_way(report, uri);
    if let Some(regex) = &uri.regex {
        report.field("regex", |r| r.regex(regex));
    }
    for (name, text) in [("exact", &uri.exact), ("prefix", &uri.prefix)] {
        if let Some(text) = text.as_ref().filter(|text| !text.is_empty() && !text.starts_with(['/', '*'])) {
            report.field(name, |r| {
                r.warning(
                    code::NO_EFFECT,
                    format!("a path begins with `/`: no request matches {:?}", shorten(text)),
                );
            });
        }
    }
    if *uri == StringMatch::default() {
        report.warning(code::NO_EFFECT, "no exact, prefix or regex: every path matches");
    }
}

/// Checks a match on any text but a path.
pub(super) fn string_match(report: &mut Report, text: &StringMatch) {
    one_way(report, text);
    if text.prefix.as_deref() == Some("") {
        report.field("prefix", |r| {
            r.error(code::INVALID_VALUE, "the prefix is empty (write {} for any value)");
        });
    }
    if let Some(regex) = &text.regex {
        report.field("regex", |r| r.regex(regex));
    }
}

fn one_way(report: &mut Report, text: &StringMatch) {
    let ways = [&text.exact, &text.prefix, &text.regex].into_iter().flatten().count();
    if ways > 1 {
        report.error(code::CONFLICTING_FIELDS, "more than one of exact, prefix and regex (keep one)");
    }
}

fn headers(report: &mut Report, field: &'static str, headers: &BTreeMap<String, StringMatch>) {
    for (name, text) in headers {
        report.field(field, |r| {
            r.field(name.clone(), |r| {
                let known = is_header_name(name)
                    || PSEUDO_HEADERS.contains(&name.as_str())
                    || claim_path(name).is_some();
                if !known {
                    r.error(code::INVALID_HEADER, format!("{:?} can be no header's name", shorten(name)));
                }
                // Not a regex here: the old way to say "whatever its value".
                if field == "withoutHeaders" && text.regex.as_deref() == Some("*") {
                    return;
                }
                string_match(r, text);
            });
        });
    }
}
