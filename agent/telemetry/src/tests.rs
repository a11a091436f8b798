use std::net::SocketAddr;
use std::time::UNIX_EPOCH;

use http::HeaderValue;
use weft_api::admin::{TapClause, TapEvent, TapFilter, TapTerm};
use weft_rules::guard::DryRun;
use weft_rules::probe::Probes;
use weft_rules::upstream::cluster::Service;
use weft_rules::workload::{Enrolment, Workload};

use super::*;

fn telemetry(workers: usize) -> Arc<Telemetry> {
    Telemetry::start(AccessLog::Off, "n1", workers, METRIC_SERIES).unwrap()
}

impl Telemetry {
    fn exposition(&self) -> String {
        let mut text = String::new();
        self.write_metrics(&mut text).unwrap();
        text
    }
}

fn workload(name: &str, node: &str, labels: &[(&str, &str)]) -> Arc<Workload> {
    let labels: weft_api::meta::Labels =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Arc::new(Workload {
        key: format!("shop/{name}-x").into(),
        namespace: "shop".into(),
        name: format!("{name}-x").into(),
        service_account: "default".into(),
        canonical_service: name.into(),
        canonical_revision: labels.get("version").map_or("latest", String::as_str).into(),
        labels: labels.into(),
        addresses: vec!["10.0.0.2".parse().unwrap()],
        node: node.into(),
        workload_name: name.into(),
        netns: None,
        probes: Probes::default(),
        uid: "".into(),
        announced: None,
        dns_name: None,
        terminating: false,
        enrolment: Enrolment::Enrolled,
    })
}

fn upstream(node: &str) -> Upstream {
    Upstream {
        service: Some(Arc::new(Service {
            host: "reviews.shop.svc.cluster.local".into(),
            name: "reviews".into(),
            namespace: "shop".into(),
        })),
        cluster: Some("outbound|9080|v2|reviews.shop.svc.cluster.local".into()),
        address: Some("10.0.0.3:9080".parse().unwrap()),
        workload: Some(workload("reviews-v2", node, &[("app", "reviews"), ("version", "v2")])),
        local_address: Some("10.0.0.2:44001".parse().unwrap()),
        security: Security::Unknown,
        refused: None,
        dry_runs: Vec::new(),
        probe: false,
    }
}

/// A request and all that its record borrows.
struct Sample {
    source: Arc<Workload>,
    upstream: Upstream,
    method: http::Method,
    path: String,
    user_agent: HeaderValue,
    request_id: HeaderValue,
    flags: Vec<ResponseFlag>,
    status: u16,
}

impl Sample {
    fn new() -> Self {
        Self {
            source: workload("productpage-v1", "n1", &[("app", "productpage"), ("version", "v1")]),
            upstream: upstream("n1"),
            method: http::Method::GET,
            path: "/reviews/0?full=1".to_owned(),
            user_agent: HeaderValue::from_static("curl/8.0"),
            request_id: HeaderValue::from_static("5f1b9a2c-0000-4000-8000-000000000001"),
            flags: Vec::new(),
            status: 200,
        }
    }

    fn record(&self) -> HttpRecord<'_> {
        HttpRecord {
            started: UNIX_EPOCH + Duration::from_millis(1_795_241_127_042),
            inbound: false,
            source: Some(&self.source),
            downstream: "10.0.0.2:55010".parse::<SocketAddr>().unwrap(),
            dialled: "10.96.0.7:9080".parse::<SocketAddr>().unwrap(),
            upstream: &self.upstream,
            method: &self.method,
            path: &self.path,
            version: http::Version::HTTP_11,
            authority: "reviews:9080",
            request_id: Some(&self.request_id),
            user_agent: Some(&self.user_agent),
            forwarded_for: None,
            status: self.status,
            grpc_status: None,
            flags: &self.flags,
            details: "via_upstream",
            upstream_failure: None,
            route: Some("default"),
            virtual_service: Some("shop/reviews"),
            request_bytes: 0,
            response_bytes: 379,
            duration: Duration::from_micros(12_345),
            upstream_time: Some(Duration::from_millis(11)),
            attempts: 1,
            grpc_messages: None,
            mirrored: false,
            server_name: None,
        }
    }
}

fn shares() -> Arc<shares::Shares> {
    Arc::new(shares::Shares::new(1 << 20))
}

/// What would be logged.
fn logged(format: AccessLog, log: impl FnOnce(&Lines)) -> String {
    let (queue, lines) = std::sync::mpsc::sync_channel(8);
    log(&Lines::to(format, queue, shares(), Arc::default(), Arc::default()));
    lines.try_recv().unwrap().text
}

#[test]
fn a_request_in_istios_default_text_format() {
    let line = logged(AccessLog::Text, |lines| lines.http(&Sample::new().record()));
    assert_eq!(
        line,
        "[2026-11-21T06:05:27.042Z] \"GET /reviews/0?full=1 HTTP/1.1\" 200 - via_upstream - \"-\" 0 379 12 11 \
         \"-\" \"curl/8.0\" \"5f1b9a2c-0000-4000-8000-000000000001\" \"reviews:9080\" \"10.0.0.3:9080\" \
         outbound|9080|v2|reviews.shop.svc.cluster.local 10.0.0.2:44001 10.96.0.7:9080 10.0.0.2:55010 - default\n"
    );
}

#[test]
fn a_request_that_reached_nobody() {
    let mut sample = Sample::new();
    sample.upstream = Upstream::default();
    sample.status = 404;
    sample.flags = vec![ResponseFlag::NoRouteFound];
    let record = HttpRecord {
        details: "route_not_found",
        upstream_time: None,
        route: None,
        forwarded_for: Some(&sample.user_agent),
        ..sample.record()
    };
    let line = logged(AccessLog::Text, |lines| lines.http(&record));
    assert_eq!(
        line,
        "[2026-11-21T06:05:27.042Z] \"GET /reviews/0?full=1 HTTP/1.1\" 404 NR route_not_found - \"-\" 0 379 12 - \
         \"curl/8.0\" \"curl/8.0\" \"5f1b9a2c-0000-4000-8000-000000000001\" \"reviews:9080\" \"-\" \
         - - 10.96.0.7:9080 10.0.0.2:55010 - -\n"
    );
}

#[test]
fn a_connection_in_istios_default_text_format() {
    let upstream = upstream("n1");
    let record = TcpRecord {
        event: TcpEvent::Closed,
        inbound: false,
        started: UNIX_EPOCH,
        source: None,
        downstream: "10.0.0.2:55010".parse().unwrap(),
        dialled: "10.96.0.7:3306".parse().unwrap(),
        upstream: &upstream,
        flags: &[],
        upstream_failure: Some("connection refused"),
        virtual_service: None,
        server_name: Some("db.example"),
        received_bytes: 10,
        sent_bytes: 20,
        duration: Duration::from_millis(5),
    };
    assert_eq!(
        logged(AccessLog::Text, |lines| lines.tcp(&record)),
        "[1970-01-01T00:00:00.000Z] \"- - -\" 0 - - - \"connection refused\" 10 20 5 - \"-\" \"-\" \"-\" \"-\" \
         \"10.0.0.3:9080\" outbound|9080|v2|reviews.shop.svc.cluster.local 10.0.0.2:44001 10.96.0.7:3306 \
         10.0.0.2:55010 db.example -\n"
    );
}

#[test]
fn a_caller_cannot_forge_log_lines() {
    let mut sample = Sample::new();
    sample.user_agent = HeaderValue::from_bytes(b"x\" 200 - \xff\ty\\").unwrap();
    sample.path = "/a\n[fake]".to_owned();
    let text = logged(AccessLog::Text, |lines| lines.http(&sample.record()));
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("GET /a\\x0a[fake] HTTP/1.1"), "{text}");
    assert!(text.contains(r#""x\" 200 - \xff\x09y\\""#), "{text}");
    let json = logged(AccessLog::Json, |lines| lines.http(&sample.record()));
    assert_eq!(json.lines().count(), 1);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["path"], "/a\n[fake]");
}

#[test]
fn a_request_in_json() {
    let line = logged(AccessLog::Json, |lines| lines.http(&Sample::new().record()));
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["start_time"], "2026-11-21T06:05:27.042Z");
    assert_eq!(value["response_code"], 200);
    assert_eq!(value["response_flags"], "-");
    assert_eq!(value["upstream_host"], "10.0.0.3:9080");
    assert_eq!(value["x_forwarded_for"], serde_json::Value::Null);
    assert_eq!(value.as_object().unwrap().len(), 24);
}

fn value_of(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let matches = |line: &&str| {
        line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label))
    };
    text.lines().find(matches)?.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn both_sides_report_a_request_between_pods_of_this_node() {
    let telemetry = telemetry(2);
    let sample = Sample::new();
    // Two workers: their cells are added up.
    telemetry.recorder(0).http(&sample.record());
    let second = telemetry.recorder(1);
    second.http(&sample.record());
    second.http(&sample.record());
    let text = telemetry.exposition();
    assert_eq!(value_of(&text, "istio_requests_total", &["reporter=\"source\""]), Some(3.0));
    assert_eq!(value_of(&text, "istio_requests_total", &["reporter=\"destination\""]), Some(3.0));
    let labels =
        text.lines().find(|line| line.starts_with("istio_requests_total{reporter=\"source\"")).unwrap();
    assert_eq!(
        labels,
        "istio_requests_total{reporter=\"source\",source_workload=\"productpage-v1\",\
         source_canonical_service=\"productpage-v1\",source_canonical_revision=\"v1\",\
         source_workload_namespace=\"shop\",source_principal=\"unknown\",source_app=\"productpage\",\
         source_version=\"v1\",source_cluster=\"Kubernetes\",destination_workload=\"reviews-v2\",\
         destination_workload_namespace=\"shop\",destination_principal=\"unknown\",destination_app=\"reviews\",\
         destination_version=\"v2\",destination_service=\"reviews.shop.svc.cluster.local\",\
         destination_canonical_service=\"reviews-v2\",destination_canonical_revision=\"v2\",\
         destination_service_name=\"reviews\",destination_service_namespace=\"shop\",\
         destination_cluster=\"Kubernetes\",request_protocol=\"http\",response_flags=\"-\",\
         connection_security_policy=\"unknown\",response_code=\"200\",grpc_response_status=\"\"} 3"
    );
    let duration = "istio_request_duration_milliseconds";
    let source = "reporter=\"source\"";
    assert_eq!(value_of(&text, &format!("{duration}_count"), &[source]), Some(3.0));
    assert_eq!(value_of(&text, &format!("{duration}_bucket"), &[source, "le=\"10.0\""]), Some(0.0));
    assert_eq!(value_of(&text, &format!("{duration}_bucket"), &[source, "le=\"25.0\""]), Some(3.0));
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_destination_reports_only_what_reached_it_here() {
    let telemetry = telemetry(1);
    let recorder = telemetry.recorder(0);
    let mut sample = Sample::new();
    sample.upstream = upstream("n2");
    recorder.http(&sample.record());
    sample.upstream = upstream("n1");
    sample.flags = vec![ResponseFlag::UpstreamConnectionFailure];
    sample.status = 503;
    recorder.http(&sample.record());
    let text = telemetry.exposition();
    assert_eq!(value_of(&text, "istio_requests_total", &["reporter=\"destination\""]), None);
    assert_eq!(
        value_of(&text, "istio_requests_total", &["response_flags=\"UF\"", "response_code=\"503\""]),
        Some(1.0)
    );
}

#[test]
fn a_connection_is_counted_when_it_opens_and_when_it_closes() {
    let telemetry = telemetry(1);
    let recorder = telemetry.recorder(0);
    let upstream = upstream("n1");
    for event in [TcpEvent::Opened, TcpEvent::Closed] {
        recorder.tcp(&TcpRecord {
            event,
            inbound: true,
            started: UNIX_EPOCH,
            source: None,
            downstream: "192.0.2.1:55010".parse().unwrap(),
            dialled: "10.0.0.3:3306".parse().unwrap(),
            upstream: &upstream,
            flags: &[],
            upstream_failure: None,
            virtual_service: None,
            server_name: None,
            received_bytes: 10,
            sent_bytes: 20,
            duration: Duration::from_millis(5),
        });
    }
    let text = telemetry.exposition();
    let from_outside =
        ["reporter=\"destination\"", "source_workload=\"unknown\"", "request_protocol=\"tcp\""];
    assert_eq!(value_of(&text, "istio_tcp_connections_opened_total", &from_outside), Some(1.0));
    assert_eq!(value_of(&text, "istio_tcp_connections_closed_total", &from_outside), Some(1.0));
    assert_eq!(value_of(&text, "istio_tcp_received_bytes_total", &from_outside), Some(10.0));
    assert_eq!(value_of(&text, "istio_tcp_sent_bytes_total", &from_outside), Some(20.0));
    assert_eq!(value_of(&text, "istio_tcp_sent_bytes_total", &["reporter=\"source\""]), None);
    assert!(!text.contains("istio_tcp_sent_bytes_total{reporter=\"destination\",response_code"));
}

#[test]
fn callers_cannot_make_series_without_bound() {
    let telemetry = telemetry(1);
    let recorder = telemetry.recorder(0);
    let mut sample = Sample::new();
    sample.upstream = Upstream { cluster: Some("PassthroughCluster".into()), ..Upstream::default() };
    for number in 0..1_000 {
        let host = format!("host-{number}.example:80");
        recorder.http(&HttpRecord { authority: &host, ..sample.record() });
    }
    let text = telemetry.exposition();
    let series = text.lines().filter(|line| line.starts_with("istio_requests_total{")).count();
    assert!(series <= 101, "{series}");
    let known = ["destination_service=\"host-7.example\"", "destination_service_name=\"PassthroughCluster\""];
    assert_eq!(value_of(&text, "istio_requests_total", &known), Some(1.0));
    assert_eq!(value_of(&text, "istio_requests_total", &["destination_service=\"unknown\""]), Some(900.0));
}

#[test]
fn a_pod_that_changes_keeps_its_series() {
    let telemetry = telemetry(1);
    let recorder = telemetry.recorder(0);
    for _ in 0..3 {
        recorder.http(&Sample::new().record());
    }
    let text = telemetry.exposition();
    assert_eq!(text.lines().filter(|line| line.starts_with("istio_requests_total{")).count(), 2);
}

#[test]
fn connections_are_counted_while_they_stand() {
    let telemetry = telemetry(1);
    let recorder = telemetry.recorder(0);
    let (one, two) = (recorder.connection(), recorder.connection());
    assert_eq!(telemetry.connections(0), 2);
    drop(one);
    assert_eq!(telemetry.connections(0), 1);
    drop(two);
    assert!(telemetry.exposition().contains("weft_connections 0"));
}

#[tokio::test]
async fn a_tap_gets_what_it_asked_for_while_it_listens() {
    let telemetry = telemetry(1);
    let recorder = telemetry.recorder(0);
    let mut sample = Sample::new();
    recorder.http(&sample.record());
    let failed = TapTerm::Status("5xx".parse().unwrap());
    let filter =
        TapFilter { clauses: vec![TapClause { not: false, any: vec![failed] }], ..TapFilter::default() };
    let mut tap = telemetry.tap(filter).unwrap();
    recorder.http(&sample.record());
    sample.status = 503;
    recorder.http(&sample.record());
    let TapEvent::Http(event) = &*tap.next().await else { panic!("a request") };
    assert_eq!(event.detail.status, 503);
    assert_eq!(
        (&*event.source.workload, &*event.destination.service),
        ("productpage-v1", "reviews.shop.svc.cluster.local")
    );
    assert_eq!((&*event.detail.subset, &*event.detail.virtual_service), ("v2", "shop/reviews"));
    assert!(tap.ready().is_none());
    drop(tap);
    assert!(telemetry.exposition().contains("weft_taps 0"));
}

#[tokio::test]
async fn a_slow_tap_is_told_what_it_missed() {
    let telemetry = telemetry(1);
    let recorder = telemetry.recorder(0);
    let mut tap = telemetry.tap(TapFilter::default()).unwrap();
    let sample = Sample::new();
    for _ in 0..2_000 {
        recorder.http(&sample.record());
    }
    let (mut seen, mut missed) = (0, 0);
    while seen + missed < 2_000 {
        match &*tap.next().await {
            TapEvent::LeftOut { count } => missed += count,
            _ => seen += 1,
        }
    }
    assert!(missed > 0 && seen >= 500, "{seen} {missed}");
    assert!(telemetry.exposition().contains(&format!("weft_tap_left_out_events_total {missed}")));
}

#[test]
fn a_full_log_drops_and_counts() {
    let (queue, _nobody_reads) = std::sync::mpsc::sync_channel(2);
    let dropped = Arc::new(AtomicU64::new(0));
    let lines = Lines::to(AccessLog::Text, queue, shares(), dropped.clone(), Arc::default());
    let sample = Sample::new();
    for _ in 0..5 {
        lines.http(&sample.record());
    }
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
}

mod bounds;
mod security;

#[test]
fn certificates_tell_when_they_end() {
    let telemetry = telemetry(1);
    assert!(!telemetry.exposition().contains("weft_certificate"));
    let identity = Identity::parse("spiffe://cluster.local/ns/shop/sa/catalog").unwrap();
    telemetry.certificates(vec![(identity, UNIX_EPOCH + Duration::from_secs(90))]);
    let labels = ["identity=\"spiffe://cluster.local/ns/shop/sa/catalog\""];
    let text = telemetry.exposition();
    assert_eq!(value_of(&text, "weft_certificate_expiration_timestamp_seconds", &labels), Some(90.0));
}

#[test]
fn what_the_api_server_sends_is_counted_by_kind() {
    let telemetry = telemetry(1);
    assert!(!telemetry.exposition().contains("weft_discovery"));
    telemetry.received("Pod", 2_900);
    telemetry.received("Pod", 100);
    telemetry.received("Service", 900);
    let text = telemetry.exposition();
    let of = |name, kind: &str| value_of(&text, name, &[&format!("kind=\"{kind}\"")]);
    assert_eq!(of("weft_discovery_received_bytes_total", "Pod"), Some(3_000.0));
    assert_eq!(of("weft_discovery_received_objects_total", "Pod"), Some(2.0));
    assert_eq!(of("weft_discovery_received_bytes_total", "Service"), Some(900.0));
}

#[test]
fn copies_are_counted_by_what_became_of_them() {
    let telemetry = telemetry(2);
    assert!(!telemetry.exposition().contains("weft_mirror"));
    telemetry.recorder(0).copy(CopyEnd::Answered);
    telemetry.recorder(1).copy(CopyEnd::Answered);
    telemetry.recorder(1).copy(CopyEnd::TooMany);
    let text = telemetry.exposition();
    let of = |result: &str| value_of(&text, "weft_mirror_copies_total", &[&format!("result=\"{result}\"")]);
    assert_eq!((of("answered"), of("too_many"), of("too_slow")), (Some(2.0), Some(1.0), None));
}

#[test]
fn what_dry_runs_would_do_is_counted_and_bounded() {
    let telemetry = telemetry(1);
    let recorder = telemetry.recorder(0);
    let mut sample = Sample::new();
    let said = |policy: &str, denies| DryRun { policy: policy.into(), denies };
    sample.upstream.dry_runs = vec![said("shop/a", true), said("shop/b", false)];
    recorder.http(&sample.record());
    recorder.http(&sample.record());
    let name = "weft_authorization_dry_run_total";
    let text = telemetry.exposition();
    let of = |text: &str, labels: &[&str]| value_of(text, name, labels);
    let productpage = "source_workload=\"productpage-v1\"";
    assert_eq!(of(&text, &["policy=\"shop/a\"", "verdict=\"denied\"", productpage]), Some(2.0));
    assert_eq!(of(&text, &["policy=\"shop/b\"", "verdict=\"allowed\"", productpage]), Some(2.0));
    let line = logged(AccessLog::Text, |lines| lines.http(&sample.record()));
    assert!(line.contains(" via_upstream{dry_run_denied[ns[shop]-policy[a]]} "), "{line}");

    sample.upstream.dry_runs = vec![said("shop/a", true)];
    for number in 0..2_000 {
        sample.source = workload(&format!("caller-{number}"), "n1", &[]);
        recorder.http(&sample.record());
    }
    let text = telemetry.exposition();
    let series = text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
    assert_eq!(series, 1_001);
    assert_eq!(of(&text, &["policy=\"shop/a\"", "source_workload=\"other\""]), Some(1_002.0));
}
