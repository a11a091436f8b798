//! What a rule matches: every field and key, under ALLOW and under DENY.

use weft_rules::guard::ConnectionVerdict;
use weft_rules::registry::protocol::Protocol;

use super::call::{Call, call, from, stranger, to, when, with_guard, world};

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
        (from("ipBlocks: ['::ffff:10.1.0.0/120']"), true),
        (from("ipBlocks: ['::/0']"), false),
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
        (when("request.headers[:scheme]", "values: [http]"), true),
        (when("request.headers[:scheme]", "values: [https]"), false),
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
fn each_line_of_a_header_is_a_value() {
    for (lines, values, expected) in [
        (&["member", "guest"][..], "values: [guest]", true),
        (&["guest", "member"], "values: [guest]", true),
        (&["member", "guest"], "values: [admin]", false),
        (&["member,guest"], "values: [guest]", false),
        (&["member,guest"], "values: ['member,guest']", true),
        (&["member", "guest"], "values: ['member,guest']", false),
        (&["member", "guest"], "values: ['gu*']", true),
        (&["member", "guest"], "values: ['*ber']", true),
        (&["", "guest"], "values: [guest]", true),
        (&["member", "guest"], "values: ['*']", true),
        (&["member", "guest"], "notValues: [guest]", false),
        (&["member", "guest"], "notValues: [admin]", true),
        (&["member", "guest"], "values: [member], notValues: [guest]", false),
        (&[], "values: [guest]", false),
        (&[], "notValues: [guest]", true),
    ] {
        let mut call = call();
        for line in lines {
            call.request.headers.append("x-lines", line.parse().unwrap());
        }
        assert_rule(&when("request.headers[x-lines]", values), &call, expected);
    }
}

#[test]
fn a_cookie_is_one_value_however_the_client_cuts_it_up() {
    for (lines, values, expected) in [
        (&["a=1; role=guest; b=2"][..], "values: ['a=1; role=guest; b=2']", true),
        (&["a=1", "role=guest", "b=2"], "values: ['a=1; role=guest; b=2']", true),
        (&["a=1", "role=guest"], "values: ['*role=guest']", true),
        (&["a=1", "role=guest"], "values: [role=guest]", false),
    ] {
        let mut call = call();
        for line in lines {
            call.request.headers.append("cookie", line.parse().unwrap());
        }
        assert_rule(&when("request.headers[cookie]", values), &call, expected);
    }
}
