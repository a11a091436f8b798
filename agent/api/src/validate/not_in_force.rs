//! Fields that are accepted and have no effect yet. [`TABLE`] gets shorter as features land.

use serde_json::Value;

use super::{Report, annotations, condition, gateway};
use crate::finding::code;
use crate::istio::{AuthorizationPolicySpec, PolicyTargetReference};
use crate::kinds::Kind;
use crate::meta::ObjectMeta;
use crate::object::Object;
use crate::yaml::{Path, Segment};

/// Kind, field and what to expect instead. `POLICY` is a traffic policy wherever one may stand: of the rule, of a
/// subset, of a port of either.
const TABLE: &[(Kind, &str, &str)] = &[
    (Kind::VirtualService, "spec.http[].retries.retryRemoteLocalities", "localities are not told apart"),
    (Kind::VirtualService, "spec.http[].match[].statPrefix", "there are no statistics by prefix"),
    (Kind::DestinationRule, "POLICY.loadBalancer.consistentHash", "requests are balanced by LEAST_REQUEST"),
    (Kind::DestinationRule, "POLICY.loadBalancer.localityLbSetting", "localities are not told apart"),
    (Kind::DestinationRule, "POLICY.loadBalancer.zoneAwareLbSetting", "zones are not told apart"),
    (Kind::DestinationRule, "POLICY.loadBalancer.warmup", "new endpoints get their full share at once"),
    (
        Kind::DestinationRule,
        "POLICY.loadBalancer.warmupDurationSecs",
        "new endpoints get their full share at once",
    ),
    (Kind::DestinationRule, "POLICY.connectionPool.tcp.maxConnections", "connections are not limited"),
    (Kind::DestinationRule, "POLICY.connectionPool.tcp.tcpKeepalive", "the node's settings hold"),
    (Kind::DestinationRule, "POLICY.connectionPool.tcp.maxConnectionDuration", "connections may live on"),
    (Kind::DestinationRule, "POLICY.connectionPool.tcp.idleTimeout", "the default holds"),
    (Kind::DestinationRule, "POLICY.connectionPool.http", "requests are not limited"),
    (Kind::DestinationRule, "POLICY.outlierDetection", "no endpoint is ejected"),
    (Kind::DestinationRule, "POLICY.tls.credentialName", "Secrets are not read: requests answer 503"),
    (Kind::DestinationRule, "POLICY.tls.caCrl", "revocation lists are not read: requests answer 503"),
    (Kind::DestinationRule, "POLICY.tunnel", "connections are made directly"),
    (Kind::DestinationRule, "POLICY.proxyProtocol", "no PROXY header is sent"),
    (Kind::DestinationRule, "POLICY.retryBudget", "retries are not limited by it"),
];

/// Annotation of a policy that is only to be looked at.
const DRY_RUN: &str = "istio.io/dry-run";

/// Where a traffic policy may stand.
const POLICIES: &[&str] = &[
    "spec.trafficPolicy",
    "spec.trafficPolicy.portLevelSettings[]",
    "spec.subsets[].trafficPolicy",
    "spec.subsets[].trafficPolicy.portLevelSettings[]",
];

/// Tells each field in use that has no effect yet.
pub(super) fn check(report: &mut Report, object: &Object) {
    let spec = match object {
        Object::VirtualService(o) => serde_json::to_value(&o.spec),
        Object::DestinationRule(o) => serde_json::to_value(&o.spec),
        Object::AuthorizationPolicy(o) => {
            dry_run(report, &o.metadata);
            return report.field("spec", |r| authorization_policy(r, &o.spec));
        }
        Object::Gateway(o) => return report.field("spec", |r| gateway::without_force(r, &o.spec)),
        Object::Pod(o) => {
            return report.field("metadata", |r| annotations::without_force(r, &o.metadata.annotations));
        }
        Object::RequestAuthentication(o) => {
            return report.field("spec", |r| {
                targets(r, o.spec.target_ref.as_ref(), &o.spec.target_refs);
            });
        }
        // All of their fields that weft reads have an effect.
        Object::Namespace(_)
        | Object::Service(_)
        | Object::EndpointSlice(_)
        | Object::ConfigMap(_)
        | Object::Secret(_)
        | Object::NetworkPolicy(_)
        | Object::PeerAuthentication(_) => return,
    };
    let root = Value::Object([("spec".to_owned(), spec.unwrap_or_default())].into_iter().collect());
    for (_, pattern, instead) in TABLE.iter().filter(|(kind, ..)| *kind == object.kind()) {
        let mut found = Vec::new();
        match pattern.strip_prefix("POLICY.") {
            Some(rest) => {
                for policy in POLICIES {
                    find(&root, &format!("{policy}.{rest}"), &mut Vec::new(), &mut found);
                }
            }
            None => find(&root, pattern, &mut Vec::new(), &mut found),
        }
        for path in found {
            report.at(path, |r| tell(r, instead));
        }
    }
}

pub(super) fn tell(report: &mut Report, instead: &str) {
    report.warning(code::NOT_IN_FORCE, format!("not in force in this version of weft: {instead}"));
}

fn dry_run(report: &mut Report, meta: &ObjectMeta) {
    if meta.annotations.get(DRY_RUN).is_some_and(|value| value == "true") {
        report.field("metadata", |r| {
            r.field("annotations", |r| {
                r.field(DRY_RUN, |r| r.info(code::NOT_IN_FORCE, "a dry run: it refuses and allows nothing; metric weft_authorization_dry_run_total and weft tap --would-deny tell what it would"));
            });
        });
    }
}

fn authorization_policy(report: &mut Report, spec: &AuthorizationPolicySpec) {
    targets(report, spec.target_ref.as_ref(), &spec.target_refs);
    report.each("rules", &spec.rules, |r, rule| {
        r.each("when", &rule.when, |r, when| {
            if when.key.starts_with(condition::FILTERS) {
                r.field("key", |r| tell(r, "there are no filters of Envoy, and no value is ever found"));
            }
        });
    });
}

/// A Service's policy holds for the workloads behind it; the other targets are proxies that are not there.
fn targets(report: &mut Report, one: Option<&PolicyTargetReference>, several: &[PolicyTargetReference]) {
    let target = |report: &mut Report, target: &PolicyTargetReference| {
        if target.kind != "Service" {
            let message = format!(
                "not in force in this version of weft: no {} has a proxy of its own (select the workloads instead)",
                target.kind
            );
            report.info(code::NOT_IN_FORCE, message);
        }
    };
    if let Some(one) = one {
        report.field("targetRef", |r| target(r, one));
    }
    report.each("targetRefs", several, target);
}

/// Finds what a pattern leads to and is set.
fn find(value: &Value, pattern: &str, here: &mut Path, found: &mut Vec<Path>) {
    let (first, rest) = pattern.split_once('.').map_or((pattern, None), |(first, rest)| (first, Some(rest)));
    let (name, each) = first.strip_suffix("[]").map_or((first, false), |name| (name, true));
    let Some(value) = value.get(name) else { return };
    here.push(Segment::Key(name.to_owned().into()));
    let items: Vec<(Option<usize>, &Value)> = match value {
        Value::Array(items) if each => {
            items.iter().enumerate().map(|(index, item)| (Some(index), item)).collect()
        }
        other => vec![(None, other)],
    };
    for (index, item) in items {
        here.extend(index.map(Segment::Index));
        match rest {
            Some(rest) => find(item, rest, here, found),
            None if is_set(item) => found.push(here.clone()),
            None => {}
        }
        if index.is_some() {
            here.pop();
        }
    }
    here.pop();
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}
