//! Whatever is written and whatever is sent: a decision, never a panic.

use std::sync::Arc;

use proptest::prelude::*;
use weft_api::istio::{
    CorsPolicy, Destination, HeaderOperations, Headers, HttpDirectResponse, HttpMatchRequest, HttpRedirect,
    HttpRewrite, HttpRoute, HttpRouteDestination, RegexRewrite, StringMatch, VirtualService,
    VirtualServiceSpec,
};
use weft_api::meta::ObjectMeta;
use weft_api::object::Object;
use weft_rules::compile::Change;
use weft_rules::route::http_route::HttpAction;
use weft_rules::snapshot::HttpDecision;

use crate::support::World;

const APP: &str = include_str!("bookinfo.yaml");

/// Text that is often of some use, and sometimes of none.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[/a-c*.%\\\\()\\[\\]?=:-]{0,8}",
        1 => prop::sample::select(vec!["/", "/a", "x-a", ":path", "host", "%REQ(x-a)%", "(a", "\\1", "é", ""])
            .prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn matcher() -> impl Strategy<Value = StringMatch> {
    (prop::option::of(text()), prop::option::of(text()), prop::option::of(text()))
        .prop_map(|(exact, prefix, regex)| StringMatch { exact, prefix, regex })
}

fn entry() -> impl Strategy<Value = HttpMatchRequest> {
    (
        prop::option::of(matcher()),
        prop::option::of(matcher()),
        prop::collection::btree_map(text(), matcher(), 0..2),
        prop::collection::btree_map(text(), matcher(), 0..2),
        prop::collection::btree_map(text(), matcher(), 0..2),
        any::<bool>(),
        prop::option::of(any::<u32>()),
    )
        .prop_map(|(uri, authority, headers, without_headers, query_params, ignore_uri_case, port)| {
            HttpMatchRequest {
                uri,
                authority,
                headers,
                without_headers,
                query_params,
                ignore_uri_case,
                port,
                ..HttpMatchRequest::default()
            }
        })
}

fn headers() -> impl Strategy<Value = Option<Headers>> {
    let operations = || {
        (
            prop::collection::btree_map(text(), text(), 0..2),
            prop::collection::btree_map(text(), text(), 0..2),
            prop::collection::vec(text(), 0..2),
        )
            .prop_map(|(set, add, remove)| HeaderOperations { set, add, remove })
    };
    prop::option::of((operations(), operations())).prop_map(|both| {
        both.map(|(request, response)| Headers { request: Some(request), response: Some(response) })
    })
}

fn route() -> impl Strategy<Value = HttpRoute> {
    let action = prop_oneof![
        3 => (prop::collection::vec((text(), any::<i32>(), headers()), 0..3), prop::option::of((text(), text())))
            .prop_map(|(destinations, regex)| HttpRoute {
                route: destinations
                    .into_iter()
                    .map(|(host, weight, headers)| HttpRouteDestination {
                        destination: Destination { host, ..Destination::default() },
                        weight,
                        headers,
                    })
                    .collect(),
                rewrite: regex.map(|(pattern, rewrite)| HttpRewrite {
                    uri: Some(rewrite.clone()),
                    authority: Some(pattern.clone()),
                    uri_regex_rewrite: pattern.starts_with('/').then_some(RegexRewrite { r#match: pattern, rewrite }),
                }),
                ..HttpRoute::default()
            }),
        1 => (text(), any::<u32>(), text()).prop_map(|(uri, port, authority)| HttpRoute {
            redirect: Some(HttpRedirect {
                uri: Some(uri.clone()),
                prefix_rewrite: Some(uri),
                port: Some(port),
                authority: Some(authority),
                ..HttpRedirect::default()
            }),
            ..HttpRoute::default()
        }),
        1 => any::<u32>().prop_map(|status| HttpRoute {
            direct_response: Some(HttpDirectResponse { status, body: None }),
            ..HttpRoute::default()
        }),
    ];
    (action, prop::collection::vec(entry(), 0..3), headers(), prop::option::of(matcher())).prop_map(
        |(route, entries, headers, origin)| HttpRoute {
            r#match: entries,
            headers,
            cors_policy: origin
                .map(|origin| CorsPolicy { allow_origins: vec![origin], ..CorsPolicy::default() }),
            ..route
        },
    )
}

fn request() -> impl Strategy<Value = http::request::Parts> {
    let value = prop::collection::vec(any::<u8>(), 0..8);
    (text(), text(), prop::collection::vec((text(), value), 0..4)).prop_map(|(path, host, headers)| {
        let mut request = http::Request::new(());
        *request.uri_mut() = path.parse().unwrap_or_default();
        for (name, value) in headers.into_iter().chain([("host".into(), host.into_bytes())]) {
            let name = http::HeaderName::try_from(name);
            if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(&value)) {
                request.headers_mut().append(name, value);
            }
        }
        request.into_parts().0
    })
}

proptest! {
    #[test]
    fn every_request_gets_a_decision(
        routes in prop::collection::vec(route(), 1..4),
        host in prop_oneof![Just("reviews".to_owned()), text()],
        requests in prop::collection::vec(request(), 1..4),
        seed in any::<u64>(),
    ) {
        let mut world = World::of(APP);
        let rules = VirtualService {
            metadata: ObjectMeta { name: "r".into(), namespace: "bookinfo".into(), ..ObjectMeta::default() },
            spec: VirtualServiceSpec { hosts: vec!["reviews".into(), host], http: routes, ..Default::default() },
        };
        world.snapshot = world.compiler.apply(vec![Change::Put(Object::VirtualService(Arc::new(rules)))]);
        let caller = world.pod("bookinfo/productpage-v1");
        let dst = "10.96.0.3:9080".parse().unwrap();
        for parts in requests.into_iter().chain([world.call("bookinfo/productpage-v1", "10.96.0.3:9080", "reviews/a").parts()]) {
            let HttpDecision::Route(matched) = world.snapshot.route_http(&caller, dst, &parts) else { continue };
            let route = &matched.route;
            let mut changed = parts.clone();
            if let Some(chosen) = route.pick(seed) {
                route.rewrite_request(chosen, matched.matched_prefix, &mut changed);
                let _ = world.snapshot.cluster(&caller, &chosen.destination, 9080);
            }
            if let HttpAction::Redirect(redirect) = &route.action {
                redirect.location(&parts, matched.matched_prefix, "http", 9080);
            }
            if let Some(cors) = &route.cors {
                cors.preflight(&parts);
                cors.decorate(&parts.headers, &mut changed.headers);
            }
            route.rewrite_response(None, &mut changed.headers);
        }
        weft_rules::rows::routes(&world.snapshot);
    }
}
