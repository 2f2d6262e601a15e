//! Our operations with parts at peers: their numbers, and what they owe.
//!
//! An operation's entry in the store (`J` ‖ sequence) is written in the batch of its own change and goes when every peer
//! has said that its part is durable there.
//!
//! ```text
//! offset length field
//!      0      1 version, 1
//!      1      4 n, then n effects (XDR, `proto::peer::dir::Effect`)
//! ```

use crate::error::{Error, Result};
use crate::keys;
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use slice_proto::ids::{ServerId, Site};
use slice_proto::peer::dir::{Effect, HoldKey, MAX_EFFECTS, OpId, get_list, put_list};
use slice_proto::xdr::Reader;
use slice_store::{Batch, Direction, KeyRange, Store, Ticket};
use std::collections::BTreeMap;
use tokio::sync::{Notify, oneshot};

const VERSION: u8 = 1;

/// Stands for the server of a part that was read before there was a table.
const UNPLACED: ServerId = ServerId(0);

/// How far a part has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    /// To be sent, or on its way.
    Owed,
    /// Visible at the peer, and a hold of it durable.
    Applied,
    /// Durable at the peer.
    Durable,
}

#[derive(Debug)]
struct Part {
    server: ServerId,
    effects: Vec<Effect>,
    progress: Progress,
}

#[derive(Debug, Default)]
struct Entry {
    /// What was asked for at peers, until the operation is committed or dropped.
    holds: Vec<(ServerId, HoldKey)>,
    committed: bool,
    parts: Vec<Part>,
    waiters: Vec<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Every operation that is not settled, by sequence.
    entries: BTreeMap<u64, Entry>,
    /// Settled, but still in the store.
    done: Vec<u64>,
    /// Deleted from the store by commits that may not be durable yet.
    swept: Vec<(Ticket, u64)>,
}

/// The journal of one server.
pub(crate) struct Journal {
    me: ServerId,
    boot: u64,
    state: Mutex<State>,
    /// Rung when the background has something to do.
    pub(crate) bell: Notify,
}

/// The server that an effect belongs to, if the table says one.
pub(crate) fn place_of(effect: &Effect) -> Site {
    match effect {
        Effect::Attr(e) => e.file.home(),
        Effect::Name(e) => e.site,
        Effect::Make { file, .. } => file.home(),
    }
}

pub(crate) fn encode(parts: &[(ServerId, Vec<Effect>)]) -> Bytes {
    let mut w = BytesMut::new();
    w.put_u8(VERSION);
    let all: Vec<Effect> = parts.iter().flat_map(|(_, effects)| effects.iter().cloned()).collect();
    put_list(&mut w, &all);
    w.freeze()
}

// === impl Journal ===

impl Journal {
    /// The journal of life `boot`, with what earlier lives owe.
    ///
    /// # Errors
    /// [`Error::BadRecord`], [`Error::Store`].
    pub(crate) fn load(
        store: &Store,
        me: ServerId,
        boot: u64,
        owner: impl Fn(Site) -> Option<ServerId>,
    ) -> Result<Self> {
        let mut state = State { next: (boot << OpId::COUNT_BITS) + 1, ..State::default() };
        for pair in store.iter(KeyRange::prefix([keys::JOURNAL]), Direction::Forward) {
            let (key, value) = pair?;
            let bad = |why| Error::BadRecord { what: "journal", key: key.to_vec(), why };
            let seq = keys::number(&key).ok_or_else(|| bad("its key is too short"))?;
            if value.first() != Some(&VERSION) {
                return Err(bad("unknown version"));
            }
            let effects: Vec<Effect> =
                get_list(&mut Reader::at(&value, 1), MAX_EFFECTS).map_err(|_| bad("not readable"))?;
            let mut parts: Vec<Part> = Vec::new();
            for effect in effects {
                // Without a table yet, UNPLACED: see [`Journal::place`].
                let server = owner(place_of(&effect)).unwrap_or(UNPLACED);
                match parts.iter_mut().find(|p| p.server == server) {
                    Some(part) => part.effects.push(effect),
                    None => parts.push(Part { server, effects: vec![effect], progress: Progress::Owed }),
                }
            }
            state.entries.insert(seq, Entry { committed: true, parts, ..Entry::default() });
        }
        Ok(Self { me, boot, state: Mutex::new(state), bell: Notify::new() })
    }

    /// Deals the parts that were read before there was a table to the servers that own their sites: each server is sent
    /// its own effects, and is told of them when it reconciles. False if a site has no owner yet.
    pub(crate) fn place(&self, owner: impl Fn(Site) -> Option<ServerId>) -> bool {
        let mut all_placed = true;
        for entry in self.state.lock().entries.values_mut() {
            let Some(at) = entry.parts.iter().position(|p| p.server == UNPLACED) else { continue };
            for effect in entry.parts.swap_remove(at).effects {
                let server = owner(place_of(&effect)).unwrap_or(UNPLACED);
                all_placed &= server != UNPLACED;
                match entry.parts.iter_mut().find(|p| p.server == server) {
                    Some(part) => part.effects.push(effect),
                    None => {
                        entry.parts.push(Part { server, effects: vec![effect], progress: Progress::Owed })
                    }
                }
            }
        }
        all_placed
    }

    pub(crate) const fn boot(&self) -> u64 {
        self.boot
    }

    /// A new operation.
    pub(crate) fn begin(&self) -> OpId {
        let mut state = self.state.lock();
        let seq = state.next;
        state.next += 1;
        state.entries.insert(seq, Entry::default());
        OpId { sender: self.me, seq }
    }

    /// All operations of ours with smaller numbers are settled, for ever: not even a crash brings them back, because
    /// what was in the store of them has gone durably.
    pub(crate) fn settled(&self, durable: Ticket) -> u64 {
        let mut state = self.state.lock();
        state.swept.retain(|(ticket, _)| *ticket > durable);
        let open = state.entries.keys().next().copied().unwrap_or(state.next);
        state.done.iter().chain(state.swept.iter().map(|(_, seq)| seq)).fold(open, |min, seq| min.min(*seq))
    }

    /// A hold is about to be asked for.
    pub(crate) fn holding(&self, op: OpId, server: ServerId, key: HoldKey) {
        if let Some(entry) = self.state.lock().entries.get_mut(&op.seq)
            && !entry.holds.contains(&(server, key))
        {
            entry.holds.push((server, key));
        }
    }

    /// The peers that were asked for holds.
    pub(crate) fn holders(&self, op: OpId) -> Vec<ServerId> {
        let state = self.state.lock();
        let mut servers: Vec<_> =
            state.entries.get(&op.seq).map(|e| e.holds.iter().map(|h| h.0).collect()).unwrap_or_default();
        servers.sort_unstable();
        servers.dedup();
        servers
    }

    /// The operation is over without a trace: dropped, or nothing of it was at peers.
    pub(crate) fn forget(&self, op: OpId) {
        self.state.lock().entries.remove(&op.seq);
    }

    /// The operation's batch is submitted.
    pub(crate) fn committed(&self, op: OpId, parts: Vec<(ServerId, Vec<Effect>)>) {
        if let Some(entry) = self.state.lock().entries.get_mut(&op.seq) {
            entry.committed = true;
            entry.parts = parts
                .into_iter()
                .map(|(server, effects)| Part { server, effects, progress: Progress::Owed })
                .collect();
        }
    }

    /// What is still to be sent of an operation.
    pub(crate) fn to_send(&self, seq: u64) -> Vec<(ServerId, Vec<Effect>)> {
        let state = self.state.lock();
        let owed = |e: &Entry| {
            let parts = e.parts.iter().filter(|p| p.progress == Progress::Owed);
            parts.map(|p| (p.server, p.effects.clone())).collect()
        };
        state.entries.get(&seq).map(owed).unwrap_or_default()
    }

    /// Operations of earlier lives that still owe something.
    pub(crate) fn inherited(&self) -> Vec<u64> {
        let first = self.boot << OpId::COUNT_BITS;
        self.state.lock().entries.range(..first).map(|(seq, _)| *seq).collect()
    }

    /// A peer has applied its part.
    pub(crate) fn applied(&self, seq: u64, server: ServerId, durable: bool) {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(&seq) else { return };
        let to = if durable { Progress::Durable } else { Progress::Applied };
        for part in entry.parts.iter_mut().filter(|p| p.server == server) {
            part.progress = part.progress.max(to);
        }
        if entry.parts.iter().all(|p| p.progress >= Progress::Applied) {
            entry.waiters.drain(..).for_each(|w| {
                // Who waited may have gone away.
                let _ = w.send(());
            });
        }
        if entry.parts.iter().all(|p| p.progress == Progress::Durable) {
            state.entries.remove(&seq);
            state.done.push(seq);
        }
        drop(state);
        self.bell.notify_one();
    }

    /// Waits until all parts of an operation are applied; `None` if they are.
    pub(crate) fn wait_applied(&self, seq: u64) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state.lock();
        let entry = state.entries.get_mut(&seq)?;
        if entry.parts.iter().all(|p| p.progress >= Progress::Applied) {
            return None;
        }
        let (tx, rx) = oneshot::channel();
        entry.waiters.push(tx);
        Some(rx)
    }

    /// Peers with parts that are applied and not known to be durable, and the operations of each.
    pub(crate) fn lazy(&self) -> BTreeMap<ServerId, Vec<u64>> {
        let state = self.state.lock();
        let mut all: BTreeMap<ServerId, Vec<u64>> = BTreeMap::new();
        for (seq, entry) in &state.entries {
            for part in entry.parts.iter().filter(|p| p.progress == Progress::Applied) {
                all.entry(part.server).or_default().push(*seq);
            }
        }
        all
    }

    /// Deletes settled operations.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn sweep(&self, store: &Store) -> slice_store::Result<()> {
        let mut state = self.state.lock();
        let mut batch = Batch::new();
        for seq in &state.done {
            batch.delete(keys::journal(*seq));
        }
        if let Some(first) = state.done.iter().min().copied() {
            let ticket = store.submit_lazy(batch)?;
            state.done.clear();
            state.swept.push((ticket, first));
        }
        Ok(())
    }

    /// What our operations under way hold, or may hold, at `server`.
    pub(crate) fn holds_at(&self, server: ServerId) -> Vec<(u64, HoldKey)> {
        let state = self.state.lock();
        let of = |(seq, e): (&u64, &Entry)| {
            let seq = *seq;
            let done = e.parts.iter().any(|p| p.server == server && p.progress >= Progress::Applied);
            let holds = if done { Vec::new() } else { e.holds.clone() };
            holds.into_iter().filter(move |(s, _)| *s == server).map(move |(_, key)| (seq, key))
        };
        state.entries.iter().flat_map(of).collect()
    }

    /// Operations whose effects at `server` are still to come.
    pub(crate) fn owed_to(&self, server: ServerId) -> Vec<u64> {
        let state = self.state.lock();
        let owes = |e: &Entry| e.parts.iter().any(|p| p.server == server && p.progress == Progress::Owed);
        state.entries.iter().filter(|(_, e)| owes(e)).map(|(seq, _)| *seq).collect()
    }

    /// The operation's holds at `server` are dropped. If it was not committed, it is over with the last of them.
    pub(crate) fn dropped(&self, op: OpId, server: ServerId) {
        let mut state = self.state.lock();
        if let Some(entry) = state.entries.get_mut(&op.seq) {
            entry.holds.retain(|(s, _)| *s != server);
            if !entry.committed && entry.holds.is_empty() {
                state.entries.remove(&op.seq);
            }
        }
    }

    /// Operations that are not settled, for a log.
    pub(crate) fn tell(&self) -> String {
        format!("{:?}", self.state.lock().entries)
    }

    /// Operations that are not settled.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::touch;
    use slice_proto::ids::FileId;

    #[test]
    fn what_was_read_without_a_table_is_dealt_to_its_servers() {
        let effect = |home| Effect::Attr(touch(FileId::new(Site(home), 1), 5));
        let effects: Vec<_> = [1, 2, 1].map(effect).into();
        let parts = vec![Part { server: UNPLACED, effects, progress: Progress::Owed }];
        let mut state = State::default();
        state.entries.insert(9, Entry { committed: true, parts, ..Entry::default() });
        let journal = Journal { me: ServerId(1), boot: 2, state: Mutex::new(state), bell: Notify::new() };
        // Site 2 has no owner yet.
        assert!(!journal.place(|site| (site == Site(1)).then_some(ServerId(11))));
        assert_eq!(journal.owed_to(ServerId(11)), [9]);
        assert!(journal.place(|site| Some(ServerId(10 + u64::from(site.0)))));
        let mut sent = journal.to_send(9);
        sent.sort_by_key(|(server, _)| *server);
        assert_eq!(sent, [(ServerId(11), vec![effect(1), effect(1)]), (ServerId(12), vec![effect(2)])]);
        assert_eq!(journal.owed_to(ServerId(12)), [9]);
    }
}
