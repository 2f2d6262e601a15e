//! All segments: which is written to, which are empty, how much room there is.

use super::clean::{WORTH_PERCENT, WORTH_PERCENT_SHORT};
use super::frame::FRAME_MAX;
use super::segment::{FIRST, Segment, id_of, name, sync_dir};
use crate::core::Extent;
use crate::error::{Error, Result};
use parking_lot::{Mutex, RwLock};
use slice_proto::ids::{FileId, ServerId};
use slice_proto::secret::Identity;
use slice_system::{Directory, Files, Open};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of the file system that WRITEs leave free: the map must be able to grow when the disk is full, for removing and
/// truncating, and the cleaner to copy.
pub(crate) const RESERVE_BYTES: u64 = 64 << 20;
/// Empty segments that are kept for the next writes; more go back to the file system.
const SPARES: usize = 2;
/// A segment's end that is too short for a frame is worth opening again only if it is at least this part of a segment.
const REOPEN_SHARE: u32 = 8;
const STAMP: &str = "STAMP";

/// All segments.
#[derive(Debug)]
pub(crate) struct Segments {
    files: Arc<dyn Files>,
    dir: PathBuf,
    server: ServerId,
    segment_bytes: u32,
    /// By number.
    slots: RwLock<Vec<Option<Arc<Segment>>>>,
    rooms: Mutex<Rooms>,
    /// Bytes that can certainly be written to the segments that there are.
    usable: AtomicU64,
    disk: Arc<dyn Directory>,
    /// A segment was filled.
    filled: AtomicBool,
    #[cfg(test)]
    pub(crate) faults: Faults,
}

/// What a test has go wrong.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub full: AtomicBool,
    pub fsync: AtomicBool,
    /// Reads without patience find nothing cached, this many times.
    pub not_cached: AtomicU64,
}

#[derive(Debug, Default)]
struct Rooms {
    /// The segment that is written to, and where.
    open: Option<(Arc<Segment>, u32)>,
    /// Empty segments.
    spares: Vec<Arc<Segment>>,
}

#[cfg(test)]
impl Faults {
    pub(crate) fn misses(&self) -> bool {
        self.not_cached.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
    }
}

/// A file system's size.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    /// Bytes.
    pub total: u64,
    /// Bytes free, the reserve taken off.
    pub free: u64,
}

/// Counts what the map points to, before the segments are used.
#[derive(Debug)]
pub(crate) struct Census {
    segments: Segments,
    /// End of the last extent, by segment.
    ends: Vec<u32>,
}

fn stamp_text(identity: &Identity, server: ServerId) -> String {
    format!("slice small-file segments, version 1\nensemble {:016x}\nserver {server}\n", identity.ensemble.0)
}

// === impl Census ===

impl Census {
    /// Opens `DIR/segments`, if it is the server's.
    pub(crate) fn open(
        files: Arc<dyn Files>,
        data: &Path,
        identity: &Identity,
        server: ServerId,
        segment_bytes: u32,
    ) -> Result<Self> {
        let dir = data.join("segments");
        match files.read(&dir.join(STAMP)) {
            Ok(found) if found == stamp_text(identity, server).as_bytes() => {}
            Ok(_) => return Err(Error::NotOurSegments { path: dir, server }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NotOurSegments { path: dir, server });
            }
            Err(e) => return Err(Error::io("read", dir.join(STAMP))(e)),
        }
        let mut slots: Vec<Option<Arc<Segment>>> = Vec::new();
        for name in files.names(&dir).map_err(Error::io("list", &dir))? {
            let path = dir.join(name);
            let Some(id) = id_of(&path) else { continue };
            let index = id as usize;
            if slots.len() <= index {
                slots.resize(index + 1, None);
            }
            if let (Some(slot), Some(segment)) =
                (slots.get_mut(index), Segment::open(&*files, &path, id, server)?)
            {
                *slot = Some(Arc::new(segment));
            }
        }
        let disk = files.open_dir(&dir).map_err(Error::io("open", &dir))?;
        let ends = vec![FIRST; slots.len()];
        let segments = Segments {
            files,
            dir,
            server,
            segment_bytes,
            slots: RwLock::new(slots),
            rooms: Mutex::default(),
            usable: AtomicU64::new(0),
            disk,
            filled: AtomicBool::new(false),
            #[cfg(test)]
            faults: Faults::default(),
        };
        Ok(Self { segments, ends })
    }

    /// A map record points to this extent.
    pub(crate) fn count(&mut self, file: FileId, e: &Extent) -> Result<()> {
        let end = e.offset.checked_add(e.stored.into());
        match (self.segments.get(e.segment), end, self.ends.get_mut(e.segment as usize)) {
            (Some(segment), Some(end), Some(last)) if end <= segment.len && e.offset >= FIRST => {
                segment.hold(e.stored);
                *last = (*last).max(end);
                Ok(())
            }
            _ => Err(Error::NoSegment { file, segment: e.segment, offset: e.offset }),
        }
    }

    /// The segments, ready for use: empty ones are spares or removed, the emptiest is written on behind its last frame.
    pub(crate) fn finish(self) -> Result<Segments> {
        let Self { segments, ends } = self;
        let mut rooms = Rooms::default();
        for segment in segments.all() {
            if segment.live() == 0 {
                rooms.spares.push(segment);
                continue;
            }
            let end = ends.get(segment.id as usize).copied().unwrap_or(segment.len);
            let best = rooms.open.as_ref().map_or(segment.len / REOPEN_SHARE, |(s, at)| s.len - at);
            if segment.len - end > best
                && let Some(at) = end_of_chain(&segment, end)?
                && segment.len - at > best
            {
                rooms.open = Some((segment, at));
            }
        }
        segments.remove_unreadable()?;
        segments.trim(&mut rooms)?;
        segments.tell(&rooms);
        *segments.rooms.lock() = rooms;
        Ok(segments)
    }
}

/// Where the frame that holds byte `end` - 1 ends; `None` if the frames do not lead there.
fn end_of_chain(segment: &Segment, end: u32) -> Result<Option<u32>> {
    let mut at = FIRST;
    while at < end {
        match segment.frame_at(at)? {
            Some(header) => at += header.len,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

// === impl Segments ===

impl Segments {
    /// Makes an empty `DIR/segments`.
    pub(crate) fn format(
        files: &dyn Files,
        data: &Path,
        identity: &Identity,
        server: ServerId,
    ) -> Result<()> {
        let dir = data.join("segments");
        files.make_dirs(&dir).map_err(Error::io("make", &dir))?;
        // A stamp alone is a format that did not come to its end.
        if files.names(&dir).map_err(Error::io("list", &dir))?.iter().any(|name| name != STAMP) {
            return Err(Error::NotEmpty { path: dir });
        }
        let path = dir.join(STAMP);
        let write = || {
            let f = files.open(&path, Open::Empty)?;
            f.write_all_at(stamp_text(identity, server).as_bytes(), 0)?;
            f.sync_all()
        };
        write().map_err(Error::io("write", &path))?;
        sync_dir(files, &dir)?;
        sync_dir(files, data)
    }

    /// A segment.
    pub(crate) fn get(&self, id: u32) -> Option<Arc<Segment>> {
        self.slots.read().get(id as usize).cloned().flatten()
    }

    fn all(&self) -> Vec<Arc<Segment>> {
        self.slots.read().iter().flatten().cloned().collect()
    }

    /// Bytes that can certainly be written to the segments that there are.
    pub(crate) fn usable(&self) -> u64 {
        self.usable.load(Ordering::Acquire)
    }

    /// The file system's size.
    pub(crate) fn figures(&self) -> Result<Figures> {
        #[cfg(test)]
        if self.faults.full.load(Ordering::SeqCst) {
            return Ok(Figures { total: 1 << 30, free: 0 });
        }
        let space = self.disk.space().map_err(Error::io("statvfs", &self.dir))?;
        Ok(Figures { total: space.total, free: space.free.saturating_sub(RESERVE_BYTES) })
    }

    /// Whether the file system has room for a few segments more.
    pub(crate) fn is_short(&self) -> bool {
        self.figures().is_ok_and(|f| f.free < 4 * u64::from(self.segment_bytes))
    }

    /// Makes empty segments until `wanted` bytes can certainly be written. Blocks.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub(crate) fn grow(&self, wanted: u64) -> Result<()> {
        let mut rooms = self.rooms.lock();
        while self.usable() < wanted {
            self.grow_by_one(&mut rooms)?;
        }
        Ok(())
    }

    fn grow_by_one(&self, rooms: &mut Rooms) -> Result<()> {
        if self.figures()?.free < self.segment_bytes.into() {
            return Err(Error::NoSpace);
        }
        let segment = self.create()?;
        rooms.spares.push(segment);
        self.tell(rooms);
        Ok(())
    }

    /// Makes an empty segment ready if there is none, so that a WRITE need not wait for it later. Blocks.
    pub(crate) fn grow_ahead(&self) {
        let mut rooms = self.rooms.lock();
        if rooms.spares.is_empty()
            && let Err(error) = self.grow_by_one(&mut rooms)
        {
            // Those who need it find out by themselves.
            tracing::debug!(%error, "no segment made ahead");
        }
    }

    fn create(&self) -> Result<Arc<Segment>> {
        let id = {
            let slots = self.slots.read();
            slots.iter().position(Option::is_none).unwrap_or(slots.len())
        };
        let segment = Segment::create(&*self.files, &self.dir, id as u32, self.segment_bytes, self.server)?;
        let segment = Arc::new(segment);
        let mut slots = self.slots.write();
        if slots.len() <= id {
            slots.resize(id + 1, None);
        }
        if let Some(slot) = slots.get_mut(id) {
            *slot = Some(Arc::clone(&segment));
        }
        Ok(segment)
    }

    /// A place for a frame of `len` bytes. For the log's thread alone. If need be a segment is made of what is kept free of
    /// WRITEs: what comes here was admitted, or is copied so that space becomes free.
    pub(crate) fn place(&self, len: usize) -> Result<(Arc<Segment>, u32)> {
        let len = u32::try_from(len).map_err(|_| Error::NoSpace)?;
        let mut rooms = self.rooms.lock();
        if let Some((segment, at)) = &mut rooms.open
            && segment.len - *at >= len
        {
            let place = (Arc::clone(segment), *at);
            *at += len;
            self.tell(&rooms);
            return Ok(place);
        }
        let next = match rooms.spares.pop() {
            Some(segment) => segment,
            None => self.create()?,
        };
        let full = rooms.open.replace((Arc::clone(&next), FIRST + len));
        self.filled.store(true, Ordering::Relaxed);
        if let Some((full, _)) = full
            && full.live() == 0
        {
            rooms.spares.push(full);
        }
        self.tell(&rooms);
        Ok((next, FIRST))
    }

    /// Nothing points to these any more. Whether a segment is empty now, or may be worth cleaning.
    pub(crate) fn release(&self, freed: &[Extent]) -> bool {
        let mut news = false;
        for e in freed {
            let shares = [WORTH_PERCENT, WORTH_PERCENT_SHORT];
            news |= self.get(e.segment).is_some_and(|s| s.release(e.stored, shares));
        }
        news
    }

    /// Whether a segment was filled since this was last asked: it may be worth cleaning at once.
    pub(crate) fn has_filled(&self) -> bool {
        self.filled.swap(false, Ordering::Relaxed)
    }

    /// Takes empty segments for use again, or gives them back to the file system. For the log's thread alone.
    pub(crate) fn reap(&self) -> Result<()> {
        let mut rooms = self.rooms.lock();
        for segment in self.all() {
            let is = |s: &Arc<Segment>| s.id == segment.id;
            let known = rooms.spares.iter().any(is) || rooms.open.as_ref().is_some_and(|(s, _)| is(s));
            if segment.live() == 0 && !known {
                rooms.spares.push(segment);
            }
        }
        self.trim(&mut rooms)?;
        self.tell(&rooms);
        Ok(())
    }

    /// The segment that is most worth copying forward: full, and not more than `share` percent of it in use.
    pub(crate) fn worst(&self, share: u64) -> Option<Arc<Segment>> {
        let rooms = self.rooms.lock();
        let open = rooms.open.as_ref().map(|(s, _)| s.id);
        let all = self.all().into_iter().filter(|s| {
            s.live() > 0 && Some(s.id) != open && !s.is_stuck() && s.live() * 100 <= u64::from(s.len) * share
        });
        all.min_by_key(|s| s.live())
    }

    fn trim(&self, rooms: &mut Rooms) -> Result<()> {
        while rooms.spares.len() > SPARES
            && let Some(segment) = rooms.spares.pop()
        {
            let path = self.dir.join(name(segment.id));
            self.files.remove(&path).map_err(Error::io("remove", &path))?;
            if let Some(slot) = self.slots.write().get_mut(segment.id as usize) {
                *slot = None;
            }
        }
        Ok(())
    }

    /// Files of segments whose making did not come to its end: nothing points to them, or the census would have failed.
    fn remove_unreadable(&self) -> Result<()> {
        for name in self.files.names(&self.dir).map_err(Error::io("list", &self.dir))? {
            let path = self.dir.join(name);
            if id_of(&path).is_some_and(|id| self.get(id).is_none()) {
                self.files.remove(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }

    fn tell(&self, rooms: &Rooms) {
        let room = |len: u32, at: u32| u64::from(len - at).saturating_sub(FRAME_MAX as u64);
        let spares: u64 = rooms.spares.iter().map(|s| room(s.len, FIRST)).sum();
        let open = rooms.open.as_ref().map_or(0, |(s, at)| room(s.len, *at));
        self.usable.store(spares + open, Ordering::Release);
    }

    /// Of each segment the bytes that extents point to, for tests.
    #[cfg(test)]
    pub(crate) fn live(&self) -> std::collections::BTreeMap<u32, u64> {
        self.all().iter().map(|s| (s.id, s.live())).collect()
    }
}
