//! AuthorizationPolicy. Conditions (`when`) have a file of their own.

use super::security::{glob, namespace, port, principal, scope, service_accounts, values};
use super::{Report, condition};
use crate::finding::code;
use crate::istio::{AuthorizationPolicySpec, Operation, PolicyAction, Rule, Source};
use crate::pattern::{self, path_template};
use crate::yaml::shorten;

/// Most rules of a policy, and callers of a rule, that Istio's schema takes.
const MOST_RULES: usize = 512;

/// Checks `spec` of a policy in `own` namespace.
pub(super) fn check(report: &mut Report, own: &str, spec: &AuthorizationPolicySpec) {
    scope(report, own, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    let action = match spec.action {
        PolicyAction::Allow => "ALLOW",
        PolicyAction::Deny => "DENY",
        PolicyAction::Audit => "AUDIT",
        PolicyAction::Custom => "CUSTOM",
    };
    if spec.rules.is_empty() && spec.action != PolicyAction::Allow {
        report.error(
            code::MISSING_FIELD,
            format!("{action} without rules matches nothing (write rules: [{{}}] for every request)"),
        );
    }
    let custom = spec.action == PolicyAction::Custom;
    report.field("provider", |r| match &spec.provider {
        Some(_) if !custom => r.error(
            code::CONFLICTING_FIELDS,
            format!("only CUSTOM asks a provider, and the action is {action} (take one of them away)"),
        ),
        Some(provider) if provider.name.is_empty() => r.field("name", |r| {
            r.error(
                code::MISSING_FIELD,
                "the provider's name is missing (one of MeshConfig's extensionProviders)",
            );
        }),
        None if custom => {
            r.error(
                code::MISSING_FIELD,
                "CUSTOM asks a provider (write provider.name: one of MeshConfig's extensionProviders)",
            );
        }
        _ => {}
    });
    report.at_most("rules", spec.rules.len(), MOST_RULES);
    report.each("rules", &spec.rules, |r, one| rule(r, custom, one));
}

fn rule(report: &mut Report, custom: bool, rule: &Rule) {
    report.at_most("from", rule.from.len(), MOST_RULES);
    report.each("from", &rule.from, |r, from| match &from.source {
        None => r.error(
            code::MISSING_FIELD,
            "`source` is missing (write what it is, or take the entry away for any caller)",
        ),
        Some(it) => r.field("source", |r| source(r, custom, it)),
    });
    report.each("to", &rule.to, |r, to| match &to.operation {
        None => r.error(
            code::MISSING_FIELD,
            "`operation` is missing (write what it is, or take the entry away for any operation)",
        ),
        Some(it) => r.field("operation", |r| operation(r, it)),
    });
    report.each("when", &rule.when, |r, when| condition::check(r, custom, when));
}

/// A field, and what it says.
type Field<'a> = (&'static str, &'a Vec<String>);

fn source(report: &mut Report, custom: bool, source: &Source) {
    let identities: [Field<'_>; 4] = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
    ];
    let accounts: [Field<'_>; 2] =
        [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)];
    let tokens: [Field<'_>; 2] = [
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
    ];
    let blocks: [Field<'_>; 4] = [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ];
    let domains: [Field<'_>; 2] =
        [("trustDomains", &source.trust_domains), ("notTrustDomains", &source.not_trust_domains)];
    let set = |fields: &[Field<'_>]| fields.iter().any(|(_, values)| !values.is_empty());
    if ![&identities[..], &accounts, &tokens, &blocks, &domains].into_iter().any(set) {
        report.error(
            code::MISSING_FIELD,
            "the source is empty (say who, or take the entry away for any caller)",
        );
    }
    if set(&identities) && set(&accounts) {
        report.error(
            code::CONFLICTING_FIELDS,
            "serviceAccounts exclude principals and namespaces in one source (make two `from` entries for either, or \
             write the accounts as principals)",
        );
    }
    if custom {
        let unknown = [&identities[..], &accounts, &tokens].into_iter().flatten();
        for (name, _) in unknown.filter(|(_, values)| !values.is_empty()) {
            report.field(*name, |r| condition::not_with_custom(r, name));
        }
    }
    for (name, list) in &identities[..2] {
        values(report, name, list, principal);
    }
    for (name, list) in &identities[2..] {
        values(report, name, list, namespace);
    }
    for (name, list) in &accounts {
        service_accounts(report, name, list);
    }
    for (name, list) in tokens.iter().chain(&domains) {
        values(report, name, list, |r, value| _ = glob(r, value));
    }
    for (name, list) in &blocks {
        values(report, name, list, Report::subnet);
    }
}

fn operation(report: &mut Report, operation: &Operation) {
    let hosts: [Field<'_>; 2] = [("hosts", &operation.hosts), ("notHosts", &operation.not_hosts)];
    let ports: [Field<'_>; 2] = [("ports", &operation.ports), ("notPorts", &operation.not_ports)];
    let methods: [Field<'_>; 2] = [("methods", &operation.methods), ("notMethods", &operation.not_methods)];
    let paths: [Field<'_>; 2] = [("paths", &operation.paths), ("notPaths", &operation.not_paths)];
    let mut all = [&hosts, &ports, &methods, &paths].into_iter().flatten();
    if all.all(|(_, values)| values.is_empty()) {
        report.error(
            code::MISSING_FIELD,
            "the operation is empty (say what, or take the entry away for any operation)",
        );
    }
    for (name, list) in &hosts {
        values(report, name, list, host);
    }
    for (name, list) in &ports {
        values(report, name, list, port);
    }
    for (name, list) in &methods {
        values(report, name, list, method);
    }
    for (name, list) in &paths {
        values(report, name, list, path);
    }
}

fn host(report: &mut Report, value: &str) {
    if glob(report, value) && value.contains('/') {
        let shown = shorten(value);
        report.warning(
            code::NO_EFFECT,
            format!("{shown:?} can be no Host header (write the host alone, without scheme and path)"),
        );
    }
}

fn method(report: &mut Report, value: &str) {
    if glob(report, value) && value.bytes().any(|b| b.is_ascii_lowercase()) {
        let upper = value.to_ascii_uppercase();
        report.warning(code::NO_EFFECT, format!("methods are in capitals (write {:?})", shorten(&upper)));
    }
}

/// A text, or a template. Source: Istio 1.30, `CheckValidPathTemplate`.
fn path(report: &mut Report, value: &str) {
    const ONE: &str = "{*}";
    const ANY: &str = "{**}";
    let shown = shorten(value);
    let is_template = value.contains(ONE) || value.contains(ANY);
    let mut after_any = false;
    for segment in value.trim_matches('/').split('/') {
        if segment == ONE || segment == ANY {
            if after_any {
                return report.error(
                    code::INVALID_VALUE,
                    format!("{shown:?} goes on with another template after {{**}}, which takes all the rest"),
                );
            }
            after_any = segment == ANY;
        } else if segment.contains(['{', '}']) {
            return report.error(
                code::INVALID_VALUE,
                format!(
                    "{shown:?} has braces that are no template (write {{*}} for a whole segment, {{**}} for any number)"
                ),
            );
        } else if is_template && (segment.is_empty() || !segment.bytes().all(is_pchar)) {
            return report.error(
                code::INVALID_VALUE,
                format!(
                    "{shown:?} mixes a template with {:?} (beside {{*}} and {{**}} a segment is plain text)",
                    shorten(segment)
                ),
            );
        }
    }
    if path_template(value).is_some_and(|regex| pattern::parse(&regex).is_err()) {
        return report.error(code::INVALID_VALUE, format!("{shown:?} is too long for a template"));
    }
    if value.contains(['?', '#']) {
        report
            .warning(code::NO_EFFECT, format!("{shown:?}: the query is no part of the path (take it away)"));
    } else if !is_template && glob(report, value) && !value.starts_with('/') {
        report.warning(code::NO_EFFECT, format!("{shown:?} matches nothing: paths begin with /"));
    }
}

/// What may stand in a segment. Source: RFC 3986, `pchar`.
fn is_pchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}
