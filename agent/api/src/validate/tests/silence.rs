//! Nothing that has no effect is taken in silence.

use super::*;

/// What is said, as `severity code path`.
fn said(text: &str) -> Vec<String> {
    let findings = load("x.yaml", text).findings();
    findings.iter().map(|finding| format!("{} {} {}", finding.severity, finding.code, finding.path)).collect()
}

#[test]
fn kinds_without_effect_are_named() {
    for (group, kinds) in [
        (
            "networking.istio.io",
            &["ServiceEntry", "Sidecar", "WorkloadEntry", "WorkloadGroup", "ProxyConfig"][..],
        ),
        ("telemetry.istio.io", &["Telemetry"]),
        ("extensions.istio.io", &["WasmPlugin", "TrafficExtension"]),
        (
            "gateway.networking.k8s.io",
            &["Gateway", "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "GatewayClass"],
        ),
    ] {
        assert!(crate::kinds::is_in_vain(group));
        for kind in kinds {
            for version in ["v1", "v1beta1", "v1alpha1"] {
                let told = said(&object_of(&format!("{group}/{version}"), kind, "{}"));
                assert_eq!(told, ["warning NotInForce kind"], "{kind}");
            }
            assert!(crate::kinds::in_vain(group, kind).is_some_and(|told| told.starts_with(kind)), "{kind}");
        }
    }
    assert!(crate::kinds::in_vain("networking.istio.io", "EnvoyFilter").is_some());
    for (group, kind) in
        [("networking.istio.io", "Gateway"), ("apps", "Deployment"), ("networking.istio.io", "X")]
    {
        assert_eq!(crate::kinds::in_vain(group, kind), None, "{kind}");
    }
}

#[test]
fn nobody_is_sent_to_a_kind_without_effect() {
    let vain = ["ServiceEntry", "Telemetry", "Sidecar", "WasmPlugin"];
    for (kind, version) in [
        ("EgressRule", "config.istio.io/v1alpha2"),
        ("metric", "config.istio.io/v1alpha2"),
        ("logentry", "config.istio.io/v1alpha2"),
        ("tracespan", "config.istio.io/v1alpha2"),
        ("rule", "config.istio.io/v1alpha2"),
        ("handler", "config.istio.io/v1alpha2"),
        ("EnvoyFilter", "networking.istio.io/v1alpha3"),
    ] {
        let findings = load("x.yaml", &object_of(version, kind, "{}")).findings();
        let message = &findings[0].message;
        let named = vain.iter().any(|kind| message.contains(kind));
        assert!(!named || message.contains("no effect"), "{message}");
    }
}

const STEERED: &str = "traffic.sidecar.istio.io/excludeOutboundIPRanges: 10.0.0.0/8, traffic.weft.dev/excludeInboundPorts: '80', \
    sidecar.istio.io/inject: 'false', proxy.istio.io/config: '{}', sidecar.istio.io/proxyCPU: 100m, other: x";

#[test]
fn annotations_for_a_sidecar_are_named_on_pods_and_on_what_makes_them() {
    let told = |place: &str| {
        [
            ("warning", "proxy.istio.io/config"),
            ("info", "sidecar.istio.io/proxyCPU"),
            ("warning", "traffic.sidecar.istio.io/excludeOutboundIPRanges"),
            ("warning", "traffic.weft.dev/excludeInboundPorts"),
        ]
        .map(|(severity, name)| format!("{severity} NotInForce {place}metadata.annotations[\"{name}\"]"))
    };
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, annotations: {{{STEERED}}}}}\nspec: {{containers: []}}\n"
    );
    assert_eq!(said(&pod), told(""));
    let template = format!(
        "template: {{metadata: {{annotations: {{{STEERED}}}}}, spec: {{containers: [{{name: a}}]}}}}"
    );
    for (version, kind) in [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("batch/v1", "Job"),
        ("argoproj.io/v1alpha1", "Rollout"),
    ] {
        assert_eq!(said(&object_of(version, kind, &template)), told("spec.template."), "{kind}");
    }
    let cron = object_of("batch/v1", "CronJob", &format!("jobTemplate: {{spec: {{{template}}}}}"));
    assert_eq!(said(&cron), told("spec.jobTemplate.spec.template."));
    let lines = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  template:\n    metadata:\n      annotations:\n        traffic.weft.dev/x: y\n    spec:\n      containers: []\n";
    assert_eq!(load("x.yaml", lines).findings()[0].line, Some(8));
    assert!(said("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {spec: {containers: [{}]}}}\n").is_empty());
}

#[test]
fn what_kustomize_keeps_beside_objects_is_no_object() {
    let delete =
        "$patch: delete\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\n";
    let loaded = load("x.yaml", delete);
    assert!(loaded.objects.is_empty() && loaded.refused.is_empty(), "{loaded:?}");
    assert_eq!(said(delete), ["info NotAnObject [\"$patch\"]"]);
    assert_eq!(
        said("- {op: remove, path: /spec/http/0}\n- {op: test, path: /a, value: b}\n"),
        ["info NotAnObject "]
    );
    for (file, severity) in
        [("shop/kustomization.yaml", Severity::Info), ("shop/values.yaml", Severity::Error)]
    {
        let told = load(file, "resources: [a.yaml]\n").findings();
        assert_eq!((told.len(), told[0].severity), (1, severity), "{file}");
    }
    // Inside an object it is a slip, and the object's last good version stays.
    let inside =
        object("VirtualService", "$patch: replace\nhosts: [a]\nhttp: [{route: [{destination: {host: a}}]}]");
    assert_eq!(said(&inside), ["error UnknownField spec[\"$patch\"]"]);
}

#[test]
fn mixers_own_rules_have_a_successor() {
    let rules = "subject: namespace:ns\nrevision: '2022'\nrules:\n- selector: target.service == \"a\"\n  rules:\n  - aspects:\n    - kind: denials\n";
    let told = load("x.yaml", rules).findings();
    assert_eq!((told.len(), told[0].code.as_str(), told[0].line), (1, "RemovedKind", Some(3)));
    assert!(told[0].message.contains("AuthorizationPolicy"), "{}", told[0].message);
    assert_eq!(said("rules:\n- aspects:\n  - kind: quotas\n"), ["error RemovedKind rules"]);
    assert_eq!(said("rules: [{alert: x}]\n"), ["error NotAnObject "], "somebody else's");
}
