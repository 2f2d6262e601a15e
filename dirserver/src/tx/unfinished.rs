//! Operations that are committed here and not carried out yet at every peer.
//!
//! What one has changed here can be read at once. Who has read it may go on to a peer, and must not find there what was
//! before the operation: so the reply to whoever has seen such a record waits until the operation shows at all its peers. Only
//! replies wait, and those who wait hold nothing: nobody can wait for each other. They wait for [`PATIENCE`] at most: a peer that is
//! away for longer shows nothing to anybody, and must not keep the directories of others from being read.

use parking_lot::Mutex;
use slice_proto::ids::FileId;
use slice_store::Ticket;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Replies wait for an operation until it is so old: longer than a server takes to be started again.
const PATIENCE: Duration = Duration::from_secs(30);

/// A record of ours: the attributes of a file, or the names of one hash in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) file: FileId,
    /// The hash of the names; `None`: the attributes.
    pub(crate) names: Option<u64>,
}

/// When a reply may go out.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// When what it shows is durable here.
    pub(crate) ticket: Ticket,
    /// And these operations of ours, which it shows, show at their peers.
    pub(crate) after: Vec<u64>,
}

#[derive(Debug)]
struct Operation {
    /// Until when it is waited for.
    until: Instant,
    changed: Vec<Changed>,
    waiters: Vec<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
struct Table {
    operations: HashMap<u64, Operation>,
    /// Operations by what they have changed, in the order in which they were committed.
    by_file: HashMap<FileId, Vec<(Option<u64>, u64)>>,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Unfinished {
    /// How many there are: nearly always none, and then nobody looks for them.
    count: AtomicUsize,
    table: Mutex<Table>,
}

// === impl Unfinished ===

impl Unfinished {
    /// An operation is about to be committed, or was in an earlier life: before anybody can read what it changes.
    pub(crate) fn begin(&self, seq: u64, changed: Vec<Changed>) {
        let mut table = self.table.lock();
        for of in &changed {
            table.by_file.entry(of.file).or_default().push((of.names, seq));
        }
        let operation = Operation { until: Instant::now() + PATIENCE, changed, waiters: Vec::new() };
        if table.operations.insert(seq, operation).is_none() {
            self.count.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// What is decided by what these operations have changed shows them, too: a directory that could go because a REMOVE had
    /// emptied it. Said before anybody can read it. A restart forgets it.
    pub(crate) fn shown_by(&self, after: &[u64], changed: &[Changed]) {
        if after.is_empty() {
            return;
        }
        let table = &mut *self.table.lock();
        for seq in after {
            let Some(operation) = table.operations.get_mut(seq) else { continue };
            for of in changed.iter().filter(|of| !operation.changed.contains(of)).collect::<Vec<_>>() {
                table.by_file.entry(of.file).or_default().push((of.names, *seq));
                operation.changed.push(*of);
            }
        }
    }

    /// The operation shows at all its peers, or was not committed.
    pub(crate) fn end(&self, seq: u64) {
        if self.is_empty() {
            return;
        }
        let mut table = self.table.lock();
        let Some(operation) = table.operations.remove(&seq) else { return };
        self.count.fetch_sub(1, Ordering::AcqRel);
        for of in operation.changed {
            if let Some(all) = table.by_file.get_mut(&of.file) {
                all.retain(|(_, other)| *other != seq);
                if all.is_empty() {
                    table.by_file.remove(&of.file);
                }
            }
        }
        for waiter in operation.waiters {
            // Who waited may have gone away.
            let _ = waiter.send(());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Adds to `after` the operations that have changed a record. Asked after it was read: what was seen is then there.
    pub(crate) fn of(&self, record: Changed, after: &mut Vec<u64>) {
        self.matching(record.file, |names| names == record.names, after);
    }

    /// The same of all names of a directory from a hash on.
    pub(crate) fn of_names(&self, dir: FileId, from: u64, after: &mut Vec<u64>) {
        self.matching(dir, |names| names.is_some_and(|hash| hash >= from), after);
    }

    fn matching(&self, file: FileId, is: impl Fn(Option<u64>) -> bool, after: &mut Vec<u64>) {
        if self.is_empty() {
            return;
        }
        let table = self.table.lock();
        let now = Instant::now();
        let waits = |seq| table.operations.get(seq).is_some_and(|operation| operation.until > now);
        let all = table.by_file.get(&file).into_iter().flatten();
        // One may be added twice: it is not there any more when it is waited for again.
        after.extend(all.filter(|(names, seq)| is(*names) && waits(seq)).map(|(_, seq)| *seq));
    }

    /// Waits until all of some operations show at all their peers.
    pub(crate) async fn ended(&self, after: &[u64]) {
        for seq in after {
            let waits = self.table.lock().operations.get_mut(seq).map(|operation| {
                let (tx, rx) = oneshot::channel();
                let waiters = &mut operation.waiters;
                if waiters.len() == waiters.capacity() {
                    // Clients that have gone away come again, and again.
                    waiters.retain(|waiter| !waiter.is_closed());
                }
                waiters.push(tx);
                (operation.until, rx)
            });
            if let Some((until, turn)) = waits {
                // An error is as good: nobody waits for it any more, or the server is being stopped.
                let _ = timeout_at(until, turn).await;
            }
        }
    }

    /// What is not finished, for a log.
    pub(crate) fn tell(&self) -> String {
        let mut all: Vec<u64> = self.table.lock().operations.keys().copied().collect();
        all.sort_unstable();
        format!("{all:?}")
    }
}

// === impl Due ===

impl Due {
    /// When the ticket is durable.
    pub(crate) const fn at(ticket: Ticket) -> Self {
        Self { ticket, after: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    const DIR: FileId = FileId(7);
    const FILE: FileId = FileId(8);

    fn attr(file: FileId) -> Changed {
        Changed { file, names: None }
    }

    fn name(hash: u64) -> Changed {
        Changed { file: DIR, names: Some(hash) }
    }

    fn of(u: &Unfinished, record: Changed) -> Vec<u64> {
        let mut after = Vec::new();
        u.of(record, &mut after);
        after
    }

    fn from(u: &Unfinished, hash: u64) -> Vec<u64> {
        let mut after = Vec::new();
        u.of_names(DIR, hash, &mut after);
        after
    }

    #[test]
    fn who_has_seen_a_record_is_told_of_all_that_changed_it() {
        let u = Unfinished::default();
        u.begin(1, vec![name(10), attr(FILE)]);
        u.begin(2, vec![name(20), attr(DIR)]);
        u.begin(3, vec![name(10)]);
        u.shown_by(&[3, 4], &[name(10), name(30)]);
        assert_eq!(of(&u, name(10)), [1, 3]);
        assert_eq!((of(&u, attr(FILE)), of(&u, attr(DIR)), of(&u, name(11))), (vec![1], vec![2], vec![]));
        assert_eq!((from(&u, 0), from(&u, 11), from(&u, 31)), (vec![1, 2, 3, 3], vec![2, 3], vec![]));
        u.end(1);
        u.end(1);
        assert_eq!((of(&u, name(10)), of(&u, attr(FILE))), (vec![3], vec![]));
        u.end(2);
        u.end(3);
        assert!(u.is_empty() && u.table.lock().by_file.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_patience() {
        let u = Unfinished::default();
        u.begin(1, vec![name(10)]);
        let begun = Instant::now();
        u.ended(&[1]).await;
        assert_eq!(begun.elapsed(), PATIENCE);
        assert!(of(&u, name(10)).is_empty());
        u.end(1);
        assert!(u.is_empty() && u.table.lock().by_file.is_empty());
    }

    #[test]
    fn who_waits_goes_on_when_the_last_of_them_has_ended() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        let u = Unfinished::default();
        u.begin(1, vec![name(10)]);
        u.begin(2, vec![name(20)]);
        let waiting = [1, 2, 3];
        let mut ended = Box::pin(u.ended(&waiting));
        let mut look = || ended.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(look(), Poll::Pending);
        u.end(2);
        assert_eq!(look(), Poll::Pending);
        u.end(1);
        assert_eq!(look(), Poll::Ready(()));
    }
}
