//! What services there are and where, as the registry tells it.

use weft_api::registry::Host;
use weft_rules::rows;

use crate::support::World;

const MORE: &str = "
apiVersion: v1
kind: Service
metadata: {name: two, namespace: bookinfo}
spec:
  clusterIP: 10.96.0.9
  selector: {app: reviews, version: v1}
  ports: [{name: http, port: 80, targetPort: 9080}, {name: grpc-b, port: 81, targetPort: 9081}]
---
apiVersion: v1
kind: Service
metadata: {name: bare, namespace: bookinfo}
spec: {clusterIP: 10.96.0.10, selector: {app: nobody}, ports: [{port: 5000}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: bookinfo}
spec: {type: ExternalName, externalName: reviews.bookinfo.svc.cluster.local}
";

fn world() -> World {
    let mut world = World::of(include_str!("bookinfo.yaml"));
    world.apply(MORE);
    world
}

fn told(hosts: &[Host]) -> Vec<String> {
    hosts.iter().map(|host| format!("{}:{}", host.ip_address, host.port)).collect()
}

#[test]
fn every_port_of_every_service_is_listed_by_its_key() {
    let all = rows::registrations(&world().snapshot);
    let lines: Vec<String> =
        all.iter().map(|one| format!("{} {}", one.service_key, told(&one.hosts).join(","))).collect();
    assert_eq!(
        lines,
        [
            "bare.bookinfo.svc.cluster.local ",
            "details.bookinfo.svc.cluster.local|http 10.1.0.2:9080",
            "productpage.bookinfo.svc.cluster.local|http 10.1.0.1:9080",
            "ratings.bookinfo.svc.cluster.local|http 10.1.0.6:9080",
            "reviews.bookinfo.svc.cluster.local|http 10.1.0.3:9080,10.1.0.4:9080,10.1.0.5:9080",
            "two.bookinfo.svc.cluster.local|grpc-b 10.1.0.3:9081",
            "two.bookinfo.svc.cluster.local|http 10.1.0.3:9080",
        ]
    );
    let json = serde_json::to_string(&all[1]).unwrap();
    let wanted = r#"{"service-key":"details.bookinfo.svc.cluster.local|http","hosts":[{"ip_address":"10.1.0.2","port":9080}]}"#;
    assert_eq!(json, wanted);
}

#[test]
fn what_get_endpoints_lists_is_what_the_registry_lists() {
    let snapshot = world().snapshot;
    let mut of_registry: Vec<String> = Vec::new();
    for one in rows::registrations(&snapshot) {
        of_registry
            .extend(told(&one.hosts).into_iter().map(|address| format!("{} {address}", one.service_key)));
    }
    let mut of_endpoints: Vec<String> = rows::endpoints(&snapshot)
        .iter()
        .map(|row| format!("{}|{} {}", row.service, row.port_name, row.address))
        .collect();
    of_endpoints.sort();
    assert_eq!(of_registry, of_endpoints);
}

#[test]
fn addresses_of_services_are_known() {
    let world = world();
    let is_known = |address: &str| world.snapshot.is_service_address(address.parse().unwrap());
    assert!(is_known("10.96.0.9") && is_known("10.96.0.10"));
    assert!(!is_known("10.96.0.200"));
}

#[test]
fn one_key_can_be_asked_for() {
    let snapshot = world().snapshot;
    let ask = |key: &str| rows::hosts(&snapshot, key).map(|hosts| told(&hosts.hosts));
    let some = |hosts: &[&str]| Some(hosts.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(ask("two.bookinfo.svc.cluster.local|grpc-b"), some(&["10.1.0.3:9081"]));
    assert_eq!(ask("two.bookinfo.svc.cluster.local"), some(&["10.1.0.3:9080", "10.1.0.3:9081"]));
    assert_eq!(ask("bare.bookinfo.svc.cluster.local"), some(&[]));
    for unknown in ["two.bookinfo.svc.cluster.local|https", "two", "other.bookinfo.svc.cluster.local", ""] {
        assert_eq!(ask(unknown), None, "{unknown}");
    }
}
