//! What a workload counts: latencies by procedure while it is on, wrong replies always.

use crate::result::{Latency, Mistake, Mistakes, ProcLine};
use hdrhistogram::Histogram;
use slice_proto::nfs3::Proc3;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest latency that is told apart: ten minutes.
const MAX_LATENCY_NS: u64 = 600_000_000_000;
/// Digits to which latencies are kept.
const DIGITS: u8 = 3;
/// Different mistakes that are kept apart; further ones are only counted.
const MAX_KINDS: usize = 50;

/// Latencies of calls.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

/// Counts calls while it is on, and wrong replies always. Shared by all callers of a workload.
#[derive(Debug, Default)]
pub struct Tally {
    on: Cell<bool>,
    by_proc: RefCell<BTreeMap<Proc3, Latencies>>,
    done: Cell<u64>,
    wrong: RefCell<Mistakes>,
}

// === impl Latencies ===

impl Default for Latencies {
    fn default() -> Self {
        #[expect(
            clippy::expect_used,
            reason = "the bounds are constants that the library's documentation allows"
        )]
        Self(Histogram::new_with_bounds(1, MAX_LATENCY_NS, DIGITS).expect("constant bounds"))
    }
}

impl Latencies {
    /// Counts one call.
    pub fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts another's calls too.
    pub fn add(&mut self, other: &Self) {
        // Equal bounds: the sum has room for every value of either.
        let _ = self.0.add(&other.0);
    }

    /// How many calls.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.0.len()
    }

    /// Mean and percentiles.
    #[must_use]
    pub fn figures(&self) -> Latency {
        let us = |q| self.0.value_at_quantile(q) as f64 / 1e3;
        Latency {
            mean_us: self.0.mean() / 1e3,
            p50_us: us(0.50),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: self.0.max() as f64 / 1e3,
        }
    }
}

// === impl Tally ===

impl Tally {
    /// Forgets what was counted (not what was wrong) and counts from now on.
    pub fn begin(&self) {
        self.by_proc.borrow_mut().clear();
        self.on.set(true);
    }

    /// Stops counting: the latencies by procedure.
    pub fn end(&self) -> BTreeMap<Proc3, Latencies> {
        self.on.set(false);
        self.by_proc.take()
    }

    /// A call was answered, rightly.
    pub fn answered(&self, proc: Proc3, took: Duration) {
        self.done.set(self.done.get() + 1);
        if self.on.get() {
            self.by_proc.borrow_mut().entry(proc).or_default().record(took);
        }
    }

    /// A call was answered wrongly, or not at all.
    pub fn wrong(&self, proc: Proc3, what: String) {
        self.wrong.borrow_mut().add(proc, what);
    }

    /// Calls answered rightly so far, whether counted or not.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.get()
    }

    /// Wrong replies so far.
    #[must_use]
    pub fn mistakes(&self) -> u64 {
        self.wrong.borrow().total
    }

    /// What was wrong.
    #[must_use]
    pub fn wrongs(&self) -> Mistakes {
        self.wrong.borrow().clone()
    }
}

// === impl Mistakes ===

impl Mistakes {
    /// Counts one.
    pub fn add(&mut self, proc: Proc3, what: String) {
        self.total += 1;
        let proc = proc.name();
        if let Some(kind) = self.kinds.iter_mut().find(|k| k.proc == proc && k.what == what) {
            kind.times += 1;
        } else if self.kinds.len() < MAX_KINDS {
            self.kinds.push(Mistake { proc: proc.to_owned(), what, times: 1 });
        }
    }
}

/// A line for each procedure, and all of them together.
#[must_use]
pub fn lines(by_proc: &BTreeMap<Proc3, Latencies>, seconds: f64) -> (Vec<ProcLine>, Latencies) {
    let mut all = Latencies::default();
    let line = |(proc, latencies): (&Proc3, &Latencies)| {
        all.add(latencies);
        ProcLine {
            proc: proc.name().to_owned(),
            calls: latencies.calls(),
            per_s: latencies.calls() as f64 / seconds.max(f64::MIN_POSITIVE),
            latency: latencies.figures(),
        }
    };
    (by_proc.iter().map(line).collect(), all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_while_it_is_on_is_counted() {
        let tally = Tally::default();
        let ms = Duration::from_millis;
        tally.answered(Proc3::Read, ms(9));
        tally.begin();
        for n in 1..=100 {
            tally.answered(Proc3::Read, ms(n));
        }
        tally.answered(Proc3::Write, ms(7));
        let got = tally.end();
        tally.answered(Proc3::Read, ms(9));
        let (lines, all) = lines(&got, 2.0);
        assert_eq!((tally.done(), all.calls()), (103, 101));
        assert_eq!(
            lines.iter().map(|l| (l.proc.as_str(), l.calls)).collect::<Vec<_>>(),
            [("READ", 100), ("WRITE", 1)]
        );
        assert!((lines[0].per_s - 50.0).abs() < 1e-9);
        let read = &lines[0].latency;
        for (got, expected) in
            [(read.p50_us, 50e3), (read.p99_us, 99e3), (read.p999_us, 100e3), (read.mean_us, 50.5e3)]
        {
            assert!((got - expected).abs() < expected * 0.002, "{got} for {expected}");
        }
    }

    #[test]
    fn mistakes_are_counted_by_kind_and_bounded() {
        let tally = Tally::default();
        for n in 0..200 {
            tally.wrong(Proc3::Read, "the same".into());
            tally.wrong(Proc3::Write, format!("kind {n}"));
        }
        let all = tally.wrongs();
        assert_eq!((all.total, all.kinds.len()), (400, MAX_KINDS));
        assert_eq!((all.kinds[0].what.as_str(), all.kinds[0].times), ("the same", 200));
    }
}
