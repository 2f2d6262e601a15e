//! The store: what its users hold.

use crate::batch::Batch;
use crate::engine::{self, Direction, Engine, EngineKind, KeyRange, Pairs};
use crate::error::{Error, Result};
use crate::group::Group;
use crate::stamp::{self, StoreStamp};
use crate::wait::{Durable, Ticket};
use bytes::Bytes;
use slice_metrics::Commits;
use std::cmp::Ordering;
use std::fs::File;
use std::iter::Peekable;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::thread::JoinHandle;

/// An open store. Clones are the same store; the last to go writes and fsyncs what is pending, and unlocks it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    group: Arc<Group>,
    stamp: StoreStamp,
    kind: EngineKind,
    committer: Option<JoinHandle<()>>,
    // Last: unlocked when the engine's files are closed. None in tests of this crate.
    _lock: Option<File>,
}

impl Store {
    /// Makes an empty store in `dir` (made if it is not there) for the server that `stamp` names.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is one; nothing is overwritten. [`Error::Locked`], [`Error::Io`], [`Error::Engine`].
    pub fn format(dir: &Path, kind: EngineKind, stamp: StoreStamp) -> Result<()> {
        stamp::format(dir, kind, &stamp)
    }

    /// Opens the store in `dir`, if it is the one that `stamp` names and its format is at most `stamp.format`
    /// (I4: an absent, empty or foreign store is refused, never read as empty). Blocks: reads back the journal.
    ///
    /// # Errors
    /// [`Error::Absent`] and its neighbours say what is wrong and what to do.
    pub fn open(dir: &Path, kind: EngineKind, stamp: StoreStamp) -> Result<Self> {
        // Before the lock, so that nothing is made in a directory that is not ours.
        stamp::read_stamp(dir)?;
        let lock = stamp::lock(dir)?;
        let (found, found_kind) = stamp::read_stamp(dir)?;
        found.admit(found_kind, &stamp, kind, dir)?;
        let engine = kind.open(&stamp::db_dir(dir), false)?;
        engine::check_stamp(engine.as_ref(), &found, kind, dir)?;
        Self::start(engine, kind, found, Some(lock))
    }

    pub(crate) fn start(
        engine: Box<dyn Engine>,
        kind: EngineKind,
        stamp: StoreStamp,
        lock: Option<File>,
    ) -> Result<Self> {
        let group = Arc::new(Group::new(engine, None));
        let run = Arc::clone(&group);
        let committer = std::thread::Builder::new()
            .name("store-commit".to_owned())
            .spawn(move || run.run())
            .map_err(|_| Error::NoCommitter)?;
        Ok(Self { inner: Arc::new(Inner { group, stamp, kind, committer: Some(committer), _lock: lock }) })
    }

    /// A store on an engine that the caller brings, without a directory, a lock and a thread: for simulations. `wanted` is
    /// told when somebody waits for a batch, and has then to see to it that [`turn`](Self::turn) is called, once for each
    /// time that it was told. `stamp` is taken for what the engine holds.
    #[must_use]
    pub fn on_engine(
        engine: Box<dyn Engine>,
        stamp: StoreStamp,
        wanted: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let group = Arc::new(Group::new(engine, Some(Box::new(wanted))));
        group.idle();
        let kind = EngineKind::default();
        Self { inner: Arc::new(Inner { group, stamp, kind, committer: None, _lock: None }) }
    }

    /// Takes the turn that was wanted ([`on_engine`](Self::on_engine)): as [`flush`](Self::flush).
    ///
    /// # Errors
    /// The store's first write or fsync error.
    pub fn turn(&self) -> Result<()> {
        // First: what is wanted while this one runs may be too late for it.
        self.inner.group.idle();
        self.inner.group.turn()
    }

    /// What the store was formatted for; `format` is what it has, which may be older than what was asked for.
    #[must_use]
    pub fn stamp(&self) -> StoreStamp {
        self.inner.stamp
    }

    /// Which engine keeps it.
    #[must_use]
    pub fn kind(&self) -> EngineKind {
        self.inner.kind
    }

    /// The value at `key`, submitted changes included. May block on the disk: a miss of the engine's cache.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let group = &self.inner.group;
        if group.busy.load(Acquire)
            && let Some(change) = group.overlay.read().get(key)
        {
            return Ok(change);
        }
        group.engine.get(key)
    }

    /// The pairs in `range`, submitted changes included. What is submitted later may show or not; what stands
    /// throughout shows exactly once, in order. May block on the disk.
    #[must_use]
    pub fn iter(&self, range: KeyRange, direction: Direction) -> Iter {
        let group = &self.inner.group;
        if range.is_empty() {
            return Iter { changes: Vec::new().into_iter().peekable(), pairs: None, direction };
        }
        // Under one lock, so that no change leaves the overlay unseen before the engine's side is opened.
        let overlay = group.overlay.read();
        let changes = overlay.range(&range, direction).into_iter().peekable();
        let pairs = Some(group.engine.iter(range, direction).peekable());
        drop(overlay);
        Iter { changes, pairs, direction }
    }

    /// The first `limit` pairs of [`iter`](Self::iter). For the next page see [`KeyRange::prefix_after`].
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn scan(&self, range: KeyRange, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.iter(range, direction).take(limit).collect()
    }

    /// Makes `batch` visible at once and durable soon; never blocks. An empty batch's ticket is that of the last
    /// batch before it.
    ///
    /// # Errors
    /// The store's first write error, [`Error::Overloaded`]; nothing of the batch is visible then.
    pub fn submit(&self, batch: Batch) -> Result<Ticket> {
        let ticket = self.inner.group.submit(batch)?;
        self.inner.group.want(ticket);
        Ok(ticket)
    }

    /// As [`submit`](Self::submit), but no fsync is made for it alone: it becomes durable with the next other batch, when
    /// somebody waits for it, by [`flush`](Self::flush), or when the store is closed.
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit).
    pub fn submit_lazy(&self, batch: Batch) -> Result<Ticket> {
        self.inner.group.submit(batch)
    }

    /// Makes durable on the calling thread all that was submitted before. Blocks: for threads of their own, which
    /// save the two wakes of a [`wait`](Self::wait).
    ///
    /// # Errors
    /// The store's first write or fsync error.
    pub fn flush(&self) -> Result<()> {
        self.inner.group.turn()
    }

    /// Resolves when all batches up to `ticket` are durable. At once if they are.
    pub fn wait(&self, ticket: Ticket) -> Durable {
        self.inner.group.want(ticket);
        self.inner.group.progress.wait(ticket)
    }

    /// [`submit`](Self::submit), done when this returns, and [`wait`](Self::wait).
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit).
    pub fn commit(&self, batch: Batch) -> Result<Durable> {
        self.submit(batch).map(|ticket| self.wait(ticket))
    }

    /// The last ticket that is durable.
    #[must_use]
    pub fn durable(&self) -> Ticket {
        self.inner.group.progress.durable()
    }

    /// The last ticket given out: what a reply must wait for that shows something just read
    /// and not known to be durable (DESIGN §11).
    #[must_use]
    pub fn submitted(&self) -> Ticket {
        self.inner.group.submitted()
    }

    /// Whether the store still takes writes.
    ///
    /// # Errors
    /// The first write or fsync error.
    pub fn health(&self) -> Result<()> {
        self.inner.group.progress.health()
    }

    /// Its group commits.
    #[must_use]
    pub fn commits(&self) -> &Commits {
        &self.inner.group.commits
    }

    /// Bytes that the engine's files take on disk.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn space(&self) -> Result<u64> {
        self.inner.group.engine.space()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.group.close();
        if let Some(committer) = self.committer.take() {
            // A panic of the committer has been printed; nobody is left to be told.
            let _ = committer.join();
        }
    }
}

/// Pairs in key order: the engine's, with the overlay's changes over them.
pub struct Iter {
    changes: Peekable<std::vec::IntoIter<(Bytes, Option<Bytes>)>>,
    pairs: Option<Peekable<Pairs>>,
    direction: Direction,
}

// === impl Iterator ===

impl Iterator for Iter {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let pair = self.pairs.as_mut().and_then(Peekable::peek);
            let order = match (self.changes.peek(), pair) {
                (_, Some(Err(_))) | (None, Some(Ok(_))) => Ordering::Greater,
                (Some(_), None) => Ordering::Less,
                (None, None) => return None,
                (Some((change, _)), Some(Ok((key, _)))) => match self.direction {
                    Direction::Forward => change.cmp(key),
                    Direction::Backward => key.cmp(change),
                },
            };
            if order == Ordering::Greater {
                return self.pairs.as_mut()?.next();
            }
            if order == Ordering::Equal {
                self.pairs.as_mut()?.next();
            }
            if let (key, Some(value)) = self.changes.next()? {
                return Some(Ok((key, value)));
            }
        }
    }
}
