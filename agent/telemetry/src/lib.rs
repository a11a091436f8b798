//! The one place where a finished request or connection is reported. From here: access log, metrics, live tap.
//!
//! A [`Recorder`] belongs to one worker and is used only by it: recording takes no lock. Counters are cells of that
//! worker, added up when they are read; log lines and taps go through bounded queues that drop, and count, what
//! nobody takes in time.

mod access_log;
mod budget;
mod copies;
mod dry_runs;
mod edges;
mod exposition;
mod flags;
mod labels;
mod metrics;
mod probes;
mod record;
mod registry;
mod security;
mod series;
mod shares;
mod tap;
mod writer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{fmt, io};

use arc_swap::ArcSwap;
use weft_api::identity::Identity;
use weft_limits::Budget;

pub use access_log::AccessLog;
pub use copies::CopyEnd;
pub use exposition::CONTENT_TYPE as METRICS_CONTENT_TYPE;
pub use flags::{FlagSet, ResponseFlag};
pub use record::{HttpRecord, TcpEvent, TcpRecord, Upstream};
pub use registry::SERIES as METRIC_SERIES;
pub use security::{Refusal, Security};
pub use tap::Subscription;

use self::access_log::Lines;
use self::copies::Copies;
use self::dry_runs::{DryRunRegistry, DryRunSink};
use self::metrics::Sink;
use self::probes::Probes;
use self::registry::Registry;
use self::series::Cell;
use self::tap::Taps;
use self::writer::Writer;

/// One worker's way to report. The default reports to nobody.
#[derive(Debug, Default)]
pub struct Recorder {
    parts: Option<Box<Parts>>,
}

#[derive(Debug)]
struct Parts {
    sink: Sink,
    lines: Option<Lines>,
    taps: Arc<Taps>,
    probes: Arc<Probes>,
    connections: Arc<Cell>,
    copies: Arc<Copies>,
    dry_runs: DryRunSink,
}

impl Recorder {
    /// Reports a finished request.
    pub fn http(&self, record: &HttpRecord<'_>) {
        let Some(parts) = &self.parts else { return };
        if record.upstream.probe {
            parts.probes.http(record);
        } else {
            parts.sink.http(record);
            if !record.upstream.dry_runs.is_empty() {
                parts.dry_runs.count(record.source, record.upstream);
            }
            if let Some(lines) = &parts.lines {
                lines.http(record);
            }
        }
        if parts.taps.wanted() {
            parts.taps.http(record);
        }
    }

    /// Reports a connection that opened or closed.
    pub fn tcp(&self, record: &TcpRecord<'_>) {
        let Some(parts) = &self.parts else { return };
        if record.upstream.probe {
            parts.probes.tcp(record);
        } else {
            parts.sink.tcp(record);
            if record.event == TcpEvent::Opened && !record.upstream.dry_runs.is_empty() {
                parts.dry_runs.count(record.source, record.upstream);
            }
            if let (TcpEvent::Closed, Some(lines)) = (record.event, &parts.lines) {
                lines.tcp(record);
            }
        }
        if parts.taps.wanted() {
            parts.taps.tcp(record);
        }
    }

    /// Counts a copy of a request that has ended, or could not begin.
    pub fn copy(&self, end: CopyEnd) {
        if let Some(parts) = &self.parts {
            parts.copies.count(end);
        }
    }

    /// Counts a connection of a client for as long as the answer is held. Hold it on the worker's own thread.
    pub fn connection(&self) -> OpenConnection {
        let cell = self.parts.as_ref().map(|parts| parts.connections.clone());
        if let Some(cell) = &cell {
            cell.add(1);
        }
        OpenConnection { cell }
    }
}

/// A client's connection that a worker carries.
#[derive(Debug)]
pub struct OpenConnection {
    cell: Option<Arc<Cell>>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        if let Some(cell) = &self.cell {
            cell.subtract(1);
        }
    }
}

/// What the agent knows about itself, for its own metrics.
#[derive(Debug, Default)]
struct Own {
    generation: AtomicU64,
    pods: AtomicU64,
    refused: AtomicU64,
    /// Seconds since 1970 from when the objects in force are; 0: they are the source's own.
    kept: AtomicU64,
    compilations: AtomicU64,
    compile_micros: AtomicU64,
    strangers: AtomicU64,
    certificates: ArcSwap<Vec<(Identity, SystemTime)>>,
    secrets: ArcSwap<Secrets>,
    /// By kind of object. One thread adds, once for each object: nobody waits for the lock.
    received: Mutex<BTreeMap<&'static str, Received>>,
}

/// What the API server has sent.
#[derive(Debug, Default, Clone, Copy)]
struct Received {
    objects: u64,
    bytes: u64,
}

/// The reading side: everything that recorders report.
#[derive(Debug)]
pub struct Telemetry {
    node: Arc<str>,
    registry: Arc<Registry>,
    writer: Option<Writer>,
    taps: Arc<Taps>,
    probes: Arc<Probes>,
    connections: Vec<Arc<Cell>>,
    copies: Vec<Arc<Copies>>,
    dry_runs: Arc<DryRunRegistry>,
    own: Own,
    limits: OnceLock<Arc<Budget>>,
    started: SystemTime,
}

impl Telemetry {
    /// Starts the log writer, unless there is no log to write. `series` is the most combinations of labels that there may
    /// be.
    pub fn start(log: AccessLog, node: &str, workers: usize, series: usize) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            node: Arc::from(node),
            registry: Arc::new(Registry::new(series)),
            writer: (log != AccessLog::Off).then(|| Writer::start(log)).transpose()?,
            taps: Arc::new(Taps::new()),
            probes: Arc::default(),
            connections: (0..workers).map(|_| Arc::default()).collect(),
            copies: (0..workers).map(|_| Arc::default()).collect(),
            dry_runs: Arc::default(),
            own: Own::default(),
            limits: OnceLock::new(),
            started: SystemTime::now(),
        }))
    }

    /// The recorder of a worker.
    pub fn recorder(&self, worker: usize) -> Recorder {
        let parts = Parts {
            sink: Sink::new(&self.registry, self.node.clone()),
            lines: self.writer.as_ref().map(Writer::lines),
            taps: self.taps.clone(),
            probes: self.probes.clone(),
            connections: self.connections.get(worker).cloned().unwrap_or_default(),
            copies: self.copies.get(worker).cloned().unwrap_or_default(),
            dry_runs: DryRunSink::new(&self.dry_runs),
        };
        Recorder { parts: Some(Box::new(parts)) }
    }

    /// Listens to what happens from now on; the caller filters no more. `None`: too many listen.
    pub fn tap(&self, filter: weft_api::admin::TapFilter) -> Option<Subscription> {
        self.taps.subscribe(filter)
    }

    /// Connections that a worker carries now.
    pub fn connections(&self, worker: usize) -> u64 {
        self.connections.get(worker).map_or(0, |cell| cell.get())
    }

    /// Who has talked to whom since the agent started, and how safely.
    pub fn edges(&self) -> Vec<weft_api::admin::EdgeRow> {
        edges::rows(&self.registry.all())
    }

    /// Writes all metrics, as a scrape of Prometheus reads them, piece by piece.
    ///
    /// # Errors
    /// That of `to`.
    pub fn write_metrics(&self, to: &mut impl fmt::Write) -> fmt::Result {
        exposition::write(self, to)
    }

    /// Ends the series of workloads that have been gone for some minutes. `is_there` is asked for namespace and name.
    pub fn sweep(&self, now: Instant, is_there: impl Fn(&str, &str) -> bool) {
        self.registry.sweep(now, is_there);
    }

    /// Who is at a bound of what is counted, in words.
    pub fn full(&self) -> Vec<String> {
        self.registry.fill().full
    }

    /// Tells of limits, too.
    pub fn tell_limits(&self, limits: &Arc<Budget>) {
        self.limits.get_or_init(|| limits.clone());
    }

    /// Takes note of a compilation.
    pub fn compiled(&self, took: Duration) {
        self.own.compilations.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.own.compile_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Takes note of somebody who may not read the node's ports.
    pub fn stranger(&self) {
        self.own.strangers.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes note of what is in force.
    pub fn state(&self, generation: u64, pods: usize, refused: usize) {
        self.own.generation.store(generation, Ordering::Relaxed);
        self.own.pods.store(pods as u64, Ordering::Relaxed);
        self.own.refused.store(refused as u64, Ordering::Relaxed);
    }

    /// Takes note from when the objects in force are, where an agent before has kept them.
    pub fn kept(&self, as_of: Option<SystemTime>) {
        let seconds = as_of.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        self.own.kept.store(seconds.map_or(0, |since| since.as_secs()), Ordering::Relaxed);
    }

    /// Takes note of an object that the API server has sent, and of its size.
    pub fn received(&self, kind: &'static str, bytes: usize) {
        let mut received = self.own.received.lock().unwrap_or_else(PoisonError::into_inner);
        let received = received.entry(kind).or_default();
        received.objects += 1;
        received.bytes += bytes as u64;
    }

    /// Takes note of the certificates that serve now, and when they end.
    pub fn certificates(&self, all: Vec<(Identity, SystemTime)>) {
        self.own.certificates.store(Arc::new(all));
    }

    /// Takes note of what gateways end TLS by.
    pub fn secrets(&self, secrets: Secrets) {
        self.own.secrets.store(Arc::new(secrets));
    }

    /// Writes out what has been logged so far, waiting so long at most.
    pub fn flush(&self, patience: Duration) {
        if let Some(writer) = &self.writer {
            writer.flush(patience);
        }
    }
}

/// What this node's gateways end TLS by.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// By `namespace/name`, when the certificate of each that serves ends.
    pub ends: Vec<(String, SystemTime)>,
    /// Secrets for want of which a server is closed.
    pub closed: usize,
}

#[cfg(test)]
mod tests;
