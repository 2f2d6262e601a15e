//! What is owed to data servers, durable in the batch of its cause and delivered in the background: purges of removed
//! files, and changes of size that a crash has interrupted.

use crate::call::Call;
use crate::data::{Cut, complete, cut, intend};
use crate::error::{Error, Result};
use crate::gate::Gate;
use crate::keys;
use crate::records::{Purge, Resize};
use crate::replies::{Begin, Replies, Running};
use crate::resize;
use crate::server::Inner;
use crate::state::State;
use crate::tx::journal::Journal;
use futures_util::future::join_all;
use parking_lot::Mutex;
use slice_proto::ids::{FileId, IntentionId};
use slice_proto::peer::dir::{HoldKey, HoldPart, OpId};
use slice_proto::peer::intent::IntentKind;
use slice_store::{Batch, Direction, KeyRange, Store, Ticket};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Purges under way at once: bounds what a mass removal has in flight.
const MAX_PURGES: usize = 256;
/// How long a first purge waits for others: a removal is no occasion to wake a thread, many are. Nobody waits for it.
const GATHER: Duration = Duration::from_millis(20);

/// A change of size found after a restart.
#[derive(Debug)]
struct Interrupted {
    file: FileId,
    resize: Resize,
    op: OpId,
    /// The call that it is part of: retransmissions wait for it.
    running: Option<Running>,
}

/// What is owed.
pub(crate) struct Owed {
    purges: Mutex<VecDeque<(FileId, Purge, Ticket)>>,
    /// Purges, interrupted resizes and completed intentions that are not done with.
    open: AtomicUsize,
    interrupted: Mutex<Vec<Interrupted>>,
    /// Set once all interrupted changes of size are finished: what their replies say is true then.
    rolled: Gate,
    completed: Mutex<Vec<IntentionId>>,
    bell: Notify,
}

/// The key that holds a file's attribute record.
pub(crate) const fn attr_key(file: FileId) -> HoldKey {
    HoldKey { site: file.home(), file, part: HoldPart::Attr }
}

fn scan<T>(
    store: &Store,
    prefix: u8,
    decode: impl Fn(&[u8], &[u8]) -> Result<T>,
) -> Result<Vec<(FileId, T)>> {
    let pairs = store.iter(KeyRange::prefix([prefix]), Direction::Forward);
    let read = |pair: slice_store::Result<(bytes::Bytes, bytes::Bytes)>| {
        let (key, value) = pair?;
        let bad = || Error::BadRecord { what: "owed", key: key.to_vec(), why: "its key is too short" };
        Ok((FileId(keys::number(&key).ok_or_else(bad)?), decode(&key, &value)?))
    };
    pairs.map(read).collect()
}

// === impl Owed ===

impl Owed {
    /// What was owed when the server stopped.
    pub(crate) fn load(store: &Store, journal: &Journal) -> Result<Self> {
        let purges: VecDeque<_> = scan(store, keys::PURGE, Purge::decode)?
            .into_iter()
            .map(|(file, purge)| (file, purge, Ticket::default()))
            .collect();
        let interrupted: Vec<_> = scan(store, keys::RESIZE, Resize::decode)?
            .into_iter()
            .map(|(file, resize)| Interrupted { file, resize, op: journal.begin(), running: None })
            .collect();
        let bell = Notify::new();
        if !purges.is_empty() || !interrupted.is_empty() {
            bell.notify_one();
        }
        Ok(Self {
            open: AtomicUsize::new(purges.len() + interrupted.len()),
            purges: Mutex::new(purges),
            rolled: Gate::new(interrupted.is_empty()),
            interrupted: Mutex::new(interrupted),
            completed: Mutex::default(),
            bell,
        })
    }

    /// Holds the files whose change of size was interrupted, and the calls that asked for it. Data servers may agree with
    /// what the record says or not: its readers wait.
    pub(crate) fn lock_again(&self, state: &State, replies: &Replies) {
        for Interrupted { file, resize, op, running } in self.interrupted.lock().iter_mut() {
            if let Some(mut site) = state.site(file.home()) {
                site.locks.ask(attr_key(*file), *op, false, false);
                state.veil(&mut site, &attr_key(*file), *op);
            }
            if let Some(call) = Call::read(&resize.call)
                && let Begin::Run(run) = replies.begin(call.head.trailer.client, call.key())
            {
                *running = Some(run);
            }
        }
    }

    /// Waits until all changes of size that earlier lives began are finished.
    pub(crate) async fn rolled(&self) {
        self.rolled.passed().await;
    }

    /// A file's last link is gone by the batch of `ticket`.
    pub(crate) fn purge(&self, file: FileId, purge: Purge, ticket: Ticket) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let mut purges = self.purges.lock();
        let first = purges.is_empty();
        purges.push_back((file, purge, ticket));
        drop(purges);
        if first {
            self.bell.notify_one();
        }
    }

    /// An intention is fulfilled.
    pub(crate) fn completed(&self, id: Option<IntentionId>) {
        if let Some(id) = id {
            self.open.fetch_add(1, Ordering::Relaxed);
            self.completed.lock().push(id);
            self.bell.notify_one();
        }
    }

    /// What is owed, for a log.
    pub(crate) fn tell(&self) -> String {
        let (purges, completed) = (self.purges.lock().len(), self.completed.lock().len());
        let rolled = self.rolled.is_open();
        format!(
            "{} in all, {purges} purges and {completed} completions waiting, rolled forward: {rolled}",
            self.len()
        )
    }

    pub(crate) fn len(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// Delivers until it is dropped.
pub(crate) async fn run(inner: &Arc<Inner>) {
    let owed = &inner.owed;
    let interrupted = std::mem::take(&mut *owed.interrupted.lock());
    let resizes = async {
        join_all(interrupted.into_iter().map(|i| async move {
            resize::roll_forward(inner, i.file, i.resize, i.op, i.running).await;
            owed.open.fetch_sub(1, Ordering::Relaxed);
        }))
        .await;
        owed.rolled.open();
    };
    let rest = async {
        loop {
            owed.bell.notified().await;
            tokio::time::sleep(GATHER).await;
            while purge_some(inner).await {}
            let ids = std::mem::take(&mut *owed.completed.lock());
            let n = ids.len();
            complete(inner, ids).await;
            owed.open.fetch_sub(n, Ordering::Relaxed);
        }
    };
    tokio::join!(resizes, rest);
}

/// Purges what has gathered, up to a bound; whether there was anything.
async fn purge_some(inner: &Arc<Inner>) -> bool {
    let some: Vec<_> = {
        let mut purges = inner.owed.purges.lock();
        let n = purges.len().min(MAX_PURGES);
        purges.drain(..n).collect()
    };
    let Some(last) = some.iter().map(|(_, _, ticket)| *ticket).max() else { return false };
    // Not before the removal is durable: a crash might bring the file back.
    if let Err(error) = inner.state.store.wait(last).await {
        tracing::error!(%error, "the store lost removals: their bytes are not purged");
        return true;
    }
    join_all(some.iter().map(|(file, purge, _)| purge_one(inner, *file, *purge))).await;
    let mut batch = Batch::new();
    for (file, _, _) in &some {
        batch.delete(keys::purge(*file));
    }
    if let Err(error) = inner.state.store.submit_lazy(batch) {
        tracing::error!(%error, "purges that are done could not be deleted");
    }
    inner.owed.open.fetch_sub(some.len(), Ordering::Relaxed);
    true
}

async fn purge_one(inner: &Arc<Inner>, file: FileId, purge: Purge) {
    let id = intend(inner, IntentKind::Remove, file, purge.epoch, 0, purge.reach).await;
    // A newer epoch than the last one can only be a purge's that came before us.
    let _ = cut(inner, file, purge.epoch, purge.reach, Cut::All).await;
    inner.owed.completed(id);
}
