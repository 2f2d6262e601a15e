//! Calls, errors and latencies by procedure: a [`Calls`] for each thread, added up by [`CallsOf`].
//!
//! Every call is counted. A call that waits (for a disk, for a peer) is measured each time, by the clock that was read as its
//! wake-ups began. A call that is answered at once takes less than reading the clock twice may cost it: one in
//! [`ONE_IN`] is measured, and those between count as the last one measured.

use crate::clock;
use crate::count::{BOUNDS_NS, Counter, Histogram, Snapshot};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Of so many calls that are answered at once, one is measured.
pub const ONE_IN: u64 = 16;

/// Different statuses of one procedure that one thread tells apart. NFSv3 has 30, of which no procedure knows half.
const STATUSES: usize = 16;

/// One thread's figures of one procedure.
#[derive(Debug)]
struct Procedure {
    begun: Counter,
    latency: Histogram,
    /// What the last measured call that was answered at once took, ns.
    last: AtomicU64,
    /// Errors, by status; a slot is empty while its status is 0.
    errors: [(AtomicU32, Counter); STATUSES],
    /// Errors whose status found no slot.
    other: Counter,
}

impl Default for Procedure {
    fn default() -> Self {
        Self {
            begun: Counter::default(),
            latency: Histogram::durations(),
            last: AtomicU64::new(0),
            errors: Default::default(),
            other: Counter::default(),
        }
    }
}

/// One thread's figures. Only that thread writes.
#[derive(Debug)]
pub struct Calls(Box<[Procedure]>);

/// When a call began, if that is known precisely, and the wake-up in which it did.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    precise: Option<u64>,
    woken: u64,
}

impl Calls {
    /// A call of this procedure comes in.
    pub fn begin(&self, procedure: usize) -> Timing {
        let woken = clock::coarse();
        let Some(p) = self.0.get(procedure) else { return Timing { precise: None, woken } };
        let n = p.begun.get();
        p.begun.add_own(1);
        let precise = n.is_multiple_of(ONE_IN).then(clock::now);
        Timing { precise, woken }
    }

    /// It was answered in the wake-up in which it began. `status` 0 is success.
    pub fn at_once(&self, procedure: usize, timing: Timing, status: u32) {
        let Some(p) = self.0.get(procedure) else { return };
        let took = match timing.precise {
            Some(from) => {
                let took = clock::now().saturating_sub(from);
                p.last.store(took, Relaxed);
                took
            }
            None => p.last.load(Relaxed),
        };
        p.latency.observe_own(p.latency.bucket(took), took);
        p.ended(status);
    }

    /// It was answered in the wake-up that runs now: that in which it began, or a later one.
    pub fn later(&self, procedure: usize, timing: Timing, status: u32) {
        let Some(p) = self.0.get(procedure) else { return };
        let took = clock::coarse().saturating_sub(timing.woken);
        if took == 0 {
            // By a server in this process.
            return self.at_once(procedure, timing, status);
        }
        p.latency.observe_own(p.latency.bucket(took), took);
        p.ended(status);
    }
}

impl Timing {
    /// Of something that begins now and is not counted.
    #[must_use]
    pub fn now() -> Self {
        Self { precise: None, woken: clock::coarse() }
    }

    /// Nanoseconds since the wake-up in which it began, by the clock as it was last read.
    #[must_use]
    pub fn waited_ns(&self) -> u64 {
        clock::coarse().saturating_sub(self.woken)
    }
}

impl Procedure {
    fn ended(&self, status: u32) {
        if status == 0 {
            return;
        }
        for (known, count) in &self.errors {
            let found = known.load(Relaxed);
            if found == 0 {
                known.store(status, Relaxed);
            }
            if found == 0 || found == status {
                return count.add_own(1);
            }
        }
        self.other.add_own(1);
    }
}

/// What all threads counted of one procedure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// The procedure's number among those that are counted.
    pub procedure: usize,
    /// Calls that came in.
    pub begun: u64,
    /// Calls that were answered, by how long that took, ns.
    pub latency: Snapshot,
    /// Answers that were errors, by status; [`OTHER`] stands for those that were too many to tell apart.
    pub errors: BTreeMap<u32, u64>,
}

/// Errors of a procedure that returned more different statuses than are told apart.
pub const OTHER: u32 = u32::MAX;

/// Every thread's calls of one server or to one server.
#[derive(Debug)]
pub struct CallsOf {
    procedures: usize,
    threads: Mutex<Vec<Arc<Calls>>>,
}

impl CallsOf {
    /// For so many procedures.
    #[must_use]
    pub fn new(procedures: usize) -> Self {
        Self { procedures, threads: Mutex::default() }
    }

    /// The figures of one more thread, which alone will write them.
    #[must_use]
    pub fn thread(&self) -> Arc<Calls> {
        let calls = Arc::new(Calls((0..self.procedures).map(|_| Procedure::default()).collect()));
        self.threads.lock().push(Arc::clone(&calls));
        calls
    }

    /// Procedures that were called, in order.
    #[must_use]
    pub fn sums(&self) -> Vec<Sum> {
        let threads = self.threads.lock();
        let of = |procedure: usize| {
            let mut sum =
                Sum { procedure, begun: 0, latency: Snapshot::empty(&BOUNDS_NS), errors: BTreeMap::new() };
            for p in threads.iter().filter_map(|t| t.0.get(procedure)) {
                sum.begun += p.begun.get();
                sum.latency.add(&p.latency);
                for (status, count) in &p.errors {
                    match (status.load(Relaxed), count.get()) {
                        (_, 0) => {}
                        (status, n) => *sum.errors.entry(status).or_default() += n,
                    }
                }
                if p.other.get() > 0 {
                    *sum.errors.entry(OTHER).or_default() += p.other.get();
                }
            }
            sum
        };
        (0..self.procedures).map(of).filter(|sum| sum.begun > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_counted_and_errors_by_status() {
        let all = CallsOf::new(3);
        let (a, b) = (all.thread(), all.thread());
        for n in 0..100 {
            let t = a.begin(1);
            a.at_once(1, t, if n % 10 == 0 { 2 } else { 0 });
        }
        let t = b.begin(1);
        b.later(1, t, 70);
        let _unanswered = b.begin(2);
        let sums = all.sums();
        assert_eq!(sums.len(), 2);
        assert_eq!((sums[0].procedure, sums[0].begun, sums[0].latency.count()), (1, 101, 101));
        assert_eq!(sums[0].errors, [(2, 10), (70, 1)].into());
        assert_eq!((sums[1].begun, sums[1].latency.count()), (1, 0));
        assert!(a.begin(9).precise.is_none(), "a procedure that is none is not counted");
    }

    #[test]
    fn what_is_answered_in_the_wake_up_in_which_it_began_takes_more_than_nothing() {
        let all = CallsOf::new(1);
        let calls = all.thread();
        clock::tick();
        for _ in 0..2 * ONE_IN {
            let t = calls.begin(0);
            std::hint::black_box((0..1000).fold(0u64, |a, b| a ^ std::hint::black_box(b)));
            calls.later(0, t, 0);
        }
        let sum = &all.sums()[0];
        assert_eq!(sum.latency.count(), 2 * ONE_IN);
        assert!(sum.latency.sum > 0);
    }

    #[test]
    fn more_statuses_than_slots_are_counted_together() {
        let all = CallsOf::new(1);
        let calls = all.thread();
        for status in 1..=STATUSES as u32 + 3 {
            let t = calls.begin(0);
            calls.at_once(0, t, status);
        }
        let errors = &all.sums()[0].errors;
        assert_eq!(errors[&OTHER], 3);
        assert_eq!(errors.values().sum::<u64>(), STATUSES as u64 + 3);
    }
}
