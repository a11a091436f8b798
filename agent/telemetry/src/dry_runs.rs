//! What policies that are tried out would have done, counted by policy, verdict, caller and destination.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use prometheus_client::encoding::EncodeLabelSet;
use weft_rules::guard::DryRun;
use weft_rules::workload::Workload;

use super::labels::OTHER;
use super::record::Upstream;
use super::series::Cell;

/// Combinations of labels; beyond, callers and destinations are `other`.
const SERIES: usize = 1_000;
/// Combinations that a worker remembers before that memory is wiped.
const KNOWN: usize = 4_096;

/// What is told apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct DryRunLabels {
    /// `NAMESPACE/NAME`.
    pub policy: String,
    /// `denied` or `allowed`.
    pub verdict: String,
    /// The caller's.
    pub source_workload: String,
    /// The caller's.
    pub source_workload_namespace: String,
    /// The caller's identity, where it is proved.
    pub source_principal: String,
    /// The pod's on which the policy is tried out.
    pub destination_workload: String,
    /// The same.
    pub destination_workload_namespace: String,
}

/// All that is counted, of all workers.
#[derive(Debug, Default)]
pub struct DryRunRegistry(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    labels: HashSet<Arc<DryRunLabels>, RandomState>,
    series: Vec<Arc<Series>>,
}

#[derive(Debug)]
struct Series {
    labels: Arc<DryRunLabels>,
    count: Cell,
}

impl DryRunRegistry {
    /// Everything, added up.
    pub fn totals(&self) -> BTreeMap<Arc<DryRunLabels>, u64> {
        let mut totals = BTreeMap::new();
        for series in &self.book().series {
            *totals.entry(series.labels.clone()).or_default() += series.count.get();
        }
        totals
    }

    /// The labels under which something is to be counted: these, or, where there is no room for them, folded ones.
    fn admit(&self, labels: DryRunLabels) -> Arc<DryRunLabels> {
        let known = &mut self.book().labels;
        if let Some(known) = known.get(&labels) {
            return known.clone();
        }
        let labels = if known.len() < SERIES { labels } else { fold(labels, known.len() < 2 * SERIES) };
        if let Some(known) = known.get(&labels) {
            return known.clone();
        }
        let labels = Arc::new(labels);
        known.insert(labels.clone());
        labels
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fold(labels: DryRunLabels, with_policy: bool) -> DryRunLabels {
    let other = || OTHER.to_owned();
    DryRunLabels {
        policy: if with_policy { labels.policy } else { other() },
        verdict: labels.verdict,
        source_workload: other(),
        source_workload_namespace: other(),
        source_principal: other(),
        destination_workload: other(),
        destination_workload_namespace: other(),
    }
}

/// What the labels depend on. The arcs beside it keep the pointers from being used again.
type Key = (usize, bool, usize, usize, u64);

#[derive(Debug)]
struct Known {
    series: Arc<Series>,
    _policy: Arc<str>,
    _workloads: [Option<Arc<Workload>>; 2],
}

/// A worker's counters.
#[derive(Debug)]
pub struct DryRunSink {
    registry: Arc<DryRunRegistry>,
    known: RefCell<HashMap<Key, Known, RandomState>>,
    series: RefCell<HashMap<Arc<DryRunLabels>, Arc<Series>, RandomState>>,
}

impl DryRunSink {
    /// Counters that the registry shows.
    pub fn new(registry: &Arc<DryRunRegistry>) -> Self {
        Self { registry: registry.clone(), known: RefCell::default(), series: RefCell::default() }
    }

    /// Counts what was said of a request or a connection.
    pub fn count(&self, source: Option<&Arc<Workload>>, upstream: &Upstream) {
        for dry_run in &upstream.dry_runs {
            self.count_one(dry_run, source, upstream);
        }
    }

    fn count_one(&self, dry_run: &DryRun, source: Option<&Arc<Workload>>, upstream: &Upstream) {
        let address = |workload: Option<&Arc<Workload>>| workload.map_or(0, |arc| Arc::as_ptr(arc).addr());
        let destination = upstream.workload.as_ref();
        let policy = Arc::as_ptr(&dry_run.policy).addr();
        let key = (policy, dry_run.denies, address(source), address(destination), upstream.security.key());
        let mut known = self.known.borrow_mut();
        if known.len() >= KNOWN {
            known.clear();
        }
        let known = known.entry(key).or_insert_with(|| Known {
            series: self.series(dry_run, source, upstream),
            _policy: dry_run.policy.clone(),
            _workloads: [source.cloned(), destination.cloned()],
        });
        known.series.count.add(1);
    }

    fn series(&self, dry_run: &DryRun, source: Option<&Arc<Workload>>, upstream: &Upstream) -> Arc<Series> {
        let [principal, _] = upstream.principals(source);
        let named = |value: Option<&Arc<str>>| value.map_or("unknown", |value| value).to_owned();
        let destination = upstream.workload.as_ref();
        let labels = self.registry.admit(DryRunLabels {
            policy: dry_run.policy.to_string(),
            verdict: if dry_run.denies { "denied" } else { "allowed" }.to_owned(),
            source_workload: named(source.map(|source| &source.workload_name)),
            source_workload_namespace: named(source.map(|source| &source.namespace)),
            source_principal: if principal.is_empty() { named(None) } else { principal },
            destination_workload: named(destination.map(|destination| &destination.workload_name)),
            destination_workload_namespace: named(destination.map(|destination| &destination.namespace)),
        });
        let mut series = self.series.borrow_mut();
        let series = series.entry(labels.clone()).or_insert_with(|| {
            let series = Arc::new(Series { labels, count: Cell::default() });
            self.registry.book().series.push(series.clone());
            series
        });
        series.clone()
    }
}
