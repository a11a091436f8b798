//! All series of all workers: made when a worker sees labels for the first time, read by a scrape, and ended some minutes
//! after the pods that they are about.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::budget::Budget;
use super::labels::Labels;
use super::series::{HttpCells, Series, TcpCells};

/// How long the series of workloads that are gone can still be read.
const AFTERLIFE: Duration = Duration::from_mins(5);
/// The most series in all, where nothing else is said.
pub const SERIES: usize = 10_000;

/// Where workers put their series.
#[derive(Debug)]
pub struct Registry {
    /// Taken by a worker only when it sees a combination for the first time.
    book: Mutex<Book>,
    /// Changes whenever series have ended.
    epoch: AtomicU64,
}

#[derive(Debug)]
struct Book {
    budget: Budget,
    labels: HashMap<Arc<Labels>, Entry, RandomState>,
    series: AllSeries,
}

#[derive(Debug, Default)]
struct Entry {
    /// It stands for labels that have found no room, and takes none itself.
    folded: bool,
    /// Since when its workloads are gone.
    gone: Option<Instant>,
}

/// Series in the order of their making; several may have the same labels.
#[derive(Debug, Default, Clone)]
pub struct AllSeries {
    /// Of requests.
    pub http: Vec<Arc<Series<HttpCells>>>,
    /// Of connections.
    pub tcp: Vec<Arc<Series<TcpCells>>>,
}

/// How full it is.
#[derive(Debug)]
pub struct Fill {
    /// Combinations of labels that there are.
    pub series: usize,
    /// The most there may be.
    pub limit: usize,
    /// How often there was no room.
    pub dropped: u64,
    /// Who is at a bound, in words.
    pub full: Vec<String>,
}

impl Registry {
    /// Room for so many combinations of labels.
    pub fn new(limit: usize) -> Self {
        let book =
            Book { budget: Budget::new(limit), labels: HashMap::default(), series: AllSeries::default() };
        Self { book: Mutex::new(book), epoch: AtomicU64::new(0) }
    }

    /// All there are now.
    pub fn all(&self) -> AllSeries {
        self.book().series.clone()
    }

    /// How full it is.
    pub fn fill(&self) -> Fill {
        let Book { budget, .. } = &*self.book();
        Fill {
            series: budget.series(),
            limit: budget.limit(),
            dropped: budget.dropped(),
            full: budget.full().collect(),
        }
    }

    /// Changes whenever series have ended: workers then forget those that have.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// The labels under which something is to be counted: these, or, where there is no room for them, folded ones.
    pub fn admit(&self, labels: Labels) -> Arc<Labels> {
        let Book { budget, labels: known, .. } = &mut *self.book();
        if let Some((known, _)) = known.get_key_value(&labels) {
            return known.clone();
        }
        let (labels, folded) = match budget.take(&labels) {
            Ok(()) => (labels, false),
            Err(folded) => (folded, true),
        };
        if let Some((known, _)) = known.get_key_value(&labels) {
            return known.clone();
        }
        let labels = Arc::new(labels);
        known.insert(labels.clone(), Entry { folded, gone: None });
        labels
    }

    /// Adds a worker's series.
    pub fn add(&self, put: impl FnOnce(&mut AllSeries)) {
        put(&mut self.book().series);
    }

    /// Ends the series of workloads that have been gone for a while. `is_there` is asked for namespace and name.
    pub fn sweep(&self, now: Instant, is_there: impl Fn(&str, &str) -> bool) {
        let Book { budget, labels, series } = &mut *self.book();
        let mut ended = false;
        labels.retain(|labels, entry| {
            if is_about(labels, &is_there) {
                entry.gone = None;
                return true;
            }
            if now.duration_since(*entry.gone.get_or_insert(now)) < AFTERLIFE {
                return true;
            }
            if !entry.folded {
                budget.give_back(labels);
            }
            ended = true;
            false
        });
        if !ended {
            return;
        }
        keep(&mut series.http, |one| labels.contains_key(&one.labels));
        keep(&mut series.tcp, |one| labels.contains_key(&one.labels));
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether labels are about workloads that are there, as far as they name any.
fn is_about(labels: &Labels, is_there: impl Fn(&str, &str) -> bool) -> bool {
    let ends = [
        ("source_workload_namespace", "source_workload"),
        ("destination_workload_namespace", "destination_workload"),
    ];
    ends.into_iter().all(|(namespace, name)| {
        let (namespace, name) = (labels.get(namespace), labels.get(name));
        matches!(name, "unknown" | super::labels::OTHER) || is_there(namespace, name)
    })
}

fn keep<Cells: Default>(series: &mut Vec<Arc<Series<Cells>>>, wanted: impl Fn(&Series<Cells>) -> bool) {
    series.retain(|one| {
        let stays = wanted(one);
        if !stays {
            one.retire();
        }
        stays
    });
}
