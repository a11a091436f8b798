//! Whom the words of `weft explain` mean: names as a resolver has them, ports of nodes, callers after a rollout.

use weft_api::admin::{ExplainRequest, Explanation};
use weft_rules::explain::{ExplainError, answer};

use crate::hosts::mesh_config;
use crate::support::World;

const APP: &str = include_str!("bookinfo.yaml");
const CALLER: &str = "productpage.bookinfo";

fn ask(world: &World, from: &str, to: &str) -> Result<Explanation, ExplainError> {
    let request = ExplainRequest { from: from.into(), to: to.into(), ..ExplainRequest::default() };
    answer(&world.snapshot, &request, true)
}

/// What a caller outside the mesh is told.
fn ask_outside(world: &World, from: &str, to: &str) -> Result<Explanation, ExplainError> {
    let request = ExplainRequest {
        from: from.into(),
        from_address: Some("192.0.2.7".into()),
        to: to.into(),
        ..ExplainRequest::default()
    };
    answer(&world.snapshot, &request, true)
}

fn has(told: &Explanation, note: &str) -> bool {
    told.notes.iter().any(|told| told.contains(note))
}

#[test]
fn a_name_that_nobody_knows_is_refused_as_a_resolver_would() {
    let mut world = World::of(APP);
    world.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: other}
status: {podIP: 10.1.1.1}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wide, namespace: bookinfo}
spec: {hosts: ['*.bookinfo.svc.cluster.local'], http: [{route: [{destination: {host: reviews}}]}]}
",
    );
    let refusal = |from: &str, to: &str| ask(&world, from, to).expect_err(to).to_string();
    for to in [
        "nowhere.example:9080",
        "http://nowhere:9080/",
        "typo.bookinfo",
        "typo.bookinfo.svc.cluster.local:9080",
        "reviews-v1.reviews:9080",
    ] {
        let told = refusal(CALLER, to);
        assert!(told.starts_with("nobody knows the name \""), "{told}");
        assert!(told.contains("in namespace bookinfo: no Service, "), "{told}");
        assert!(
            told.contains("`weft get endpoints` lists what there is") && told.contains("-H 'Host: "),
            "{told}"
        );
        assert!(ask_outside(&world, "", to).is_err(), "{to}");
    }
    let told = refusal("client.other", "reviews:9080");
    assert!(
        told.contains("in namespace other") && told.contains("(did you mean reviews.bookinfo?)"),
        "{told}"
    );
    assert!(ask(&world, "client.other", "reviews.bookinfo:9080").is_ok());
}

#[test]
fn a_name_outside_is_known_where_a_rule_or_a_service_says_so_and_needs_no_address() {
    let mut world = World::of(APP);
    world.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: bookinfo}
spec: {type: ExternalName, externalName: api.example.com}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api, namespace: bookinfo}
spec: {hosts: [api.example.com], http: [{match: [{uri: {prefix: /v1}}], route: [{destination: {host: reviews}}]}]}
",
    );
    let told = ask(&world, CALLER, "http://api.example.com:9080/v1").unwrap();
    assert_eq!(told.matched.unwrap().virtual_service, "bookinfo/api");
    for to in ["http://outside:9080/", "outside:81", "api.example.com:5432"] {
        let told = ask(&world, CALLER, to).unwrap();
        assert_eq!(told.action, "passthrough", "{to}");
        assert!(has(&told, "wherever the caller's resolver says that is"), "{to}: {:#?}", told.notes);
        assert!(!has(&told, "0.0.0.0"), "{to}: {:#?}", told.notes);
    }
    world.apply(&mesh_config("outboundTrafficPolicy: {mode: REGISTRY_ONLY}"));
    for to in ["http://www.example.org:9080/", "www.example.org:5432"] {
        let told = ask(&world, CALLER, to).unwrap();
        assert_eq!(told.action, "deny", "{to}");
        assert!(!has(&told, "0.0.0.0"), "{to}: {:#?}", told.notes);
    }
    assert!(ask(&world, CALLER, "http://nowhere:9080/").is_err());
}

#[test]
fn a_pod_of_a_headless_service_is_known_by_its_own_name_and_answers_alone() {
    let mut world = World::of(APP);
    world.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: bookinfo}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: bookinfo, labels: {app: db}}
spec: {hostname: db-0, subdomain: db}
status: {podIP: 10.1.2.1}
---
apiVersion: v1
kind: Pod
metadata: {name: nameless, namespace: bookinfo, labels: {app: db}}
status: {podIP: 10.1.2.2}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db, namespace: bookinfo}
spec: {hosts: [db], http: [{route: [{destination: {host: db}}]}]}
",
    );
    for (to, endpoints) in [
        ("http://db-0.db:9080/", &["10.1.2.1:9080"][..]),
        ("http://db-0.db.bookinfo.svc.cluster.local:9080/", &["10.1.2.1:9080"]),
        ("http://10-1-2-2.db:9080/", &["10.1.2.2:9080"]),
        ("http://db:9080/", &["10.1.2.1:9080", "10.1.2.2:9080"]),
    ] {
        let told = ask(&world, CALLER, to).unwrap();
        assert_eq!(told.matched.unwrap().virtual_service, "bookinfo/db", "{to}");
        assert_eq!(told.backends[0].endpoints, endpoints, "{to}");
    }
    for to in ["nameless.db:9080", "10-1-2-1.db:9080", "db-1.db:9080"] {
        assert!(ask(&world, CALLER, to).is_err(), "{to}");
    }
    let told = ask_outside(&world, "", "db-0.db.bookinfo:9080").unwrap();
    assert!(has(&told, "10.1.2.1 is pod bookinfo/db-0"), "{:#?}", told.notes);
}

#[test]
fn after_a_rollout_the_caller_is_a_pod_that_stays() {
    let mut world = World::of(APP);
    let pod = |name: &str, more: &str, address: &str| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: bookinfo, labels: {{app: web}}, {more}}}
status: {{podIP: '{address}'}}
"
        )
    };
    let ending = "deletionTimestamp: '2026-01-01T00:00:00Z'";
    world.apply(&pod("web-a", ending, "10.1.3.1"));
    world.apply(&pod("web-b", "", ""));
    let stands_for =
        |world: &World| ask(world, "app=web", "reviews:9080").unwrap().notes.last().cloned().unwrap();
    assert!(stands_for(&world).starts_with("bookinfo/web-b stands for"), "{}", stands_for(&world));
    world.apply(&pod("web-c", "", "10.1.3.3"));
    assert!(stands_for(&world).starts_with("bookinfo/web-c stands for 2 more"), "{}", stands_for(&world));
    // The only one there is.
    assert!(ask(&world, "pod/web-a", "reviews:9080").is_ok());
}

const GATEWAY: &str = "
apiVersion: v1
kind: Pod
metadata: {name: edge, namespace: bookinfo, labels: {istio: edge}}
status: {podIP: 10.1.4.1}
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: bookinfo}
spec:
  type: NodePort
  clusterIP: 10.96.4.1
  selector: {istio: edge}
  ports: [{name: http2, port: 80, targetPort: 8080, nodePort: 30080}, {name: status, port: 15021, nodePort: 30021}]
---
apiVersion: v1
kind: Service
metadata: {name: ratings-outside, namespace: bookinfo}
spec: {type: NodePort, clusterIP: 10.96.4.2, selector: {app: ratings}, ports: [{name: http, port: 80, targetPort: 9080, nodePort: 30090}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: bookinfo}
spec: {selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: bookinfo}
spec: {hosts: ['*'], gateways: [edge], http: [{name: pages, route: [{destination: {host: productpage, port: {number: 9080}}}]}]}
";

#[test]
fn a_port_of_nodes_is_the_gateways_that_it_leads_to() {
    let mut world = World::of(APP);
    world.apply(GATEWAY);
    for told in [
        ask(&world, "pod/edge", "http://203.0.113.9:30080/productpage").unwrap(),
        ask_outside(&world, "pod/edge", "http://203.0.113.9:30080/productpage").unwrap(),
    ] {
        assert_eq!(told.matched.as_ref().map(|matched| matched.route.as_str()), Some("pages"), "{told:#?}");
        assert_eq!(
            (told.action.as_str(), &*told.backends[0].endpoints),
            ("route", &["10.1.0.1:9080".to_owned()][..])
        );
        assert!(
            has(&told, "pod bookinfo/edge serves port 80 at its own port 8080, port 30080 of each node,"),
            "{told:#?}"
        );
    }
    // No Gateway has the port behind that one, and this one does not lead to the pod.
    for port in [30021, 30090, 30081] {
        let told = ask(&world, "pod/edge", &format!("http://203.0.113.9:{port}/")).unwrap();
        assert!(told.matched.is_none() && told.action == "passthrough", "{told:#?}");
    }
}

#[test]
fn a_port_of_nodes_is_told_to_who_calls_it_from_inside_and_outside() {
    let mut world = World::of(APP);
    world.apply(GATEWAY);
    world.apply(
        "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
",
    );
    let told = ask_outside(&world, "", "http://203.0.113.9:30080/").unwrap();
    assert!(
        has(&told, "port 30080 of each node leads to port 80 of edge.bookinfo.svc.cluster.local"),
        "{told:#?}"
    );
    assert!(has(&told, "`weft explain pod/edge.bookinfo URL` tells where it sends requests"), "{told:#?}");
    assert_eq!(ask_outside(&world, "", "http://203.0.113.9:30090/").unwrap().action, "deny");

    let told = ask(&world, CALLER, "http://203.0.113.9:30080/").unwrap();
    assert_eq!((told.action.as_str(), told.tls.as_str()), ("passthrough", "plaintext"));
    let leads =
        "if 203.0.113.9 is a node, its port 30080 leads to port 80 of edge.bookinfo.svc.cluster.local";
    assert!(has(&told, leads) && has(&told, "`weft explain pod/edge.bookinfo URL`"), "{told:#?}");
    let told = ask(&world, CALLER, "http://203.0.113.9:30090/").unwrap();
    assert_eq!((told.action.as_str(), told.tls.as_str()), ("deny", "refused under STRICT (plaintext)"));
    assert!(!has(&ask(&world, CALLER, "203.0.113.9:30099").unwrap(), "is a node"));
}
