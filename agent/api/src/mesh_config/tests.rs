use super::*;

fn map(name: &str, text: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    name.clone_into(&mut map.metadata.name);
    "istio-system".clone_into(&mut map.metadata.namespace);
    map.data.insert(KEY.to_owned(), text.to_owned());
    map
}

#[test]
fn settings_are_read_and_others_are_told() {
    let text = "outboundTrafficPolicy:\n  mode: REGISTRY_ONLY\n  egressProxy: x\naccessLogEncoding: JSON\n\
                defaultHttpRetryPolicy: {attempts: 0}\nprotocolDetectionTimeout: 0s\nenableTracing: true\n\
                pathNormalization: {normalization: MERGE_SLASHES}\n\
                defaultConfig:\n  discoveryAddress: x\n  proxyHeaders:\n    server: {value: shop}\n";
    let read = read(&map("istio", text)).expect("a mesh config");
    let config = read.config.expect("without errors");
    assert_eq!(config.outbound_traffic_policy.mode, OutboundMode::RegistryOnly);
    assert_eq!(config.path_normalization.normalization, Normalization::MergeSlashes);
    assert_eq!(config.access_log_encoding, AccessLogEncoding::Json);
    assert_eq!(config.default_http_retry_policy.map(|retry| retry.attempts), Some(0));
    assert_eq!(config.default_config.proxy_headers.server.value, "shop");
    let told: Vec<_> = read.findings.iter().map(ToString::to_string).collect();
    let line = |path| {
        format!(
            "info NotInForce ConfigMap/istio-system/istio data.mesh.{path}: not read by this version of weft"
        )
    };
    let keys = [
        "outboundTrafficPolicy.egressProxy",
        "accessLogEncoding",
        "protocolDetectionTimeout",
        "enableTracing",
        "defaultConfig",
    ];
    assert_eq!(told, keys.map(line));
}

#[test]
fn wrong_settings_are_refused() {
    for text in
        ["outboundTrafficPolicy: {mode: NONE}", "a: 1\na: 2", "a: [", "a: 1\n---\nb: 1", "accessLogFile: 1"]
    {
        let read = read(&map("weft", text)).expect("a mesh config");
        assert!(
            read.config.is_none() && read.findings.iter().any(Finding::is_error),
            "{text}: {:?}",
            read.findings
        );
    }
    assert_eq!(read(&map("istio", "# nothing\n")).and_then(|read| read.config), Some(MeshConfig::default()));
    assert_eq!(read(&map("other", "a: 1")), None);
}

#[test]
fn paths_are_normalised_in_one_of_four_ways() {
    let mode = |text: &str| {
        read(&map("istio", text))
            .and_then(|read| read.config)
            .map(|config| config.path_normalization.normalization)
    };
    for (text, expected) in [
        ("rootNamespace: a", Some(Normalization::Base)),
        ("pathNormalization: {}", Some(Normalization::Base)),
        ("pathNormalization: {normalization: DEFAULT}", Some(Normalization::Base)),
        ("pathNormalization: {normalization: BASE}", Some(Normalization::Base)),
        ("pathNormalization: {normalization: NONE}", Some(Normalization::None)),
        ("pathNormalization: {normalization: MERGE_SLASHES}", Some(Normalization::MergeSlashes)),
        (
            "pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}",
            Some(Normalization::DecodeAndMergeSlashes),
        ),
        ("pathNormalization: {normalization: merge}", None),
    ] {
        assert_eq!(mode(text), expected, "{text}");
    }
}

/// What is said about some providers.
fn told(providers: &str) -> Vec<String> {
    let text = format!("extensionProviders:\n{providers}");
    let read = read(&map("istio", &text)).expect("a mesh config");
    let short = |path: &str| path.trim_start_matches("data.mesh.extensionProviders").to_owned();
    read.findings.iter().map(|f| format!("{} {} {}", f.severity, f.code, short(&f.path))).collect()
}

#[test]
fn external_authorizers_are_read() {
    let text = r#"
extensionProviders:
- name: sample-ext-authz-http
  envoyExtAuthzHttp:
    service: auth/ext-authz.auth.svc.cluster.local
    port: "8000"
"#;
    assert!(read(&map("istio", text)).expect("a mesh config").config.is_none(), "a port is a number");
    let text = r#"
trustDomain: example.org
trustDomainAliases: [old.example.org]
extensionProviders:
- name: sample-ext-authz-http
  envoyExtAuthzHttp:
    service: auth/ext-authz.auth.svc.cluster.local
    port: 8000
    timeout: 2s
    pathPrefix: /check
    failOpen: true
    statusOnError: "503"
    includeHeadersInCheck: [x-old]
    includeRequestHeadersInCheck: [x-ext-authz, x-b3-*]
    includeAdditionalHeadersInCheck: {x-from: weft}
    includeRequestBodyInCheck: {maxRequestBytes: 1024, allowPartialMessage: true}
    headersToUpstreamOnAllow: [authorization, "*-user"]
    headersToDownstreamOnDeny: [content-type, set-cookie]
    headersToDownstreamOnAllow: [set-cookie]
- name: sample-ext-authz-grpc
  envoyExtAuthzGrpc: {service: ext-authz.auth.svc.cluster.local, port: 9000}
- name: otel
  envoyOtelAls: {service: otel.observability.svc.cluster.local, port: 4317}
"#;
    let read = read(&map("istio", text)).expect("a mesh config");
    let told: Vec<_> = read.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "info NotInForce ConfigMap/istio-system/istio data.mesh.extensionProviders[2].envoyOtelAls: not read by this \
             version of weft",
            "warning DeprecatedField ConfigMap/istio-system/istio \
             data.mesh.extensionProviders[0].envoyExtAuthzHttp.includeHeadersInCheck: an old field (use \
             includeRequestHeadersInCheck)",
            "info NotInForce ConfigMap/istio-system/istio data.mesh.trustDomain: the agent's own setting decides (start \
             it with --trust-domain example.org)",
        ]
    );
    let config = read.config.expect("without errors");
    assert_eq!(config.trust_domain_aliases, ["old.example.org"]);
    let http = config.extension_providers[0].envoy_ext_authz_http.as_ref().expect("the first is of HTTP");
    assert_eq!((&*http.service, http.port), ("auth/ext-authz.auth.svc.cluster.local", 8000));
    assert_eq!(http.headers_in_check().collect::<Vec<_>>(), ["x-ext-authz", "x-b3-*", "x-old"]);
    assert_eq!(http.include_request_body_in_check.map(|body| body.max_request_bytes), Some(1024));
    let grpc = config.extension_providers[1].envoy_ext_authz_grpc.as_ref().expect("the second is of gRPC");
    assert_eq!(grpc.port, 9000);
    assert_eq!(config.extension_providers[2].name, "otel");
}

#[test]
fn wrong_providers_are_refused() {
    let good = "service: a.b.svc.cluster.local, port: 80";
    let http = |fields: &str| format!("- {{name: x, envoyExtAuthzHttp: {{{fields}}}}}");
    for (providers, expected) in [
        ("- {envoyExtAuthzGrpc: {service: a, port: 1}}".to_owned(), "MissingField [0].name"),
        ("- name: x\n- name: x".to_owned(), "DuplicateName [1].name"),
        (
            format!("- {{name: x, envoyExtAuthzGrpc: {{{good}}}, envoyExtAuthzHttp: {{{good}}}}}"),
            "ConflictingFields [0]",
        ),
        (http("port: 80"), "MissingField [0].envoyExtAuthzHttp.service"),
        (http("service: 'http://a', port: 80"), "InvalidHost [0].envoyExtAuthzHttp.service"),
        (http("service: 'A/a', port: 80"), "InvalidHost [0].envoyExtAuthzHttp.service"),
        (http("service: '*.a', port: 80"), "InvalidHost [0].envoyExtAuthzHttp.service"),
        (http("service: a"), "MissingField [0].envoyExtAuthzHttp.port"),
        (http("service: a, port: 65536"), "InvalidPort [0].envoyExtAuthzHttp.port"),
        (http(&format!("{good}, statusOnError: '700'")), "InvalidValue [0].envoyExtAuthzHttp.statusOnError"),
        (http(&format!("{good}, pathPrefix: check")), "InvalidValue [0].envoyExtAuthzHttp.pathPrefix"),
        (http(&format!("{good}, timeout: 0s")), "InvalidDuration [0].envoyExtAuthzHttp.timeout"),
        (
            http(&format!("{good}, includeRequestHeadersInCheck: [x-*-y]")),
            "InvalidHeader [0].envoyExtAuthzHttp.includeRequestHeadersInCheck[0]",
        ),
        (
            http(&format!("{good}, includeRequestBodyInCheck: {{}}")),
            "MissingField [0].envoyExtAuthzHttp.includeRequestBodyInCheck.maxRequestBytes",
        ),
    ] {
        assert_eq!(told(&providers), [format!("error {expected}")], "{providers}");
    }
}
