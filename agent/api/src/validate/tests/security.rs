//! The security kinds: what Istio's webhook refuses, and what cannot be meant.

use super::told_of;
use crate::finding::Severity;

const GROUP: &str = "security.istio.io/v1";

/// Refused for this alone.
#[track_caller]
fn refused(kind: &str, spec: &str, expected: &str) {
    assert_eq!(told_of(GROUP, kind, spec, Severity::Error), [expected], "{spec}");
}

#[track_caller]
fn warned(kind: &str, spec: &str, expected: &str) {
    assert_eq!(told_of(GROUP, kind, spec, Severity::Error), Vec::<String>::new(), "{spec}");
    assert_eq!(told_of(GROUP, kind, spec, Severity::Warning), [expected], "{spec}");
}

#[track_caller]
fn fine(kind: &str, spec: &str) {
    for severity in [Severity::Error, Severity::Warning] {
        assert_eq!(told_of(GROUP, kind, spec, severity), Vec::<String>::new(), "{spec}");
    }
}

#[test]
fn peer_authentication() {
    const KIND: &str = "PeerAuthentication";
    fine(KIND, "mtls: {mode: STRICT}");
    fine(KIND, "mtls: {}");
    for ports in ["{8080: {mode: DISABLE}}", "{\"8080\": {mode: DISABLE}, '9090': {mode: STRICT}}"] {
        fine(KIND, &format!("selector: {{matchLabels: {{app: a}}}}\nportLevelMtls: {ports}"));
    }
    refused(KIND, "portLevelMtls: {80: {mode: STRICT}}", "ConflictingFields portLevelMtls");
    refused(KIND, "selector: {}\nportLevelMtls: {80: {mode: STRICT}}", "ConflictingFields portLevelMtls");
    let selected = |ports: &str| format!("selector: {{matchLabels: {{app: a}}}}\nportLevelMtls: {ports}");
    refused(KIND, &selected("{0: {mode: STRICT}}"), "InvalidPort portLevelMtls.0");
    refused(KIND, &selected("{65536: {mode: STRICT}}"), "InvalidValue portLevelMtls.65536");
    refused(KIND, &selected("{http: {mode: STRICT}}"), "InvalidValue portLevelMtls.http");
    refused(KIND, "mtls: {mode: strict}", "InvalidValue mtls.mode");
    refused(KIND, "mode: STRICT", "UnknownField mode");
    refused(KIND, "selector: {app: a}\nmtls: {mode: STRICT}", "UnknownField selector.app");
    refused(
        KIND,
        "selector: {matchLabels: {app: 'a*'}}\nmtls: {mode: STRICT}",
        "InvalidLabel selector.matchLabels.app",
    );
    warned(KIND, "selector: {}\nmtls: {mode: STRICT}", "NoEffect selector");
}

#[test]
fn policies_that_istio_accepts() {
    const KIND: &str = "AuthorizationPolicy";
    for spec in [
        "action: ALLOW",
        "rules: [{}]",
        "action: DENY\nrules: [{}]",
        "selector: {matchLabels: {app: a}}\nrules:\n- from: [{source: {principals: [cluster.local/ns/a/sa/b, 'x*', '*y', '*']}}]",
        "rules: [{from: [{source: {namespaces: [a, 'b-*'], ipBlocks: [10.0.0.0/8, '::1'], requestPrincipals: ['*']}}]}]",
        "rules: [{from: [{source: {serviceAccounts: [a/b, c], trustDomains: [x.org]}}]}]",
        "rules: [{to: [{operation: {hosts: ['*.x.org'], methods: [GET, '*'], ports: ['80'], notPaths: [/a, '/b*', '*/c', '/x/{*}/y/{**}']}}]}]",
        "rules: [{when: [{key: 'request.headers[:method]', values: [GET]}, {key: 'request.auth.claims[a][b]', notValues: [x]}]}]",
        "rules: [{when: [{key: source.ip, values: [1.2.3.4]}, {key: destination.port, values: ['80']}, {key: connection.sni, values: ['*']}]}]",
        "action: CUSTOM\nprovider: {name: x}\nrules: [{to: [{operation: {paths: [/admin*]}}]}]",
        "targetRefs: [{group: '', kind: Service, name: a}]\nrules: [{}]",
        "targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: a}\nrules: [{}]",
    ] {
        fine(KIND, spec);
    }
}

#[test]
fn policies_that_istio_refuses() {
    const KIND: &str = "AuthorizationPolicy";
    let source = |fields: &str| format!("rules: [{{from: [{{source: {{{fields}}}}}]}}]");
    let operation = |fields: &str| format!("rules: [{{to: [{{operation: {{{fields}}}}}]}}]");
    let when = |fields: &str| format!("rules: [{{when: [{{{fields}}}]}}]");
    let custom = |rules: &str| format!("action: CUSTOM\nprovider: {{name: x}}\n{rules}");
    for (spec, expected) in [
        ("action: DENY".to_owned(), "MissingField spec"),
        ("action: AUDIT".to_owned(), "MissingField spec"),
        ("action: CUSTOM\nprovider: {name: x}".to_owned(), "MissingField spec"),
        ("action: CUSTOM\nrules: [{}]".to_owned(), "MissingField provider"),
        ("action: CUSTOM\nprovider: {}\nrules: [{}]".to_owned(), "MissingField provider.name"),
        ("action: DENY\nprovider: {name: x}\nrules: [{}]".to_owned(), "ConflictingFields provider"),
        (
            "selector: {matchLabels: {app: a}}\ntargetRefs: [{kind: Service, name: a}]".to_owned(),
            "ConflictingFields targetRefs",
        ),
        (
            "targetRefs: [{kind: Deployment, group: apps, name: a}]".to_owned(),
            "InvalidValue targetRefs[0].kind",
        ),
        ("targetRefs: [{kind: Gateway, name: a}]".to_owned(), "InvalidValue targetRefs[0].group"),
        (
            "targetRefs: [{kind: Service, name: a, namespace: b}]".to_owned(),
            "InvalidValue targetRefs[0].namespace",
        ),
        ("targetRefs: [{kind: Service}]".to_owned(), "MissingField targetRefs[0].name"),
        ("rules: [{from: []}]".to_owned(), "InvalidValue rules[0].from"),
        ("rules: [{to: []}]".to_owned(), "InvalidValue rules[0].to"),
        ("rules: [{from: [{}]}]".to_owned(), "MissingField rules[0].from[0]"),
        ("rules: [{to: [{}]}]".to_owned(), "MissingField rules[0].to[0]"),
        (source(""), "MissingField rules[0].from[0].source"),
        (operation(""), "MissingField rules[0].to[0].operation"),
        (source("principals: ['']"), "InvalidValue rules[0].from[0].source.principals[0]"),
        (source("serviceAccounts: [a], namespaces: [b]"), "ConflictingFields rules[0].from[0].source"),
        (source("notServiceAccounts: [a], principals: ['*']"), "ConflictingFields rules[0].from[0].source"),
        (source("serviceAccounts: ['a/*']"), "InvalidValue rules[0].from[0].source.serviceAccounts[0]"),
        (source("serviceAccounts: [a/b/c]"), "InvalidValue rules[0].from[0].source.serviceAccounts[0]"),
        (source("ipBlocks: [10.0.0.0/33]"), "InvalidValue rules[0].from[0].source.ipBlocks[0]"),
        (source("notRemoteIpBlocks: [10.0.0]"), "InvalidValue rules[0].from[0].source.notRemoteIpBlocks[0]"),
        (source("principal: [a]"), "UnknownField rules[0].from[0].source.principal"),
        (source("namespace: [a]"), "UnknownField rules[0].from[0].source.namespace"),
        (
            "rules: [{from: [{sources: {namespaces: [a]}}]}]".to_owned(),
            "UnknownField rules[0].from[0].sources",
        ),
        ("rules: [{from: [{principals: [a]}]}]".to_owned(), "UnknownField rules[0].from[0].principals"),
        (operation("ports: ['0']"), "InvalidPort rules[0].to[0].operation.ports[0]"),
        (operation("notPorts: [http]"), "InvalidPort rules[0].to[0].operation.notPorts[0]"),
        (operation("ports: [80]"), "InvalidType rules[0].to[0].operation.ports[0]"),
        (operation("paths: ['/a{*}']"), "InvalidValue rules[0].to[0].operation.paths[0]"),
        (operation("paths: ['/{**}/{*}']"), "InvalidValue rules[0].to[0].operation.paths[0]"),
        (operation("paths: ['/{*}/b*']"), "InvalidValue rules[0].to[0].operation.paths[0]"),
        (operation("paths: ['/{id}']"), "InvalidValue rules[0].to[0].operation.paths[0]"),
        (when("key: source.ip"), "MissingField rules[0].when[0]"),
        (when("values: [a]"), "MissingField rules[0].when[0].key"),
        (when("key: source.ipp, values: [a]"), "InvalidValue rules[0].when[0].key"),
        (when("key: request.headers, values: [a]"), "InvalidValue rules[0].when[0].key"),
        (when("key: 'request.headers[]', values: [a]"), "InvalidValue rules[0].when[0].key"),
        (when("key: 'request.headers[a b]', values: [a]"), "InvalidHeader rules[0].when[0].key"),
        (when("key: 'request.auth.claims[a', values: [a]"), "InvalidValue rules[0].when[0].key"),
        (when("key: 'source.ip[a]', values: [1.2.3.4]"), "InvalidValue rules[0].when[0].key"),
        (when("key: destination.labels, values: [a]"), "InvalidValue rules[0].when[0].key"),
        (when("key: source.ip, values: [a]"), "InvalidValue rules[0].when[0].values[0]"),
        (when("key: destination.port, notValues: ['x']"), "InvalidPort rules[0].when[0].notValues[0]"),
        (custom(&source("namespaces: [a]")), "ConflictingFields rules[0].from[0].source.namespaces"),
        (custom(&when("key: source.principal, values: ['*']")), "ConflictingFields rules[0].when[0].key"),
    ] {
        refused(KIND, &spec, expected);
    }
}

#[test]
fn policies_that_match_nothing() {
    const KIND: &str = "AuthorizationPolicy";
    let source = |fields: &str| format!("rules: [{{from: [{{source: {{{fields}}}}}]}}]");
    let operation = |fields: &str| format!("rules: [{{to: [{{operation: {{{fields}}}}}]}}]");
    for (spec, expected) in [
        (
            source("principals: ['spiffe://cluster.local/ns/a/sa/b']"),
            "NoEffect rules[0].from[0].source.principals[0]",
        ),
        (source("principals: [ns/a/sa/b]"), "NoEffect rules[0].from[0].source.principals[0]"),
        (source("principals: ['cluster.local/ns/*/sa/b']"), "NoEffect rules[0].from[0].source.principals[0]"),
        (source("namespaces: [A]"), "NoEffect rules[0].from[0].source.namespaces[0]"),
        (operation("methods: [get]"), "NoEffect rules[0].to[0].operation.methods[0]"),
        (operation("paths: [admin]"), "NoEffect rules[0].to[0].operation.paths[0]"),
        (operation("paths: ['/a?b=c']"), "NoEffect rules[0].to[0].operation.paths[0]"),
        (operation("paths: ['/a/*/b']"), "NoEffect rules[0].to[0].operation.paths[0]"),
        (operation("hosts: ['http://a/']"), "NoEffect rules[0].to[0].operation.hosts[0]"),
    ] {
        warned(KIND, &spec, expected);
    }
}

#[test]
fn request_authentication() {
    const KIND: &str = "RequestAuthentication";
    let rule = |fields: &str| format!("jwtRules: [{{{fields}}}]");
    let keys = "jwks: '{\"keys\": [{\"kty\": \"RSA\", \"n\": \"x\", \"e\": \"AQAB\"}]}'";
    for spec in [
        "issuer: https://x.org".to_owned(),
        format!("issuer: testing@secure.istio.io, {keys}"),
        "issuer: x, jwksUri: 'http://keys.auth:8080/jwks.json'".to_owned(),
        "issuer: x, jwksUri: 'https://[2001:db8::1]:8443/'".to_owned(),
        format!(
            "issuer: x, {keys}, fromHeaders: [{{name: x-token, prefix: 'Bearer '}}], fromParams: [t], fromCookies: [c]"
        ),
        format!(
            "issuer: x, {keys}, outputPayloadToHeader: x-p, outputClaimToHeaders: [{{header: x-a, claim: a.b}}], timeout: 1s"
        ),
    ] {
        fine(KIND, &rule(&spec));
    }
    for (fields, expected) in [
        (keys.to_owned(), "MissingField jwtRules[0].issuer"),
        (format!("issuer: x, {keys}, jwksUri: 'https://x.org'"), "ConflictingFields jwtRules[0].jwksUri"),
        ("issuer: x, jwksUri: x.org/keys".to_owned(), "InvalidValue jwtRules[0].jwksUri"),
        ("issuer: x, jwksUri: 'https://x.org:0/'".to_owned(), "InvalidValue jwtRules[0].jwksUri"),
        ("issuer: x, jwksUri: 'https://u:p@x.org/'".to_owned(), "InvalidValue jwtRules[0].jwksUri"),
        ("issuer: x, jwksUri: 'https://x_y/'".to_owned(), "InvalidHost jwtRules[0].jwksUri"),
        ("issuer: x, jwks: '{'".to_owned(), "InvalidValue jwtRules[0].jwks"),
        ("issuer: x, jwks: '{\"keys\": []}'".to_owned(), "InvalidValue jwtRules[0].jwks"),
        ("issuer: x, jwks: '{\"kty\": \"RSA\"}'".to_owned(), "InvalidValue jwtRules[0].jwks"),
        ("issuer: x, jwks: '{\"keys\": [{}]}'".to_owned(), "InvalidValue jwtRules[0].jwks"),
        (format!("issuer: x, {keys}, audiences: ['']"), "InvalidValue jwtRules[0].audiences[0]"),
        (
            format!("issuer: x, {keys}, fromHeaders: [{{prefix: a}}]"),
            "MissingField jwtRules[0].fromHeaders[0].name",
        ),
        (
            format!("issuer: x, {keys}, fromHeaders: [{{name: a b}}]"),
            "InvalidHeader jwtRules[0].fromHeaders[0].name",
        ),
        (format!("issuer: x, {keys}, fromCookies: ['a;']"), "InvalidValue jwtRules[0].fromCookies[0]"),
        (
            format!("issuer: x, {keys}, outputClaimToHeaders: [{{header: a}}]"),
            "MissingField jwtRules[0].outputClaimToHeaders[0].claim",
        ),
        (
            format!(
                "issuer: x, {keys}, outputClaimToHeaders: [{{header: a, claim: b}}, {{header: A, claim: c}}]"
            ),
            "DuplicateName jwtRules[0].outputClaimToHeaders[1].header",
        ),
        (
            format!("issuer: x, {keys}, outputPayloadToHeader: 'a:'"),
            "InvalidHeader jwtRules[0].outputPayloadToHeader",
        ),
        (format!("issuer: x, {keys}, timeout: 0s"), "InvalidDuration jwtRules[0].timeout"),
    ] {
        refused(KIND, &rule(&fields), expected);
    }
    warned(KIND, "selector: {matchLabels: {app: a}}", "NoEffect spec");
    warned(KIND, &rule("issuer: someone"), "NoEffect jwtRules[0]");
    for uri in
        ["169.254.169.254", "[fd00:ec2::254]", "127.0.0.1:8080", "[::ffff:127.0.0.1]", "localhost", "0.0.0.0"]
    {
        let keys_at = format!("issuer: x, jwksUri: 'http://{uri}/keys'");
        warned(KIND, &rule(&keys_at), "NoEffect jwtRules[0].jwksUri");
        warned(KIND, &rule(&format!("issuer: 'http://{uri}/'")), "NoEffect jwtRules[0].issuer");
    }
    let private = "jwks: '{\"keys\": [{\"kty\": \"RSA\", \"n\": \"x\", \"e\": \"AQAB\", \"d\": \"x\"}]}'";
    warned(KIND, &rule(&format!("issuer: x, {private}")), "InvalidValue jwtRules[0].jwks");
    warned(
        KIND,
        &format!("jwtRules: [{{issuer: x, {keys}}}, {{issuer: x, {keys}}}]"),
        "DuplicateName jwtRules[1].issuer",
    );
}

#[test]
fn tls_of_a_destination_rule() {
    let tls = |fields: &str| format!("host: a\ntrafficPolicy: {{tls: {{{fields}}}}}");
    let told =
        |fields: &str| told_of("networking.istio.io/v1", "DestinationRule", &tls(fields), Severity::Error);
    for fields in [
        "mode: DISABLE",
        "mode: SIMPLE",
        "mode: SIMPLE, caCertificates: /etc/ca.pem, sni: x.org, subjectAltNames: [x.org]",
        "mode: MUTUAL, clientCertificate: /a, privateKey: /b, caCertificates: /c",
        "mode: MUTUAL, credentialName: x",
        "mode: ISTIO_MUTUAL",
        "mode: ISTIO_MUTUAL, subjectAltNames: ['spiffe://cluster.local/ns/a/sa/b'], sni: x",
    ] {
        assert_eq!(told(fields), Vec::<String>::new(), "{fields}");
    }
    for (fields, expected) in [
        ("mode: MUTUAL", &["clientCertificate", "privateKey"][..]),
        ("mode: MUTUAL, clientCertificate: /a", &["privateKey"]),
        ("mode: MUTUAL, credentialName: x, privateKey: /b", &["privateKey"]),
        ("mode: ISTIO_MUTUAL, caCertificates: /a", &["caCertificates"]),
        ("mode: ISTIO_MUTUAL, credentialName: x", &["credentialName"]),
        ("mode: SIMPLE, insecureSkipVerify: true, caCertificates: /a", &["caCertificates"]),
    ] {
        let fields_told: Vec<_> = told(fields)
            .iter()
            .map(|line| {
                line.rsplit_once("trafficPolicy.tls.").map_or(line.clone(), |(_, field)| field.to_owned())
            })
            .collect();
        assert_eq!(fields_told, expected, "{fields}");
    }
}

#[test]
fn what_is_not_in_force() {
    let told = |kind: &str, spec: &str, severity: Severity| {
        let findings = crate::load::load("x.yaml", &super::object_of(GROUP, kind, spec)).findings();
        let chosen = findings.into_iter().filter(|f| f.code == "NotInForce" && f.severity == severity);
        chosen.map(|f| f.path).collect::<Vec<_>>()
    };
    assert_eq!(
        told(
            "AuthorizationPolicy",
            "targetRefs: [{kind: Service, name: a}, {kind: Gateway, group: gateway.networking.k8s.io, name: a}]",
            Severity::Info
        ),
        ["spec.targetRefs[1]"]
    );
    assert_eq!(
        told(
            "AuthorizationPolicy",
            "rules: [{when: [{key: 'experimental.envoy.filters.x[y]', values: [z]}]}]",
            Severity::Warning
        ),
        ["spec.rules[0].when[0].key"]
    );
    let dry = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x, annotations: {istio.io/dry-run: 'true'}}\n\
               spec: {action: DENY, rules: [{}]}\n";
    let findings = crate::load::load("x.yaml", dry).findings();
    let told: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "info NotInForce AuthorizationPolicy/default/x metadata.annotations[\"istio.io/dry-run\"]: a dry run: it refuses \
          and allows nothing; metric weft_authorization_dry_run_total and weft tap --would-deny tell what it would"
        ]
    );
}

#[test]
fn a_policy_without_a_spec_is_an_empty_one() {
    for spec in ["", "spec:\n", "spec: {}\n"] {
        let text = format!("apiVersion: {GROUP}\nkind: AuthorizationPolicy\nmetadata: {{name: x}}\n{spec}");
        let loaded = crate::load::load("x.yaml", &text);
        assert_eq!(loaded.objects.len(), 1, "{spec:?}: {:?}", loaded.findings());
    }
}
