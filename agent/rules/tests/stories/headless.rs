//! Headless services: their pods are dialled one by one, and may be called by names of their own.

use crate::hosts::{CALLER, REVIEWS, STRANGER, rules, world};
use crate::support::World;

#[test]
fn headless_services_go_where_the_caller_dialled() {
    let mut world = world();
    world.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: reviews-headless, namespace: bookinfo}
spec: {clusterIP: None, selector: {app: reviews}, ports: [{name: http, port: 9080}]}
",
    );
    let caller = world.pod(CALLER);
    let dst = "10.1.0.4:9080".parse().unwrap();
    let outbound = world.snapshot.outbound(&caller, dst);
    assert_eq!(&*outbound.service.unwrap().name, "reviews-headless");
    let route = world.call(CALLER, "10.1.0.4:9080", "reviews-headless").route();
    let chosen = route.route.pick(0).unwrap();
    let cluster = world.snapshot.cluster(&caller, &chosen.destination, 9080).unwrap();
    for seed in 0..20 {
        assert_eq!(cluster.pick(dst, &[], seed).unwrap().endpoint.address, dst);
    }
}

/// A headless service, two of whose pods are ready, and a rule for it.
const HEADLESS: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews-set, namespace: bookinfo}
spec: {clusterIP: None, selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v3, namespace: bookinfo, labels: {app: reviews, version: v3}}
status: {podIP: 10.1.0.5, conditions: [{type: Ready, status: 'False'}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews-set, namespace: bookinfo}
spec: {hosts: [reviews-set], http: [{name: set, route: [{destination: {host: reviews-set}}]}]}
";

#[test]
fn a_pod_of_a_headless_service_is_called_by_its_own_name_and_answers_itself() {
    let mut world = world();
    world.apply(HEADLESS);
    let v1 = "10.1.0.3:9080";
    for (from, host) in [
        (CALLER, "reviews-set:9080"),
        (CALLER, "reviews-v1.reviews-set"),
        (CALLER, "Reviews-v1.Reviews-set:9080"),
        (CALLER, "reviews-v1.reviews-set.bookinfo"),
        (CALLER, "reviews-v1.reviews-set.bookinfo.svc"),
        (CALLER, "reviews-v1.reviews-set.bookinfo.svc.cluster.local.:9080"),
        (STRANGER, "reviews-v1.reviews-set.bookinfo:9080"),
        (CALLER, "10-1-0-3.reviews-set.bookinfo.svc.cluster.local"),
    ] {
        let route = world.call(from, v1, host).route();
        assert_eq!(route.route.virtual_service.as_deref(), Some("bookinfo/reviews-set"), "{host}");
        let chosen = route.route.pick(0).unwrap();
        let cluster = world.snapshot.cluster(&world.pod(from), &chosen.destination, 9080).unwrap();
        for seed in 0..20 {
            let address = cluster.pick(v1.parse().unwrap(), &[], seed).unwrap().endpoint.address;
            assert_eq!(address.to_string(), v1, "{host}");
        }
    }
    // Not of another namespace by its short name, and not of a service that has an address of its own.
    for (from, dst, host) in [
        (STRANGER, v1, "reviews-v1.reviews-set"),
        (CALLER, REVIEWS, "reviews-v1.reviews"),
        (CALLER, REVIEWS, "reviews-v1.reviews-set"),
        (CALLER, v1, "a.b.reviews-set"),
    ] {
        let route = world.call(from, dst, host).route();
        assert_eq!(route.route.virtual_service, None, "{host} at {dst}");
    }
    // One that is no endpoint answers for itself, too.
    assert_eq!(world.call(CALLER, "10.1.0.5:9080", "reviews-v3.reviews-set").outcome(), "passthrough");
    // Who is a service by this name is that service.
    world.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: reviews-v1, namespace: reviews-set}
spec: {clusterIP: 10.96.2.1, ports: [{name: http, port: 9080}]}
",
    );
    assert_eq!(world.call(CALLER, v1, "reviews-v1.reviews-set").outcome(), "reviews-v1[]");
}

#[test]
fn rules_may_be_for_one_pod_of_a_headless_service_or_for_all_of_them() {
    let mut world = world();
    world.apply(HEADLESS);
    let v1 = "10.1.0.3:9080";
    let answer = |name: &str, host: &str, status: u16| {
        rules(
            name,
            "bookinfo",
            "",
            &format!("{{hosts: ['{host}'], http: [{{directResponse: {{status: {status}}}}}]}}"),
        )
    };
    let short = |world: &World| world.call(CALLER, v1, "reviews-v1.reviews-set").outcome();
    let long =
        |world: &World| world.call(CALLER, v1, "reviews-v1.reviews-set.bookinfo.svc.cluster.local").outcome();
    world.apply(&answer("all-of-the-namespace", "*.bookinfo.svc.cluster.local", 205));
    assert_eq!(
        short(&world),
        "reviews-set[reviews-v1,reviews-v2]",
        "the service's own rule is more specific"
    );
    world.apply(&answer("all-pods", "*.reviews-set.bookinfo.svc.cluster.local", 204));
    assert_eq!((short(&world), long(&world)), ("respond 204".into(), "respond 204".into()));
    assert_eq!(
        world.call(CALLER, v1, "reviews-set").outcome(),
        "reviews-set[reviews-v1,reviews-v2]",
        "not a pod"
    );
    world.apply(&answer("one-pod", "reviews-v1.reviews-set.bookinfo.svc.cluster.local", 203));
    assert_eq!((short(&world), long(&world)), ("respond 203".into(), "respond 203".into()));
    world.apply(&answer("as-written", "reviews-v1.reviews-set", 202));
    assert_eq!((short(&world), long(&world)), ("respond 202".into(), "respond 203".into()));
    assert_eq!(world.call(CALLER, "10.1.0.4:9080", "reviews-v2.reviews-set").outcome(), "respond 204");
}

#[test]
fn the_pods_of_a_headless_service_are_dialled_by_their_addresses_of_either_family() {
    let mut world = world();
    let both = "
apiVersion: v1
kind: Pod
metadata: {name: both, namespace: bookinfo, labels: {app: both}}
status: {podIP: 10.1.0.9, podIPs: [{ip: 10.1.0.9}, {ip: 'fd00::9'}]}
---
apiVersion: v1
kind: Service
metadata: {name: both, namespace: bookinfo}
spec: {clusterIP: CLUSTER-IP, selector: {app: both}, ports: [{name: http, port: 9080}]}
";
    let slice = |name: &str, family: &str, address: &str| {
        format!(
            "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: bookinfo, labels: {{kubernetes.io/service-name: both}}}}
addressType: {family}
ports: [{{name: http, port: 9080}}]
endpoints: [{{addresses: ['{address}'], targetRef: {{kind: Pod, name: both, namespace: bookinfo}}}}]
"
        )
    };
    let slices = || format!("{}---{}", slice("v4", "IPv4", "10.1.0.9"), slice("v6", "IPv6", "fd00::9"));
    world.apply(&both.replace("CLUSTER-IP", "None"));
    for _ in 0..2 {
        let caller = world.pod(CALLER);
        let route = world.call(CALLER, REVIEWS, "both").route();
        let chosen = route.route.pick(0).unwrap();
        let cluster = world.snapshot.cluster(&caller, &chosen.destination, 9080).unwrap();
        for dst in ["10.1.0.9:9080", "[fd00::9]:9080"] {
            let dst = dst.parse().unwrap();
            assert_eq!(&*world.snapshot.outbound(&caller, dst).service.unwrap().name, "both");
            assert_eq!(cluster.pick(dst, &[], 1).unwrap().endpoint.address, dst);
        }
        world.apply(&slices());
    }
    // One with an address of its own has each pod once.
    world.apply(&both.replace("CLUSTER-IP", "10.96.0.9"));
    assert_eq!(world.call(CALLER, REVIEWS, "both").outcome(), "both[both]");
    world.delete("EndpointSlice", "bookinfo", "v4");
    world.delete("EndpointSlice", "bookinfo", "v6");
    assert_eq!(world.call(CALLER, REVIEWS, "both").outcome(), "both[both]");
}
