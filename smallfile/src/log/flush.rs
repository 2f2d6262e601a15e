//! The log's thread: group commit of objects. In a simulation there is no thread: whoever is told that there is work has a
//! turn taken.
//!
//! ```text
//!   dirty blocks ─▶ frames ─▶ pwrite ─▶ fdatasync of the segments ─▶ map records in one batch ─▶ fsync of the store ─▶ waiters
//! ```
//! One after the other, so that a map record never points to what is not durable. While a group is under way the next one
//! gathers.

use super::clean::Cleaning;
use super::frame::{self, FRAME_MAX};
use super::queue::Work;
use super::segment::Segment;
use crate::cache::Cell;
use crate::core::Extent;
use crate::error::{Error, Result};
use crate::node::Node;
use bytes::{Bytes, BytesMut};
use slice_proto::ids::FileId;
use std::sync::Arc;

/// Bytes written with one system call: enough to make it cheap, little enough to stay in the cache.
const STAGE_BYTES: usize = 1 << 20;

/// Frames on their way to the segments.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    buf: BytesMut,
    /// Where `buf` goes.
    to: Option<(Arc<Segment>, u32)>,
    /// Segments written to and not fsynced.
    touched: Vec<Arc<Segment>>,
}

impl Stage {
    /// Adds a frame; says where its blocks will be. They count as live from now on.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: nothing was added, others may be tried. After any other error the log is at its end.
    pub(crate) fn add(
        &mut self,
        node: &Node,
        file: FileId,
        blocks: &[(usize, Bytes)],
    ) -> Result<Vec<(usize, Extent)>> {
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        let (segment, at) = node.segments.place(frame::len(blocks))?;
        let follows = self
            .to
            .as_ref()
            .is_some_and(|(s, start)| s.id == segment.id && start + self.buf.len() as u32 == at);
        if !follows || self.buf.len() + FRAME_MAX > STAGE_BYTES {
            self.write()?;
            self.to = Some((Arc::clone(&segment), at));
        }
        let extents = frame::encode(&mut self.buf, segment.id, at, file, blocks);
        for (_, e) in &extents {
            segment.hold(e.stored);
        }
        Ok(extents)
    }

    fn write(&mut self) -> Result<()> {
        if let Some((segment, at)) = self.to.take() {
            let path = || super::segment::name(segment.id);
            segment.file.write_all_at(&self.buf, at.into()).map_err(|e| Error::io("write", path())(e))?;
            if !self.touched.iter().any(|s| s.id == segment.id) {
                self.touched.push(segment);
            }
        }
        self.buf.clear();
        Ok(())
    }

    /// Everything added is durable when this returns.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.write()?;
        for segment in self.touched.drain(..) {
            let path = super::segment::name(segment.id);
            segment.file.sync_data().map_err(Error::io("fdatasync", path))?;
        }
        Ok(())
    }
}

/// What the log keeps between two pieces of work.
#[derive(Debug, Default)]
pub(crate) struct Hand {
    stage: Stage,
    cleaning: Option<Cleaning>,
}

impl Node {
    /// The log thread's life.
    pub(crate) fn run_log(&self) {
        // If it ends by a panic, nobody is to wait for ever.
        let _guard = Guard(self);
        let mut hand = Hand::default();
        loop {
            let work = self.queue.next(hand.cleaning.is_some());
            if !self.log_step(&mut hand, work) {
                return;
            }
        }
    }

    /// Does one piece of work, if there is one; whether there may be more.
    pub(crate) fn log_turn(&self, hand: &mut Hand) -> bool {
        self.queue.poll(hand.cleaning.is_some()).is_some_and(|work| self.log_step(hand, work))
    }

    /// Does a piece of work; whether the log goes on.
    fn log_step(&self, Hand { stage, cleaning }: &mut Hand, work: Work) -> bool {
        let done = match work {
            Work::Group(cells, ticket) => {
                self.commit_group(stage, cells).map(|()| self.queue.progress.advance(ticket))
            }
            Work::Flush => self.commit_group(stage, self.cache.some_dirty()),
            Work::Tidy => self.tidy(cleaning),
            Work::Clean => self.clean_step(stage, cleaning),
            Work::Stop => return false,
        };
        if let Err(error) = done {
            // I8: the kernel may have thrown away what it could not write; a later fsync would say that all is well.
            tracing::error!(%error, "the log takes no more writes");
            self.queue.progress.fail(into_store_error(error));
            return false;
        }
        true
    }

    /// Makes everything durable that the objects have in memory.
    fn commit_group(&self, stage: &mut Stage, cells: Vec<Arc<Cell>>) -> Result<()> {
        let commit = self.commits.begin();
        let mut flushed = Vec::with_capacity(cells.len());
        for cell in cells {
            let Some(flush) = self.change(&cell, |o| o.begin_flush()) else { continue };
            match stage.add(self, cell.file, &flush.blocks) {
                Ok(extents) => flushed.push((cell, extents)),
                Err(Error::NoSpace) => {
                    tracing::warn!(file = %cell.file, "no space for data that was admitted");
                    self.change(&cell, |o| o.abort_flush());
                }
                Err(error) => return Err(error),
            }
        }
        #[cfg(test)]
        if self.segments.faults.fsync.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(Error::io("fdatasync", "a test")(rustix::io::Errno::IO.into()));
        }
        stage.sync()?;
        let mut freed = Vec::new();
        for (cell, extents) in &flushed {
            self.change(cell, |o| {
                freed.extend(o.flushed(extents));
                self.log_record_lazily(cell, o)
            })?;
        }
        // Also for objects that had nothing to flush: their last record may still be on its way.
        self.store.flush()?;
        for (cell, _) in &flushed {
            self.change(cell, |o| o.flush_is_durable());
        }
        self.commits.end(commit, flushed.len() as u64);
        self.release(&freed);
        self.settle_frees();
        self.segments.grow_ahead();
        if self.segments.has_filled() {
            self.queue.freed();
        }
        // Not if nothing came of it: there is no space, and those who commit are told.
        if self.is_pressed() && !flushed.is_empty() {
            self.queue.press();
        }
        Ok(())
    }

    /// Takes empty segments for use again, and looks whether one is worth cleaning.
    fn tidy(&self, cleaning: &mut Option<Cleaning>) -> Result<()> {
        self.segments.reap()?;
        self.segments.grow_ahead();
        self.pick_for_cleaning(cleaning);
        Ok(())
    }
}

struct Guard<'a>(&'a Node);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.queue.progress.fail(slice_store::Error::NoCommitter);
    }
}

fn into_store_error(error: Error) -> slice_store::Error {
    match error {
        Error::Store(e) => e,
        Error::Io { what, path, source } => slice_store::Error::Io { what, path, source: Arc::new(source) },
        other => {
            let source = Arc::new(std::io::Error::other(other.to_string()));
            slice_store::Error::Io { what: "write", path: "segments".into(), source }
        }
    }
}
