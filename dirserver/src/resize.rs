//! SETATTR of a size, as the file's home site (docs/wire.md, "Data path"): the data servers first, the record after, and
//! the file held between, so that pushes, links and other changes of size come before or behind.
//!
//! ```text
//! not larger, or within the reach               larger
//!   T record: epoch + 1, size     durable         record with the new size, T record, the reply    durable
//!   intention, if reach > 64 KiB                  EXTEND at the small-file site                    durable
//!   TRUNCATE at all sites         durable         reply
//!   record, reply; T record goes  durable
//!   reply
//! ```
//! A crash at any point leaves a T record, and it rolls forward.

use crate::call::Call;
use crate::data::{Cut, cut, extend, intend};
use crate::decide::{Change, Op, Outcome, Reply, View, setattr};
use crate::error::Error;
use crate::keys;
use crate::owed::attr_key;
use crate::records::{AttrRec, Resize};
use crate::replies::Running;
use crate::routes::Routes;
use crate::server::Inner;
use crate::state::locks::Asked;
use crate::state::status_of;
use crate::tx::attempt::{Attempt, Fresh, Ground};
use crate::tx::{durable, fail, forward};
use bytes::BytesMut;
use slice_proto::ids::{AttrSeq, Epoch, FileId, Site, VolumeId};
use slice_proto::nfs3::{NfsStat3, NfsTime3, Sattr3};
use slice_proto::peer::dir::OpId;
use slice_proto::peer::intent::IntentKind;
use slice_store::{Batch, Ticket};
use std::sync::Arc;

/// A size to be set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) file: FileId,
    pub(crate) size: u64,
    /// The reply of the operation that it is part of.
    pub(crate) reply: Reply,
    /// Whether that operation is committed already, its reply included: a CREATE that made the file.
    pub(crate) done: bool,
}

/// Holds one record of ours until it is dropped.
struct Holding<'a> {
    inner: &'a Inner,
    file: FileId,
    op: OpId,
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.inner.state.release(&attr_key(self.file), self.op);
        self.inner.journal.forget(self.op);
    }
}

/// Runs a call that sets a size to its durable reply.
pub(crate) async fn run(inner: Arc<Inner>, call: Call, running: Running, wanted: Wanted) -> BytesMut {
    let mut out = BytesMut::new();
    let routes = inner.routes();
    let Ok(op) = call.op(&routes.keys) else {
        fail(&inner, &call, NfsStat3::STALE, &mut out);
        return out;
    };
    if !routes.home_is_mine(wanted.file) {
        return forward::create_with_size(&inner, &routes, &call, &op, &wanted).await;
    }
    let resizing = Resizing { inner: &inner, routes: &routes, call: &call, op: &op, wanted: &wanted };
    match resizing.run(&running, &mut out).await {
        Ok(ticket) => durable(&inner, &call, ticket, out).await,
        Err(error) => {
            tracing::error!(%error, "a size could not be set");
            out.clear();
            fail(&inner, &call, status_of(&error), &mut out);
            out
        }
    }
}

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

    async fn run(&self, running: &Running, out: &mut BytesMut) -> Result<Ticket, Error> {
        let (inner, wanted) = (self.inner, self.wanted);
        let holding = hold(inner, wanted.file).await;
        let Some(cell) = inner.state.attr(wanted.file)? else {
            return Ok(self.refuse(NfsStat3::STALE, &holding, out));
        };
        let rec = &cell.rec;
        let (attr, guard) = self.attributes();
        let set = || setattr::set(rec, &attr, guard, &self.call.head.cred, inner.now_ns());
        let new = match set() {
            Ok(new) => new,
            Err(status) => return Ok(self.refuse(status, &holding, out)),
        };
        let volume = rec.volume;
        // Below the reach a µproxy may have written what it has not pushed yet: larger than the size known here is no
        // growth then, and those bytes are to be cut like others. At or past it no byte is.
        if wanted.size > rec.size && wanted.size >= rec.reach {
            let resize = Resize { grows: true, epoch: rec.epoch, size: wanted.size, reach: rec.reach };
            let mut extra = Batch::new();
            extra.put(keys::resize(wanted.file), resize.encode());
            let new = AttrRec { size: wanted.size, ..new };
            let ticket = self.commit(new, volume, running, &holding, extra, out)?;
            inner.state.store.wait(ticket).await?;
            extend(inner, wanted.file, resize.epoch, resize.size).await;
            let mut done = Batch::new();
            done.delete(keys::resize(wanted.file));
            inner.state.store.submit_lazy(done)?;
            return Ok(ticket);
        }
        let (epoch, id) = truncate(inner, wanted.file, rec, wanted.size).await?;
        // Asked anew for the time: data servers may have taken theirs. Nobody else could change the record meanwhile.
        let new = AttrRec { size: wanted.size, epoch, ..set().unwrap_or(new) };
        let mut extra = Batch::new();
        extra.delete(keys::resize(wanted.file));
        let ticket = self.commit(new, volume, running, &holding, extra, out)?;
        inner.owed.completed(id);
        Ok(ticket)
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

    fn refuse(&self, status: NfsStat3, holding: &Holding<'_>, out: &mut BytesMut) -> Ticket {
        let mut fresh = Fresh::new();
        let ground = Ground { inner: self.inner, routes: self.routes, op: Some(holding.op), held: None };
        let attempt = self.attempt(ground, &mut fresh);
        let reply = self.op.failure();
        let outcome = Outcome { status, changes: Vec::new(), reply, resize: None };
        attempt.reply(&outcome, out, self.call.head.xid, self.op.handle().volume);
        attempt.shown()
    }

    fn commit(
        &self,
        new: AttrRec,
        volume: VolumeId,
        running: &Running,
        holding: &Holding<'_>,
        extra: Batch,
        out: &mut BytesMut,
    ) -> Result<Ticket, Error> {
        let mut fresh = Fresh::new();
        let ground = Ground { inner: self.inner, routes: self.routes, op: Some(holding.op), held: None };
        let mut attempt = self.attempt(ground, &mut fresh);
        // The record was read and its site is locked: staging it cannot miss anything.
        let _ = attempt.stage(Change::Set(self.wanted.file, Box::new(new)));
        let outcome = Outcome::ok(Vec::new(), self.wanted.reply);
        attempt.reply(&outcome, out, self.call.head.xid, volume);
        let site = self.routes.volume(volume).map_or(self.wanted.file.home(), |v| self.op.site(v));
        let running = Some((running, site)).filter(|_| !self.wanted.done);
        Ok(attempt.commit(running, out, extra)?.ticket)
    }
}

/// Waits until the file's record is ours alone.
async fn hold(inner: &Inner, file: FileId) -> Holding<'_> {
    let op = inner.journal.begin();
    let holding = Holding { inner, file, op };
    loop {
        let asked = inner.state.site(file.home()).map(|mut s| s.locks.ask(attr_key(file), op, false, true));
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

/// Cuts the file at its data servers, under a T record; the new epoch, and the intention to be completed.
async fn truncate(
    inner: &Arc<Inner>,
    file: FileId,
    rec: &AttrRec,
    size: u64,
) -> Result<(Epoch, Option<slice_proto::ids::IntentionId>), Error> {
    let mut epoch = Epoch(rec.epoch.0 + 1);
    loop {
        let resize = Resize { grows: false, epoch, size, reach: rec.reach };
        let mut batch = Batch::new();
        batch.put(keys::resize(file), resize.encode());
        inner.state.store.commit(batch)?.await?;
        let id = intend(inner, IntentKind::Truncate, file, epoch, size, rec.reach).await;
        match cut(inner, file, epoch, rec.reach, Cut::To(size)).await {
            None => return Ok((epoch, id)),
            Some(newer) => {
                // A data server has seen a later epoch than we ever gave out: our store is older than its. Go past it.
                tracing::error!(%file, ours = epoch.0, theirs = newer.0, "a data server is ahead of a file's home");
                inner.owed.completed(id);
                epoch = Epoch(newer.0 + 1);
            }
        }
    }
}

/// Finishes a change of size that a crash has interrupted. The file has been held since the store was opened.
pub(crate) async fn roll_forward(inner: &Arc<Inner>, file: FileId, resize: Resize, op: OpId) {
    let holding = Holding { inner, file, op };
    let mut id = None;
    let mut epoch = resize.epoch;
    if resize.grows {
        extend(inner, file, epoch, resize.size).await;
    } else {
        id = intend(inner, IntentKind::Truncate, file, epoch, resize.size, resize.reach).await;
        while let Some(newer) = cut(inner, file, epoch, resize.reach, Cut::To(resize.size)).await {
            epoch = Epoch(newer.0 + 1);
        }
    }
    let mut done = Batch::new();
    done.delete(keys::resize(file));
    if let Err(error) = finish(inner, file, (!resize.grows).then_some((epoch, resize.size)), op, done) {
        tracing::error!(%error, "an interrupted change of size could not be finished");
    }
    inner.owed.completed(id);
    drop(holding);
}

fn finish(
    inner: &Inner,
    file: FileId,
    cut: Option<(Epoch, u64)>,
    op: OpId,
    done: Batch,
) -> Result<Ticket, Error> {
    let routes = inner.routes();
    let mut fresh = Fresh::new();
    let ground = Ground { inner, routes: &routes, op: Some(op), held: None };
    let mut attempt = Attempt::new(ground, &[file.home()], &mut fresh, true);
    if let (Some((epoch, size)), Ok(Some(cell))) = (cut, attempt.attr(file)) {
        let ctime_ns = cell.rec.next_ctime(inner.now_ns());
        let new = AttrRec {
            size,
            epoch,
            seq: AttrSeq(cell.rec.seq.0 + 1),
            ctime_ns,
            mtime_ns: ctime_ns,
            ..cell.rec.clone()
        };
        // The record was read and its site is locked: staging it cannot miss anything.
        let _ = attempt.stage(Change::Set(file, Box::new(new)));
    }
    Ok(attempt.commit(None, &[], done)?.ticket)
}
