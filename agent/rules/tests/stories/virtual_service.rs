//! Every field of a VirtualService's `http`, as tables.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use weft_rules::route::http_route::{Abort, HttpAction, TryOutcome};
use weft_rules::snapshot::HttpDecision;

use crate::support::{Call, World, shares};

const APP: &str = include_str!("bookinfo.yaml");
const CALLER: &str = "bookinfo/productpage-v1";
const REVIEWS: &str = "10.96.0.3:9080";

/// Bookinfo with one VirtualService on reviews; `http` is indented by two.
fn world(http: &str) -> World {
    let mut world = World::of(APP);
    world.apply(&format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: rules, namespace: bookinfo}}
spec:
  hosts: [reviews]
  http:
{http}"
    ));
    world
}

fn call<'a>(world: &'a World, path: &str) -> Call<'a> {
    world.call(CALLER, REVIEWS, &format!("reviews:9080{path}"))
}

/// Whether a request matches `condition`, the only entry of a route's match.
fn matches(condition: &str, headers: &[(&str, &str)], path: &str) -> bool {
    let world = world(&format!(
        "  - match: [{condition}]\n    route: [{{destination: {{host: reviews, subset: v1}}}}]"
    ));
    let call = headers.iter().fold(call(&world, path), |call, (name, value)| call.header(name, value));
    match call.decide() {
        HttpDecision::Route(_) => true,
        HttpDecision::NoRoute => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_line_of_a_header_is_a_value() {
    const LINES: &[(&str, &str)] = &[("x-env", "prod"), ("x-env", "canary")];
    for (condition, headers, expected) in [
        ("{headers: {x-env: {exact: canary}}}", LINES, true),
        ("{headers: {x-env: {exact: prod}}}", LINES, true),
        ("{headers: {x-env: {prefix: can}}}", LINES, true),
        ("{headers: {x-env: {regex: 'ca.+y'}}}", LINES, true),
        ("{headers: {x-env: {}}}", LINES, true),
        ("{headers: {x-env: {exact: 'prod,canary'}}}", LINES, false),
        ("{headers: {x-env: {exact: canary}}}", &[("x-env", "canary,prod")], false),
        ("{withoutHeaders: {x-env: {exact: canary}}}", LINES, false),
        ("{withoutHeaders: {x-env: {exact: blue}}}", LINES, true),
        ("{withoutHeaders: {x-env: {prefix: can}}}", LINES, false),
        ("{withoutHeaders: {x-env: {regex: '.*'}}}", &[], false),
        ("{withoutHeaders: {x-env: {}}}", LINES, false),
        (
            "{headers: {cookie: {regex: '^(.*?;)?(user=jason)(;.*)?$'}}}",
            &[("cookie", "a=b"), ("cookie", "user=jason"), ("cookie", "c=d")],
            false,
        ),
        (
            "{headers: {cookie: {regex: '^(.*?; ?)?(user=jason)(;.*)?$'}}}",
            &[("cookie", "a=b"), ("cookie", "user=jason"), ("cookie", "c=d")],
            true,
        ),
    ] {
        assert_eq!(matches(condition, headers, "/"), expected, "{condition} on {headers:?}");
    }
}

#[test]
fn uri_scheme_method_and_authority() {
    for (condition, path, expected) in [
        ("{uri: {exact: /a}}", "/a", true),
        ("{uri: {exact: /a}}", "/a?q=1", true),
        ("{uri: {exact: /a}}", "/A", false),
        ("{uri: {exact: /a}, ignoreUriCase: true}", "/A", true),
        ("{uri: {exact: /a}}", "/a/", false),
        ("{uri: {prefix: /a}}", "/abc", true),
        ("{uri: {prefix: /a/}}", "/abc", false),
        ("{uri: {prefix: /a}, ignoreUriCase: true}", "/ABC", true),
        ("{uri: {prefix: /abcd}, ignoreUriCase: true}", "/ab", false),
        ("{uri: {regex: '/v[0-9]+/.*'}}", "/v12/x?y", true),
        ("{uri: {regex: '/v[0-9]+'}}", "/v12/x", false),
        ("{uri: {regex: '.*\\?.*'}}", "/a?b", false),
        ("{scheme: {exact: http}}", "/", true),
        ("{scheme: {exact: https}}", "/", false),
        ("{method: {exact: GET}}", "/", true),
        ("{method: {regex: 'POST|PUT'}}", "/", false),
        ("{withoutHeaders: {':method': {exact: GET}}}", "/", false),
        ("{withoutHeaders: {':method': {exact: POST}}}", "/", true),
        ("{authority: {exact: 'reviews:9080'}}", "/", true),
        ("{authority: {exact: reviews}}", "/", false),
        ("{authority: {prefix: rev}}", "/", true),
        ("{authority: {prefix: Rev}}", "/", false),
        ("{port: 9080}", "/", true),
        ("{queryParams: {a: {exact: '1'}}}", "/?a=1", true),
        ("{queryParams: {a: {exact: '1'}}}", "/?A=1", false),
        ("{queryParams: {a: {exact: 'x y'}}}", "/?a=x%20y", false),
        ("{queryParams: {a: {prefix: x}}}", "/?b=1&a=xyz", true),
        ("{queryParams: {a: {regex: '\\d+'}}}", "/?a=12", true),
        ("{queryParams: {a: {}}}", "/?a", true),
        ("{queryParams: {a: {}}}", "/?b", false),
        ("{uri: {prefix: /a}, method: {exact: GET}, queryParams: {q: {}}}", "/a?q", true),
        ("{uri: {prefix: /a}, method: {exact: POST}, queryParams: {q: {}}}", "/a?q", false),
    ] {
        assert_eq!(matches(condition, &[], path), expected, "{condition} on {path}");
    }
}

#[test]
fn headers_there_and_not_there() {
    for (condition, value, expected) in [
        ("{headers: {x-user: {exact: jason}}}", "jason", true),
        ("{headers: {X-USER: {exact: jason}}}", "jason", true),
        ("{headers: {x-user: {exact: jason}}}", "Jason", false),
        ("{headers: {x-user: {prefix: ja}}}", "jason", true),
        ("{headers: {x-user: {regex: '^.+$'}}}", "x", true),
        ("{headers: {x-user: {regex: '^.+$'}}}", "", false),
        ("{headers: {x-user: {}}}", "", true),
        ("{headers: {x-none: {}}}", "x", false),
        ("{headers: {':method': {exact: GET}}}", "x", true),
        ("{withoutHeaders: {x-user: {}}}", "x", false),
        ("{withoutHeaders: {x-user: {regex: '*'}}}", "x", false),
        ("{withoutHeaders: {x-user: {exact: jason}}}", "other", true),
        ("{withoutHeaders: {x-user: {exact: jason}}}", "jason", false),
        ("{withoutHeaders: {x-none: {}}}", "x", true),
        ("{withoutHeaders: {x-none: {exact: jason}}}", "x", true),
        // An absent header counts as empty.
        ("{withoutHeaders: {x-none: {exact: ''}}}", "x", false),
        ("{withoutHeaders: {x-none: {regex: '.*'}}}", "x", false),
    ] {
        assert_eq!(matches(condition, &[("X-User", value)], "/"), expected, "{condition} with {value:?}");
    }
}

#[test]
fn several_entries_are_alternatives_and_the_first_route_wins() {
    let world = world(
        "
  - name: first
    match: [{uri: {exact: /a}, name: one}, {uri: {exact: /b}, name: two}]
    route: [{destination: {host: reviews, subset: v1}}]
  - match: [{uri: {prefix: /}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - route: [{destination: {host: reviews, subset: v3}}]",
    );
    assert_eq!(call(&world, "/a").outcome(), "reviews/v1[reviews-v1]");
    assert_eq!(call(&world, "/b").outcome(), "reviews/v1[reviews-v1]");
    assert_eq!(call(&world, "/c").outcome(), "reviews/v2[reviews-v2]");
    assert_eq!(&*call(&world, "/a").route().route.name, "first.one");
    assert_eq!(&*call(&world, "/b").route().route.name, "first.two");
    assert_eq!(call(&world, "/b").route().route.virtual_service.as_deref(), Some("bookinfo/rules"));
}

#[test]
fn who_calls_decides_which_routes_exist() {
    let world = world(
        "
  - match: [{sourceLabels: {app: productpage}, uri: {exact: /only}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{sourceNamespace: elsewhere}]
    route: [{destination: {host: reviews, subset: v3}}]",
    );
    assert_eq!(call(&world, "/only").outcome(), "reviews/v2[reviews-v2]");
    // Routes are there for this caller, and none matches.
    assert_eq!(call(&world, "/other").outcome(), "NR");
    // No route is there for this one: as if there were no VirtualService.
    let others = world.call("bookinfo/ratings-v1", REVIEWS, "reviews:9080/only").outcome();
    assert_eq!(others, "reviews[reviews-v1,reviews-v2,reviews-v3]");
}

#[test]
fn gateways_named_by_a_match_override_its_source() {
    let world = world(
        "
  - match: [{gateways: [mesh], sourceLabels: {app: nobody}, uri: {exact: /mesh}}]
    route: [{destination: {host: reviews, subset: v1}}]
  - match: [{gateways: [public], uri: {exact: /gateway}}]
    route: [{destination: {host: reviews, subset: v2}}]",
    );
    assert_eq!(call(&world, "/mesh").outcome(), "reviews/v1[reviews-v1]");
    assert_eq!(call(&world, "/gateway").outcome(), "NR");
}

#[test]
fn weights_are_shares() {
    let route = |weights: [i32; 3]| {
        world(&format!(
            "
  - route:
    - {{destination: {{host: reviews, subset: v1}}, weight: {}}}
    - {{destination: {{host: reviews, subset: v2}}, weight: {}}}
    - {{destination: {{host: reviews, subset: v3}}, weight: {}}}",
            weights[0], weights[1], weights[2]
        ))
    };
    let shares = |weights| shares(&call(&route(weights), "/").route(), 20_000);
    let even = shares([1, 1, 2]);
    assert!((4_700..5_300).contains(&even["v1"]) && (9_700..10_300).contains(&even["v3"]), "{even:?}");
    let canary = shares([95, 5, 0]);
    assert!((18_850..19_150).contains(&canary["v1"]) && !canary.contains_key("v3"), "{canary:?}");
}

#[test]
fn bad_references_fail_only_their_route() {
    let world = world(
        "
  - match: [{uri: {exact: /subset}}]
    route: [{destination: {host: reviews, subset: v9}}]
  - match: [{uri: {exact: /host}}]
    route: [{destination: {host: nowhere}}]
  - match: [{uri: {exact: /port}}]
    route: [{destination: {host: reviews, port: {number: 81}}}]
  - route: [{destination: {host: details}}]",
    );
    for (path, outcome) in [
        (
            "/subset",
            "no DestinationRule visible from namespace bookinfo defines subset v9 of reviews.bookinfo.svc.cluster.local",
        ),
        ("/host", "no service nowhere.bookinfo.svc.cluster.local is visible from namespace bookinfo"),
        ("/port", "service reviews.bookinfo.svc.cluster.local has no port 81"),
        ("/", "details[details-v1]"),
    ] {
        assert_eq!(call(&world, path).outcome(), outcome);
    }
}

#[test]
fn rewrites_and_header_operations_change_the_request() {
    let world = world(
        "
  - match: [{uri: {prefix: /api/}}]
    rewrite: {uri: /, authority: internal.example}
    headers:
      request: {set: {x-a: route}, add: {x-b: '2'}, remove: [x-secret]}
      response: {set: {x-r: route}, remove: [server]}
    route:
    - destination: {host: reviews, subset: v1}
      weight: 1
      headers:
        request: {set: {x-a: destination}, add: {x-b: '1'}}
        response: {add: {x-r: destination}}
    - {destination: {host: reviews, subset: v2}, weight: 0}",
    );
    let matched = call(&world, "/api/x?q=1").route();
    let mut request = call(&world, "/api/x?q=1").header("x-secret", "s").header("x-b", "0").parts();
    let chosen = matched.route.pick(1).unwrap();
    matched.route.rewrite_request(chosen, matched.matched_prefix, &mut request);
    assert_eq!(request.uri, "/x?q=1");
    let header = |name: &str| -> Vec<&str> {
        request.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    };
    assert_eq!(header("host"), ["internal.example"]);
    assert_eq!(header("x-envoy-original-host"), ["reviews:9080"]);
    assert_eq!(header("x-envoy-original-path"), ["/api/x?q=1"]);
    assert_eq!(header("x-a"), ["route"]);
    assert_eq!(header("x-b"), ["0", "1", "2"]);
    assert!(header("x-secret").is_empty());

    let mut response = HeaderMap::new();
    response.insert("server", "app".parse().unwrap());
    matched.route.rewrite_response(Some(chosen), &mut response);
    let values: Vec<_> = response.get_all("x-r").iter().collect();
    assert_eq!(values, ["route"]);
    assert!(!response.contains_key("server"));
    let mut response = HeaderMap::new();
    matched.route.rewrite_response(None, &mut response);
    assert_eq!(response["x-r"], "route");
}

#[test]
fn a_destinations_own_host_counts_where_the_route_sets_none() {
    let world = world(
        "
  - route:
    - destination: {host: reviews, subset: v1}
      headers: {request: {set: {':authority': one.example}}}",
    );
    let matched = call(&world, "/").route();
    let mut request = call(&world, "/").parts();
    matched.route.rewrite_request(matched.route.pick(1).unwrap(), matched.matched_prefix, &mut request);
    assert_eq!(request.headers["host"], "one.example");
    assert_eq!(request.uri, "/");
    assert!(!request.headers.contains_key("x-envoy-original-path"));
}

#[test]
fn redirects_and_direct_responses_answer() {
    let world = world(
        "
  - match: [{uri: {prefix: /old}}]
    redirect: {uri: /new, authority: shop.example, redirectCode: 302}
  - match: [{uri: {exact: /teapot}}]
    directResponse: {status: 418, body: {string: short and stout}}
    headers: {response: {set: {x-kind: pot}}}
  - directResponse: {status: 200, body: {bytes: aGVsbG8=}}",
    );
    let matched = call(&world, "/old/x?q").route();
    let HttpAction::Redirect(redirect) = &matched.route.action else { panic!("no redirect") };
    let location = redirect.location(&call(&world, "/old/x?q").parts(), matched.matched_prefix, "http", 9080);
    assert_eq!(location, (StatusCode::FOUND, "http://shop.example/new?q".into()));

    let matched = call(&world, "/teapot").route();
    let HttpAction::Respond(response) = &matched.route.action else { panic!("no response") };
    assert_eq!((response.status.as_u16(), &response.body[..]), (418, &b"short and stout"[..]));
    let mut headers = HeaderMap::new();
    matched.route.rewrite_response(None, &mut headers);
    assert_eq!(headers["x-kind"], "pot");

    let matched = call(&world, "/").route();
    let HttpAction::Respond(response) = &matched.route.action else { panic!("no response") };
    assert_eq!(&response.body[..], b"hello");
}

#[test]
fn timeouts_retries_faults_and_mirrors() {
    let world = world(
        "
  - match: [{uri: {exact: /all}}]
    timeout: 2s
    retries: {attempts: 5, perTryTimeout: 500ms, retryOn: '5xx'}
    fault: {delay: {fixedDelay: 7s, percentage: {value: 100}}, abort: {httpStatus: 555}}
    mirror: {host: details}
    mirrorPercentage: {value: 10}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {exact: /off}}]
    retries: {attempts: 0}
    route: [{destination: {host: reviews}}]
  - fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}
    mirrors:
    - {destination: {host: details}}
    - {destination: {host: ratings}, percentage: {value: 0}}
    route: [{destination: {host: reviews}}]",
    );
    let all = call(&world, "/all").route().route;
    assert_eq!(all.timeout, Some(Duration::from_secs(2)));
    let retry = all.retry.as_ref().unwrap();
    assert_eq!((retry.attempts, retry.per_try_timeout), (5, Some(Duration::from_millis(500))));
    let draw = all.fault.as_ref().unwrap().draw(1);
    assert_eq!((draw.delay, draw.abort), (Some(Duration::from_secs(7)), None));
    assert_eq!(all.mirrors.len(), 1);
    assert_eq!(&*all.mirrors[0].destination.host, "details.bookinfo.svc.cluster.local");
    let copies = (0..10_000).filter(|seed| all.mirrors[0].draws(0, *seed)).count();
    assert!((900..1_100).contains(&copies), "{copies}");

    assert!(call(&world, "/off").route().route.retry.is_none());

    let rest = call(&world, "/").route().route;
    assert_eq!(rest.fault.as_ref().unwrap().draw(1).abort, Some(Abort::Grpc(14)));
    assert_eq!(rest.mirrors.len(), 1);
    assert_eq!(rest.mirrors[0].parts_per_million, 1_000_000);
    assert_eq!(rest.timeout, None);
    let default = rest.retry.as_ref().unwrap();
    assert_eq!(default.attempts, 2);
    let none = HeaderMap::new();
    let unavailable = TryOutcome::Response { status: StatusCode::SERVICE_UNAVAILABLE, headers: &none };
    assert!(!default.retries(&unavailable));
    assert!(default.retries(&TryOutcome::ConnectFailure));
}

#[test]
fn cross_origin_requests_are_answered() {
    let world = world(
        "
  - corsPolicy:
      allowOrigins: [{prefix: 'https://'}]
      allowMethods: [POST]
      maxAge: 24h
    route: [{destination: {host: reviews}}]",
    );
    let route = call(&world, "/").route().route;
    let preflight = |origin: &str| {
        let call = call(&world, "/").method("OPTIONS").header("origin", origin);
        route.cors.as_ref().unwrap().preflight(&call.header("access-control-request-method", "POST").parts())
    };
    assert_eq!(preflight("https://a").unwrap()["access-control-max-age"], "86400");
    assert!(preflight("http://a").is_none());
}

#[test]
fn a_request_on_which_expressions_work_too_long_is_answered_by_no_route() {
    let mut world = World::of(APP);
    world.apply(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hard, namespace: bookinfo}
spec:
  hosts: [reviews]
  http:
  - {match: [{uri: {regex: '/(a|b)*a(a|b){1000}'}}], directResponse: {status: 201}}
  - {match: [{uri: {prefix: /r}}], rewrite: {uriRegexRewrite: {match: '(r(a|b)*){300}', rewrite: x}}, route: [{destination: {host: reviews}}]}
  - {directResponse: {status: 202}}
",
    );
    // Two letters in no order: each position is one that the expression has not seen yet.
    let noise = |length: u32| -> String {
        (0..length).map(|i| if i.wrapping_mul(2_654_435_761) >> 13 & 1 == 0 { 'a' } else { 'b' }).collect()
    };
    let ask = |path: String| {
        world.call("bookinfo/productpage-v1", "10.96.0.3:9080", &format!("reviews/{path}")).outcome()
    };
    assert_eq!(ask(noise(60_000)), "respond 500");
    assert_eq!(ask("a".repeat(3000)), "respond 201");
    assert_eq!(ask(noise(200)), "respond 202", "the next request is not the last one");
    assert_eq!(ask(format!("r{}", noise(60_000))), "respond 500", "nor is a path half rewritten");
    assert_eq!(ask("rab".to_owned()), "reviews[reviews-v1,reviews-v2,reviews-v3]");
}
