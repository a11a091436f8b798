//! RequestAuthentication.

use std::collections::HashSet;

use serde_json::Value;

use super::Report;
use super::security::{scope, values};
use super::text::{is_header_name, is_ip, wrong_host};
use crate::finding::code;
use crate::istio::{JwtRule, RequestAuthenticationSpec};
use crate::reserved;
use crate::yaml::shorten;

/// Checks `spec` of an object in `own` namespace.
pub(super) fn check(report: &mut Report, own: &str, spec: &RequestAuthenticationSpec) {
    scope(report, own, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    if spec.jwt_rules.is_empty() {
        report.warning(code::NO_EFFECT, "without jwtRules no token is looked at (write jwtRules)");
    }
    report.at_most("jwtRules", spec.jwt_rules.len(), 4096);
    let mut issuers = HashSet::new();
    report.each("jwtRules", &spec.jwt_rules, |r, one| {
        rule(r, one);
        if !(one.issuer.is_empty() || issuers.insert(one.issuer.as_str())) {
            r.field("issuer", |r| {
                let shown = shorten(&one.issuer);
                r.warning(
                    code::DUPLICATE_NAME,
                    format!("{shown:?} is there twice: a token that one of the rules accepts is good (make one of them)"),
                );
            });
        }
    });
}

fn rule(report: &mut Report, rule: &JwtRule) {
    if rule.issuer.is_empty() {
        report.field("issuer", |r| {
            r.error(code::MISSING_FIELD, "the issuer is missing (write what the token's `iss` says)");
        });
    }
    let set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if set(&rule.jwks) && set(&rule.jwks_uri) {
        report.field("jwksUri", |r| {
            r.error(code::CONFLICTING_FIELDS, "the keys are in jwks or at jwksUri (keep one)");
        });
    }
    if let Some(uri) = rule.jwks_uri.as_deref().filter(|uri| !uri.is_empty()) {
        report.field("jwksUri", |r| key_url(r, uri));
    } else if !set(&rule.jwks) && !rule.issuer.is_empty() {
        match host_of(&rule.issuer) {
            Some(host) => report.field("issuer", |r| reserved_host(r, host)),
            None => report.warning(
                code::NO_EFFECT,
                "without jwks and jwksUri the keys are looked for at the issuer, and this one is no URL (write one of them)",
            ),
        }
    }
    if let Some(keys) = rule.jwks.as_deref().filter(|keys| !keys.is_empty()) {
        report.field("jwks", |r| key_set(r, keys));
    }
    values(report, "audiences", &rule.audiences, |_, _| {});
    values(report, "fromParams", &rule.from_params, |_, _| {});
    values(report, "fromCookies", &rule.from_cookies, cookie_name);
    report.at_most("spaceDelimitedClaims", rule.space_delimited_claims.len(), 64);
    values(report, "spaceDelimitedClaims", &rule.space_delimited_claims, |_, _| {});
    report.each("fromHeaders", &rule.from_headers, |r, header| {
        r.field("name", |r| header_field(r, &header.name));
    });
    if let Some(header) = &rule.output_payload_to_header {
        report.field("outputPayloadToHeader", |r| header_field(r, header));
    }
    let mut outputs = HashSet::new();
    report.each("outputClaimToHeaders", &rule.output_claim_to_headers, |r, output| {
        r.field("header", |r| {
            header_field(r, &output.header);
            if !outputs.insert(output.header.to_ascii_lowercase()) {
                let shown = shorten(&output.header);
                r.error(code::DUPLICATE_NAME, format!("two claims go to the header {shown:?} (keep one)"));
            }
        });
        if output.claim.is_empty() {
            r.field("claim", |r| r.error(code::MISSING_FIELD, "the claim is missing"));
        }
    });
    report.duration_field("timeout", rule.timeout);
}

fn header_field(report: &mut Report, name: &str) {
    if name.is_empty() {
        report.error(code::MISSING_FIELD, "the header's name is missing");
    } else {
        header_name(report, name);
    }
}

fn header_name(report: &mut Report, name: &str) {
    if !is_header_name(name) {
        report.error(code::INVALID_HEADER, format!("{:?} can be no header's name", shorten(name)));
    }
}

/// Source: RFC 6265, 4.1.1: the same characters as in a header's name.
fn cookie_name(report: &mut Report, name: &str) {
    if !is_header_name(name) {
        report.error(code::INVALID_VALUE, format!("{:?} can be no cookie's name", shorten(name)));
    }
}

fn key_url(report: &mut Report, url: &str) {
    const LONGEST: usize = 2048;
    if url.len() > LONGEST {
        return report.error(code::INVALID_VALUE, format!("longer than {LONGEST} characters"));
    }
    let Some(host) = host_of(url) else {
        let shown = shorten(url);
        return report.error(
            code::INVALID_VALUE,
            format!("{shown:?} is no URL of keys (write https://HOST/PATH or http://HOST/PATH)"),
        );
    };
    if let Some(wrong) = wrong_host(host).filter(|_| !is_ip(host)) {
        report.error(code::INVALID_HOST, wrong);
    }
    reserved_host(report, host);
}

/// Warns of a host that agents do not go to, as far as its name tells: whether they were started with leave to, nobody knows
/// here.
fn reserved_host(report: &mut Report, host: &str) {
    let kind = match host.parse() {
        Ok(address) => reserved::kind(address),
        Err(_) => (host.eq_ignore_ascii_case("localhost")).then_some("a loopback address"),
    };
    if let Some(kind) = kind {
        report.warning(
            code::NO_EFFECT,
            format!(
                "{host} is {kind}: agents fetch no keys there, and its tokens are refused (name the issuer's Service, or \
                 start the agents with --jwks-allow)"
            ),
        );
    }
}

/// The host of a URL with a port that can be one.
fn host_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let authority = rest.split(['/', '?', '#']).next().filter(|authority| !authority.contains('@'))?;
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("443"))?)
        }
        None => authority.rsplit_once(':').unwrap_or((authority, "443")),
    };
    (!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(host)
}

/// A JSON Web Key Set. Source: RFC 7517, 5.
fn key_set(report: &mut Report, text: &str) {
    let wrong = match serde_json::from_str::<Value>(text) {
        Err(error) => format!("no JSON: {error}"),
        Ok(value) => match value.get("keys").and_then(Value::as_array) {
            None if value.get("kty").is_some() => {
                "a key, not a set of keys (write {\"keys\": [ … ]})".to_owned()
            }
            None => "no key set: `keys` is missing (write {\"keys\": [ … ]})".to_owned(),
            Some(keys) if keys.is_empty() => "an empty key set: no token is good (add a key)".to_owned(),
            Some(keys) => {
                let private = keys.iter().any(|key| key.get("d").is_some() || key.get("k").is_some());
                if private {
                    report.warning(
                        code::INVALID_VALUE,
                        "a private key stands here for everybody to read (keep only the public part: n and e, or x and y)",
                    );
                }
                match keys.iter().position(|key| key.get("kty").is_none_or(|kty| !kty.is_string())) {
                    Some(index) => format!("no key set: `keys[{index}].kty` is missing"),
                    None => return,
                }
            }
        },
    };
    report.error(code::INVALID_VALUE, wrong);
}
