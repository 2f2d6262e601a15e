//! A write-ahead log of our own: preallocated segments, a checksum a record, group commit.
//!
//! ```text
//!   append ──▶ pending ──▶ the log's thread: pwrite, fdatasync (one for all that gathered) ──▶ waiters, each woken once
//!
//!   log/0000000000000001.seg  0000000000000c40.seg  …  spare          released from the oldest on; the file is used again
//! ```
//!
//! What is appended is durable in the order of its sequence: after a crash the log holds all records up to some
//! sequence, which is at least the last one that was said to be durable, and none after it. A torn tail is cut; damage
//! to anything that was durable is told. Opening starts a new segment, so nothing is ever written behind a cut.

pub(crate) mod record;
mod segment;
mod writer;

use crate::error::{Error, Result};
use parking_lot::{Condvar, Mutex};
pub(crate) use segment::sync_dir;
use slice_proto::ids::EnsembleId;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;
use writer::Writer;

/// Segments beyond which the oldest should be emptied by carrying its live records forward: bounds the log's space and
/// the time to read it back.
const CROWDED: usize = 4;

/// An open log.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// A record as recovery finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Its place.
    pub sequence: u64,
    /// What it says.
    pub payload: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Debug)]
struct Queue {
    /// Sequence of the next record to be appended.
    next: u64,
    /// Payloads of the records up to `next`, not yet taken by the writer.
    pending: Vec<Vec<u8>>,
    /// Every record up to this is durable.
    durable: u64,
    waiters: Vec<(u64, oneshot::Sender<Result<()>>)>,
    /// Records below this are needed no more.
    release: u64,
    /// First sequences of the segments, oldest first.
    segments: Vec<u64>,
    failed: Option<Error>,
    closing: bool,
}

impl Log {
    /// Makes an empty log in `dir`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn format(dir: &Path, ensemble: EnsembleId) -> Result<()> {
        Self::format_sized(dir, ensemble, segment::SEGMENT_BYTES)
    }

    fn format_sized(dir: &Path, ensemble: EnsembleId, bytes: u64) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
        let header = segment::Header { ensemble, first: 1, salt: new_salt(dir)? };
        segment::start(dir, header, bytes).map(|_| ())
    }

    /// Opens the log in `dir`: what it holds, in order, and the log itself with a new segment. Blocks: reads it back.
    ///
    /// # Errors
    /// [`Error::LogAbsent`], [`Error::BadSegment`], [`Error::Damaged`], [`Error::Io`].
    pub fn open(dir: &Path, ensemble: EnsembleId) -> Result<(Self, Vec<Recovered>)> {
        Self::open_sized(dir, ensemble, segment::SEGMENT_BYTES)
    }

    fn open_sized(dir: &Path, ensemble: EnsembleId, bytes: u64) -> Result<(Self, Vec<Recovered>)> {
        let (recovered, next, old) = recover(dir, ensemble)?;
        let mut writer = Writer::new(dir.to_owned(), ensemble, bytes, old);
        writer.rotate(next)?;
        let queue = Queue {
            next,
            pending: Vec::new(),
            durable: next - 1,
            waiters: Vec::new(),
            release: 0,
            segments: writer.segments(),
            failed: None,
            closing: false,
        };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), work: Condvar::new() });
        let run = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("intention-log".to_owned())
            .spawn(move || writer.run(&run))
            .map_err(|_| Error::NoWriter)?;
        Ok((Self { shared, writer: Some(thread) }, recovered))
    }

    /// Sequence that the next [`append`](Self::append) gets.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.shared.queue.lock().next
    }

    /// Appends a record; never blocks. Returns its sequence, to be [waited](Self::wait) for.
    ///
    /// # Errors
    /// The log's first write error.
    pub fn append(&self, payload: Vec<u8>) -> Result<u64> {
        debug_assert!((1..=record::MAX_PAYLOAD).contains(&payload.len()));
        let mut queue = self.shared.queue.lock();
        if let Some(error) = &queue.failed {
            return Err(error.clone());
        }
        let sequence = queue.next;
        queue.next += 1;
        let idle = queue.pending.is_empty();
        queue.pending.push(payload);
        drop(queue);
        if idle {
            self.shared.work.notify_one();
        }
        Ok(sequence)
    }

    /// Resolves when everything up to `sequence` is durable. Dropping it changes nothing.
    pub fn wait(&self, sequence: u64) -> impl Future<Output = Result<()>> + Send + use<> {
        let waiting = {
            let mut queue = self.shared.queue.lock();
            match &queue.failed {
                _ if queue.durable >= sequence => Ok(None),
                Some(error) => Err(error.clone()),
                None => {
                    let (tx, rx) = oneshot::channel();
                    queue.waiters.push((sequence, tx));
                    Ok(Some(rx))
                }
            }
        };
        async move {
            match waiting? {
                None => Ok(()),
                Some(rx) => rx.await.unwrap_or(Err(Error::NoWriter)),
            }
        }
    }

    /// Records below `sequence` are needed no more: segments that hold only such are used again.
    pub fn release(&self, sequence: u64) {
        let mut queue = self.shared.queue.lock();
        if sequence > queue.release {
            queue.release = sequence;
            drop(queue);
            self.shared.work.notify_one();
        }
    }

    /// Number of segments in use.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.shared.queue.lock().segments.len()
    }

    /// Whether too many segments are in use. Records below the returned sequence should be appended anew and released.
    #[must_use]
    pub fn crowded(&self) -> Option<u64> {
        let queue = self.shared.queue.lock();
        if queue.segments.len() <= CROWDED { None } else { queue.segments.get(1).copied() }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.queue.lock().closing = true;
        self.shared.work.notify_one();
        if let Some(writer) = self.writer.take() {
            // A panic of the writer has been printed; nobody is left to be told.
            let _ = writer.join();
        }
    }
}

/// What the log holds, the sequence after it, and the segments.
type Found = (Vec<Recovered>, u64, Vec<(u64, PathBuf)>);

fn recover(dir: &Path, ensemble: EnsembleId) -> Result<Found> {
    let segments = segment::list(dir, ensemble)?;
    let Some((_, oldest)) = segments.first() else { return Err(Error::LogAbsent { dir: dir.to_owned() }) };
    let mut next = oldest.first;
    let mut recovered = Vec::new();
    for (path, header) in &segments {
        if header.first != next {
            return Err(Error::BadSegment { path: path.clone(), why: "the records before it are missing" });
        }
        next = segment::read(path, *header, |r| {
            recovered.push(Recovered { sequence: r.sequence, payload: r.payload.to_vec() });
        })?;
    }
    Ok((recovered, next, segments.into_iter().map(|(path, header)| (header.first, path)).collect()))
}

fn new_salt(dir: &Path) -> Result<u64> {
    getrandom::u64().map_err(|e| Error::io("draw random bytes for", dir)(e.into()))
}

#[cfg(test)]
mod tests;
