//! Whose tokens a workload takes.

use std::collections::BTreeSet;

use weft_rules::guard::token::KeySource;
use weft_rules::guard::{ConnectionVerdict, Inbound};
use weft_rules::registry::protocol::Protocol;

use crate::support::World;

const PODS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
status: {podIP: 10.1.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: other, labels: {app: web}}
status: {podIP: 10.1.0.3}
";

fn policy(namespace: &str, name: &str, created: &str, spec: &str) -> String {
    format!(
        "
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: {created:?}}}
spec: {spec}
"
    )
}

fn issuers(world: &World, pod: &str) -> Vec<String> {
    let guard = world.snapshot.guard(&world.pod(pod));
    let rules = guard.into_iter().flat_map(|guard| guard.tokens());
    rules.map(|rule| rule.issuer.to_string()).collect()
}

#[test]
fn all_policies_that_are_for_a_workload_unite() {
    let mut world = World::of(PODS);
    assert!(issuers(&world, "shop/web").is_empty());
    world.apply(
        &[
            policy("istio-system", "mesh", "2026-03-01T00:00:00Z", "{jwtRules: [{issuer: mesh}]}"),
            policy("shop", "shop", "2026-02-01T00:00:00Z", "{jwtRules: [{issuer: a}, {issuer: b}]}"),
            policy(
                "shop",
                "web",
                "2026-01-01T00:00:00Z",
                "{selector: {matchLabels: {app: web}}, jwtRules: [{issuer: web}]}",
            ),
            policy(
                "shop",
                "behind",
                "2026-04-01T00:00:00Z",
                "{targetRefs: [{kind: Service, name: web, group: \"\"}], jwtRules: [{issuer: behind}]}",
            ),
            policy("shop", "none", "", "{}"),
        ]
        .concat(),
    );
    assert_eq!(issuers(&world, "shop/web"), ["web", "a", "b", "mesh", "behind"]);
    assert_eq!(issuers(&world, "shop/db"), ["a", "b", "mesh"]);
    assert_eq!(issuers(&world, "other/other"), ["mesh"]);
    let all: BTreeSet<&str> = world.snapshot.token_rules().map(|rule| &*rule.issuer).collect();
    assert_eq!(Vec::from_iter(all), ["a", "b", "behind", "mesh", "web"]);
    world.delete("RequestAuthentication", "shop", "shop");
    world.delete("Service", "shop", "web");
    assert_eq!(issuers(&world, "shop/web"), ["web", "mesh"]);
    world.delete("RequestAuthentication", "istio-system", "mesh");
    assert!(world.snapshot.guard(&world.pod("shop/db")).is_none());
}

#[test]
fn rules_say_where_the_keys_are_and_what_becomes_of_a_token() {
    let spec = "{jwtRules: [{issuer: 'https://issuer.example', jwksUri: 'https://issuer.example/keys', audiences: [web],
        forwardOriginalToken: true, outputPayloadToHeader: x-payload, spaceDelimitedClaims: [roles],
        outputClaimToHeaders: [{header: x-sub, claim: sub}]}, {issuer: 'https://found.example'}]}";
    let world = World::of(&format!("{PODS}{}", policy("shop", "p", "", spec)));
    let guard = world.snapshot.guard(&world.pod("shop/web")).expect("a guard");
    let [given, found] = guard.tokens() else { panic!("two rules") };
    assert_eq!(given.keys, KeySource::Uri("https://issuer.example/keys".into()));
    assert!(given.forward && !found.forward);
    assert!(given.admits_audience(["web"].into_iter()) && !given.admits_audience(["db"].into_iter()));
    assert_eq!(given.payload_header.as_ref().map(http::HeaderName::as_str), Some("x-payload"));
    assert_eq!(given.lists, ["scope", "permission", "roles"]);
    let discovered = "https://found.example/.well-known/openid-configuration";
    assert_eq!(found.keys, KeySource::Discovery(discovered.into()));
}

/// A bad token is refused, so each request is looked at; a connection of bytes has none.
#[test]
fn tokens_are_looked_for_in_requests_only() {
    let world = World::of(&format!("{PODS}{}", policy("shop", "p", "", "{jwtRules: [{issuer: a}]}")));
    let guard = world.snapshot.guard(&world.pod("shop/web")).expect("a guard");
    let to = "10.1.0.1:80".parse().unwrap();
    let inbound = Inbound { identity: None, peer: "10.1.0.9".parse().unwrap(), to, sni: None };
    assert_eq!(guard.admit_connection(&inbound, Protocol::Http), ConnectionVerdict::ByRequest);
    assert_eq!(guard.admit_connection(&inbound, Protocol::Detect), ConnectionVerdict::ByRequest);
    assert_eq!(guard.admit_connection(&inbound, Protocol::Tcp), ConnectionVerdict::Allowed);
}
