//! Counters and histograms. Each has two ways to be raised: by its one writer without a locked instruction, or by anybody.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of a duration's buckets, ns: from what a call in memory takes to what a stuck disk does, a factor of
/// about 2.5 apart. One more bucket is above them.
pub const BOUNDS_NS: [u64; 18] = [
    2_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// Upper bounds of a count's buckets: how many batches one fsync served.
pub const SIZES: [u64; 18] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 4096];

const BUCKETS: usize = BOUNDS_NS.len() + 1;

/// A number that only grows, or a gauge.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds, as its only writer: no read-modify-write.
    pub fn add_own(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds; any thread may. Not for every request.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// What it is now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How often a value fell between which bounds, and the sum of all values.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64; BOUNDS_NS.len()],
    buckets: [Counter; BUCKETS],
    sum: Counter,
}

/// A histogram's figures at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Upper bounds, included, in order.
    pub bounds: &'static [u64; BOUNDS_NS.len()],
    /// Values in each bucket alone; the last is above all bounds.
    pub buckets: [u64; BUCKETS],
    /// Sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// An empty one of durations, in ns.
    #[must_use]
    pub fn durations() -> Self {
        Self::new(&BOUNDS_NS)
    }

    /// An empty one of sizes.
    #[must_use]
    pub fn sizes() -> Self {
        Self::new(&SIZES)
    }

    fn new(bounds: &'static [u64; BOUNDS_NS.len()]) -> Self {
        Self { bounds, buckets: Default::default(), sum: Counter::default() }
    }

    /// The bucket of a value.
    #[must_use]
    pub fn bucket(&self, value: u64) -> usize {
        self.bounds.partition_point(|bound| *bound < value)
    }

    /// Counts a value that falls into `bucket`, as the only writer.
    pub fn observe_own(&self, bucket: usize, value: u64) {
        if let Some(counter) = self.buckets.get(bucket) {
            counter.add_own(1);
            self.sum.add_own(value);
        }
    }

    /// Counts a value; any thread may. Not for every request.
    pub fn observe(&self, value: u64) {
        if let Some(counter) = self.buckets.get(self.bucket(value)) {
            counter.add(1);
            self.sum.add(value);
        }
    }

    /// Its figures now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::empty(self.bounds);
        snapshot.add(self);
        snapshot
    }
}

impl Snapshot {
    /// Nothing counted.
    #[must_use]
    pub const fn empty(bounds: &'static [u64; BOUNDS_NS.len()]) -> Self {
        Self { bounds, buckets: [0; BUCKETS], sum: 0 }
    }

    /// Adds another thread's histogram of the same bounds.
    pub fn add(&mut self, other: &Histogram) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, n)| *sum += n.get());
        self.sum += other.sum.get();
    }

    /// Adds another snapshot of the same bounds.
    pub fn merge(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, n)| *sum += n);
        self.sum += other.sum;
    }

    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let h = Histogram::durations();
        assert_eq!((h.bucket(0), h.bucket(2_000), h.bucket(2_001)), (0, 0, 1));
        assert_eq!(h.bucket(u64::MAX), BUCKETS - 1);
        h.observe(5_000);
        h.observe_own(h.bucket(u64::MAX), 7);
        let s = h.snapshot();
        assert_eq!((s.count(), s.sum, s.buckets[1], s.buckets[BUCKETS - 1]), (2, 5_007, 1, 1));
        for bounds in [BOUNDS_NS, SIZES] {
            assert!(bounds.is_sorted());
        }
    }
}
