//! Our operations with parts at peers: their numbers, what they hold there, and what they owe.
//!
//! What a peer says counts for that life of it alone: what one life granted, or carried out and did not call durable, the
//! next one may have lost. So the journal knows the latest life of each peer, takes no answer of an earlier one, and owes anew
//! what an earlier one had not made durable.
//!
//! An operation's entry in the store ([`super::entry`]) is written in the batch of its own change and goes when every peer
//! has said that its part is durable there.

use super::entry;
use super::unfinished::Unfinished;
use crate::error::{Error, Result};
use crate::keys;
use parking_lot::Mutex;
use slice_proto::ids::{ServerId, Site};
use slice_proto::peer::dir::{Effect, HoldKey, HoldPart, Named, OpId};
use slice_store::{Batch, Direction, KeyRange, Store, Ticket};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio::sync::{Notify, oneshot};

/// Stands for the server of a part that was read before there was a table.
const UNPLACED: ServerId = ServerId(0);

/// How far a part has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// To be sent, or on its way.
    Owed,
    /// Visible in this life of the peer, and a hold of it durable.
    Applied(u64),
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
    /// Peers that were asked for holds, until they are told that the operation is over.
    asked: Vec<ServerId>,
    /// What they have granted.
    holds: Vec<(ServerId, HoldKey, bool)>,
    committed: bool,
    parts: Vec<Part>,
    waiters: Vec<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Every operation that is not settled, by sequence.
    entries: BTreeMap<u64, Entry>,
    /// Operations with parts that are applied and not known to be durable, by peer: it is to be asked.
    lazy: BTreeMap<ServerId, Vec<u64>>,
    /// Settled, but still in the store.
    done: Vec<u64>,
    /// Deleted from the store by commits that may not be durable yet.
    swept: Vec<(Ticket, u64)>,
    /// The latest life that is known of each peer.
    lives: HashMap<ServerId, u64>,
}

/// The journal of one server.
pub(crate) struct Journal {
    me: ServerId,
    boot: u64,
    state: Mutex<State>,
    /// What readers of our records wait for.
    pub(crate) unfinished: Unfinished,
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

/// The record that an effect changes.
pub(crate) fn key_of(effect: &Effect) -> HoldKey {
    let site = place_of(effect);
    let (file, part) = match effect {
        Effect::Attr(e) => (e.file, HoldPart::Attr),
        Effect::Name(e) => (e.dir, HoldPart::Names(e.hash)),
        Effect::Make { file, .. } => (*file, HoldPart::Attr),
    };
    HoldKey { site, file, part }
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
        let unfinished = Unfinished::default();
        let mut state = State { next: (boot << OpId::COUNT_BITS) + 1, ..State::default() };
        for pair in store.iter(KeyRange::prefix([keys::JOURNAL]), Direction::Forward) {
            let (key, value) = pair?;
            let bad = |why| Error::BadRecord { what: "journal", key: key.to_vec(), why };
            let seq = keys::number(&key).ok_or_else(|| bad("its key is too short"))?;
            let (effects, changed) = entry::decode(&value).map_err(bad)?;
            unfinished.begin(seq, changed);
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
        Ok(Self { me, boot, state: Mutex::new(state), unfinished, bell: Notify::new() })
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

    /// A peer is about to be asked for a hold.
    pub(crate) fn asking(&self, op: OpId, server: ServerId) {
        if let Some(entry) = self.state.lock().entries.get_mut(&op.seq)
            && !entry.asked.contains(&server)
        {
            entry.asked.push(server);
        }
    }

    /// A peer, in its life `life`, has granted a hold. False if there has been a later life since: it is to be asked again.
    #[must_use]
    pub(crate) fn granted(&self, op: OpId, server: ServerId, life: u64, key: HoldKey, share: bool) -> bool {
        let mut state = self.state.lock();
        if !state.is_latest(server, life) {
            return false;
        }
        if let Some(entry) = state.entries.get_mut(&op.seq) {
            entry.holds.push((server, key, share));
        }
        true
    }

    /// The peers that were asked for holds.
    pub(crate) fn holders(&self, op: OpId) -> Vec<ServerId> {
        self.state.lock().entries.get(&op.seq).map(|e| e.asked.clone()).unwrap_or_default()
    }

    /// A peer has shown that it is in its life `life`. If that is news: the operations whose effects there an earlier life may
    /// have lost, which are owed anew.
    #[must_use]
    pub(crate) fn heard(&self, server: ServerId, life: u64) -> Vec<u64> {
        let mut state = self.state.lock();
        if state.lives.get(&server).is_some_and(|known| *known >= life) {
            return Vec::new();
        }
        state.lives.insert(server, life);
        let mut lost = Vec::new();
        for (seq, entry) in &mut state.entries {
            for part in entry.parts.iter_mut().filter(|p| p.server == server) {
                if matches!(part.progress, Progress::Applied(_)) {
                    part.progress = Progress::Owed;
                    lost.push(*seq);
                }
            }
        }
        lost
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

    /// What is still to be sent of an operation, and to whom.
    pub(crate) fn to_send(&self, seq: u64) -> Vec<(ServerId, Vec<Effect>)> {
        let state = self.state.lock();
        let owed = |e: &Entry| {
            let parts = e.parts.iter().filter(|p| p.progress == Progress::Owed);
            parts.map(|p| (p.server, p.effects.clone())).collect()
        };
        state.entries.get(&seq).map(owed).unwrap_or_default()
    }

    /// Operations of earlier lives that still owe something to `server`.
    pub(crate) fn inherited(&self, server: ServerId) -> Vec<u64> {
        let first = self.boot << OpId::COUNT_BITS;
        let state = self.state.lock();
        let owing = state.entries.range(..first).filter(|(_, e)| e.owes(server));
        owing.map(|(seq, _)| *seq).collect()
    }

    /// A peer, in its life `life`, has applied its part. False if there has been a later life since, and it is to be sent
    /// again.
    #[must_use]
    pub(crate) fn applied(&self, seq: u64, server: ServerId, life: u64, durable: bool) -> bool {
        let mut state = self.state.lock();
        if !state.is_latest(server, life) && !durable {
            return false;
        }
        let visible =
            state.reach(seq, server, if durable { Progress::Durable } else { Progress::Applied(life) });
        drop(state);
        if visible {
            self.unfinished.end(seq);
        }
        self.bell.notify_one();
        true
    }

    /// A peer has said in its life `life` that all that it had applied is durable; the question was asked of `seqs`.
    pub(crate) fn durable(&self, seqs: Vec<u64>, server: ServerId, life: u64) {
        let mut state = self.state.lock();
        for seq in seqs {
            let part = |e: &Entry| e.parts.iter().find(|p| p.server == server).map(|p| p.progress);
            match state.entries.get(&seq).and_then(part) {
                // It was visible before.
                Some(Progress::Applied(then)) if then == life => {
                    state.reach(seq, server, Progress::Durable);
                }
                // An earlier life has answered: what a later one has applied is asked again.
                Some(Progress::Applied(_)) => state.lazy.entry(server).or_default().push(seq),
                // What a life before that one had applied is sent again, and asked then.
                Some(Progress::Owed | Progress::Durable) | None => {}
            }
        }
    }

    /// Waits until all parts of an operation are applied; `None` if they are.
    pub(crate) fn wait_applied(&self, seq: u64) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state.lock();
        let entry = state.entries.get_mut(&seq)?;
        if entry.visible() {
            return None;
        }
        let (tx, rx) = oneshot::channel();
        entry.waiters.push(tx);
        Some(rx)
    }

    /// Operations with parts that are applied and not known to be durable, of peers but for those that are being asked.
    pub(crate) fn lazy(&self, asked: &BTreeSet<ServerId>) -> Vec<(ServerId, Vec<u64>)> {
        let mut state = self.state.lock();
        let due = state.lazy.iter_mut().filter(|(server, seqs)| !seqs.is_empty() && !asked.contains(server));
        due.map(|(server, seqs)| (*server, std::mem::take(seqs))).collect()
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

    /// What our operations that still have to do with `server` hold there.
    pub(crate) fn holds_at(&self, server: ServerId) -> Vec<Named> {
        let state = self.state.lock();
        let under_way = state.entries.iter().filter(|(_, e)| !e.committed || e.owes(server));
        let of = |(seq, e): (&u64, &Entry)| {
            let (seq, holds) = (*seq, e.holds.clone());
            let there = holds.into_iter().filter(move |(s, ..)| *s == server);
            there.map(move |(_, key, share)| Named { seq, key, share })
        };
        under_way.flat_map(of).collect()
    }

    /// Operations whose effects at `server` are still to come.
    pub(crate) fn owed_to(&self, server: ServerId) -> Vec<u64> {
        let state = self.state.lock();
        state.entries.iter().filter(|(_, e)| e.owes(server)).map(|(seq, _)| *seq).collect()
    }

    /// `server`, in its life `life`, has dropped the operation's holds; `None`: it is no longer of the ensemble. If the
    /// operation was not committed, it is over with the last of them. False if there has been a later life since, which is to
    /// be told, too.
    #[must_use]
    pub(crate) fn dropped(&self, op: OpId, server: ServerId, life: Option<u64>) -> bool {
        let mut state = self.state.lock();
        if life.is_some_and(|life| !state.is_latest(server, life)) {
            return false;
        }
        if let Some(entry) = state.entries.get_mut(&op.seq) {
            entry.asked.retain(|s| *s != server);
            entry.holds.retain(|(s, ..)| *s != server);
            if !entry.committed && entry.asked.is_empty() {
                state.entries.remove(&op.seq);
            }
        }
        true
    }

    /// Operations that are not settled, for a log.
    pub(crate) fn tell(&self) -> String {
        format!("{:?}, unfinished: {}", self.state.lock().entries, self.unfinished.tell())
    }

    /// Operations that are not settled.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().entries.len()
    }
}

// === impl State ===

impl State {
    /// Whether no later life of a peer is known.
    fn is_latest(&self, server: ServerId, life: u64) -> bool {
        self.lives.get(&server).is_none_or(|known| *known <= life)
    }

    /// The part of an operation at `server` has come as far as `to`; whether all of it can be seen.
    fn reach(&mut self, seq: u64, server: ServerId, to: Progress) -> bool {
        let Some(entry) = self.entries.get_mut(&seq) else { return true };
        for part in entry.parts.iter_mut().filter(|p| p.server == server && p.progress != Progress::Durable) {
            part.progress = to;
            if to != Progress::Durable {
                self.lazy.entry(server).or_default().push(seq);
            }
        }
        let visible = entry.visible();
        if visible {
            entry.waiters.drain(..).for_each(|w| {
                // Who waited may have gone away.
                let _ = w.send(());
            });
        }
        if entry.parts.iter().all(|p| p.progress == Progress::Durable) {
            self.entries.remove(&seq);
            self.done.push(seq);
        }
        visible
    }
}

// === impl Entry ===

impl Entry {
    /// Whether effects at `server` are still to come.
    fn owes(&self, server: ServerId) -> bool {
        self.parts.iter().any(|p| p.server == server && p.progress == Progress::Owed)
    }

    /// Whether all its effects can be seen.
    fn visible(&self) -> bool {
        self.parts.iter().all(|p| p.progress != Progress::Owed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::unfinished::Changed;
    use super::*;
    use crate::decide::touch;
    use slice_proto::ids::FileId;

    fn of(state: State) -> Journal {
        let unfinished = Unfinished::default();
        Journal { me: ServerId(1), boot: 2, state: Mutex::new(state), unfinished, bell: Notify::new() }
    }

    #[test]
    fn what_an_operation_shows_is_finished_when_all_peers_have_applied_it() {
        let mut state = State::default();
        let part = |n| Part { server: ServerId(n), effects: Vec::new(), progress: Progress::Owed };
        state.entries.insert(9, Entry { committed: true, parts: vec![part(7), part(8)], ..Entry::default() });
        let journal = of(state);
        let record = Changed { file: FileId(5), names: Some(1) };
        journal.unfinished.begin(9, vec![record]);
        let shown = || {
            let mut after = Vec::new();
            journal.unfinished.of(record, &mut after);
            after
        };
        assert!(journal.applied(9, H, 1, false));
        assert_eq!(shown(), [9]);
        assert!(journal.applied(9, ServerId(8), 1, true));
        assert!(shown().is_empty());
    }

    #[test]
    fn what_was_read_without_a_table_is_dealt_to_its_servers() {
        let effect = |home| Effect::Attr(touch(FileId::new(Site(home), 1), 5));
        let effects: Vec<_> = [1, 2, 1].map(effect).into();
        let parts = vec![Part { server: UNPLACED, effects, progress: Progress::Owed }];
        let mut state = State::default();
        state.entries.insert(9, Entry { committed: true, parts, ..Entry::default() });
        let journal = of(state);
        // Site 2 has no owner yet.
        assert!(!journal.place(|site| (site == Site(1)).then_some(ServerId(11))));
        assert_eq!(journal.owed_to(ServerId(11)), [9]);
        assert!(journal.place(|site| Some(ServerId(10 + u64::from(site.0)))));
        let mut sent = journal.to_send(9);
        sent.sort_by_key(|(server, _)| *server);
        assert_eq!(sent, [(ServerId(11), vec![effect(1), effect(1)]), (ServerId(12), vec![effect(2)])]);
        assert_eq!(journal.owed_to(ServerId(12)), [9]);
    }

    const H: ServerId = ServerId(7);

    /// A journal with one operation, whose part is at `H` and still to be sent.
    fn with_one_part() -> Journal {
        let part = Part { server: H, effects: Vec::new(), progress: Progress::Owed };
        let mut state = State::default();
        state.entries.insert(9, Entry { committed: true, parts: vec![part], ..Entry::default() });
        of(state)
    }

    #[test]
    fn what_an_earlier_life_of_a_peer_has_applied_is_owed_anew() {
        let journal = with_one_part();
        assert!(journal.heard(H, 1).is_empty() && journal.applied(9, H, 1, false));
        assert!(journal.owed_to(H).is_empty() && journal.wait_applied(9).is_none());
        assert_eq!(journal.lazy(&BTreeSet::from([H])), []);
        assert_eq!(journal.lazy(&BTreeSet::new()), [(H, vec![9])]);
        assert_eq!(journal.heard(H, 2), [9]);
        assert!(journal.wait_applied(9).is_some());
        // Late, and of the life before: neither that it is applied nor that it is durable.
        assert!(journal.heard(H, 1).is_empty() && !journal.applied(9, H, 1, false));
        journal.durable(vec![9], H, 1);
        assert_eq!(journal.owed_to(H), [9]);
        assert!(journal.applied(9, H, 2, false));
        assert_eq!(journal.lazy(&BTreeSet::new()), [(H, vec![9])]);
        journal.durable(vec![9], H, 1);
        assert_eq!(journal.lazy(&BTreeSet::new()), [(H, vec![9])], "it is asked again");
        journal.durable(vec![9], H, 2);
        assert_eq!(journal.len(), 0);
    }

    #[test]
    fn what_an_earlier_life_of_a_peer_has_granted_or_dropped_is_asked_again() {
        let journal = with_one_part();
        let key = HoldKey { site: Site(1), file: FileId(5), part: slice_proto::peer::dir::HoldPart::Attr };
        let op = journal.begin();
        journal.asking(op, H);
        assert!(journal.heard(H, 2).is_empty());
        assert!(!journal.granted(op, H, 1, key, true));
        assert!(journal.holds_at(H).is_empty(), "what is only asked for is not held");
        assert!(journal.granted(op, H, 2, key, true));
        assert_eq!(journal.holds_at(H), [Named { seq: op.seq, key, share: true }]);
        assert!(journal.heard(H, 3).is_empty() && !journal.dropped(op, H, Some(2)));
        assert_eq!(journal.holders(op), [H]);
        assert!(journal.dropped(op, H, Some(3)));
        assert_eq!(journal.len(), 1);
    }

    #[test]
    fn a_peer_is_told_what_is_owed_to_itself() {
        let journal = with_one_part();
        assert_eq!(journal.inherited(H), [9]);
        assert!(journal.inherited(ServerId(8)).is_empty(), "whatever it holds there is over");
    }
}
