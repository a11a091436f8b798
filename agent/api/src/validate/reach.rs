//! Rules and matches that no request can reach.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use super::Report;
use crate::finding::code;
use crate::istio::{HttpMatchRequest, HttpRoute, StringMatch, VirtualServiceSpec};

/// Checks the three lists of rules.
pub(super) fn check(report: &mut Report, spec: &VirtualServiceSpec) {
    rules(
        report,
        "http",
        spec.http.iter().map(|rule| (rule.r#match.as_slice(), name(rule))),
        is_everything,
        nameless,
    );
    rules(report, "tls", spec.tls.iter().map(|rule| (rule.r#match.as_slice(), None)), |_| false, serde_key);
    rules(report, "tcp", spec.tcp.iter().map(|rule| (rule.r#match.as_slice(), None)), |_| false, serde_key);
    covered_prefixes(report, &spec.http);
}

fn name(rule: &HttpRoute) -> Option<&str> {
    rule.name.as_deref()
}

fn serde_key<T: Serialize>(one: &T) -> String {
    serde_json::to_string(one).unwrap_or_default()
}

/// A match without what changes nothing about it.
fn nameless(one: &HttpMatchRequest) -> String {
    serde_key(&HttpMatchRequest { name: None, stat_prefix: None, ..one.clone() })
}

/// Whether every request matches.
fn is_everything(one: &HttpMatchRequest) -> bool {
    let uri_is_any = one
        .uri
        .as_ref()
        .is_none_or(|uri| *uri == StringMatch::default() || matches!(uri.prefix.as_deref(), Some("" | "/")));
    let bare =
        HttpMatchRequest { name: None, stat_prefix: None, uri: None, ignore_uri_case: false, ..one.clone() };
    uri_is_any && bare == HttpMatchRequest::default()
}

fn rules<'a, M: 'a>(
    report: &mut Report,
    list: &'static str,
    rules: impl Iterator<Item = (&'a [M], Option<&'a str>)>,
    is_everything: impl Fn(&M) -> bool,
    key: impl Fn(&M) -> String,
) {
    let mut catch_all: Option<String> = None;
    let mut seen: HashMap<String, String> = HashMap::new();
    for (index, (matches, name)) in rules.enumerate() {
        let title =
            name.map_or_else(|| format!("{list}[{index}]"), |name| format!("{list}[{index}] ({name})"));
        if let Some(earlier) = &catch_all {
            report.item(list, index, |r| {
                r.warning(
                    code::UNREACHABLE_RULE,
                    format!(
                        "never reached: {earlier} before it takes everything (move it up, or take it away)"
                    ),
                );
            });
            continue;
        }
        let mut taken = 0;
        for (at, one) in matches.iter().enumerate() {
            let key = key(one);
            if let Some(earlier) = seen.get(&key) {
                taken += 1;
                report.item(list, index, |r| {
                    r.item("match", at, |r| {
                        r.warning(
                            code::DUPLICATE_MATCH,
                            format!("never used: the same as {earlier} (take it away)"),
                        );
                    });
                });
            } else {
                seen.insert(key, format!("{title}.match[{at}]"));
            }
        }
        if !matches.is_empty() && taken == matches.len() {
            report.item(list, index, |r| {
                r.warning(code::UNREACHABLE_RULE, "never reached: rules before it take all its matches");
            });
        }
        if matches.is_empty() || matches.iter().any(&is_everything) {
            catch_all = Some(title);
        }
    }
}

/// A path match whose paths all match an earlier prefix, all else being the same.
fn covered_prefixes(report: &mut Report, http: &[HttpRoute]) {
    let mut prefixes: HashMap<String, BTreeSet<&str>> = HashMap::new();
    for (index, rule) in http.iter().enumerate() {
        if rule.r#match.is_empty() {
            return;
        }
        for (at, one) in rule.r#match.iter().enumerate() {
            let Some(uri) = &one.uri else { continue };
            let Some(text) = uri.exact.as_deref().or(uri.prefix.as_deref()) else { continue };
            let key = nameless(&HttpMatchRequest { uri: None, ..one.clone() });
            let known = prefixes.entry(key).or_default();
            let own = uri.prefix.is_some();
            let shorter = |prefix: &&&str| text.starts_with(**prefix) && !(own && **prefix == text);
            if let Some(prefix) = known.iter().find(shorter).filter(|prefix| !matches!(**prefix, "" | "/")) {
                report.item("http", index, |r| {
                    r.item("match", at, |r| {
                        r.field("uri", |r| {
                            r.warning(
                                code::DUPLICATE_MATCH,
                                format!(
                                    "never used: prefix {prefix:?} of an earlier match covers it (move it up)"
                                ),
                            );
                        });
                    });
                });
            }
            if let Some(prefix) = uri.prefix.as_deref().filter(|_| known.len() < MAX_PREFIXES) {
                known.insert(prefix);
            }
        }
    }
}

/// Most prefixes that are compared with each later one.
const MAX_PREFIXES: usize = 256;
