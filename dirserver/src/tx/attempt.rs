//! One attempt at an operation, under the mutexes of the sites of ours that it touches: decide, carry the changes out on
//! copies, and if nothing was missing, commit: one batch, then the cache.
//!
//! ```text
//!            ┌── records of ours: cache (or store)      Missing ──▶ let go of everything, get it, try again
//! decide ◀── view
//!            └── records of peers: as they were held
//!    │ changes
//!    ▼
//!  stage ──▶ ours: images before and after ──▶ batch ──▶ submit ──▶ cache
//!       └──▶ peers': effects ──▶ journal, in the same batch
//! ```

use super::held::Held;
use super::image::{Image, Names, Staged};
use super::unfinished::{Changed, Due};
use super::{entry, journal};
use crate::decide::effect::{After, apply};
use crate::decide::{self, Caller, Change, Missing, NameKey, Op, Outcome, Reply, View};
use crate::error::Error;
use crate::keys;
use crate::records::{AttrRec, Resize, ResizeKind};
use crate::replies::Running;
use crate::reply::Writer;
use crate::resize::{Holding, Made};
use crate::routes::Routes;
use crate::server::Inner;
use crate::state::SiteState;
use crate::state::cache::{AttrCell, NamesCell};
use crate::state::changes::Slot;
use crate::state::locks::Standing;
use bytes::{Bytes, BytesMut};
use parking_lot::MutexGuard;
use slice_proto::ids::{FileId, ServerId, Site, Xid};
use slice_proto::peer::dir::{Child, Effect, HoldKey, HoldPart, OpId};
use slice_proto::xdr::Put;
use slice_store::{Batch, Ticket};
use std::sync::Arc;

/// File ids taken for an operation: the same ones at every attempt.
pub(crate) type Fresh = Vec<(Site, FileId)>;

/// What an attempt works on.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) routes: &'a Routes,
    /// The operation, if it has a number: what it holds is no obstacle to it.
    pub(crate) op: Option<OpId>,
    /// What an operation with parts at peers holds; `None` if all its records are ours.
    pub(crate) held: Option<&'a Held>,
}

/// One attempt.
pub(crate) struct Attempt<'a> {
    ground: Ground<'a>,
    sites: Vec<(Site, MutexGuard<'a, SiteState>)>,
    fresh: &'a mut Fresh,
    /// Whether what is not in memory may be read from the store under the mutexes: it was loaded before, and has been
    /// evicted since, or is not there at all.
    inline: bool,
    images: Vec<Image>,
    names: Vec<Names>,
    parts: Vec<(ServerId, Vec<Effect>)>,
}

/// A committed (or refused) operation.
pub(crate) struct Committed {
    /// When the reply may go out.
    pub(crate) due: Due,
    /// Effects at peers.
    pub(crate) parts: Vec<(ServerId, Vec<Effect>)>,
    /// Whether anything changed.
    pub(crate) changed: bool,
}

impl<'a> Attempt<'a> {
    /// Locks `sites`, which are ours and in rising order.
    pub(crate) fn new(ground: Ground<'a>, sites: &[Site], fresh: &'a mut Fresh, inline: bool) -> Self {
        let lock = |site: &Site| Some((*site, ground.inner.state.site(*site)?));
        Self {
            ground,
            sites: sites.iter().filter_map(lock).collect(),
            fresh,
            inline,
            images: Vec::with_capacity(4),
            names: Vec::with_capacity(2),
            parts: Vec::new(),
        }
    }

    /// Decides, and carries the changes out on copies.
    pub(crate) fn decide(&mut self, op: &Op<'_>, who: &Caller<'_>) -> Result<Outcome, Missing> {
        let mut outcome = decide::decide(op, who, self)?;
        if outcome.resize.is_some() && !matches!(op, Op::Create { .. }) {
            // Nothing is changed here: the record waits for the data servers.
            return Ok(outcome);
        }
        for change in std::mem::take(&mut outcome.changes) {
            self.stage(change)?;
        }
        Ok(outcome)
    }

    fn guard(&mut self, site: Site) -> Result<&mut SiteState, Missing> {
        self.sites.iter_mut().find(|(s, _)| *s == site).map(|(_, g)| &mut **g).ok_or(Missing::Site(site))
    }

    /// Whether a record of ours may be used: its site is locked, and nobody else holds it.
    fn admit(&mut self, key: HoldKey, share: bool) -> Result<(), Missing> {
        let (op, spans) = (self.ground.op, self.ground.held.is_some());
        match self.guard(key.site)?.locks.standing(&key, op) {
            Standing::Mine => Ok(()),
            // Its records must stay as they are across waits, ours too.
            _ if spans => Err(Missing::Hold(key, share)),
            Standing::Free => Ok(()),
            Standing::Shared if share => Ok(()),
            Standing::Shared | Standing::Others => Err(Missing::Busy(key)),
        }
    }

    /// An attribute record, for changes that commute or for any.
    fn read(&mut self, file: FileId, share: bool) -> Result<Option<Arc<AttrCell>>, Missing> {
        if let Some(image) = self.image(file) {
            return Ok(image.before.clone());
        }
        let key = HoldKey { site: file.home(), file, part: HoldPart::Attr };
        let here = self.ground.routes.home_is_mine(file);
        let state = &self.ground.inner.state;
        let before = if here {
            self.admit(key, share)?;
            match state.cache.attr(file) {
                Some(cell) => Some(cell),
                None if self.inline => state.attr_locked(file).map_err(Missing::Fail)?,
                None => return Err(Missing::Attr(file)),
            }
        } else {
            self.ground.held.and_then(|h| h.attr(&key)).ok_or(Missing::Hold(key, share))?
        };
        self.images.push(Image { file, here, before: before.clone(), after: Staged::Same });
        Ok(before)
    }

    fn names_cell(&mut self, site: Site, dir: FileId, hash47: u64) -> Result<&mut Names, Missing> {
        if let Some(at) = self.names.iter().position(|n| n.dir == dir && n.hash47 == hash47) {
            return self.names.get_mut(at).ok_or(Missing::Site(site));
        }
        let key = HoldKey { site, file: dir, part: HoldPart::Names(hash47) };
        let here = self.ground.routes.mine(site);
        let state = &self.ground.inner.state;
        let before = if here {
            self.admit(key, false)?;
            match state.cache.names((dir, hash47)) {
                Some(cell) => cell,
                None if self.inline => state.names_locked((dir, hash47)).map_err(Missing::Fail)?,
                None => return Err(Missing::Names(site, (dir, hash47))),
            }
        } else {
            self.ground.held.and_then(|h| h.names(&key)).ok_or(Missing::Hold(key, false))?
        };
        self.names.push(Names { site, dir, hash47, here, before, after: None });
        self.names.last_mut().ok_or(Missing::Site(site))
    }

    fn image(&mut self, file: FileId) -> Option<&mut Image> {
        self.images.iter_mut().find(|i| i.file == file)
    }

    /// Adds an effect for the peer that it belongs to.
    fn owe(&mut self, effect: Effect) -> Result<(), Missing> {
        if self.ground.held.is_none() {
            return Err(Missing::Peer);
        }
        let site = journal::place_of(&effect);
        let server = self.ground.routes.owner(site).ok_or(Missing::Fail(Error::NoOwner { site }))?;
        match self.parts.iter_mut().find(|(s, _)| *s == server) {
            Some((_, effects)) => effects.push(effect),
            None => self.parts.push((server, vec![effect])),
        }
        Ok(())
    }

    /// Carries a change out on copies.
    pub(crate) fn stage(&mut self, change: Change) -> Result<(), Missing> {
        match change {
            Change::Make(file, rec) => {
                let here = self.ground.routes.home_is_mine(file);
                if !here {
                    self.owe(Effect::Make { file, record: rec.encode() })?;
                }
                self.images.push(Image { file, here, before: None, after: Staged::New(*rec) });
            }
            Change::Set(file, rec) => {
                if let Some(image) = self.image(file) {
                    image.after = Staged::New(*rec);
                }
            }
            Change::Attr(mut e) => {
                let here = self.ground.routes.home_is_mine(e.file);
                let key = HoldKey { site: e.file.home(), file: e.file, part: HoldPart::Attr };
                if here || self.ground.held.is_some_and(|h| h.has(&key)) {
                    self.read(e.file, !e.remove && e.parent.is_none())?;
                }
                if let Some(image) = self.image(e.file) {
                    if !here {
                        e.base_ns = image.before.as_ref().map_or(0, |c| c.rec.ctime_ns);
                    }
                    let applied = image.now().map(|rec| apply(rec, &e));
                    match applied {
                        Some(After::Stays(rec)) => image.after = Staged::New(rec),
                        Some(After::Goes(purge)) => image.after = Staged::Goes(purge),
                        // Void: the file is gone.
                        None => {}
                    }
                }
                if !here {
                    self.owe(Effect::Attr(e))?;
                }
            }
            Change::Name(n) => {
                if !self.ground.routes.mine(n.site) {
                    return self.owe(Effect::Name(n));
                }
                let names = self.names_cell(n.site, n.dir, n.hash)?;
                let now = names.after.as_ref().unwrap_or(&names.before.bucket);
                if now.find(&n.name).map(|c| c.file) == n.from {
                    let full = Missing::Fail(Error::FullBucket { dir: n.dir });
                    names.after = Some(now.with(n.hash, &n.name, n.to).ok_or(full)?);
                }
            }
        }
        Ok(())
    }

    /// Whether a file is made by this attempt.
    pub(crate) fn is_new(&self, file: FileId) -> bool {
        self.images.iter().any(|i| i.file == file && i.before.is_none())
    }

    /// A regular file that this attempt makes with a size: held and veiled from before it is seen, with its T record in `batch`.
    pub(crate) fn made(
        &mut self,
        inner: &Arc<Inner>,
        file: FileId,
        batch: &mut Batch,
    ) -> Result<Made, Missing> {
        let Some((epoch, size, reach)) = self.after(file).map(|rec| (rec.epoch, rec.size, rec.reach)) else {
            return Err(Missing::Attr(file));
        };
        let resize = Resize { kind: ResizeKind::Grow, epoch, size, reach, call: Bytes::new() };
        batch.put(keys::resize(file), resize.encode());
        let holding = Holding::of_new(inner, self.guard(file.home())?, file);
        Ok(Made { holding, epoch, size })
    }

    /// When everything that was read is durable.
    pub(crate) fn shown(&self) -> Ticket {
        let attrs = self.images.iter().filter_map(|i| i.before.as_ref()).map(|c| c.ticket);
        let names = self.names.iter().map(|n| n.before.ticket);
        // What is gone has no ticket any more; its removal is among all that was submitted.
        let gone = self.images.iter().any(|i| i.here && i.before.is_none() && i.now().is_none());
        let gone = gone.then(|| self.ground.inner.state.read_ticket());
        attrs.chain(names).chain(gone).max().unwrap_or_default()
    }

    /// Writes the reply.
    pub(crate) fn reply(
        &self,
        out: &Outcome,
        w: &mut BytesMut,
        xid: Xid,
        volume: slice_proto::ids::VolumeId,
    ) {
        let Ground { inner, routes, .. } = self.ground;
        let mut wr = Writer::new(w, xid, out.status.0, inner.fsid(volume));
        match out.reply {
            Reply::Wcc(file) => self.wcc(&mut wr, file),
            Reply::Two { from, to } => {
                self.wcc(&mut wr, from);
                self.wcc(&mut wr, to);
            }
            Reply::Link { file, dir } => {
                wr.attr(file, self.after(file));
                self.wcc(&mut wr, dir);
            }
            Reply::Made { object, dir } => {
                wr.w.put_bool(true);
                wr.w.put_opaque(&routes.keys.seal(&object));
                wr.attr(object.file, self.after(object.file));
                self.wcc(&mut wr, dir);
            }
        }
        wr.finish(routes.epoch(), inner.now_ns());
    }

    fn wcc(&self, wr: &mut Writer<'_>, file: FileId) {
        let before = self.images.iter().find(|i| i.file == file).and_then(|i| i.before.as_ref());
        wr.wcc(file, before.map(|c| &c.rec), self.after(file));
    }

    fn after(&self, file: FileId) -> Option<&AttrRec> {
        self.images.iter().find(|i| i.file == file).and_then(Image::now)
    }

    /// Submits everything as one batch, `extra` included, and shows it to readers.
    ///
    /// # Errors
    /// The store's; nothing has changed then.
    pub(crate) fn commit(
        mut self,
        running: Option<(&Running, Site)>,
        reply: &[u8],
        extra: Batch,
    ) -> Result<Committed, Error> {
        let changes = |i: &Image| i.here && !matches!(i.after, Staged::Same);
        let changed = self.images.iter().any(changes)
            || self.names.iter().any(|n| n.after.is_some())
            || !self.parts.is_empty()
            || !extra.is_empty();
        // What succeeds without a change is remembered all the same: sent again when names have changed it must not do anything.
        if !changed && running.is_none() {
            let due = Due { ticket: self.shown(), after: self.unfinished() };
            return Ok(Committed { due, parts: Vec::new(), changed });
        }
        let mut batch = extra;
        for image in self.images.iter().filter(|i| i.here) {
            match &image.after {
                Staged::Same => {}
                Staged::New(rec) => {
                    batch.put(keys::attr(image.file), rec.encode());
                }
                Staged::Goes(purge) => {
                    batch.delete(keys::attr(image.file));
                    if let Some(purge) = purge {
                        batch.put(keys::purge(image.file), purge.encode());
                    }
                }
            }
        }
        for names in self.names.iter().filter(|n| n.here) {
            if let Some(after) = &names.after {
                let key = keys::entry(names.dir, names.hash47);
                match after.stored() {
                    Some(bytes) => batch.put(key, bytes),
                    None => batch.delete(key),
                };
            }
        }
        let (after, shows) = (self.unfinished(), self.changed());
        let journal = &self.ground.inner.journal;
        journal.unfinished.shown_by(&after, &shows);
        let op = self.ground.op.filter(|_| !self.parts.is_empty());
        if let Some(op) = op {
            batch.put(keys::journal(op.seq), entry::encode(&self.parts, &shows));
            journal.unfinished.begin(op.seq, shows);
        }
        let place = running.map(|(r, site)| (r, r.record(&mut batch, site, op.map_or(0, |o| o.seq), reply)));
        // What is made of these records is made again: from before anybody can see them until all can.
        let _changing = self.ground.inner.state.changes.begin(self.changing());
        let submitted = self.ground.inner.state.store.submit(batch);
        let ticket =
            submitted.inspect_err(|_| op.into_iter().for_each(|op| journal.unfinished.end(op.seq)))?;
        if let Some((running, place)) = place {
            running.committed(place, ticket);
        }
        self.show(ticket);
        Ok(Committed { due: Due { ticket, after }, parts: std::mem::take(&mut self.parts), changed })
    }

    /// Whatever of this server's is about to change.
    fn changed(&self) -> Vec<Changed> {
        let attrs = self.images.iter().filter(|i| i.here && !matches!(i.after, Staged::Same));
        let names = self.names.iter().filter(|n| n.here && n.after.is_some());
        attrs.map(Image::record).chain(names.map(Names::record)).collect()
    }

    /// The same, for what is made of many records.
    fn changing(&self) -> Vec<Slot> {
        let slot = |c: Changed| match c.names {
            Some(_) => Slot::names(c.file),
            None => Slot::attr(c.file),
        };
        self.changed().into_iter().map(slot).collect()
    }

    /// Operations that have changed what was read here, and do not show at all peers yet.
    pub(crate) fn unfinished(&self) -> Vec<u64> {
        let unfinished = &self.ground.inner.journal.unfinished;
        let mut after = Vec::new();
        if !unfinished.is_empty() {
            self.images.iter().filter(|i| i.here).for_each(|i| unfinished.of(i.record(), &mut after));
            self.names.iter().filter(|n| n.here).for_each(|n| unfinished.of(n.record(), &mut after));
        }
        after
    }

    /// Puts what was submitted into the cache. Readers take no mutex and read a directory's record before its names, and
    /// a name before whom it stands for; so here it goes the other way round.
    fn show(&mut self, ticket: Ticket) {
        let inner = self.ground.inner;
        let cache = &inner.state.cache;
        let mut touched: Vec<Site> = Vec::with_capacity(4);
        let images = std::mem::take(&mut self.images);
        let (made, rest): (Vec<_>, Vec<_>) =
            images.into_iter().filter(|i| i.here).partition(|i| i.before.is_none());
        let mut show = |image: Image| {
            let cell = match image.after {
                Staged::Same => return,
                Staged::New(rec) => Some(Arc::new(AttrCell { rec, ticket })),
                Staged::Goes(purge) => {
                    if let Some(purge) = purge {
                        inner.owed.purge(image.file, purge, ticket);
                    }
                    None
                }
            };
            cache.put_attr(image.file, cell);
            touched.push(image.file.home());
        };
        made.into_iter().for_each(&mut show);
        for names in self.names.drain(..).filter(|n| n.here) {
            if let Some(bucket) = names.after {
                cache.put_names((names.dir, names.hash47), Arc::new(NamesCell { bucket, ticket }));
                if let Some((_, guard)) = self.sites.iter_mut().find(|(s, _)| *s == names.site) {
                    guard.version += 1;
                }
            }
        }
        rest.into_iter().for_each(&mut show);
        for (site, guard) in &mut self.sites {
            if touched.contains(site) {
                guard.version += 1;
            }
        }
    }
}

// === impl View ===

impl View for Attempt<'_> {
    fn attr(&mut self, file: FileId) -> Result<Option<Arc<AttrCell>>, Missing> {
        self.read(file, false)
    }

    fn dir(&mut self, dir: FileId) -> Result<Option<Arc<AttrCell>>, Missing> {
        self.read(dir, true)
    }

    fn peek(&mut self, file: FileId) -> Result<Option<Arc<AttrCell>>, Missing> {
        if self.ground.routes.home_is_mine(file) {
            return self.ground.inner.state.peek(file).map_err(Missing::Fail);
        }
        self.ground.held.and_then(|h| h.peek(file)).ok_or(Missing::Peek(file))
    }

    fn child(&mut self, key: NameKey<'_>) -> Result<Option<Child>, Missing> {
        Ok(self.names_cell(key.site, key.dir, key.hash47)?.before.bucket.find(key.name))
    }

    fn fresh(&mut self, site: Site) -> Result<FileId, Missing> {
        if let Some((_, file)) = self.fresh.iter().find(|(s, _)| *s == site) {
            return Ok(*file);
        }
        if !self.ground.routes.mine(site) {
            return Err(Missing::New(site));
        }
        let state = &self.ground.inner.state;
        let file = state.fresh(site, self.guard(site)?).map_err(Missing::Fail)?;
        self.fresh.push((site, file));
        Ok(file)
    }

    fn right(&mut self, root: FileId) -> Result<(), Missing> {
        let key = HoldKey { site: root.home(), file: root, part: HoldPart::Right };
        if self.ground.routes.home_is_mine(root) {
            return self.admit(key, false);
        }
        if self.ground.held.is_some_and(|h| h.has(&key)) { Ok(()) } else { Err(Missing::Hold(key, false)) }
    }
}
