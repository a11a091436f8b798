//! Which rules a Host stands under: short names, addresses, wildcards, ages, visibility, ports.

use weft_rules::rows;

use crate::support::World;

const APP: &str = include_str!("bookinfo.yaml");
pub const CALLER: &str = "bookinfo/productpage-v1";
pub const STRANGER: &str = "other/client";
pub const REVIEWS: &str = "10.96.0.3:9080";
const ALL: &str = "reviews[reviews-v1,reviews-v2,reviews-v3]";

pub fn world() -> World {
    let mut world = World::of(APP);
    world.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: other}
status: {podIP: 10.1.1.1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: other}
spec: {clusterIP: 10.96.1.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: http-admin, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: hidden, namespace: other, annotations: {networking.istio.io/exportTo: .}}
spec: {clusterIP: 10.96.1.2, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: other}
spec: {clusterIP: 10.96.1.3, selector: {app: web}, ports: [{port: 7000, targetPort: web}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: other, labels: {app: web}}
spec: {containers: [{name: c, ports: [{name: web, containerPort: 8080}]}]}
status: {podIP: 10.1.1.2}
",
    );
    world
}

pub fn rules(name: &str, namespace: &str, created: &str, spec: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '{created}'}}
spec: {spec}
"
    )
}

#[test]
fn a_service_has_many_names() {
    let world = world();
    for (from, host, expected) in [
        (CALLER, "reviews", ALL),
        (CALLER, "reviews:9080", ALL),
        (CALLER, "REVIEWS.bookinfo", ALL),
        (CALLER, "reviews.bookinfo.svc", ALL),
        (CALLER, "reviews.bookinfo.svc.cluster.local", ALL),
        (CALLER, "reviews.bookinfo.svc.cluster.local.:9080", ALL),
        (CALLER, "10.96.0.3", ALL),
        (CALLER, "10.96.0.3:9080", ALL),
        (STRANGER, "ratings", ALL),
        (STRANGER, "reviews.bookinfo", ALL),
        (CALLER, "ratings", "ratings[ratings-v1]"),
        // The Host decides, not the address; the port must be the service's too.
        (CALLER, "web.other", "web[web]"),
    ] {
        assert_eq!(world.call(from, REVIEWS, host).outcome(), expected, "{from} {host:?}");
    }
}

#[test]
fn a_host_that_nobody_knows_is_for_the_service_that_was_dialled() {
    let mut world = world();
    let unknown = [
        "unknown.example",
        "unknown.example:9080",
        "",
        "ratings.nowhere",
        // Of another port, of nobody that this caller sees, an address of nobody's.
        "plain.other",
        "hidden.other",
        "192.0.2.1",
        "[2001:db8::1]:9080",
        "a:b",
    ];
    for host in unknown {
        assert_eq!(world.call(CALLER, REVIEWS, host).outcome(), ALL, "{host:?}");
    }
    assert_eq!(world.call(CALLER, "10.96.1.1:80", "reviews").outcome(), "web[web]");
    assert_eq!(world.call(CALLER, "[::ffff:10.96.0.3]:9080", "unknown.example").outcome(), ALL);

    // Its DestinationRule holds; its VirtualServices are for who names it, and those of the Host come first.
    world.apply(
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: plain, namespace: bookinfo}
spec: {host: reviews, trafficPolicy: {tls: {mode: DISABLE}}}
",
    );
    world.apply(&rules("own", "bookinfo", "", "{hosts: [reviews], http: [{directResponse: {status: 201}}]}"));
    for host in unknown {
        let route = world.call(CALLER, REVIEWS, host).route();
        assert_eq!(route.route.virtual_service, None, "{host:?}");
        let chosen = route.route.pick(0).unwrap();
        let cluster = world.snapshot.cluster(&world.pod(CALLER), &chosen.destination, 9080).unwrap();
        assert_eq!(&*cluster.name, "outbound|9080||reviews.bookinfo.svc.cluster.local");
        assert!(cluster.tls.is_some() && route.route.retry.is_some(), "{host:?}");
    }
    let by_host =
        "{hosts: [unknown.example], http: [{match: [{uri: {exact: /a}}], directResponse: {status: 202}}]}";
    world.apply(&rules("by-host", "bookinfo", "", by_host));
    assert_eq!(world.call(CALLER, REVIEWS, "unknown.example/a").outcome(), "respond 202");
    assert_eq!(world.call(CALLER, REVIEWS, "unknown.example/b").outcome(), "NR", "it is known");
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), "respond 201");

    // Where nobody that the caller sees has the address, nobody stands in.
    assert_eq!(world.call(CALLER, "10.96.1.2:80", "unknown.org").outcome(), "passthrough");
    assert_eq!(world.call(CALLER, "1.2.3.4:9080", "unknown.org").outcome(), "passthrough");
    assert_eq!(world.call(CALLER, "10.96.0.3:80", "unknown.org").outcome(), "passthrough");
}

#[test]
fn an_undeclared_port_goes_by_its_address() {
    let world = world();
    assert_eq!(world.call(CALLER, "10.96.1.3:7000", "plain.other:7000").outcome(), "plain[web]");
    assert_eq!(world.call(CALLER, "10.96.1.3:7000", "whatever").outcome(), "plain[web]");
}

#[test]
fn exact_beats_longer_wildcard_beats_shorter() {
    let mut world = world();
    let answer = |name: &str, hosts: &str, status: u16| {
        rules(
            name,
            "bookinfo",
            "",
            &format!("{{hosts: [{hosts}], http: [{{directResponse: {{status: {status}}}}}]}}"),
        )
    };
    world.apply(&answer("exact", "a.shop.example", 201));
    world.apply(&answer("long", "'*.shop.example'", 202));
    world.apply(&answer("short", "'*.example'", 203));
    for (host, expected) in [
        ("a.shop.example", "respond 201"),
        ("A.Shop.Example:9080", "respond 201"),
        ("b.shop.example", "respond 202"),
        ("c.b.shop.example", "respond 202"),
        ("shop.example", "respond 203"),
        ("example", ALL),
        ("a.shop.example.org", ALL),
    ] {
        assert_eq!(world.call(CALLER, REVIEWS, host).outcome(), expected, "{host}");
    }
    // Only on ports where somebody speaks HTTP.
    assert_eq!(world.call(CALLER, "1.2.3.4:4444", "a.shop.example").outcome(), "passthrough");
    assert_eq!(world.call(CALLER, "1.2.3.4:9080", "a.shop.example").outcome(), "respond 201");
}

#[test]
fn a_wildcard_covers_services_until_an_exact_rule_does() {
    let mut world = world();
    world.apply(&rules(
        "wide",
        "bookinfo",
        "",
        "{hosts: ['*.bookinfo.svc.cluster.local'], http: [{directResponse: {status: 202}}]}",
    ));
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), "respond 202");
    assert_eq!(world.call(CALLER, REVIEWS, "web.other").outcome(), "web[web]");
    world.apply(&rules("own", "bookinfo", "", "{hosts: [reviews], http: [{directResponse: {status: 201}}]}"));
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), "respond 201");
    world.delete("VirtualService", "bookinfo", "wide");
    world.delete("VirtualService", "bookinfo", "own");
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), ALL);
}

#[test]
fn the_oldest_visible_rule_takes_a_host() {
    let mut world = world();
    let spec = |status: u16, rest: &str| {
        format!(
            "{{hosts: [reviews.bookinfo.svc.cluster.local], {rest} http: [{{directResponse: {{status: {status}}}}}]}}"
        )
    };
    world.apply(&rules("young", "bookinfo", "2026-02-01T00:00:00Z", &spec(203, "")));
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), "respond 203");
    world.apply(&rules("old", "bookinfo", "2026-01-01T00:00:00Z", &spec(202, "exportTo: [.],")));
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), "respond 202");
    assert_eq!(world.call(STRANGER, REVIEWS, "reviews.bookinfo").outcome(), "respond 203");
    world.apply(&rules("oldest", "bookinfo", "2025-01-01T00:00:00Z", &spec(201, "gateways: [public],")));
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), "respond 202");
    world.apply(&rules("nobodys", "bookinfo", "2024-01-01T00:00:00Z", &spec(200, "exportTo: ['~'],")));
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), "respond 202");
    // As old: the name decides.
    world.apply(&rules("a", "bookinfo", "2026-01-01T00:00:00Z", &spec(204, "")));
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), "respond 204");
}

#[test]
fn a_destination_without_a_port_means_the_one_addressed() {
    let mut world = world();
    world.apply(&rules(
        "to-web",
        "bookinfo",
        "",
        "
  hosts: [reviews]
  http:
  - match: [{uri: {exact: /web}}]
    route: [{destination: {host: web.other.svc.cluster.local}}]
  - match: [{uri: {exact: /web80}}]
    route: [{destination: {host: web.other.svc.cluster.local, port: {number: 80}}}]
  - route: [{destination: {host: plain.other.svc.cluster.local}}]",
    ));
    assert_eq!(world.call(CALLER, REVIEWS, "reviews/web").outcome(), "web[web]");
    assert_eq!(world.call(CALLER, REVIEWS, "reviews/web80").outcome(), "web[web]");
    // Istio's quirk: the only port of the destination is not taken, though nothing else could be meant.
    let outcome = world.call(CALLER, REVIEWS, "reviews/").outcome();
    assert_eq!(outcome, "service plain.other.svc.cluster.local has no port 9080");
    // A name with a dot is literal.
    world.apply(&rules(
        "to-web",
        "bookinfo",
        "",
        "{hosts: [reviews], http: [{route: [{destination: {host: web.other}}]}]}",
    ));
    let outcome = world.call(CALLER, REVIEWS, "reviews/").outcome();
    assert_eq!(outcome, "no service web.other is visible from namespace bookinfo");
}

#[test]
fn other_names_lead_to_the_same_service() {
    let mut world = world();
    world.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: critics, namespace: bookinfo}
spec: {type: ExternalName, externalName: reviews.bookinfo.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: bookinfo}
spec: {type: ExternalName, externalName: api.example.com}
---
apiVersion: v1
kind: Service
metadata: {name: circle, namespace: bookinfo}
spec: {type: ExternalName, externalName: circle.bookinfo.svc.cluster.local}
",
    );
    assert_eq!(world.call(CALLER, REVIEWS, "critics").outcome(), ALL);
    assert_eq!(world.call(CALLER, "1.2.3.4:9080", "outside").outcome(), "passthrough");
    assert_eq!(world.call(CALLER, "1.2.3.4:9080", "circle").outcome(), "passthrough");
}

#[test]
fn endpoint_slices_replace_the_selector() {
    let mut world = world();
    world.apply(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: details-1, namespace: bookinfo, labels: {kubernetes.io/service-name: details}}
addressType: IPv4
ports: [{name: http, port: 9999}]
endpoints:
- {addresses: [10.1.0.6], targetRef: {kind: Pod, name: ratings-v1, namespace: bookinfo}}
- {addresses: [10.1.0.3]}
- {addresses: [10.9.9.9], conditions: {ready: false}}
- {addresses: [10.9.9.8]}
",
    );
    assert_eq!(world.call(CALLER, REVIEWS, "details").outcome(), "details[reviews-v1,ratings-v1,?]");
    world.delete("EndpointSlice", "bookinfo", "details-1");
    assert_eq!(world.call(CALLER, REVIEWS, "details").outcome(), "details[details-v1]");
}

pub fn mesh_config(text: &str) -> String {
    let indented = text.replace('\n', "\n    ");
    format!(
        "
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    {indented}
"
    )
}

#[test]
fn mesh_config_decides_about_the_unknown_and_the_unsaid() {
    let mut world = world();
    world.apply(&mesh_config(
        "outboundTrafficPolicy:\n  mode: REGISTRY_ONLY\ndefaultHttpRetryPolicy:\n  attempts: 0",
    ));
    assert_eq!(world.call(CALLER, REVIEWS, "unknown.example").outcome(), "blackhole");
    assert!(world.call(CALLER, REVIEWS, "reviews").route().route.retry.is_none());
    world.apply(&rules(
        "v",
        "other",
        "",
        "{hosts: ['reviews.bookinfo.svc.cluster.local'], http: [{directResponse: {status: 201}}]}",
    ));
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), "respond 201");
    world.apply(&mesh_config("defaultVirtualServiceExportTo: ['.']"));
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), ALL);
    assert_eq!(world.call(STRANGER, REVIEWS, "reviews.bookinfo").outcome(), "respond 201");
    assert_eq!(world.call(CALLER, REVIEWS, "unknown.example").outcome(), ALL);
    assert_eq!(world.call(CALLER, "1.2.3.4:9080", "unknown.example").outcome(), "passthrough");
    world.delete("ConfigMap", "istio-system", "istio");
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), "respond 201");
}

#[test]
fn a_name_with_a_dot_in_a_rule_is_no_short_name() {
    let mut world = world();
    for (name, host) in [("a", "reviews.bookinfo"), ("b", "reviews.bookinfo.svc")] {
        world.apply(&rules(
            name,
            "bookinfo",
            "",
            &format!("{{hosts: [{host}], http: [{{directResponse: {{status: 418}}}}]}}"),
        ));
    }
    for host in ["reviews", "reviews.bookinfo", "reviews.bookinfo.svc", "reviews.bookinfo.svc.cluster.local"]
    {
        assert_eq!(world.call(CALLER, REVIEWS, host).outcome(), ALL, "{host}");
    }
    // It is a name like any other where no service has it.
    world.apply(&rules(
        "c",
        "bookinfo",
        "",
        "{hosts: [nobody.here], http: [{directResponse: {status: 418}}]}",
    ));
    assert_eq!(world.call(CALLER, REVIEWS, "nobody.here").outcome(), "respond 418");
}

fn ownership(text: &str) -> String {
    mesh_config(text).replace("mesh: |", "weft: |").replace("name: istio", "name: weft")
}

fn told(world: &World) -> Vec<String> {
    let findings = rows::warnings(&world.snapshot);
    findings.iter().map(|f| format!("{} {} {}: {}", f.code, f.resource, f.path, f.message)).collect()
}

#[test]
fn rules_of_another_namespace_take_a_services_traffic_unless_hosts_are_owned() {
    let mut world = world();
    let stolen = "{hosts: [mine.example, reviews.bookinfo.svc.cluster.local], http: [{directResponse: {status: 418}}]}";
    world.apply(&rules("thief", "other", "", stolen));
    world.apply(&rules(
        "wide",
        "other",
        "",
        "{hosts: ['*.bookinfo.svc.cluster.local'], http: [{directResponse: {status: 419}}]}",
    ));
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), "respond 418");
    assert_eq!(world.call(CALLER, REVIEWS, "ratings").outcome(), "respond 419");
    let reviews = "reviews.bookinfo.svc.cluster.local";
    let cure = "of another namespace (put it there, limit it with exportTo: [.], or refuse all such with hostOwnership: namespace)";
    let expected = [
        format!("HostTaken VirtualService/other/thief spec.hosts[1]: takes the traffic of {reviews}, {cure}"),
        format!(
            "HostTaken VirtualService/other/wide spec.hosts[0]: takes the traffic of details.bookinfo.svc.cluster.local, \
             productpage.bookinfo.svc.cluster.local, ratings.bookinfo.svc.cluster.local and 1 more, {cure}"
        ),
    ];
    assert_eq!(told(&world), expected);

    world.apply(&mesh_config("outboundTrafficPolicy: {mode: REGISTRY_ONLY}"));
    world.apply(&ownership("hostOwnership: namespace"));
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), ALL);
    assert_eq!(world.call(STRANGER, REVIEWS, "reviews.bookinfo").outcome(), ALL);
    assert_eq!(world.call(CALLER, REVIEWS, "ratings").outcome(), "ratings[ratings-v1]");
    assert_eq!(world.call(CALLER, REVIEWS, "mine.example").outcome(), "respond 418", "nobody's host");
    assert_eq!(
        world.call(CALLER, REVIEWS, "unknown.example").outcome(),
        "blackhole",
        "MeshConfig stays in force"
    );
    let message = format!(
        "is not in force for {reviews}: of another namespace (hostOwnership is namespace; put it there)"
    );
    assert_eq!(told(&world)[0], format!("HostTaken VirtualService/other/thief spec.hosts[1]: {message}"));

    // Its own namespace's rules hold, and those of the mesh.
    world.apply(&rules(
        "own",
        "bookinfo",
        "2026-01-01T00:00:00Z",
        "{hosts: [reviews], http: [{directResponse: {status: 201}}]}",
    ));
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), "respond 201");
    let of_mesh = "{hosts: [ratings.bookinfo.svc.cluster.local], http: [{directResponse: {status: 202}}]}";
    world.apply(&rules("mesh", "istio-system", "", of_mesh));
    assert_eq!(world.call(CALLER, REVIEWS, "ratings").outcome(), "respond 202");

    // A Service that is gone leaves its name to nobody else.
    world.delete("VirtualService", "bookinfo", "own");
    world.delete("Service", "bookinfo", "reviews");
    assert_eq!(world.call(CALLER, REVIEWS, "reviews.bookinfo.svc.cluster.local").outcome(), "blackhole");

    // Without it all is as in Istio.
    world.delete("ConfigMap", "istio-system", "weft");
    assert_eq!(world.call(CALLER, REVIEWS, "reviews.bookinfo.svc.cluster.local").outcome(), "respond 418");
}

#[test]
fn rules_that_only_their_own_namespace_sees_are_its_own_business() {
    let mut world = world();
    world.apply(&rules(
        "own-calls",
        "other",
        "",
        "{exportTo: [.], hosts: [reviews.bookinfo.svc.cluster.local], http: [{directResponse: {status: 418}}]}",
    ));
    assert_eq!(world.call(STRANGER, REVIEWS, "reviews.bookinfo").outcome(), "respond 418");
    assert_eq!(world.call(CALLER, REVIEWS, "reviews").outcome(), ALL);
    assert_eq!(told(&world), [""; 0]);
}

#[test]
fn providers_are_found_by_the_names_that_mesh_config_may_use() {
    let world = world();
    let found =
        |name: &str, port| world.snapshot.named_cluster(name, port).map(|cluster| cluster.name.to_string());
    let reviews = Some("outbound|9080||reviews.bookinfo.svc.cluster.local".to_owned());
    for name in [
        "reviews.bookinfo.svc.cluster.local",
        "reviews.bookinfo.svc.cluster.local.",
        "reviews.bookinfo.svc",
        "reviews.bookinfo",
        "bookinfo/reviews",
        "bookinfo/reviews.bookinfo.svc.cluster.local",
    ] {
        assert_eq!(found(name, 9080), reviews, "{name}");
    }
    for (name, port) in
        [("reviews.bookinfo", 80), ("reviews", 9080), ("other/reviews", 9080), ("nobody.here", 9080), ("", 1)]
    {
        assert_eq!(found(name, port), None, "{name}:{port}");
    }
    // Whoever may see it.
    assert_eq!(found("hidden.other", 80).as_deref(), Some("outbound|80||hidden.other.svc.cluster.local"));
}
