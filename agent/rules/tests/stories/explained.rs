//! What `weft explain` says.

use weft_api::admin::{ExplainRequest, Explanation};
use weft_rules::explain::answer;

use crate::support::World;

const APP: &str = include_str!("bookinfo.yaml");

fn explain(world: &World, from: &str, to: &str, headers: &[(&str, &str)]) -> Explanation {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let request = ExplainRequest { from: from.into(), to: to.into(), headers, ..ExplainRequest::default() };
    answer(&world.snapshot, &request).unwrap()
}

fn jason() -> World {
    let mut world = World::of(APP);
    world.apply(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: bookinfo}
spec:
  hosts: [reviews]
  http:
  - name: test
    match: [{headers: {end-user: {exact: jason}}}]
    timeout: 3s
    fault: {delay: {fixedDelay: 7s, percentage: {value: 100}}}
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{sourceLabels: {app: ratings}}]
    route: [{destination: {host: reviews, subset: v3}}]
  - route: [{destination: {host: reviews, subset: v1}}]
",
    );
    world
}

#[test]
fn a_route_by_header_is_told_with_its_near_misses() {
    let world = jason();
    let told =
        explain(&world, "deploy/productpage-v1.bookinfo", "http://reviews:9080/", &[("end-user", "jason")]);
    let matched = told.matched.unwrap();
    assert_eq!((matched.virtual_service.as_str(), matched.route.as_str()), ("bookinfo/reviews", "test"));
    assert_eq!(told.action, "route");
    assert_eq!(told.backends[0].subset.as_deref(), Some("v2"));
    assert_eq!(told.backends[0].endpoints, ["10.1.0.4:9080"]);
    assert_eq!(told.timeout.as_deref(), Some("3s"));
    assert_eq!(told.faults.unwrap().delay.as_deref(), Some("7s in 100%"));
    assert_eq!(told.retries.unwrap().retry_on, "connect-failure,refused-stream,unavailable,cancelled");
    assert_eq!(told.tls, "none (same node)");
    assert_eq!(
        told.notes,
        [
            "reviews is reviews.bookinfo.svc.cluster.local at 10.96.0.3:9080; the port is HTTP",
            "http[0] of bookinfo/reviews matched by header end-user = \"jason\"",
            "http[1] of bookinfo/reviews does not match: wants source label app=ratings, the caller has app=productpage",
            "http[2] of bookinfo/reviews matches too, but comes later",
            "DestinationRule bookinfo/reviews applies to reviews.bookinfo.svc.cluster.local subset v2: LEAST_REQUEST",
        ]
    );

    let told = explain(&world, "pod/productpage-v1", "http://reviews:9080/", &[("end-user", "mary")]);
    assert_eq!(told.matched.unwrap().route, "http[2]");
    let miss =
        "http[0] of bookinfo/reviews does not match: wants header end-user = \"jason\", end-user is \"mary\"";
    assert!(told.notes.iter().any(|note| note == miss), "{:#?}", told.notes);
}

#[test]
fn what_leads_nowhere_is_told_with_its_cure() {
    let mut world = jason();
    world.delete("DestinationRule", "bookinfo", "reviews");
    let told = explain(&world, "productpage.bookinfo", "reviews:9080", &[]);
    assert_eq!(told.action, "unavailable");
    let note = told.notes.last().unwrap();
    assert!(note.starts_with("503: no DestinationRule") && note.ends_with("defined are: none"), "{note}");

    let told = explain(&world, "productpage.bookinfo", "nowhere.example:9080", &[]);
    assert_eq!(told.action, "passthrough");
    assert!(told.matched.is_none());
    let told = explain(&world, "productpage.bookinfo", "reviews:81", &[]);
    assert!(told.notes[0].contains("has no port 81; it has 9080"), "{:?}", told.notes);
}

#[test]
fn callers_are_named_in_many_ways() {
    let world = jason();
    for from in ["10.1.0.1", "productpage", "pod/productpage-v1.bookinfo", "app=productpage"] {
        assert_eq!(explain(&world, from, "http://reviews:9080/", &[]).action, "route", "{from}");
    }
    let several = explain(&world, "app=reviews", "http://ratings:9080/", &[]);
    assert!(several.notes.last().unwrap().contains("2 more workloads"), "{:?}", several.notes);
    let ask = |from: &str, to: &str| {
        answer(&world.snapshot, &ExplainRequest { from: from.into(), to: to.into(), ..Default::default() })
    };
    assert!(ask("pod/nobody", "reviews").unwrap_err().to_string().contains("weft get workloads"));
    assert!(ask("productpage", "::::").is_err());
}
