//! The room of a queue, in bytes, shared by the pods whose reports wait in it: one that floods loses reports of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use weft_rules::workload::Workload;

/// One pod's part of the whole.
const OF_ALL_PER_POD: usize = 4;
/// Pods are told apart by a hash: those that share one share their part.
const BUCKETS: usize = 64;

/// How much waits, in all and of each.
#[derive(Debug)]
pub struct Shares {
    limit: usize,
    all: AtomicUsize,
    each: [AtomicUsize; BUCKETS],
}

/// Room that was taken; it goes back by [`Shares::give_back`].
#[derive(Debug, PartialEq, Eq)]
pub struct Share {
    bucket: usize,
    size: usize,
}

impl Shares {
    /// So many bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, all: AtomicUsize::new(0), each: [const { AtomicUsize::new(0) }; BUCKETS] }
    }

    /// Takes room for a report about this pod; `None`: there is none, or the pod has had its part.
    pub fn take(&self, pod: Option<&Arc<Workload>>, size: usize) -> Option<Share> {
        let address = pod.map_or(0, |pod| Arc::as_ptr(&pod.key).addr());
        // Fibonacci hashing: the upper bits are mixed best.
        let bucket = (address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - BUCKETS.ilog2());
        let share = Share { bucket: usize::try_from(bucket).unwrap_or(0), size };
        let all = self.all.fetch_add(size, Ordering::Relaxed) + size;
        let own = self.each[share.bucket].fetch_add(size, Ordering::Relaxed) + size;
        if all <= self.limit && own <= self.limit / OF_ALL_PER_POD {
            return Some(share);
        }
        self.give_back(&share);
        None
    }

    /// A report waits no more.
    pub fn give_back(&self, share: &Share) {
        self.all.fetch_sub(share.size, Ordering::Relaxed);
        self.each[share.bucket].fetch_sub(share.size, Ordering::Relaxed);
    }
}
