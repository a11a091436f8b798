//! What is decided before a request was read, and of connections that carry none.

use weft_rules::guard::{ConnectionVerdict, Denial, RequestVerdict};
use weft_rules::registry::protocol::Protocol;

use super::call::{Call, WORLD, call, policy, stranger, with_guard, world};
use crate::support::World;

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
fn who_is_asked_is_told_with_the_policy_that_wants_it() {
    let custom = |name: &str, provider: &str, rules: &str| {
        policy("shop", name, &format!("{{action: CUSTOM, provider: {{name: {provider}}}, rules: {rules}}}"))
    };
    let paths = "[{to: [{operation: {paths: ['/a/*']}}]}]";
    let world = World::of(&format!("{WORLD}{}", custom("ask", "opa", paths)));
    with_guard(&world, "shop/web", |guard| {
        let call = call();
        let consult = guard.consult(&call.inbound(), &call.request()).expect("somebody to ask");
        assert_eq!((&*consult.provider, &*consult.policy), ("opa", "shop/ask"));
        assert!(call.may_request(guard));
        for protocol in [Protocol::Http, Protocol::Detect] {
            assert_eq!(call.connect(guard, protocol), ConnectionVerdict::ByRequest);
        }
        // Of bytes nobody knows a path: all of them are asked about.
        assert_eq!(call.connect(guard, Protocol::Tcp), ConnectionVerdict::Allowed);
        assert_eq!(guard.consult_connection(&call.inbound()), Some(consult));
        let mut elsewhere = call;
        elsewhere.request.uri = "/b".parse().unwrap();
        assert_eq!(guard.consult(&elsewhere.inbound(), &elsewhere.request()), None);
    });

    // Where no request can match, none is read.
    let bad = "[{from: [{source: {ipBlocks: [192.0.2.0/24]}}], to: [{operation: {paths: [/a]}}]}]";
    let world = World::of(&format!("{WORLD}{}", custom("ask", "opa", bad)));
    with_guard(&world, "shop/web", |guard| {
        assert_eq!(call().connect(guard, Protocol::Detect), ConnectionVerdict::Allowed);
        assert_eq!(guard.consult_connection(&call().inbound()), None);
    });

    // Two to ask: what either would be asked about is refused.
    let world =
        World::of(&format!("{WORLD}{}{}", custom("ask", "opa", paths), custom("too", "other", "[{}]")));
    with_guard(&world, "shop/web", |guard| {
        let denied = Denial { policy: Some("shop/ask".into()), rule: Some(0) };
        let call = call();
        assert_eq!(guard.admit_request(&call.inbound(), &call.request()), RequestVerdict::Denied(denied));
        assert_eq!(guard.consult(&call.inbound(), &call.request()), None);
    });
}
