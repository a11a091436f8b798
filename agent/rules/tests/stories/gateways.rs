//! What a gateway pod serves: which Gateways select it, which VirtualServices are bound to those, host by host.

use std::sync::Arc;

use weft_api::admin::{ExplainRequest, Explanation};
use weft_api::istio::Termination;
use weft_rules::explain;
use weft_rules::route::gateway::{AtServerName, GatewayPlace};
use weft_rules::route::http_route::HttpAction;
use weft_rules::route::tcp_route::TcpDecision;
use weft_rules::rows;
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
    match world.snapshot.route_at_gateway(&pod, &GatewayPlace { port: served, tls: None }, &parts) {
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
        let place = GatewayPlace { port: served, tls: None };
        let parts = world.call(&pod.key, "10.2.0.1:80", "h/").parts();
        let HttpDecision::Route(matched) = world.snapshot.route_at_gateway(&pod, &place, &parts) else {
            panic!("no route")
        };
        let chosen = matched.route.pick(0).expect("a destination");
        let cluster =
            world.snapshot.cluster_at_gateway(&pod, served, &chosen.destination).expect("a cluster");
        let ports: Vec<u16> = cluster.endpoints.iter().map(|endpoint| endpoint.address.port()).collect();
        assert_eq!(ports, [port], "{host}");
    }
}

/// What `weft explain POD URL` says; `client`: with `--from-address`.
fn told(world: &World, pod: &str, client: Option<&str>, url: &str) -> Explanation {
    let request = ExplainRequest {
        from: pod.into(),
        from_address: client.map(str::to_owned),
        to: url.into(),
        ..ExplainRequest::default()
    };
    explain::answer(&world.snapshot, &request, true).unwrap()
}

const EDGE: &str = "{hosts: [shop.example], gateways: [gw], http: [\
    {name: api, match: [{uri: {prefix: /api/}}], rewrite: {uri: /}, timeout: 3s, route: [{destination: {host: shop}}]}, \
    {match: [{gateways: [mesh]}], route: [{destination: {host: two}}]}, \
    {match: [{uri: {prefix: /old}}], redirect: {uri: /new}}]}";

#[test]
fn explain_tells_what_a_gateway_does_with_a_request_from_outside() {
    let mut world = World::of(&(PODS.to_owned() + &plain("shop", "'*.example', shop.example")));
    world.apply(&rules("shop", "edge", "2024-01-01T00:00:00Z", EDGE));
    world.apply(&rules(
        "shop",
        "late",
        "2024-01-02T00:00:00Z",
        &format!("{{hosts: [shop.example], gateways: [gw], {}}}", to("two")),
    ));
    let answer = told(&world, "pod/ingress-1.istio-system", None, "http://shop.example/api/items");
    let matched = answer.matched.clone().unwrap();
    assert_eq!((matched.virtual_service.as_str(), matched.route.as_str()), ("shop/edge", "api"));
    assert_eq!((answer.action.as_str(), answer.timeout.as_deref()), ("route", Some("3s")));
    // The Service's only port, not the gateway's.
    assert_eq!(answer.backends[0].endpoints, ["10.2.0.2:9080"]);
    assert_eq!(
        answer.notes,
        [
            "pod istio-system/ingress-1 serves port 80 at its own port 8080 by Gateway shop/gw",
            "http[0] of shop/edge matched by uri starting with \"/api/\"",
            "http[1] of shop/edge does not match: is for mesh only",
            "http[2] of shop/edge does not match: wants uri starting with \"/old\", the path is \"/api/items\"",
            "VirtualService shop/late serves the host too, after shop/edge",
            "the path becomes /items",
        ]
    );
    // The oldest has no route for it: the next one is asked, as Envoy has them in one list.
    let answer = told(&world, "ingress-1.istio-system", None, "http://shop.example/else");
    assert_eq!(answer.matched.unwrap().virtual_service, "shop/late");
    let answer = told(&world, "ingress-1.istio-system", None, "shop.example/old");
    assert_eq!(answer.action, "redirect 301 http://shop.example/new");

    let answer = told(&world, "ingress-1.istio-system", None, "http://nobody.test/");
    assert_eq!((answer.action.as_str(), answer.matched), ("notFound", None));
    let last = answer.notes.last().unwrap();
    assert_eq!(
        last,
        "404: no VirtualService bound to shop/gw serves the host nobody.test; hosts served: shop.example"
    );
    let answer = told(&world, "ingress-1.istio-system", None, "https://shop.example/");
    assert_eq!(answer.action, "passthrough");
    assert!(answer.notes[0].contains("port 443, but port 80 at its own port 8080"), "{:?}", answer.notes);
    // What decides for real requests decides here.
    for url in ["shop.example/api/items", "shop.example/else", "shop.example/old", "nobody.test/"] {
        let route = told(&world, "ingress-1.istio-system", None, url).matched.map(|matched| matched.route);
        let decided = ask(&world, 8080, url);
        let same = match decided.as_str() {
            "NR" => route.is_none(),
            name => route.is_some_and(|route| route == name || name.starts_with("301") && route == "http[2]"),
        };
        assert!(same, "{url}: {decided}");
    }
}

#[test]
fn explain_asks_the_gateways_own_policies_first_and_its_destinations_after() {
    let mut world = World::of(&(PODS.to_owned() + &plain("shop", "'*'")));
    world.apply(&rules("shop", "all", "", &format!("{{hosts: ['*'], gateways: [gw], {}}}", to("shop"))));
    world.apply(
        "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: office, namespace: istio-system}
spec: {selector: {matchLabels: {istio: ingressgateway}}, rules: [{from: [{source: {ipBlocks: [203.0.113.0/24]}}]}]}
",
    );
    let gateway = "pod/ingress-1.istio-system";
    let answer = told(&world, gateway, Some("203.0.113.7"), "http://any.test/");
    assert_eq!(answer.action, "route", "STRICT is not for what comes to a gateway: {:?}", answer.notes);
    assert_eq!(answer.policies[0].name, "AuthorizationPolicy/istio-system/office");
    assert_eq!(answer.policies[0].decided, "allowed by rules[0]");
    let answer = told(&world, gateway, Some("198.51.100.1"), "http://any.test/");
    assert_eq!((answer.action.as_str(), answer.matched.is_none()), ("deny", true));
    assert!(answer.notes.last().unwrap().starts_with("403 RBAC: access denied"), "{:?}", answer.notes);
    let unsaid = told(&world, gateway, None, "http://any.test/");
    assert!(unsaid.notes.iter().any(|note| note.contains("--from-address")), "{:?}", unsaid.notes);

    // Behind the gateway, the pod is who calls.
    world
        .apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {weft.dev/mesh: enabled}}}");
    world.apply(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: none-from-outside, namespace: shop}
spec: {action: DENY, rules: [{from: [{source: {namespaces: [istio-system]}}]}]}
",
    );
    let answer = told(&world, gateway, Some("203.0.113.7"), "http://any.test/");
    assert_eq!(answer.action, "deny");
    assert_eq!(answer.matched.unwrap().virtual_service, "shop/all");
    assert_eq!(answer.policies.last().unwrap().decided, "denied by rules[0]");
}

#[test]
fn explain_of_a_call_to_a_gateway_says_that_it_is_one() {
    let mut world = World::of(&(PODS.to_owned() + &plain("shop", "'*'")));
    world.apply(&rules("shop", "all", "", &format!("{{hosts: ['*'], gateways: [gw], {}}}", to("shop"))));
    world.apply(
        "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
",
    );
    let stranger = ExplainRequest {
        from_address: Some("203.0.113.7".into()),
        to: "ingress.istio-system".into(),
        ..ExplainRequest::default()
    };
    for request in [
        stranger.clone(),
        ExplainRequest { to: "10.2.0.1:8080".into(), ..stranger },
        ExplainRequest {
            from: "app.shop".into(),
            to: "ingress.istio-system".into(),
            ..ExplainRequest::default()
        },
    ] {
        let answer = explain::answer(&world.snapshot, &request, true).unwrap();
        assert_ne!(answer.action, "deny", "{request:?}: {:?}", answer.notes);
        let last = answer.notes.last().unwrap();
        assert!(last.starts_with("pod/ingress-1.istio-system is a gateway"), "{request:?}: {last}");
    }
    let both = ExplainRequest {
        from: "app.shop".into(),
        from_address: Some("203.0.113.7".into()),
        to: "shop".into(),
        ..ExplainRequest::default()
    };
    let error = explain::answer(&world.snapshot, &both, true).unwrap_err();
    assert!(error.to_string().contains("shop/app is no gateway"), "{error}");
}

#[test]
fn what_matches_everything_comes_after_all_other_routes_of_a_host() {
    let mut world = World::of(&(PODS.to_owned() + &plain("shop", "'*'")));
    let route = |name: &str, matches: &str| {
        format!("{{name: {name}, {matches} route: [{{destination: {{host: shop}}}}]}}")
    };
    let all =
        |routes: &[String]| format!("{{hosts: ['*'], gateways: [shop/gw], http: [{}]}}", routes.join(", "));
    let old = [
        route("a", "match: [{uri: {prefix: /a}}],"),
        route("rest", ""),
        route("dead", "match: [{uri: {prefix: /dead}}],"),
    ];
    world.apply(&rules("shop", "old", "2024-01-01T00:00:00Z", &all(&old)));
    let young = [
        route("b", "match: [{uri: {prefix: /b}}, {uri: {prefix: /}}],"),
        route("behind", "match: [{uri: {prefix: /later}}],"),
    ];
    world.apply(&rules("shop", "young", "2024-01-02T00:00:00Z", &all(&young)));
    let others = [
        // Not everything: one of two methods, those with a header, a path by regex.
        route("get", "match: [{uri: {prefix: /}, method: {exact: PUT}}],"),
        route("header", "match: [{headers: {x: {}}}],"),
        route("regex", "match: [{uri: {regex: '/re.*'}}],"),
        route("late", "match: [{uri: {prefix: /}}],"),
    ];
    world.apply(&rules("shop", "youngest", "2024-01-03T00:00:00Z", &all(&others)));
    for (url, expected) in [
        ("h/a/1", "a"),
        ("h/b", "b"),
        ("h/re1", "regex"),
        ("h/other", "rest"),
        // Istio makes no routes of what stands behind one that matches everything.
        ("h/dead", "rest"),
        ("h/later", "rest"),
    ] {
        assert_eq!(ask(&world, 8080, url), expected, "{url}");
    }
    world.delete("VirtualService", "shop", "old");
    assert_eq!(ask(&world, 8080, "h/re1"), "regex");
    assert_eq!(ask(&world, 8080, "h/other"), "b");
    world.delete("VirtualService", "shop", "young");
    assert_eq!(ask(&world, 8080, "h/other"), "late");
}

#[test]
fn explain_tells_who_comes_last() {
    let mut world = World::of(&(PODS.to_owned() + &plain("shop", "'*'")));
    let spec = |matches: &str| {
        format!(
            "{{hosts: ['*'], gateways: [shop/gw], http: [{{{matches} route: [{{destination: {{host: shop}}}}]}}]}}"
        )
    };
    world.apply(&rules("shop", "old", "2024-01-01T00:00:00Z", &spec("")));
    world.apply(&rules("shop", "young", "2024-01-02T00:00:00Z", &spec("match: [{uri: {prefix: /b}}],")));
    let question = ExplainRequest {
        from: "pod/ingress-1.istio-system".into(),
        to: "http://h/b".into(),
        ..ExplainRequest::default()
    };
    let explanation = explain::answer(&world.snapshot, &question, true).unwrap();
    assert_eq!(explanation.matched.map(|matched| matched.virtual_service).as_deref(), Some("shop/young"));
    let note =
        "VirtualService shop/old has a route that matches everything: it comes after those of shop/young";
    assert!(explanation.notes.iter().any(|told| told == note), "{:?}", explanation.notes);
}

#[test]
fn a_subset_that_the_gateway_does_not_see_is_told() {
    let mut world = World::of(&(PODS.to_owned() + &plain("istio-system", "'*'")));
    world.apply(&rules(
        "front",
        "shop",
        "",
        "{hosts: [shop.example], gateways: [istio-system/gw], http: [{name: v1, route: [{destination: {host: \
         shop.shop.svc.cluster.local, subset: v1}}]}]}",
    ));
    let destination_rule = |namespace: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: shop, namespace: {namespace}}}\nspec: \
             {{host: shop.shop.svc.cluster.local, subsets: [{{name: v1}}]}}\n"
        )
    };
    world.apply(&destination_rule("front"));
    let row = |world: &World| {
        let rows = rows::routes(&world.snapshot);
        let row =
            rows.into_iter().find(|row| row.virtual_service == "shop").expect("gateway routes are listed");
        assert_eq!(
            (&*row.namespace, row.gateways, row.index),
            ("front", vec!["istio-system/gw".to_owned()], 0)
        );
        row.notes
    };
    let why = "at gateway istio-system/ingress-1: 503: no DestinationRule visible from namespace istio-system defines subset v1 of \
               shop.shop.svc.cluster.local";
    assert_eq!(row(&world), [why]);
    let findings = rows::warnings(&world.snapshot);
    let told: Vec<_> =
        findings.iter().map(|f| format!("{} {} {} {}", f.severity, f.code, f.resource, f.path)).collect();
    assert_eq!(told, ["warning Unroutable VirtualService/front/shop spec.http[0]"]);
    assert_eq!(findings[0].message, why);
    // Where the service is, it is seen.
    world.apply(&destination_rule("shop"));
    assert_eq!(row(&world), [""; 0]);
    assert_eq!(rows::warnings(&world.snapshot).len(), 0);
}

/// Where the gateway sends a connection of bytes, for a server of this name: the destination and by whose rule, `NR`, or
/// `closed`.
fn connect(world: &World, port: u16, name: &str) -> String {
    let pod = world.pod("istio-system/ingress-1");
    let Some(served) = world.snapshot.gateway_port(&pod.key, port) else { return "closed".into() };
    let name = Some(name).filter(|name| !name.is_empty());
    match world.snapshot.route_tcp_at_gateway(&pod, served, name, 0) {
        TcpDecision::Forward { destination, virtual_service } => {
            let port = world.snapshot.cluster_at_gateway(&pod, served, &destination);
            let port = port.map_or("nowhere".into(), |cluster| cluster.name.to_string());
            format!("{port} by {}", virtual_service.as_deref().unwrap_or("nobody"))
        }
        TcpDecision::NoRoute => "NR".into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn bytes_at_a_gateway_go_where_the_oldest_rule_for_its_port_says() {
    let servers = "{selector: {istio: ingressgateway}, servers: [\
        {port: {number: 3306, name: db, protocol: TCP}, hosts: ['*']}, \
        {port: {number: 27017, name: mongo, protocol: MONGO}, hosts: ['shop/*']}]}";
    let mut world = World::of(&(PODS.to_owned() + &gateway("shop", "gw", servers)));
    assert_eq!(connect(&world, 3306, ""), "NR", "nothing is bound to it");
    let spec = |matches: &str, host: &str| {
        format!(
            "{{hosts: ['*'], gateways: [shop/gw], tcp: [{{match: [{matches}], route: [{{destination: {{host: {host}.shop.svc.cluster.local}}}}]}}]}}"
        )
    };
    world.apply(&rules("shop", "young", "2026-02-01T00:00:00Z", &spec("{port: 3306}", "shop")));
    world.apply(&rules("other", "old", "2026-01-01T00:00:00Z", &spec("{port: 27017}, {port: 5432}", "shop")));
    let only = "outbound|9080||shop.shop.svc.cluster.local";
    assert_eq!(connect(&world, 3306, ""), format!("{only} by shop/young"));
    assert_eq!(connect(&world, 27017, ""), "NR", "the server is for namespace shop alone");
    // Whose pod the gateway is, and where it is called at, is not asked there, as in Istio.
    let unasked = "{port: 27017, sourceLabels: {app: none}, destinationSubnets: [10.9.0.0/16]}";
    world.apply(&rules("shop", "mongo", "2026-01-01T00:00:00Z", &spec(unasked, "shop")));
    assert_eq!(connect(&world, 27017, ""), format!("{only} by shop/mongo"));
    for (of, expected) in [("shop/gw", "shop/older"), ("mesh", "shop/young"), ("other/gw", "shop/young")] {
        let matches = format!("{{gateways: [{of}]}}");
        world.apply(&rules("shop", "older", "2025-01-01T00:00:00Z", &spec(&matches, "shop")));
        assert_eq!(connect(&world, 3306, ""), format!("{only} by {expected}"), "{of}");
    }
    world.delete("VirtualService", "shop", "older");
    world.delete("VirtualService", "shop", "young");
    assert_eq!(connect(&world, 3306, ""), "NR");
}

#[test]
fn tls_passes_a_gateway_by_its_server_name() {
    let servers = "{selector: {istio: ingressgateway}, servers: [\
        {port: {number: 443, name: tls, protocol: TLS}, hosts: ['*.example'], tls: {mode: PASSTHROUGH}}, \
        {port: {number: 443, name: https, protocol: HTTPS}, hosts: ['a.test'], tls: {mode: PASSTHROUGH}}, \
        {port: {number: 444, name: auto, protocol: TLS}, hosts: ['*'], tls: {mode: AUTO_PASSTHROUGH}}]}";
    let mut world = World::of(&(PODS.to_owned() + &gateway("shop", "gw", servers)));
    let spec = |hosts: &str, names: &str, to: &str| {
        format!(
            "{{hosts: [{hosts}], gateways: [gw], tls: [{{match: [{{sniHosts: [{names}]}}], route: [{{destination: {to}}}]}}]}}"
        )
    };
    let two = |port: u16| format!("{{host: two, port: {{number: {port}}}}}");
    world.apply(&rules("shop", "wide", "", &spec("'*.example'", "'*.example'", &two(80))));
    world.apply(&rules("shop", "exact", "", &spec("one.example, a.test", "one.example, a.test", &two(81))));
    world.apply(&rules("shop", "unserved", "", &spec("b.test", "b.test", &two(81))));
    let at = |name: &str| connect(&world, 443, name);
    assert_eq!(at("other.example"), "outbound|80||two.shop.svc.cluster.local by shop/wide");
    assert_eq!(at("one.example"), "outbound|81||two.shop.svc.cluster.local by shop/exact");
    assert_eq!(at("a.test"), "outbound|81||two.shop.svc.cluster.local by shop/exact");
    assert_eq!((at("b.test"), at("example"), at("")), ("NR".into(), "NR".into(), "NR".into()));
    assert_eq!(connect(&world, 444, "x.example"), "closed", "that is not served yet");
    let told = explain_at(&world, "one.example:443");
    assert_eq!((&*told.action, told.matched.unwrap().route), ("route", "tls[0]".to_owned()));
    let told = explain_at(&world, "b.test:443");
    assert_eq!(told.action, "notFound");
    assert!(told.notes.iter().any(|note| note.contains("asked for: b.test")), "{:?}", told.notes);
}

/// What the gateway does with a request on a connection of TLS: how TLS ends and the route's name, `NR`, `misdirected`, or what
/// becomes of TLS that does not end.
fn ask_tls(world: &World, name: &str, host: &str) -> String {
    let pod = world.pod("istio-system/ingress-1");
    let served = world.snapshot.gateway_port(&pod.key, 443).expect("served");
    let name = Some(name).filter(|name| !name.is_empty());
    let termination = match served.at_server_name(name) {
        AtServerName::Ends(termination) => termination,
        AtServerName::Passed => return "passed".into(),
        AtServerName::Nobody => return "nobody".into(),
    };
    request_tls(world, name, &termination, host)
}

/// The same, of a connection whose TLS has ended before.
fn request_tls(world: &World, name: Option<&str>, termination: &Arc<Termination>, host: &str) -> String {
    let pod = world.pod("istio-system/ingress-1");
    let served = world.snapshot.gateway_port(&pod.key, 443).expect("served");
    let parts = world.call(&pod.key, "10.2.0.1:80", &format!("{host}/")).parts();
    let place = GatewayPlace { port: served, tls: Some((name, termination)) };
    match world.snapshot.route_at_gateway(&pod, &place, &parts) {
        HttpDecision::Route(matched) => {
            let by = termination.settings.credential_name.as_deref().unwrap_or("none");
            format!("{by}: {}", matched.route.name)
        }
        HttpDecision::NoRoute => "NR".into(),
        HttpDecision::Misdirected => "misdirected".into(),
        other => panic!("{other:?}"),
    }
}

fn https(namespace: &str, name: &str, servers: &[(&str, &str)]) -> String {
    let servers: Vec<String> = (servers.iter().enumerate())
        .map(|(at, (host, tls))| {
            format!(
                "{{port: {{number: 443, name: p{at}, protocol: HTTPS}}, hosts: ['{host}'], tls: {{{tls}}}}}"
            )
        })
        .collect();
    let spec = format!("{{selector: {{istio: ingressgateway}}, servers: [{}]}}", servers.join(", "));
    gateway(namespace, name, &spec)
}

#[test]
fn tls_ends_where_the_most_specific_server_says() {
    let servers = [
        ("one.example", "mode: SIMPLE, credentialName: one"),
        ("*.example", "mode: SIMPLE, credentialName: all"),
        ("*", "mode: PASSTHROUGH"),
    ];
    let mut world = World::of(&(PODS.to_owned() + &https("shop", "gw", &servers)));
    world.apply(&rules(
        "shop",
        "all",
        "",
        &format!("{{hosts: ['*.example'], gateways: [gw], {}}}", to("shop")),
    ));
    world.apply(&rules(
        "shop",
        "through",
        "",
        "{hosts: ['*'], gateways: [gw], tls: [{match: [{sniHosts: ['x.two.example', '*.test']}], route: [{destination: {host: two}}]}]}",
    ));
    for (name, host, expected) in [
        ("one.example", "one.example", "one: shop"),
        ("one.example", "ONE.example:443", "one: shop"),
        ("two.example", "two.example", "all: shop"),
        ("two.example", "three.example", "all: shop"),
        // Another server has the host, and may ask clients for something.
        ("two.example", "one.example", "misdirected"),
        ("one.example", "two.example", "misdirected"),
        ("one.example", "a.test", "misdirected"),
        ("one.example", "elsewhere", "NR"),
        ("one.example", "10.0.0.1", "NR"),
        // More specific than the server of `*.example`.
        ("x.two.example", "", "passed"),
        ("a.test", "", "passed"),
        ("elsewhere", "", "nobody"),
        ("", "", "nobody"),
    ] {
        assert_eq!(ask_tls(&world, name, host), expected, "{name}, {host}");
    }
    let told = explain_at(&world, "https://one.example/");
    assert_eq!((&*told.action, told.matched.unwrap().virtual_service), ("route", "shop/all".to_owned()));
    assert!(told.notes.iter().any(|note| note.contains("by Secret istio-system/one")), "{:?}", told.notes);

    // Who serves every name is for those who ask for none, too.
    world.apply(&https("shop", "gw", &[("*", "mode: SIMPLE, credentialName: all")]));
    assert_eq!(
        (ask_tls(&world, "", "a.example"), ask_tls(&world, "b.test", "a.example")),
        ("all: shop".into(), "all: shop".into())
    );
}

#[test]
fn a_server_name_is_the_oldest_servers() {
    let mut world = World::of(
        &(PODS.to_owned() + &https("shop", "gw", &[("one.example", "mode: SIMPLE, credentialName: one")])),
    );
    world.apply(&rules(
        "shop",
        "all",
        "",
        &format!("{{hosts: ['*.example'], gateways: [gw], {}}}", to("shop")),
    ));
    let other = https(
        "a",
        "a",
        &[
            ("one.example", "mode: SIMPLE, credentialName: evil"),
            ("two.example", "mode: SIMPLE, credentialName: two"),
        ],
    )
    .replace("{name: a,", "{name: a, creationTimestamp: '2026-01-01T00:00:00Z',");
    world.apply(&other);
    assert_eq!(ask_tls(&world, "one.example", "one.example"), "one: shop");
    assert_eq!(ask_tls(&world, "two.example", "two.example"), "NR");
    let told: Vec<String> = rows::warnings(&world.snapshot).iter().map(ToString::to_string).collect();
    assert!(
        matches!(&*told, [one] if one.contains("servers[0] of Gateway a/a is not served: TLS for one.example at its port is Gateway shop/gw's")),
        "{told:?}"
    );
    world.delete("Gateway", "shop", "gw");
    assert_eq!(ask_tls(&world, "one.example", "one.example"), "NR", "nothing is bound to the other");
}

#[test]
fn who_was_let_in_without_proof_comes_anew_when_a_server_asks_for_it() {
    let server = |tls: &str| https("shop", "gw", &[("one.example", tls)]);
    let mut world = World::of(&(PODS.to_owned() + &server("mode: SIMPLE, credentialName: one")));
    world.apply(&rules(
        "shop",
        "all",
        "",
        &format!("{{hosts: ['*.example'], gateways: [gw], {}}}", to("shop")),
    ));
    let pod = world.pod("istio-system/ingress-1");
    let ended = |world: &World| match world
        .snapshot
        .gateway_port(&pod.key, 443)
        .unwrap()
        .at_server_name(Some("one.example"))
    {
        AtServerName::Ends(termination) => termination,
        other => panic!("{other:?}"),
    };
    let before = ended(&world);
    let now =
        |world: &World, tls: &Arc<Termination>| request_tls(world, Some("one.example"), tls, "one.example");
    // Nothing else is asked of clients.
    world.apply(&server("mode: SIMPLE, credentialName: two, minProtocolVersion: TLSV1_3"));
    assert_eq!(now(&world, &before), "one: shop");
    for tls in [
        "mode: MUTUAL, credentialName: one",
        "mode: OPTIONAL_MUTUAL, credentialName: one",
        "mode: PASSTHROUGH",
    ] {
        world.apply(&server(tls));
        assert_eq!(now(&world, &before), "misdirected", "{tls}");
    }
    world.apply(&server("mode: MUTUAL, credentialName: one"));
    let mutual = ended(&world);
    assert_eq!(now(&world, &mutual), "one: shop");
    for tls in
        ["mode: MUTUAL, credentialName: two", "mode: MUTUAL, credentialName: one, subjectAltNames: [a]"]
    {
        world.apply(&server(tls));
        assert_eq!(now(&world, &mutual), "misdirected", "{tls}");
    }
    world.delete("Gateway", "shop", "gw");
    world.apply(&plain("shop", "'*'"));
}

fn explain_at(world: &World, to: &str) -> Explanation {
    let request =
        ExplainRequest { from: "ingress-1.istio-system".into(), to: to.into(), ..ExplainRequest::default() };
    explain::answer(&world.snapshot, &request, false).unwrap()
}

#[test]
fn a_server_whose_port_is_anothers_is_named() {
    let servers = |port: &str| {
        format!("{{selector: {{istio: ingressgateway}}, servers: [{{port: {port}, hosts: ['*']}}]}}")
    };
    let mut world = World::of(&(PODS.to_owned() + &plain("shop", "'*'")));
    let bytes = servers("{number: 80, name: bytes, protocol: TCP}");
    world.apply(&gateway("shop", "later", &bytes));
    // The pod's own number, and the port that its Service leads to.
    world.apply(&gateway("shop", "own", &servers("{number: 8080, name: http, protocol: HTTP}")));
    let told: Vec<String> = rows::warnings(&world.snapshot).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "warning ProtocolMismatch Gateway/shop/later spec.servers[0].port: servers[0] of Gateway shop/later is not served: its \
             port is read as TCP, and Gateway shop/gw has it as HTTP (give one of them another port)",
            "warning ProtocolMismatch Gateway/shop/own spec.servers[0].port: servers[0] of Gateway shop/own is not served: the pod's \
             port 8080 serves port 80 of Gateway shop/gw already (give the Service another targetPort)",
        ]
    );
    let rows = rows::gateways(&world.snapshot);
    let [row] = &*rows else { panic!("{rows:?}") };
    assert_eq!((&*row.pod, row.port, row.pod_port, &*row.protocol), ("ingress-1", 80, 8080, "HTTP"));
    assert_eq!((row.gateways.join(","), row.notes.len()), ("shop/gw".to_owned(), 3), "{:?}", row.notes);
    // The oldest has it, whatever its name: others may select everybody's gateway.
    let newer = gateway("a", "a", &bytes)
        .replace("{name: a,", "{name: a, creationTimestamp: '2026-01-01T00:00:00Z',");
    world.apply(&newer);
    assert_eq!(rows::gateways(&world.snapshot)[0].protocol, "HTTP");
    world.delete("Gateway", "a", "a");
    world.delete("Gateway", "shop", "gw");
    world.delete("Gateway", "shop", "own");
    assert_eq!(rows::warnings(&world.snapshot), []);
    assert_eq!(rows::gateways(&world.snapshot)[0].protocol, "TCP");
}
