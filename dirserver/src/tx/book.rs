//! What peers' operations hold here, and what is remembered of those that are over.

use crate::error::{Error, Result};
use crate::keys;
use crate::state::State;
use bytes::Bytes;
use parking_lot::Mutex;
use slice_proto::ids::ServerId;
use slice_proto::peer::dir::{HoldKey, OpId};
use slice_store::{Direction, KeyRange, Ticket};
use std::collections::{HashMap, HashSet, VecDeque};

/// Dropped operations that are remembered, so that a hold that comes behind its own drop is not granted: a few
/// round trips' worth.
const REMEMBERED_DROPS: usize = 4096;
/// A sender's settled number moves at least this far before its marks are deleted: one scan for many.
const SETTLE_STEP: u64 = 256;

/// The value of a stored hold that is shared; others have an empty one.
const SHARED: u8 = 1;

/// The value of a stored hold.
pub(crate) fn stored(share: bool) -> Bytes {
    Bytes::from_static(if share { &[SHARED] } else { &[] })
}

/// What one operation of a peer's holds here.
#[derive(Debug, Default)]
struct PeerOp {
    keys: Vec<HoldKey>,
    /// When all its holds are durable.
    ticket: Ticket,
    /// Found after a restart, and nothing heard of it from its sender yet.
    recovered: bool,
}

#[derive(Debug, Default)]
struct Book {
    ops: HashMap<OpId, PeerOp>,
    /// What an operation waits for.
    waiting: HashMap<OpId, HoldKey>,
    dropped: HashSet<OpId>,
    drop_order: VecDeque<OpId>,
    settled: HashMap<ServerId, u64>,
    /// The latest life that is known of each sender: operations of earlier ones get no more holds.
    lives: HashMap<ServerId, u64>,
}

/// What peers' operations hold here.
#[derive(Debug, Default)]
pub(crate) struct PeerOps(Mutex<Book>);

// === impl PeerOps ===

impl PeerOps {
    /// Holds again what was held when the server stopped.
    pub(crate) fn load(state: &State) -> Result<Self> {
        let mut book = Book::default();
        for pair in state.store.iter(KeyRange::prefix([keys::HOLD]), Direction::Forward) {
            let (stored, value) = pair?;
            let (op, key) = keys::parse_hold(&stored).ok_or_else(|| Error::BadRecord {
                what: "hold",
                key: stored.to_vec(),
                why: "its key is not readable",
            })?;
            if let Some(mut site) = state.site(key.site) {
                site.locks.restore(key, op, value.first() == Some(&SHARED));
                // Whether the operation happened, only its sender knows: nobody reads the record until it says so.
                state.veil(&mut site, &key, op);
            }
            let entry = book.ops.entry(op).or_default();
            entry.keys.push(key);
            entry.recovered = true;
        }
        Ok(Self(Mutex::new(book)))
    }

    /// Whether an operation is dropped, confirmed or of an earlier life of its sender: it gets no more holds.
    pub(crate) fn is_over(&self, op: OpId) -> bool {
        self.0.lock().is_over(op)
    }

    /// An operation begins to wait for a record; false if it is over.
    pub(crate) fn waits(&self, op: OpId, key: HoldKey) -> bool {
        let mut book = self.0.lock();
        let over = book.is_over(op);
        if !over {
            book.waiting.insert(op, key);
        }
        !over
    }

    /// It waits no more.
    pub(crate) fn waited(&self, op: OpId) {
        self.0.lock().waiting.remove(&op);
    }

    /// Enters a hold of an operation that goes on; false if it is over.
    pub(crate) fn enter(&self, op: OpId, key: HoldKey, ticket: Ticket) -> bool {
        let mut book = self.0.lock();
        if book.is_over(op) {
            return false;
        }
        let entry = book.ops.entry(op).or_default();
        if !entry.keys.contains(&key) {
            entry.keys.push(key);
        }
        entry.ticket = entry.ticket.max(ticket);
        entry.recovered = false;
        true
    }

    pub(crate) fn holds(&self, op: OpId, key: &HoldKey) -> bool {
        self.0.lock().ops.get(&op).is_some_and(|o| o.keys.contains(key))
    }

    pub(crate) fn keys_of(&self, op: OpId) -> (Vec<HoldKey>, Ticket) {
        self.0.lock().ops.get(&op).map_or_else(Default::default, |o| (o.keys.clone(), o.ticket))
    }

    /// Removes an operation, and remembers that it is over.
    pub(crate) fn close(&self, op: OpId) -> (Vec<HoldKey>, Option<HoldKey>) {
        let mut book = self.0.lock();
        if book.dropped.insert(op) {
            book.drop_order.push_back(op);
            if book.drop_order.len() > REMEMBERED_DROPS
                && let Some(old) = book.drop_order.pop_front()
            {
                book.dropped.remove(&old);
            }
        }
        (book.ops.remove(&op).map(|o| o.keys).unwrap_or_default(), book.waiting.remove(&op))
    }

    /// Whether marks of `sender` below `settled` are to be deleted now.
    pub(crate) fn settle(&self, sender: ServerId, settled: u64) -> bool {
        let mut book = self.0.lock();
        let known = book.settled.entry(sender).or_default();
        let due = settled >= known.saturating_add(SETTLE_STEP);
        if due {
            *known = settled;
        }
        due
    }

    /// Whether its sender has said that an operation is settled.
    pub(crate) fn is_settled(&self, op: OpId) -> bool {
        self.0.lock().settled.get(&op.sender).is_some_and(|settled| op.seq < *settled)
    }

    /// A sender has started its life `life`: its operations of earlier ones that do not still owe something here.
    pub(crate) fn started(&self, sender: ServerId, life: u64, owed: &HashSet<u64>) -> Vec<OpId> {
        let mut book = self.0.lock();
        let known = book.lives.entry(sender).or_default();
        *known = life.max(*known);
        let all = book.ops.keys().chain(book.waiting.keys());
        let over = |op: &&OpId| op.sender == sender && op.boot() < life && !owed.contains(&op.seq);
        in_order(all.filter(over).copied())
    }

    /// Operations of a sender that were found after a restart, and of which nothing was heard yet.
    pub(crate) fn recovered(&self, sender: ServerId) -> Vec<OpId> {
        let book = self.0.lock();
        let found = book.ops.iter().filter(|(op, o)| op.sender == sender && o.recovered);
        in_order(found.map(|(op, _)| *op))
    }

    /// What peers' operations hold or wait for, for a log.
    pub(crate) fn tell(&self) -> String {
        let book = self.0.lock();
        format!("holding: {:?}, waiting: {:?}", book.ops, book.waiting)
    }

    /// The sender has named the operation: it goes on. Whether it had been found after a restart, and nothing been heard of
    /// it since.
    pub(crate) fn goes_on(&self, op: OpId) -> bool {
        self.0.lock().ops.get_mut(&op).is_some_and(|o| std::mem::take(&mut o.recovered))
    }
}

/// What is done to several operations is done in their order, not in that of a hash map, which is another each time: so
/// that a simulation runs the same way twice.
fn in_order(ops: impl Iterator<Item = OpId>) -> Vec<OpId> {
    let mut ops: Vec<OpId> = ops.collect();
    ops.sort_unstable();
    ops
}

// === impl Book ===

impl Book {
    fn is_over(&self, op: OpId) -> bool {
        self.dropped.contains(&op) || self.lives.get(&op.sender).is_some_and(|life| op.boot() < *life)
    }
}
