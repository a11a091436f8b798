//! Which DestinationRule a caller falls under, and what comes of it.

use std::time::Duration;

use weft_rules::route::http_route::Destination;
use weft_rules::snapshot::Unroutable;
use weft_rules::upstream::cluster::{Balance, Cluster};

use crate::support::{World, short};

const APP: &str = include_str!("bookinfo.yaml");
const HOST: &str = "reviews.bookinfo.svc.cluster.local";
const CALLER: &str = "bookinfo/productpage-v1";

fn world() -> World {
    let mut world = World::of(APP);
    world.delete("DestinationRule", "bookinfo", "reviews");
    world.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: other, labels: {app: client, tier: gold}}
status: {podIP: 10.1.1.1}
---
apiVersion: v1
kind: Pod
metadata: {name: root, namespace: istio-system}
status: {podIP: 10.1.2.1}
",
    );
    world
}

fn rule(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"
    )
}

fn simple(name: &str, namespace: &str, host: &str, balance: &str, rest: &str) -> String {
    let spec = format!("{{host: '{host}', {rest} trafficPolicy: {{loadBalancer: {{simple: {balance}}}}}}}");
    rule(name, namespace, &spec)
}

fn cluster(world: &World, from: &str, subset: Option<&str>) -> Result<std::sync::Arc<Cluster>, Unroutable> {
    let destination = Destination { host: HOST.into(), subset: subset.map(Into::into), port: None };
    world.snapshot.cluster(&world.pod(from), &destination, 9080)
}

fn balance(world: &World, from: &str) -> Balance {
    cluster(world, from, None).unwrap().balance
}

#[test]
fn the_callers_namespace_then_the_services_then_the_root() {
    let mut world = world();
    assert_eq!(balance(&world, "other/client"), Balance::LeastRequest);
    world.apply(&simple("everywhere", "istio-system", "*.local", "RANDOM", ""));
    assert_eq!(balance(&world, "other/client"), Balance::Random);
    assert_eq!(balance(&world, CALLER), Balance::Random);
    world.apply(&simple("service", "bookinfo", "reviews", "ROUND_ROBIN", ""));
    assert_eq!(balance(&world, "other/client"), Balance::RoundRobin);
    world.apply(&simple("own", "other", HOST, "PASSTHROUGH", ""));
    assert_eq!(balance(&world, "other/client"), Balance::Passthrough);
    assert_eq!(balance(&world, CALLER), Balance::RoundRobin);
    // Not exported: others fall through to the root's.
    world.apply(&simple("service", "bookinfo", "reviews", "ROUND_ROBIN", "exportTo: [.],"));
    world.delete("DestinationRule", "other", "own");
    assert_eq!(balance(&world, "other/client"), Balance::Random);
    assert_eq!(balance(&world, CALLER), Balance::RoundRobin);
    // Exported to one by name.
    world.apply(&simple("service", "bookinfo", "reviews", "ROUND_ROBIN", "exportTo: [other],"));
    assert_eq!(balance(&world, "other/client"), Balance::RoundRobin);
    assert_eq!(balance(&world, "istio-system/root"), Balance::Random);
}

#[test]
fn exact_beats_wildcard_and_the_longest_wildcard_wins() {
    let mut world = world();
    world.apply(&simple("short", "bookinfo", "*.svc.cluster.local", "RANDOM", ""));
    assert_eq!(balance(&world, CALLER), Balance::Random);
    world.apply(&simple("long", "bookinfo", "*.bookinfo.svc.cluster.local", "ROUND_ROBIN", ""));
    assert_eq!(balance(&world, CALLER), Balance::RoundRobin);
    world.apply(&simple("exact", "bookinfo", "reviews", "PASSTHROUGH", ""));
    assert_eq!(balance(&world, CALLER), Balance::Passthrough);
    world.delete("DestinationRule", "bookinfo", "exact");
    world.delete("DestinationRule", "bookinfo", "long");
    assert_eq!(balance(&world, CALLER), Balance::Random);
}

#[test]
fn rules_for_one_host_unite_their_subsets() {
    let mut world = world();
    world.apply(&rule("a", "bookinfo", "{host: reviews, subsets: [{name: one, labels: {version: v1}}]}"));
    world.apply(&rule(
        "b",
        "bookinfo",
        "{host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: one, labels: {version: v2}}, {name: two, labels: {version: v2}}, {name: all}]}",
    ));
    world.apply(&rule(
        "c",
        "bookinfo",
        "{host: reviews, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}",
    ));
    let one = cluster(&world, CALLER, Some("one")).unwrap();
    assert_eq!(short(&one), "reviews/one[reviews-v1]");
    assert_eq!(&*one.name, "outbound|9080|one|reviews.bookinfo.svc.cluster.local");
    assert_eq!(one.balance, Balance::Random);
    assert_eq!(short(&cluster(&world, CALLER, Some("two")).unwrap()), "reviews/two[reviews-v2]");
    let all = cluster(&world, CALLER, Some("all")).unwrap();
    assert_eq!(short(&all), "reviews/all[reviews-v1,reviews-v2,reviews-v3]");
    let unknown = cluster(&world, CALLER, Some("three")).unwrap_err();
    assert!(matches!(unknown, Unroutable::UnknownSubset { .. }), "{unknown}");
}

#[test]
fn selectors_speak_for_callers_with_these_labels() {
    let mut world = world();
    let selector = "workloadSelector: {matchLabels: {tier: gold}},";
    world.apply(&simple("gold", "other", HOST, "RANDOM", selector));
    assert_eq!(balance(&world, "other/client"), Balance::Random);
    assert_eq!(balance(&world, CALLER), Balance::LeastRequest);
    world.apply(&simple("rest", "other", HOST, "ROUND_ROBIN", ""));
    assert_eq!(balance(&world, "other/client"), Balance::Random);
    world.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: other, labels: {app: client}}
status: {podIP: 10.1.1.1}
",
    );
    assert_eq!(balance(&world, "other/client"), Balance::RoundRobin);
}

#[test]
fn subsets_override_part_by_part_and_ports_replace_everything() {
    let mut world = world();
    world.apply(&rule(
        "reviews",
        "bookinfo",
        "
  host: reviews
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    connectionPool: {tcp: {connectTimeout: 1s}}
    portLevelSettings:
    - {port: {number: 80}, loadBalancer: {simple: RANDOM}}
  subsets:
  - {name: inherits, labels: {version: v1}}
  - {name: overrides, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
  - name: by-port
    trafficPolicy:
      connectionPool: {tcp: {connectTimeout: 3s}}
      portLevelSettings:
      - {port: {number: 9080}, connectionPool: {tcp: {connectTimeout: 2s}}}",
    ));
    let of = |subset: Option<&str>| {
        let cluster = cluster(&world, CALLER, subset).unwrap();
        (cluster.balance, cluster.connect_timeout)
    };
    let second = Duration::from_secs(1);
    assert_eq!(of(None), (Balance::RoundRobin, second));
    assert_eq!(of(Some("inherits")), (Balance::RoundRobin, second));
    assert_eq!(of(Some("overrides")), (Balance::Random, second));
    assert_eq!(of(Some("by-port")), (Balance::LeastRequest, 2 * second));

    world.apply(&rule(
        "reviews",
        "bookinfo",
        "
  host: reviews
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    connectionPool: {tcp: {connectTimeout: 1s}}
    portLevelSettings:
    - {port: {number: 9080}, loadBalancer: {simple: RANDOM}}",
    ));
    // What the port does not set falls back to the default, not to the rule's own policy.
    let whole = cluster(&world, CALLER, None).unwrap();
    assert_eq!((whole.balance, whole.connect_timeout), (Balance::Random, 10 * second));
}
