//! Bytes from the segments into a reply or a dirty block, checked.

use crate::cache::Cell;
use crate::core::extent::parts;
use crate::core::object::Source;
use crate::core::{BLOCK, Extent, Object};
use crate::error::{Error, Result};
use crate::log::segment::{Miss, Patience, Segment, verify};
use crate::node::Node;
use slice_proto::ids::FileId;
use std::sync::Arc;

/// Times that what is not in the page cache is read into it before a request reads with its object locked, whatever that
/// waits for.
const MAX_WARMED: usize = 3;

/// A part of a READ that is on disk.
#[derive(Debug, Clone, Copy)]
struct Piece {
    extent: Extent,
    /// Which of its bytes.
    from: usize,
    to: usize,
    /// Where they go.
    at: usize,
}

impl Piece {
    const fn is_whole(&self) -> bool {
        self.from == 0 && self.to == self.extent.stored as usize
    }

    /// Whether `next` goes on where this ends, on disk and in the reply.
    fn goes_on(&self, next: &Self) -> bool {
        let stored = u32::from(self.extent.stored);
        self.is_whole()
            && next.is_whole()
            && self.extent.segment == next.extent.segment
            && self.extent.offset.checked_add(stored) == Some(next.extent.offset)
            && self.at + stored as usize == next.at
    }
}

impl Node {
    fn segment(&self, file: FileId, e: &Extent) -> Result<Arc<Segment>> {
        let missing = Error::NoSegment { file, segment: e.segment, offset: e.offset };
        self.segments.get(e.segment).ok_or(missing)
    }

    /// Fills `out`, which is all zeros, with the object's bytes from `offset` on.
    pub(crate) fn read_into(
        &self,
        file: FileId,
        object: &Object,
        offset: u32,
        out: &mut [u8],
        patience: Patience,
    ) -> std::result::Result<(), Miss> {
        let end = offset.saturating_add(out.len() as u32);
        let mut pieces: Vec<Piece> = Vec::new();
        for (block, from, to) in parts(offset, end) {
            let at = block * BLOCK + from - offset as usize;
            match object.source(block, from, to) {
                Source::Memory(bytes) => {
                    if let Some(place) = out.get_mut(at..at + bytes.len()) {
                        place.copy_from_slice(bytes);
                    }
                }
                Source::Disk(extent, from, to) => pieces.push(Piece { extent, from, to, at }),
            }
        }
        #[cfg(test)]
        if !pieces.is_empty() && patience == Patience::None && self.segments.faults.misses() {
            return Err(Miss::NotCached);
        }
        for run in pieces.chunk_by(Piece::goes_on) {
            self.read_run(file, run, out, patience)?;
        }
        Ok(())
    }

    /// Reads pieces that go on one behind the other with one system call.
    fn read_run(
        &self,
        file: FileId,
        run: &[Piece],
        out: &mut [u8],
        patience: Patience,
    ) -> std::result::Result<(), Miss> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let segment = self.segment(file, &first.extent)?;
        if !first.is_whole() {
            // The checksum is over all that is stored.
            let bytes = read_extent(&segment, &first.extent, patience)?;
            if let (Some(place), Some(bytes)) =
                (out.get_mut(first.at..first.at + first.to - first.from), bytes.get(first.from..first.to))
            {
                place.copy_from_slice(bytes);
            }
            return Ok(());
        }
        let end = last.at + usize::from(last.extent.stored);
        segment.read(first.extent.offset, out.get_mut(first.at..end).unwrap_or_default(), patience)?;
        for p in run {
            verify(&p.extent, out.get(p.at..p.at + usize::from(p.extent.stored)).unwrap_or_default())?;
        }
        Ok(())
    }

    /// The bytes of an extent that count.
    pub(crate) fn read_block(
        &self,
        file: FileId,
        e: &Extent,
        patience: Patience,
    ) -> std::result::Result<Vec<u8>, Miss> {
        #[cfg(test)]
        if patience == Patience::None && self.segments.faults.misses() {
            return Err(Miss::NotCached);
        }
        let mut bytes = read_extent(&*self.segment(file, e)?, e, patience)?;
        bytes.truncate(e.valid.into());
        Ok(bytes)
    }

    /// Does `what`, which reads without patience, until it need not wait for the disk; in between has that read by a thread that
    /// may wait, without the object locked.
    pub(crate) async fn patiently<T>(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        mut what: impl FnMut(Patience) -> std::result::Result<T, Miss>,
    ) -> Result<T> {
        for _ in 0..MAX_WARMED {
            match what(Patience::None) {
                Ok(done) => return Ok(done),
                Err(Miss::Failed(e)) => return Err(e),
                Err(Miss::NotCached) => {}
            }
            let (node, file) = (Arc::clone(self), cell.file);
            let extents: Vec<Extent> = cell.object.lock().extents().copied().collect();
            self.blocking(move || {
                for e in &extents {
                    // What fails here, or has moved meanwhile, fails again or succeeds when it is read for good.
                    if let Ok(segment) = node.segment(file, e) {
                        let _ = read_extent(&segment, e, Patience::Any);
                    }
                }
            })
            .await?;
        }
        match what(Patience::Any) {
            Ok(done) => Ok(done),
            Err(Miss::Failed(e)) => Err(e),
            // With patience nothing is ever not cached.
            Err(Miss::NotCached) => Err(Error::ShuttingDown),
        }
    }
}

/// All that is stored of an extent, checked.
fn read_extent(segment: &Segment, e: &Extent, patience: Patience) -> std::result::Result<Vec<u8>, Miss> {
    let mut bytes = vec![0; e.stored.into()];
    segment.read(e.offset, &mut bytes, patience)?;
    verify(e, &bytes)?;
    Ok(bytes)
}
