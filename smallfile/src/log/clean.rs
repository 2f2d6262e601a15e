//! The cleaner: copies what is still in use of a segment forward, so that the rest can be used again.
//!
//! It runs on the log's thread when nothing else is asked for, a step at a time: what it copies is written, fsynced and
//! recorded like a flush. The segment is empty when the last record that pointed into it is durable.

use super::flush::Stage;
use super::segment::{FIRST, Segment, verify};
use crate::cache::Cell;
use crate::core::Extent;
use crate::error::Result;
use crate::node::Node;
use bytes::Bytes;
use std::sync::Arc;

/// Bytes copied in one step: what a commit that comes meanwhile waits for, some milliseconds.
const STEP_BYTES: usize = 1 << 20;
/// Frames looked at in one step, so that a segment of many tiny dead ones is left as often.
const STEP_FRAMES: usize = 4096;
/// A segment of which at most these percent are in use is cleaned: one copied byte gains three.
pub(crate) const WORTH_PERCENT: u64 = 25;
/// The same, when the disk is nearly full.
pub(crate) const WORTH_PERCENT_SHORT: u64 = 80;

/// A segment that is being cleaned.
#[derive(Debug)]
pub(crate) struct Cleaning {
    segment: Arc<Segment>,
    at: u32,
}

/// Blocks of one object that were copied.
struct Moved {
    cell: Arc<Cell>,
    /// Block, where it was, where it is.
    blocks: Vec<(usize, Extent, Extent)>,
}

impl Node {
    /// Chooses a segment to clean, if one is worth it.
    pub(crate) fn pick_for_cleaning(&self, cleaning: &mut Option<Cleaning>) {
        if cleaning.is_none() {
            let share = if self.segments.is_short() { WORTH_PERCENT_SHORT } else { WORTH_PERCENT };
            *cleaning = self.segments.worst(share).map(|segment| Cleaning { segment, at: FIRST });
        }
    }

    /// Copies a part of the segment that is being cleaned; chooses the next one at its end.
    pub(crate) fn clean_step(&self, stage: &mut Stage, cleaning: &mut Option<Cleaning>) -> Result<()> {
        let Some(Cleaning { segment, at }) = cleaning else { return Ok(()) };
        let mut moved = Vec::new();
        let (mut bytes, mut frames, mut ended) = (0, 0, false);
        while bytes < STEP_BYTES && frames < STEP_FRAMES {
            let Some(header) = segment.frame_at(*at)? else {
                ended = true;
                break;
            };
            *at += header.len;
            frames += 1;
            if let Some(m) = self.copy_frame(stage, segment, &header)? {
                bytes += m.blocks.iter().map(|(_, e, _)| usize::from(e.stored)).sum::<usize>();
                moved.push(m);
            }
        }
        stage.sync()?;
        let mut freed = Vec::new();
        for Moved { cell, blocks } in &moved {
            self.change(cell, |o| {
                freed.extend(blocks.iter().map(|(block, from, to)| o.moved(*block, from, *to)));
                self.log_record_lazily(cell, o)
            })?;
        }
        self.store.flush()?;
        self.release(&freed);
        self.settle_frees();
        if ended || segment.live() == 0 {
            if segment.live() > 0 {
                // A wrong checksum, or a truncate that is not durable yet: not again until the next start.
                segment.set_stuck();
            }
            *cleaning = None;
            self.segments.reap()?;
            self.pick_for_cleaning(cleaning);
        }
        Ok(())
    }

    /// Stages the blocks of a frame that are still in use.
    fn copy_frame(
        &self,
        stage: &mut Stage,
        segment: &Segment,
        header: &super::frame::Header,
    ) -> Result<Option<Moved>> {
        let cell = self.cell(header.file)?;
        let used: Vec<(usize, Extent)> = {
            let o = cell.object.lock();
            let still =
                |(block, e): &(usize, Extent)| Some((*block, o.extent_at(*block, e.segment, e.offset)?));
            header.blocks.iter().filter_map(still).collect()
        };
        let mut blocks = Vec::new();
        for (block, e) in used {
            let mut bytes = vec![0; e.stored.into()];
            segment
                .file
                .read_exact_at(&mut bytes, e.offset.into())
                .map_err(crate::Error::io("read", super::segment::name(segment.id)))?;
            if let Err(error) = verify(&e, &bytes) {
                // It stays where it is, and every read of it says so.
                tracing::error!(file = %header.file, block, %error, "found while cleaning");
                continue;
            }
            blocks.push((block, e, Bytes::from(bytes)));
        }
        if blocks.is_empty() {
            return Ok(None);
        }
        let contents: Vec<_> = blocks.iter().map(|(block, _, bytes)| (*block, bytes.clone())).collect();
        let to = stage.add(self, header.file, &contents)?;
        let blocks =
            blocks.into_iter().zip(to).map(|((block, from, _), (_, to))| (block, from, to)).collect();
        Ok(Some(Moved { cell, blocks }))
    }
}
