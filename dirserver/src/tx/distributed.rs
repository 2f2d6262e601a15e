//! An operation with records at peers: hold what it reads, decide, commit, confirm (docs/wire.md).
//!
//! Holds are waited for only in the one global order of [`HoldKey`]s; one found busy out of order makes the operation let
//! go of everything and begin anew, with all that it is known to need, in order. So no two wait for each other.

use super::attempt::{Attempt, Fresh, Ground};
use super::held::Held;
use super::local;
use super::talk::{RETRY, ask, wrong_site};
use super::unfinished::Due;
use super::{durable, fail, when_due};
use crate::call::Call;
use crate::decide::{Caller, Missing, Op};
use crate::error::Error;
use crate::replies::Running;
use crate::resize::{self, Made, Wanted};
use crate::routes::Routes;
use crate::server::Inner;
use crate::state::locks::Asked;
use crate::state::status_of;
use bytes::BytesMut;
use futures_util::future::{join, join_all};
use slice_proto::ids::{FileId, ServerId, Site};
use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::dir::{
    ConfirmArgs, DirRes, DropArgs, Effect, HoldArgs, HoldKey, HoldMode, HoldPart, HoldRes, OpId,
};
use slice_proto::peer::{PeerProc, PrivateStatus};
use slice_proto::table::Volume;
use slice_store::{Batch, Ticket};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an operation is known to need, in order, and whether it shares it.
type Known = BTreeMap<HoldKey, bool>;

/// Why it begins anew, or ends without a decision.
enum Again {
    /// A hold was busy out of order.
    Order,
    /// A peer could not be asked, or does not own what it was asked for.
    Later,
    /// It ends so.
    Failed(Error),
    /// A peer cannot do its part: its disk has failed. Nothing is decided yet.
    Refused(NfsStat3),
    /// A peer has no stamp for a site: the caller must see that.
    Private(u32),
}

/// What one attempt came to.
enum Tried {
    /// Committed, or refused.
    Done(Done),
    /// A size is to be set first; the reply will show these operations, too.
    Resize(Wanted, Vec<u64>),
    Missing(Missing),
    Failed(Error),
}

/// A committed, or refused, operation.
struct Done {
    due: Due,
    parts: Vec<(ServerId, Vec<Effect>)>,
    changed: bool,
    /// The file that it has made with a size.
    made: Option<Made>,
}

/// One operation.
struct Distributed<'a> {
    inner: &'a Arc<Inner>,
    routes: &'a Routes,
    call: &'a Call,
    op: Op<'a>,
    volume: &'a Volume,
    running: &'a Running,
}

/// Runs the call to its durable reply.
pub(crate) async fn run(inner: Arc<Inner>, call: Call, running: Running, mut fresh: Fresh) -> BytesMut {
    let mut known = Known::new();
    loop {
        let routes = inner.routes();
        let mut out = BytesMut::new();
        let (Ok(op), Some(volume)) = (call.op(&routes.keys), volume_of(&call, &routes)) else {
            fail(&inner, &call, NfsStat3::STALE, &mut out);
            return out;
        };
        let d = Distributed { inner: &inner, routes: &routes, call: &call, op, volume, running: &running };
        let mut held = Held::new(inner.journal.begin());
        match d.one(&mut held, &mut known, &mut fresh, &mut out).await {
            Ok(None) => return out,
            Ok(Some((wanted, after))) => {
                drop_all(&inner, &held, false).await;
                if let Some(reply) = resize::run(&inner, &call, &running, wanted).await {
                    inner.journal.unfinished.ended(&after).await;
                    return reply;
                }
            }
            Err(again) => {
                known.retain(|key, _| !is_new(key, &fresh, &routes));
                drop_all(&inner, &held, false).await;
                // A file id that a peer gave goes with the hold that came with it.
                fresh.retain(|(site, _)| routes.mine(*site));
                match again {
                    Again::Order => {}
                    Again::Later => inner.table_after(&routes, RETRY).await,
                    Again::Failed(error) => {
                        tracing::error!(%error, proc = %call.head.proc, "an operation failed");
                        out.clear();
                        fail(&inner, &call, status_of(&error), &mut out);
                        return out;
                    }
                    Again::Refused(status) => {
                        out.clear();
                        fail(&inner, &call, status, &mut out);
                        return out;
                    }
                    Again::Private(status) => {
                        out.clear();
                        let epoch = routes.epoch();
                        crate::reply::Writer::new(&mut out, call.head.xid, status, 0)
                            .finish(epoch, inner.now_ns());
                        return out;
                    }
                }
            }
        }
    }
}

fn is_new(key: &HoldKey, fresh: &Fresh, routes: &Routes) -> bool {
    key.part == HoldPart::Attr && fresh.iter().any(|(site, file)| *file == key.file && !routes.mine(*site))
}

fn volume_of<'a>(call: &Call, routes: &'a Routes) -> Option<&'a Volume> {
    routes.volume(call.op(&routes.keys).ok()?.handle().volume)
}

impl Distributed<'_> {
    /// Holds, decides, commits, has it confirmed. `Some` if a size is to be set instead.
    async fn one(
        &self,
        held: &mut Held,
        known: &mut Known,
        fresh: &mut Fresh,
        out: &mut BytesMut,
    ) -> Result<Option<(Wanted, Vec<u64>)>, Again> {
        for (key, share) in known.iter() {
            self.hold(held, *key, *share).await?;
        }
        let mut sites = local::first_sites(&self.op, self.volume, self.routes);
        let mut inline = false;
        let done = loop {
            out.clear();
            match self.try_once(held, &sites, fresh, inline, out) {
                Tried::Done(done) => break done,
                Tried::Resize(wanted, after) => return Ok(Some((wanted, after))),
                Tried::Failed(error) => return Err(Again::Failed(error)),
                Tried::Missing(Missing::Site(site)) => local::add(&mut sites, site),
                Tried::Missing(Missing::Attr(file)) => {
                    inline = true;
                    self.inner.state.attr(file).map_err(Again::Failed)?;
                }
                Tried::Missing(Missing::Names(site, key)) => {
                    inline = true;
                    self.inner.state.names(site, key).map_err(Again::Failed)?;
                }
                Tried::Missing(Missing::Hold(key, share)) => {
                    known.insert(key, share);
                    self.hold(held, key, share).await?;
                }
                // Said only to who holds nothing.
                Tried::Missing(Missing::Busy(key)) => {
                    known.insert(key, false);
                    self.hold(held, key, false).await?;
                }
                Tried::Missing(Missing::Peek(file)) => self.peek(held, file).await?,
                Tried::Missing(Missing::New(site)) => {
                    let file = self.new_file(held, site).await?;
                    fresh.push((site, file));
                }
                // It has a number: nothing says so.
                Tried::Missing(Missing::Peer) => return Err(Again::Later),
                Tried::Missing(Missing::Fail(error)) => return Err(Again::Failed(error)),
            }
        };
        let Done { due, parts, changed, made } = done;
        let ticket = due.ticket;
        let told = async {
            if let Some(made) = made {
                resize::made(self.inner, made, ticket).await;
            }
        };
        join(self.settle(held, ticket, parts, changed, out), told).await;
        // Only now that it holds nothing.
        let reply = std::mem::take(out);
        *out = when_due(self.inner, self.call, due, reply).await;
        Ok(None)
    }

    fn try_once(
        &self,
        held: &Held,
        sites: &[Site],
        fresh: &mut Fresh,
        inline: bool,
        out: &mut BytesMut,
    ) -> Tried {
        let who = Caller { cred: self.call.head.cred, now_ns: self.inner.now_ns(), volume: self.volume };
        let ground = Ground { inner: self.inner, routes: self.routes, op: Some(held.op), held: Some(held) };
        let mut attempt = Attempt::new(ground, sites, fresh, inline);
        let outcome = match attempt.decide(&self.op, &who) {
            Ok(outcome) => outcome,
            Err(missing) => return Tried::Missing(missing),
        };
        let mut extra = Batch::new();
        let mut made = None;
        if let Some((file, size)) = outcome.resize {
            if !attempt.is_new(file) {
                let wanted = Wanted { file, size, reply: outcome.reply };
                return Tried::Resize(wanted, attempt.unfinished());
            }
            match attempt.made(self.inner, file, &mut extra) {
                Ok(new) => made = Some(new),
                Err(missing) => return Tried::Missing(missing),
            }
        }
        attempt.reply(&outcome, out, self.call.head.xid, self.volume.id);
        let site = self.op.site(self.volume);
        let running = Some((self.running, site)).filter(|_| outcome.status == NfsStat3::OK);
        match attempt.commit(running, out, extra) {
            Ok(c) => {
                if outcome.status != NfsStat3::OK {
                    self.running.refused(out, c.due.ticket);
                }
                Tried::Done(Done { due: c.due, parts: c.parts, changed: c.changed, made })
            }
            Err(error) => Tried::Failed(error),
        }
    }

    /// After the commit: frees, confirms, waits.
    async fn settle(
        &self,
        held: &Held,
        ticket: Ticket,
        parts: Vec<(ServerId, Vec<Effect>)>,
        changed: bool,
        out: &mut BytesMut,
    ) {
        let inner = self.inner;
        let servers: Vec<ServerId> = parts.iter().map(|(s, _)| *s).collect();
        // Who is told of a name (EXIST, say) may look at once at what the operation changes with it at peers. So names stay held until
        // peers have applied what they hold for it; that waits for nobody, while an effect on what is not held may wait for who waits for the name.
        let sure: Vec<ServerId> = parts
            .iter()
            .filter(|(server, effects)| effects.iter().all(|e| held.has_there(*server, e)))
            .map(|(server, _)| *server)
            .collect();
        let stays = |key: &HoldKey| !sure.is_empty() && matches!(key.part, HoldPart::Names(_));
        let ours = || held.keys().filter(|(_, server)| server.is_none()).map(|(key, _)| key);
        ours().filter(|key| !stays(key)).for_each(|key| inner.state.release(key, held.op));
        let names = || ours().filter(|key| stays(key)).for_each(|key| inner.state.release(key, held.op));
        if servers.is_empty() {
            // Refused, or nothing of it is at peers.
            let reply = std::mem::take(out);
            *out = durable(inner, self.call, ticket, reply).await;
            drop_all(inner, held, !changed && !held.durable).await;
            return;
        }
        inner.journal.committed(held.op, parts);
        let reply = std::mem::take(out);
        *out = durable(inner, self.call, ticket, reply).await;
        if inner.state.store.durable() < ticket {
            // The store has failed: whether the operation happened is known when it is opened again, and peers hold what they
            // hold until then. Nobody is shown any of it.
            inner.journal.unfinished.end(held.op.seq);
            names();
            return;
        }
        // Holds at peers that have nothing to do.
        let idle: Vec<_> =
            inner.journal.holders(held.op).into_iter().filter(|s| !servers.contains(s)).collect();
        for server in idle {
            tokio::task::spawn_local(drop_at(Arc::clone(inner), held.op, server, false));
        }
        let seq = held.op.seq;
        let (here, there): (Vec<_>, Vec<_>) =
            inner.journal.to_send(seq).into_iter().partition(|(server, _)| sure.contains(server));
        let send = |parts: Vec<(ServerId, Vec<Effect>)>| {
            join_all(parts.into_iter().map(|(server, effects)| confirm(inner, seq, server, effects)))
        };
        let first = async {
            send(here).await;
            names();
        };
        join(first, send(there)).await;
    }

    /// Holds a record, here or at a peer.
    async fn hold(&self, held: &mut Held, key: HoldKey, share: bool) -> Result<(), Again> {
        if held.has(&key) {
            return Ok(());
        }
        let in_order = held.in_order(&key);
        if self.routes.mine(key.site) {
            let asked =
                self.inner.state.site(key.site).map(|mut site| site.locks.ask(key, held.op, share, in_order));
            match asked {
                Some(Asked::Held) => {}
                Some(Asked::Queued(turn)) => turn.await.map_err(|_| Again::Order)?,
                Some(Asked::Busy) | None => return Err(Again::Order),
            }
            held.here(key);
            return Ok(());
        }
        let mode = if in_order { HoldMode::Wait } else { HoldMode::Try };
        let (server, res) = self.granted(held, key, mode, share).await?;
        held.there(server, key, res.record.as_ref(), res.durable).map_err(Again::Failed)
    }

    async fn peek(&self, held: &mut Held, file: FileId) -> Result<(), Again> {
        let key = HoldKey { site: file.home(), file, part: HoldPart::Attr };
        let (_, res) = self.ask(held, key, HoldMode::Peek, true).await?;
        held.peeked(key, res.record.as_ref()).map_err(Again::Failed)
    }

    async fn new_file(&self, held: &mut Held, site: Site) -> Result<FileId, Again> {
        let key = HoldKey { site, file: FileId(0), part: HoldPart::Attr };
        let (_, res) = self.granted(held, key, HoldMode::New, false).await?;
        Ok(res.file)
    }

    /// Asks a peer until its present life has granted a hold: what an earlier one granted may be lost.
    async fn granted(
        &self,
        held: &Held,
        key: HoldKey,
        mode: HoldMode,
        share: bool,
    ) -> Result<(ServerId, HoldRes), Again> {
        let journal = &self.inner.journal;
        loop {
            if let Some(server) = self.routes.owner(key.site) {
                journal.asking(held.op, server);
            }
            let (server, res) = self.ask(held, key, mode, share).await?;
            if journal.granted(held.op, server, res.life, HoldKey { file: res.file, ..key }, share) {
                return Ok((server, res));
            }
        }
    }

    /// Asks a peer once.
    async fn ask(
        &self,
        held: &Held,
        key: HoldKey,
        mode: HoldMode,
        share: bool,
    ) -> Result<(ServerId, HoldRes), Again> {
        let inner = self.inner;
        let server = self.routes.owner(key.site).ok_or(Again::Later)?;
        let table = self.routes.epoch();
        let args = HoldArgs { table, op: held.op, settled: inner.settled(), key, mode, share };
        let res: HoldRes = match ask(inner, server, PeerProc::Hold, &args).await {
            Ok(res) => res,
            Err(error) => {
                tracing::warn!(%error, %server, "a directory server could not be asked for a hold");
                return Err(Again::Later);
            }
        };
        heard(inner, server, res.life);
        match res.status {
            0 => Ok((server, res)),
            s if s == PrivateStatus::Retry as u32 => Err(Again::Order),
            s if s == PrivateStatus::Unstamped as u32 => Err(Again::Private(s)),
            s if wrong_site(s) || s == NfsStat3::JUKEBOX.0 => Err(Again::Later),
            s => {
                tracing::error!(%server, status = s, "a directory server cannot hold what an operation needs");
                Err(Again::Refused(NfsStat3(s)))
            }
        }
    }
}

/// Frees everything that an operation holds that will not happen.
async fn drop_all(inner: &Arc<Inner>, held: &Held, durable: bool) {
    for (key, _) in held.keys().filter(|(_, server)| server.is_none()) {
        inner.state.release(key, held.op);
    }
    let servers = inner.journal.holders(held.op);
    if durable {
        join_all(servers.iter().map(|s| drop_at(Arc::clone(inner), held.op, *s, true))).await;
        return;
    }
    if servers.is_empty() {
        inner.journal.forget(held.op);
    }
    for server in servers {
        tokio::task::spawn_local(drop_at(Arc::clone(inner), held.op, server, false));
    }
}

/// Frees an operation's holds at a peer, and forgets the operation with the last of them.
async fn drop_at(inner: Arc<Inner>, op: OpId, server: ServerId, durable: bool) {
    loop {
        let routes = inner.routes();
        match ask::<DirRes>(&inner, server, PeerProc::Drop, &DropArgs { op, durable }).await {
            Ok(res) => {
                heard(&inner, server, res.life);
                if inner.journal.dropped(op, server, Some(res.life)) {
                    return;
                }
            }
            Err(error) if routes.table.servers.contains_key(&server) => {
                tracing::warn!(%error, %server, "a hold could not be dropped yet");
                inner.table_after(&routes, RETRY).await;
            }
            // It is no longer of the ensemble, and holds nothing.
            Err(_) => {
                let _ = inner.journal.dropped(op, server, None);
                return;
            }
        }
    }
}

/// A peer has shown in which life it is. What an earlier one had not made durable is carried out again.
pub(crate) fn heard(inner: &Arc<Inner>, server: ServerId, life: u64) {
    for seq in inner.journal.heard(server, life) {
        tokio::task::spawn_local(deliver_to(Arc::clone(inner), seq, server));
    }
}

/// Has one peer carry out its part of a committed operation.
pub(crate) async fn deliver_to(inner: Arc<Inner>, seq: u64, server: ServerId) {
    let part = inner.journal.to_send(seq).into_iter().find(|(s, _)| *s == server);
    if let Some((_, effects)) = part {
        confirm(&inner, seq, server, effects).await;
    }
}

async fn confirm(inner: &Arc<Inner>, seq: u64, part: ServerId, effects: Vec<Effect>) {
    let op = OpId { sender: inner.me, seq };
    let proc =
        if seq >> OpId::COUNT_BITS == inner.journal.boot() { PeerProc::Confirm } else { PeerProc::Owe };
    let mut args = ConfirmArgs { table: slice_proto::ids::TableEpoch(0), op, settled: 0, effects };
    loop {
        let routes = inner.routes();
        args.table = routes.epoch();
        args.settled = inner.settled();
        // All effects of a part are of sites of one server.
        let site = args.effects.first().map(super::journal::place_of);
        let server = site.and_then(|s| routes.owner(s)).unwrap_or(part);
        match ask::<DirRes>(inner, server, proc, &args).await {
            Ok(res) if res.status == 0 => {
                heard(inner, server, res.life);
                if inner.journal.applied(seq, part, res.life, res.durable) {
                    return;
                }
                continue;
            }
            Ok(res) if wrong_site(res.status) => {
                tracing::warn!(%server, "a directory server does not own what it is owed");
            }
            Ok(res) => {
                tracing::error!(%server, status = res.status, "a directory server refuses what it is owed")
            }
            Err(error) => {
                tracing::warn!(%error, %server, "a directory server could not be given what it is owed")
            }
        }
        inner.table_after(&routes, RETRY).await;
    }
}
