use super::*;

fn request(operation: &str, object: Value) -> Request {
    Request {
        uid: "1".to_owned(),
        operation: operation.to_owned(),
        namespace: "shop".to_owned(),
        object,
        old_object: Value::Null,
    }
}

fn virtual_service(route: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": { "name": "cart", "namespace": "shop", "managedFields": [{ "manager": "kubectl" }] },
        "spec": { "hosts": ["cart"], "http": [route] },
    })
}

fn good() -> Value {
    virtual_service(&json!({ "route": [{ "destination": { "host": "cart" } }] }))
}

fn bad() -> Value {
    virtual_service(&json!({ "timeout": "5", "retry": {}, "route": [{ "destination": { "host": "cart" } }] }))
}

#[test]
fn a_good_object_passes() {
    for operation in ["CREATE", "UPDATE"] {
        assert_eq!(decide(request(operation, good())), Verdict::allowed());
    }
}

#[test]
fn a_bad_object_is_refused_with_every_cure() {
    let verdict = decide(request("CREATE", bad()));
    assert!(!verdict.allowed);
    assert_eq!(verdict.result(), "refused");
    let refusal = verdict.refusal.clone().unwrap();
    let lines: Vec<_> = refusal.lines().collect();
    assert_eq!(lines.len(), 2, "{refusal}");
    assert!(
        lines.iter().any(|line| line.starts_with("spec.http[0].retry: ") && line.contains("retries")),
        "{refusal}"
    );
    assert!(
        lines.iter().any(|line| line.starts_with("spec.http[0].timeout: ") && line.contains("1s")),
        "{refusal}"
    );
    let review = verdict.to_review("1");
    assert_eq!(review.pointer("/response/uid"), Some(&json!("1")));
    assert_eq!(review.pointer("/response/status/message"), Some(&json!(refusal)));
    assert_eq!(review.pointer("/response/status/code"), Some(&json!(422)));
}

#[test]
fn warnings_are_shown_and_refuse_nothing() {
    let gateway = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": { "name": "a" }, "spec": {},
    });
    let verdict = decide(request("CREATE", gateway));
    assert!(verdict.allowed);
    assert!(verdict.warnings[0].contains("not in force"), "{:?}", verdict.warnings);
    assert_eq!(verdict.to_review("1").pointer("/response/warnings/0"), Some(&json!(verdict.warnings[0])));
}

#[test]
fn kinds_without_effect_pass_with_a_warning() {
    for (version, kind) in [
        ("networking.istio.io/v1", "ServiceEntry"),
        ("networking.istio.io/v1", "WorkloadGroup"),
        ("networking.istio.io/v1beta1", "ProxyConfig"),
        ("networking.istio.io/v1alpha3", "EnvoyFilter"),
        ("telemetry.istio.io/v1", "Telemetry"),
        ("extensions.istio.io/v1alpha1", "WasmPlugin"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ("gateway.networking.k8s.io/v1", "GatewayClass"),
    ] {
        let object = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "a" }, "spec": {} });
        for operation in ["CREATE", "UPDATE"] {
            let verdict = decide(request(operation, object.clone()));
            assert_eq!((verdict.allowed, verdict.warnings.len()), (true, 1), "{kind}: {verdict:?}");
            assert!(verdict.warnings[0].contains(kind), "{verdict:?}");
        }
    }
}

#[test]
fn what_an_author_writes_begins_no_line_and_turns_none_around() {
    let host = "a\u{202e}b\r\nall is well\u{1b}[2J";
    let route = json!({ "route": [{ "destination": { "host": host } }], host: 1 });
    let refusal = decide(request("CREATE", virtual_service(&route))).refusal.unwrap();
    assert!(refusal.lines().all(|line| line.starts_with("spec.http[0]")), "{refusal}");
    assert!(!refusal.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{refusal:?}");
}

#[test]
fn what_is_no_business_of_ours_passes() {
    let deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "a" } });
    assert_eq!(decide(request("CREATE", deployment)), Verdict::allowed());
    assert_eq!(decide(request("DELETE", Value::Null)), Verdict::allowed());
    assert_eq!(decide(Request { old_object: bad(), ..request("DELETE", Value::Null) }), Verdict::allowed());
    assert_eq!(decide(request("CONNECT", bad())), Verdict::allowed());
}

#[test]
fn an_old_bad_object_can_lose_its_finalizers() {
    let same = decide(Request { old_object: bad(), ..request("UPDATE", bad()) });
    assert!(same.allowed);
    assert_eq!(same.warnings.len(), 2);
    assert!(!decide(Request { old_object: good(), ..request("UPDATE", bad()) }).allowed);
}

#[test]
fn a_name_to_be_made_is_a_name() {
    let mut object = good();
    object["metadata"] = json!({ "generateName": "cart-" });
    assert_eq!(decide(request("CREATE", object)), Verdict::allowed());
}
