//! Records held by operations that span waits: an operation with parts at several servers, a change of size.
//!
//! An operation whose records are all here and unheld needs none of this: it reads, decides and commits under the
//! sites' mutexes without a wait between.
//!
//! A directory's record is shared by operations that change it by counts and times only, whose order does not matter: so
//! a directory grows at many servers at once. Who wants a record for himself queues, and those who would share it
//! queue behind him.

use slice_proto::ids::FileId;
use slice_proto::peer::dir::{HoldKey, HoldPart, OpId};
use std::collections::{HashMap, VecDeque};
use tokio::sync::oneshot;

/// Resolves when its place in the queue has come; an error if the operation was dropped meanwhile.
pub(crate) type Turn = oneshot::Receiver<()>;

#[derive(Debug)]
enum Waiter {
    /// Becomes a holder; shared or not.
    Hold(OpId, bool, oneshot::Sender<()>),
    /// A reader: looks again when the record is not veiled any more.
    Look(oneshot::Sender<()>),
}

#[derive(Debug)]
struct Holder {
    op: OpId,
    share: bool,
    /// Readers wait too: the hold was found after a restart, or the record is about to appear.
    veils: bool,
}

#[derive(Debug)]
struct Lock {
    holders: Vec<Holder>,
    waiters: VecDeque<Waiter>,
}

/// What became of asking for a lock.
#[derive(Debug)]
pub(crate) enum Asked {
    /// It is the operation's, now or already.
    Held,
    /// Another holds it, and waiting was not wanted.
    Busy,
    /// Another holds it; this tells when it is the operation's.
    Queued(Turn),
}

/// How a record stands to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nobody holds it.
    Free,
    /// The operation holds it, alone or not.
    Mine,
    /// Others share it.
    Shared,
    /// Another holds it for himself.
    Others,
}

/// The held records of one site.
#[derive(Debug, Default)]
pub(crate) struct Locks(HashMap<HoldKey, Lock>);

impl Locks {
    /// How a record stands to `op`.
    pub(crate) fn standing(&self, key: &HoldKey, op: Option<OpId>) -> Standing {
        // Nearly always nothing is held at all: spare the hash.
        if self.0.is_empty() {
            return Standing::Free;
        }
        match self.0.get(key) {
            None => Standing::Free,
            Some(lock) if op.is_some_and(|op| lock.has(op)) => Standing::Mine,
            Some(lock) if lock.shared() => Standing::Shared,
            Some(_) => Standing::Others,
        }
    }

    /// Whether readers of a record must wait.
    pub(crate) fn veiled(&self, key: &HoldKey) -> bool {
        !self.0.is_empty() && self.0.get(key).is_some_and(Lock::veiled)
    }

    /// A held name of `dir`, of this hash or a greater one, whose readers must wait.
    pub(crate) fn veiled_name(&self, dir: FileId, from: u64) -> Option<HoldKey> {
        let in_range = |key: &HoldKey| match key.part {
            HoldPart::Names(hash47) => key.file == dir && hash47 >= from,
            HoldPart::Attr | HoldPart::Right => false,
        };
        // The least: which one a hash map has first is another each time, and a simulation must run the same way twice.
        self.0.iter().filter(|(key, lock)| in_range(key) && lock.veiled()).map(|(key, _)| *key).min()
    }

    /// Records held.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Asks for a record, to share it or not.
    pub(crate) fn ask(&mut self, key: HoldKey, op: OpId, share: bool, wait: bool) -> Asked {
        let holder = Holder { op, share, veils: false };
        let Some(lock) = self.0.get_mut(&key) else {
            self.0.insert(key, Lock { holders: vec![holder], waiters: VecDeque::new() });
            return Asked::Held;
        };
        if lock.has(op) {
            return Asked::Held;
        }
        if share && lock.shared() && !lock.waiters.iter().any(|w| matches!(w, Waiter::Hold(..))) {
            lock.holders.push(holder);
            return Asked::Held;
        }
        if !wait {
            return Asked::Busy;
        }
        let (tx, rx) = oneshot::channel();
        lock.waiters.push_back(Waiter::Hold(op, share, tx));
        Asked::Queued(rx)
    }

    /// Holds a record that `op` held before a crash, beside whoever does already: so it was then, or they are over.
    pub(crate) fn restore(&mut self, key: HoldKey, op: OpId, share: bool) {
        let lock =
            self.0.entry(key).or_insert_with(|| Lock { holders: Vec::new(), waiters: VecDeque::new() });
        if !lock.has(op) {
            lock.holders.push(Holder { op, share, veils: false });
        }
    }

    /// Has readers wait until `op`, which holds the record, releases it; whether that is news.
    pub(crate) fn veil(&mut self, key: &HoldKey, op: OpId) -> bool {
        let holder = self.0.get_mut(key).and_then(|l| l.holders.iter_mut().find(|h| h.op == op));
        holder.is_some_and(|h| !std::mem::replace(&mut h.veils, true))
    }

    /// Lets readers see a record that `op` goes on to hold; whether it had them wait.
    pub(crate) fn unveil(&mut self, key: &HoldKey, op: OpId) -> bool {
        let Some(lock) = self.0.get_mut(key) else { return false };
        let Some(holder) = lock.holders.iter_mut().find(|h| h.op == op) else { return false };
        let veiled = std::mem::replace(&mut holder.veils, false);
        lock.advance();
        veiled
    }

    /// Waits until a record is veiled no longer, or held by nobody; `None` if it is held by nobody.
    pub(crate) fn look(&mut self, key: &HoldKey) -> Option<Turn> {
        let lock = self.0.get_mut(key)?;
        let (tx, rx) = oneshot::channel();
        lock.waiters.push_back(Waiter::Look(tx));
        Some(rx)
    }

    /// Frees a record that `op` holds, for the next in the queue if nobody else has it; returns whether `op` veiled it. If
    /// `op` only waits for it, it waits no longer.
    pub(crate) fn release(&mut self, key: &HoldKey, op: OpId) -> bool {
        let Some(lock) = self.0.get_mut(key) else { return false };
        let Some(at) = lock.holders.iter().position(|h| h.op == op) else {
            lock.waiters.retain(|w| !matches!(w, Waiter::Hold(o, ..) if *o == op));
            lock.advance();
            return false;
        };
        let veiled = lock.holders.swap_remove(at).veils;
        lock.advance();
        if lock.holders.is_empty() {
            self.0.remove(key);
        }
        veiled
    }
}

// === impl Lock ===

impl Lock {
    fn has(&self, op: OpId) -> bool {
        self.holders.iter().any(|h| h.op == op)
    }

    /// Whether all who hold it share it.
    fn shared(&self) -> bool {
        self.holders.iter().all(|h| h.share)
    }

    fn veiled(&self) -> bool {
        self.holders.iter().any(|h| h.veils)
    }

    /// Lets in whose turn it is.
    fn advance(&mut self) {
        if !self.veiled() {
            // Readers: nothing hides the record from them any more. They may have gone away.
            let (looking, rest) =
                std::mem::take(&mut self.waiters).into_iter().partition(|w| matches!(w, Waiter::Look(_)));
            self.waiters = rest;
            let looking: VecDeque<Waiter> = looking;
            for waiter in looking {
                if let Waiter::Look(tx) = waiter {
                    let _ = tx.send(());
                }
            }
        }
        while let Some(at) = self.waiters.iter().position(|w| matches!(w, Waiter::Hold(..))) {
            let Some(Waiter::Hold(_, share, _)) = self.waiters.get(at) else { return };
            let may = self.holders.is_empty() || (*share && self.shared());
            if !may {
                return;
            }
            let Some(Waiter::Hold(op, share, tx)) = self.waiters.remove(at) else { return };
            // Who has gone away meanwhile is passed over.
            if tx.send(()).is_ok() {
                self.holders.push(Holder { op, share, veils: false });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_proto::ids::{ServerId, Site};

    const KEY: HoldKey = HoldKey { site: Site(1), file: FileId(2), part: HoldPart::Attr };

    fn op(seq: u64) -> OpId {
        OpId { sender: ServerId(1), seq }
    }

    fn queued(asked: Asked) -> Turn {
        match asked {
            Asked::Queued(turn) => turn,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn holders_take_turns_in_order() {
        let mut l = Locks::default();
        assert!(matches!(l.ask(KEY, op(1), false, false), Asked::Held));
        assert!(matches!(l.ask(KEY, op(1), false, false), Asked::Held));
        assert!(matches!(l.ask(KEY, op(2), false, false), Asked::Busy));
        let (mut second, mut third) =
            (queued(l.ask(KEY, op(2), false, true)), queued(l.ask(KEY, op(3), false, true)));
        l.release(&KEY, op(1));
        assert!(second.try_recv().is_ok() && third.try_recv().is_err());
        assert_eq!(l.standing(&KEY, Some(op(2))), Standing::Mine);
        assert_eq!(l.standing(&KEY, None), Standing::Others);
        l.release(&KEY, op(2));
        assert!(third.try_recv().is_ok());
        l.release(&KEY, op(3));
        assert_eq!(l.len(), 0);
    }

    #[test]
    fn who_shares_does_not_wait_but_behind_who_does_not() {
        let mut l = Locks::default();
        assert!(matches!(l.ask(KEY, op(1), true, true), Asked::Held));
        assert!(matches!(l.ask(KEY, op(2), true, true), Asked::Held));
        assert_eq!(l.standing(&KEY, Some(op(3))), Standing::Shared);
        let mut alone = queued(l.ask(KEY, op(3), false, true));
        let (mut four, mut five) =
            (queued(l.ask(KEY, op(4), true, true)), queued(l.ask(KEY, op(5), true, true)));
        l.release(&KEY, op(1));
        assert!(alone.try_recv().is_err());
        l.release(&KEY, op(2));
        assert!(alone.try_recv().is_ok() && four.try_recv().is_err());
        l.release(&KEY, op(3));
        assert!(four.try_recv().is_ok() && five.try_recv().is_ok());
        // A drop of one that waits lets in those whom it kept out.
        let _six = queued(l.ask(KEY, op(6), false, true));
        let mut seven = queued(l.ask(KEY, op(7), true, true));
        l.release(&KEY, op(6));
        assert!(seven.try_recv().is_ok());
        for n in [4, 5, 7] {
            l.release(&KEY, op(n));
        }
        assert_eq!(l.len(), 0);
    }

    #[test]
    fn who_is_gone_or_dropped_is_passed_over() {
        let mut l = Locks::default();
        l.ask(KEY, op(1), false, true);
        drop(l.ask(KEY, op(2), false, true));
        let mut dropped = queued(l.ask(KEY, op(3), false, true));
        l.release(&KEY, op(3));
        assert!(matches!(dropped.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        l.release(&KEY, op(1));
        assert_eq!(l.len(), 0);
    }

    #[test]
    fn what_is_held_again_is_held_beside_others() {
        let mut l = Locks::default();
        // Of the first it is not known yet that it is over.
        for n in [1, 2, 3] {
            l.restore(KEY, op(n), n != 1);
            l.veil(&KEY, op(n));
        }
        assert!([1, 2, 3].iter().all(|n| l.standing(&KEY, Some(op(*n))) == Standing::Mine));
        assert_eq!(l.standing(&KEY, None), Standing::Others);
        let mut alone = queued(l.ask(KEY, op(4), false, true));
        l.release(&KEY, op(1));
        assert_eq!(l.standing(&KEY, None), Standing::Shared);
        let mut look = l.look(&KEY).unwrap();
        assert!(l.unveil(&KEY, op(2)) && !l.unveil(&KEY, op(2)));
        assert!(look.try_recv().is_err() && l.veiled(&KEY));
        assert!(l.unveil(&KEY, op(3)));
        assert!(look.try_recv().is_ok() && !l.veiled(&KEY));
        l.release(&KEY, op(2));
        assert!(alone.try_recv().is_err());
        l.release(&KEY, op(3));
        assert!(alone.try_recv().is_ok());
    }

    #[test]
    fn readers_look_when_no_holder_veils_it() {
        let mut l = Locks::default();
        l.ask(KEY, op(1), true, true);
        l.ask(KEY, op(2), true, true);
        assert!(l.veil(&KEY, op(1)) && !l.veil(&KEY, op(1)));
        assert!(l.veiled(&KEY));
        let mut look = l.look(&KEY).unwrap();
        assert!(!l.release(&KEY, op(2)));
        assert!(look.try_recv().is_err());
        l.ask(KEY, op(3), true, true);
        assert!(l.release(&KEY, op(1)));
        assert!(look.try_recv().is_ok() && !l.veiled(&KEY));
    }
}
