//! Connections of TLS that weft passes on: routed by the server name that clients ask for.

use crate::support::World;
use crate::tcp::decide_for;

const APP: &str = "
apiVersion: v1
kind: Service
metadata: {name: secure, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443}, {name: tcp, port: 444}, {name: x, appProtocol: tls, port: 445}]}
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

fn with(spec: &str) -> World {
    let mut world = World::of(APP);
    world.apply(&format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: secure, namespace: shop}}\nspec:\n\
         \u{20} hosts: [secure, '*.secure.example']\n{spec}"
    ));
    world
}

fn decide(world: &World, from: &str, port: u16, name: &str) -> String {
    let name = Some(name).filter(|name| !name.is_empty());
    decide_for(world, from, &format!("10.96.0.1:{port}"), name, 0)
}

const RULES: &str = "
  tls:
  - match: [{sniHosts: ['*.secure.example'], port: 443}]
    route: [{destination: {host: wide}}]
  - match: [{sniHosts: [a.secure.example], port: 443}]
    route: [{destination: {host: exact}}]
  - match: [{sniHosts: [b.secure.example], sourceLabels: {app: other}}, {sniHosts: [c.secure.example], destinationSubnets: [10.97.0.0/16]}]
    route: [{destination: {host: never}}]
  tcp:
  - route: [{destination: {host: bytes}}]
";

#[test]
fn the_most_specific_name_decides() {
    let world = with(RULES);
    let at = |name: &str| decide(&world, "shop/app", 443, name);
    assert_eq!(at("a.secure.example"), "exact by shop/secure");
    assert_eq!(at("b.secure.example"), "wide by shop/secure");
    assert_eq!(at("c.secure.example"), "wide by shop/secure");
    assert_eq!(at("secure.example"), "NR", "a wildcard does not hold what it is of");
    assert_eq!(at("elsewhere.example"), "NR");
    assert_eq!(at(""), "NR", "nor who asks for nobody");
}

#[test]
fn rules_for_others_are_none() {
    let world = with(RULES);
    // No rule is for port 445 and this caller but one, which is for another address.
    assert_eq!(decide(&world, "shop/app", 445, "a.secure.example"), "NR");
    let world = with(
        "  exportTo: [.]\n  tls: [{match: [{sniHosts: [a.secure.example]}], route: [{destination: {host: x}}]}]\n",
    );
    assert_eq!(decide(&world, "shop/app", 443, "a.secure.example"), "x by shop/secure");
    assert_eq!(decide(&world, "other/stranger", 443, "a.secure.example"), "secure");
}

#[test]
fn only_ports_that_are_declared_to_speak_tls_are_read() {
    let world = with(RULES);
    let reads = |world: &World, dst: &str| {
        world.snapshot.outbound(&world.pod("shop/app"), dst.parse().unwrap()).reads_server_name
    };
    let ports = [443, 444, 445].map(|port| reads(&world, &format!("10.96.0.1:{port}")));
    assert_eq!(ports, [true, false, true]);
    assert!(!reads(&world, "10.96.0.9:443"));
    // Rules for TCP are for ports of TCP alone.
    assert_eq!(decide(&world, "shop/app", 444, ""), "bytes by shop/secure");
    let world = with("  tcp: [{route: [{destination: {host: bytes}}]}]\n");
    assert!(!reads(&world, "10.96.0.1:443"));
    assert_eq!(decide(&world, "shop/app", 443, "a.secure.example"), "secure");
}

#[test]
fn explain_tells_for_which_names_the_rules_are() {
    let world = with(RULES);
    let request = weft_api::admin::ExplainRequest {
        from: "app.shop".into(),
        to: "secure.shop:443".into(),
        ..Default::default()
    };
    let notes = weft_rules::explain::answer(&world.snapshot, &request, false).unwrap().notes.join("\n");
    for note in [
        "tls[1] of shop/secure does not match: it is for the server name a.secure.example",
        "tls[2] of shop/secure does not match: wants source label app=other",
    ] {
        assert!(notes.contains(note), "{notes}");
    }
    assert!(!notes.contains("`tcp`"), "{notes}");
}
