//! Counters that one thread writes and others read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::labels::Labels;
use super::security::Outcome;

/// A number that only one thread changes: a plain load and store, no locked instruction.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds. Only ever on the thread that owns the cell.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes away, likewise.
    pub fn subtract(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).saturating_sub(n), Ordering::Relaxed);
    }

    /// Reads, on any thread.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add_f64(&self, n: f64) {
        let sum = f64::from_bits(self.0.load(Ordering::Relaxed)) + n;
        self.0.store(sum.to_bits(), Ordering::Relaxed);
    }
}

/// Upper bounds of Envoy's buckets, which Istio uses for durations in milliseconds and sizes in bytes alike.
pub const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// How values are spread.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Cell; BOUNDS.len() + 1],
    sum: Cell,
}

impl Histogram {
    /// Counts a value.
    pub fn observe(&self, value: f64) {
        self.buckets[BOUNDS.partition_point(|bound| *bound < value)].add(1);
        self.sum.add_f64(value);
    }
}

/// Several histograms added up.
#[derive(Debug, Default)]
pub struct Spread {
    /// Of each bucket alone.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// Of all values.
    pub sum: f64,
}

impl Spread {
    /// Adds one more.
    pub fn add(&mut self, histogram: &Histogram) {
        for (total, cell) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *total += cell.get();
        }
        self.sum += f64::from_bits(histogram.sum.get());
    }
}

/// What is counted of requests.
#[derive(Debug, Default)]
pub struct HttpCells {
    /// Requests.
    pub requests: Cell,
    /// Milliseconds from the first byte to the last.
    pub duration: Histogram,
    /// Body bytes from the caller.
    pub request_bytes: Histogram,
    /// Body bytes to the caller.
    pub response_bytes: Histogram,
    /// gRPC messages from the caller.
    pub request_messages: Cell,
    /// gRPC messages to the caller.
    pub response_messages: Cell,
}

/// What is counted of connections.
#[derive(Debug, Default)]
pub struct TcpCells {
    /// Connections that opened.
    pub opened: Cell,
    /// Connections that closed.
    pub closed: Cell,
    /// Bytes to the caller.
    pub sent_bytes: Cell,
    /// Bytes from the caller.
    pub received_bytes: Cell,
}

/// Cells with the labels under which they appear.
#[derive(Debug)]
pub struct Series<Cells> {
    /// Labels.
    pub labels: Arc<Labels>,
    /// What `weft edges` tells of it; `None`: the destination's side of what the source's tells already.
    pub edge: Option<Outcome>,
    /// Cells.
    pub cells: Cells,
    retired: AtomicBool,
}

impl<Cells: Default> Series<Cells> {
    /// Nothing was counted yet.
    pub fn new(labels: Arc<Labels>, edge: Option<Outcome>) -> Self {
        Self { labels, edge, cells: Cells::default(), retired: AtomicBool::new(false) }
    }

    /// Nobody reads it any more: what is counted is to be counted elsewhere.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether it is retired.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }
}
