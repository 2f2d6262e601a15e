//! Who writes the log, a thread of its own or, in a simulation, whoever is told that there is work: writes and fsyncs what has gathered, starts new segments, uses released ones again.

use super::record::{Record, room};
use super::segment::{self, Header, RECORDS_AT};
use super::{Place, Shared};
use crate::error::{Error, Result};
use slice_system::File;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Writer {
    place: Place,
    /// First sequence and file of every segment, oldest first; the last is being written.
    segments: Vec<(u64, PathBuf)>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    file: Arc<dyn File>,
    salt: u64,
    /// Where the next record goes.
    at: u64,
}

/// What the writer takes from the queue at a time.
#[derive(Debug)]
pub(crate) struct Work {
    /// Sequence of the first record.
    pub first: u64,
    pub payloads: Vec<Vec<u8>>,
    pub durable: u64,
    pub release: u64,
}

impl Writer {
    pub(crate) fn new(place: Place, segments: Vec<(u64, PathBuf)>) -> Self {
        Self { place, segments, current: None }
    }

    /// First sequences of the segments.
    pub(crate) fn segments(&self) -> Vec<u64> {
        self.segments.iter().map(|(first, _)| *first).collect()
    }

    /// Starts the segment whose first record will be `first`.
    pub(crate) fn rotate(&mut self, first: u64) -> Result<()> {
        // A segment that nothing was written to has the same name: the new one takes its place, in one step, for it may be the
        // only one there is.
        if self.segments.last().is_some_and(|(f, _)| *f == first) {
            self.segments.pop();
        }
        let salt = self.place.salt()?;
        let header = Header { ensemble: self.place.ensemble, first, salt };
        let (file, path) = segment::start(&self.place, header)?;
        self.current = Some(Current { file, salt, at: RECORDS_AT });
        self.segments.push((first, path));
        Ok(())
    }

    /// The thread's life.
    pub(crate) fn run(mut self, shared: &Shared) {
        while let Some(work) = next(shared)
            && self.step(shared, &work)
        {}
    }

    /// Does what there is to do, and tells those who wait; whether the log goes on.
    pub(crate) fn step(&mut self, shared: &Shared, work: &Work) -> bool {
        let last = work.first + work.payloads.len() as u64 - 1;
        let outcome = self.write(work).and_then(|()| self.reuse(work.release));
        let mut queue = shared.queue.lock();
        queue.segments = self.segments();
        if let Err(error) = outcome {
            tracing::error!(%error, "the intention log takes no more records");
            queue.failed = Some(error.clone());
            for (_, waiter) in queue.waiters.drain(..) {
                // A waiter that is gone does not want to know.
                let _ = waiter.send(Err(error.clone()));
            }
            return false;
        }
        queue.durable = last;
        let (done, waiting) = std::mem::take(&mut queue.waiters).into_iter().partition(|(s, _)| *s <= last);
        queue.waiters = waiting;
        drop(queue);
        let done: Vec<_> = done;
        for (_, waiter) in done {
            let _ = waiter.send(Ok(()));
        }
        true
    }

    /// Writes the records and makes them durable.
    fn write(&mut self, work: &Work) -> Result<()> {
        let mut buffer = Vec::new();
        for (sequence, payload) in (work.first..).zip(&work.payloads) {
            let full = self.current.as_ref().is_none_or(|c| {
                c.at + (buffer.len() + room(payload.len())) as u64 > self.place.segment_bytes
            });
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
        let (files, dir) = (&*self.place.files, &self.place.dir);
        let spare = segment::spare_path(dir);
        for (_, path) in self.segments.drain(..keep) {
            let whole = files.stat(&path).is_ok_and(|s| s.len == self.place.segment_bytes);
            if whole && files.stat(&spare).is_err() {
                files.rename(&path, &spare).map_err(Error::io("rename", &path))?;
            } else {
                files.remove(&path).map_err(Error::io("remove", &path))?;
            }
            // In order: a newer segment that is gone must never leave an older one behind.
            segment::sync_dir(files, dir)?;
        }
        Ok(())
    }
}

/// Waits until there is something to do, and takes all of it.
fn next(shared: &Shared) -> Option<Work> {
    let mut queue = shared.queue.lock();
    loop {
        if let Some(work) = queue.take() {
            return Some(work);
        }
        if queue.closing {
            return None;
        }
        shared.work.wait(&mut queue);
    }
}
