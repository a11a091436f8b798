use super::*;

fn client() -> kube::Client {
    // Nothing is asked in these tests.
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    kube::Client::try_from(config).unwrap()
}

#[tokio::test]
async fn the_config_map_is_written_where_it_differs() {
    let publication = RootConfigMap(Api::namespaced(client(), "weft-system"));
    let held = |roots: &str| ConfigMap {
        data: Some([(CA_ROOT_KEY.to_owned(), roots.to_owned())].into()),
        ..ConfigMap::default()
    };
    assert_eq!(publication.change(Some(&held("new")), "new"), None);
    for found in [None, Some(held("old")), Some(ConfigMap::default())] {
        let change = publication.change(found.as_ref(), "new").unwrap();
        assert_eq!(change.pointer("/data/root-cert.pem"), Some(&json!("new")));
    }
}

#[tokio::test]
async fn every_webhook_gets_the_roots() {
    let publication = CaBundle(Api::all(client()));
    let configuration = |bundles: [Option<&str>; 2]| -> ValidatingWebhookConfiguration {
        let webhooks = bundles.map(|bundle| {
            let bundle = bundle.map(|text| base64::engine::general_purpose::STANDARD.encode(text));
            json!({
                "name": "a.weft.dev",
                "clientConfig": { "caBundle": bundle },
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
            })
        });
        serde_json::from_value(json!({ "webhooks": webhooks, "metadata": {} })).unwrap()
    };
    assert_eq!(publication.change(None, "new"), None, "nobody wants a webhook");
    assert_eq!(publication.change(Some(&configuration([Some("new"), Some("new")])), "new"), None);
    let change = publication.change(Some(&configuration([Some("new"), None])), "new").unwrap();
    let expected = json!([
        { "op": "test", "path": "/webhooks/1/name", "value": "a.weft.dev" },
        { "op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": "bmV3" },
    ]);
    assert_eq!(change, expected);
    let both = publication.change(Some(&configuration([Some("old"), None])), "new").unwrap();
    assert_eq!(both.as_array().map(Vec::len), Some(4));
}
