//! Waiting for durability without a lock across the wait, and with one cross-thread wake per thread and fsync.
//!
//! Waking a runtime from another thread costs a system call, and 35 µs of CPU if it sleeps. So waiters stand in one
//! list per thread. The committer wakes the first of each list; that one, polled on its own thread, wakes its
//! neighbours, which there costs next to nothing.

use crate::error::{Error, Result};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// Position in an order of which [`Progress`] tells how far it is durable: for a store, of a batch among all submitted
/// since it was opened. Later is greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// How far something is durable, and who waits for it to get further. A [`Store`](crate::Store) has one; a log of one's own
/// may have another.
#[derive(Debug)]
pub struct Progress {
    id: u64,
    durable: AtomicU64,
    failed: OnceLock<Error>,
    hubs: Mutex<Vec<Arc<Hub>>>,
}

/// The waiters of one thread, those whose wait ends first in front.
#[derive(Debug, Default)]
struct Hub {
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    next: u64,
    standing: BTreeMap<Place, Waker>,
}

/// A waiter's ticket and its number in the hub.
type Place = (Ticket, u64);

/// Numbers the stores of this process, so that a thread finds its hub in each.
static NEXT_STORE: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// This thread's hub in every store that it has waited for; those of closed stores go when a new one comes.
    static HUBS: RefCell<HashMap<u64, Weak<Hub>>> = RefCell::new(HashMap::new());
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Nothing is durable yet but ticket 0.
    #[must_use]
    pub fn new() -> Self {
        Self {
            id: NEXT_STORE.fetch_add(1, Ordering::Relaxed),
            durable: AtomicU64::new(0),
            failed: OnceLock::new(),
            hubs: Mutex::default(),
        }
    }

    /// Everything up to this ticket is durable.
    #[must_use]
    pub fn durable(&self) -> Ticket {
        Ticket(self.durable.load(Ordering::Acquire))
    }

    /// Whether it goes on.
    ///
    /// # Errors
    /// What it has failed with.
    pub fn health(&self) -> Result<()> {
        self.failed.get().cloned().map_or(Ok(()), Err)
    }

    /// Whether the wait for `ticket` is over, and how. What is durable stays so whatever fails later.
    fn outcome(&self, ticket: Ticket) -> Option<Result<()>> {
        if self.durable() >= ticket {
            return Some(Ok(()));
        }
        self.failed.get().cloned().map(Err)
    }

    /// Everything up to `ticket` is durable now. Wakes who waited for it.
    pub fn advance(&self, ticket: Ticket) {
        self.durable.fetch_max(ticket.0, Ordering::AcqRel);
        self.wake();
    }

    /// Nothing more will ever be durable. Only the first error counts. Wakes all who wait.
    pub fn fail(&self, error: Error) {
        // The first error is the cause; those after it are its consequences.
        let _ = self.failed.set(error);
        self.wake();
    }

    /// Resolves when `ticket` is durable. Nothing is started by that.
    pub fn wait(self: &Arc<Self>, ticket: Ticket) -> Durable {
        Durable { progress: Arc::clone(self), ticket, place: None }
    }

    fn wake(&self) {
        let hubs = {
            let mut hubs = self.hubs.lock();
            // A hub that only we know belongs to a thread that has ended, and nobody stands in it.
            hubs.retain(|hub| Arc::strong_count(hub) > 1 || Arc::weak_count(hub) > 0);
            hubs.clone()
        };
        for hub in hubs {
            if let Some(waker) = hub.take_first(self) {
                waker.wake();
            }
        }
    }

    fn hub(self: &Arc<Self>) -> Arc<Hub> {
        HUBS.with_borrow_mut(|mine| {
            if let Some(hub) = mine.get(&self.id).and_then(Weak::upgrade) {
                return hub;
            }
            mine.retain(|_, hub| hub.strong_count() > 0);
            let hub = Arc::<Hub>::default();
            mine.insert(self.id, Arc::downgrade(&hub));
            self.hubs.lock().push(Arc::clone(&hub));
            hub
        })
    }
}

impl Hub {
    /// Stands in line, anew if `place` is an earlier poll's.
    fn stand(&self, ticket: Ticket, place: Option<u64>, waker: Waker) -> u64 {
        let mut waiters = self.waiters.lock();
        let id = place.unwrap_or_else(|| {
            waiters.next += 1;
            waiters.next
        });
        waiters.standing.insert((ticket, id), waker);
        id
    }

    /// The first, if its wait is over.
    fn take_first(&self, progress: &Progress) -> Option<Waker> {
        let mut waiters = self.waiters.lock();
        let first = waiters.standing.first_entry()?;
        progress.outcome(first.key().0).map(|_| first.remove())
    }

    /// Leaves the line, and wakes all others whose wait is over: the committer may have woken only one of us.
    fn leave(&self, place: Place, progress: &Progress) {
        self.waiters.lock().standing.remove(&place);
        while let Some(waker) = self.take_first(progress) {
            waker.wake();
        }
    }
}

/// Resolves when its ticket is durable, or with the store's error. May be dropped at any time: the batch stays
/// submitted. Works on any executor and any thread.
#[must_use = "a batch is durable only when this says so"]
#[derive(Debug)]
pub struct Durable {
    progress: Arc<Progress>,
    ticket: Ticket,
    /// Where it stands, and as which number.
    place: Option<(Arc<Hub>, u64)>,
}

impl Durable {
    /// The ticket that it waits for.
    #[must_use]
    pub const fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Blocks the calling thread until it resolves. Not for a thread that serves.
    ///
    /// # Errors
    /// The store's.
    pub fn wait_blocking(mut self) -> Result<()> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut cx = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(outcome) = Pin::new(&mut self).poll(&mut cx) {
                return outcome;
            }
            std::thread::park();
        }
    }

    fn leave(&mut self) {
        if let Some((hub, id)) = self.place.take() {
            hub.leave((self.ticket, id), &self.progress);
        }
    }
}

// === impl Future ===

impl Future for Durable {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.progress.outcome(self.ticket) {
            self.leave();
            return Poll::Ready(outcome);
        }
        let (hub, id) = match self.place.take() {
            Some((hub, id)) => (hub, Some(id)),
            None => (self.progress.hub(), None),
        };
        let id = hub.stand(self.ticket, id, cx.waker().clone());
        self.place = Some((hub, id));
        // The committer may have advanced between the look above and the insert, and have seen no waiter.
        match self.progress.outcome(self.ticket) {
            Some(outcome) => {
                self.leave();
                Poll::Ready(outcome)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        // If the committer has chosen it to wake the others, they must not wait for the next fsync.
        self.leave();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
