//! The asked side: records of ours that peers' operations hold, and effects that they have us carry out.
//!
//! A hold is answered at once and made durable meanwhile (`H` in the store), so that after a restart the record is held
//! again. Effects are applied once: their batch carries a mark (`M`) of the operation, which goes when the sender says
//! that all of its operations up to some number are settled.

use super::attempt::{Attempt, Fresh, Ground};
use super::journal::place_of;
use crate::decide::{Change, Missing};
use crate::error::{Error, Result};
use crate::keys;
use crate::records::AttrRec;
use crate::server::{Admission, Inner};
use crate::state::State;
use crate::state::locks::Asked;
use crate::state::status_of;
use parking_lot::Mutex;
use slice_proto::ids::{ServerId, Site};
use slice_proto::peer::PrivateStatus;
use slice_proto::peer::dir::{
    ConfirmArgs, DirRes, DropArgs, Effect, HoldArgs, HoldKey, HoldMode, HoldPart, HoldRes, OpId,
    ReconcileArgs, ReconcileRes,
};
use slice_store::{Batch, Direction, KeyRange, Ticket};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Dropped operations that are remembered, so that a hold that comes behind its own drop is not granted: a few
/// round trips' worth.
const REMEMBERED_DROPS: usize = 4096;
/// The value of a stored hold that is shared; others have an empty one.
const SHARED: u8 = 1;
/// A sender's settled number moves at least this far before its marks are deleted: one scan for many.
const SETTLE_STEP: u64 = 256;

/// What one operation of a peer's holds here.
#[derive(Debug, Default)]
struct PeerOp {
    keys: Vec<HoldKey>,
    /// When all its holds are durable.
    ticket: Ticket,
    /// Found after a restart, and not named by its sender yet.
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
                site.locks.ask(key, op, value.first() == Some(&SHARED), false);
                // Whether the operation happened, only its sender knows: nobody reads the record until it says so.
                state.veil(&mut site, &key, op);
            }
            let entry = book.ops.entry(op).or_default();
            entry.keys.push(key);
            entry.recovered = true;
        }
        Ok(Self(Mutex::new(book)))
    }

    fn is_dropped(&self, op: OpId) -> bool {
        self.0.lock().dropped.contains(&op)
    }

    fn wait_for(&self, op: OpId, key: Option<HoldKey>) {
        let mut book = self.0.lock();
        match key {
            Some(key) => book.waiting.insert(op, key),
            None => book.waiting.remove(&op),
        };
    }

    /// Enters a hold; false if the operation was dropped meanwhile.
    fn enter(&self, op: OpId, key: HoldKey, ticket: Ticket) -> bool {
        let mut book = self.0.lock();
        if book.dropped.contains(&op) {
            return false;
        }
        let entry = book.ops.entry(op).or_default();
        if !entry.keys.contains(&key) {
            entry.keys.push(key);
        }
        entry.ticket = entry.ticket.max(ticket);
        true
    }

    fn holds(&self, op: OpId, key: &HoldKey) -> bool {
        self.0.lock().ops.get(&op).is_some_and(|o| o.keys.contains(key))
    }

    fn keys_of(&self, op: OpId) -> (Vec<HoldKey>, Ticket) {
        self.0.lock().ops.get(&op).map_or_else(Default::default, |o| (o.keys.clone(), o.ticket))
    }

    /// Removes an operation, and remembers that it is over.
    fn close(&self, op: OpId) -> (Vec<HoldKey>, Option<HoldKey>) {
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
    fn settle(&self, sender: ServerId, settled: u64) -> bool {
        let mut book = self.0.lock();
        let known = book.settled.entry(sender).or_default();
        let due = settled >= known.saturating_add(SETTLE_STEP);
        if due {
            *known = settled;
        }
        due
    }

    /// Operations of a sender that match.
    fn of(&self, sender: ServerId, matches: impl Fn(&OpId, bool) -> bool) -> Vec<OpId> {
        let book = self.0.lock();
        let held = book.ops.iter().map(|(op, o)| (op, o.recovered));
        let waiting = book.waiting.keys().map(|op| (op, false));
        held.chain(waiting)
            .filter(|(op, r)| op.sender == sender && matches(op, *r))
            .map(|(op, _)| *op)
            .collect()
    }

    /// The sender has named the operation: it goes on.
    fn confirm_recovered(&self, op: OpId) {
        if let Some(o) = self.0.lock().ops.get_mut(&op) {
            o.recovered = false;
        }
    }
}

/// Waits until the call's table is ours, and judges every site; the status if it is refused.
async fn admitted(
    inner: &Inner,
    table: slice_proto::ids::TableEpoch,
    sites: &[Site],
) -> std::result::Result<(), u32> {
    if table > inner.routes().epoch() {
        inner.table_at_least(table).await;
    }
    let routes = inner.routes();
    for site in sites {
        match inner.admit(&routes, table, *site) {
            Admission::Yes => {}
            Admission::No(status) => return Err(status as u32),
            Admission::Wait => return Err(PrivateStatus::WrongSite as u32),
        }
    }
    Ok(())
}

/// HOLD.
pub(crate) async fn hold(inner: Arc<Inner>, args: HoldArgs) -> HoldRes {
    let key = args.key;
    let mut res =
        HoldRes { status: 0, file: key.file, record: None, durable: true, table: inner.routes().epoch() };
    let done = match admitted(&inner, args.table, &[key.site]).await {
        Ok(()) => hold_admitted(&inner, &args, &mut res).await,
        Err(status) => Err(status),
    };
    res.table = inner.routes().epoch();
    if let Err(status) = done {
        res.status = status;
    }
    res
}

const RETRY: u32 = PrivateStatus::Retry as u32;

async fn hold_admitted(inner: &Inner, args: &HoldArgs, res: &mut HoldRes) -> std::result::Result<(), u32> {
    let state = &inner.state;
    let failed = |e: Error| {
        tracing::error!(error = %e, "a hold failed");
        status_of(&e).0
    };
    if inner.peers.settle(args.op.sender, args.settled) {
        forget_marks(inner, args.op.sender, args.settled).map_err(failed)?;
    }
    let mut key = args.key;
    match args.mode {
        HoldMode::Peek => {
            while let Some(turn) = state.veiled(&key) {
                // An error is as good: look again.
                let _ = turn.await;
            }
            let cell = state.attr(key.file).map_err(failed)?;
            res.durable = cell.as_ref().is_none_or(|c| c.ticket <= state.store.durable());
            res.record = cell.map(|c| c.rec.encode());
            return Ok(());
        }
        HoldMode::New => {
            let file = {
                let mut site = state.site(key.site).ok_or(PrivateStatus::WrongSite as u32)?;
                let file = state.fresh(key.site, &mut site).map_err(failed)?;
                key = HoldKey { site: key.site, file, part: HoldPart::Attr };
                site.locks.ask(key, args.op, false, false);
                // Its name may be seen at the sender before its record is here: readers wait.
                state.veil(&mut site, &key, args.op);
                file
            };
            res.file = file;
            let reserved = state.reserved_by(key.site);
            state.store.wait(reserved).await.map_err(|e| status_of(&Error::Store(e)).0)?;
        }
        HoldMode::Wait | HoldMode::Try => {
            if inner.peers.is_dropped(args.op) {
                return Err(RETRY);
            }
            let wait = args.mode == HoldMode::Wait;
            inner.peers.wait_for(args.op, Some(key));
            let asked = state.site(key.site).map(|mut site| site.locks.ask(key, args.op, args.share, wait));
            let turn = match asked {
                Some(Asked::Held) => Ok(()),
                Some(Asked::Queued(turn)) => turn.await.map_err(|_| RETRY),
                Some(Asked::Busy) => Err(RETRY),
                None => Err(PrivateStatus::WrongSite as u32),
            };
            inner.peers.wait_for(args.op, None);
            turn?;
        }
    }
    if !inner.peers.holds(args.op, &key) {
        let mut batch = Batch::new();
        batch.put(
            keys::hold(args.op, &key),
            bytes::Bytes::from_static(if args.share { &[SHARED] } else { &[] }),
        );
        let ticket = state.store.submit(batch).map_err(|e| status_of(&Error::Store(e)).0)?;
        if !inner.peers.enter(args.op, key, ticket) {
            state.release(&key, args.op);
            unhold(inner, args.op, &[key]);
            return Err(RETRY);
        }
    }
    let durable = state.store.durable();
    match key.part {
        _ if args.mode == HoldMode::New => {}
        HoldPart::Attr => {
            let cell = state.attr(key.file).map_err(failed)?;
            res.durable = cell.as_ref().is_none_or(|c| c.ticket <= durable);
            res.record = cell.map(|c| c.rec.encode());
        }
        HoldPart::Names(hash) => {
            let cell = state.names(key.site, (key.file, hash)).map_err(failed)?;
            res.durable = cell.ticket <= durable;
            res.record = cell.bucket.stored();
        }
        HoldPart::Right => {}
    }
    Ok(())
}

/// Deletes the stored holds of an operation. If that is lost, its sender drops them again after a restart.
fn unhold(inner: &Inner, op: OpId, held: &[HoldKey]) {
    let mut batch = Batch::new();
    for key in held {
        batch.delete(keys::hold(op, key));
    }
    if let Err(error) = inner.state.store.submit_lazy(batch) {
        tracing::error!(%error, "a hold could not be deleted");
    }
}

/// Deletes the marks of a sender's settled operations.
fn forget_marks(inner: &Inner, sender: ServerId, settled: u64) -> Result<()> {
    let store = &inner.state.store;
    let mut batch = Batch::new();
    let end = keys::mark(OpId { sender, seq: settled });
    for pair in
        store.iter(KeyRange::of(keys::marks_of(sender).as_slice()..end.as_slice()), Direction::Forward)
    {
        batch.delete(pair?.0);
    }
    if !batch.is_empty() {
        store.submit_lazy(batch)?;
    }
    Ok(())
}

/// CONFIRM and OWE.
pub(crate) async fn confirm(inner: Arc<Inner>, args: ConfirmArgs) -> DirRes {
    let mut sites: Vec<Site> = args.effects.iter().map(place_of).collect();
    sites.sort_unstable();
    sites.dedup();
    let mut res = DirRes { status: 0, table: inner.routes().epoch(), durable: false };
    match admitted(&inner, args.table, &sites).await {
        Ok(()) => match carry_out(&inner, args, &sites).await {
            Ok(durable) => res.durable = durable,
            Err(error) => {
                tracing::error!(%error, "an effect that is owed here could not be carried out");
                res.status = status_of(&error).0;
            }
        },
        Err(status) => res.status = status,
    }
    res.table = inner.routes().epoch();
    res
}

async fn carry_out(inner: &Inner, args: ConfirmArgs, sites: &[Site]) -> Result<bool> {
    let ConfirmArgs { op, effects, .. } = args;
    let store = &inner.state.store;
    if effects.is_empty() {
        // Only a question: is all that was confirmed before durable?
        store.wait(store.submitted()).await?;
        return Ok(true);
    }
    let mut changes = effects;
    let ticket = loop {
        match try_once(inner, op, &mut changes, sites)? {
            Carried::Done(ticket) => break ticket,
            // An error is as good: look again.
            Carried::Wait(turn) => drop(turn.await),
        }
    };
    let (held, hold_ticket) = inner.peers.keys_of(op);
    let _ = inner.peers.close(op);
    for key in &held {
        inner.state.release(key, op);
    }
    if held.is_empty() {
        store.wait(ticket).await?;
        return Ok(true);
    }
    // After a crash the hold is still there, and the sender still has the effects: that is durable enough to answer.
    store.wait(hold_ticket).await?;
    Ok(ticket <= store.durable())
}

enum Carried {
    Done(Ticket),
    Wait(crate::state::locks::Turn),
}

fn try_once(inner: &Inner, op: OpId, effects: &mut Vec<Effect>, sites: &[Site]) -> Result<Carried> {
    let routes = inner.routes();
    let mut fresh = Fresh::new();
    let ground = Ground { inner, routes: &routes, op: Some(op), held: None };
    let mut attempt = Attempt::new(ground, sites, &mut fresh, true);
    // Under the sites' mutexes: the same message a second time finds the mark of the first.
    let mark = keys::mark(op);
    if inner.state.store.get(&mark)?.is_some() {
        return Ok(Carried::Done(inner.state.store.submitted()));
    }
    for effect in effects.iter() {
        let change = match effect {
            Effect::Attr(e) => Change::Attr(e.clone()),
            Effect::Name(e) => Change::Name(e.clone()),
            Effect::Make { file, record } => {
                Change::Make(*file, Box::new(AttrRec::decode(&keys::attr(*file), record)?))
            }
        };
        match attempt.stage(change) {
            Ok(()) => {}
            Err(Missing::Busy(key)) => {
                drop(attempt);
                return match inner.state.look(&key) {
                    Some(turn) => Ok(Carried::Wait(turn)),
                    None => try_once(inner, op, effects, sites),
                };
            }
            Err(Missing::Fail(error)) => return Err(error),
            // All sites are locked, the store may be read, and nothing is at a peer.
            Err(_) => return Err(Error::NoOwner { site: place_of(effect) }),
        }
    }
    let mut extra = Batch::new();
    extra.put(mark, bytes::Bytes::new());
    for key in inner.peers.keys_of(op).0 {
        extra.delete(keys::hold(op, &key));
    }
    Ok(Carried::Done(attempt.commit(None, &[], extra)?.ticket))
}

/// DROP.
pub(crate) async fn drop_op(inner: Arc<Inner>, args: DropArgs) -> DirRes {
    let table = inner.routes().epoch();
    end(&inner, args.op);
    if args.durable {
        let store = &inner.state.store;
        if let Err(error) = store.wait(store.submitted()).await {
            return DirRes { status: status_of(&Error::Store(error)).0, table, durable: false };
        }
    }
    DirRes { status: 0, table, durable: args.durable }
}

/// Frees all that an operation holds or waits for.
fn end(inner: &Inner, op: OpId) {
    let (held, waiting) = inner.peers.close(op);
    for key in held.iter().chain(&waiting) {
        inner.state.release(key, op);
    }
    if !held.is_empty() {
        unhold(inner, op, &held);
    }
}

/// RECONCILE: the sender has started. What its earlier lives hold here and do not owe is free.
pub(crate) fn reconcile(inner: &Inner, args: &ReconcileArgs) -> ReconcileRes {
    let routes = inner.routes();
    if !inner.journal.place(|site| routes.owner(site)) {
        // Before the first table nobody can be told what is owed to him: he asks again.
        let status = PrivateStatus::WrongSite as u32;
        return ReconcileRes { status, holds: Vec::new(), owed: Vec::new() };
    }
    let over = inner.peers.of(args.sender, |op, _| op.boot() < args.boot && !args.owed.contains(&op.seq));
    for op in over {
        end(inner, op);
    }
    ReconcileRes {
        status: 0,
        holds: inner.journal.holds_at(args.sender),
        owed: inner.journal.owed_to(args.sender),
    }
}

/// We have started, and `sender` has answered what its operations hold here: its others are over, these go on.
pub(crate) fn reconciled(inner: &Inner, sender: ServerId, res: &ReconcileRes) -> Result<()> {
    let named = |seq: &u64| res.owed.contains(seq) || res.holds.iter().any(|(s, _)| s == seq);
    for op in inner.peers.of(sender, |op, recovered| recovered && !named(&op.seq)) {
        end(inner, op);
    }
    let state = &inner.state;
    for (seq, key) in &res.holds {
        let op = OpId { sender, seq: *seq };
        inner.peers.confirm_recovered(op);
        if inner.peers.is_dropped(op)
            || state.store.get(&keys::mark(op))?.is_some()
            || inner.peers.holds(op, key)
        {
            continue;
        }
        // Lost with our earlier life: held again, unless somebody else has come first, who then sees it as it was.
        let Some(mut site) = state.site(key.site) else { continue };
        if matches!(site.locks.ask(*key, op, false, false), Asked::Held) {
            state.veil(&mut site, key, op);
            drop(site);
            if !inner.peers.enter(op, *key, Ticket::default()) {
                state.release(key, op);
            }
        }
    }
    Ok(())
}
