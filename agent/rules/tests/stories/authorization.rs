//! Who may talk to a workload.

use std::net::IpAddr;

use weft_rules::guard::{Claims, ConnectionVerdict, Denial, Guard, Inbound, InboundRequest, RequestVerdict};
use weft_rules::identity::Identity;
use weft_rules::snapshot::Protocol;

use crate::support::World;

const WORLD: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp-db, port: 90, targetPort: db}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: web, containers: [{name: c, ports: [{name: db, containerPort: 9090}]}]}
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: shop, labels: {app: web}}
spec: {nodeName: n2}
status: {podIP: 10.2.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: other, labels: {app: web}}
status: {podIP: 10.1.0.2}
";

fn policy(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"
    )
}

/// A caller, and what it sends.
struct Call {
    identity: Option<Identity>,
    peer: IpAddr,
    to: &'static str,
    sni: Option<&'static str>,
    request: http::request::Parts,
    remote: IpAddr,
    claims: Option<Claims>,
}

/// Frontend calls `GET http://web/a/b?c=d` with a header and a token.
fn call() -> Call {
    let request = http::Request::get("/a/b?c=d")
        .header("host", "Web.shop:8080")
        .header("x-role", "admin")
        .header("x-empty", "");
    let claims = serde_json::json!({
        "iss": "https://issuer.example", "sub": "jane", "aud": ["web", "api"], "azp": "app",
        "groups": ["staff", "dev"], "realm": {"roles": ["reader"]}, "level": 3,
    });
    let serde_json::Value::Object(all) = claims else { unreachable!() };
    Call {
        identity: Identity::parse("spiffe://cluster.local/ns/shop/sa/frontend"),
        peer: "10.1.0.9".parse().unwrap(),
        to: "10.1.0.1:8080",
        sni: Some("web.shop"),
        request: request.body(()).unwrap().into_parts().0,
        remote: "203.0.113.7".parse().unwrap(),
        claims: Some(Claims {
            issuer: "https://issuer.example".into(),
            principal: "https://issuer.example/jane".into(),
            all,
        }),
    }
}

/// The same without any proof of who calls, and without a token.
fn stranger() -> Call {
    Call { identity: None, claims: None, sni: None, ..call() }
}

impl Call {
    fn inbound(&self) -> Inbound<'_> {
        Inbound {
            identity: self.identity.as_ref(),
            peer: self.peer,
            to: self.to.parse().unwrap(),
            sni: self.sni,
        }
    }

    fn request(&self) -> InboundRequest<'_> {
        InboundRequest { head: &self.request, remote: self.remote, claims: self.claims.as_ref() }
    }

    fn may_request(&self, guard: &Guard) -> bool {
        guard.admit_request(&self.inbound(), &self.request()) == RequestVerdict::Allowed
    }

    fn connect(&self, guard: &Guard, protocol: Protocol) -> ConnectionVerdict {
        guard.admit_connection(&self.inbound(), protocol)
    }
}

/// A world with one policy for the web pod.
fn world(action: &str, rules: &str) -> World {
    World::of(&format!("{WORLD}{}", policy("shop", "p", &format!("{{action: {action}, rules: {rules}}}"))))
}

fn with_guard<T>(world: &World, pod: &str, ask: impl FnOnce(&Guard) -> T) -> T {
    ask(world.snapshot.guard(&world.pod(pod)).expect("a guard"))
}

/// Checks a rule by ALLOW and by DENY: the one lets pass what the other refuses, and what is known before a request
/// was read never contradicts what is known after.
fn assert_rule(rule: &str, call: &Call, matches: bool) {
    for (action, expected) in [("ALLOW", matches), ("DENY", !matches)] {
        with_guard(&world(action, &format!("[{rule}]")), "shop/web", |guard| {
            assert_eq!(call.may_request(guard), expected, "{action} {rule}");
            match call.connect(guard, Protocol::Http) {
                ConnectionVerdict::Allowed => assert!(expected, "{action} {rule}"),
                ConnectionVerdict::Denied(_) => assert!(!expected, "{action} {rule}"),
                ConnectionVerdict::ByRequest => {}
            }
        });
    }
}

fn from(source: &str) -> String {
    format!("{{from: [{{source: {{{source}}}}}]}}")
}

fn to(operation: &str) -> String {
    format!("{{to: [{{operation: {{{operation}}}}}]}}")
}

fn when(key: &str, values: &str) -> String {
    format!("{{when: [{{key: '{key}', {values}}}]}}")
}

#[test]
fn callers_are_told_by_their_identity() {
    for (source, known, unknown) in [
        ("principals: [cluster.local/ns/shop/sa/frontend]", true, false),
        ("principals: [cluster.local/ns/shop/sa/front]", false, false),
        ("principals: [cluster.local/ns/shop/*]", true, false),
        ("principals: ['*/sa/frontend']", true, false),
        ("principals: ['*/ns/shop/sa/frontend']", true, false),
        ("principals: ['*']", true, false),
        ("principals: [other/ns/shop/sa/frontend]", false, false),
        ("principals: [x, 'cluster.local/*']", true, false),
        ("notPrincipals: [cluster.local/ns/shop/sa/frontend]", false, true),
        ("notPrincipals: ['*']", false, true),
        ("notPrincipals: [x]", true, true),
        ("namespaces: [shop]", true, false),
        ("namespaces: [sho]", false, false),
        ("namespaces: ['sh*']", true, false),
        ("namespaces: ['s*p']", true, false),
        ("namespaces: ['*']", true, false),
        ("notNamespaces: [shop]", false, true),
        ("notNamespaces: [other]", true, true),
        ("serviceAccounts: [frontend]", true, false),
        ("serviceAccounts: [shop/frontend]", true, false),
        ("serviceAccounts: [other/frontend]", false, false),
        ("notServiceAccounts: [frontend]", false, true),
        ("notServiceAccounts: [backend]", true, true),
        ("trustDomains: [cluster.local]", true, false),
        ("trustDomains: [other]", false, false),
        ("trustDomains: ['*.local']", true, false),
        ("notTrustDomains: [cluster.local]", false, true),
        ("notTrustDomains: [other]", true, true),
        ("namespaces: [shop], principals: [x]", false, false),
        ("namespaces: [shop], notPrincipals: [x]", true, false),
    ] {
        assert_rule(&from(source), &call(), known);
        assert_rule(&from(source), &stranger(), unknown);
    }
    for (key, value, known, unknown) in [
        ("source.principal", "cluster.local/ns/shop/sa/frontend", true, false),
        ("source.principal", "*", true, false),
        ("source.namespace", "shop", true, false),
        ("source.serviceAccount", "frontend", true, false),
        ("source.serviceAccount", "other/frontend", false, false),
        ("source.trustDomain", "cluster.local", true, false),
    ] {
        assert_rule(&when(key, &format!("values: ['{value}']")), &call(), known);
        assert_rule(&when(key, &format!("values: ['{value}']")), &stranger(), unknown);
        assert_rule(&when(key, &format!("notValues: ['{value}']")), &call(), !known);
        assert_rule(&when(key, &format!("notValues: ['{value}']")), &stranger(), true);
    }
}

#[test]
fn connections_are_told_by_addresses_ports_and_names() {
    for (rule, expected) in [
        (from("ipBlocks: [10.1.0.9]"), true),
        (from("ipBlocks: [10.1.0.0/24]"), true),
        (from("ipBlocks: [10.1.0.10, 'fd00::/8']"), false),
        (from("ipBlocks: ['::ffff:10.1.0.9']"), true),
        (from("notIpBlocks: [10.1.0.0/16]"), false),
        (from("ipBlocks: [10.0.0.0/8], notIpBlocks: [10.1.0.9]"), false),
        (from("remoteIpBlocks: [203.0.113.0/24]"), true),
        (from("remoteIpBlocks: [10.1.0.9]"), false),
        (from("notRemoteIpBlocks: [203.0.113.7]"), false),
        (when("source.ip", "values: [10.1.0.0/24]"), true),
        (when("source.ip", "notValues: [10.1.0.0/24]"), false),
        (when("remote.ip", "values: [203.0.113.7]"), true),
        (when("destination.ip", "values: [10.1.0.0/30]"), true),
        (when("destination.ip", "notValues: [10.1.0.1]"), false),
        (when("destination.port", "values: ['8080']"), true),
        (when("destination.port", "values: ['80']"), false),
        (when("destination.port", "notValues: ['80']"), true),
        (when("connection.sni", "values: [web.shop]"), true),
        (when("connection.sni", "values: ['*.shop']"), true),
        (when("connection.sni", "values: [other]"), false),
        (when("experimental.envoy.filters.network.mysql_proxy[db.table]", "values: ['[update]']"), false),
        (when("experimental.envoy.filters.a[b]", "notValues: ['x']"), true),
        (to("ports: ['8080']"), true),
        (to("ports: ['80', '90']"), false),
        (to("notPorts: ['8080']"), false),
    ] {
        assert_rule(&rule, &call(), expected);
    }
    assert_rule(&when("connection.sni", "values: ['*']"), &stranger(), false);
    let mapped = Call { peer: "::ffff:10.1.0.9".parse().unwrap(), ..call() };
    assert_rule(&from("ipBlocks: [10.1.0.9]"), &mapped, true);
}

#[test]
fn requests_are_told_by_what_they_ask_for() {
    for (rule, expected) in [
        (to("methods: [GET]"), true),
        (to("methods: [get]"), false),
        (to("methods: ['P*', 'G*']"), true),
        (to("notMethods: [GET]"), false),
        (to("paths: [/a/b]"), true),
        (to("paths: ['/a/b?c=d']"), false),
        (to("paths: ['/a*']"), true),
        (to("paths: ['*/b']"), true),
        (to("paths: ['/{*}/b']"), true),
        (to("paths: ['/{**}']"), true),
        (to("paths: ['/a/{*}/b']"), false),
        (to("notPaths: ['/a/*']"), false),
        (to("notPaths: ['/a/{*}']"), false),
        (to("hosts: ['web.shop:8080']"), true),
        (to("hosts: [web.shop]"), false),
        (to("hosts: ['WEB.*']"), true),
        (to("hosts: ['*:8080']"), true),
        (to("notHosts: ['web.shop:8080']"), false),
        (to("methods: [GET], paths: [/x]"), false),
        (when("request.headers[X-Role]", "values: [admin]"), true),
        (when("request.headers[x-role]", "values: [Admin]"), false),
        (when("request.headers[x-role]", "values: ['*']"), true),
        (when("request.headers[x-empty]", "values: ['*']"), true),
        (when("request.headers[x-none]", "values: ['*']"), false),
        (when("request.headers[x-none]", "notValues: [a]"), true),
        (when("request.headers[x-role]", "notValues: ['ad*']"), false),
        (when("request.headers[:authority]", "values: ['Web.shop:8080']"), true),
        (when("request.headers[Host]", "values: ['web.shop:8080']"), false),
        (when("request.headers[:method]", "values: [GET]"), true),
        (when("request.headers[:path]", "values: ['/a/b?c=d']"), true),
    ] {
        assert_rule(&rule, &call(), expected);
    }
}

#[test]
fn requests_are_told_by_their_tokens() {
    for (rule, expected) in [
        (from("requestPrincipals: ['https://issuer.example/jane']"), true),
        (from("requestPrincipals: ['https://issuer.example/*']"), true),
        (from("requestPrincipals: ['*/jane']"), true),
        (from("requestPrincipals: ['*']"), true),
        (from("requestPrincipals: [jane]"), false),
        (when("request.auth.principal", "values: ['*/jane']"), true),
        (when("request.auth.audiences", "values: [api]"), true),
        (when("request.auth.audiences", "values: [other]"), false),
        (when("request.auth.presenter", "values: [app]"), true),
        (when("request.auth.claims[iss]", "values: ['https://*']"), true),
        (when("request.auth.claims[groups]", "values: [dev]"), true),
        (when("request.auth.claims[groups]", "values: ['d*']"), true),
        (when("request.auth.claims[groups]", "values: [ops]"), false),
        (when("request.auth.claims[realm][roles]", "values: [reader]"), true),
        (when("request.auth.claims[realm][none]", "values: ['*']"), false),
        (when("request.auth.claims[realm]", "values: ['*']"), false),
        (when("request.auth.claims[level]", "values: ['3']"), false),
    ] {
        assert_rule(&rule, &call(), expected);
        assert_rule(&rule, &stranger(), false);
    }
    assert_rule(&from("notRequestPrincipals: ['*']"), &call(), false);
    assert_rule(&from("notRequestPrincipals: ['*']"), &stranger(), true);
    assert_rule(&when("request.auth.claims[groups]", "notValues: [ops]"), &call(), true);
    assert_rule(&when("request.auth.claims[groups]", "notValues: [dev]"), &stranger(), true);
}

#[test]
fn the_parts_of_a_rule_must_agree() {
    let both = "{from: [{source: {namespaces: [x]}}, {source: {namespaces: [shop]}}], to: [{operation: {methods: [PUT]}}, {operation: {methods: [GET]}}], when: [{key: source.ip, values: [10.1.0.9]}]}";
    assert_rule(both, &call(), true);
    assert_rule(&both.replace("[shop]", "[y]"), &call(), false);
    assert_rule(&both.replace("[GET]", "[POST]"), &call(), false);
    assert_rule(&both.replace("10.1.0.9", "10.1.0.8"), &call(), false);
    assert_rule("{}", &call(), true);
    assert_rule("{}", &stranger(), true);
}

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
        assert!(!call().may_request(guard))
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
fn a_connection_of_bytes_knows_no_requests() {
    // (rule, matches under ALLOW, matches under DENY)
    for (rule, allow, deny) in [
        ("{to: [{operation: {methods: [PUT]}}]}", false, true),
        ("{to: [{operation: {notPaths: [/x]}}]}", false, true),
        ("{from: [{source: {namespaces: [shop]}}]}", true, true),
        ("{from: [{source: {namespaces: [shop], requestPrincipals: [x]}}]}", false, true),
        ("{from: [{source: {namespaces: [other], requestPrincipals: [x]}}]}", false, false),
        ("{to: [{operation: {ports: ['9090'], hosts: [x]}}]}", false, true),
        ("{to: [{operation: {ports: ['9091'], hosts: [x]}}]}", false, false),
        ("{to: [{operation: {ports: ['9090']}}, {operation: {methods: [GET]}}]}", false, true),
        ("{when: [{key: 'request.headers[a]', values: [b]}]}", false, true),
        ("{when: [{key: 'request.auth.claims[a]', notValues: [b]}]}", false, true),
        ("{from: [{source: {remoteIpBlocks: [10.1.0.9]}}]}", true, true),
        ("{from: [{source: {remoteIpBlocks: [203.0.113.7]}}]}", false, false),
        ("{}", true, true),
    ] {
        let call = Call { to: "10.1.0.1:9090", ..call() };
        for (action, allowed) in [("ALLOW", allow), ("DENY", !deny)] {
            with_guard(&world(action, &format!("[{rule}]")), "shop/web", |guard| {
                let verdict = call.connect(guard, Protocol::Tcp);
                assert_eq!(verdict == ConnectionVerdict::Allowed, allowed, "{action} {rule}: {verdict:?}");
                assert_ne!(verdict, ConnectionVerdict::ByRequest);
            });
        }
    }
}

#[test]
fn requests_are_read_only_where_they_can_change_the_outcome() {
    use Protocol::{Detect, Http, Tcp};
    let denied = |policy: Option<&str>, rule: Option<usize>| {
        ConnectionVerdict::Denied(Denial { policy: policy.map(Into::into), rule })
    };
    let (allowed, open) = (|| ConnectionVerdict::Allowed, || ConnectionVerdict::ByRequest);
    let get = "{to: [{operation: {methods: [GET]}}]}";
    let shop = "{from: [{source: {namespaces: [shop]}}]}";
    let shop_gets = "{from: [{source: {namespaces: [shop]}}], to: [{operation: {methods: [GET]}}]}";
    for (action, rules, call, protocol, expected) in [
        ("ALLOW", shop, call(), Http, allowed()),
        ("ALLOW", shop, call(), Detect, allowed()),
        ("ALLOW", shop, stranger(), Http, denied(None, None)),
        ("ALLOW", shop, stranger(), Detect, denied(None, None)),
        ("ALLOW", get, call(), Http, open()),
        ("ALLOW", get, call(), Detect, open()),
        ("ALLOW", get, call(), Tcp, denied(None, None)),
        ("ALLOW", shop_gets, stranger(), Http, denied(None, None)),
        ("ALLOW", shop_gets, call(), Http, open()),
        ("ALLOW", &format!("{get}, {shop}"), call(), Http, allowed()),
        ("DENY", shop, call(), Http, denied(Some("shop/p"), Some(0))),
        ("DENY", shop, stranger(), Http, allowed()),
        ("DENY", get, call(), Http, open()),
        ("DENY", get, call(), Detect, open()),
        ("DENY", get, call(), Tcp, denied(Some("shop/p"), Some(0))),
        ("DENY", shop_gets, stranger(), Detect, allowed()),
        ("DENY", &format!("{get}, {shop}"), call(), Detect, denied(Some("shop/p"), Some(1))),
    ] {
        with_guard(&world(action, &format!("[{rules}]")), "shop/web", |guard| {
            assert_eq!(call.connect(guard, protocol), expected, "{action} {rules} {protocol:?}");
        });
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
