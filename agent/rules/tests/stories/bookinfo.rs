//! Bookinfo's routing tasks, one after the other.

use crate::support::{World, shares};

const APP: &str = include_str!("bookinfo.yaml");

fn world() -> World {
    World::of(APP)
}

fn reviews(http: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {{name: reviews, namespace: bookinfo}}
spec:
  hosts: [reviews]
  http:
{http}"
    )
}

const CALLER: &str = "bookinfo/productpage-v1";
const REVIEWS: &str = "10.96.0.3:9080";

#[test]
fn without_rules_all_versions_take_part() {
    let world = world();
    let outcome = world.call(CALLER, REVIEWS, "reviews:9080/").outcome();
    assert_eq!(outcome, "reviews[reviews-v1,reviews-v2,reviews-v3]");
}

#[test]
fn everybody_to_v1_then_jason_to_v2() {
    let mut world = world();
    world.apply(&reviews("  - route: [{destination: {host: reviews, subset: v1}}]"));
    assert_eq!(world.call(CALLER, REVIEWS, "reviews:9080/").outcome(), "reviews/v1[reviews-v1]");

    world.apply(&reviews(
        "
  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - route: [{destination: {host: reviews, subset: v1}}]",
    ));
    let call = || world.call(CALLER, REVIEWS, "reviews:9080/");
    assert_eq!(call().header("End-User", "jason").outcome(), "reviews/v2[reviews-v2]");
    assert_eq!(call().header("end-user", "Jason").outcome(), "reviews/v1[reviews-v1]");
    assert_eq!(call().outcome(), "reviews/v1[reviews-v1]");
}

#[test]
fn half_to_v3_then_all() {
    let mut world = world();
    world.apply(&reviews(
        "
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 50}
    - {destination: {host: reviews, subset: v3}, weight: 50}",
    ));
    let shares = shares(&world.call(CALLER, REVIEWS, "reviews:9080/").route(), 10_000);
    assert!((4_800..5_200).contains(&shares["v1"]), "{shares:?}");
    assert!((4_800..5_200).contains(&shares["v3"]), "{shares:?}");

    world.apply(&reviews("  - route: [{destination: {host: reviews, subset: v3}}]"));
    assert_eq!(world.call(CALLER, REVIEWS, "reviews:9080/").outcome(), "reviews/v3[reviews-v3]");

    world.delete("VirtualService", "bookinfo", "reviews");
    let outcome = world.call(CALLER, REVIEWS, "reviews:9080/").outcome();
    assert_eq!(outcome, "reviews[reviews-v1,reviews-v2,reviews-v3]");
}
