//! Metrics as text: the cells of all workers added up by label, in OpenMetrics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::dry_runs::DryRunLabels;
use super::labels::Labels;
use super::probes::Probed;
use super::series::{BOUNDS, HttpCells, Series, Spread, TcpCells};
use super::{Received, Telemetry};

/// Content type of what [`write`] answers.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the agent. What is written is never held as a whole: a series takes some 60 KB of text.
pub fn write(telemetry: &Telemetry, to: &mut impl fmt::Write) -> fmt::Result {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Traffic::read(telemetry)));
    registry.register_collector(Box::new(Agent::read(telemetry)));
    if let Some(limits) = telemetry.limits.get() {
        registry.register_collector(Box::new(weft_limits::report::Metrics(limits.clone())));
    }
    encode(to, &registry)
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.iter().try_for_each(|pair| {
            prometheus_client::encoding::EncodeLabel::encode(&pair, encoder.encode_label())
        })
    }
}

#[derive(Debug, Default)]
struct HttpTotals {
    requests: u64,
    duration: Spread,
    request_bytes: Spread,
    response_bytes: Spread,
    request_messages: u64,
    response_messages: u64,
}

#[derive(Debug, Default)]
struct TcpTotals {
    opened: u64,
    closed: u64,
    sent_bytes: u64,
    received_bytes: u64,
}

/// Istio's metrics, added up.
#[derive(Debug)]
struct Traffic {
    http: BTreeMap<Arc<Labels>, HttpTotals>,
    tcp: BTreeMap<Arc<Labels>, TcpTotals>,
}

impl Traffic {
    fn read(telemetry: &Telemetry) -> Self {
        let all = telemetry.registry.all();
        let mut http: BTreeMap<Arc<Labels>, HttpTotals> = BTreeMap::new();
        for series in &all.http {
            http.entry(series.labels.clone()).or_default().add(series);
        }
        let mut tcp: BTreeMap<Arc<Labels>, TcpTotals> = BTreeMap::new();
        for series in &all.tcp {
            tcp.entry(series.labels.clone()).or_default().add(series);
        }
        Self { http, tcp }
    }
}

impl HttpTotals {
    fn add(&mut self, Series { cells, .. }: &Series<HttpCells>) {
        self.requests += cells.requests.get();
        self.duration.add(&cells.duration);
        self.request_bytes.add(&cells.request_bytes);
        self.response_bytes.add(&cells.response_bytes);
        self.request_messages += cells.request_messages.get();
        self.response_messages += cells.response_messages.get();
    }
}

impl TcpTotals {
    fn add(&mut self, Series { cells, .. }: &Series<TcpCells>) {
        self.opened += cells.opened.get();
        self.closed += cells.closed.get();
        self.sent_bytes += cells.sent_bytes.get();
        self.received_bytes += cells.received_bytes.get();
    }
}

fn counter<T>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    all: &BTreeMap<Arc<Labels>, T>,
    value: impl Fn(&T) -> Option<u64>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, totals) in all {
        if let Some(value) = value(totals) {
            family.encode_family(&**labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
    }
    Ok(())
}

fn histogram(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    all: &BTreeMap<Arc<Labels>, HttpTotals>,
    value: impl Fn(&HttpTotals) -> &Spread,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, totals) in all {
        let spread = value(totals);
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(spread.buckets).collect();
        // Not the counter of requests: a scrape may come between the two stores.
        let count = spread.buckets.iter().sum();
        family.encode_family(&**labels)?.encode_histogram::<NoLabelSet>(spread.sum, count, &buckets, None)?;
    }
    Ok(())
}

impl Collector for Traffic {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut to;
        let (http, tcp) = (&self.http, &self.tcp);
        counter(to, "istio_requests", "Requests", http, |t| Some(t.requests))?;
        let help = "Milliseconds from the first byte of a request to the last of its response";
        histogram(to, "istio_request_duration_milliseconds", help, http, |t| &t.duration)?;
        histogram(to, "istio_request_bytes", "Sizes of request bodies", http, |t| &t.request_bytes)?;
        histogram(to, "istio_response_bytes", "Sizes of response bodies", http, |t| &t.response_bytes)?;
        let messages = |n: u64| (n > 0).then_some(n);
        counter(to, "istio_request_messages", "gRPC messages from callers", http, |t| {
            messages(t.request_messages)
        })?;
        counter(to, "istio_response_messages", "gRPC messages to callers", http, |t| {
            messages(t.response_messages)
        })?;
        counter(to, "istio_tcp_sent_bytes", "Bytes sent to callers", tcp, |t| Some(t.sent_bytes))?;
        counter(to, "istio_tcp_received_bytes", "Bytes received from callers", tcp, |t| {
            Some(t.received_bytes)
        })?;
        counter(to, "istio_tcp_connections_opened", "Connections opened", tcp, |t| Some(t.opened))?;
        counter(to, "istio_tcp_connections_closed", "Connections closed", tcp, |t| Some(t.closed))
    }
}

/// The agent's own state.
#[derive(Debug)]
struct Agent {
    counters: Vec<(&'static str, &'static str, f64)>,
    gauges: Vec<(&'static str, &'static str, f64)>,
    /// By SPIFFE ID, when its certificate ends in seconds since 1970.
    certificates: Vec<(String, f64)>,
    /// By Secret, the same of gateways.
    secrets: Vec<(String, f64)>,
    /// By kind of object.
    received: BTreeMap<&'static str, Received>,
    dry_runs: BTreeMap<Arc<DryRunLabels>, u64>,
    /// By how they ended.
    copies: BTreeMap<&'static str, u64>,
    probes: BTreeMap<Probed, u64>,
}

impl Agent {
    #[expect(clippy::cast_precision_loss, reason = "none of these numbers comes near 2^53")]
    fn read(telemetry: &Telemetry) -> Self {
        let own = &telemetry.own;
        let load = |cell: &std::sync::atomic::AtomicU64| cell.load(Ordering::Relaxed) as f64;
        let connections: u64 = telemetry.connections.iter().map(|cell| cell.get()).sum();
        let lines = telemetry.writer.as_ref().map_or(0, super::writer::Writer::dropped);
        let fill = telemetry.registry.fill();
        let started = telemetry.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut counters = vec![
            ("weft_access_log_dropped_lines", "Log lines dropped because the reader is slow", lines as f64),
            (
                "weft_metric_series_dropped",
                "Times that a worker saw new labels for which there was no room, and counted under `other`",
                fill.dropped as f64,
            ),
            (
                "weft_metrics_scrapes_refused",
                "Requests to the node's ports by callers who may not read them",
                load(&own.strangers),
            ),
            ("weft_tap_left_out_events", "Events that slow taps missed", telemetry.taps.left_out() as f64),
            ("weft_compilations", "Compilations of the rules", load(&own.compilations)),
            ("weft_compile_seconds", "Time spent compiling the rules", load(&own.compile_micros) / 1e6),
        ];
        let mut gauges = vec![
            (
                "weft_config_generation",
                "Generation of the rules in force on every worker",
                load(&own.generation),
            ),
            ("weft_enrolled_pods", "Pods of this node that are in the mesh", load(&own.pods)),
            ("weft_refused_objects", "Objects refused, or in unreadable files", load(&own.refused)),
            (
                "weft_kept_objects_timestamp_seconds",
                "From when the objects in force are, where an agent before has kept them and the API server has told nothing yet; else 0",
                load(&own.kept),
            ),
            ("weft_connections", "Connections of clients that stand", connections as f64),
            ("weft_metric_series", "Combinations of labels that Istio's metrics have", fill.series as f64),
            ("weft_metric_series_limit", "The most there may be", fill.limit as f64),
            (
                "weft_gateway_secrets_closed",
                "Secrets for want of which servers of this node's gateways are closed",
                own.secrets.load().closed as f64,
            ),
            ("weft_workers", "Proxy threads", telemetry.connections.len() as f64),
            ("weft_taps", "Listening taps", telemetry.taps.listening() as f64),
            ("process_start_time_seconds", "When the agent started", started.as_secs_f64()),
        ];
        if let Some((cpu_seconds, resident_bytes)) = process() {
            counters.push(("process_cpu_seconds", "Processor time used", cpu_seconds));
            gauges.push(("process_resident_memory_bytes", "Memory in use", resident_bytes));
        }
        let certificates = own.certificates.load();
        let end = |end: &SystemTime| end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let certificates =
            certificates.iter().map(|(identity, ends)| (identity.to_string(), end(ends))).collect();
        let secrets = own.secrets.load();
        let secrets = secrets.ends.iter().map(|(name, ends)| (name.clone(), end(ends))).collect();
        let received = own.received.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut copies = BTreeMap::new();
        for (end, count) in telemetry.copies.iter().flat_map(|worker| worker.all()) {
            *copies.entry(end).or_default() += count;
        }
        copies.retain(|_, count| *count > 0);
        let dry_runs = telemetry.dry_runs.totals();
        let probes = telemetry.probes.all();
        Self { counters, gauges, certificates, secrets, received, dry_runs, copies, probes }
    }
}

/// Processor time in seconds and resident memory in bytes of this process.
#[expect(clippy::cast_precision_loss, reason = "page counts and clock ticks stay far below 2^53")]
fn process() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name, in parentheses, may hold blanks. Fields as in proc_pid_stat(5): after it, utime is the
    // 12th, stime the 13th and rss the 22nd.
    let fields: Vec<u64> =
        stat.rsplit_once(')')?.1.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let cpu = (fields.get(11)? + fields.get(12)?) as f64 / ticks;
    Some((cpu, *fields.get(21)? as f64 * rustix::param::page_size() as f64))
}

impl Collector for Agent {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, value) in &self.counters {
            to.encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, f64>(value, None)?;
        }
        for (name, help, value) in &self.gauges {
            to.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(value)?;
        }
        if !self.certificates.is_empty() {
            let help = "When the certificate of a service account ends";
            let name = "weft_certificate_expiration_timestamp_seconds";
            let mut family = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (identity, end) in &self.certificates {
                family.encode_family(&[("identity", identity.as_str())])?.encode_gauge(end)?;
            }
        }
        if !self.secrets.is_empty() {
            let help = "When the certificate of a Secret ends by which a gateway ends TLS";
            let name = "weft_gateway_secret_expiration_timestamp_seconds";
            let mut family = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (secret, end) in &self.secrets {
                family.encode_family(&[("secret", secret.as_str())])?.encode_gauge(end)?;
            }
        }
        if !self.received.is_empty() {
            let mut family = |name, help, value: fn(&Received) -> u64| {
                let mut family = to.encode_descriptor(name, help, None, MetricType::Counter)?;
                self.received.iter().try_for_each(|(kind, received)| {
                    let labels = [("kind", *kind)];
                    family
                        .encode_family(&labels)?
                        .encode_counter::<NoLabelSet, _, u64>(&value(received), None)
                })
            };
            let help = "Objects that the API server has sent, each time that it did";
            family("weft_discovery_received_objects", help, |received| received.objects)?;
            let help = "Size of the objects that the API server has sent, as JSON";
            family("weft_discovery_received_bytes", help, |received| received.bytes)?;
        }
        if !self.probes.is_empty() {
            let help = "What the node asked of its pods by their probes and hooks";
            let mut family = to.encode_descriptor("weft_probe_requests", help, None, MetricType::Counter)?;
            for (probed, count) in &self.probes {
                let labels = [
                    ("destination_workload", &*probed.workload),
                    ("destination_workload_namespace", &*probed.namespace),
                    ("request_protocol", probed.protocol),
                    ("result", if probed.success { "success" } else { "failure" }),
                ];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        if !self.dry_runs.is_empty() {
            let help =
                "What policies that are tried out (istio.io/dry-run) would have done with what was let in";
            let mut family =
                to.encode_descriptor("weft_authorization_dry_run", help, None, MetricType::Counter)?;
            for (labels, count) in &self.dry_runs {
                family.encode_family(&**labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        if !self.copies.is_empty() {
            let help = "Copies of requests (mirror), by what became of them";
            let mut family = to.encode_descriptor("weft_mirror_copies", help, None, MetricType::Counter)?;
            for (result, count) in &self.copies {
                let labels = [("result", *result)];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        to.encode_descriptor("weft_build", "Version of the agent", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}
