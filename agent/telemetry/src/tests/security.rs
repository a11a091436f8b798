//! What log, metrics and tap tell about identities and refusals.

use weft_api::admin::{EdgeSecurity, Verdict};
use weft_api::identity::Identity;
use weft_rules::guard::Denial;
use weft_rules::snapshot::reach::Plaintext;

use super::*;

const PRODUCTPAGE: &str = "spiffe://cluster.local/ns/shop/sa/productpage";
const REVIEWS: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

fn tls() -> Security {
    Security::mutual_tls(Identity::parse(PRODUCTPAGE).unwrap(), Identity::parse(REVIEWS).unwrap())
}

fn denied_by(policy: Option<&str>) -> Refusal {
    Refusal::Policy(Denial { policy: policy.map(Arc::from), rule: policy.map(|_| 1) })
}

fn refused_connection(refused: Refusal) -> String {
    let upstream = Upstream { refused: Some(Box::new(refused)), ..upstream("n1") };
    let record = TcpRecord {
        event: TcpEvent::Closed,
        inbound: true,
        started: UNIX_EPOCH,
        source: None,
        downstream: "10.0.0.2:55010".parse().unwrap(),
        dialled: "10.0.0.3:3306".parse().unwrap(),
        upstream: &upstream,
        flags: &[],
        upstream_failure: None,
        virtual_service: None,
        server_name: None,
        received_bytes: 0,
        sent_bytes: 0,
        duration: Duration::ZERO,
    };
    logged(AccessLog::Text, |lines| lines.tcp(&record))
}

#[test]
fn pods_of_one_node_know_each_other() {
    let telemetry = telemetry(1);
    let mut sample = Sample::new();
    sample.upstream.security = Security::SameNode { trust_domain: "cluster.local".into() };
    telemetry.recorder(0).http(&sample.record());
    let text = telemetry.exposition();
    for reporter in ["reporter=\"source\"", "reporter=\"destination\""] {
        let labels = [
            reporter,
            "connection_security_policy=\"mutual_tls\"",
            "source_principal=\"spiffe://cluster.local/ns/shop/sa/default\"",
            "destination_principal=\"spiffe://cluster.local/ns/shop/sa/default\"",
        ];
        assert_eq!(value_of(&text, "istio_requests_total", &labels), Some(1.0));
    }
}

#[test]
fn connections_with_the_same_ends_share_a_series() {
    let telemetry = telemetry(1);
    let recorder = telemetry.recorder(0);
    for security in [tls(), tls(), Security::Plaintext(Plaintext::DestinationRule)] {
        let mut sample = Sample::new();
        sample.upstream = Upstream { security, ..upstream("n2") };
        recorder.http(&sample.record());
    }
    let text = telemetry.exposition();
    let principals =
        [&*format!("source_principal=\"{PRODUCTPAGE}\""), &*format!("destination_principal=\"{REVIEWS}\"")];
    assert_eq!(value_of(&text, "istio_requests_total", &principals), Some(2.0));
    let plain = ["source_principal=\"unknown\"", "connection_security_policy=\"unknown\""];
    assert_eq!(value_of(&text, "istio_requests_total", &plain), Some(1.0));
}

#[test]
fn what_comes_in_is_reported_by_the_destination_alone() {
    let telemetry = telemetry(1);
    let mut sample = Sample::new();
    sample.upstream.security = Security::Plaintext(Plaintext::CallerOutside);
    telemetry.recorder(0).http(&HttpRecord { inbound: true, source: None, ..sample.record() });
    let text = telemetry.exposition();
    let labels =
        ["reporter=\"destination\"", "source_workload=\"unknown\"", "connection_security_policy=\"none\""];
    assert_eq!(value_of(&text, "istio_requests_total", &labels), Some(1.0));
    assert_eq!(value_of(&text, "istio_requests_total", &["reporter=\"source\""]), None);
}

#[test]
fn the_log_names_the_policy_that_denied_a_request() {
    let mut sample = Sample::new();
    sample.status = 403;
    for (policy, details) in [
        (Some("shop/only-get"), "rbac_access_denied_matched_policy[ns[shop]-policy[only-get]-rule[1]]"),
        (None, "rbac_access_denied_matched_policy[none]"),
    ] {
        sample.upstream.refused = Some(Box::new(denied_by(policy)));
        let record = HttpRecord { details: "", ..sample.record() };
        let line = logged(AccessLog::Text, |lines| lines.http(&record));
        assert!(line.contains(&format!(" 403 - {details} - \"-\" ")), "{line}");
        let json = logged(AccessLog::Json, |lines| lines.http(&record));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["response_code_details"], details);
        assert_eq!(json["connection_termination_details"], serde_json::Value::Null);
    }
}

#[test]
fn the_log_names_the_policy_that_denied_a_connection() {
    let line = refused_connection(denied_by(Some("shop/no-mysql")));
    let details = "0 - - rbac_access_denied_matched_policy[ns[shop]-policy[no-mysql]-rule[1]] \"-\"";
    assert!(line.contains(details), "{line}");
    let line = refused_connection(Refusal::Strict);
    assert!(line.contains("0 - filter_chain_not_found - \"-\""), "{line}");
}

#[tokio::test]
async fn a_tap_shows_identities_and_the_policy_that_denied() {
    let telemetry = telemetry(1);
    let mut tap = telemetry.tap(TapFilter::default()).unwrap();
    let mut sample = Sample::new();
    sample.upstream.security = tls();
    sample.upstream.refused = Some(Box::new(denied_by(Some("shop/only-get"))));
    telemetry.recorder(0).http(&sample.record());
    let TapEvent::Http(event) = &*tap.next().await else { panic!("a request") };
    assert_eq!((event.verdict, &*event.policy), (Verdict::Denied, "shop/only-get"));
    assert_eq!((&*event.source.identity, &*event.destination.identity), (PRODUCTPAGE, REVIEWS));
    assert_eq!(event.connection_security_policy, "mutual_tls");
}

#[test]
fn edges_tell_who_talks_to_whom_and_how_safely() {
    let telemetry = telemetry(2);
    let mut sample = Sample::new();
    // On one node both sides are counted, and make one edge.
    sample.upstream.security = Security::SameNode { trust_domain: "cluster.local".into() };
    for worker in 0..2 {
        telemetry.recorder(worker).http(&sample.record());
    }
    sample.upstream = Upstream { security: tls(), ..upstream("n2") };
    telemetry.recorder(0).http(&sample.record());
    sample.status = 503;
    telemetry.recorder(0).http(&sample.record());
    sample.status = 403;
    sample.upstream.refused = Some(Box::new(Refusal::Elsewhere));
    telemetry.recorder(0).http(&sample.record());
    let plain = Upstream { security: Security::Plaintext(Plaintext::CallerOutside), ..upstream("n1") };
    sample.upstream = plain;
    sample.status = 200;
    telemetry.recorder(1).http(&HttpRecord { inbound: true, source: None, ..sample.record() });
    let rows: Vec<_> = telemetry
        .edges()
        .into_iter()
        .map(|row| {
            assert_eq!(row.destination.service, "reviews.shop.svc.cluster.local");
            assert_eq!((&*row.destination.workload, &*row.protocol), ("reviews-v2", "http"));
            let told = (row.source.workload, row.source.identity, row.requests, row.failed, row.denied);
            (told, row.security, row.reason)
        })
        .collect();
    let workload = || "productpage-v1".to_owned();
    let on_node = "spiffe://cluster.local/ns/shop/sa/default".to_owned();
    let reason = "plaintext: caller not in the mesh".to_owned();
    assert_eq!(
        rows,
        [
            ((workload(), on_node, 2, 0, 0), EdgeSecurity::SameNode, String::new()),
            ((workload(), PRODUCTPAGE.to_owned(), 3, 1, 1), EdgeSecurity::MutualTls, String::new()),
            ((String::new(), String::new(), 1, 0, 0), EdgeSecurity::Plaintext, reason),
        ]
    );
}

#[test]
fn edges_count_connections_that_stood_and_those_that_did_not() {
    let telemetry = telemetry(1);
    let recorder = telemetry.recorder(0);
    let source = workload("productpage-v1", "n1", &[]);
    let report = |event, flags: &[ResponseFlag], refused: Option<Refusal>| {
        let upstream = Upstream { refused: refused.map(Box::new), security: tls(), ..upstream("n2") };
        recorder.tcp(&TcpRecord {
            event,
            inbound: false,
            started: UNIX_EPOCH,
            source: Some(&source),
            downstream: "10.0.0.2:55010".parse().unwrap(),
            dialled: "10.0.0.3:3306".parse().unwrap(),
            upstream: &upstream,
            flags,
            upstream_failure: None,
            virtual_service: None,
            server_name: None,
            received_bytes: 10,
            sent_bytes: 20,
            duration: Duration::ZERO,
        });
    };
    report(TcpEvent::Opened, &[], None);
    report(TcpEvent::Closed, &[ResponseFlag::UpstreamConnectionTermination], None);
    report(TcpEvent::Closed, &[ResponseFlag::UpstreamConnectionFailure], None);
    report(TcpEvent::Closed, &[], Some(Refusal::Elsewhere));
    let rows = telemetry.edges();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.connections, row.failed, row.denied, &*row.protocol), (1, 1, 1, "tcp"));
    assert_eq!((row.bytes_from_source, row.bytes_to_source), (30, 60));
}
