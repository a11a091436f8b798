//! `http[]`: what a rule does.

use super::http_match;
use super::text::base64_len;
use super::virtual_service::{destination, weights};
use super::{Report, fault, headers};
use crate::finding::code;
use crate::istio::{HttpDirectResponse, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute};
use crate::pattern;
use crate::yaml::shorten;

/// Largest body of a direct response.
const MAX_BODY: usize = 1 << 20;
/// From here on Istio warns.
const LARGE_BODY: usize = 100 << 10;

/// Conditions of `retryOn`, besides status codes.
const RETRY_ON: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// Checks one rule; `is_delegate` says that its VirtualService has no hosts.
pub(super) fn check(report: &mut Report, route: &HttpRoute, is_delegate: bool) {
    actions(report, route, is_delegate);
    report.each("match", &route.r#match, http_match::check);
    report.each("route", &route.route, |r, one| {
        destination(r, "destination", &one.destination);
        headers::check(r, one.headers.as_ref());
    });
    weights(report, route.route.iter().map(|one| one.weight));
    headers::check(report, route.headers.as_ref());
    headers::authority_once(report, route);
    report.duration_field("timeout", route.timeout);
    mirrors(report, route);
    let mut part = |name, look: &mut dyn FnMut(&mut Report)| report.field(name, |r| look(r));
    part("redirect", &mut |r| route.redirect.iter().for_each(|it| redirect(r, it)));
    part("directResponse", &mut |r| route.direct_response.iter().for_each(|it| direct_response(r, it)));
    part("rewrite", &mut |r| route.rewrite.iter().for_each(|it| rewrite(r, it)));
    part("retries", &mut |r| route.retries.iter().for_each(|it| retries(r, it)));
    part("fault", &mut |r| route.fault.iter().for_each(|it| fault::check(r, it)));
    part("corsPolicy", &mut |r| route.cors_policy.iter().for_each(|it| headers::cors(r, it)));
}

/// What excludes what.
fn actions(report: &mut Report, route: &HttpRoute, is_delegate: bool) {
    let set = [
        ("route", !route.route.is_empty()),
        ("redirect", route.redirect.is_some()),
        ("directResponse", route.direct_response.is_some()),
        ("delegate", route.delegate.is_some()),
    ];
    let chosen: Vec<&str> = set.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    match chosen[..] {
        [] => report
            .error(code::MISSING_FIELD, "the rule does nothing (write route, redirect or directResponse)"),
        [_] => {}
        [first, ref others @ ..] => {
            for other in others {
                let message =
                    format!("a rule cannot have both {first} and {other} (keep one, or make two rules)");
                report.field(*other, |r| r.error(code::CONFLICTING_FIELDS, message));
            }
        }
    }
    for action in ["redirect", "directResponse"].into_iter().filter(|action| chosen.contains(action)) {
        for (other, set) in [("fault", route.fault.is_some()), ("rewrite", route.rewrite.is_some())] {
            if set {
                let message = format!("a rule with {action} cannot have {other} (take it away)");
                report.field(other, |r| r.error(code::CONFLICTING_FIELDS, message));
            }
        }
    }
    if let Some(delegate) = &route.delegate {
        report.field("delegate", |r| {
            if is_delegate {
                r.error(code::CONFLICTING_FIELDS, "a delegate cannot delegate further (move the rules up)");
            }
            if delegate.name.is_empty() {
                r.field("name", |r| {
                    r.error(code::MISSING_FIELD, "name the VirtualService that it delegates to");
                });
            }
        });
    }
}

fn mirrors(report: &mut Report, route: &HttpRoute) {
    if let Some(mirror) = &route.mirror {
        destination(report, "mirror", mirror);
        if !route.mirrors.is_empty() {
            report.field("mirrors", |r| {
                r.error(
                    code::CONFLICTING_FIELDS,
                    "a rule cannot have both mirror and mirrors (list all in mirrors)",
                );
            });
        }
    }
    report.each("mirrors", &route.mirrors, |r, mirror| {
        destination(r, "destination", &mirror.destination);
        r.percentage_field("percentage", mirror.percentage);
    });
    report.percentage_field("mirrorPercentage", route.mirror_percentage);
    if let Some(percent) = route.mirror_percent {
        report.percent_field("mirrorPercent", Some(i32::try_from(percent).unwrap_or(i32::MAX)));
        report.field("mirrorPercent", |r| {
            r.warning(code::DEPRECATED_FIELD, "an old field (use mirrorPercentage)");
        });
    }
    let shares = [
        ("mirrorPercentage", route.mirror_percentage.is_some()),
        ("mirrorPercent", route.mirror_percent.is_some()),
    ];
    for (name, _) in shares.into_iter().filter(|(_, set)| *set && route.mirror.is_none()) {
        report.field(name, |r| r.warning(code::NO_EFFECT, "there is no mirror beside it"));
    }
}

fn redirect(report: &mut Report, redirect: &HttpRedirect) {
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    let target = [&redirect.uri, &redirect.prefix_rewrite, &redirect.authority, &redirect.scheme];
    if target.into_iter().all(empty) && redirect.port.is_none() && redirect.derive_port.is_none() {
        report
            .error(code::MISSING_FIELD, "the redirect leads nowhere (write uri, authority, scheme or port)");
    }
    if !empty(&redirect.uri) && !empty(&redirect.prefix_rewrite) {
        report
            .error(code::CONFLICTING_FIELDS, "a redirect cannot have both uri and prefixRewrite (keep one)");
    }
    if redirect.port.is_some() && redirect.derive_port.is_some() {
        report.error(code::CONFLICTING_FIELDS, "a redirect cannot have both port and derivePort (keep one)");
    }
    if let Some(port) = redirect.port {
        report.field("port", |r| r.port(port));
    }
    report.word_field(
        "derivePort",
        redirect.derive_port.as_deref(),
        &["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"],
    );
    report.word_field(
        "scheme",
        redirect.scheme.as_deref().filter(|scheme| !scheme.is_empty()),
        &["http", "https"],
    );
    if let Some(status) =
        redirect.redirect_code.filter(|status| !matches!(status, 0 | 301 | 302 | 303 | 307 | 308))
    {
        report.field("redirectCode", |r| {
            r.error(
                code::INVALID_VALUE,
                format!("{status} is no redirect (choose 301, 302, 303, 307 or 308)"),
            );
        });
    }
}

fn direct_response(report: &mut Report, response: &HttpDirectResponse) {
    fault::status(report, "status", response.status);
    let Some(body) = &response.body else { return };
    report.field("body", |report| {
        if body.string.is_some() && body.bytes.is_some() {
            report.error(code::CONFLICTING_FIELDS, "a body cannot be both string and bytes (keep one)");
        }
        let size = match &body.bytes {
            Some(bytes) => base64_len(bytes),
            None => body.string.as_ref().map(String::len).or(Some(0)),
        };
        match size {
            None => report.field("bytes", |r| r.error(code::INVALID_VALUE, "not base64")),
            Some(size) if size > MAX_BODY => {
                report.error(code::INVALID_VALUE, format!("{size} bytes are too much (at most 1 MiB)"));
            }
            Some(size) if size > LARGE_BODY => {
                report.warning(
                    code::INVALID_VALUE,
                    format!("{size} bytes are held by every node (serve it from a pod)"),
                );
            }
            Some(_) => {}
        }
    });
}

fn rewrite(report: &mut Report, rewrite: &HttpRewrite) {
    let set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if rewrite.uri_regex_rewrite.is_some() && set(&rewrite.uri) {
        report
            .error(code::CONFLICTING_FIELDS, "a rewrite cannot have both uri and uriRegexRewrite (keep one)");
    }
    if rewrite.uri_regex_rewrite.is_none() && !set(&rewrite.uri) && !set(&rewrite.authority) {
        report.error(
            code::MISSING_FIELD,
            "the rewrite changes nothing (write uri, authority or uriRegexRewrite)",
        );
    }
    let Some(by_regex) = &rewrite.uri_regex_rewrite else { return };
    report.field("uriRegexRewrite", |report| {
        report.field("match", |r| r.regex(&by_regex.r#match));
        report.field("rewrite", |r| {
            if by_regex.rewrite.is_empty() {
                r.error(code::MISSING_FIELD, "what to put in the match's place is missing");
            } else if let Some(wrong) = wrong_substitution(&by_regex.r#match, &by_regex.rewrite) {
                r.error(code::INVALID_REGEX, wrong);
            }
        });
    });
}

/// `\N` must name a group of the regular expression.
fn wrong_substitution(regex: &str, substitution: &str) -> Option<String> {
    let groups = pattern::parse(regex).ok()?.hir.properties().explicit_captures_len();
    let mut chars = substitution.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            continue;
        }
        match chars.next() {
            Some('\\') => {}
            Some(digit) if digit.is_ascii_digit() => {
                if digit.to_digit(10).is_some_and(|digit| digit as usize > groups) {
                    return Some(format!("\\{digit} names no group: the match has {groups}"));
                }
            }
            _ => return Some("a `\\` is followed by neither a digit nor `\\`".to_owned()),
        }
    }
    None
}

fn retries(report: &mut Report, retries: &HttpRetry) {
    report.natural_field("attempts", Some(retries.attempts));
    let details = retries.per_try_timeout.is_some()
        || retries.retry_on.is_some()
        || retries.retry_remote_localities.is_some();
    if retries.attempts == 0 && details {
        report.field("attempts", |r| {
            r.error(
                code::CONFLICTING_FIELDS,
                "0 attempts switch retries off (say how many, or take the rest away)",
            );
        });
    }
    report.duration_field("perTryTimeout", retries.per_try_timeout);
    report.duration_field("backoff", retries.backoff);
    let unknown = |token: &&str| {
        let is_status = token.parse::<u16>().is_ok_and(|status| (100..=599).contains(&status));
        !is_status && !RETRY_ON.contains(token)
    };
    for token in
        retries.retry_on.iter().filter(|on| !on.is_empty()).flat_map(|on| on.split(',')).filter(unknown)
    {
        let cure = if RETRY_ON.contains(&token.trim()) {
            "take the space away".to_owned()
        } else {
            format!("choose of {}, or a status", RETRY_ON.join(", "))
        };
        report.field("retryOn", |r| {
            r.error(
                code::INVALID_VALUE,
                format!("{:?} is no condition for a retry ({cure})", shorten(token)),
            );
        });
    }
}
