//! Where a µproxy's CPU time goes, by phase, as the paper's table has it.
//!
//! What runs to completion takes as much CPU as time, unless the kernel takes the thread away. Reading the clock between phases
//! would cost as much as a phase: so one request, and one wake-up, in [`ONE_IN`] is measured and stands for all.

use crate::clock;
use crate::count::Counter;
use parking_lot::Mutex;
use std::cell::Cell;
use std::sync::Arc;

/// Of so many requests, or wake-ups, one is measured.
pub const ONE_IN: u32 = 32;

/// A phase that took longer was interrupted: no phase of a megabyte's request takes so long. ns.
const INTERRUPTED: u64 = 2_000_000;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Phase {
    /// Reading from sockets, and finding records.
    Receive = 0,
    /// Procedure, handle (MAC checked), name, extent.
    Decode = 1,
    /// Export rule, plan, owner of the site.
    Route = 2,
    /// Credential, trailers, xid; making the record that goes on.
    Rewrite = 3,
    /// What is known of files: permission, growth, attributes patched.
    SoftState = 4,
    /// Writing to sockets.
    Send = 5,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 6] =
        [Self::Receive, Self::Decode, Self::Route, Self::Rewrite, Self::SoftState, Self::Send];

    /// As metrics are labelled.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Decode => "decode",
            Self::Route => "route",
            Self::Rewrite => "rewrite",
            Self::SoftState => "soft state",
            Self::Send => "send",
        }
    }
}

/// One thread's time in each phase. Only that thread writes.
#[derive(Debug, Default)]
pub struct Times([Counter; Phase::ALL.len()]);

/// One thread's phases; stays on its thread.
#[derive(Debug, Default)]
pub struct Phases {
    times: Arc<Times>,
    requests: Cell<u32>,
    wakes: Cell<u32>,
}

/// A request, or a wake-up, that may be one of those that are measured.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Trace(Option<u64>);

impl Trace {
    /// What is not measured.
    pub const NONE: Self = Self(None);
}

impl Phases {
    /// A request's work begins, on its way there or back.
    pub fn request(&self) -> Trace {
        Trace(chosen(&self.requests))
    }

    /// A wake-up begins.
    pub fn wake(&self) -> Trace {
        Trace(chosen(&self.wakes))
    }

    /// What was done since the last lap was of this phase.
    pub fn lap(&self, trace: &mut Trace, phase: Phase) {
        let Trace(Some(from)) = trace else { return };
        let now = clock::now();
        let took = now.saturating_sub(*from);
        if took < INTERRUPTED
            && let Some(time) = self.times.0.get(phase as usize)
        {
            time.add_own(took * u64::from(ONE_IN));
        }
        *from = now;
    }

    /// What was done since the last lap was of no phase.
    pub fn skip(&self, trace: &mut Trace) {
        if let Trace(Some(from)) = trace {
            *from = clock::now();
        }
    }
}

fn chosen(count: &Cell<u32>) -> Option<u64> {
    let n = count.get().wrapping_add(1);
    count.set(n);
    n.is_multiple_of(ONE_IN).then(clock::now)
}

/// Every thread's phases.
#[derive(Debug, Default)]
pub struct PhasesOf(Mutex<Vec<Arc<Times>>>);

impl PhasesOf {
    /// One more thread's.
    #[must_use]
    pub fn thread(&self) -> Phases {
        let phases = Phases::default();
        self.0.lock().push(Arc::clone(&phases.times));
        phases
    }

    /// Nanoseconds in each phase, of all threads.
    #[must_use]
    pub fn sums_ns(&self) -> [(Phase, u64); Phase::ALL.len()] {
        let threads = self.0.lock();
        let of = |p: Phase| threads.iter().filter_map(|t| t.0.get(p as usize)).map(Counter::get).sum();
        Phase::ALL.map(|p| (p, of(p)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_many_is_measured_and_stands_for_all() {
        let all = PhasesOf::default();
        let phases = all.thread();
        let mut measured = 0;
        for _ in 0..10 * ONE_IN {
            let mut trace = phases.request();
            measured += u32::from(trace.0.is_some());
            phases.lap(&mut trace, Phase::Decode);
        }
        assert_eq!(measured, 10);
        let sums = all.sums_ns();
        assert!(sums[Phase::Decode as usize].1.is_multiple_of(u64::from(ONE_IN)));
        assert_eq!(sums[Phase::Send as usize], (Phase::Send, 0));
    }
}
