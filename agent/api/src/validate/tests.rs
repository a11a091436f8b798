//! Specs in, codes and paths out. What is an error here, Istio's webhook refuses too, or its schema does.

use crate::finding::Severity;
use crate::load::load;

mod schemas;
mod security;
mod silence;

fn object(kind: &str, spec: &str) -> String {
    object_of("networking.istio.io/v1", kind, spec)
}

fn object_of(version: &str, kind: &str, spec: &str) -> String {
    let spec = spec.trim_end().replace('\n', "\n  ");
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\nspec:\n  {spec}\n")
}

/// Errors as `Code path`, with `spec.` left out.
fn told(kind: &str, spec: &str, severity: Severity) -> Vec<String> {
    told_of("networking.istio.io/v1", kind, spec, severity)
}

fn told_of(version: &str, kind: &str, spec: &str, severity: Severity) -> Vec<String> {
    let findings = load("x.yaml", &object_of(version, kind, spec)).findings();
    let chosen = findings.iter().filter(|f| f.severity == severity && f.code != "NotInForce");
    chosen.map(|f| format!("{} {}", f.code, f.path.strip_prefix("spec.").unwrap_or(&f.path))).collect()
}

/// A route for `HTTP`, which is put beside a host and, where it has no action, a destination.
fn http(rule: &str) -> String {
    let action = ["route:", "redirect:", "directResponse:", "delegate:"]
        .iter()
        .any(|action| rule.lines().any(|line| line.starts_with(action)));
    let rule =
        if action { rule.to_owned() } else { format!("route: [{{destination: {{host: b}}}}]\n{rule}") };
    format!("hosts: [a]\nhttp:\n- {}", rule.trim_end().replace('\n', "\n  "))
}

#[track_caller]
fn refused(kind: &str, spec: &str, expected: &str) {
    assert_eq!(told(kind, spec, Severity::Error), [expected], "{spec}");
}

#[track_caller]
fn fine(kind: &str, spec: &str) {
    let errors = told(kind, spec, Severity::Error);
    assert!(errors.is_empty(), "{spec}\n{errors:?}");
}

#[test]
fn what_istio_accepts_is_accepted() {
    for rule in [
        "match: [{uri: {prefix: ''}}, {uri: {regex: '/v[0-9]+'}}, {headers: {end-user: {exact: ''}}}]",
        "match: [{headers: {x: {}, ':method': {exact: GET}}, withoutHeaders: {y: {regex: '*'}}, queryParams: {q: {}}}]",
        "match: [{sourceLabels: {app.kubernetes.io/name: x, v: ''}, port: 80, gateways: [mesh, ns/gw, gw]}]",
        "route: [{destination: {host: b, subset: v1, port: {number: 80}}, weight: 90}, {destination: {host: c}, weight: 0}]",
        "route: [{destination: {host: 10.0.0.1}}]",
        "route: [{destination: {host: b.ns.svc.cluster.local.}}]",
        "redirect: {uri: /x}",
        "redirect: {derivePort: FROM_REQUEST_PORT}",
        "redirect: {authority: 'x:8443', scheme: https, redirectCode: 308}",
        "directResponse: {status: 503, body: {string: down}}",
        "directResponse: {status: 200, body: {bytes: aGVsbG8=}}",
        "rewrite: {uri: /}\ntimeout: 1h30m",
        "rewrite: {uriRegexRewrite: {match: '/a/(.*)', rewrite: '/b/\\1'}}",
        "retries: {attempts: 0}",
        "retries: {attempts: 3, perTryTimeout: 2s, retryOn: '5xx,reset,503', backoff: 25ms}",
        "fault: {delay: {fixedDelay: 7s, percentage: {value: 0.0001}}, abort: {httpStatus: 500, percentage: {value: 100}}}",
        "fault: {abort: {grpcStatus: NOT_FOUND, percentage: {value: 10}}}",
        "mirror: {host: c}\nmirrorPercentage: {value: 12.5}",
        "mirrors: [{destination: {host: c}, percentage: {value: 1}}]",
        "headers: {request: {set: {Host: x, x-a: '%PROTOCOL% 100%%'}, add: {x-b: ''}, remove: [x-c]}, response: {remove: [server]}}",
        "corsPolicy: {allowOrigins: [{regex: 'https://.*'}], allowMethods: [GET], allowHeaders: ['*'], maxAge: 24h, unmatchedPreflights: IGNORE}",
    ] {
        fine("VirtualService", &http(rule));
    }
    fine("VirtualService", "hosts: ['*']\ngateways: [gw]\nhttp: [{route: [{destination: {host: b}}]}]");
    fine("VirtualService", "http: [{route: [{destination: {host: b}}]}]");
    fine("VirtualService", "hosts: [a]\nhttp: [{delegate: {name: d, namespace: n}}]");
    fine(
        "VirtualService",
        "hosts: [a, '*.x.org', 10.0.0.1, y.org, '*-z.w.org']\nexportTo: [., n]\ntcp: [{route: [{destination: {host: b}}]}]",
    );
    fine(
        "VirtualService",
        "hosts: ['*.x.org']\ntls: [{match: [{sniHosts: [a.x.org, '*.b.x.org'], port: 443}], route: [{destination: {host: b}}]}]",
    );
}

#[test]
fn hosts_and_gateways() {
    let rule = "http: [{route: [{destination: {host: b}}]}]";
    for (spec, expected) in [
        ("hosts: [a, a]", "DuplicateHost hosts[1]"),
        ("hosts: [a.x.org, '*.org']", "DuplicateHost hosts[0]"),
        ("hosts: ['*.x.org', '*.org']", "DuplicateHost hosts[0]"),
        ("hosts: [A, a]", "DuplicateHost hosts[1]"),
        ("hosts: ['*']", "InvalidHost hosts[0]"),
        ("hosts: ['*']\ngateways: [mesh, gw]", "InvalidHost hosts[0]"),
        ("hosts: ['a.*.org']", "InvalidHost hosts[0]"),
        ("hosts: ['a*.org']", "InvalidHost hosts[0]"),
        ("hosts: ['http://a']", "InvalidHost hosts[0]"),
        ("hosts: ['a:80']", "InvalidHost hosts[0]"),
        ("hosts: ['']", "InvalidHost hosts[0]"),
        ("hosts: ['a.1']", "InvalidHost hosts[0]"),
        ("hosts: [a_b]", "InvalidHost hosts[0]"),
        ("gateways: [gw]", "ConflictingFields gateways"),
        ("hosts: [a]\ngateways: ['x/y/z']", "InvalidValue gateways[0]"),
        ("hosts: [a]\nexportTo: [., default]", "DuplicateName exportTo[1]"),
        ("hosts: [a]\nexportTo: ['*', n]", "ConflictingFields exportTo"),
        ("hosts: [a]\nexportTo: [N]", "InvalidValue exportTo[0]"),
    ] {
        refused("VirtualService", &format!("{spec}\n{rule}"), expected);
    }
    refused("VirtualService", "hosts: [a]", "MissingField spec");
    assert_eq!(
        told("VirtualService", "gateways: [mesh]", Severity::Error),
        ["MissingField hosts", "MissingField spec"]
    );
}

#[test]
fn matches() {
    for (rule, expected) in [
        ("match: [{uri: {regex: '(?!x).*'}}]", "InvalidRegex http[0].match[0].uri.regex"),
        ("match: [{uri: {regex: '(a)\\1'}}]", "InvalidRegex http[0].match[0].uri.regex"),
        ("match: [{uri: {regex: '*'}}]", "InvalidRegex http[0].match[0].uri.regex"),
        ("match: [{uri: {regex: ''}}]", "InvalidRegex http[0].match[0].uri.regex"),
        (
            "match: [{headers: {x: {regex: 'a{1000}{1000}{1000}'}}}]",
            "InvalidRegex http[0].match[0].headers.x.regex",
        ),
        (
            "match: [{queryParams: {x: {regex: '(a{1,100}){1,100}b'}}}]",
            "InvalidRegex http[0].match[0].queryParams.x.regex",
        ),
        (
            "corsPolicy: {allowOrigins: [{regex: '(a{1,100}){1,100}b'}]}",
            "InvalidRegex http[0].corsPolicy.allowOrigins[0].regex",
        ),
        (
            "rewrite: {uriRegexRewrite: {match: '(\\p{L}\\p{M}*){1,60}x', rewrite: b}}",
            "InvalidRegex http[0].rewrite.uriRegexRewrite.match",
        ),
        ("match: [{uri: {exact: /a, prefix: /b}}]", "ConflictingFields http[0].match[0].uri"),
        ("match: [{method: {prefix: ''}}]", "InvalidValue http[0].match[0].method.prefix"),
        ("match: [{headers: {'a b': {exact: x}}}]", "InvalidHeader http[0].match[0].headers[\"a b\"]"),
        ("match: [{headers: {':foo': {}}}]", "InvalidHeader http[0].match[0].headers[\":foo\"]"),
        ("match: [{port: 0}]", "InvalidPort http[0].match[0].port"),
        ("match: [{port: 65536}]", "InvalidPort http[0].match[0].port"),
        ("match: [{sourceLabels: {'a/b/c': x}}]", "InvalidLabel http[0].match[0].sourceLabels[\"a/b/c\"]"),
        ("match: [{sourceLabels: {a: '-x'}}]", "InvalidLabel http[0].match[0].sourceLabels.a"),
        ("match: [{sourceNamespace: A}]", "InvalidValue http[0].match[0].sourceNamespace"),
        ("match: [{headers: {x: }}]", "EmptyField http[0].match[0].headers.x"),
        ("match: [{headers: {x: jason}}]", "InvalidType http[0].match[0].headers.x"),
        ("match: [{headers: {x: {exact: 1}}}]", "InvalidType http[0].match[0].headers.x.exact"),
    ] {
        refused("VirtualService", &http(rule), expected);
    }
}

#[test]
fn actions() {
    for (rule, expected) in [
        ("route: []", "MissingField http[0]"),
        ("redirect: {uri: /}\nroute: [{destination: {host: b}}]", "ConflictingFields http[0].redirect"),
        (
            "redirect: {uri: /}\nfault: {abort: {httpStatus: 500, percentage: {value: 1}}}",
            "ConflictingFields http[0].fault",
        ),
        ("redirect: {uri: /}\nrewrite: {uri: /}", "ConflictingFields http[0].rewrite"),
        ("redirect: {uri: /}\ndirectResponse: {status: 200}", "ConflictingFields http[0].directResponse"),
        ("redirect: {}", "MissingField http[0].redirect"),
        ("redirect: {uri: /, redirectCode: 200}", "InvalidValue http[0].redirect.redirectCode"),
        ("redirect: {port: 80, derivePort: FROM_REQUEST_PORT}", "ConflictingFields http[0].redirect"),
        ("redirect: {scheme: ftp}", "InvalidValue http[0].redirect.scheme"),
        ("directResponse: {status: 199}", "InvalidValue http[0].directResponse.status"),
        ("directResponse: {body: {string: x}}", "InvalidValue http[0].directResponse.status"),
        (
            "directResponse: {status: 200, body: {bytes: '!'}}",
            "InvalidValue http[0].directResponse.body.bytes",
        ),
        (
            "directResponse: {status: 200, body: {bytes: aGk=, string: hi}}",
            "ConflictingFields http[0].directResponse.body",
        ),
        ("delegate: {name: ''}", "MissingField http[0].delegate.name"),
        ("delegate: {name: d}\nroute: [{destination: {host: b}}]", "ConflictingFields http[0].delegate"),
        ("route: [{weight: 1}]", "MissingField http[0].route[0].destination"),
        ("route: [{destination: {subset: v1}}]", "InvalidHost http[0].route[0].destination.host"),
        ("route: [{destination: {host: '*'}}]", "InvalidHost http[0].route[0].destination.host"),
        (
            "route: [{destination: {host: b, subset: V_1}}]",
            "InvalidValue http[0].route[0].destination.subset",
        ),
        (
            "route: [{destination: {host: b, port: {number: 0}}}]",
            "InvalidPort http[0].route[0].destination.port.number",
        ),
        ("route: [{destination: {host: b}, weight: -1}]", "InvalidWeight http[0].route[0].weight"),
        ("route: [{destination: {host: b}}, {destination: {host: c}}]", "InvalidWeight http[0].route"),
        ("route: [{destination: {host: b}, weight: 1.5}]", "InvalidType http[0].route[0].weight"),
        ("route: [{destination: {host: b}, weight: '90'}]", "InvalidType http[0].route[0].weight"),
        ("timeout: 0s", "InvalidDuration http[0].timeout"),
        ("timeout: 999us", "InvalidDuration http[0].timeout"),
        ("timeout: 1.0005s", "InvalidDuration http[0].timeout"),
        ("timeout: '5'", "InvalidDuration http[0].timeout"),
        ("timeout: 5", "InvalidType http[0].timeout"),
        ("retries: {attempts: -1}", "InvalidValue http[0].retries.attempts"),
        ("retries: {perTryTimeout: 1s}", "ConflictingFields http[0].retries.attempts"),
        ("retries: {attempts: 1, retryOn: '5xx, reset'}", "InvalidValue http[0].retries.retryOn"),
        ("retries: {attempts: 1, retryOn: sometimes}", "InvalidValue http[0].retries.retryOn"),
        ("retries: {attempts: 1, perTryTimeout: 0s}", "InvalidDuration http[0].retries.perTryTimeout"),
        ("fault: {}", "MissingField http[0].fault"),
        ("fault: {abort: {percentage: {value: 1}}}", "MissingField http[0].fault.abort"),
        (
            "fault: {abort: {httpStatus: 99, percentage: {value: 1}}}",
            "InvalidValue http[0].fault.abort.httpStatus",
        ),
        (
            "fault: {abort: {http2Error: x, percentage: {value: 1}}}",
            "InvalidValue http[0].fault.abort.http2Error",
        ),
        (
            "fault: {abort: {httpStatus: 500, percentage: {value: 101}}}",
            "InvalidPercentage http[0].fault.abort.percentage.value",
        ),
        (
            "fault: {abort: {httpStatus: 500, percentage: {value: .nan}}}",
            "InvalidPercentage http[0].fault.abort.percentage.value",
        ),
        (
            "fault: {delay: {fixedDelay: 1s, percentage: {value: 0.00001}}}",
            "InvalidPercentage http[0].fault.delay.percentage.value",
        ),
        (
            "fault: {delay: {exponentialDelay: 1s, percentage: {value: 1}}}",
            "InvalidValue http[0].fault.delay.exponentialDelay",
        ),
        ("mirror: {host: b}\nmirrors: [{destination: {host: c}}]", "ConflictingFields http[0].mirrors"),
        ("mirrors: [{percentage: {value: 1}}]", "MissingField http[0].mirrors[0].destination"),
        ("mirror: {host: b}\nmirrorPercent: 101", "InvalidPercentage http[0].mirrorPercent"),
        ("rewrite: {}", "MissingField http[0].rewrite"),
        ("rewrite: {uri: /, uriRegexRewrite: {match: a, rewrite: b}}", "ConflictingFields http[0].rewrite"),
        (
            "rewrite: {uriRegexRewrite: {match: a, rewrite: '\\1'}}",
            "InvalidRegex http[0].rewrite.uriRegexRewrite.rewrite",
        ),
        ("headers: {request: {set: {':path': /}}}", "InvalidHeader http[0].headers.request.set[\":path\"]"),
        ("headers: {response: {set: {Host: x}}}", "InvalidHeader http[0].headers.response.set.Host"),
        ("headers: {request: {remove: [host]}}", "InvalidHeader http[0].headers.request.remove[0]"),
        ("headers: {request: {add: {x: '50%'}}}", "InvalidHeader http[0].headers.request.add.x"),
        ("headers: {request: {add: {x: \"a\\nb\"}}}", "InvalidHeader http[0].headers.request.add.x"),
        (
            "rewrite: {authority: x}\nheaders: {request: {set: {Host: y}}}",
            "ConflictingFields http[0].headers",
        ),
        ("corsPolicy: {maxAge: 1500ms}", "InvalidDuration http[0].corsPolicy.maxAge"),
        ("corsPolicy: {allowOrigins: [{}]}", "InvalidValue http[0].corsPolicy.allowOrigins[0]"),
        ("corsPolicy: {allowMethods: [get]}", "InvalidValue http[0].corsPolicy.allowMethods[0]"),
        ("corsPolicy: {unmatchedPreflights: DROP}", "InvalidValue http[0].corsPolicy.unmatchedPreflights"),
    ] {
        refused("VirtualService", &http(rule), expected);
    }
    let large = format!("directResponse: {{status: 200, body: {{string: '{}'}}}}", "x".repeat((1 << 20) + 1));
    assert_eq!(
        told("VirtualService", &http(&large), Severity::Error),
        ["InvalidValue http[0].directResponse.body"]
    );
}

#[test]
fn tls_and_tcp_rules() {
    let route = "route: [{destination: {host: b}}]";
    for (rules, expected) in [
        (format!("tls: [{{{route}}}]"), "MissingField tls[0].match"),
        (format!("tls: [{{match: [{{port: 443}}], {route}}}]"), "MissingField tls[0].match[0].sniHosts"),
        (
            format!("tls: [{{match: [{{sniHosts: [x]}}], {route}}}]"),
            "InvalidHost tls[0].match[0].sniHosts[0]",
        ),
        ("tls: [{match: [{sniHosts: [a]}]}]".to_owned(), "MissingField tls[0].route"),
        ("tcp: [{match: [{port: 80}]}]".to_owned(), "MissingField tcp[0].route"),
        (
            format!("tcp: [{{match: [{{destinationSubnets: [10.0.0.0/33]}}], {route}}}]"),
            "InvalidValue tcp[0].match[0].destinationSubnets[0]",
        ),
        (
            "tcp: [{route: [{destination: {host: b}}, {destination: {host: c}}]}]".to_owned(),
            "InvalidWeight tcp[0].route",
        ),
    ] {
        refused("VirtualService", &format!("hosts: [a]\n{rules}"), expected);
    }
}

#[test]
fn destination_rules() {
    for spec in [
        "host: a\nsubsets: [{name: v1, labels: {version: '1'}}, {name: all}]",
        "host: '*.x.org'\ntrafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, connectionPool: {tcp: {connectTimeout: 1s}}}",
        "host: a\ntrafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: c, ttl: 0s}, maglev: {tableSize: 101}}}}",
        "host: a\ntrafficPolicy: {tls: {mode: MUTUAL, credentialName: c}}",
        "host: a\ntrafficPolicy: {portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}",
        "host: a\nworkloadSelector: {matchLabels: {app: x}}\nexportTo: [.]\ntrafficPolicy: {tls: {mode: DISABLE}}",
    ] {
        fine("DestinationRule", spec);
    }
    let policy = |policy: &str| format!("host: a\ntrafficPolicy: {{{policy}}}");
    for (spec, expected) in [
        ("subsets: [{name: v1}]".to_owned(), "MissingField host"),
        ("host: a\nsubsets: [{name: v1}, {name: v1}]".to_owned(), "DuplicateName subsets[1].name"),
        ("host: a\nsubsets: [{name: V1}]".to_owned(), "InvalidValue subsets[0].name"),
        ("host: a\nsubsets: [{labels: {a: b}}]".to_owned(), "MissingField subsets[0].name"),
        (
            "host: a\nsubsets: [{name: v1, labels: {version: 1}}]".to_owned(),
            "InvalidType subsets[0].labels.version",
        ),
        ("host: a\ntrafficPolicy: {}".to_owned(), "MissingField trafficPolicy"),
        (
            "host: a\nworkloadSelector: {matchLabels: {a: b}}\nexportTo: ['*']\nsubsets: [{name: x}]"
                .to_owned(),
            "ConflictingFields exportTo",
        ),
        (policy("loadBalancer: {simple: FAIR}"), "InvalidValue trafficPolicy.loadBalancer.simple"),
        (
            policy("loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}"),
            "ConflictingFields trafficPolicy.loadBalancer",
        ),
        (
            policy("loadBalancer: {consistentHash: {}}"),
            "MissingField trafficPolicy.loadBalancer.consistentHash",
        ),
        (
            policy("loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 100}}}"),
            "InvalidValue trafficPolicy.loadBalancer.consistentHash.maglev.tableSize",
        ),
        (
            policy("portLevelSettings: [{loadBalancer: {simple: RANDOM}}]"),
            "MissingField trafficPolicy.portLevelSettings[0].port",
        ),
        (
            policy("portLevelSettings: [{port: {number: 80}}]"),
            "MissingField trafficPolicy.portLevelSettings[0]",
        ),
        (policy("connectionPool: {}"), "MissingField trafficPolicy.connectionPool"),
        (
            policy("connectionPool: {tcp: {maxConnections: -1}}"),
            "InvalidValue trafficPolicy.connectionPool.tcp.maxConnections",
        ),
        (
            policy("connectionPool: {tcp: {connectTimeout: 0s}}"),
            "InvalidDuration trafficPolicy.connectionPool.tcp.connectTimeout",
        ),
        (
            policy("connectionPool: {http: {h2UpgradePolicy: YES}}"),
            "InvalidValue trafficPolicy.connectionPool.http.h2UpgradePolicy",
        ),
        (
            policy("outlierDetection: {maxEjectionPercent: 101}"),
            "InvalidPercentage trafficPolicy.outlierDetection.maxEjectionPercent",
        ),
        (
            policy("outlierDetection: {consecutive5xxErrors: -1}"),
            "InvalidValue trafficPolicy.outlierDetection.consecutive5xxErrors",
        ),
        (
            policy("outlierDetection: {consecutiveLocalOriginFailures: 5}"),
            "ConflictingFields trafficPolicy.outlierDetection.consecutiveLocalOriginFailures",
        ),
        (
            policy("tls: {mode: ISTIO_MUTUAL, caCertificates: x}"),
            "ConflictingFields trafficPolicy.tls.caCertificates",
        ),
        (policy("tls: {mode: MUTUAL, clientCertificate: x}"), "MissingField trafficPolicy.tls.privateKey"),
        (
            policy("tls: {mode: SIMPLE, credentialName: x, caCertificates: y}"),
            "ConflictingFields trafficPolicy.tls.caCertificates",
        ),
        (policy("tunnel: {targetHost: x, targetPort: 0}"), "InvalidPort trafficPolicy.tunnel.targetPort"),
    ] {
        refused("DestinationRule", &spec, expected);
    }
}

#[test]
fn rules_that_nobody_reaches_are_warned_of() {
    let rules = |rules: &str| format!("hosts: [a]\nhttp:\n{rules}");
    let route = "route: [{destination: {host: b}}]";
    for (spec, expected) in [
        (rules(&format!("- {route}\n- {{name: late, {route}}}")), "UnreachableRule http[1]"),
        (
            rules(&format!("- {{match: [{{uri: {{prefix: /}}}}], {route}}}\n- {route}")),
            "UnreachableRule http[1]",
        ),
        (
            rules(&format!("- {{match: [{{port: 80}}, {{port: 80, name: n}}], {route}}}")),
            "DuplicateMatch http[0].match[1]",
        ),
        (
            rules(&format!(
                "- {{match: [{{uri: {{prefix: /a}}}}], {route}}}\n- {{match: [{{uri: {{exact: /a/b}}}}], {route}}}"
            )),
            "DuplicateMatch http[1].match[0].uri",
        ),
        (http("mirrorPercentage: {value: 1}"), "NoEffect http[0].mirrorPercentage"),
        (http("mirror: {host: b}\nmirrorPercent: 5"), "DeprecatedField http[0].mirrorPercent"),
        (http("fault: {abort: {httpStatus: 500}}"), "NoEffect http[0].fault.abort.percentage"),
        (http("match: [{uri: {exact: x}}]"), "NoEffect http[0].match[0].uri.exact"),
        (http("match:"), "EmptyField http[0].match"),
    ] {
        assert_eq!(told("VirtualService", &spec, Severity::Warning), [expected], "{spec}");
        fine("VirtualService", &spec);
    }
    let spec = rules(&format!("- {{match: [{{port: 80}}], {route}}}\n- {{match: [{{port: 80}}], {route}}}"));
    assert_eq!(
        told("VirtualService", &spec, Severity::Warning),
        ["DuplicateMatch http[1].match[0]", "UnreachableRule http[1]"]
    );
    let weights = "route: [{destination: {host: b}, weight: 3}, {destination: {host: c}, weight: 4}]";
    assert!(
        told("VirtualService", &http(weights), Severity::Warning).is_empty(),
        "weights need not sum up to 100"
    );
}

/// What is not in force, as its paths.
fn without_force(kind: &str, spec: &str) -> Vec<String> {
    let findings = load("x.yaml", &object(kind, spec)).findings();
    findings.into_iter().filter(|f| f.code == "NotInForce").map(|f| f.path).collect()
}

#[test]
fn gateways() {
    let server = |text: &str| format!("selector: {{istio: ingressgateway}}\nservers: [{{{text}}}]");
    fine(
        "Gateway",
        &server("port: {number: 80, name: http, protocol: HTTP}, hosts: ['*', './a.b', 'ns/*.c.d']"),
    );
    for (text, expected) in [
        ("port: {number: 80, name: http, protocol: HTTP}", "MissingField servers[0].hosts"),
        ("port: {number: 80, name: http}, hosts: [a.b]", "MissingField servers[0].port.protocol"),
        (
            "port: {number: 80, name: x, protocol: SPDY}, hosts: [a.b]",
            "InvalidValue servers[0].port.protocol",
        ),
        ("port: {number: 80, protocol: HTTP}, hosts: [a.b]", "MissingField servers[0].port.name"),
        ("port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.b]", "MissingField servers[0].tls"),
        (
            "port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.b], tls: {mode: SIMPLE}",
            "MissingField servers[0].tls",
        ),
        (
            "port: {number: 80, name: http, protocol: HTTP}, hosts: ['N S/a.b']",
            "InvalidHost servers[0].hosts[0]",
        ),
    ] {
        assert_eq!(told("Gateway", &server(text), Severity::Error), [expected], "{text}");
    }
    let https = |tls: &str| {
        server(&format!("port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [a.b], tls: {{{tls}}}"))
    };
    for (tls, expected) in [
        ("mode: ISTIO_MUTUAL, credentialName: c", "ConflictingFields servers[0].tls.credentialName"),
        ("mode: ISTIO_MUTUAL, privateKey: /k", "ConflictingFields servers[0].tls.privateKey"),
        ("mode: SIMPLE, serverCertificate: /c", "MissingField servers[0].tls.privateKey"),
        ("mode: MUTUAL, serverCertificate: /c, privateKey: /k", "MissingField servers[0].tls.caCertificates"),
        (
            "mode: SIMPLE, credentialName: c, minProtocolVersion: TLS1_2",
            "InvalidValue servers[0].tls.minProtocolVersion",
        ),
        (
            "mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2",
            "ConflictingFields servers[0].tls.minProtocolVersion",
        ),
    ] {
        assert_eq!(told("Gateway", &https(tls), Severity::Error), [expected], "{tls}");
    }
    for (tls, expected) in [
        ("minProtocolVersion: TLSV1_0", "NoEffect servers[0].tls.minProtocolVersion"),
        ("maxProtocolVersion: TLSV1_1", "NoEffect servers[0].tls.maxProtocolVersion"),
        (
            "cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256, AES128-SHA]",
            "NoEffect servers[0].tls.cipherSuites[1]",
        ),
    ] {
        let tls = https(&format!("mode: SIMPLE, credentialName: c, {tls}"));
        assert_eq!(told("Gateway", &tls, Severity::Warning), [expected], "{tls}");
        fine("Gateway", &tls);
    }
    for tls in [
        "mode: MUTUAL, credentialName: c",
        "mode: OPTIONAL_MUTUAL, credentialNames: [a, b], caCertCredentialName: r",
        "mode: MUTUAL, serverCertificate: /c, privateKey: /k, caCertificates: /r, caCrl: /l",
        "mode: ISTIO_MUTUAL, minProtocolVersion: TLSV1_2, maxProtocolVersion: TLS_AUTO",
    ] {
        fine("Gateway", &https(tls));
        assert!(told("Gateway", &https(tls), Severity::Warning).is_empty(), "{tls}");
    }
    for (mode, untold) in
        [("PASSTHROUGH", true), ("AUTO_PASSTHROUGH", false), ("SIMPLE, credentialName: c", true)]
    {
        let tls = server(&format!(
            "port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [a.b], tls: {{mode: {mode}}}"
        ));
        let told = without_force("Gateway", &tls);
        assert_eq!(told.is_empty(), untold, "{mode}: {told:?}");
        assert!(told.iter().all(|path| path == "spec.servers[0].tls.mode"), "{mode}: {told:?}");
    }
    let bytes = server("port: {number: 3306, name: db, protocol: TCP}, hosts: [a.b]");
    assert_eq!(without_force("Gateway", &bytes), Vec::<String>::new());
}

#[test]
fn what_is_asked_where_nobody_can_answer_is_told() {
    let claims = |gateways: &str| {
        http("match: [{headers: {'@request.auth.claims.a': {exact: b}}}]")
            + &format!("\ngateways: [{gateways}]")
    };
    let expected = ["NoEffect http[0].match[0].headers"];
    assert_eq!(told("VirtualService", &claims("mesh"), Severity::Warning), expected);
    assert_eq!(told("VirtualService", &claims("mesh, edge"), Severity::Warning), [""; 0]);
    let unknown = "match: [{headers: {'@request.auth.claims': {exact: b}}}]";
    refused(
        "VirtualService",
        &http(unknown),
        "InvalidHeader http[0].match[0].headers[\"@request.auth.claims\"]",
    );
    let bytes = |gateways: &str| {
        format!(
            "hosts: [a.b]\ngateways: [{gateways}]\n\
             tcp: [{{match: [{{sourceSubnet: 10.0.0.0/8, port: 80}}], route: [{{destination: {{host: a}}}}]}}]\n\
             tls: [{{match: [{{sniHosts: [a.b], sourceLabels: {{a: b}}}}], route: [{{destination: {{host: a}}}}]}}]"
        )
    };
    let expected = ["NoEffect tcp[0].match[0].sourceSubnet", "NoEffect tls[0].match[0].sourceLabels"];
    assert_eq!(told("VirtualService", &bytes("edge"), Severity::Info), expected);
    assert_eq!(told("VirtualService", &bytes("mesh, edge"), Severity::Info), [""; 0]);
}

#[test]
fn what_has_no_effect_yet_is_told() {
    assert_eq!(without_force("VirtualService", &http("timeout: 1s")), Vec::<String>::new());
    assert_eq!(
        without_force(
            "VirtualService",
            "hosts: [a]\ngateways: [mesh, gw]\nhttp: [{delegate: {name: d}}]\ntcp: [{route: [{destination: {host: a}}]}]"
        ),
        Vec::<String>::new()
    );
    assert_eq!(
        without_force(
            "DestinationRule",
            "host: a\ntrafficPolicy:\n  connectionPool: {tcp: {connectTimeout: 1s, maxConnections: 5}}\nsubsets:\n\
             - name: v1\n  trafficPolicy:\n    portLevelSettings:\n    - port: {number: 80}\n      outlierDetection: {interval: 1s}",
        ),
        [
            "spec.trafficPolicy.connectionPool.tcp.maxConnections",
            "spec.subsets[0].trafficPolicy.portLevelSettings[0].outlierDetection",
        ]
    );
}
