//! What a gateway pod serves: which Gateways select it, which VirtualServices are bound to those, host by host.

use weft_rules::http_route::HttpAction;
use weft_rules::snapshot::HttpDecision;

use crate::support::World;

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: ingress-1, namespace: istio-system, labels: {istio: ingressgateway, app: ingress}}
spec: {containers: [{name: pause, ports: [{name: web, containerPort: 8080}]}]}
status: {podIP: 10.2.0.1}
---
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: istio-system}
spec: {clusterIP: 10.96.2.1, selector: {app: ingress}, ports: [{name: http2, port: 80, targetPort: web}]}
---
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: shop, labels: {app: shop}}
status: {podIP: 10.2.0.2}
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: shop}
spec: {clusterIP: 10.96.2.2, selector: {app: shop}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: two, namespace: shop}
spec: {clusterIP: 10.96.2.3, selector: {app: shop}, ports: [{name: http, port: 80}, {name: http-b, port: 81}]}
";

fn gateway(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn rules(namespace: &str, name: &str, created: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}, \
         creationTimestamp: '{created}'}}\nspec: {spec}\n"
    )
}

const HTTP: &str = "{number: 80, name: http, protocol: HTTP}";

fn plain(namespace: &str, hosts: &str) -> String {
    gateway(
        namespace,
        "gw",
        &format!("{{selector: {{istio: ingressgateway}}, servers: [{{port: {HTTP}, hosts: [{hosts}]}}]}}"),
    )
}

fn to(host: &str) -> String {
    format!("http: [{{name: {host}, route: [{{destination: {{host: {host}}}}}]}}]")
}

/// What the gateway does with a request for a URL: the route's name, `redirect`, `NR`, or `closed`.
fn ask(world: &World, port: u16, url: &str) -> String {
    let pod = world.pod("istio-system/ingress-1");
    let Some(served) = world.snapshot.gateway_port(&pod.key, port) else { return "closed".into() };
    let parts = world.call(&pod.key, "10.2.0.1:80", url).parts();
    match world.snapshot.route_at_gateway(&pod, served, &parts) {
        HttpDecision::Route(matched) => match &matched.route.action {
            HttpAction::Redirect(redirect) => {
                let (status, location) = redirect.location(&parts, matched.matched_prefix, "http", port);
                format!("{} {location}", status.as_u16())
            }
            _ => matched.route.name.to_string(),
        },
        HttpDecision::NoRoute => "NR".into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_gateway_serves_the_pods_port_behind_its_service() {
    let mut world = World::of(&(PODS.to_owned() + &plain("shop", "'*'")));
    world.apply(&rules("shop", "all", "", &format!("{{hosts: ['*'], gateways: [gw], {}}}", to("shop"))));
    assert_eq!(ask(&world, 8080, "shop.example/"), "shop");
    assert_eq!(ask(&world, 8080, "10.0.0.1/"), "shop", "an address is a host too");
    assert_eq!(ask(&world, 80, "shop.example/"), "closed", "the Service leads elsewhere");
    // Without the Service, the number is the pod's own.
    world.delete("Service", "istio-system", "ingress");
    assert_eq!(ask(&world, 80, "shop.example/"), "shop");
    assert_eq!(ask(&world, 8080, "shop.example/"), "closed");
    world.delete("Gateway", "shop", "gw");
    assert_eq!(ask(&world, 80, "shop.example/"), "closed");
}

#[test]
fn the_most_specific_host_decides_and_nobody_answers_for_others() {
    let mut world = World::of(
        &(PODS.to_owned() + &plain("shop", "'*.example', 'shop/own.test', './near.test', 'far/far.test'")),
    );
    for (name, hosts) in
        [("a", "a.example"), ("wide", "'*'"), ("own", "own.test"), ("near", "near.test"), ("far", "far.test")]
    {
        let spec = format!(
            "{{hosts: [{hosts}], gateways: [shop/gw], http: [{{name: {name}, match: [{{uri: {{prefix: /x}}}}], \
             route: [{{destination: {{host: shop}}}}]}}]}}"
        );
        world.apply(&rules("shop", name, "", &spec));
    }
    for (url, expected) in [
        ("a.example/x", "a"),
        ("A.Example:80/x", "a"),
        // Its own routes do not match: `*` is not asked, as in Envoy.
        ("a.example/y", "NR"),
        ("b.example/x", "wide"),
        ("example/x", "NR"),
        ("own.test/x", "own"),
        ("near.test/x", "near"),
        // Only VirtualServices of namespace far may have it.
        ("far.test/x", "NR"),
        ("other.test/x", "NR"),
        ("/x", "NR"),
    ] {
        assert_eq!(ask(&world, 8080, url), expected, "{url}");
    }
}

#[test]
fn routes_of_several_virtual_services_stand_in_one_list_oldest_first() {
    let mut world = World::of(&(PODS.to_owned() + &plain("shop", "'*'")));
    let path = |name: &str, path: &str| {
        format!(
            "{{hosts: ['*'], gateways: [shop/gw], http: [{{name: {name}, match: [{{uri: {{prefix: {path}}}}}], route: \
             [{{destination: {{host: shop}}}}]}}]}}"
        )
    };
    world.apply(&rules("shop", "b", "2024-01-02T00:00:00Z", &path("young", "/")));
    world.apply(&rules("shop", "a", "2024-01-01T00:00:00Z", &path("old", "/api")));
    assert_eq!(ask(&world, 8080, "h/api/1"), "old");
    assert_eq!(ask(&world, 8080, "h/other"), "young");
    world.delete("VirtualService", "shop", "a");
    assert_eq!(ask(&world, 8080, "h/api/1"), "young");
}

#[test]
fn a_match_may_be_for_one_gateway_or_for_the_mesh() {
    let mut world = World::of(&(PODS.to_owned() + &plain("shop", "'*'")));
    let route = |name: &str, gateways: &str| {
        format!(
            "{{name: {name}, match: [{{gateways: [{gateways}]}}], route: [{{destination: {{host: shop}}}}]}}"
        )
    };
    world.apply(&rules(
        "shop",
        "both",
        "",
        &format!(
            "{{hosts: [shop.shop.svc.cluster.local], gateways: [gw, mesh], http: [{}, {}, {}]}}",
            route("elsewhere", "other/gw"),
            route("inside", "mesh"),
            route("outside", "gw"),
        ),
    ));
    assert_eq!(ask(&world, 8080, "shop.shop.svc.cluster.local/"), "outside");
    let inside = world.call("shop/app", "10.96.2.2:9080", "shop").route();
    assert_eq!(&*inside.route.name, "inside");
}

#[test]
fn https_redirect_answers_before_any_route() {
    let servers = format!("{{port: {HTTP}, hosts: ['*'], tls: {{httpsRedirect: true}}}}");
    let spec = format!("{{selector: {{istio: ingressgateway}}, servers: [{servers}]}}");
    let world = World::of(&(PODS.to_owned() + &gateway("shop", "gw", &spec)));
    assert_eq!(ask(&world, 8080, "shop.example/a?b=c"), "301 https://shop.example/a?b=c");
}

#[test]
fn nobodys_gateway_takes_the_ports_of_a_pod_that_is_none() {
    let spec = format!("{{selector: {{app: shop}}, servers: [{{port: {HTTP}, hosts: ['*']}}]}}");
    let mut world = World::of(&(PODS.to_owned() + &gateway("hostile", "gw", &spec)));
    let everybody =
        gateway("hostile", "all", &format!("{{selector: {{}}, servers: [{{port: {HTTP}, hosts: ['*']}}]}}"));
    world.apply(&everybody);
    assert!(world.snapshot.gateway_port("shop/app", 80).is_none());
    assert!(
        world.snapshot.gateway_port("istio-system/ingress-1", 80).is_none(),
        "an empty selector selects nobody"
    );
}

#[test]
fn a_destination_without_a_port_means_the_services_only_one() {
    let mut world = World::of(&(PODS.to_owned() + &plain("shop", "'*'")));
    let spec = |host: &str| format!("{{hosts: ['*'], gateways: [gw], {}}}", to(host));
    for (host, port) in [("shop", 9080), ("two", 80)] {
        world.apply(&rules("shop", "all", "", &spec(host)));
        let pod = world.pod("istio-system/ingress-1");
        let served = world.snapshot.gateway_port(&pod.key, 8080).expect("served");
        let parts = world.call(&pod.key, "10.2.0.1:80", "h/").parts();
        let HttpDecision::Route(matched) = world.snapshot.route_at_gateway(&pod, served, &parts) else {
            panic!("no route")
        };
        let chosen = matched.route.pick(0).expect("a destination");
        let cluster =
            world.snapshot.cluster_at_gateway(&pod, served, &chosen.destination).expect("a cluster");
        let ports: Vec<u16> = cluster.endpoints.iter().map(|endpoint| endpoint.address.port()).collect();
        assert_eq!(ports, [port], "{host}");
    }
}
