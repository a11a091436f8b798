//! What the schemas of Istio's own definitions (1.31) say, and weft's types do not say by themselves.

use super::*;

const SECURITY: &str = "security.istio.io/v1";

#[track_caller]
fn refused_policy(kind: &str, spec: &str, expected: &str) {
    assert_eq!(told_of(SECURITY, kind, spec, Severity::Error), [expected], "{spec}");
}

fn server(name: &str, port: u16) -> String {
    format!("- port: {{number: {port}, name: {name}, protocol: HTTP}}\n  hosts: ['*']\n")
}

fn gateway(servers: &[String]) -> String {
    format!("selector: {{istio: ingressgateway}}\nservers:\n{}", servers.concat())
}

fn https(tls: &str) -> String {
    format!(
        "selector: {{a: b}}\nservers:\n- port: {{number: 443, name: https, protocol: HTTPS}}\n  hosts: ['*']\n  tls: {{mode: SIMPLE, {tls}}}"
    )
}

#[test]
fn ports_of_a_gateway_have_names_of_their_own() {
    fine("Gateway", &gateway(&[server("http", 80), server("http-alt", 8080)]));
    refused(
        "Gateway",
        &gateway(&[server("http", 80), server("http", 8080)]),
        "DuplicateName servers[1].port.name",
    );
    let three = [server("a", 80), server("b", 81), server("a", 82)];
    refused("Gateway", &gateway(&three), "DuplicateName servers[2].port.name");
    // As in Istio, also where it is one port for several hosts.
    refused(
        "Gateway",
        &gateway(&[server("http", 80), server("http", 80)]),
        "DuplicateName servers[1].port.name",
    );
}

#[test]
fn certificates_of_a_gateway_come_from_one_place() {
    for tls in [
        "credentialName: a",
        "credentialNames: [a, b]",
        "tlsCertificates: [{serverCertificate: a, privateKey: b}]",
        "credentialName: a, caCertCredentialName: b",
        "credentialName: a, insecureSkipVerify: true",
    ] {
        fine("Gateway", &https(tls));
    }
    for (tls, expected) in [
        ("credentialNames: []", "InvalidValue servers[0].tls.credentialNames"),
        ("credentialName: a, tlsCertificates: []", "InvalidValue servers[0].tls.tlsCertificates"),
        ("credentialNames: [a, b, c]", "InvalidValue servers[0].tls.credentialNames"),
        ("credentialName: a, credentialNames: [b]", "ConflictingFields servers[0].tls.credentialNames"),
        ("credentialNames: [b], tlsCertificates: [{}]", "ConflictingFields servers[0].tls.credentialNames"),
        ("tlsCertificates: [{}, {}, {}]", "InvalidValue servers[0].tls.tlsCertificates"),
    ] {
        refused("Gateway", &https(tls), expected);
    }
}

#[test]
fn a_list_of_ports_that_is_there_names_one() {
    let spec = |ports: &str| {
        format!("selector: {{matchLabels: {{a: b}}}}\nmtls: {{mode: STRICT}}\nportLevelMtls: {ports}")
    };
    assert!(
        told_of(SECURITY, "PeerAuthentication", &spec("{8080: {mode: DISABLE}}"), Severity::Error).is_empty()
    );
    refused_policy("PeerAuthentication", &spec("{}"), "InvalidValue portLevelMtls");
    for port in ["0", "65536", "-1", "x"] {
        assert!(
            !told_of(SECURITY, "PeerAuthentication", &spec(&format!("{{'{port}': {{}}}}")), Severity::Error)
                .is_empty()
        );
    }
}

#[test]
fn lists_have_ends() {
    let many = |count: usize, one: &str| vec![one; count].join(", ");
    let rule = |rules: usize, from: usize| {
        let from = many(from, "{source: {namespaces: [a]}}");
        format!("rules: [{}]", many(rules, &format!("{{from: [{from}]}}")))
    };
    assert!(told_of(SECURITY, "AuthorizationPolicy", &rule(512, 1), Severity::Error).is_empty());
    refused_policy("AuthorizationPolicy", &rule(513, 1), "InvalidValue rules");
    refused_policy("AuthorizationPolicy", &rule(1, 513), "InvalidValue rules[0].from");
    let targets = format!("targetRefs: [{}]", many(17, "{kind: Service, group: '', name: a}"));
    refused_policy("AuthorizationPolicy", &targets, "InvalidValue targetRefs");
    let jwt = |rule: &str| {
        format!("jwtRules: [{{issuer: a@b.c, jwks: '{{\"keys\":[{{\"kty\":\"RSA\"}}]}}', {rule}}}]")
    };
    let claims = jwt(&format!("spaceDelimitedClaims: [{}]", many(65, "a")));
    refused_policy("RequestAuthentication", &claims, "InvalidValue jwtRules[0].spaceDelimitedClaims");
    for (rule, expected) in [
        ("audiences: ['']", "InvalidValue jwtRules[0].audiences[0]"),
        ("fromParams: ['']", "InvalidValue jwtRules[0].fromParams[0]"),
        ("fromHeaders: [{prefix: a}]", "MissingField jwtRules[0].fromHeaders[0].name"),
    ] {
        refused_policy("RequestAuthentication", &jwt(rule), expected);
    }
    let url = format!("jwtRules: [{{issuer: a, jwksUri: 'https://a.b/{}'}}]", "x".repeat(2048));
    refused_policy("RequestAuthentication", &url, "InvalidValue jwtRules[0].jwksUri");
}

#[test]
fn fields_of_newer_releases_are_known() {
    for policy in [
        "connectionPool: {http: {http2KeepAlive: {interval: 30s, timeout: 5s}}}",
        "loadBalancer: {zoneAwareLbSetting: {enabled: true, minClusterSize: 3, failover: [{from: a, to: b}], failoverPriority: [x]}}",
        "outlierDetection: {outlierDetectionHttpErrorCodes: [500, 503]}",
        "retryBudget: {percent: 25.5, minRetryConcurrency: 3, budgetInterval: 10s}",
    ] {
        let spec = format!("host: a\ntrafficPolicy:\n  {policy}");
        fine("DestinationRule", &spec);
        let text = object("DestinationRule", &spec);
        let told = load("x.yaml", &text).findings();
        assert!(told.iter().any(|finding| finding.code == "NotInForce"), "{policy}: said nothing of it");
    }
    for (policy, expected) in [
        (
            "connectionPool: {http: {http2KeepAlive: {interval: 0s}}}",
            "InvalidDuration trafficPolicy.connectionPool.http.http2KeepAlive.interval",
        ),
        (
            "loadBalancer: {zoneAwareLbSetting: {minClusterSize: 0}}",
            "InvalidValue trafficPolicy.loadBalancer.zoneAwareLbSetting.minClusterSize",
        ),
        (
            "outlierDetection: {outlierDetectionHttpErrorCodes: [99]}",
            "InvalidValue trafficPolicy.outlierDetection.outlierDetectionHttpErrorCodes[0]",
        ),
        ("retryBudget: {percent: 101}", "InvalidPercentage trafficPolicy.retryBudget.percent"),
        ("retryBudget: {budgetInterval: 0s}", "InvalidDuration trafficPolicy.retryBudget.budgetInterval"),
    ] {
        refused("DestinationRule", &format!("host: a\ntrafficPolicy:\n  {policy}"), expected);
    }
    fine("VirtualService", &http("match: [{uri: {prefix: /a}}]\nredirect: {prefixRewrite: /b}"));
    let trust = "rules: [{from: [{source: {trustDomains: [x.org], notTrustDomains: [y.org]}}]}]";
    assert!(told_of(SECURITY, "AuthorizationPolicy", trust, Severity::Error).is_empty());
    let mesh = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
                data:\n  mesh: |\n    defaultTrafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}\n";
    let told = load("x.yaml", mesh).findings();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (told[0].code.as_str(), told[0].path.as_str()),
        ("NotInForce", "data.mesh.defaultTrafficPolicy")
    );
    let sidecar = object("Sidecar", "egress: [{hosts: ['~/*']}]");
    let told = load("x.yaml", &sidecar).findings();
    assert_eq!(told.iter().map(|finding| finding.code.as_str()).collect::<Vec<_>>(), ["NotInForce"]);
}
