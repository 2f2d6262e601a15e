//! Group commit of one object: all who wait share an fdatasync that began after their bytes were written.
//!
//! A failed fsync is the last word on the object (I8): the kernel may have thrown its unwritten pages away, and a
//! later fsync would say that all is well. So from then on its WRITEs and COMMITs fail with EIO, and the server's write
//! verifier changes, so that whoever holds unacknowledged data sends it again. It heals when no byte of it is left
//! (a cut at the threshold, a purge), or by a restart.

use crate::error::{Error, Result};
use crate::node::Node;
use crate::object::Object;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What of an object is not durable yet, and who waits for it.
#[derive(Debug, Default)]
pub(crate) struct Committer(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Counts writes.
    written: u64,
    /// Writes that are durable.
    synced: u64,
    /// Which write made the file, if its directory entry is not durable yet.
    entry: Option<u64>,
    /// Whether a job runs: there is never more than one.
    running: bool,
    /// Whether an fsync has failed.
    lost: bool,
    waiters: Vec<(u64, oneshot::Sender<bool>)>,
}

/// What a job is to make durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Round {
    target: u64,
    entry: bool,
}

/// How to wait for what was written so far.
enum Wait {
    Durable,
    Lost,
    Join(oneshot::Receiver<bool>),
    /// The same, and start a job.
    Start(oneshot::Receiver<bool>),
}

impl Committer {
    /// Bytes were written.
    pub(crate) fn wrote(&self) {
        self.0.lock().written += 1;
    }

    /// The file was made, and its entry is not durable yet.
    pub(crate) fn created(&self) {
        let mut state = self.0.lock();
        state.written += 1;
        state.entry = Some(state.written);
    }

    /// Whether an fsync has failed.
    pub(crate) fn lost(&self) -> bool {
        self.0.lock().lost
    }

    /// Whether all that was written is durable, and nothing is lost.
    pub(crate) fn clean(&self) -> bool {
        let state = self.0.lock();
        state.synced == state.written && !state.lost
    }

    /// No byte is left that could be lost.
    pub(crate) fn heal(&self) {
        self.0.lock().lost = false;
    }

    fn wait(&self) -> Wait {
        let mut state = self.0.lock();
        if state.lost {
            return Wait::Lost;
        }
        if state.synced == state.written {
            return Wait::Durable;
        }
        let (tx, rx) = oneshot::channel();
        let target = state.written;
        state.waiters.push((target, tx));
        if std::mem::replace(&mut state.running, true) { Wait::Join(rx) } else { Wait::Start(rx) }
    }

    fn begin(&self) -> Round {
        let state = self.0.lock();
        Round { target: state.written, entry: state.entry.is_some() }
    }

    /// Ends a round of the job; whether there must be another. If it was lost, all who wait have lost.
    fn end(&self, round: Round, durable: bool) -> bool {
        let mut state = self.0.lock();
        state.settle(round, durable);
        let (synced, lost) = (state.synced, state.lost);
        for (_, tx) in state.waiters.extract_if(.., |(target, _)| lost || *target <= synced) {
            // Whoever has gone does not need to know.
            let _ = tx.send(!lost);
        }
        state.running = !state.waiters.is_empty();
        state.running
    }

    /// Ends a round that ran beside the job: that one tells those who wait.
    fn end_beside(&self, round: Round, durable: bool) {
        self.0.lock().settle(round, durable);
    }
}

impl State {
    fn settle(&mut self, round: Round, durable: bool) {
        if !durable {
            // For good: the kernel tells of an error once, and not of that one again to the next fsync.
            self.lost = true;
        }
        if durable && !self.lost {
            self.synced = self.synced.max(round.target);
            self.entry = self.entry.filter(|made| *made > round.target);
        }
    }
}

/// Ends a job that is dropped before it ran, because its runtime has ended: those who wait must not wait for ever.
struct Job {
    object: Arc<Object>,
    finished: bool,
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.finished {
            let mut state = self.object.committer.0.lock();
            state.running = false;
            state.waiters.clear();
        }
    }
}

impl Node {
    /// Waits until all that was written to `object` so far is durable, its directory entry and its record too.
    pub(crate) async fn durable(self: &Arc<Self>, object: &Arc<Object>) -> Result<()> {
        let record = object.state.read().record;
        let mine = match object.committer.wait() {
            Wait::Durable => None,
            Wait::Lost => return Err(Error::Poisoned),
            Wait::Join(rx) => Some(rx),
            Wait::Start(rx) => {
                let (node, job) = (Arc::clone(self), Job { object: Arc::clone(object), finished: false });
                self.system.pool.start(move || node.commit(job));
                Some(rx)
            }
        };
        if let Some(rx) = mine {
            match rx.await {
                Ok(true) => {}
                Ok(false) => return Err(Error::Poisoned),
                Err(_) => return Err(Error::ShuttingDown),
            }
        }
        Ok(self.store.wait(record).await?)
    }

    /// Whether there is nothing of `object` to wait for.
    pub(crate) fn is_clean(&self, object: &Object) -> bool {
        // One who holds the state alone is changing it.
        let Some(state) = object.state.try_read() else { return false };
        object.committer.clean() && state.record <= self.store.durable()
    }

    fn commit(&self, mut job: Job) {
        let object = Arc::clone(&job.object);
        loop {
            let round = object.committer.begin();
            let result = self.sync_once(&object, round.entry);
            if let Err(error) = &result {
                self.fail(&object, error);
            }
            if !object.committer.end(round, result.is_ok()) {
                break;
            }
        }
        job.finished = true;
    }

    /// What follows from a failed fsync, beside telling those who wait. Before they are told.
    fn fail(&self, object: &Object, error: &Error) {
        tracing::error!(file = %object.file, %error, "an fsync failed: uncommitted data of this object is lost");
        self.change_verifier();
    }

    /// One fdatasync, and the directories of a new entry. Blocks.
    fn sync_once(&self, object: &Object, entry: bool) -> Result<()> {
        #[cfg(test)]
        if self.fail_fsync.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return Err(Error::io("fdatasync", self.layout.path(object.file))(rustix::io::Errno::IO.into()));
        }
        let bytes = object.state.read().bytes.clone();
        // Purged meanwhile: nothing of it needs to be durable.
        let Some(bytes) = bytes else { return Ok(()) };
        let commit = self.commits.begin();
        bytes.sync_data().map_err(|e| Error::io("fdatasync", self.layout.path(object.file))(e))?;
        self.commits.end(commit, 1);
        if entry { self.layout.sync_entry(object.file) } else { Ok(()) }
    }

    /// As [`durable`](Self::durable) for the bytes alone, on this thread. Blocks. For one who cuts and is alone with that.
    pub(crate) fn sync_here(&self, object: &Object) -> Result<()> {
        let round = object.committer.begin();
        let result = self.sync_once(object, round.entry);
        if let Err(error) = &result {
            self.fail(object, error);
        }
        object.committer.end_beside(round, result.is_ok());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use slice_proto::ids::{EnsembleId, Epoch, FileId, Role, ServerId};
    use slice_proto::secret::Identity;
    use slice_store::{EngineKind, Store, StoreStamp};
    use slice_system::Kernel;

    fn rx(wait: Wait) -> oneshot::Receiver<bool> {
        match wait {
            Wait::Join(rx) | Wait::Start(rx) => rx,
            Wait::Durable | Wait::Lost => panic!("nothing to wait for"),
        }
    }

    #[test]
    fn a_round_serves_those_whose_bytes_it_began_after() {
        let c = Committer::default();
        assert!(matches!(c.wait(), Wait::Durable));
        c.wrote();
        let mut first = rx(c.wait());
        c.wrote();
        let mut second = match c.wait() {
            Wait::Join(rx) => rx,
            _ => panic!("one job is enough"),
        };
        let round = c.begin();
        c.wrote();
        let mut late = rx(c.wait());
        assert!(c.end(round, true), "the late one needs another round");
        assert_eq!(first.try_recv(), Ok(true));
        assert_eq!(second.try_recv(), Ok(true));
        assert!(late.try_recv().is_err());
        assert!(!c.end(c.begin(), true));
        assert_eq!(late.try_recv(), Ok(true));
        assert!(c.clean());
    }

    /// An earlier life may have made the file and ended before its entry was durable; not every file system has a syncfs that
    /// [`Layout::open`] could count on.
    #[test]
    fn the_entry_of_a_file_that_was_found_goes_with_the_first_write() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { ensemble: EnsembleId(1), secret: [2; 32] };
        let stamp = StoreStamp { ensemble: EnsembleId(1), server: ServerId(3), role: Role::Block, format: 1 };
        Layout::format(&Kernel, dir.path(), &identity, ServerId(3)).unwrap();
        Store::format(dir.path(), EngineKind::Fjall, stamp).unwrap();
        let store = Store::open(dir.path(), EngineKind::Fjall, stamp).unwrap();
        let life = || Layout::open(Arc::new(Kernel), dir.path(), &identity, ServerId(3)).unwrap();
        let load = |layout: &Layout, write| {
            let object = Object::new(FileId(5));
            object.load(&store, layout, write).unwrap();
            object
        };
        assert!(load(&life(), Some(Epoch(0))).committer.begin().entry, "it was made");
        let layout = life();
        let found = load(&layout, None);
        assert!(found.committer.clean(), "who only reads has nothing to wait for");
        found.wrote();
        assert!(found.committer.begin().entry);
        layout.sync_entry(FileId(5)).unwrap();
        let again = load(&layout, None);
        again.wrote();
        assert!(!again.committer.begin().entry, "once a life is enough");
    }

    #[test]
    fn after_a_failure_nothing_succeeds_until_no_byte_is_left() {
        let c = Committer::default();
        c.wrote();
        let mut waits = rx(c.wait());
        let round = c.begin();
        c.wrote();
        let mut late = rx(c.wait());
        assert!(!c.end(round, false));
        assert_eq!((waits.try_recv(), late.try_recv()), (Ok(false), Ok(false)));
        assert!(matches!(c.wait(), Wait::Lost));
        assert!(!c.clean());
        c.heal();
        assert!(matches!(c.wait(), Wait::Start(_)), "what is not synced must still be");
    }
}
