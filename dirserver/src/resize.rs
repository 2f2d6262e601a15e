//! SETATTR of a size, as the file's home site (docs/wire.md, "Data path"): the data servers first, the record after, and
//! the file held between, so that pushes, links and other changes of size come before or behind.
//!
//! ```text
//! not larger, or within the reach                larger, or a new file with a size ([`made`])
//!   T record: epoch + 1, size, call  durable       record with the new size, T record, the reply    durable
//!   intention, if reach > 64 KiB                   EXTEND at the small-file site                    durable
//!   TRUNCATE at all sites            durable       reply
//!   record, reply; T record goes     durable
//!   reply
//! ```
//! A crash at any point leaves a T record, and it rolls forward: the whole call, its reply kept as if there had been no
//! crash, so that a retransmission cuts nothing a second time (I10). While data servers and record disagree, readers of the
//! record wait: nobody sees a size that the bytes do not have.

use crate::call::Call;
use crate::data::{Cut, cut, extend, intend};
use crate::decide::{Change, Missing, Op, Outcome, Reply, View, setattr};
use crate::error::Error;
use crate::keys;
use crate::owed::attr_key;
use crate::records::{AttrRec, Resize, ResizeKind};
use crate::replies::Running;
use crate::routes::Routes;
use crate::server::Inner;
use crate::state::locks::Asked;
use crate::state::{SiteState, status_of};
use crate::tx::attempt::{Attempt, Fresh, Ground};
use crate::tx::unfinished::Due;
use crate::tx::{fail, forward, when_due};
use bytes::{Bytes, BytesMut};
use slice_proto::handle::Handle;
use slice_proto::ids::{AttrSeq, Epoch, FileId, IntentionId, Site};
use slice_proto::nfs3::{NfsStat3, NfsTime3, Sattr3};
use slice_proto::peer::dir::OpId;
use slice_proto::peer::intent::IntentKind;
use slice_proto::placement::reach_for;
use slice_store::{Batch, Ticket};
use std::sync::Arc;

/// A size to be set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) file: FileId,
    pub(crate) size: u64,
    /// The reply of the operation that it is part of.
    pub(crate) reply: Reply,
}

/// Holds one record of ours until it is dropped.
pub(crate) struct Holding {
    pub(crate) inner: Arc<Inner>,
    pub(crate) file: FileId,
    op: OpId,
}

/// A file that an operation has made with a size: its small-file site is still to be told.
pub(crate) struct Made {
    pub(crate) holding: Holding,
    pub(crate) epoch: Epoch,
    pub(crate) size: u64,
}

/// Runs a call that sets a size to its durable reply. `None` if the file has gone since its CREATE found it: that is to be
/// decided anew.
pub(crate) async fn run(
    inner: &Arc<Inner>,
    call: &Call,
    running: &Running,
    wanted: Wanted,
) -> Option<BytesMut> {
    let mut out = BytesMut::new();
    let routes = inner.routes();
    let Ok(op) = call.op(&routes.keys) else {
        fail(inner, call, NfsStat3::STALE, &mut out);
        return Some(out);
    };
    if !routes.home_is_mine(wanted.file) {
        return forward::create_with_size(inner, &routes, call, &op, running, &wanted).await;
    }
    let resizing = Resizing { inner, routes: &routes, call, op: &op, wanted: &wanted };
    match resizing.run(running, &mut out).await {
        Ok(Some(due)) => Some(when_due(inner, call, due, out).await),
        Ok(None) => None,
        Err(error) => {
            tracing::error!(%error, "a size could not be set");
            out.clear();
            fail(inner, call, status_of(&error), &mut out);
            Some(out)
        }
    }
}

/// Tells the small-file site of a new file's size, once the batch of `ticket` is durable. What fails here fails with the
/// whole store: the T record is found when it is opened again.
pub(crate) async fn made(inner: &Arc<Inner>, made: Made, ticket: Ticket) {
    let Made { holding, epoch, size } = made;
    if let Err(error) = inner.state.store.wait(ticket).await {
        tracing::error!(%error, "a file with a size could not be made");
        return;
    }
    extend(inner, holding.file, epoch, size).await;
    holding.forget_resize();
}

// === impl Holding ===

impl Holding {
    /// Waits until the file's record is ours alone.
    pub(crate) async fn of(inner: &Arc<Inner>, file: FileId) -> Self {
        let op = inner.journal.begin();
        let holding = Self { inner: Arc::clone(inner), file, op };
        loop {
            let asked =
                inner.state.site(file.home()).map(|mut s| s.locks.ask(attr_key(file), op, false, true));
            match asked {
                Some(Asked::Queued(turn)) => {
                    // An error would mean that somebody dropped our operation, which nobody knows of: ask again.
                    if turn.await.is_ok() {
                        return holding;
                    }
                }
                _ => return holding,
            }
        }
    }

    /// Holds a file that is about to be made, by one who has its site's lock. Nobody knows of it yet.
    pub(crate) fn of_new(inner: &Arc<Inner>, site: &mut SiteState, file: FileId) -> Self {
        let op = inner.journal.begin();
        site.locks.ask(attr_key(file), op, false, false);
        inner.state.veil(site, &attr_key(file), op);
        Self { inner: Arc::clone(inner), file, op }
    }

    /// Has readers of the record wait until it is released.
    pub(crate) fn veil(&self) {
        let state = &self.inner.state;
        if let Some(mut site) = state.site(self.file.home()) {
            state.veil(&mut site, &attr_key(self.file), self.op);
        }
    }

    /// Sets size and epoch of the record as data servers have them now; its T record goes in the same batch.
    pub(crate) fn set_size(&self, resize: &Resize) -> Result<Ticket, Error> {
        let (inner, file) = (&self.inner, self.file);
        let mut done = Batch::new();
        done.delete(keys::resize(file));
        let routes = inner.routes();
        let mut fresh = Fresh::new();
        let ground = Ground { inner, routes: &routes, op: Some(self.op), held: None };
        let mut attempt = Attempt::new(ground, &[file.home()], &mut fresh, true);
        match attempt.attr(file) {
            Ok(Some(cell)) => {
                let rec = &cell.rec;
                let Resize { epoch, size, .. } = *resize;
                let (seq, ctime_ns) = (AttrSeq(rec.seq.0 + 1), rec.next_ctime(inner.now_ns()));
                // A repair changes no bytes that a client could have seen; a call that cut the file does.
                let mtime_ns = if resize.call.is_empty() { rec.mtime_ns } else { ctime_ns };
                // A damaged record may have a reach below bytes that stay.
                let reach = if size > rec.reach { reach_for(size) } else { rec.reach };
                let reach = if resize.call.is_empty() { reach } else { rec.reach };
                let new = AttrRec { size, epoch, seq, reach, ctime_ns, mtime_ns, ..rec.clone() };
                // Held by us, and its site is locked: staging it cannot miss anything.
                let _ = attempt.stage(Change::Set(file, Box::new(new)));
            }
            Ok(None) => {}
            Err(Missing::Fail(error)) => return Err(error),
            // Held by us, at a site that is locked.
            Err(_) => return Err(Error::NoOwner { site: file.home() }),
        }
        Ok(attempt.commit(None, &[], done)?.due.ticket)
    }

    /// The data servers agree with the record: nothing is left to roll forward. If this is lost in a crash, rolling forward
    /// finds nothing to do.
    fn forget_resize(&self) {
        let mut done = Batch::new();
        done.delete(keys::resize(self.file));
        if let Err(error) = self.inner.state.store.submit_lazy(done) {
            tracing::error!(%error, "a change of size that is done could not be deleted");
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.inner.state.release(&attr_key(self.file), self.op);
        self.inner.journal.forget(self.op);
    }
}

// === impl Resizing ===

struct Resizing<'a> {
    inner: &'a Arc<Inner>,
    routes: &'a Routes,
    call: &'a Call,
    op: &'a Op<'a>,
    wanted: &'a Wanted,
}

impl Resizing<'_> {
    /// Everything that the call sets, and its guard.
    fn attributes(&self) -> (Sattr3, Option<NfsTime3>) {
        match self.op {
            Op::Setattr { attr, guard, .. } => (*attr, *guard),
            _ => (Sattr3 { size: Some(self.wanted.size), ..Sattr3::default() }, None),
        }
    }

    async fn run(&self, running: &Running, out: &mut BytesMut) -> Result<Option<Due>, Error> {
        let (inner, wanted) = (self.inner, self.wanted);
        let holding = Holding::of(inner, wanted.file).await;
        let Some(cell) = inner.state.attr(wanted.file)? else {
            let named = matches!(self.op, Op::Create { .. });
            return Ok((!named).then(|| self.refuse(NfsStat3::STALE, running, &holding, out)));
        };
        let rec = &cell.rec;
        let (attr, guard) = self.attributes();
        let set = || setattr::set(rec, &attr, guard, &self.call.head.cred, inner.now_ns());
        let new = match set() {
            Ok(new) => new,
            Err(status) => return Ok(Some(self.refuse(status, running, &holding, out))),
        };
        // Below the reach a µproxy may have written what it has not pushed yet: larger than the size known here is no
        // growth then, and those bytes are to be cut like others. At or past it no byte is.
        if wanted.size > rec.size && wanted.size >= rec.reach {
            let resize = Resize {
                kind: ResizeKind::Grow,
                epoch: rec.epoch,
                size: wanted.size,
                reach: rec.reach,
                // The reply stands in the same batch.
                call: Bytes::new(),
            };
            let mut extra = Batch::new();
            extra.put(keys::resize(wanted.file), resize.encode());
            let new = AttrRec { size: wanted.size, ..new };
            holding.veil();
            let due = self.commit(new, Some(running), &holding, extra, out)?;
            inner.state.store.wait(due.ticket).await?;
            extend(inner, wanted.file, resize.epoch, resize.size).await;
            holding.forget_resize();
            return Ok(Some(due));
        }
        let mut resize = Resize {
            kind: ResizeKind::Cut,
            epoch: Epoch(rec.epoch.0 + 1),
            size: wanted.size,
            reach: rec.reach,
            call: self.call.stored(),
        };
        let id = truncate(&holding, &mut resize, false).await?;
        // Asked anew for the time: data servers may have taken theirs. Nobody else could change the record meanwhile.
        let new = AttrRec { size: wanted.size, epoch: resize.epoch, ..set().unwrap_or(new) };
        let mut extra = Batch::new();
        extra.delete(keys::resize(wanted.file));
        let due = self.commit(new, Some(running), &holding, extra, out)?;
        inner.owed.completed(id);
        Ok(Some(due))
    }

    fn attempt<'b>(&self, ground: Ground<'b>, fresh: &'b mut Fresh) -> Attempt<'b> {
        let mut sites: Vec<Site> = vec![self.wanted.file.home()];
        sites.extend(self.directory().map(FileId::home));
        sites.retain(|s| self.routes.mine(*s));
        sites.sort_unstable();
        sites.dedup();
        let mut attempt = Attempt::new(ground, &sites, fresh, true);
        // What cannot be read (gone, or held by another) is not shown.
        for file in [Some(self.wanted.file), self.directory()].into_iter().flatten() {
            let _ = attempt.attr(file);
        }
        attempt
    }

    /// CREATE's directory.
    fn directory(&self) -> Option<FileId> {
        match self.wanted.reply {
            Reply::Made { dir, .. } => Some(dir),
            _ => None,
        }
    }

    fn refuse(&self, status: NfsStat3, running: &Running, holding: &Holding, out: &mut BytesMut) -> Due {
        let mut fresh = Fresh::new();
        let ground = Ground { inner: self.inner, routes: self.routes, op: Some(holding.op), held: None };
        let attempt = self.attempt(ground, &mut fresh);
        let reply = self.op.failure();
        let outcome = Outcome { status, changes: Vec::new(), reply, resize: None };
        attempt.reply(&outcome, out, self.call.head.xid, self.op.handle().volume);
        let due = Due { ticket: attempt.shown(), after: attempt.unfinished() };
        running.refused(out, due.ticket);
        due
    }

    fn commit(
        &self,
        new: AttrRec,
        running: Option<&Running>,
        holding: &Holding,
        extra: Batch,
        out: &mut BytesMut,
    ) -> Result<Due, Error> {
        let volume = new.volume;
        let mut fresh = Fresh::new();
        let ground = Ground { inner: self.inner, routes: self.routes, op: Some(holding.op), held: None };
        let mut attempt = self.attempt(ground, &mut fresh);
        // The record was read and its site is locked: staging it cannot miss anything.
        let _ = attempt.stage(Change::Set(self.wanted.file, Box::new(new)));
        let outcome = Outcome::ok(Vec::new(), self.wanted.reply);
        attempt.reply(&outcome, out, self.call.head.xid, volume);
        let site = self.routes.volume(volume).map_or(self.wanted.file.home(), |v| self.op.site(v));
        Ok(attempt.commit(running.map(|r| (r, site)), out, extra)?.due)
    }
}

/// Cuts the file at its data servers, under a T record; `stands` says that it is durable already. Returns the intention to
/// be completed; the epoch may have become a later one.
pub(crate) async fn truncate(
    holding: &Holding,
    resize: &mut Resize,
    mut stands: bool,
) -> Result<Option<IntentionId>, Error> {
    let (inner, file) = (&holding.inner, holding.file);
    loop {
        if !stands {
            let mut batch = Batch::new();
            batch.put(keys::resize(file), resize.encode());
            inner.state.store.commit(batch)?.await?;
        }
        let Resize { epoch, size, reach, .. } = *resize;
        let id = intend(inner, IntentKind::Truncate, file, epoch, size, reach).await;
        holding.veil();
        match cut(inner, file, epoch, reach, Cut::To(size)).await {
            None => return Ok(id),
            Some(newer) => {
                // A data server has seen a later epoch than we ever gave out: our store is older than its. Go past it.
                tracing::error!(%file, ours = epoch.0, theirs = newer.0, "a data server is ahead of a file's home");
                inner.owed.completed(id);
                resize.epoch = Epoch(newer.0 + 1);
                stands = false;
            }
        }
    }
}

/// Finishes a change of size that a crash has interrupted. The file has been held since the store was opened, and so has
/// the call, whose retransmissions wait for `running`.
pub(crate) async fn roll_forward(
    inner: &Arc<Inner>,
    file: FileId,
    mut resize: Resize,
    op: OpId,
    running: Option<Running>,
) {
    let holding = Holding { inner: Arc::clone(inner), file, op };
    let done = match resize.kind {
        ResizeKind::Grow => {
            extend(inner, file, resize.epoch, resize.size).await;
            return holding.forget_resize();
        }
        // What was to come after it was not begun.
        ResizeKind::Fence => holding.set_size(&resize).map(|ticket| (None, ticket)),
        ResizeKind::Cut => match truncate(&holding, &mut resize, true).await {
            Ok(id) => finish(&holding, &resize, running.as_ref()).map(|ticket| (id, ticket)),
            Err(error) => Err(error),
        },
    };
    match done {
        Ok((id, _)) => inner.owed.completed(id),
        // The T record stays, and with it the next start finishes it.
        Err(error) => tracing::error!(%error, "an interrupted change of size could not be finished"),
    }
}

/// The record of a file that was cut, as the interrupted call (or repair) was to make it, with its reply.
fn finish(holding: &Holding, resize: &Resize, running: Option<&Running>) -> Result<Ticket, Error> {
    let (inner, file) = (&holding.inner, holding.file);
    let mut done = Batch::new();
    done.delete(keys::resize(file));
    let routes = inner.routes();
    let Some(cell) = inner.state.attr(file)? else {
        return Ok(inner.state.store.submit(done)?);
    };
    let rec = &cell.rec;
    let Resize { epoch, size, .. } = *resize;
    let call = Call::read(&resize.call);
    let op = call.as_ref().and_then(|call| call.op(&routes.keys).ok());
    if let (Some(call), Some(op)) = (&call, &op)
        && let Some(reply) = reply_of(op, file, rec)
    {
        let wanted = Wanted { file, size, reply };
        let resizing = Resizing { inner, routes: &routes, call, op, wanted: &wanted };
        // It was permitted, and its guard held, when it began; nobody has changed the record since.
        let (attr, _) = resizing.attributes();
        if let Ok(new) = setattr::set(rec, &attr, None, &call.head.cred, inner.now_ns()) {
            let new = AttrRec { size, epoch, ..new };
            return Ok(resizing.commit(new, running, holding, done, &mut BytesMut::new())?.ticket);
        }
    }
    if !resize.call.is_empty() {
        tracing::error!(%file, "the call that was cutting a file cannot be read: only its size is set");
    }
    holding.set_size(resize)
}

/// What a call that sets a size shows.
fn reply_of(op: &Op<'_>, file: FileId, rec: &AttrRec) -> Option<Reply> {
    match op {
        Op::Setattr { .. } => Some(Reply::Wcc(file)),
        Op::Create { at, .. } => {
            // ftype3 is below 8.
            let object =
                Handle { ftype: rec.ftype as u8, volume: rec.volume, policy: rec.policy, file, snapshot: 0 };
            Some(Reply::Made { object, dir: at.dir.file })
        }
        _ => None,
    }
}
