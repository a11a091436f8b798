//! What `weft explain` says.

use weft_api::admin::{ExplainRequest, Explanation};
use weft_rules::explain::{answer, answer_for_node};

use crate::hosts::mesh_config;
use crate::support::World;

const APP: &str = include_str!("bookinfo.yaml");

fn explain(world: &World, from: &str, to: &str, headers: &[(&str, &str)]) -> Explanation {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let request = ExplainRequest { from: from.into(), to: to.into(), headers, ..ExplainRequest::default() };
    answer(&world.snapshot, &request, true).unwrap()
}

fn jason() -> World {
    let mut world = World::of(APP);
    world.apply(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: bookinfo}
spec:
  hosts: [reviews]
  http:
  - name: test
    match: [{headers: {end-user: {exact: jason}}}]
    timeout: 3s
    fault: {delay: {fixedDelay: 7s, percentage: {value: 100}}}
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{sourceLabels: {app: ratings}}]
    route: [{destination: {host: reviews, subset: v3}}]
  - route: [{destination: {host: reviews, subset: v1}}]
",
    );
    world
}

#[test]
fn a_route_by_header_is_told_with_its_near_misses() {
    let world = jason();
    let told =
        explain(&world, "deploy/productpage-v1.bookinfo", "http://reviews:9080/", &[("end-user", "jason")]);
    let matched = told.matched.unwrap();
    assert_eq!((matched.virtual_service.as_str(), matched.route.as_str()), ("bookinfo/reviews", "test"));
    assert_eq!(told.action, "route");
    assert_eq!(told.backends[0].subset.as_deref(), Some("v2"));
    assert_eq!(told.backends[0].endpoints, ["10.1.0.4:9080"]);
    assert_eq!(told.timeout.as_deref(), Some("3s"));
    assert_eq!(told.faults.unwrap().delay.as_deref(), Some("7s in 100%"));
    assert_eq!(told.retries.unwrap().retry_on, "connect-failure,refused-stream,unavailable,cancelled");
    assert_eq!(told.tls, "none (same node)");
    assert_eq!(
        told.notes,
        [
            "reviews is reviews.bookinfo.svc.cluster.local at 10.96.0.3:9080; the port is HTTP",
            "http[0] of bookinfo/reviews matched by header end-user = \"jason\"",
            "http[1] of bookinfo/reviews does not match: wants source label app=ratings, the caller has app=productpage",
            "http[2] of bookinfo/reviews matches too, but comes later",
            "DestinationRule bookinfo/reviews applies to reviews.bookinfo.svc.cluster.local subset v2: LEAST_REQUEST",
        ]
    );

    let told = explain(&world, "pod/productpage-v1", "http://reviews:9080/", &[("end-user", "mary")]);
    assert_eq!(told.matched.unwrap().route, "http[2]");
    let miss =
        "http[0] of bookinfo/reviews does not match: wants header end-user = \"jason\", end-user is \"mary\"";
    assert!(told.notes.iter().any(|note| note == miss), "{:#?}", told.notes);
}

#[test]
fn what_leads_nowhere_is_told_with_its_cure() {
    let mut world = jason();
    world.delete("DestinationRule", "bookinfo", "reviews");
    let told = explain(&world, "productpage.bookinfo", "reviews:9080", &[]);
    assert_eq!(told.action, "unavailable");
    let note = told.notes.last().unwrap();
    assert!(note.starts_with("503: no DestinationRule") && note.ends_with("defined are: none"), "{note}");

    let told = explain(&world, "productpage.bookinfo", "192.0.2.1:9080", &[("host", "nowhere.example")]);
    assert_eq!(told.action, "passthrough");
    assert!(told.matched.is_none());
    let told = explain(&world, "productpage.bookinfo", "reviews:81", &[]);
    assert!(told.notes[0].contains("has no port 81; it has 9080"), "{:?}", told.notes);
}

#[test]
fn a_host_that_nobody_knows_is_told_to_be_for_the_service_dialled() {
    let mut world = jason();
    let told = explain(&world, "productpage.bookinfo", "http://reviews:9080/", &[("host", "a.example")]);
    assert!(told.matched.is_none());
    assert_eq!((told.action.as_str(), told.tls.as_str()), ("route", "none (same node)"));
    assert_eq!(told.backends[0].host, "reviews.bookinfo.svc.cluster.local");
    assert_eq!(told.backends[0].endpoints.len(), 3);
    let note = "no service or rule of port 9080 has the Host a.example: the request is for the service that was dialled, \
                reviews.bookinfo.svc.cluster.local, and not for its VirtualServices";
    assert!(told.notes.iter().any(|told| told == note), "{:#?}", told.notes);
    // It is known, though to a rule alone.
    world.apply(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: bookinfo}
spec: {hosts: [a.example], http: [{route: [{destination: {host: ratings}}]}]}
",
    );
    let told = explain(&world, "productpage.bookinfo", "http://reviews:9080/", &[("host", "a.example")]);
    assert_eq!(told.matched.unwrap().virtual_service, "bookinfo/a");
    assert!(!told.notes.iter().any(|told| told.starts_with("no service or rule")), "{:#?}", told.notes);
    world.delete("VirtualService", "bookinfo", "a");

    world.apply(&mesh_config("outboundTrafficPolicy: {mode: REGISTRY_ONLY}"));
    let told = explain(&world, "productpage.bookinfo", "http://reviews:9080/", &[("host", "a.example")]);
    assert_eq!(told.action, "deny");
    assert!(!told.notes.iter().any(|told| told.starts_with("no service or rule")), "{:#?}", told.notes);
}

#[test]
fn rules_that_may_not_be_for_a_host_are_told_to_be_out_of_force() {
    let mut world = World::of(APP);
    world.apply(
        "
apiVersion: v1
kind: ConfigMap
metadata: {name: weft, namespace: istio-system}
data:
  weft: 'hostOwnership: namespace'
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: thief, namespace: other}
spec:
  hosts: [reviews.bookinfo.svc.cluster.local]
  http: [{directResponse: {status: 418}}]
",
    );
    let told = explain(&world, "productpage.bookinfo", "http://reviews:9080/", &[]);
    assert!(told.matched.is_none() && told.action == "route", "{told:?}");
    let note =
        "VirtualService other/thief is of another namespace than the host (hostOwnership is namespace)";
    assert!(told.notes.iter().any(|told| told == note), "{:#?}", told.notes);
}

#[test]
fn callers_are_named_in_many_ways() {
    let world = jason();
    for from in ["10.1.0.1", "productpage", "pod/productpage-v1.bookinfo", "app=productpage"] {
        assert_eq!(explain(&world, from, "http://reviews:9080/", &[]).action, "route", "{from}");
    }
    let several = explain(&world, "app=reviews", "http://ratings:9080/", &[]);
    assert!(several.notes.last().unwrap().contains("2 more workloads"), "{:?}", several.notes);
    let ask = |from: &str, to: &str| {
        let question = ExplainRequest { from: from.into(), to: to.into(), ..Default::default() };
        answer(&world.snapshot, &question, true)
    };
    assert!(ask("pod/nobody", "reviews").unwrap_err().to_string().contains("weft get workloads"));
    assert!(ask("productpage", "::::").is_err());
}

const POLICIES: &str = "
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: bookinfo, labels: {app: ratings, version: v2}}
spec: {nodeName: n2}
status: {podIP: 10.2.0.1}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-writes, namespace: bookinfo}
spec: {action: DENY, rules: [{from: [{source: {namespaces: [bad]}}]}, {to: [{operation: {methods: [PUT]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: bookinfo}
spec: {selector: {matchLabels: {app: ratings}}, rules: [{from: [{source: {principals: [cluster.local/ns/bookinfo/sa/default]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, namespace: istio-system, annotations: {istio.io/dry-run: 'true'}}
spec: {action: DENY, rules: [{}]}
";

fn ask(world: &World, request: &ExplainRequest) -> Explanation {
    answer(&world.snapshot, request, true).unwrap()
}

fn decisions(told: &Explanation) -> Vec<String> {
    told.policies.iter().map(|one| format!("{} {}: {}", one.name, one.action, one.decided)).collect()
}

#[test]
fn the_policies_that_had_a_say_are_named() {
    let mut world = World::of(APP);
    world.apply(POLICIES);
    let question = |method: &str| ExplainRequest {
        from: "productpage".into(),
        to: "http://ratings:9080/".into(),
        method: Some(method.into()),
        ..ExplainRequest::default()
    };
    let told = ask(&world, &question("GET"));
    assert_eq!((told.action.as_str(), told.tls.as_str()), ("route", "none (same node) or mtls (hbone)"));
    let caller = "spiffe://cluster.local/ns/bookinfo/sa/default";
    assert_eq!(
        decisions(&told),
        [
            &format!("PeerAuthentication/istio-system/default STRICT: the caller is {caller}"),
            "AuthorizationPolicy/bookinfo/no-writes DENY: not matched",
            "AuthorizationPolicy/istio-system/tried DENY: matched by rules[0], and not enforced: DENY is a dry run",
            "AuthorizationPolicy/bookinfo/readers ALLOW: allowed by rules[0]",
        ]
    );
    let told = ask(&world, &question("PUT"));
    assert_eq!(told.action, "deny");
    assert_eq!(
        decisions(&told)[1..],
        [
            "AuthorizationPolicy/bookinfo/no-writes DENY: denied by rules[1]",
            "AuthorizationPolicy/istio-system/tried DENY: matched by rules[0], and not enforced: DENY is a dry run",
            "AuthorizationPolicy/bookinfo/readers ALLOW: not reached",
        ]
    );
    let last = told.notes.last().unwrap();
    assert_eq!(last, "403 RBAC: access denied: AuthorizationPolicy bookinfo/no-writes denies it by rules[1]");
}

#[test]
fn a_destination_rule_may_take_the_identity_away() {
    let mut world = World::of(APP);
    world.apply(POLICIES);
    world.apply(
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: plain, namespace: bookinfo}
spec: {host: ratings, trafficPolicy: {tls: {mode: DISABLE}}}
",
    );
    let request = || ExplainRequest {
        from: "productpage".into(),
        to: "ratings:9080".into(),
        ..ExplainRequest::default()
    };
    let told = ask(&world, &request());
    assert_eq!(told.action, "deny");
    assert_eq!(told.tls, "refused under STRICT (disabled by DestinationRule/bookinfo/plain)");
    world.delete("PeerAuthentication", "istio-system", "default");
    let told = ask(&world, &request());
    assert_eq!(
        (told.action.as_str(), told.tls.as_str()),
        ("deny", "disabled by DestinationRule/bookinfo/plain")
    );
    assert!(told.notes.last().unwrap().contains("none of them matches"), "{:?}", told.notes);
    world.delete("AuthorizationPolicy", "bookinfo", "readers");
    assert_eq!(ask(&world, &request()).action, "route");
}

/// `mesh: disabled` leaves a pod out.
fn far_pod(labels: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: far, namespace: bookinfo}}
spec: {{clusterIP: 10.96.0.40, selector: {{app: far}}, ports: [{{port: 9080}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: far, namespace: bookinfo, labels: {{app: far{labels}}}}}
spec: {{nodeName: n9, containers: [{{name: a}}]}}
status: {{podIP: 10.9.0.1}}
"
    )
}

#[test]
fn where_mutual_tls_is_asked_for_and_cannot_be_had_nothing_is_sent() {
    let rule = |mode: &str| {
        format!(
            "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: far, namespace: bookinfo}}
spec: {{host: far, trafficPolicy: {{tls: {{mode: {mode}}}}}}}
"
        )
    };
    let unprotected = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: far, namespace: bookinfo}
spec: {mtls: {mode: DISABLE}}
";
    let request = ExplainRequest {
        from: "productpage".into(),
        to: "http://far:9080/".into(),
        ..ExplainRequest::default()
    };
    let told = |world: &World, certificates| {
        let told = answer(&world.snapshot, &request, certificates).unwrap();
        (told.action, told.tls, told.notes.last().cloned().unwrap_or_default())
    };
    let route = |tls: &str| ("route".to_owned(), tls.to_owned());
    let taken = |(action, tls, _): (String, String, String)| (action, tls);

    // With a pod of the mesh on another node, and with or without an authority.
    let mut world = World::of(APP);
    world.apply(&far_pod(""));
    assert_eq!(taken(told(&world, true)), route("mtls (hbone)"));
    assert_eq!(taken(told(&world, false)), route("plaintext (this agent has no certificates)"));
    world.apply(&rule("ISTIO_MUTUAL"));
    assert_eq!(taken(told(&world, true)), route("mtls (hbone)"));
    let (action, _, why) = told(&world, false);
    assert_eq!(action, "deny");
    assert!(
        why.ends_with(
            "503: DestinationRule/bookinfo/far wants ISTIO_MUTUAL, and this agent has no certificates"
        ),
        "{why}"
    );

    // A DestinationRule that insists goes before a PeerAuthentication that does without; nobody is known by it there.
    world.apply(unprotected);
    assert_eq!(taken(told(&world, true)), route("mtls (hbone)"));
    let policies = answer(&world.snapshot, &request, true).unwrap().policies;
    assert_eq!(policies[0].decided, "no caller has an identity");
    world.delete("DestinationRule", "bookinfo", "far");
    assert_eq!(taken(told(&world, true)), route("plaintext (PeerAuthentication DISABLE)"));

    // With a pod outside of the mesh.
    world.apply(&far_pod(", weft.dev/mesh: disabled"));
    assert_eq!(taken(told(&world, true)), route("plaintext"));
    world.apply(&rule("ISTIO_MUTUAL"));
    let (action, tls, why) = told(&world, true);
    assert_eq!(
        (action.as_str(), tls.as_str()),
        ("deny", "none (ISTIO_MUTUAL by DestinationRule/bookinfo/far)")
    );
    assert!(
        why.ends_with("503: DestinationRule/bookinfo/far wants ISTIO_MUTUAL, and it is no pod in the mesh"),
        "{why}"
    );
    world.apply(&rule("SIMPLE"));
    assert_eq!(taken(told(&world, true)), route("tls by DestinationRule/bookinfo/far"));
}

#[test]
fn what_a_stranger_gets_is_told() {
    let mut world = World::of(APP);
    let stranger = |to: &str| ExplainRequest {
        from_address: Some("203.0.113.7".into()),
        to: to.into(),
        ..ExplainRequest::default()
    };
    let told = ask(&world, &stranger("ratings.bookinfo:9080"));
    assert_eq!((told.action.as_str(), told.tls.as_str()), ("passthrough", "plaintext"));
    assert_eq!(told.backends[0].host, "ratings.bookinfo.svc.cluster.local");
    world.apply(POLICIES);
    for to in [
        "ratings.bookinfo:9080",
        "http://ratings.bookinfo.svc.cluster.local:9080/x",
        "10.96.0.4:9080",
        "10.1.0.3:9080",
    ] {
        let told = ask(&world, &stranger(to));
        assert_eq!(told.action, "deny", "{to}");
        assert_eq!(told.tls, "refused under STRICT (plaintext)", "{to}");
        assert_eq!(
            decisions(&told),
            ["PeerAuthentication/istio-system/default STRICT: denied: the caller has no identity"]
        );
    }
    world.delete("PeerAuthentication", "istio-system", "default");
    let told = ask(&world, &stranger("ratings.bookinfo:9080"));
    assert_eq!(told.action, "deny");
    let told = ask(&world, &stranger("details.bookinfo:9080"));
    assert_eq!(told.action, "passthrough");
    assert!(ask(&world, &stranger("192.0.2.1")).notes[0].contains("no pod and no service"));
    assert_eq!(ask(&world, &stranger("details.bookinfo:81")).action, "unavailable");
    let wrong = ExplainRequest { from_address: Some("ten".into()), ..stranger("x") };
    assert!(answer(&world.snapshot, &wrong, true).is_err());
}

#[test]
fn the_node_is_let_in_where_the_pods_probes_ask_and_is_a_stranger_elsewhere() {
    let world = World::of(
        "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weft.dev/mesh: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec:
  containers:
  - name: web
    livenessProbe: {httpGet: {path: /healthz, port: 8080}}
    readinessProbe: {tcpSocket: {port: 9000}}
status: {podIP: 10.0.0.8}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nothing, namespace: shop}
spec: {}
",
    );
    let question = |to: &str| ExplainRequest { to: to.into(), ..ExplainRequest::default() };
    let node = |to: &str| answer_for_node(&world.snapshot, "10.0.0.1", &question(to)).unwrap();
    for to in ["http://10.0.0.8:8080/healthz", "10.0.0.8:9000"] {
        let told = node(to);
        assert_eq!((told.action.as_str(), told.tls.as_str()), ("passthrough", "plaintext"), "{to}: {told:?}");
        assert!(decisions(&told)[0].starts_with("Pod/shop/web PROBE: allowed"), "{told:?}");
    }
    for to in ["http://10.0.0.8:8080/", "http://10.0.0.8:8080/healthz?x", "10.0.0.8:8080", "10.0.0.8:81"] {
        let told = node(to);
        assert_eq!(told.action, "deny", "{to}: {told:?}");
    }
    let stranger =
        ExplainRequest { from_address: Some("10.0.0.1".into()), ..question("http://10.0.0.8:8080/healthz") };
    assert_eq!(ask(&world, &stranger).action, "deny", "the address alone is no proof");
}

#[test]
fn a_provider_that_is_missing_refuses() {
    let mut world = World::of(APP);
    world.apply(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: bookinfo}
spec: {action: CUSTOM, provider: {name: opa}, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: bookinfo}
spec: {jwtRules: [{issuer: one}]}
",
    );
    let question = || ExplainRequest {
        from: "productpage".into(),
        to: "http://ratings:9080/".into(),
        ..ExplainRequest::default()
    };
    let told = ask(&world, &question());
    assert_eq!(told.action, "deny");
    assert!(
        told.notes.last().unwrap().contains("none of MeshConfig's extensionProviders"),
        "{:?}",
        told.notes
    );
    world.apply(
        "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: opa
      envoyExtAuthzGrpc: {service: opa.bookinfo.svc.cluster.local, port: 9191}
",
    );
    let told = ask(&world, &question());
    assert_eq!(told.action, "route");
    assert_eq!(
        decisions(&told),
        [
            "RequestAuthentication/bookinfo/tokens JWT: takes tokens of one; none is looked at here",
            "AuthorizationPolicy/bookinfo/ask CUSTOM (opa): opa is asked by rules[0]",
        ]
    );
}
