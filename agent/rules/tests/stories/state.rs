//! What outlives a change of the rules, and what does not.

use std::net::SocketAddr;
use std::sync::Arc;

use weft_rules::route::http_route::Destination;
use weft_rules::upstream::cluster::Cluster;

use crate::support::World;

const APP: &str = include_str!("bookinfo.yaml");

fn cluster(world: &World, subset: Option<&str>) -> Arc<Cluster> {
    let destination = Destination {
        host: "reviews.bookinfo.svc.cluster.local".into(),
        subset: subset.map(Into::into),
        port: None,
    };
    world.snapshot.cluster(&world.pod("bookinfo/productpage-v1"), &destination, 9080).unwrap()
}

fn next(cluster: &Cluster) -> String {
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    let picked = cluster.pick(any, &[], 0).unwrap();
    picked.endpoint.workload.as_ref().unwrap().name.to_string()
}

fn round_robin(extra: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews, namespace: bookinfo}}
spec:
  host: reviews
  trafficPolicy: {{loadBalancer: {{simple: ROUND_ROBIN}}{extra}}}
"
    )
}

#[test]
fn a_round_robin_goes_on_through_changes() {
    let mut world = World::of(APP);
    world.apply(&round_robin(""));
    assert_eq!(next(&cluster(&world, None)), "reviews-v1");
    world.apply(&round_robin(", connectionPool: {tcp: {connectTimeout: 1s}}"));
    assert_eq!(next(&cluster(&world, None)), "reviews-v2");
    world.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: other, namespace: bookinfo}
spec: {clusterIP: 10.96.7.7, ports: [{name: http, port: 80}]}
",
    );
    assert_eq!(next(&cluster(&world, None)), "reviews-v3");
    // A service that goes takes its state with it.
    world.delete("Service", "bookinfo", "reviews");
    world.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: bookinfo}
spec: {clusterIP: 10.96.0.3, selector: {app: reviews}, ports: [{name: http, port: 9080}]}
",
    );
    assert_eq!(next(&cluster(&world, None)), "reviews-v1");
}

#[test]
fn the_load_of_an_endpoint_outlives_changes_and_not_its_pod() {
    let mut world = World::of(APP);
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    let held = cluster(&world, Some("v1")).pick(any, &[], 0).unwrap();
    world.apply(&round_robin(""));
    let load = |world: &World| cluster(world, None).endpoints[0].active();
    assert_eq!(load(&world), 1);
    // The pod changes in what does not concern its place: the same pod.
    world.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: reviews-v1, namespace: bookinfo, labels: {app: reviews, version: v1, new: label}}
status: {podIP: 10.1.0.3}
",
    );
    assert_eq!(load(&world), 1);
    assert!(cluster(&world, None).endpoints[0].workload.as_ref().unwrap().labels.contains_key("new"));
    // Another pod takes over the address.
    world.delete("Pod", "bookinfo", "reviews-v1");
    world.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: reviews-v1b, namespace: bookinfo, labels: {app: reviews, version: v1}}
status: {podIP: 10.1.0.3}
",
    );
    assert_eq!(load(&world), 0);
    drop(held);
    assert_eq!(load(&world), 0);
}

#[test]
fn a_change_shares_what_it_does_not_touch() {
    let mut world = World::of(APP);
    let before = cluster(&world, None);
    world.apply(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: bookinfo}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: ratings-v1, namespace: bookinfo, labels: {app: ratings, version: v2}}
status: {podIP: 10.1.0.6}
",
    );
    assert!(Arc::ptr_eq(&before, &cluster(&world, None)));
}
