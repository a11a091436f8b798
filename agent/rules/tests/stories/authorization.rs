//! Who may talk to a workload.

use weft_api::identity::Identity;
use weft_rules::guard::{ConnectionVerdict, Denial, RequestVerdict};
use weft_rules::registry::protocol::Protocol;

use crate::support::World;

mod agreement;
mod call;
mod connection;
mod dry_run;
mod rule;

use call::{Call, WORLD, call, from, policy, stranger, with_guard, world};

#[test]
fn deny_then_allow_then_nothing() {
    let deny = policy(
        "shop",
        "deny",
        "{action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}, {from: [{source: {namespaces: [bad]}}]}]}",
    );
    let allow = policy("shop", "allow", "{rules: [{from: [{source: {namespaces: [shop, bad]}}]}]}");
    let nothing = policy("shop", "nothing", "{}");
    let put = || {
        let mut call = call();
        call.request.method = http::Method::PUT;
        call
    };
    let denied =
        |policy: Option<&str>, rule| RequestVerdict::Denied(Denial { policy: policy.map(Into::into), rule });
    let bad = || Call { identity: Identity::parse("spiffe://cluster.local/ns/bad/sa/x"), ..call() };
    for (policies, call, expected) in [
        (deny.clone(), call(), RequestVerdict::Allowed),
        (deny.clone(), put(), denied(Some("shop/deny"), Some(0))),
        (deny.clone(), bad(), denied(Some("shop/deny"), Some(1))),
        (allow.clone(), call(), RequestVerdict::Allowed),
        (allow.clone(), bad(), RequestVerdict::Allowed),
        (allow.clone(), stranger(), denied(None, None)),
        (format!("{deny}{allow}"), bad(), denied(Some("shop/deny"), Some(1))),
        (format!("{deny}{allow}"), stranger(), denied(None, None)),
        (nothing.clone(), call(), denied(None, None)),
        (format!("{nothing}{allow}"), call(), RequestVerdict::Allowed),
    ] {
        let world = World::of(&format!("{WORLD}{policies}"));
        with_guard(&world, "shop/web", |guard| {
            assert_eq!(guard.admit_request(&call.inbound(), &call.request()), expected, "{policies}");
        });
    }
}

#[test]
fn policies_that_decide_nothing_are_none() {
    for (annotation, action) in [
        ("istio.io/dry-run: 'true'", "DENY"),
        ("istio.io/dry-run: 'true'", "ALLOW"),
        ("istio.io/dry-run: 'T'", "DENY"),
        ("other: x", "AUDIT"),
    ] {
        let text = policy("shop", "p", &format!("{{action: {action}, rules: [{{}}]}}"))
            .replace("namespace: shop", &format!("namespace: shop, annotations: {{{annotation}}}"));
        let world = World::of(&format!("{WORLD}{text}"));
        assert!(world.snapshot.guard(&world.pod("shop/web")).is_none(), "{annotation} {action}");
    }
    let text = policy("shop", "p", "{action: DENY, rules: [{}]}")
        .replace("namespace: shop", "namespace: shop, annotations: {istio.io/dry-run: 'yes'}");
    with_guard(&World::of(&format!("{WORLD}{text}")), "shop/web", |guard| {
        assert!(!call().may_request(guard));
    });
}

#[test]
fn scopes_are_selectors_namespaces_and_the_mesh() {
    let deny = |namespace: &str, rest: &str| {
        policy(namespace, "p", &format!("{{action: DENY, rules: [{{}}], {rest}}}"))
    };
    for (policy, web, other) in [
        (deny("shop", ""), true, false),
        (deny("other", ""), false, true),
        (deny("istio-system", ""), true, true),
        (deny("shop", "selector: {matchLabels: {app: web}}"), true, false),
        (deny("shop", "selector: {matchLabels: {app: db}}"), false, false),
        (deny("istio-system", "selector: {matchLabels: {app: web}}"), true, true),
        (deny("istio-system", "selector: {matchLabels: {app: db}}"), false, false),
        (deny("shop", "targetRefs: [{kind: Service, name: web, group: ''}]"), true, false),
        (deny("shop", "targetRefs: [{kind: Service, name: web}]"), true, false),
        (deny("shop", "targetRefs: [{kind: Service, name: db}]"), false, false),
        (deny("shop", "targetRef: {kind: Service, name: web}"), true, false),
        (
            deny("shop", "targetRefs: [{kind: Gateway, name: web, group: gateway.networking.k8s.io}]"),
            false,
            false,
        ),
        (
            deny("shop", "targetRefs: [{kind: ServiceEntry, name: web, group: networking.istio.io}]"),
            false,
            false,
        ),
        (deny("other", "targetRefs: [{kind: Service, name: web}]"), false, false),
    ] {
        let world = World::of(&format!("{WORLD}{policy}"));
        let guarded = |pod: &str| world.snapshot.guard(&world.pod(pod)).is_some();
        assert_eq!((guarded("shop/web"), guarded("other/other")), (web, other), "{policy}");
    }
}

#[test]
fn a_trust_domain_has_aliases() {
    let mesh = |text: &str| {
        format!(
            "
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data: {{mesh: '{text}'}}
"
        )
    };
    let former = || Call { identity: Identity::parse("spiffe://old.example/ns/shop/sa/frontend"), ..call() };
    for (source, own_before, old_before, own_after, old_after) in [
        ("principals: [cluster.local/ns/shop/sa/frontend]", true, false, true, true),
        ("principals: [old.example/ns/shop/sa/frontend]", false, true, true, true),
        ("principals: ['*/ns/shop/sa/frontend']", true, true, true, true),
        ("principals: [third/ns/shop/sa/frontend]", false, false, false, false),
        ("trustDomains: [old.example]", false, true, true, true),
        ("trustDomains: [third]", false, false, false, false),
    ] {
        let mut world = world("ALLOW", &format!("[{}]", from(source)));
        let may = |world: &World, call: Call| with_guard(world, "shop/web", |guard| call.may_request(guard));
        assert_eq!((may(&world, call()), may(&world, former())), (own_before, old_before), "{source}");
        world.apply(&mesh("trustDomainAliases: [old.example]"));
        assert_eq!((may(&world, call()), may(&world, former())), (own_after, old_after), "{source}");
        let domains: Vec<&str> = world.snapshot.trust_domains().iter().map(|domain| &**domain).collect();
        assert_eq!(domains, ["cluster.local", "old.example"]);
        world.delete("ConfigMap", "istio-system", "istio");
        assert_eq!((may(&world, call()), may(&world, former())), (own_before, old_before), "{source}");
    }
}

#[test]
fn a_workloads_ports_speak_what_its_services_say() {
    let mut world = World::of(WORLD);
    let protocol = |world: &World, port| world.snapshot.inbound_protocol(&world.pod("shop/web"), port);
    assert_eq!(protocol(&world, 8080), Protocol::Http);
    assert_eq!(protocol(&world, 9090), Protocol::Tcp);
    assert_eq!(protocol(&world, 80), Protocol::Detect);
    // A second service agrees on one port, and not on the other.
    world.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: more, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http-a, port: 1, targetPort: 8080}, {name: http-b, port: 2, targetPort: 9090}]}
",
    );
    assert_eq!((protocol(&world, 8080), protocol(&world, 9090)), (Protocol::Http, Protocol::Detect));
    world.delete("Service", "shop", "more");
    assert_eq!(protocol(&world, 9090), Protocol::Tcp);
    // One without selector, whose endpoints are listed.
    world.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: listed, namespace: shop}
spec: {ports: [{name: grpc, port: 3}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: listed-1, namespace: shop, labels: {kubernetes.io/service-name: listed}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1]}]
ports: [{name: grpc, port: 7000}]
",
    );
    assert_eq!(protocol(&world, 7000), Protocol::Http2);
    world.delete("EndpointSlice", "shop", "listed-1");
    assert_eq!(protocol(&world, 7000), Protocol::Detect);
}

#[test]
fn what_changes_is_in_force_and_the_rest_stays() {
    let mut world = World::of(&format!("{WORLD}{}", policy("shop", "p", "{action: DENY, rules: [{}]}")));
    let before = world.snapshot.guard(&world.pod("shop/web")).cloned().expect("a guard");
    world.apply(&policy("other", "q", "{action: DENY, rules: [{}]}"));
    let after = world.snapshot.guard(&world.pod("shop/web")).cloned().expect("a guard");
    assert!(std::sync::Arc::ptr_eq(&before, &after));
    world.apply(&policy(
        "shop",
        "unused",
        "{selector: {matchLabels: {app: nobody}}, action: DENY, rules: [{}]}",
    ));
    let after = world.snapshot.guard(&world.pod("shop/web")).cloned().expect("a guard");
    assert!(std::sync::Arc::ptr_eq(&before, &after), "a policy of the namespace that is for others");
    world.apply(&policy("shop", "p", "{action: DENY, rules: [{from: [{source: {namespaces: [bad]}}]}]}"));
    with_guard(&world, "shop/web", |guard| assert!(call().may_request(guard)));
    world.delete("AuthorizationPolicy", "shop", "p");
    assert!(world.snapshot.guard(&world.pod("shop/web")).is_none());
    assert!(world.snapshot.guard(&world.pod("other/other")).is_some());
}

#[test]
fn a_workload_that_is_not_known_here_lets_nothing_in() {
    let mut world = World::of(WORLD);
    let web = world.pod("shop/web");
    assert!(world.snapshot.guard(&web).is_none());
    with_guard(&world, "shop/far", |guard| assert!(!call().may_request(guard)));
    world.delete("Pod", "shop", "web");
    let guard = world.snapshot.guard(&web).expect("a guard");
    assert!(!call().may_request(guard));
    for protocol in [Protocol::Http, Protocol::Detect, Protocol::Tcp] {
        let verdict = call().connect(guard, protocol);
        assert!(matches!(verdict, ConnectionVerdict::Denied(_)), "{protocol:?}: {verdict:?}");
    }
}

/// One of them is about to go, and nobody knows which: both are behind the Service that lists their address.
#[test]
fn pods_that_claim_one_address_are_guarded_alike() {
    let mut world = World::of(&format!(
        "{WORLD}{}",
        policy(
            "shop",
            "p",
            "{action: DENY, rules: [{}], targetRefs: [{kind: Service, name: listed, group: ''}]}"
        )
    ));
    world.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: listed, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: younger, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
status: {podIP: 10.1.0.1}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: listed-1, namespace: shop, labels: {kubernetes.io/service-name: listed}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1]}]
ports: [{name: http, port: 80}]
",
    );
    for pod in ["shop/web", "shop/younger"] {
        with_guard(&world, pod, |guard| assert!(!call().may_request(guard), "{pod}"));
    }
    world.delete("EndpointSlice", "shop", "listed-1");
    for pod in ["shop/web", "shop/younger"] {
        assert!(world.snapshot.guard(&world.pod(pod)).is_none(), "{pod}");
    }
}
