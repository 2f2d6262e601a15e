//! READDIR and READDIRPLUS (RFC 1813 sections 3.3.16, 3.3.17; docs/wire.md).
//!
//! One range scan over the directory's names that are here, in cookie order; the cookie is the key, so that going on is a
//! seek, and no entry that is there throughout is skipped or repeated (I2). A page is kept, and sent again as long as it is
//! what would be made anew (`state::pages`).

use crate::bucket::Bucket;
use crate::call::{Bad, Head, open};
use crate::decide::perm;
use crate::keys;
use crate::owed::attr_key;
use crate::read::{Read, handle_of};
use crate::records::AttrRec;
use crate::reply::{self, Writer};
use crate::routes::Routes;
use crate::server::{Admission, Inner};
use crate::state::changes::{Seen, Slot};
use crate::state::pages::{Page as KeptPage, PageKey};
use crate::state::status_of;
use crate::tx::unfinished::{Changed, Due};
use bytes::{BufMut, Bytes, BytesMut};
use slice_proto::handle::{HANDLE_LEN, Handle};
use slice_proto::ids::FileId;
use slice_proto::nfs3::readdir::{END_LEN, encode_end};
use slice_proto::nfs3::{Entry, EntryPlus, Fattr3, NfsStat3, Proc3, ReaddirArgs, ReaddirplusArgs};
use slice_proto::peer::dir::Child;
use slice_proto::placement::FIRST_ENTRY_COOKIE;
use slice_proto::table::NamePolicy;
use slice_proto::xdr::{Decode, Encode, Put, Reader};
use slice_store::{Direction, KeyRange, Ticket};
use std::ops::Bound;

/// Most bytes of one result, whatever the client asks for: what FSINFO offers as dtpref and rtmax.
const MAX_RESULT: u32 = 1 << 20;
/// Cookies of `.` and `..`.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

/// Either call.
struct Asked {
    dir: Handle,
    cookie: u64,
    /// Most bytes of fileids, names and cookies.
    dircount: usize,
    /// Most bytes of the result.
    maxcount: usize,
    plus: bool,
}

/// Writes entries until one does not fit.
struct Page<'a> {
    inner: &'a Inner,
    routes: &'a Routes,
    asked: &'a Asked,
    w: Writer<'a>,
    /// Bytes left.
    room: usize,
    dir_room: usize,
    entries: usize,
    due: Due,
    /// Everything that was looked at; nothing if some of it was being changed, and the page is not kept.
    seen: Option<Vec<Seen>>,
}

/// Handles either call.
pub(crate) fn readdir(inner: &Inner, head: &Head, args: &[u8], out: &mut BytesMut) -> Result<Read, Bad> {
    let routes = inner.routes();
    let (epoch, now) = (routes.epoch(), inner.now_ns());
    if head.trailer.table > epoch {
        return Ok(Read::Table);
    }
    let refuse = |status: NfsStat3, rec: Option<(FileId, &AttrRec)>, out: &mut BytesMut| {
        let mut w = Writer::new(out, head.xid, status.0, inner.fsid(slice_proto::ids::VolumeId(0)));
        w.attr(rec.map_or(FileId(0), |r| r.0), rec.map(|r| r.1));
        w.finish(epoch, now);
        Ok(Read::Done(Due::default()))
    };
    let asked = match decode(&routes, head.proc, args) {
        Ok(asked) => asked,
        Err(Bad::Garbage) => return Err(Bad::Garbage),
        Err(Bad::Status(status)) => return refuse(status, None, out),
    };
    let dir = asked.dir;
    let Some(volume) = routes.volume(dir.volume) else { return refuse(NfsStat3::STALE, None, out) };
    let home = routes.home_is_mine(dir.file);
    let everywhere = volume.policy == NamePolicy::Hash;
    if home || !everywhere {
        match inner.admit(&routes, head.trailer.table, dir.file.home()) {
            Admission::Yes => {}
            Admission::Wait => return Ok(Read::Table),
            Admission::No(status) => {
                reply::private(out, head.xid, status, epoch, now);
                return Ok(Read::Done(Due::default()));
            }
        }
    }
    let unfinished = &inner.journal.unfinished;
    let mut due = Due::default();
    let cell = if home {
        if let Some(turn) = inner.state.veiled(&attr_key(dir.file)) {
            return Ok(Read::Held(turn));
        }
        let found = inner.state.attr(dir.file);
        unfinished.of(Changed { file: dir.file, names: None }, &mut due.after);
        match found {
            Ok(Some(cell)) => Some(cell),
            Ok(None) => {
                // Its removal is among all that was submitted.
                due.ticket = inner.state.read_ticket();
                return refuse(NfsStat3::STALE, None, out).map(|_| Read::Done(due));
            }
            Err(error) => return refuse(status_of(&error), None, out),
        }
    } else {
        None
    };
    let rec = cell.as_ref().map(|c| &c.rec);
    if let Some(cell) = &cell {
        // Every change of a name that is here came with one of this record, in the same batch; readers read it first.
        due.ticket = cell.ticket;
        let shown = Some((dir.file, &cell.rec));
        if !cell.rec.is_dir() {
            return refuse(NfsStat3::NOTDIR, shown, out).map(|_| Read::Done(due));
        }
        if !perm::may(&head.cred, &cell.rec, perm::R) {
            return refuse(NfsStat3::ACCES, shown, out).map(|_| Read::Done(due));
        }
    }
    // What an operation that survived a restart has done to a name is not written yet.
    if let Some(turn) = inner.state.veiled_names(dir.file, asked.first_hash()) {
        return Ok(Read::Held(turn));
    }
    let mut w = Writer::new(out, head.xid, NfsStat3::OK.0, inner.fsid(dir.volume));
    w.attr(dir.file, rec);
    // The cookie verifier: cookies mean the same for ever.
    w.w.put_u64(0);
    let key = asked.key();
    let parent = rec.map(|rec| rec.parent);
    if let Some(page) = inner.state.pages.get(&key, epoch, parent, &inner.state.changes) {
        w.again(&page.entries, &page.stamps);
        encode_end(w.w, page.eof);
        w.finish(epoch, now);
        due.ticket = due.ticket.max(page.ticket);
        unfinished.of_names(dir.file, asked.first_hash(), &mut due.after);
        return Ok(Read::Done(due));
    }
    let (begin, stamped) = (w.w.len(), w.stamped());
    let fixed = 4 + rec.map_or(0, |_| Fattr3::ENCODED_LEN) + 8 + END_LEN;
    let mut page = Page {
        inner,
        routes: &routes,
        asked: &asked,
        w,
        room: asked.maxcount.saturating_sub(fixed),
        dir_room: asked.dircount,
        entries: 0,
        due,
        seen: Some(Vec::new()),
    };
    page.look(Slot::names(dir.file));
    let names = inner.state.changes.look(Slot::names(dir.file));
    let eof = match page.fill(rec) {
        Ok(eof) => eof,
        Err(error) => {
            out.clear();
            return refuse(status_of(&error), None, out);
        }
    };
    if page.entries == 0 && (!eof || fixed > asked.maxcount) {
        let due = page.due;
        out.clear();
        return refuse(NfsStat3::TOOSMALL, rec.map(|r| (dir.file, r)), out).map(|_| Read::Done(due));
    }
    let Page { w, mut due, seen, .. } = page;
    // The directory's record tells when its names are durable, unless they changed while they were read, or it is not here.
    let told = match names.filter(|_| home) {
        Some(seen) if inner.state.changes.still(&seen) => inner.state.attr(dir.file).ok().flatten(),
        _ => None,
    };
    due.ticket = due.ticket.max(told.map_or_else(|| inner.state.read_ticket(), |cell| cell.ticket));
    let ticket = due.ticket;
    unfinished.of_names(dir.file, asked.first_hash(), &mut due.after);
    if let Some(seen) = seen {
        let entries = Bytes::copy_from_slice(w.w.get(begin..).unwrap_or_default());
        let stamps = w.stamps_from(stamped);
        let kept = KeptPage { table: epoch, parent, seen, ticket, entries, stamps, eof };
        inner.state.pages.put(key, kept);
    }
    encode_end(w.w, eof);
    w.finish(epoch, now);
    Ok(Read::Done(due))
}

fn decode(routes: &Routes, proc: Proc3, args: &[u8]) -> Result<Asked, Bad> {
    let r = &mut Reader::new(args);
    let bytes = |count: u32| count.min(MAX_RESULT) as usize;
    if proc == Proc3::Readdirplus {
        let a = ReaddirplusArgs::decode(r)?;
        return Ok(Asked {
            dir: open(&routes.keys, a.dir)?,
            cookie: a.cookie,
            dircount: bytes(a.dircount),
            maxcount: bytes(a.maxcount),
            plus: true,
        });
    }
    let a = ReaddirArgs::decode(r)?;
    let dir = open(&routes.keys, a.dir)?;
    Ok(Asked { dir, cookie: a.cookie, dircount: usize::MAX, maxcount: bytes(a.count), plus: false })
}

// === impl Asked ===

impl Asked {
    /// The first hash whose names are asked for.
    fn first_hash(&self) -> u64 {
        if self.cookie >= FIRST_ENTRY_COOKIE { keys::hash47_of_cookie(self.cookie) } else { 0 }
    }

    fn key(&self) -> PageKey {
        let &Self { dir, cookie, dircount, maxcount, plus } = self;
        PageKey { dir, cookie, dircount, maxcount, plus }
    }
}

// === impl Page ===

impl Page<'_> {
    /// Notes a record before it is read.
    fn look(&mut self, slot: Slot) {
        let seen = self.inner.state.changes.look(slot);
        match (&mut self.seen, seen) {
            (Some(all), Some(seen)) => all.push(seen),
            _ => self.seen = None,
        }
    }

    /// Writes entries; whether they were the last.
    fn fill(&mut self, dir: Option<&AttrRec>) -> crate::error::Result<bool> {
        let at = self.asked.cookie;
        if let Some(dir) = dir {
            let here = self.asked.dir;
            let itself = |file| Child { file, ftype: u32::from(here.ftype), policy: here.policy };
            if at < DOT && !self.entry(b".", DOT, &itself(here.file))? {
                return Ok(false);
            }
            if at < DOT_DOT && !self.entry(b"..", DOT_DOT, &itself(dir.parent))? {
                return Ok(false);
            }
        }
        let dir = self.asked.dir.file;
        let prefix = keys::entries_of(dir);
        let mut range = KeyRange::prefix(prefix);
        if at >= FIRST_ENTRY_COOKIE {
            let first = keys::entry(dir, self.asked.first_hash());
            range.start = Bound::Included(Bytes::copy_from_slice(&first));
        }
        for pair in self.inner.state.store.iter(range, Direction::Forward) {
            let (key, value) = pair?;
            let Some((_, hash47)) = keys::parse_entry(&key) else { continue };
            let bucket = Bucket::decode(&key, value)?;
            for e in bucket.iter() {
                let cookie = (hash47 << 16) | u64::from(e.tie);
                if cookie > at && !self.entry(e.name, cookie, &e.child)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Writes an entry; false if it does not fit.
    fn entry(&mut self, name: &[u8], cookie: u64, child: &Child) -> crate::error::Result<bool> {
        let entry = Entry { fileid: child.file, name, cookie };
        let dir_len = entry.dircount_len();
        if !self.asked.plus {
            let len = entry.encoded_len();
            if len > self.room {
                return Ok(false);
            }
            self.room -= len;
            self.w.w.put_bool(true);
            entry.encode(self.w.w);
            self.entries += 1;
            return Ok(true);
        }
        // A first entry is given though dircount be smaller: it is what the client prefers, maxcount what it can take.
        if dir_len > self.dir_room && self.entries > 0 {
            return Ok(false);
        }
        let mut here = self.routes.home_is_mine(child.file);
        if here && self.inner.state.is_veiled(&attr_key(child.file)) {
            // Being made or resized: who wants to know asks for it, and waits.
            (here, self.seen) = (false, None);
        }
        if here {
            self.look(Slot::attr(child.file));
        }
        let cell = if here { self.inner.state.attr(child.file)? } else { None };
        let before = self.due.after.len();
        if here {
            self.inner.journal.unfinished.of(Changed { file: child.file, names: None }, &mut self.due.after);
        }
        if self.due.after.len() != before {
            // Who is sent this page again would have to wait, too.
            self.seen = None;
        }
        // What the entry will take is known without writing it.
        let attr = cell.as_ref().map_or(0, |_| Fattr3::ENCODED_LEN);
        let len = EntryPlus { entry, attr: None, handle: None }.encoded_len() + attr + 4 + HANDLE_LEN;
        if len > self.room {
            return Ok(false);
        }
        self.room -= len;
        self.dir_room = self.dir_room.saturating_sub(dir_len);
        self.w.w.put_bool(true);
        entry.encode(self.w.w);
        self.w.attr(child.file, cell.as_ref().map(|c| &c.rec));
        self.w.w.put_bool(true);
        let handle = handle_of(&self.asked.dir, child);
        self.w.w.put_opaque(&self.routes.keys.seal(&handle));
        self.due.ticket = self.due.ticket.max(cell.map_or(Ticket::default(), |c| c.ticket));
        self.entries += 1;
        Ok(true)
    }
}
