//! Whatever the policies: what is said of a connection holds for its requests.

use proptest::prelude::*;
use weft_rules::guard::ConnectionVerdict;
use weft_rules::registry::protocol::Protocol;

use super::call::{Call, WORLD, call, policy, stranger};
use crate::support::World;

/// Rules out of few parts, so that they meet often.
fn any_rule() -> impl Strategy<Value = String> {
    let source = prop::sample::select(vec![
        "",
        "namespaces: [shop]",
        "notNamespaces: [shop]",
        "principals: ['*']",
        "notPrincipals: ['*/sa/frontend']",
        "requestPrincipals: ['*/jane']",
        "notRequestPrincipals: ['*']",
        "ipBlocks: [10.1.0.0/16]",
        "remoteIpBlocks: [10.1.0.9]",
        "notRemoteIpBlocks: [203.0.113.0/24]",
    ]);
    let operation = prop::sample::select(vec![
        "",
        "methods: [GET]",
        "notMethods: [GET]",
        "paths: [/a/*], ports: ['8080']",
        "notPaths: [/a/b]",
        "ports: ['8080']",
        "notPorts: ['8080']",
        "hosts: ['web.*']",
    ]);
    let condition = prop::sample::select(vec![
        "",
        "{key: 'request.headers[x-role]', values: [admin]}",
        "{key: 'request.headers[x-role]', notValues: [admin]}",
        "{key: 'request.auth.claims[groups]', values: [dev]}",
        "{key: source.namespace, values: [shop]}",
        "{key: destination.port, notValues: ['9090']}",
    ]);
    (prop::collection::vec(source, 0..3), prop::collection::vec(operation, 0..3), condition).prop_map(
        |(sources, operations, condition)| {
            let list = |name: &str, wrap: &str, parts: &[&str]| {
                let parts: Vec<String> = parts
                    .iter()
                    .filter(|part| !part.is_empty())
                    .map(|part| format!("{{{wrap}: {{{part}}}}}"))
                    .collect();
                (!parts.is_empty()).then(|| format!("{name}: [{}]", parts.join(", ")))
            };
            let when = (!condition.is_empty()).then(|| format!("when: [{condition}]"));
            let fields = [list("from", "source", &sources), list("to", "operation", &operations), when];
            format!("{{{}}}", fields.into_iter().flatten().collect::<Vec<_>>().join(", "))
        },
    )
}

fn any_policies() -> impl Strategy<Value = String> {
    let action = prop::sample::select(vec!["ALLOW", "DENY"]);
    let one = (action, prop::collection::vec(any_rule(), 1..3));
    prop::collection::vec(one, 1..4).prop_map(|all| {
        let text = |(index, (action, rules)): (usize, &(&str, Vec<String>))| {
            let spec = format!("{{action: {action}, rules: [{}]}}", rules.join(", "));
            policy("shop", &format!("p{index}"), &spec)
        };
        all.iter().enumerate().map(text).collect()
    })
}

fn any_call() -> impl Strategy<Value = Call> {
    let port = prop::sample::select(vec!["10.1.0.1:8080", "10.1.0.1:9090"]);
    (any::<[bool; 5]>(), port).prop_map(|([known, token, get, admin, near], to)| {
        let mut call = if known { call() } else { stranger() };
        call.to = to;
        if !token {
            call.claims = None;
        }
        if !get {
            call.request.method = http::Method::PUT;
            call.request.uri = "/b".parse().unwrap();
        }
        if !admin {
            call.request.headers.remove("x-role");
        }
        if near {
            call.remote = call.peer;
        }
        call
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// What is said of a connection holds for whatever request comes on it.
    #[test]
    fn connections_and_requests_never_contradict(
        policies in any_policies(),
        calls in prop::collection::vec(any_call(), 1..8),
    ) {
        let world = World::of(&format!("{WORLD}{policies}"));
        let guard = world.snapshot.guard(&world.pod("shop/web")).expect("a guard");
        for call in &calls {
            let may = call.may_request(guard);
            for protocol in [Protocol::Http, Protocol::Http2, Protocol::Detect] {
                match call.connect(guard, protocol) {
                    ConnectionVerdict::Allowed => prop_assert!(may, "{policies}"),
                    ConnectionVerdict::Denied(_) => prop_assert!(!may, "{policies}"),
                    ConnectionVerdict::ByRequest => {}
                }
            }
            let bytes = call.connect(guard, Protocol::Tcp);
            prop_assert_ne!(&bytes, &ConnectionVerdict::ByRequest);
            match call.connect(guard, Protocol::Detect) {
                ConnectionVerdict::ByRequest => {}
                // Nobody reads what it speaks: it must not matter.
                ConnectionVerdict::Allowed => prop_assert_eq!(bytes, ConnectionVerdict::Allowed),
                ConnectionVerdict::Denied(_) => prop_assert_ne!(bytes, ConnectionVerdict::Allowed),
            }
        }
    }
}
