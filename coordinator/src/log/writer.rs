//! The log's thread: writes and fsyncs what has gathered, starts new segments, uses released ones again.

use super::record::{Record, room};
use super::segment::{self, Header, RECORDS_AT};
use super::{Queue, Shared, new_salt};
use crate::error::{Error, Result};
use slice_proto::ids::EnsembleId;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

pub(crate) struct Writer {
    dir: PathBuf,
    ensemble: EnsembleId,
    segment_bytes: u64,
    /// First sequence and file of every segment, oldest first; the last is being written.
    segments: Vec<(u64, PathBuf)>,
    current: Option<Current>,
}

struct Current {
    file: File,
    salt: u64,
    /// Where the next record goes.
    at: u64,
}

/// What the writer takes from the queue at a time.
struct Work {
    /// Sequence of the first record.
    first: u64,
    payloads: Vec<Vec<u8>>,
    durable: u64,
    release: u64,
}

impl Writer {
    pub(crate) fn new(
        dir: PathBuf,
        ensemble: EnsembleId,
        segment_bytes: u64,
        segments: Vec<(u64, PathBuf)>,
    ) -> Self {
        Self { dir, ensemble, segment_bytes, segments, current: None }
    }

    /// First sequences of the segments.
    pub(crate) fn segments(&self) -> Vec<u64> {
        self.segments.iter().map(|(first, _)| *first).collect()
    }

    /// Starts the segment whose first record will be `first`.
    pub(crate) fn rotate(&mut self, first: u64) -> Result<()> {
        // A segment that nothing was written to would have the same name: it becomes the spare.
        if self.segments.last().is_some_and(|(f, _)| *f == first)
            && let Some((_, path)) = self.segments.pop()
        {
            std::fs::rename(&path, segment::spare_path(&self.dir)).map_err(Error::io("rename", path))?;
        }
        let salt = new_salt(&self.dir)?;
        let header = Header { ensemble: self.ensemble, first, salt };
        let (file, path) = segment::start(&self.dir, header, self.segment_bytes)?;
        self.current = Some(Current { file, salt, at: RECORDS_AT });
        self.segments.push((first, path));
        Ok(())
    }

    /// The thread's life.
    pub(crate) fn run(mut self, shared: &Shared) {
        while let Some(work) = next(shared) {
            let last = work.first + work.payloads.len() as u64 - 1;
            let outcome = self.write(&work).and_then(|()| self.reuse(work.release));
            let mut queue = shared.queue.lock();
            queue.segments = self.segments();
            if let Err(error) = outcome {
                tracing::error!(%error, "the intention log takes no more records");
                queue.failed = Some(error.clone());
                for (_, waiter) in queue.waiters.drain(..) {
                    // A waiter that is gone does not want to know.
                    let _ = waiter.send(Err(error.clone()));
                }
                return;
            }
            queue.durable = last;
            let (done, waiting) =
                std::mem::take(&mut queue.waiters).into_iter().partition(|(s, _)| *s <= last);
            queue.waiters = waiting;
            drop(queue);
            let done: Vec<_> = done;
            for (_, waiter) in done {
                let _ = waiter.send(Ok(()));
            }
        }
    }

    /// Writes the records and makes them durable.
    fn write(&mut self, work: &Work) -> Result<()> {
        let mut buffer = Vec::new();
        for (sequence, payload) in (work.first..).zip(&work.payloads) {
            let full = self
                .current
                .as_ref()
                .is_none_or(|c| c.at + (buffer.len() + room(payload.len())) as u64 > self.segment_bytes);
            if full {
                self.flush(&mut buffer)?;
                self.rotate(sequence)?;
            }
            if let Some(current) = &self.current {
                Record { sequence, durable: work.durable, payload }.encode(current.salt, &mut buffer);
            }
        }
        self.flush(&mut buffer)
    }

    fn flush(&mut self, buffer: &mut Vec<u8>) -> Result<()> {
        let Some(current) = self.current.as_mut().filter(|_| !buffer.is_empty()) else { return Ok(()) };
        let write = current.file.write_all_at(buffer, current.at).and_then(|()| current.file.sync_data());
        write
            .map_err(Error::io("write", self.segments.last().map(|(_, p)| p.clone()).unwrap_or_default()))?;
        current.at += buffer.len() as u64;
        buffer.clear();
        Ok(())
    }

    /// Frees the oldest segments as long as all their records are below `release`.
    fn reuse(&mut self, release: u64) -> Result<()> {
        let keep = self.segments.iter().skip(1).take_while(|(first, _)| *first <= release).count();
        if keep == 0 {
            return Ok(());
        }
        let spare = segment::spare_path(&self.dir);
        for (_, path) in self.segments.drain(..keep) {
            let whole = std::fs::metadata(&path).is_ok_and(|m| m.len() == self.segment_bytes);
            if whole && !spare.exists() {
                std::fs::rename(&path, &spare).map_err(Error::io("rename", &path))?;
            } else {
                std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
            // In order: a newer segment that is gone must never leave an older one behind.
            segment::sync_dir(&self.dir)?;
        }
        Ok(())
    }
}

/// Waits until there is something to do, and takes all of it.
fn next(shared: &Shared) -> Option<Work> {
    let mut queue = shared.queue.lock();
    loop {
        if !queue.pending.is_empty() || releasable(&queue) {
            let payloads = std::mem::take(&mut queue.pending);
            let first = queue.next - payloads.len() as u64;
            return Some(Work { first, payloads, durable: queue.durable, release: queue.release });
        }
        if queue.closing {
            return None;
        }
        shared.work.wait(&mut queue);
    }
}

fn releasable(queue: &Queue) -> bool {
    queue.segments.get(1).is_some_and(|second| *second <= queue.release)
}
