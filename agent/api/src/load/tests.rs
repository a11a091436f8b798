//! Manifests in, objects and findings out.
use super::*;
use crate::finding::code;

/// All findings as `weft analyze` prints them, each with its line.
fn told(text: &str) -> Vec<String> {
    let line = |finding: &Finding| finding.line.unwrap_or_default();
    load("test.yaml", text).findings().iter().map(|finding| format!("{}: {finding}", line(finding))).collect()
}

fn accepted(text: &str) -> Object {
    let loaded = load("test.yaml", text);
    assert!(loaded.refused.is_empty() && loaded.unreadable.is_empty(), "{:#?}", loaded.findings());
    let [object] = &loaded.objects[..] else { panic!("one object expected, got {:?}", loaded.objects) };
    object.object.clone()
}

fn virtual_service(spec: &str) -> String {
    let spec = spec.lines().map(|line| format!("  {line}\n")).collect::<Vec<_>>().concat();
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: VirtualService\nmetadata:\n  name: reviews\nspec:\n{spec}"
    )
}

/// Findings as `line code path`.
fn codes(text: &str) -> Vec<String> {
    let findings = load("test.yaml", text).findings();
    findings.iter().map(|f| format!("{} {} {}", f.line.unwrap_or_default(), f.code, f.path)).collect()
}

#[test]
fn a_match_that_is_empty_and_a_route_that_is_indented_wrongly() {
    let text = virtual_service(
        "hosts:\n- reviews\nhttp:\n  - match:\n    - headers:\n        testuser:\n          regex: \"^.+$\"\n     route:\n\
         \u{20}     - destination:\n          host: reviews\n          subset: v2\n",
    );
    let told = told(&text);
    let [misfit] = &told[..] else { panic!("{told:#?}") };
    assert!(
        misfit.starts_with("13: error InvalidYaml VirtualService/default/reviews: not valid YAML"),
        "{misfit}"
    );
    assert!(misfit.contains("with 6 spaces it stands beside `match`"), "{misfit}");

    // As the tutorial prints it: `headers` is an item beside `match`, too.
    let text =
        text.replace("      - headers:", "    - headers:").replace("          testuser", "        testuser");
    let told = self::told(&text);
    let [empty, misfit] = &told[..] else { panic!("{told:#?}") };
    assert!(
        empty.starts_with("9: error MisplacedField VirtualService/default/reviews: `match` is empty, and `headers` on line 10"),
        "{empty}"
    );
    assert!(empty.ends_with("(indent `- headers` under `match`)"), "{empty}");
    assert!(misfit.starts_with("13: error InvalidYaml"), "{misfit}");

    // With `route` in its place it is YAML, and means something that nobody meant.
    let text = text.replace("     route", "    route");
    assert!(codes(&text).contains(&"9 MisplacedField spec.http[0].match".to_owned()), "{:#?}", codes(&text));
}

#[test]
fn a_destination_that_is_empty_with_host_and_subset_beside_it() {
    let told = told(&virtual_service(
        "hosts:\n- reviews\nhttp:\n- route:\n  - destination:\n    host: reviews\n    subset: v1\n    weight: 95\n\
         \u{20} - destination:\n    host: reviews\n    subset: v2\n  weight: 5\n",
    ));
    let prefix = "error MisplacedField VirtualService/default/reviews spec.http[0]";
    assert_eq!(
        told,
        [
            format!(
                "10: {prefix}.route[0].destination: `destination` is empty, and `host` and `subset` stand beside it on lines 11 and 12 (indent them under `destination`)"
            ),
            format!(
                "14: {prefix}.route[1].destination: `destination` is empty, and `host` and `subset` stand beside it on lines 15 and 16 (indent them under `destination`)"
            ),
            format!(
                "17: {prefix}.weight: `weight` is no field of spec.http[0] (indent it under an entry of `route`)"
            ),
        ]
    );
}

#[test]
fn every_version_has_one_schema() {
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let text = virtual_service("hosts: [reviews]\nhttp:\n- route:\n  - destination: {host: reviews}\n");
        let object = accepted(&text.replace("v1alpha3", version));
        assert_eq!(object.key().to_string(), "VirtualService/default/reviews", "no namespace means default");
    }
    let told = told(&virtual_service("{}").replace("v1alpha3", "v2"));
    assert!(
        told[0].contains("UnknownVersion") && told[0].contains("write apiVersion: networking.istio.io/v1,"),
        "{told:?}"
    );
    for foreign in ["gateway.solo.io/v1", "appmesh.k8s.aws/v1beta2"] {
        let loaded = load("x", &virtual_service("{}").replace("networking.istio.io/v1alpha3", foreign));
        assert_eq!(
            (loaded.ignored.len(), loaded.findings().len()),
            (1, 0),
            "{foreign} has a VirtualService of its own"
        );
    }
}

#[test]
fn a_broken_document_costs_only_itself() {
    let good = virtual_service("hosts: [reviews]\nhttp:\n- route:\n  - destination: {host: reviews}\n");
    let text = format!("# a comment\n---\n{good}---\n{good}  broken: [\n---\nnot: [closed\n---\n---\n{good}");
    let loaded = load("test.yaml", &text);
    assert_eq!(loaded.objects.iter().map(|o| o.line).collect::<Vec<_>>(), [3, 27]);
    let keys: Vec<_> = loaded.unreadable.iter().map(|u| u.key.as_ref().map(ToString::to_string)).collect();
    assert_eq!(
        keys,
        [Some("VirtualService/default/reviews".to_owned()), None],
        "a guess, where there is one"
    );
}

#[test]
fn lists_and_json_and_anchors() {
    let text = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "namespace": "ignored", "creationTimestamp": null}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "shop"}, "spec": {"ports": [{"port": 80, "targetPort": "http"}], "selector": null}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b"}, "spec": {"ports": [{"port": 0}]}},
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "c"}}
    ]}"#;
    let loaded = load("test.json", text);
    let names: Vec<_> = loaded.objects.iter().map(|o| format!("{} {}", o.line, o.object.key())).collect();
    assert_eq!(names, ["2 Namespace/shop", "3 Service/shop/a"]);
    assert_eq!(
        loaded.refused.iter().map(|o| o.key.clone().map(|k| k.to_string())).collect::<Vec<_>>(),
        [Some("Service/default/b".to_owned())]
    );
    assert_eq!(
        loaded.ignored.iter().map(|o| (o.kind.as_str(), o.name.as_str())).collect::<Vec<_>>(),
        [("LimitRange", "c")]
    );
    let text = virtual_service(
        "hosts: &h [reviews]\nhttp:\n- &r\n  route: [{destination: {host: reviews}}]\n- <<: *r\n  match: [{port: 80}]\nexportTo: ['*']\n",
    );
    let Object::VirtualService(object) = accepted(&text) else { panic!("a VirtualService") };
    assert_eq!(object.spec.http[1].route, object.spec.http[0].route);
}

#[test]
fn names_are_checked() {
    for (name, code) in [
        ("Reviews", "4 InvalidMetadata metadata.name"),
        ("re_views", "4 InvalidMetadata metadata.name"),
        ("1", "4 InvalidType metadata.name"),
        ("", "3 InvalidMetadata metadata.name"),
        ("a\n  namespace: B", "5 InvalidMetadata metadata.namespace"),
        ("a\n  creationTimestamp: yesterday", "5 InvalidMetadata metadata.creationTimestamp"),
        ("a\n  labels: {version: 1}", "5 InvalidType metadata.labels.version"),
    ] {
        let text = virtual_service("hosts: [reviews]\nhttp:\n- route:\n  - destination: {host: reviews}\n");
        let text = text.replace(
            "  name: reviews",
            &if name.is_empty() { "  {}".to_owned() } else { format!("  name: {name}") },
        );
        assert_eq!(codes(&text), [code], "{name}");
    }
}

#[test]
fn quotes_that_are_missing_or_too_many() {
    let told = told(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels:\n    version: 1.10\n    ready: true\n    plain: yes\nspec:\n  containers:\n  - ports:\n    - containerPort: \"80\"\n",
    );
    let line = |line, path, message| format!("{line}: error InvalidType Pod/default/a {path}: {message}");
    assert_eq!(
        told,
        [
            line(
                6,
                "metadata.labels.version",
                "1.10 is read as a number, and text is needed (put quotes around it: \"1.10\")"
            ),
            line(
                7,
                "metadata.labels.ready",
                "true is read as true or false, and text is needed (put quotes around it: \"true\")"
            ),
            line(
                12,
                "spec.containers[0].ports[0].containerPort",
                "\"80\" is text, and a number is needed (take the quotes away)"
            ),
        ]
    );
}

#[test]
fn fields_that_nobody_knows_are_ignored_by_kubernetes_kinds_only() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, managedFields: [{x: y}]}\nspec: {tolerations: [], restartPolicy: Always}\n";
    accepted(pod);
    let text = virtual_service(
        "hosts: [reviews]\nhttp:\n- route:\n  - destination: {host: reviews}\n    weigth: 1\n  retrys: {}\n",
    );
    assert_eq!(
        told(&format!("{text}surplus: 1\n")),
        [
            "10: error UnknownField VirtualService/default/reviews spec.http[0].route[0].weigth: `weigth` is no field of spec.http[0].route[0] (did you mean `weight`?)",
            "11: error UnknownField VirtualService/default/reviews spec.http[0].retrys: `retrys` is no field of spec.http[0] (did you mean `retries`?)",
            "12: error UnknownField VirtualService/default/reviews surplus: `surplus` is no field of the object (it has apiVersion, kind, metadata, spec, status)",
        ]
    );
}

#[test]
fn empty_values_count_as_absent() {
    let Object::VirtualService(object) = accepted(&virtual_service(
        "hosts: [reviews]\ngateways:\ntls: null\nhttp:\n- match: ~\n  timeout:\n  route:\n  - destination: {host: reviews, subset: }\n",
    )) else {
        panic!("a VirtualService")
    };
    assert_eq!(
        (object.spec.gateways.len(), object.spec.http[0].r#match.len(), object.spec.http[0].timeout),
        (0, 0, None)
    );
}

#[test]
fn what_the_api_server_serves_is_judged_as_files_are() {
    let served = |spec: &str| {
        load_served(
            Kind::VirtualService,
            &format!(
                r#"{{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {{"name": "a", "namespace": "shop",
                "uid": "7", "resourceVersion": "12", "generation": 1, "managedFields": [{{"manager": "kubectl", "fieldsV1": {{"f:spec": {{}}}}}}]}},
                "spec": {spec}, "status": {{"conditions": [{{"type": "x"}}]}}}}"#
            ),
        )
    };
    let good = served(
        r#"{"hosts": ["web"], "http": [{"timeout": "5s", "route": [{"destination": {"host": "web"}, "weight": 1}]}]}"#,
    );
    let good = good.expect("accepted");
    assert_eq!(good.findings, []);
    assert_eq!(good.object.key().to_string(), "VirtualService/shop/a");

    let wrong = served(
        r#"{"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web"}, "weigth": -1.5}]}]}"#,
    );
    let wrong = wrong.expect_err("refused");
    assert_eq!(wrong.key.expect("a name").to_string(), "VirtualService/shop/a");
    let [finding] = &wrong.findings[..] else { panic!("{:?}", wrong.findings) };
    assert_eq!((&*finding.code, &*finding.path), (code::UNKNOWN_FIELD, "spec.http[0].route[0].weigth"));
    assert_eq!((&finding.file, finding.line), (&None, None));
    // Refused by what it means.
    assert!(served(r#"{"hosts": [], "http": []}"#).is_err());
}

#[test]
fn kinds_of_kubernetes_are_read_from_what_is_served() {
    let slice = |port: u32| {
        load_served(
            Kind::EndpointSlice,
            &format!(
                r#"{{"metadata": {{"name": "a", "namespace": "shop", "managedFields": []}}, "addressType": "IPv4",
                "endpoints": [{{"addresses": ["10.0.0.1"], "hints": {{}}}}], "ports": [{{"port": {port}}}]}}"#
            ),
        )
    };
    assert_eq!(slice(80).expect("accepted").object.key().to_string(), "EndpointSlice/shop/a");
    // The API server does not look at these numbers.
    let refused = slice(100_000).expect_err("refused");
    assert_eq!(refused.key.expect("a name").to_string(), "EndpointSlice/shop/a");
    assert!(refused.findings[0].path.starts_with("ports[0].port"), "{:?}", refused.findings);
    let namespace = load_served(Kind::Namespace, r#"{"metadata": {"name": "shop"}}"#).expect("accepted");
    assert_eq!(namespace.object.key().to_string(), "Namespace/shop");
    assert!(load_served(Kind::Pod, "no json").is_err());
}
