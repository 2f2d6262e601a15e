//! Records held by operations that span waits: an operation with parts at several servers, a change of size.
//!
//! An operation whose records are all here and unheld needs none of this: it reads, decides and commits under the
//! sites' mutexes without a wait between.

use slice_proto::peer::dir::{HoldKey, OpId};
use std::collections::{HashMap, VecDeque};
use tokio::sync::oneshot;

/// Resolves when its place in the queue has come; an error if the operation was dropped meanwhile.
pub(crate) type Turn = oneshot::Receiver<()>;

#[derive(Debug)]
enum Waiter {
    /// Becomes the holder.
    Hold(OpId, oneshot::Sender<()>),
    /// Looks again when nobody holds it.
    Look(oneshot::Sender<()>),
}

#[derive(Debug)]
struct Lock {
    op: OpId,
    /// Readers wait too: the hold was found after a restart, or the record is about to appear.
    veiled: bool,
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

/// The held records of one site.
#[derive(Debug, Default)]
pub(crate) struct Locks(HashMap<HoldKey, Lock>);

impl Locks {
    /// Who holds a record.
    pub(crate) fn holder(&self, key: &HoldKey) -> Option<OpId> {
        // Nearly always nothing is held at all: spare the hash.
        if self.0.is_empty() {
            return None;
        }
        self.0.get(key).map(|l| l.op)
    }

    /// Whether readers of a record must wait.
    pub(crate) fn veiled(&self, key: &HoldKey) -> bool {
        !self.0.is_empty() && self.0.get(key).is_some_and(|l| l.veiled)
    }

    /// Records held.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Asks for a record.
    pub(crate) fn ask(&mut self, key: HoldKey, op: OpId, wait: bool) -> Asked {
        match self.0.get_mut(&key) {
            None => {
                self.0.insert(key, Lock { op, veiled: false, waiters: VecDeque::new() });
                Asked::Held
            }
            Some(lock) if lock.op == op => Asked::Held,
            Some(_) if !wait => Asked::Busy,
            Some(lock) => {
                let (tx, rx) = oneshot::channel();
                lock.waiters.push_back(Waiter::Hold(op, tx));
                Asked::Queued(rx)
            }
        }
    }

    /// Has readers wait until the record is released. It must be held.
    pub(crate) fn veil(&mut self, key: &HoldKey) {
        if let Some(lock) = self.0.get_mut(key) {
            lock.veiled = true;
        }
    }

    /// Waits until a record is held by nobody; `None` if that is now.
    pub(crate) fn look(&mut self, key: &HoldKey) -> Option<Turn> {
        let lock = self.0.get_mut(key)?;
        let (tx, rx) = oneshot::channel();
        lock.waiters.push_back(Waiter::Look(tx));
        Some(rx)
    }

    /// Frees a record that `op` holds and gives it to the next in the queue; returns whether it was veiled. If `op`
    /// only waits for it, it waits no longer.
    pub(crate) fn release(&mut self, key: &HoldKey, op: OpId) -> bool {
        let Some(lock) = self.0.get_mut(key) else { return false };
        if lock.op != op {
            lock.waiters.retain(|w| !matches!(w, Waiter::Hold(o, _) if *o == op));
            return false;
        }
        let veiled = std::mem::take(&mut lock.veiled);
        while let Some(next) = lock.waiters.pop_front() {
            match next {
                // Whoever looks finds it held again, perhaps, and queues anew: it is behind those who came before.
                Waiter::Look(tx) => {
                    let _ = tx.send(());
                }
                Waiter::Hold(next, tx) => {
                    lock.op = next;
                    if tx.send(()).is_ok() {
                        return veiled;
                    }
                }
            }
        }
        self.0.remove(key);
        veiled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_proto::ids::{FileId, ServerId, Site};
    use slice_proto::peer::dir::HoldPart;

    const KEY: HoldKey = HoldKey { site: Site(1), file: FileId(2), part: HoldPart::Attr };

    fn op(seq: u64) -> OpId {
        OpId { sender: ServerId(1), seq }
    }

    #[test]
    fn holders_take_turns_in_order_and_lookers_pass_between() {
        let mut l = Locks::default();
        assert!(matches!(l.ask(KEY, op(1), false), Asked::Held));
        assert!(matches!(l.ask(KEY, op(1), false), Asked::Held));
        assert!(matches!(l.ask(KEY, op(2), false), Asked::Busy));
        let Asked::Queued(mut second) = l.ask(KEY, op(2), true) else { panic!() };
        let mut look = l.look(&KEY).unwrap();
        let Asked::Queued(mut third) = l.ask(KEY, op(3), true) else { panic!() };
        l.release(&KEY, op(1));
        assert!(second.try_recv().is_ok());
        assert!(look.try_recv().is_err());
        l.release(&KEY, op(2));
        assert!(look.try_recv().is_ok());
        assert!(third.try_recv().is_ok());
        l.release(&KEY, op(3));
        assert_eq!(l.len(), 0);
        assert!(l.look(&KEY).is_none());
    }

    #[test]
    fn who_is_gone_or_dropped_is_passed_over() {
        let mut l = Locks::default();
        l.ask(KEY, op(1), true);
        let gone = l.ask(KEY, op(2), true);
        drop(gone);
        let Asked::Queued(mut dropped) = l.ask(KEY, op(3), true) else { panic!() };
        l.release(&KEY, op(3));
        assert!(matches!(dropped.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        l.veil(&KEY);
        assert!(l.veiled(&KEY));
        assert!(l.release(&KEY, op(1)));
        assert_eq!(l.len(), 0);
    }
}
