//! Group commits: how many there were, how many waited for each, how long each took.

use crate::clock;
use crate::count::Histogram;
use crate::samples::Samples;

/// The commits of one log.
#[derive(Debug)]
pub struct Commits {
    served: Histogram,
    took: Histogram,
}

impl Default for Commits {
    fn default() -> Self {
        Self { served: Histogram::sizes(), took: Histogram::durations() }
    }
}

/// A commit that is under way.
#[derive(Debug, Clone, Copy)]
pub struct Commit(u64);

impl Commits {
    /// A commit begins.
    #[must_use]
    pub fn begin(&self) -> Commit {
        Commit(clock::now())
    }

    /// It has made `served` batches, or objects, durable.
    pub fn end(&self, commit: Commit, served: u64) {
        self.served.observe(served);
        self.took.observe(clock::now().saturating_sub(commit.0));
    }

    /// As they are shown; `log` says which log.
    pub fn samples(&self, log: &str, out: &mut Samples) {
        let own = [("log", log)];
        let (served, took) = (self.served.snapshot(), self.took.snapshot());
        out.counter("slice_store_commits_total", "Group commits.", &own, took.count() as f64);
        let help = "Batches (of a store) or objects (of data) that one group commit made durable.";
        out.sizes("slice_store_commit_batches", help, &own, served);
        let help = "Time that one group commit took, fsync included.";
        out.seconds("slice_store_commit_duration_seconds", help, &own, took);
    }
}
