use k8s_openapi::ByteString;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::*;
use crate::gateways;
use crate::pods::{self, LeanPod};

fn pod(namespace: &str, name: &str, node: &str, labels: &Value, phase: &str) -> LeanPod {
    serde_json::from_value(json!({
        "metadata": { "name": name, "namespace": namespace, "labels": labels },
        "spec": { "nodeName": node, "serviceAccountName": "gateway" },
        "status": { "phase": phase },
    }))
    .unwrap()
}

fn gateway(namespace: &str, name: &str, selector: &Value, tls: &Value) -> DynamicObject {
    let server = json!({ "port": { "number": 443, "name": "https", "protocol": "HTTPS" }, "hosts": ["*"], "tls": tls });
    serde_json::from_value(json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "selector": selector, "servers": [server] },
    }))
    .unwrap()
}

fn secret(name: &str, version: &str, values: &[(&str, &[u8])]) -> Secret {
    let mut secret = Secret::default();
    secret.metadata.name = Some(name.to_owned());
    secret.metadata.uid = Some("u".to_owned());
    secret.metadata.resource_version = Some(version.to_owned());
    let values = values.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec())));
    secret.data = Some(values.collect());
    secret
}

const INGRESS: &str = "ingressgateway";

/// A controller that knows of a gateway pod in namespace `edge` on node n1, of somebody's Gateway for it with Secret `shop`, and
/// of the Secrets `shop` and `other` there. There is no API server to read from.
fn controller() -> (GatewaySecrets, pods::Index, gateways::Index) {
    weft_identity::crypto::install().unwrap();
    let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let mut secrets = GatewaySecrets::new(client, "weft-system", Arc::new(Pods::default()));
    (secrets.patience, secrets.held_back) = (Duration::from_millis(10), Duration::from_millis(20));
    let (mut pods, mut gateways) = (pods::Index::default(), gateways::Index::default());
    for event in [
        Event::InitApply(pod("edge", "gw", "n1", &json!({ "istio": INGRESS }), "Running")),
        Event::InitApply(pod("edge", "plain", "n2", &json!({ "app": "x" }), "Running")),
        Event::InitApply(pod("edge", "ended", "n3", &json!({ "istio": INGRESS }), "Failed")),
        Event::InitDone,
    ] {
        secrets.pods.take(event, &mut pods);
    }
    let tls = json!({ "mode": "SIMPLE", "credentialName": "shop" });
    let of_somebody = gateway("shop", "gw", &json!({ "istio": INGRESS }), &tls);
    for event in [Event::InitApply(of_somebody), Event::InitDone] {
        secrets.gateways.take(event, &mut gateways);
    }
    let mut fresh = OfNamespace::default();
    for event in [
        Event::InitApply(secret("shop", "1", &[])),
        Event::InitApply(secret("other", "1", &[])),
        Event::InitDone,
    ] {
        secrets.take("edge", event, &mut fresh);
    }
    (secrets, pods, gateways)
}

/// What the agent of a node is told of a Secret once it has waited.
fn told(secrets: &GatewaySecrets, node: &str, namespace: &str, name: &str) -> String {
    match secrets.answer(node, namespace, name, true) {
        Answer::There(version) => version,
        Answer::Refused(why) if why.starts_with("no live gateway pod") => "not needed".to_owned(),
        Answer::Refused(why) => why,
        Answer::NotYet => "not yet".to_owned(),
    }
}

#[tokio::test]
async fn an_agent_gets_what_its_gateways_need_and_nothing_else() {
    let (secrets, _, mut gateways) = controller();
    for (node, namespace, name, expected) in [
        ("n1", "edge", "shop", "u/1"),
        // A Secret that no Gateway names; one of the Gateway's own namespace, where no gateway pod is.
        ("n1", "edge", "other", "not needed"),
        ("n1", "shop", "shop", "not needed"),
        // Another node; a node with a pod that is no gateway; one whose gateway has ended.
        ("n4", "edge", "shop", "not needed"),
        ("n2", "edge", "shop", "not needed"),
        ("n3", "edge", "shop", "not needed"),
    ] {
        assert_eq!(told(&secrets, node, namespace, name), expected, "{node} {namespace}/{name}");
    }
    let mut put = |selector: &Value, tls: &Value| {
        secrets.gateways.take(Event::Apply(gateway("a", "gw", selector, tls)), &mut gateways);
    };
    let ours = json!({ "istio": INGRESS });
    // TLS does not end by it, or not at these pods.
    put(&ours, &json!({ "mode": "PASSTHROUGH", "credentialName": "other" }));
    assert_eq!(told(&secrets, "n1", "edge", "other"), "not needed");
    for selector in [json!({ "istio": "another" }), json!({}), json!({ "istio": INGRESS, "team": "a" })] {
        put(&selector, &json!({ "mode": "SIMPLE", "credentialName": "other" }));
        assert_eq!(told(&secrets, "n1", "edge", "other"), "not needed", "{selector}");
    }
    put(&ours, &json!({ "mode": "MUTUAL", "credentialName": "other" }));
    assert_eq!(told(&secrets, "n1", "edge", "other"), "u/1");
    assert_eq!(told(&secrets, "n1", "edge", "other-cacert"), "there is no Secret edge/other-cacert");
    // Of one that cannot be read, the last good version counts, as for agents.
    put(&ours, &json!({ "mode": "NONSENSE" }));
    assert_eq!(told(&secrets, "n1", "edge", "other"), "u/1");
    secrets.gateways.take(Event::Delete(gateway("a", "gw", &ours, &json!({}))), &mut gateways);
    assert_eq!(told(&secrets, "n1", "edge", "other"), "not needed");
}

#[tokio::test]
async fn the_meshs_own_key_is_no_gateways() {
    let (secrets, mut pods, mut gateways) = controller();
    let ingress = pod("weft-system", "gw", "n1", &json!({ "istio": INGRESS }), "Running");
    secrets.pods.take(Event::Apply(ingress), &mut pods);
    let mut fresh = OfNamespace::default();
    for name in ["weft-ca", "cacerts", "shop"] {
        let tls = json!({ "mode": "SIMPLE", "credentialName": name });
        let of_somebody = gateway("shop", name, &json!({ "istio": INGRESS }), &tls);
        secrets.gateways.take(Event::Apply(of_somebody), &mut gateways);
        secrets.take("weft-system", Event::InitApply(secret(name, "1", &[])), &mut fresh);
    }
    secrets.take("weft-system", Event::InitDone, &mut fresh);
    assert_eq!(told(&secrets, "n1", "weft-system", "shop"), "u/1");
    for name in ["weft-ca", "cacerts"] {
        let why = told(&secrets, "n1", "weft-system", name);
        assert!(why.contains("is the mesh's own CA"), "{why}");
    }
}

#[tokio::test]
async fn one_node_keeps_few_questions_waiting() {
    let (secrets, ..) = controller();
    let turns: Vec<_> = (0..MOST_WAITING).map(|_| Turn::of(&secrets.waiting, "n1").unwrap()).collect();
    let nothing = SecretsRequest::default();
    assert_eq!(secrets.changed("n1", &nothing).await, None);
    assert!(secrets.changed("n2", &nothing).await.is_some());
    drop(turns);
    assert!(secrets.changed("n1", &nothing).await.is_some());
    assert!(secrets.waiting.lock().unwrap().is_empty());
}

#[tokio::test]
async fn nothing_is_said_before_all_is_known() {
    let (known, ..) = controller();
    let client = known.client.clone();
    let fresh = GatewaySecrets::new(client.clone(), "weft-system", Arc::new(Pods::default()));
    assert_eq!(told(&fresh, "n1", "edge", "shop"), "not yet");
    let fresh = GatewaySecrets::new(client, "weft-system", known.pods.clone());
    assert_eq!(told(&fresh, "n1", "edge", "shop"), "not yet", "Gateways are not known");
    for event in [Event::Init, Event::InitDone] {
        fresh.gateways.take(event, &mut gateways::Index::default());
    }
    assert_eq!(told(&fresh, "n1", "edge", "shop"), "not needed");
    // An agent may be quicker than the controller's own watch.
    assert!(matches!(fresh.answer("n1", "edge", "shop", false), Answer::NotYet));
}

#[tokio::test]
async fn an_agent_hears_of_changes_alone() {
    let (mut secrets, ..) = controller();
    let asked = |name: &str, version: &str| SecretAsked {
        namespace: "edge".to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
    };
    let request = |asked: SecretAsked| SecretsRequest { secrets: vec![asked] };
    let told = secrets.changed("n1", &request(asked("missing", ""))).await.unwrap();
    let [missing] = &*told.secrets else { panic!("{told:?}") };
    assert!(missing.refused.contains("Secret missing") && missing.data.is_empty(), "{missing:?}");
    // Who knows that waits, and hears nothing.
    let told = secrets.changed("n1", &request(asked("missing", &missing.version))).await.unwrap();
    assert_eq!(told.secrets, []);
    let told = secrets.changed("n1", &request(asked("shop", "u/1"))).await.unwrap();
    assert_eq!(told.secrets, []);
    // A change ends the wait, which would be for longer than any test.
    secrets.held_back = Duration::from_hours(1);
    let known = request(asked("shop", "u/1"));
    let change = async {
        tokio::task::yield_now().await;
        secrets.take("edge", Event::Delete(secret("shop", "2", &[])), &mut OfNamespace::default());
    };
    let (told, ()) = tokio::join!(secrets.changed("n1", &known), change);
    assert_eq!(told.unwrap().secrets[0].refused, "there is no Secret edge/shop");
}

#[test]
fn only_what_is_for_tls_is_handed_over() {
    let whole =
        secret("s", "1", &[("tls.crt", b"c"), ("tls.key", b"k"), ("password", b"p"), ("ca.crt", b"r")]);
    let mut keys: Vec<String> = handed_over(whole).unwrap().into_keys().collect();
    keys.sort();
    assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"]);
    assert_eq!(handed_over(secret("s", "1", &[("password", b"p")])), Err("it holds no certificate"));
    let large = vec![b'x'; SECRET_BYTES + 1];
    assert_eq!(handed_over(secret("s", "1", &[("tls.crt", &large)])), Err("it is larger than 256 KiB"));
    let large = vec![b'x'; SECRET_BYTES + 1];
    assert!(handed_over(secret("s", "1", &[("tls.crt", b"c"), ("other", &large)])).is_ok());
}
