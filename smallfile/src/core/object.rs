//! An object: what is on disk of it, what is not yet, and every change that it can see.
//!
//! ```text
//!            write                 begin_flush                 flushed
//!   caller ────────▶ dirty blocks ─────────────▶ flushing ───────────────▶ extents
//!                         ▲                          │ abort_flush
//!                         └──────────────────────────┘
//! ```
//! A block's newest content is the first of dirty, flushing, extent that it has. `truncate` and `purge` cut all three, so that
//! a flush that is under way brings nothing back.

use super::extent::{BLOCK, BLOCKS, Extent, LIMIT, parts};
use super::record::Record;
use bytes::Bytes;
use slice_proto::ids::Epoch;
use slice_store::Ticket;

/// What a block in memory is counted as beside its bytes: at least what its frame takes beside them on disk, so that a write
/// that was admitted has its place there.
pub(crate) const BLOCK_OVERHEAD: usize = 128;

/// What is known of an object.
#[derive(Debug, Default)]
pub(crate) struct Object {
    /// Highest epoch seen.
    pub epoch: Epoch,
    /// When it was purged: then only a tombstone is left.
    pub purged_ns: Option<u64>,
    /// min(file size, 64 KiB), unstable writes included.
    pub size: u32,
    /// Whether the file goes beyond.
    pub beyond: bool,
    /// The store's ticket of its last record.
    pub ticket: Ticket,
    /// That record could not be handed to the store: the next one must be tried, whatever it is for.
    pub unlogged: bool,
    /// Whether it is among the objects counted.
    pub counted: bool,
    /// What is on disk, fsynced.
    extents: [Option<Extent>; BLOCKS],
    /// Size and "beyond" as the map record has them: without unstable writes.
    logged: (u32, bool),
    pending: Option<Box<Pending>>,
    /// Counts changes that a flush must make durable.
    version: u64,
    /// The last of these that is durable.
    durable: u64,
}

/// What is in memory alone.
#[derive(Debug, Default)]
struct Pending {
    /// The whole content of a block, up to its last byte that is not zero by being past it.
    dirty: [Option<Vec<u8>>; BLOCKS],
    /// What is being written, and how much of it still counts.
    flushing: [Option<(Bytes, u16)>; BLOCKS],
    /// Size and "beyond" as they will be when it is written; the version that will be durable.
    flush: Option<(u32, bool, u64)>,
}

/// What a flush is to write.
#[derive(Debug)]
pub(crate) struct Flush {
    /// Blocks and their content, in order.
    pub blocks: Vec<(usize, Bytes)>,
}

/// Extents that nothing points to any more, once the record that says so is durable.
pub(crate) type Freed = Vec<Extent>;

/// Where a part of a READ comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source<'a> {
    /// From memory: these bytes, then zeros.
    Memory(&'a [u8]),
    /// From disk: bytes `from..to` of what is stored, then zeros.
    Disk(Extent, usize, usize),
}

impl Object {
    pub(crate) fn from_record(r: &Record) -> Self {
        Self {
            epoch: r.epoch,
            purged_ns: r.purged_ns,
            size: r.size,
            beyond: r.beyond,
            extents: r.extents,
            logged: (r.size, r.beyond),
            counted: r.purged_ns.is_none(),
            ..Self::default()
        }
    }

    /// The map record: of what is on disk, without unstable writes.
    pub(crate) fn record(&self) -> Record {
        let (size, beyond) = self.logged;
        Record { epoch: self.epoch, size, beyond, purged_ns: self.purged_ns, extents: self.extents }
    }

    /// Whether only a tombstone is left.
    pub(crate) const fn is_tombstone(&self) -> bool {
        self.purged_ns.is_some()
    }

    /// Whether nothing was ever written of it: no record either.
    pub(crate) fn is_blank(&self) -> bool {
        self.record() == Record::default() && !self.is_dirty()
    }

    /// The last version: durable when [`durable`](Self::durable) has reached it.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// The last version that is durable.
    pub(crate) const fn durable(&self) -> u64 {
        self.durable
    }

    /// Whether there is anything to flush, or being flushed.
    pub(crate) const fn is_dirty(&self) -> bool {
        self.version != self.durable
    }

    /// The extents on disk.
    pub(crate) fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.extents.iter().flatten()
    }

    /// Bytes of storage used.
    pub(crate) fn used(&self) -> u64 {
        self.extents().map(|e| u64::from(e.stored)).sum()
    }

    /// Bytes that it holds in memory, as they are counted.
    pub(crate) fn held(&self) -> usize {
        let Some(p) = &self.pending else { return 0 };
        let dirty = p.dirty.iter().flatten().map(Vec::len);
        let flushing = p.flushing.iter().flatten().map(|(b, _)| b.len());
        dirty.chain(flushing).map(|len| len + BLOCK_OVERHEAD).sum()
    }

    /// Bytes that a READ of `offset..offset+count` returns, and whether it reaches the end of the file. Where the file goes beyond,
    /// bytes without content are zeros up to 64 KiB.
    pub(crate) fn readable(&self, offset: u32, count: u32) -> (u32, bool) {
        let size = if self.beyond { LIMIT } else { self.size };
        let end = offset.saturating_add(count);
        (end.min(size).saturating_sub(offset), !self.beyond && end >= size)
    }

    /// Where the bytes `from..to` of a block come from.
    pub(crate) fn source(&self, block: usize, from: usize, to: usize) -> Source<'_> {
        let cut = |bytes: &'_ [u8]| from.min(bytes.len())..to.min(bytes.len());
        if let Some(p) = &self.pending {
            if let Some(Some(bytes)) = p.dirty.get(block) {
                return Source::Memory(bytes.get(cut(bytes)).unwrap_or_default());
            }
            if let Some(Some((bytes, valid))) = p.flushing.get(block) {
                let bytes = bytes.get(..usize::from(*valid)).unwrap_or_default();
                return Source::Memory(bytes.get(cut(bytes)).unwrap_or_default());
            }
        }
        match self.extents.get(block) {
            Some(Some(e)) if from < usize::from(e.valid) => {
                Source::Disk(*e, from, to.min(usize::from(e.valid)))
            }
            _ => Source::Memory(&[]),
        }
    }

    /// The extents whose bytes a write of `offset..end` keeps: they must be read before.
    pub(crate) fn needed_for_write(
        &self,
        offset: u32,
        end: u32,
    ) -> impl Iterator<Item = (usize, Extent)> + '_ {
        parts(offset, end).filter_map(|(block, from, to)| match self.source(block, 0, BLOCK) {
            Source::Disk(e, _, valid) if from > 0 || to < valid => Some((block, e)),
            _ => None,
        })
    }

    /// Writes at `offset`; `base` gives the content of the blocks of [`needed_for_write`](Self::needed_for_write).
    pub(crate) fn write(&mut self, offset: u32, data: &[u8], mut base: impl FnMut(usize) -> Vec<u8>) {
        if data.is_empty() {
            return;
        }
        let end = offset.saturating_add(data.len() as u32);
        let mut rest = data;
        for (block, from, to) in parts(offset, end) {
            let (part, behind) = rest.split_at_checked(to - from).unwrap_or((rest, &[]));
            rest = behind;
            let old = match self.pending.as_mut().and_then(|p| p.dirty.get_mut(block)?.take()) {
                Some(dirty) => dirty,
                None => match self.source(block, 0, BLOCK) {
                    Source::Memory(bytes) if from > 0 || to < bytes.len() => bytes.to_vec(),
                    Source::Disk(_, _, valid) if from > 0 || to < valid => base(block),
                    _ => Vec::new(),
                },
            };
            let new = merge(old, from, part);
            if let Some(place) = self.pending.get_or_insert_default().dirty.get_mut(block) {
                *place = Some(new);
            }
        }
        self.size = self.size.max(end);
        self.version += 1;
    }

    /// The file's size is at least `size`. Whether that is news. With `log` the next [`record`](Self::record) says so; without,
    /// the next flush.
    pub(crate) fn extend(&mut self, size: u64, log: bool) -> bool {
        let (at_least, beyond) = clip(size);
        let before = (self.size, self.beyond, self.logged);
        self.size = self.size.max(at_least);
        self.beyond |= beyond;
        if log {
            self.logged = (self.logged.0.max(at_least), self.logged.1 || beyond);
        } else if (self.size, self.beyond) != (before.0, before.1) {
            self.version += 1;
        }
        (self.size, self.beyond, self.logged) != before
    }

    /// A write came with this epoch, which is not lower than the object's.
    pub(crate) fn raise(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
    }

    /// The file's size is `size` from now on: what is behind is gone. [`record`](Self::record) says so.
    pub(crate) fn truncate(&mut self, epoch: Epoch, size: u64) -> Freed {
        let (cut, beyond) = clip(size);
        let mut freed = Freed::new();
        for block in 0..BLOCKS {
            self.cut_block(block, (cut as usize).saturating_sub(block * BLOCK).min(BLOCK), &mut freed);
        }
        if let Some(p) = &mut self.pending
            && let Some((size, goes, _)) = &mut p.flush
        {
            *size = (*size).min(cut);
            *goes = false;
        }
        self.epoch = epoch;
        self.size = cut;
        self.beyond = beyond;
        self.logged = (cut, beyond);
        freed
    }

    /// The file is no more. [`record`](Self::record) says so.
    pub(crate) fn purge(&mut self, epoch: Epoch, now_ns: u64) -> Freed {
        let freed = self.truncate(epoch, 0);
        self.purged_ns = Some(now_ns);
        // Nothing is left to be flushed; a flush that is under way ends it.
        match self.pending.as_mut().and_then(|p| p.flush.as_mut()) {
            Some((_, _, version)) => *version = self.version,
            None => self.durable = self.version,
        }
        self.drop_empty();
        freed
    }

    /// Cuts a block to `keep` bytes.
    fn cut_block(&mut self, block: usize, keep: usize, freed: &mut Freed) {
        if let Some(p) = &mut self.pending {
            if let Some(dirty) = p.dirty.get_mut(block) {
                *dirty = dirty.take().filter(|_| keep > 0).map(|mut bytes| {
                    bytes.truncate(keep);
                    bytes
                });
            }
            if let Some(flushing) = p.flushing.get_mut(block) {
                *flushing =
                    flushing.take().filter(|_| keep > 0).map(|(b, valid)| (b, valid.min(keep as u16)));
            }
        }
        if let Some(extent) = self.extents.get_mut(block) {
            match extent {
                Some(e) if keep == 0 => {
                    freed.push(*e);
                    *extent = None;
                }
                Some(e) => e.valid = e.valid.min(keep as u16),
                None => {}
            }
        }
    }

    /// Takes what is dirty to be written. `None` if there is nothing, or a flush is under way.
    pub(crate) fn begin_flush(&mut self) -> Option<Flush> {
        if !self.is_dirty() || self.pending.as_ref().is_some_and(|p| p.flush.is_some()) {
            return None;
        }
        let (size, beyond, version) = (self.size, self.beyond, self.version);
        let p = self.pending.get_or_insert_default();
        p.flush = Some((size, beyond, version));
        let mut blocks = Vec::new();
        for (block, (dirty, flushing)) in p.dirty.iter_mut().zip(&mut p.flushing).enumerate() {
            if let Some(bytes) = dirty.take() {
                let valid = bytes.len() as u16;
                let bytes = Bytes::from(bytes);
                // A block that was extended by a truncate alone has none.
                if valid > 0 {
                    blocks.push((block, bytes.clone()));
                    *flushing = Some((bytes, valid));
                }
            }
        }
        Some(Flush { blocks })
    }

    /// The flush has written these extents, and they are fsynced: [`record`](Self::record) points to them from now on. What it no
    /// longer points to comes back.
    pub(crate) fn flushed(&mut self, written: &[(usize, Extent)]) -> Freed {
        let mut freed = Freed::new();
        let Some(p) = &mut self.pending else { return written.iter().map(|(_, e)| *e).collect() };
        for (block, new) in written {
            let flushing = p.flushing.get_mut(*block).and_then(Option::take);
            match (flushing, self.extents.get_mut(*block)) {
                (Some((_, valid)), Some(place)) => {
                    freed.extend(place.replace(Extent { valid, ..*new }));
                }
                // Cut meanwhile.
                _ => freed.push(*new),
            }
        }
        if let Some((size, beyond, _)) = p.flush {
            self.logged = (self.logged.0.max(size), self.logged.1 || beyond);
        }
        freed
    }

    /// The record of the last [`flushed`](Self::flushed) is durable.
    pub(crate) fn flush_is_durable(&mut self) {
        if let Some(p) = &mut self.pending
            && let Some((_, _, version)) = p.flush.take()
        {
            self.durable = self.durable.max(version);
        }
        self.drop_empty();
    }

    /// The flush has failed, and can be tried again: what it was to write is dirty once more.
    pub(crate) fn abort_flush(&mut self) {
        let Some(p) = &mut self.pending else { return };
        p.flush = None;
        for (dirty, flushing) in p.dirty.iter_mut().zip(&mut p.flushing) {
            if let Some((bytes, valid)) = flushing.take()
                && dirty.is_none()
            {
                *dirty = Some(bytes.get(..usize::from(valid)).unwrap_or_default().to_vec());
            }
        }
    }

    /// Puts the copy that the cleaner has made of a block in the place of the original, if that is still the block's extent.
    /// What nothing points to any more comes back.
    pub(crate) fn moved(&mut self, block: usize, from: &Extent, to: Extent) -> Extent {
        match self.extents.get_mut(block) {
            Some(Some(e)) if (e.segment, e.offset) == (from.segment, from.offset) => {
                let valid = e.valid;
                std::mem::replace(e, Extent { valid, ..to })
            }
            _ => to,
        }
    }

    /// The block whose extent lies at this place.
    pub(crate) fn extent_at(&self, block: usize, segment: u32, offset: u32) -> Option<Extent> {
        let e = (*self.extents.get(block)?)?;
        (e.segment == segment && e.offset == offset).then_some(e)
    }

    fn drop_empty(&mut self) {
        if let Some(p) = &self.pending
            && p.flush.is_none()
            && p.dirty.iter().all(Option::is_none)
        {
            self.pending = None;
        }
    }
}

/// A file size as it is held here.
fn clip(size: u64) -> (u32, bool) {
    (size.min(u64::from(LIMIT)) as u32, size > u64::from(LIMIT))
}

/// `part` at `from` over `old`, with zeros in between.
fn merge(mut old: Vec<u8>, from: usize, part: &[u8]) -> Vec<u8> {
    let to = from + part.len();
    if old.is_empty() && from == 0 {
        return part.to_vec();
    }
    if old.len() < to {
        old.resize(to, 0);
    }
    if let Some(place) = old.get_mut(from..to) {
        place.copy_from_slice(part);
    }
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_BASE: fn(usize) -> Vec<u8> = |b| panic!("block {b} is not needed");

    fn extent(offset: u32, stored: u16) -> Extent {
        Extent { segment: 1, offset, stored, valid: stored, crc: 0 }
    }

    fn flush(o: &mut Object, at: u32) -> (Vec<(usize, Extent)>, Freed) {
        let f = o.begin_flush().expect("something to flush");
        let written: Vec<_> = f
            .blocks
            .iter()
            .map(|(b, bytes)| (*b, extent(at + *b as u32 * 8192, bytes.len() as u16)))
            .collect();
        let freed = o.flushed(&written);
        o.flush_is_durable();
        (written, freed)
    }

    #[test]
    fn a_write_shows_at_once_and_is_logged_by_a_flush() {
        let mut o = Object::default();
        assert!(o.is_blank());
        o.write(8_190, b"abcd", NO_BASE);
        assert_eq!(o.source(0, 8_189, 8_192), Source::Memory(b"\0ab"));
        assert_eq!(o.source(1, 0, 8_192), Source::Memory(b"cd"));
        assert_eq!((o.size, o.record().size), (8_194, 0));
        assert_eq!(o.readable(8_000, 8_192), (194, true));
        assert_eq!(o.readable(0, 100), (100, false));
        assert_eq!(o.held(), 8_192 + 2 + 2 * BLOCK_OVERHEAD);
        let (written, freed) = flush(&mut o, 0);
        assert_eq!((written.len(), freed.len(), o.is_dirty(), o.held()), (2, 0, false, 0));
        assert_eq!(o.record().size, 8_194);
        assert_eq!(o.source(1, 0, 8_192), Source::Disk(extent(8_192, 2), 0, 2));
        assert!(o.begin_flush().is_none());
    }

    #[test]
    fn only_what_a_write_keeps_is_read() {
        let mut o = Object::default();
        o.write(0, &[1; 20_000], NO_BASE);
        flush(&mut o, 0);
        assert_eq!(o.needed_for_write(0, 16_384).count(), 0, "whole blocks");
        assert_eq!(o.needed_for_write(16_384, 20_000).count(), 0, "all that counts of the last");
        assert_eq!(o.needed_for_write(20_000, 20_001).map(|(b, _)| b).collect::<Vec<_>>(), [2]);
        assert_eq!(o.needed_for_write(1, 16_383).map(|(b, _)| b).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(o.needed_for_write(40_000, 40_001).count(), 0, "a hole");
        o.write(1, b"x", |b| {
            assert_eq!(b, 0);
            vec![1; 8_192]
        });
        assert_eq!(o.source(0, 0, 3), Source::Memory(&[1, b'x', 1]));
        o.write(2, b"y", NO_BASE);
        let (_, freed) = flush(&mut o, 100_000);
        assert_eq!(freed, [extent(0, 8_192)], "the block's earlier place");
    }

    #[test]
    fn a_truncate_cuts_memory_disk_and_what_is_between() {
        let mut o = Object::default();
        o.write(0, &[1; 30_000], NO_BASE);
        flush(&mut o, 0);
        o.write(8_192, &[2; 8_192], NO_BASE);
        let f = o.begin_flush().unwrap();
        o.write(0, &[3; 8_192], NO_BASE);
        let freed = o.truncate(Epoch(2), 10_000);
        assert_eq!(freed.len(), 2, "blocks 2 and 3");
        assert_eq!(o.record().size, 10_000);
        assert_eq!(o.source(1, 0, 8_192), Source::Memory(&[2; 10_000 - 8_192][..]));
        let new = extent(90_000, f.blocks[0].1.len() as u16);
        let old = o.flushed(&[(1, new)]);
        o.flush_is_durable();
        assert_eq!(old.len(), 1);
        assert_eq!(o.record().extents[1], Some(Extent { valid: 10_000 - 8_192, ..new }));
        // What a later growth uncovers reads as zeros.
        assert!(o.extend(20_000, true));
        assert_eq!(o.source(1, 0, 8_192), Source::Disk(o.record().extents[1].unwrap(), 0, 10_000 - 8_192));
        assert_eq!(o.source(2, 0, 8_192), Source::Memory(&[]));
        assert_eq!(o.record().size, 20_000);
        assert!(o.is_dirty(), "block 0 still is");
        let (_, freed) = flush(&mut o, 200_000);
        assert_eq!(freed.len(), 1);
    }

    #[test]
    fn a_flush_brings_nothing_back() {
        let mut o = Object::default();
        o.write(0, &[1; 9_000], NO_BASE);
        o.begin_flush().unwrap();
        o.write(0, b"later", NO_BASE);
        assert!(o.purge(Epoch(3), 77).is_empty());
        let freed = o.flushed(&[(0, extent(0, 8_192)), (1, extent(8_192, 808))]);
        assert_eq!(freed.len(), 2);
        o.flush_is_durable();
        assert_eq!(o.record(), Record { epoch: Epoch(3), purged_ns: Some(77), ..Record::default() });
        assert_eq!((o.held(), o.is_dirty()), (0, false));
        let mut o = Object::default();
        o.write(0, &[1; 9_000], NO_BASE);
        o.purge(Epoch(3), 77);
        assert_eq!((o.held(), o.is_dirty()), (0, false), "a tombstone is nothing to flush");
    }

    #[test]
    fn a_truncate_within_a_flush_wins_over_its_size() {
        let mut o = Object::default();
        o.write(0, &[1; 9_000], NO_BASE);
        o.extend(1 << 20, false);
        let f = o.begin_flush().unwrap();
        o.truncate(Epoch(2), 5);
        assert_eq!(f.blocks.len(), 2);
        o.flushed(&[(0, extent(0, 8_192)), (1, extent(8_192, 808))]);
        o.flush_is_durable();
        let r = o.record();
        assert_eq!((r.size, r.beyond, r.extents[0].unwrap().valid, r.extents[1]), (5, false, 5, None));
    }

    #[test]
    fn a_failed_flush_can_be_tried_again() {
        let mut o = Object::default();
        o.write(0, b"first", NO_BASE);
        o.write(8_192, b"second", NO_BASE);
        o.begin_flush().unwrap();
        o.write(0, b"newer", NO_BASE);
        o.abort_flush();
        assert!(o.is_dirty());
        let f = o.begin_flush().unwrap();
        assert_eq!(f.blocks, [(0, Bytes::from_static(b"newer")), (1, Bytes::from_static(b"second"))]);
    }

    #[test]
    fn beyond_means_zeros_up_to_64_kib_and_no_end() {
        let mut o = Object::default();
        o.write(0, b"head", NO_BASE);
        assert!(o.extend(LIMIT.into(), false));
        assert_eq!((o.size, o.beyond, o.readable(65_000, 1_000)), (LIMIT, false, (536, true)));
        assert!(o.extend(u64::from(LIMIT) + 1, false));
        assert!(!o.extend(u64::from(LIMIT) + 1, false), "no news");
        assert_eq!(o.readable(65_000, 536), (536, false));
        assert_eq!((o.record().size, o.record().beyond), (0, false));
        flush(&mut o, 0);
        assert_eq!((o.record().size, o.record().beyond), (LIMIT, true));
    }

    #[test]
    fn the_cleaner_moves_only_what_is_still_there() {
        let mut o = Object::default();
        o.write(0, &[1; 100], NO_BASE);
        flush(&mut o, 0);
        let old = o.extent_at(0, 1, 0).unwrap();
        o.truncate(Epoch(1), 50);
        let copy = Extent { segment: 2, ..old };
        assert_eq!(o.moved(0, &old, copy).segment, 1);
        assert_eq!(o.record().extents[0], Some(Extent { valid: 50, ..copy }));
        assert_eq!(o.moved(0, &old, Extent { segment: 3, ..old }).segment, 3, "the copy is garbage");
    }
}
