//! `headers` and `corsPolicy`.

use super::Report;
use super::http_match::string_match;
use super::text::is_header_name;
use crate::finding::code;
use crate::istio::{CorsPolicy, HeaderOperations, Headers, HttpRoute};
use crate::yaml::shorten;

const METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];

/// Checks a field `headers`, if it is there.
pub(super) fn check(report: &mut Report, headers: Option<&Headers>) {
    let Some(headers) = headers else { return };
    report.field("headers", |report| {
        for (name, operations, is_request) in
            [("request", &headers.request, true), ("response", &headers.response, false)]
        {
            report.field(name, |r| operations.iter().for_each(|it| header_operations(r, it, is_request)));
        }
    });
}

fn header_operations(report: &mut Report, operations: &HeaderOperations, is_request: bool) {
    for (verb, values) in [("set", &operations.set), ("add", &operations.add)] {
        for (name, value) in values {
            report.field(verb, |r| {
                r.field(name.clone(), |r| {
                    header_name(r, name, is_request);
                    header_value(r, value);
                });
            });
        }
    }
    report.each("remove", &operations.remove, |r, name| header_name(r, name, false));
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

fn header_name(report: &mut Report, name: &str, may_be_authority: bool) {
    let shown = shorten(name);
    if is_authority(name) {
        if !may_be_authority {
            report.error(
                code::INVALID_HEADER,
                format!("{shown:?} cannot be changed here (only set in a request)"),
            );
        }
    } else if name.starts_with(':') {
        report.error(
            code::INVALID_HEADER,
            format!("{shown:?} cannot be changed (use rewrite for path and authority)"),
        );
    } else if !is_header_name(name) {
        report.error(code::INVALID_HEADER, format!("{shown:?} can be no header's name"));
    }
}

/// No control characters, and `%` only in pairs, as Envoy has it: `%VARIABLE%` or `%%`.
fn header_value(report: &mut Report, value: &str) {
    if value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
        report.error(code::INVALID_HEADER, "the value holds a control character");
    }
    if !value.matches('%').count().is_multiple_of(2) {
        report.error(code::INVALID_HEADER, "a `%` stands alone (write %% for the character itself)");
    }
}

/// The Host header can be set in one place only.
pub(super) fn authority_once(report: &mut Report, route: &HttpRoute) {
    let by_rewrite =
        route.rewrite.as_ref().and_then(|it| it.authority.as_ref()).is_some_and(|it| !it.is_empty());
    let operations = route.headers.as_ref().and_then(|it| it.request.as_ref());
    let by_headers =
        operations.map_or(0, |it| it.set.keys().chain(it.add.keys()).filter(|it| is_authority(it)).count());
    if by_headers + usize::from(by_rewrite) > 1 {
        report.field("headers", |r| {
            r.error(
                code::CONFLICTING_FIELDS,
                "the Host header is set more than once (keep rewrite.authority or one header)",
            );
        });
    }
}

/// Checks a cross-origin policy.
pub(super) fn cors(report: &mut Report, cors: &CorsPolicy) {
    report.each("allowOrigins", &cors.allow_origins, |r, origin| {
        let texts = [&origin.exact, &origin.prefix, &origin.regex];
        if texts.into_iter().flatten().all(String::is_empty) {
            r.error(code::INVALID_VALUE, "the origin is empty (write exact, prefix or regex)");
        } else {
            string_match(r, origin);
        }
    });
    if !cors.allow_origin.is_empty() {
        report.field("allowOrigin", |r| {
            r.warning(code::DEPRECATED_FIELD, "an old field (use allowOrigins with exact)");
        });
    }
    report.each("allowMethods", &cors.allow_methods, |r, method| {
        if !METHODS.contains(&method.as_str()) {
            r.error(
                code::INVALID_VALUE,
                format!("{:?} is no method (methods are in capitals)", shorten(method)),
            );
        }
    });
    for (name, headers) in [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)] {
        report.each(name, headers, |r, header| {
            if !is_header_name(header) {
                r.error(code::INVALID_HEADER, format!("{:?} can be no header's name", shorten(header)));
            }
        });
    }
    report.duration_field("maxAge", cors.max_age);
    if let Some(age) = cors.max_age.filter(|age| age.0.subsec_nanos() != 0) {
        report.field("maxAge", |r| {
            r.error(code::INVALID_DURATION, format!("{age} is no whole number of seconds"));
        });
    }
    let words = ["UNSPECIFIED", "FORWARD", "IGNORE"];
    report.word_field("unmatchedPreflights", cors.unmatched_preflights.as_deref(), &words);
}
