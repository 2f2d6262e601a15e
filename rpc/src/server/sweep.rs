//! Closing connections that make no progress: a record that never ends, replies that are never taken. The data path
//! only counts; once in a while each listener's sweep on each thread compares the counts with the last time's. And closing
//! one that nobody misses where a newcomer finds no place.

use super::Limits;
use super::connection::{Rest, Shared, State};
use crate::buffers;
use slice_metrics::clock;
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Sweeps per stall limit: a stalled connection lives at most a quarter longer than its limit.
const SWEEPS: u32 = 4;

/// The connections of one listener on one thread.
#[derive(Default)]
pub(super) struct Watched(RefCell<Vec<Entry>>);

struct Entry {
    shared: Weak<Shared>,
    seen: Progress,
    stalled: u32,
}

/// What changes when a connection makes progress.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Progress {
    records: u64,
    sent: u64,
}

impl Progress {
    fn of(shared: &Shared) -> Self {
        Self { records: shared.records.get(), sent: shared.out.borrow().sent() }
    }
}

impl Watched {
    pub(super) fn add(&self, shared: &Rc<Shared>) {
        let entry = Entry { shared: Rc::downgrade(shared), seen: Progress::of(shared), stalled: 0 };
        self.0.borrow_mut().push(entry);
    }

    /// One look at all connections; closes those that stand still for the [`SWEEPS`]th time.
    fn sweep(&self) {
        self.0.borrow_mut().retain_mut(|entry| {
            let Some(shared) = entry.shared.upgrade() else { return false };
            let now = Progress::of(&shared);
            let waits = shared.mid_record.get() || !shared.out.borrow().is_empty();
            entry.stalled = if waits && now == entry.seen { entry.stalled + 1 } else { 0 };
            entry.seen = now;
            if entry.stalled > SWEEPS {
                shared.enter(State::Closed);
            }
            true
        });
    }

    /// Closes the connection that loses least by it, of those whose host `of` accepts and that were not heard for `silent`: the
    /// one that has been idle for longest; never one with a request under way whose client reads on. Whether there was one.
    pub(super) fn make_room(&self, silent: Duration, of: impl Fn(IpAddr) -> bool) -> bool {
        // 584 years fit.
        let heard_ns = clock::now().saturating_sub(silent.as_nanos() as u64);
        let mut victim: Option<((Rest, u64), Rc<Shared>)> = None;
        self.0.borrow_mut().retain(|entry| {
            let Some(shared) = entry.shared.upgrade() else { return false };
            if let Some(rest) = shared.rest()
                && rest.1 <= heard_ns
                && victim.as_ref().is_none_or(|(least, _)| rest < *least)
                && of(shared.host())
            {
                victim = Some((rest, shared));
            }
            true
        });
        let Some((_, shared)) = victim else { return false };
        shared.enter(State::Closed);
        true
    }

    /// Tells every connection to finish, or to close at once.
    pub(super) fn end(&self, at_once: bool) {
        for shared in self.0.borrow().iter().filter_map(|e| e.shared.upgrade()) {
            if at_once {
                shared.enter(State::Closed);
            } else if shared.state() == State::Open {
                shared.enter(State::Finishing);
            }
        }
    }

    /// Sweeps for ever.
    pub(super) async fn run(self: Rc<Self>, limits: Limits) {
        let mut ticks = tokio::time::interval((limits.stall / SWEEPS).max(Duration::from_millis(1)));
        loop {
            ticks.tick().await;
            self.sweep();
            buffers::trim();
        }
    }
}
