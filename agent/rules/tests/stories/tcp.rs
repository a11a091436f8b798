//! Connections that are only bytes.

use weft_rules::registry::protocol::Protocol;
use weft_rules::route::tcp_route::TcpDecision;

use crate::support::World;

const APP: &str = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: db}, ports: [{name: mysql, port: 3306}, {name: http, port: 80}, {port: 4000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: shop, labels: {app: app}}
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: other}
status: {podIP: 10.1.0.2}
";

fn decide(world: &World, from: &str, dst: &str, seed: u64) -> String {
    decide_for(world, from, dst, None, seed)
}

/// Where a connection goes, with a server name that it asks for, in words.
pub fn decide_for(world: &World, from: &str, dst: &str, server_name: Option<&str>, seed: u64) -> String {
    match world.snapshot.route_tcp(&world.pod(from), dst.parse().unwrap(), server_name, seed) {
        TcpDecision::Forward { destination, virtual_service } => {
            let by = virtual_service.map(|key| format!(" by {key}")).unwrap_or_default();
            let subset = destination.subset.map(|subset| format!("/{subset}")).unwrap_or_default();
            format!("{}{subset}{by}", destination.host.split('.').next().unwrap())
        }
        TcpDecision::NoRoute => "NR".into(),
        TcpDecision::Passthrough => "passthrough".into(),
        TcpDecision::BlackHole => "blackhole".into(),
    }
}

fn with(spec: &str) -> World {
    let mut world = World::of(APP);
    world.apply(&format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: db, namespace: shop}}
spec:
  hosts: [db]
{spec}"
    ));
    world
}

#[test]
fn an_address_is_a_services_or_nobodys() {
    let world = World::of(APP);
    let protocol = |dst: &str| world.snapshot.outbound(&world.pod("shop/app"), dst.parse().unwrap()).protocol;
    assert_eq!(protocol("10.96.0.1:3306"), Protocol::Tcp);
    assert_eq!(protocol("10.96.0.1:80"), Protocol::Http);
    assert_eq!(protocol("10.96.0.1:4000"), Protocol::Detect);
    assert_eq!(protocol("1.2.3.4:3306"), Protocol::Tcp);
    assert_eq!(protocol("1.2.3.4:80"), Protocol::Detect);
    assert_eq!(protocol("[::ffff:10.96.0.1]:80"), Protocol::Http);
    assert_eq!(decide(&world, "shop/app", "10.96.0.1:3306", 0), "db");
    assert_eq!(decide(&world, "shop/app", "1.2.3.4:3306", 0), "passthrough");
}

#[test]
fn tcp_routes_go_by_port_source_and_subnet() {
    let world = with(
        "
  tcp:
  - match: [{port: 3306, sourceLabels: {app: app}}]
    route:
    - {destination: {host: db, subset: a}, weight: 80}
    - {destination: {host: db, subset: b}, weight: 20}
  - match: [{destinationSubnets: [10.96.0.0/16], sourceNamespace: other}]
    route: [{destination: {host: other}}]
  - match: [{destinationSubnets: [192.168.0.0/16]}]
    route: [{destination: {host: never}}]",
    );
    let count = |wanted: &str| {
        (0..5000).filter(|seed| decide(&world, "shop/app", "10.96.0.1:3306", *seed) == wanted).count()
    };
    let a = count("db/a by shop/db");
    assert!((3_850..4_150).contains(&a), "{a}");
    assert_eq!(a + count("db/b by shop/db"), 5000);
    assert_eq!(decide(&world, "other/stranger", "10.96.0.1:4000", 0), "other by shop/db");
    // None matches: the service itself.
    assert_eq!(decide(&world, "shop/app", "10.96.0.1:4000", 0), "db");
    // A port that is declared to speak HTTP has no `tcp` rules.
    assert_eq!(decide(&world, "other/stranger", "10.96.0.1:80", 0), "db");
}

#[test]
fn a_source_subnet_is_the_callers() {
    let world = with(
        "
  tcp:
  - match: [{sourceSubnet: 10.1.0.2/32}, {sourceSubnet: 10.9.0.0/16}]
    route: [{destination: {host: other}}]",
    );
    assert_eq!(decide(&world, "other/stranger", "10.96.0.1:3306", 0), "other by shop/db");
    assert_eq!(decide(&world, "shop/app", "10.96.0.1:3306", 0), "db");
}

#[test]
fn http_rules_are_none_of_a_tcp_ports_business() {
    let world = with("  http: [{route: [{destination: {host: elsewhere}}]}]");
    assert_eq!(decide(&world, "shop/app", "10.96.0.1:3306", 0), "db");
}
