//! Counts of calls. Each thread has its own, so that counting never meets another core's cache.

use slice_proto::nfs3::Proc3;
use std::sync::atomic::{AtomicU64, Ordering};

const PROCS: usize = Proc3::ALL.len();

/// One thread's counts of calls by procedure.
#[derive(Debug, Default)]
pub struct Ops([AtomicU64; PROCS]);

impl Ops {
    /// Counts a call. Only the owning thread does.
    pub fn count(&self, proc: Proc3) {
        if let Some(n) = self.0.get(proc as usize) {
            // No read-modify-write: there is one writer.
            n.store(n.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// Adds these counts to `sums`, in order of procedure numbers.
    pub fn add_to(&self, sums: &mut [u64; PROCS]) {
        sums.iter_mut().zip(&self.0).for_each(|(sum, n)| *sum += n.load(Ordering::Relaxed));
    }
}

/// Counts as `slice status` shows them: only procedures that were called.
#[must_use]
pub fn named(sums: &[u64; PROCS]) -> Vec<(String, u64)> {
    Proc3::ALL.iter().zip(sums).filter(|(_, n)| **n > 0).map(|(p, n)| (p.name().to_owned(), *n)).collect()
}
