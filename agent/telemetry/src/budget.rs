//! How many series there may be: in all, of one workload, and between two workloads. What is beyond is still counted, in one
//! series whose other labels say `other`, so that whoever makes too many spoils nobody's picture but its own.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use super::labels::Labels;

/// One workload may have this part of all series.
const OF_ALL_PER_WORKLOAD: usize = 5;
/// Two workloads may have this part of all series between them.
const OF_ALL_PER_PAIR: usize = 100;

/// What stays of labels that are folded, beside the workloads at fault.
const ALWAYS_KEPT: [&str; 2] = ["reporter", "request_protocol"];
const SOURCE: [&str; 3] = ["source_workload", "source_workload_namespace", "source_cluster"];
const DESTINATION: [&str; 3] =
    ["destination_workload", "destination_workload_namespace", "destination_cluster"];

/// How many there may be, and how many there are.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    series: usize,
    held: HashMap<String, usize, RandomState>,
    /// Bounds that were reached: whose, and what they are.
    full: BTreeMap<String, usize>,
    dropped: u64,
}

/// Who is charged for a series.
struct Holders {
    /// The caller; where that is nobody known, the destination.
    workload: String,
    /// Both.
    pair: String,
    from: bool,
}

impl Holders {
    fn of(labels: &Labels) -> Self {
        let workload = |namespace, name| match (labels.get(namespace), labels.get(name)) {
            ("unknown", "unknown") => None,
            (namespace, name) => Some(format!("{namespace}/{name}")),
        };
        let source = workload("source_workload_namespace", "source_workload");
        let destination = workload("destination_workload_namespace", "destination_workload")
            .unwrap_or_else(|| labels.get("destination_service").to_owned());
        let from = source.is_some();
        let pair = format!("{} → {destination}", source.as_deref().unwrap_or("outside the mesh"));
        Self { workload: source.unwrap_or(destination), pair, from }
    }
}

impl Budget {
    /// Nothing is taken yet of so many.
    pub fn new(limit: usize) -> Self {
        Self { limit, series: 0, held: HashMap::default(), full: BTreeMap::new(), dropped: 0 }
    }

    /// The most there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many there are; folded ones are not among them.
    pub fn series(&self) -> usize {
        self.series
    }

    /// How often a worker saw labels for which there was no room.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes room for a series with these labels.
    ///
    /// # Errors
    /// There is none: it is to be counted under these.
    pub fn take(&mut self, labels: &Labels) -> Result<(), Labels> {
        let holders = Holders::of(labels);
        let (of_workload, of_pair) =
            ((self.limit / OF_ALL_PER_WORKLOAD).max(1), (self.limit / OF_ALL_PER_PAIR).max(1));
        let mut kept = ALWAYS_KEPT.to_vec();
        let (who, limit) = if self.series >= self.limit {
            ("all workloads".to_owned(), self.limit)
        } else if self.held(&holders.workload) >= of_workload {
            kept.extend(if holders.from { SOURCE } else { DESTINATION });
            (holders.workload, of_workload)
        } else if self.held(&holders.pair) >= of_pair {
            kept.extend(SOURCE.into_iter().chain(DESTINATION));
            if labels.get("destination_workload") == "unknown" {
                kept.push("destination_service");
            }
            (holders.pair, of_pair)
        } else {
            self.series += 1;
            *self.held.entry(holders.workload).or_default() += 1;
            *self.held.entry(holders.pair).or_default() += 1;
            return Ok(());
        };
        self.note(who, limit);
        Err(labels.fold(&kept))
    }

    /// Gives back what was taken for a series with these labels.
    pub fn give_back(&mut self, labels: &Labels) {
        let holders = Holders::of(labels);
        self.series = self.series.saturating_sub(1);
        self.full.remove("all workloads");
        for holder in [holders.workload, holders.pair] {
            self.full.remove(&holder);
            if let Some(held) = self.held.get_mut(&holder) {
                *held -= 1;
                if *held == 0 {
                    self.held.remove(&holder);
                }
            }
        }
    }

    /// Who is at a bound, and what that means, in words.
    pub fn full(&self) -> impl Iterator<Item = String> + '_ {
        self.full.iter().map(|(who, limit)| {
            format!(
                "metrics: {who} has {limit} series, the most there may be; what is new there is counted as `{}` \
                 (--metric-series)",
                super::labels::OTHER
            )
        })
    }

    fn held(&self, holder: &str) -> usize {
        self.held.get(holder).copied().unwrap_or(0)
    }

    fn note(&mut self, who: String, limit: usize) {
        self.dropped += 1;
        self.full.entry(who).or_insert_with_key(|who| {
            tracing::warn!(%who, limit, "no room for more series of metrics: new ones are counted as `other`");
            limit
        });
    }
}
