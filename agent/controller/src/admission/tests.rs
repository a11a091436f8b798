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
