//! Latencies in buckets of at most 1.6 % width.

use std::time::Duration;

/// Buckets for each power of two.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Counts durations by size.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Self {
        Self { counts: vec![0; bucket(u64::MAX) + 1], total: 0 }
    }

    /// Counts one.
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    /// Counts what another one has.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The duration that `per_cent` of them do not exceed; zero if there are none.
    pub fn percentile(&self, per_cent: u64) -> Duration {
        let wanted = (self.total * per_cent).div_ceil(100);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return Duration::from_nanos(upper_bound(index as u64));
            }
        }
        Duration::ZERO
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - STEP_BITS;
    (STEPS * u64::from(shift) + (nanos >> shift)) as usize
}

fn upper_bound(bucket: u64) -> u64 {
    if bucket < 2 * STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    let lowest = (STEPS + bucket % STEPS) << shift;
    lowest + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_is_contiguous_and_narrow() {
        let mut last = 0;
        for nanos in (0..100_000).chain([u64::MAX / 3, u64::MAX]) {
            let bucket = bucket(nanos);
            assert!(nanos >= 100_000 || bucket == last || bucket == last + 1, "{nanos} jumps to {bucket}");
            last = bucket;
            let bound = upper_bound(bucket as u64);
            assert!(bound >= nanos && bound - nanos <= nanos / STEPS + 1, "{nanos} counts as {bound}");
        }
    }

    #[test]
    fn percentile_of_a_ramp() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile(50), Duration::ZERO);
        for micros in 1..=100 {
            histogram.record(Duration::from_micros(micros));
        }
        let p50 = histogram.percentile(50).as_secs_f64() * 1e6;
        let p99 = histogram.percentile(99).as_secs_f64() * 1e6;
        assert!((50.0..51.0).contains(&p50), "{p50}");
        assert!((99.0..101.0).contains(&p99), "{p99}");
        assert_eq!(histogram.total(), 100);
        let mut both = Histogram::new();
        both.record(Duration::from_secs(1));
        both.merge(&histogram);
        assert_eq!((both.total(), both.percentile(50)), (101, histogram.percentile(51)));
    }
}
