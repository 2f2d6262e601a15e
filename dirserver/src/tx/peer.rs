//! The asked side: records of ours that peers' operations hold, and effects that they have us carry out.
//!
//! A shared hold is answered at once and made durable meanwhile (`H` in the store), another once it is durable; so after a
//! restart the record is held again. Effects are applied once: their batch carries a mark (`M`) of the operation, which goes when the sender says
//! that all of its operations up to some number are settled.

use super::attempt::{Attempt, Fresh, Ground};
use super::book::stored;
use super::journal::{self, place_of};
use super::recover::undecided;
use crate::decide::{Change, Missing};
use crate::error::{Error, Result};
use crate::keys;
use crate::records::AttrRec;
use crate::server::{Admission, Inner};
use crate::state::locks::{Asked, Turn};
use crate::state::status_of;
use bytes::Bytes;
use slice_proto::ids::{ServerId, Site};
use slice_proto::peer::PrivateStatus;
use slice_proto::peer::dir::{
    ConfirmArgs, DirRes, DropArgs, Effect, HoldArgs, HoldKey, HoldMode, HoldPart, HoldRes, OpId,
};
use slice_store::{Batch, Direction, KeyRange, Ticket};
use std::sync::Arc;

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
    let (table, life) = (inner.routes().epoch(), inner.journal.boot());
    let mut res = HoldRes { status: 0, file: key.file, record: None, durable: true, table, life };
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
            if let Err(error) = state.store.wait(reserved).await {
                state.release(&key, args.op);
                return Err(status_of(&Error::Store(error)).0);
            }
        }
        HoldMode::Wait | HoldMode::Try => {
            if !args.share {
                // It may take away what a shared hold that was lost with an earlier life of ours counts on.
                inner.until_reconciled().await;
            }
            if !inner.peers.waits(args.op, key) {
                return Err(RETRY);
            }
            let wait = args.mode == HoldMode::Wait;
            let asked = state.site(key.site).map(|mut site| site.locks.ask(key, args.op, args.share, wait));
            let turn = match asked {
                Some(Asked::Held) => Ok(()),
                Some(Asked::Queued(turn)) => turn.await.map_err(|_| RETRY),
                Some(Asked::Busy) => Err(RETRY),
                None => Err(PrivateStatus::WrongSite as u32),
            };
            inner.peers.waited(args.op);
            turn?;
            // The answer to an earlier HOLD of it may have died with an earlier life of ours.
            undecided(inner, args.op).map_err(|error| {
                state.release(&key, args.op);
                failed(error)
            })?;
        }
    }
    let mut ticket = Ticket::default();
    if !inner.peers.holds(args.op, &key) {
        let mut batch = Batch::new();
        batch.put(keys::hold(args.op, &key), stored(args.share));
        ticket = state.store.submit(batch).map_err(|error| {
            // Or the next who asks for it would wait for ever for one who was refused.
            state.release(&key, args.op);
            status_of(&Error::Store(error)).0
        })?;
    }
    if !inner.peers.enter(args.op, key, ticket) {
        state.release(&key, args.op);
        unhold(inner, args.op, &[key]);
        return Err(RETRY);
    }
    if !args.share && args.mode != HoldMode::New {
        // What others might do meanwhile, were it lost, no effect of the operation could undo.
        let (_, ticket) = inner.peers.keys_of(args.op);
        state.store.wait(ticket).await.map_err(|e| status_of(&Error::Store(e)).0)?;
        if inner.peers.is_over(args.op) {
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
pub(crate) fn unhold(inner: &Inner, op: OpId, held: &[HoldKey]) {
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

/// An answer of this life.
fn answer(inner: &Inner, status: u32, durable: bool) -> DirRes {
    DirRes { status, table: inner.routes().epoch(), durable, life: inner.journal.boot() }
}

/// CONFIRM and OWE.
pub(crate) async fn confirm(inner: Arc<Inner>, args: ConfirmArgs) -> DirRes {
    let mut sites: Vec<Site> = args.effects.iter().map(place_of).collect();
    sites.sort_unstable();
    sites.dedup();
    let mut res = answer(&inner, 0, false);
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
    let (keys, hold_ticket) = inner.peers.keys_of(op);
    // After a crash readers of what is held wait for the effects to come again; what is not held would show what was before.
    let all_held = effects.iter().all(|effect| keys.contains(&journal::key_of(effect)));
    let (mut held, mut in_parts) = (false, false);
    let ticket = loop {
        let carried = try_once(inner, op, &effects, sites)?;
        // What it held has its effects now. To hold it on, waiting for others that may wait for it, could last for ever.
        held |= let_go(inner, op);
        match carried {
            Carried::Done(ticket) => break ticket,
            // An error is as good: look again.
            Carried::Wait(turn) => drop(turn.await),
            Carried::Again => {}
        }
        in_parts = true;
    };
    if !held || in_parts || !all_held {
        store.wait(ticket).await?;
        return Ok(true);
    }
    // After a crash the hold is still there, and the sender still has the effects: that is durable enough to answer.
    store.wait(hold_ticket).await?;
    Ok(ticket <= store.durable())
}

/// Frees what an operation holds or waits for, whose stored holds are deleted; whether it held anything.
fn let_go(inner: &Inner, op: OpId) -> bool {
    let (held, waiting) = inner.peers.close(op);
    for key in held.iter().chain(&waiting) {
        inner.state.release(key, op);
    }
    !held.is_empty()
}

enum Carried {
    /// All effects are.
    Done(Ticket),
    /// All but some whose records others hold: after this.
    Wait(Turn),
    /// The same, and they do not hold them any more.
    Again,
}

/// Carries out what can be at once. The mark of the operation says which effects were.
fn try_once(inner: &Inner, op: OpId, effects: &[Effect], sites: &[Site]) -> Result<Carried> {
    let routes = inner.routes();
    let mut fresh = Fresh::new();
    let ground = Ground { inner, routes: &routes, op: Some(op), held: None };
    let mut attempt = Attempt::new(ground, sites, &mut fresh, true);
    // Under the sites' mutexes: the same message a second time finds the mark of the first.
    let mark = Mark::read(inner, op)?;
    let (mut done, mut busy) = (mark, None);
    for (n, effect) in effects.iter().enumerate().filter(|(n, _)| !mark.has(*n)) {
        let change = match effect {
            Effect::Attr(e) => Change::Attr(e.clone()),
            Effect::Name(e) => Change::Name(e.clone()),
            Effect::Make { file, record } => {
                Change::Make(*file, Box::new(AttrRec::decode(&keys::attr(*file), record)?))
            }
        };
        match attempt.stage(change) {
            Ok(()) => done.add(n),
            Err(Missing::Busy(key)) => busy = Some(key),
            Err(Missing::Fail(error)) => return Err(error),
            // All sites are locked, the store may be read, and nothing is at a peer.
            Err(_) => return Err(Error::NoOwner { site: place_of(effect) }),
        }
    }
    if busy.is_none() {
        done = Mark::ALL;
    }
    let mut ticket = inner.state.store.submitted();
    if done == mark {
        drop(attempt);
    } else {
        let mut extra = Batch::new();
        extra.put(keys::mark(op), done.stored());
        for key in inner.peers.keys_of(op).0 {
            extra.delete(keys::hold(op, &key));
        }
        ticket = attempt.commit(None, &[], extra)?.due.ticket;
    }
    Ok(match busy.map(|key| inner.state.look(&key)) {
        None => Carried::Done(ticket),
        Some(Some(turn)) => Carried::Wait(turn),
        Some(None) => Carried::Again,
    })
}

const _: () = assert!(slice_proto::peer::dir::MAX_EFFECTS < u32::BITS, "a bit an effect");

/// Which effects of an operation are carried out, one bit each; stored as long as it may be asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark(u32);

impl Mark {
    const ALL: Self = Self(u32::MAX);

    fn read(inner: &Inner, op: OpId) -> Result<Self> {
        if inner.peers.is_settled(op) {
            // A late second copy of a message: its mark may have gone.
            return Ok(Self::ALL);
        }
        let stored = inner.state.store.get(&keys::mark(op))?;
        // An empty one says that all are.
        Ok(stored
            .map_or(Self(0), |v| v.as_ref().try_into().map_or(Self::ALL, |v| Self(u32::from_be_bytes(v)))))
    }

    const fn has(self, effect: usize) -> bool {
        self.0 >> effect & 1 == 1
    }

    const fn add(&mut self, effect: usize) {
        self.0 |= 1 << effect;
    }

    fn stored(self) -> Bytes {
        if self == Self::ALL { Bytes::new() } else { Bytes::copy_from_slice(&self.0.to_be_bytes()) }
    }
}

/// DROP.
pub(crate) async fn drop_op(inner: Arc<Inner>, args: DropArgs) -> DirRes {
    end(&inner, args.op);
    if args.durable {
        let store = &inner.state.store;
        if let Err(error) = store.wait(store.submitted()).await {
            return answer(&inner, status_of(&Error::Store(error)).0, false);
        }
    }
    answer(&inner, 0, args.durable)
}

/// Frees all that an operation holds or waits for.
pub(crate) fn end(inner: &Inner, op: OpId) {
    let (held, _) = inner.peers.keys_of(op);
    let_go(inner, op);
    if !held.is_empty() {
        unhold(inner, op, &held);
    }
}
