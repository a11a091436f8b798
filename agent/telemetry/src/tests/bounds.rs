//! What one pod can make the agent count, log and show.

use super::*;

fn series(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("istio_requests_total{")).count()
}

fn requests(text: &str, labels: &[&str]) -> u64 {
    let lines = text.lines().filter(|line| line.starts_with("istio_requests_total{"));
    let wanted = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    wanted.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

#[test]
fn a_server_that_answers_any_grpc_status_is_counted_by_the_seventeen_that_there_are() {
    let telemetry = telemetry(1);
    let recorder = telemetry.recorder(0);
    let mut sample = Sample::new();
    sample.upstream = upstream("n2");
    for status in 0..60_000 {
        recorder.http(&HttpRecord { grpc_status: Some(status), ..sample.record() });
    }
    let text = telemetry.exposition();
    assert_eq!(series(&text), 18);
    assert!(text.len() < 2 << 20, "{} bytes", text.len());
    let of = |status: &str| requests(&text, &[&format!("grpc_response_status=\"{status}\"")]);
    assert_eq!((of("16"), of("17"), of("unknown")), (1, 0, 59_983));
}

#[test]
fn a_status_that_http_does_not_know_is_unknown() {
    let telemetry = telemetry(1);
    let mut sample = Sample::new();
    sample.upstream = upstream("n2");
    for status in [0, 99, 100, 599, 600, 999] {
        sample.status = status;
        telemetry.recorder(0).http(&sample.record());
    }
    let text = telemetry.exposition();
    let of = |status: &str| requests(&text, &[&format!("response_code=\"{status}\"")]);
    assert_eq!((of("0"), of("100"), of("599"), of("unknown")), (1, 1, 1, 3));
}

#[test]
fn a_server_that_answers_everything_loses_its_own_new_series_and_nobody_elses() {
    let telemetry = telemetry(2);
    let mut sample = Sample::new();
    sample.upstream = upstream("n2");
    for status in 100..600 {
        sample.status = status;
        for (worker, grpc) in [(0, 0), (1, 1), (0, 2)] {
            telemetry.recorder(worker).http(&HttpRecord { grpc_status: Some(grpc), ..sample.record() });
        }
    }
    sample.status = 200;
    sample.upstream.workload = Some(workload("ratings-v1", "n2", &[]));
    telemetry.recorder(0).http(&sample.record());
    let text = telemetry.exposition();
    // A hundredth of 10,000 between two, and what is beyond; and the one of another server.
    assert_eq!(series(&text), 100 + 1 + 1);
    let folded = ["destination_workload=\"reviews-v2\"", "response_code=\"other\"", "reporter=\"source\""];
    assert_eq!(requests(&text, &folded), 1_400);
    assert_eq!(requests(&text, &["destination_workload=\"ratings-v1\"", "response_code=\"200\""]), 1);
    assert!(text.contains("weft_metric_series 101.0\n"), "what is folded takes no room");
    let full = telemetry.full();
    assert_eq!(full.len(), 1, "{full:?}");
    assert!(full[0].starts_with("metrics: shop/productpage-v1 → shop/reviews-v2 has 100 series"), "{full:?}");
}

#[test]
fn a_caller_of_very_many_is_counted_as_one_beyond_a_fifth_of_all_series() {
    let telemetry = Telemetry::start(AccessLog::Off, "n1", 1, 100).unwrap();
    let recorder = telemetry.recorder(0);
    let mut sample = Sample::new();
    for number in 0..200 {
        sample.upstream =
            Upstream { workload: Some(workload(&format!("reviews-{number}"), "n2", &[])), ..upstream("n2") };
        recorder.http(&sample.record());
    }
    sample.source = workload("quiet", "n1", &[]);
    recorder.http(&sample.record());
    let text = telemetry.exposition();
    assert_eq!(series(&text), 20 + 1 + 1);
    let folded = ["source_workload=\"productpage-v1\"", "destination_workload=\"other\""];
    assert_eq!(requests(&text, &folded), 180);
    assert_eq!(requests(&text, &["source_workload=\"quiet\"", "destination_workload=\"reviews-199\""]), 1);
}

#[test]
fn when_all_room_is_taken_nothing_goes_uncounted() {
    let telemetry = Telemetry::start(AccessLog::Off, "n1", 1, 10).unwrap();
    let recorder = telemetry.recorder(0);
    let mut sample = Sample::new();
    sample.upstream = upstream("n2");
    for number in 0..50 {
        sample.source = workload(&format!("caller-{number}"), "n1", &[]);
        recorder.http(&sample.record());
    }
    let text = telemetry.exposition();
    assert_eq!((series(&text), requests(&text, &[])), (11, 50));
    assert!(
        telemetry.full()[0].starts_with("metrics: all workloads has 10 series"),
        "{:?}",
        telemetry.full()
    );
}

#[test]
fn hosts_that_one_pod_asks_for_leave_room_for_those_of_another() {
    let telemetry = telemetry(1);
    let recorder = telemetry.recorder(0);
    let mut sample = Sample::new();
    sample.upstream = Upstream { cluster: Some("PassthroughCluster".into()), ..Upstream::default() };
    let long = format!("{}.example", "x".repeat(300));
    for number in 0..200 {
        let host = format!("host-{number}.example:80");
        recorder.http(&HttpRecord { authority: &host, ..sample.record() });
    }
    sample.source = workload("quiet", "n1", &[]);
    for authority in ["API.Example.com:443", "[::1]:80", &long, "no host"] {
        recorder.http(&HttpRecord { authority, ..sample.record() });
    }
    let text = telemetry.exposition();
    let of_quiet = |host: &str| {
        requests(&text, &["source_workload=\"quiet\"", &format!("destination_service=\"{host}\"")])
    };
    assert_eq!((of_quiet("api.example.com"), of_quiet("[::1]"), of_quiet("unknown")), (1, 1, 2));
}

#[test]
fn series_of_pods_that_are_gone_end_and_make_room() {
    let telemetry = telemetry(1);
    let recorder = telemetry.recorder(0);
    let (stays, mut goes) = (Sample::new(), Sample::new());
    goes.source = workload("job-28", "n1", &[]);
    for sample in [&stays, &goes] {
        recorder.http(&sample.record());
    }
    let now = Instant::now();
    let is_there = |_: &str, name: &str| name != "job-28";
    telemetry.sweep(now, is_there);
    telemetry.sweep(now + Duration::from_mins(4), is_there);
    assert_eq!(requests(&telemetry.exposition(), &["job-28", "reporter=\"source\""]), 1);
    telemetry.sweep(now + Duration::from_mins(6), is_there);
    let text = telemetry.exposition();
    assert_eq!(requests(&text, &["job-28"]), 0);
    assert!(text.contains("weft_metric_series 2.0\n"), "{text}");
    // The worker goes on with what stays, and begins anew where a pod is back.
    for sample in [&stays, &goes] {
        recorder.http(&sample.record());
    }
    let text = telemetry.exposition();
    assert_eq!(requests(&text, &["productpage-v1", "reporter=\"source\""]), 2);
    assert_eq!(requests(&text, &["job-28", "reporter=\"source\""]), 1);
}

#[test]
fn a_pod_that_floods_the_log_leaves_out_lines_of_its_own() {
    let (queue, waiting) = std::sync::mpsc::sync_channel(1_000);
    let dropped = Arc::new(AtomicU64::new(0));
    let room = Arc::new(shares::Shares::new(64 << 10));
    let lines = Lines::to(AccessLog::Text, queue, room.clone(), dropped.clone(), Arc::default());
    let (mut loud, mut quiet) = (Sample::new(), Sample::new());
    loud.path = format!("/{}", "x".repeat(1_000));
    for _ in 0..100 {
        lines.http(&loud.record());
    }
    let some = waiting.try_iter().inspect(|line| room.give_back(&line.share)).count();
    assert!((5..20).contains(&some), "{some}");
    assert_eq!(dropped.load(Ordering::Relaxed), 100 - some as u64);
    for _ in 0..100 {
        lines.http(&loud.record());
    }
    quiet.source = other_pod(&room, &quiet.source);
    lines.http(&quiet.record());
    assert_eq!(waiting.try_iter().count(), some + 1);
}

/// A pod that does not happen to share the other's part.
fn other_pod(room: &shares::Shares, than: &Arc<Workload>) -> Arc<Workload> {
    let half = room.take(Some(than), 0).unwrap();
    let pods = (0..100).map(|number| {
        let name = format!("quiet-{number}");
        Arc::new(Workload { key: format!("shop/{name}").into(), name: name.into(), ..Workload::clone(than) })
    });
    // All are kept until one is chosen: addresses are not used again.
    let pods: Vec<_> = pods.collect();
    pods.into_iter().find(|pod| room.take(Some(pod), 0).unwrap() != half).unwrap()
}

#[tokio::test]
async fn a_pod_that_floods_a_tap_leaves_out_events_of_its_own() {
    let telemetry = telemetry(1);
    let recorder = telemetry.recorder(0);
    let mut tap = telemetry.tap(TapFilter::default()).unwrap();
    let (loud, mut quiet) = (Sample::new(), Sample::new());
    quiet.source = other_pod(&shares::Shares::new(1), &loud.source);
    for _ in 0..5_000 {
        recorder.http(&loud.record());
    }
    recorder.http(&quiet.record());
    let TapEvent::LeftOut { count } = *tap.next().await else { panic!("some were left out") };
    let mut seen = Vec::new();
    while let Some(event) = tap.ready() {
        let TapEvent::Http(event) = &*event else { panic!("a request") };
        seen.push(event.source.pod.clone());
    }
    // Of the quiet pod, nothing.
    assert_eq!(count + seen.len() as u64, 5_001);
    assert!((500..1_500).contains(&seen.len()), "{}", seen.len());
    assert_eq!(seen.last(), Some(&quiet.source.name.to_string()));
}

#[tokio::test]
async fn taps_show_the_beginning_of_what_is_very_long_and_are_few() {
    let telemetry = telemetry(1);
    let mut tap = telemetry.tap(TapFilter::default()).unwrap();
    let mut sample = Sample::new();
    sample.path = format!("/{}", "ö".repeat(30_000));
    telemetry.recorder(0).http(&sample.record());
    let TapEvent::Http(event) = &*tap.next().await else { panic!("a request") };
    assert!(event.detail.path.len() < 2_100 && event.detail.path.ends_with("ö…"), "{}", event.detail.path);
    let more: Vec<_> = (0..20).map_while(|_| telemetry.tap(TapFilter::default())).collect();
    assert_eq!(more.len(), 15);
}

/// Takes pieces, and remembers the longest.
#[derive(Default)]
struct Longest(usize);

impl fmt::Write for Longest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.max(text.len());
        Ok(())
    }
}

#[test]
fn metrics_are_written_piece_by_piece() {
    let telemetry = telemetry(1);
    telemetry.recorder(0).http(&Sample::new().record());
    let mut longest = Longest::default();
    telemetry.write_metrics(&mut longest).unwrap();
    assert!(longest.0 < 1_024, "{}", longest.0);
}
