//! GETATTR, LOOKUP, ACCESS, READLINK: answered from the cache without a mutex and without an allocation.
//!
//! A reader reads a directory's record before its names, and a name before whom it stands for; writers publish the other
//! way round. So what a reply says of a name is at least as new as the directory's attributes beside it: a client
//! that caches "not there" under those attributes will ask again. A reply that shows what an operation under way has changed
//! here waits until peers show it, too (`tx::unfinished`).

use crate::call::{Bad, Head, open};
use crate::decide::{At, access, names, perm};
use crate::owed::attr_key;
use crate::records::AttrRec;
use crate::reply::{self, Writer};
use crate::routes::Routes;
use crate::server::{Admission, Inner};
use crate::state::cache::AttrCell;
use crate::state::locks::Turn;
use crate::state::status_of;
use crate::tx::unfinished::{Changed, Due};
use bytes::{BufMut, BytesMut};
use slice_proto::handle::Handle;
use slice_proto::ids::Site;
use slice_proto::nfs3::{AccessArgs, FType3, GetattrArgs, LookupArgs, NfsStat3, Proc3, ReadlinkArgs};
use slice_proto::peer::dir::{Child, HoldKey, HoldPart};
use slice_proto::table::Volume;
use slice_proto::xdr::{Decode, Put, Reader};
use slice_store::Ticket;
use std::sync::Arc;

/// How far a read came.
pub(crate) enum Read {
    /// The reply is written.
    Done(Due),
    /// A record is about to change hands: read again after this.
    Held(Turn),
    /// The caller knows a newer table: read again with it.
    Table,
}

/// Why there is no reply yet, or an early one.
enum Stop {
    Status(NfsStat3),
    Bad(Bad),
    Read(Read),
}

impl From<NfsStat3> for Stop {
    fn from(status: NfsStat3) -> Self {
        Self::Status(status)
    }
}

impl From<Bad> for Stop {
    fn from(bad: Bad) -> Self {
        Self::Bad(bad)
    }
}

impl From<slice_proto::xdr::XdrError> for Stop {
    fn from(_: slice_proto::xdr::XdrError) -> Self {
        Self::Bad(Bad::Garbage)
    }
}

/// One read.
struct Reading<'a> {
    inner: &'a Inner,
    routes: &'a Routes,
    head: &'a Head,
    /// When everything read so far may be shown.
    due: Due,
}

/// Handles a call of one of the four.
pub(crate) fn read(inner: &Inner, head: &Head, args: &[u8], out: &mut BytesMut) -> Result<Read, Bad> {
    let routes = inner.routes();
    let mut r = Reading { inner, routes: &routes, head, due: Due::default() };
    let done = match head.proc {
        Proc3::Getattr => r.getattr(args, out),
        Proc3::Lookup => r.lookup(args, out),
        Proc3::Access => r.access(args, out),
        _ => r.readlink(args, out),
    };
    let status = match done {
        Ok(()) => return Ok(Read::Done(r.due)),
        Err(Stop::Read(read)) => return Ok(read),
        Err(Stop::Bad(Bad::Garbage)) => return Err(Bad::Garbage),
        Err(Stop::Status(status) | Stop::Bad(Bad::Status(status))) => status,
    };
    out.clear();
    reply::bare(out, head.xid, head.proc, status, routes.epoch(), inner.now_ns());
    Ok(Read::Done(r.due))
}

impl<'a> Reading<'a> {
    /// Whether the call is ours to answer. A refusal is written.
    fn admit(&self, site: Site, out: &mut BytesMut) -> Result<(), Stop> {
        match self.inner.admit(self.routes, self.head.trailer.table, site) {
            Admission::Yes => Ok(()),
            Admission::Wait => Err(Stop::Read(Read::Table)),
            Admission::No(status) => {
                let (epoch, now) = (self.routes.epoch(), self.inner.now_ns());
                reply::private(out, self.head.xid, status, epoch, now);
                Err(Stop::Read(Read::Done(Due::default())))
            }
        }
    }

    /// A record whose home is here.
    fn attr(&mut self, file: slice_proto::ids::FileId) -> Result<Option<Arc<AttrCell>>, Stop> {
        if let Some(turn) = self.inner.state.veiled(&attr_key(file)) {
            return Err(Stop::Read(Read::Held(turn)));
        }
        let cell = self.inner.state.attr(file).map_err(|e| status_of(&e))?;
        // What is gone has no ticket any more; its removal is among all that was submitted.
        let shown = cell.as_ref().map_or_else(|| self.inner.state.read_ticket(), |cell| cell.ticket);
        self.shows(shown, Changed { file, names: None });
        Ok(cell)
    }

    /// The reply shows a record, which is durable with `ticket`. It was read before this is said.
    fn shows(&mut self, ticket: Ticket, record: Changed) {
        self.due.ticket = self.due.ticket.max(ticket);
        self.inner.journal.unfinished.of(record, &mut self.due.after);
    }

    fn begin<'w>(&self, out: &'w mut BytesMut, status: NfsStat3, h: &Handle) -> Writer<'w> {
        Writer::new(out, self.head.xid, status.0, self.inner.fsid(h.volume))
    }

    fn finish(&self, w: Writer<'_>) {
        w.finish(self.routes.epoch(), self.inner.now_ns());
    }

    fn object(&mut self, fh: &[u8], out: &mut BytesMut) -> Result<(Handle, Arc<AttrCell>), Stop> {
        let h = open(&self.routes.keys, fh)?;
        self.admit(h.file.home(), out)?;
        let cell = self.attr(h.file)?.ok_or(NfsStat3::STALE)?;
        Ok((h, cell))
    }

    /// GETATTR (RFC 1813 section 3.3.1).
    fn getattr(&mut self, args: &[u8], out: &mut BytesMut) -> Result<(), Stop> {
        let a = GetattrArgs::decode(&mut Reader::new(args))?;
        let (h, cell) = self.object(a.object, out)?;
        let mut w = self.begin(out, NfsStat3::OK, &h);
        w.fattr(h.file, &cell.rec);
        self.finish(w);
        Ok(())
    }

    /// ACCESS (section 3.3.4).
    fn access(&mut self, args: &[u8], out: &mut BytesMut) -> Result<(), Stop> {
        let a = AccessArgs::decode(&mut Reader::new(args))?;
        let (h, cell) = self.object(a.object, out)?;
        let mut w = self.begin(out, NfsStat3::OK, &h);
        w.attr(h.file, Some(&cell.rec));
        w.w.put_u32(access::granted(&self.head.cred, &cell.rec, a.access));
        self.finish(w);
        Ok(())
    }

    /// READLINK (section 3.3.5).
    fn readlink(&mut self, args: &[u8], out: &mut BytesMut) -> Result<(), Stop> {
        let a = ReadlinkArgs::decode(&mut Reader::new(args))?;
        let (h, cell) = self.object(a.symlink, out)?;
        let link = cell.rec.ftype == FType3::Lnk;
        let mut w = self.begin(out, if link { NfsStat3::OK } else { NfsStat3::INVAL }, &h);
        w.attr(h.file, Some(&cell.rec));
        if link {
            w.w.put_opaque(&cell.rec.target);
        }
        self.finish(w);
        Ok(())
    }

    /// LOOKUP (section 3.3.3).
    fn lookup(&mut self, args: &[u8], out: &mut BytesMut) -> Result<(), Stop> {
        let a = LookupArgs::decode(&mut Reader::new(args))?;
        let h = open(&self.routes.keys, a.what.dir)?;
        if self.head.trailer.table > self.routes.epoch() {
            return Err(Stop::Read(Read::Table));
        }
        let routes = self.routes;
        let volume = routes.volume(h.volume).ok_or(NfsStat3::STALE)?;
        let at = At { dir: h, name: a.what.name };
        let dots = names::dots(at.name);
        let site =
            if dots { h.file.home() } else { slice_proto::placement::entry_site(volume, h.file, at.name) };
        self.admit(site, out)?;
        // Where the directory is another server's, the µproxy has checked it (DESIGN §8).
        let dir =
            if routes.home_is_mine(h.file) { Some(self.attr(h.file)?.ok_or(NfsStat3::STALE)?) } else { None };
        let rec = dir.as_ref().map(|c| &c.rec);
        match self.find(&at, site, volume, rec) {
            Ok(child) => self.found(&h, child, rec, out),
            Err(Stop::Status(status)) => {
                let mut w = self.begin(out, status, &h);
                w.attr(h.file, rec);
                self.finish(w);
                Ok(())
            }
            Err(stop) => Err(stop),
        }
    }

    fn find(
        &mut self,
        at: &At<'_>,
        site: Site,
        volume: &Volume,
        dir: Option<&AttrRec>,
    ) -> Result<Child, Stop> {
        if let Some(dir) = dir {
            if !dir.is_dir() {
                return Err(NfsStat3::NOTDIR.into());
            }
            names::check(at.name)?;
            perm::need(&self.head.cred, dir, perm::X)?;
        }
        names::check(at.name)?;
        let parent = |file| Child { file, ftype: FType3::Dir as u32, policy: at.dir.policy };
        match (at.name, dir) {
            (b".", _) => return Ok(parent(at.dir.file)),
            (b"..", Some(dir)) => return Ok(parent(dir.parent)),
            _ => {}
        }
        let key = at.key(volume);
        let held = HoldKey { site, file: key.dir, part: HoldPart::Names(key.hash47) };
        if let Some(turn) = self.inner.state.veiled(&held) {
            return Err(Stop::Read(Read::Held(turn)));
        }
        let cell = self.inner.state.names(site, (key.dir, key.hash47)).map_err(|e| status_of(&e))?;
        self.shows(cell.ticket, Changed { file: key.dir, names: Some(key.hash47) });
        cell.bucket.find(at.name).ok_or_else(|| NfsStat3::NOENT.into())
    }

    fn found(
        &mut self,
        dir: &Handle,
        child: Child,
        dir_rec: Option<&AttrRec>,
        out: &mut BytesMut,
    ) -> Result<(), Stop> {
        // A record that went between the name's reading and its own is as good as one elsewhere: none is shown.
        let cell = if self.routes.home_is_mine(child.file) { self.attr(child.file)? } else { None };
        let object = handle_of(dir, &child);
        let mut w = self.begin(out, NfsStat3::OK, dir);
        w.w.put_opaque(&self.routes.keys.seal(&object));
        w.attr(child.file, cell.as_ref().map(|c| &c.rec));
        w.attr(dir.file, dir_rec);
        self.finish(w);
        Ok(())
    }
}

/// The handle of a child in a directory.
pub(crate) const fn handle_of(dir: &Handle, child: &Child) -> Handle {
    // ftype3 is below 8.
    Handle {
        ftype: child.ftype as u8,
        volume: dir.volume,
        policy: child.policy,
        file: child.file,
        snapshot: 0,
    }
}
