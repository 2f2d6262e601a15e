//! Group commit: one thread writes and fsyncs what has gathered while the last fsync ran.
//!
//! Why a thread of its own, and why it writes, not the submitter: docs/decisions/0003-store-engine.md. In short: the
//! engine holds its journal's lock while it fsyncs, so that a submitter that wrote itself would stand still for a
//! whole fsync with all its connections; and one write of a whole group costs less than a write for each batch.

use crate::Batch;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::overlay::{Changes, Overlay};
use crate::wait::{Progress, Ticket};
use parking_lot::{Condvar, Mutex, RwLock};
use slice_metrics::Commits;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that may wait for the committer. Every waiter is a request in flight, and those are bounded elsewhere;
/// this bounds what a stuck disk can make us hold.
pub(crate) const MAX_PENDING_BYTES: usize = 256 << 20;

/// fjall's bound; an empty key is none to it either. Its asserts would take the process along.
const MAX_KEY_BYTES: usize = u16::MAX as usize;

/// Far above any record of ours, far below where the engines count in 32 bits.
const MAX_VALUE_BYTES: usize = 64 << 20;

/// Told that a turn is wanted.
pub(crate) type Turn = Box<dyn Fn() + Send + Sync>;

/// What submitters, readers and the committer share.
pub(crate) struct Group {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) overlay: RwLock<Overlay>,
    /// Whether the overlay holds anything: lets readers pass by its lock when nothing is under way.
    pub(crate) busy: AtomicBool,
    state: Mutex<State>,
    work: Condvar,
    /// Where there is no committer: told that somebody wants a turn taken, instead of `work`.
    call: Option<Turn>,
    /// Held by the one who writes to the engine: the committer, or a caller of [`turn`](Self::turn).
    turn: Mutex<()>,
    pub(crate) commits: Commits,
}

#[derive(Debug, Default)]
struct State {
    submitted: u64,
    /// Tickets up to this one were given to the engine, or are being given.
    taken: u64,
    /// Somebody waits for the tickets up to this one.
    wanted: u64,
    idle: bool,
    closing: bool,
}

impl Group {
    pub(crate) fn new(engine: Box<dyn Engine>, call: Option<Turn>) -> Self {
        Self {
            engine,
            call,
            progress: Arc::new(Progress::new()),
            overlay: RwLock::default(),
            busy: AtomicBool::new(false),
            state: Mutex::default(),
            work: Condvar::new(),
            turn: Mutex::default(),
            commits: Commits::default(),
        }
    }

    /// Shows the batch to readers, and leaves it to the next turn.
    pub(crate) fn submit(&self, batch: Batch) -> Result<Ticket> {
        self.progress.health()?;
        for op in batch.ops() {
            let (key, value) = (op.key.len(), op.value.as_ref().map_or(0, bytes::Bytes::len));
            if key == 0 || key > MAX_KEY_BYTES || value > MAX_VALUE_BYTES {
                return Err(Error::BadSize { key, value });
            }
        }
        let mut state = self.state.lock();
        if batch.is_empty() {
            // Durable when all before it is.
            return Ok(Ticket(state.submitted));
        }
        {
            let mut overlay = self.overlay.write();
            let pending = overlay.pending_bytes();
            if pending > MAX_PENDING_BYTES {
                return Err(Error::Overloaded { pending, max: MAX_PENDING_BYTES });
            }
            // Before the batch is in, so that no reader passes by it.
            self.busy.store(true, Ordering::Release);
            overlay.add(batch);
        }
        state.submitted += 1;
        Ok(Ticket(state.submitted))
    }

    /// Has the committer take a turn for `ticket`, unless one that includes it has begun.
    pub(crate) fn want(&self, ticket: Ticket) {
        let mut state = self.state.lock();
        state.wanted = state.wanted.max(ticket.0.min(state.submitted));
        if state.wanted > state.taken && std::mem::take(&mut state.idle) {
            drop(state);
            match &self.call {
                None => {
                    self.work.notify_one();
                }
                Some(call) => call(),
            }
        }
    }

    pub(crate) fn submitted(&self) -> Ticket {
        Ticket(self.state.lock().submitted)
    }

    /// No more will be submitted; the committer ends when it has written what there is.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.work.notify_one();
    }

    /// As the committer before it waits: what is wanted from now on is told again.
    pub(crate) fn idle(&self) {
        self.state.lock().idle = true;
    }

    /// The committer's life.
    pub(crate) fn run(&self) {
        let _fails_if_it_panics = Guard(&self.progress);
        while self.wait_for_work() && self.turn().is_ok() {}
    }

    /// Waits until somebody wants something written. False when there is no more to come.
    fn wait_for_work(&self) -> bool {
        let mut state = self.state.lock();
        while state.wanted <= state.taken {
            if state.closing {
                return state.submitted > state.taken;
            }
            state.idle = true;
            self.work.wait(&mut state);
        }
        state.idle = false;
        true
    }

    /// Writes and fsyncs all that was submitted before the call, on this thread.
    pub(crate) fn turn(&self) -> Result<()> {
        let _turn = self.turn.lock();
        self.progress.health()?;
        let commit = self.commits.begin();
        let Some((ticket, changes)) = self.take() else { return Ok(()) };
        let before = self.progress.durable();
        let outcome = self.write(&changes);
        match &outcome {
            Ok(()) => {
                self.commits.end(commit, ticket.0.saturating_sub(before.0));
                self.progress.advance(ticket);
            }
            Err(error) => {
                tracing::error!(%error, "the store takes no more writes");
                self.progress.fail(error.clone());
            }
        }
        outcome
    }

    fn take(&self) -> Option<(Ticket, Arc<Changes>)> {
        let mut state = self.state.lock();
        if state.submitted == state.taken {
            return None;
        }
        state.taken = state.submitted;
        // Still under the state's lock, so that the changes are those of exactly these tickets.
        Some((Ticket(state.taken), self.overlay.write().start_writing()))
    }

    fn write(&self, changes: &Changes) -> Result<()> {
        self.engine.write(&mut changes.iter().map(|(k, v)| (k, v.as_ref())))?;
        {
            let mut overlay = self.overlay.write();
            overlay.written();
            if overlay.is_empty() {
                self.busy.store(false, Ordering::Release);
            }
        }
        self.engine.persist()
    }
}

/// Tells the waiters if the committer dies of a bug, so that none of them waits for ever.
struct Guard<'a>(&'a Progress);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::NoCommitter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Direction, EngineKind, KeyRange, Pairs};
    use crate::store::Store;
    use crate::{Batch, StoreStamp};
    use bytes::Bytes;
    use slice_proto::ids::{EnsembleId, Role, ServerId};
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Keeps nothing; each persist tells that it has begun and waits to be told how it ends.
    struct Slow {
        begun: Mutex<Sender<()>>,
        outcome: Mutex<Receiver<Result<()>>>,
    }

    impl Engine for Slow {
        fn get(&self, _: &[u8]) -> Result<Option<Bytes>> {
            Ok(None)
        }
        fn iter(&self, _: KeyRange, _: Direction) -> Pairs {
            Box::new(std::iter::empty())
        }
        fn write(&self, _: &mut dyn ExactSizeIterator<Item = (&Bytes, Option<&Bytes>)>) -> Result<()> {
            Ok(())
        }
        fn persist(&self) -> Result<()> {
            self.begun.lock().send(()).unwrap();
            self.outcome.lock().recv().unwrap()
        }
        fn space(&self) -> Result<u64> {
            Ok(0)
        }
        fn stamp(&self) -> Result<Option<Bytes>> {
            Ok(None)
        }
        fn set_stamp(&self, _: &[u8]) -> Result<()> {
            Ok(())
        }
    }

    fn store() -> (Store, Receiver<()>, Sender<Result<()>>) {
        let (begun, when_begun) = channel();
        let (end, outcome) = channel();
        let engine = Slow { begun: Mutex::new(begun), outcome: Mutex::new(outcome) };
        let stamp = StoreStamp { ensemble: EnsembleId(0), server: ServerId(0), role: Role::Dir, format: 0 };
        (Store::start(Box::new(engine), EngineKind::Fjall, stamp, None).unwrap(), when_begun, end)
    }

    fn one(n: u8) -> Batch {
        let mut b = Batch::new();
        b.put([n], "x");
        b
    }

    fn put(store: &Store, n: u8) -> Ticket {
        store.submit(one(n)).unwrap()
    }

    #[test]
    fn one_fsync_serves_all_that_gathered() {
        let (store, begun, end) = store();
        put(&store, 0);
        begun.recv().unwrap();
        let last = (1..=64).map(|n| put(&store, n)).max().unwrap();
        assert_eq!(store.durable(), Ticket(0));
        end.send(Ok(())).unwrap();
        begun.recv().unwrap();
        assert_eq!(store.durable(), Ticket(1));
        end.send(Ok(())).unwrap();
        store.wait(last).wait_blocking().unwrap();
        assert!(begun.try_recv().is_err(), "two fsyncs for 65 batches");
    }

    #[test]
    fn lazy_batches_wait_for_company() {
        let (store, begun, end) = store();
        let lazy = store.submit_lazy(one(0)).unwrap();
        let next = put(&store, 1);
        begun.recv().unwrap();
        end.send(Ok(())).unwrap();
        store.wait(next).wait_blocking().unwrap();
        assert!(store.durable() >= lazy);
        // Or for somebody who waits.
        let lazy = store.submit_lazy(one(2)).unwrap();
        end.send(Ok(())).unwrap();
        store.wait(lazy).wait_blocking().unwrap();
        // Or for one who does it himself.
        store.submit_lazy(one(3)).unwrap();
        end.send(Ok(())).unwrap();
        store.flush().unwrap();
        assert_eq!(store.durable(), store.submitted());
        // Or for the end.
        store.submit_lazy(one(4)).unwrap();
        end.send(Ok(())).unwrap();
        drop(store);
        assert_eq!(begun.try_iter().count(), 3);
    }

    #[test]
    fn an_fsync_error_is_told_to_everyone_and_stays() {
        let (store, begun, end) = store();
        let first = put(&store, 0);
        begun.recv().unwrap();
        let (waiting, later) = (store.wait(first), store.wait(put(&store, 1)));
        let thread = std::thread::spawn(move || waiting.wait_blocking());
        let error = Error::Engine {
            kind: EngineKind::Fjall,
            what: "fsync",
            source: Arc::new(std::io::Error::from_raw_os_error(5)),
        };
        end.send(Err(error)).unwrap();
        assert!(matches!(thread.join().unwrap(), Err(Error::Engine { what: "fsync", .. })));
        assert!(later.wait_blocking().is_err());
        let mut b = Batch::new();
        b.put("k", "v");
        assert!(store.submit(b).is_err());
        assert!(store.health().is_err());
        assert!(store.wait(Ticket(0)).wait_blocking().is_ok(), "what was durable stays so");
    }

    #[test]
    fn waiters_of_one_thread_wake_each_other() {
        let (store, begun, end) = store();
        let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&rt, async {
            let tasks: Vec<_> = (0..64)
                .map(|n| {
                    let done = store.wait(put(&store, n));
                    tokio::task::spawn_local(done)
                })
                .collect();
            // All stand in line, whichever groups the committer made of them.
            tokio::task::yield_now().await;
            std::thread::spawn(move || while begun.recv().is_ok() && end.send(Ok(())).is_ok() {});
            for task in tasks {
                task.await.unwrap().unwrap();
            }
        });
    }
}
