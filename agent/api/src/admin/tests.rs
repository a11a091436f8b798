//! The admin API's types on the wire, and the tap's filter.

use super::*;

fn request(from: &str, to: &str, status: u16, path: &str) -> TapEvent {
    let peer = |workload: &str, service: &str| Peer {
        namespace: "bookinfo".to_owned(),
        pod: format!("{workload}-5d8f"),
        workload: workload.to_owned(),
        service: service.to_owned(),
        address: Some("10.0.0.7:9080".parse().expect("an address")),
        labels: [("app".to_owned(), workload.split('-').next().unwrap_or("").to_owned())].into(),
        ..Peer::default()
    };
    TapEvent::Http(TapRecord {
        source: peer(from, ""),
        destination: peer(to, "reviews.bookinfo.svc.cluster.local"),
        detail: HttpTap { status, path: path.to_owned(), method: "GET".to_owned(), ..HttpTap::default() },
        ..TapRecord::default()
    })
}

fn clause(not: bool, terms: Vec<TapTerm>) -> TapClause {
    TapClause { not, any: terms }
}

fn to(selector: &str) -> TapTerm {
    TapTerm::To(selector.parse().expect("a selector"))
}

#[test]
fn an_explanation_has_the_contracts_names() {
    let explanation = Explanation {
        matched: Some(Matched { virtual_service: "bookinfo/reviews".into(), route: "http[0]".into() }),
        action: "route".into(),
        backends: vec![Backend {
            host: "reviews.bookinfo.svc.cluster.local".into(),
            weight: 1,
            ..Backend::default()
        }],
        ..Explanation::default()
    };
    let json = serde_json::to_value(&explanation).expect("json");
    for key in ["matched", "action", "backends", "policies", "tls", "timeout", "retries", "faults", "notes"] {
        assert!(json.get(key).is_some(), "{key} is missing");
    }
    assert_eq!(json["matched"]["virtualService"], "bookinfo/reviews");
    assert_eq!(json["backends"][0]["subset"], serde_json::Value::Null);
}

#[test]
fn a_tap_event_survives_the_wire() {
    let event = request("productpage-v1", "reviews-v2", 200, "/reviews/0");
    let json = serde_json::to_value(&event).expect("json");
    assert_eq!(json["type"], "http");
    assert_eq!(json["status"], 200, "the detail lies flat");
    assert_eq!(serde_json::from_value::<TapEvent>(json).expect("event"), event);
    let left_out = serde_json::to_string(&TapEvent::LeftOut { count: 3 }).expect("json");
    assert_eq!(left_out, r#"{"type":"leftOut","count":3}"#);
}

#[test]
fn a_filter_survives_the_wire() {
    let filter = TapFilter {
        clauses: vec![
            clause(true, vec![to("deploy/ratings.bookinfo"), to("app=x"), to("fd00::1"), to(":80")]),
            clause(false, vec![TapTerm::Status("5xx".parse().expect("a range"))]),
        ],
        probes: true,
    };
    let json = serde_json::to_string(&filter).expect("json");
    assert_eq!(serde_json::from_str::<TapFilter>(&json).expect("filter"), filter);
}

#[test]
fn filters_choose_by_peer_status_and_path() {
    let event = request("productpage-v1", "reviews-v2", 503, "/reviews/0?full=1");
    let wanted = |terms: Vec<TapTerm>| {
        TapFilter { clauses: vec![clause(false, terms)], ..TapFilter::default() }.matches(&event)
    };
    for selector in [
        "reviews",
        "reviews.bookinfo",
        "svc/reviews",
        "deploy/reviews-v2",
        "pod/reviews-v2*",
        "app=reviews",
        "10.0.0.7",
        ":9080",
        "ns/bookinfo",
    ] {
        assert!(wanted(vec![to(selector)]), "{selector}");
    }
    for selector in
        ["ratings", "reviews.other", "svc/reviews-v2", "pod/reviews-v2", "app=ratings", "10.0.0.8", ":80"]
    {
        assert!(!wanted(vec![to(selector)]), "{selector}");
    }
    assert!(wanted(vec![to("ratings"), to("reviews")]), "alternatives");
    assert!(wanted(vec![TapTerm::Path("/reviews/".into())]));
    assert!(wanted(vec![TapTerm::Path("*full=1".into())]));
    assert!(!wanted(vec![TapTerm::Path("/rev*/1".into())]));
    assert!(wanted(vec![TapTerm::Status("5xx".parse().expect("a range"))]));
    assert!(!wanted(vec![TapTerm::Status("200-299".parse().expect("a range"))]));
    let not = TapFilter { clauses: vec![clause(true, vec![to("reviews")])], ..TapFilter::default() };
    assert!(!not.matches(&event));
    assert!(not.matches(&TapEvent::LeftOut { count: 1 }), "a count is always told");
    let mut probe = event;
    if let TapEvent::Http(record) = &mut probe {
        record.probe = true;
    }
    assert!(!TapFilter::default().matches(&probe), "a probe is shown to those who ask for it");
    assert!(TapFilter { probes: true, ..TapFilter::default() }.matches(&probe));
}

#[test]
fn nonsense_names_no_peer() {
    for text in ["", "/x", "pod/", "planet/earth", ":http", "=x", "reviews."] {
        assert!(text.parse::<PeerSelector>().is_err(), "{text:?}");
    }
    for text in ["", "abc", "600-500", "0xx", "xx"] {
        assert!(text.parse::<StatusRange>().is_err(), "{text:?}");
    }
}
