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
use parking_lot::{Condvar, Mutex, MutexGuard};
pub(crate) use segment::SEGMENT_BYTES;
use slice_proto::ids::EnsembleId;
use slice_system::{Files, Random, System};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;
use writer::{Work, Writer};

/// Segments beyond which the oldest should be emptied by carrying its live records forward: bounds the log's space and
/// the time to read it back.
const CROWDED: usize = 4;

/// Where a log lies.
#[derive(Debug, Clone)]
pub struct Place {
    /// On which files.
    pub files: Arc<dyn Files>,
    /// Where the salts of its checksums come from.
    pub random: Random,
    /// Its directory.
    pub dir: PathBuf,
    /// The ensemble whose it is.
    pub ensemble: EnsembleId,
    /// Bytes of a segment.
    pub segment_bytes: u64,
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    runner: Runner,
}

/// Who writes it.
#[derive(Debug)]
enum Runner {
    /// A thread; none once it has ended.
    Thread(Option<JoinHandle<()>>),
    /// Whoever calls [`Log::turn`].
    Turns(Mutex<Writer>),
}

/// Told that there is work.
type Turn = Box<dyn Fn() + Send + Sync>;

/// A record as recovery finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Its place.
    pub sequence: u64,
    /// What it says.
    pub payload: Vec<u8>,
}

pub(crate) struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    /// Where there is no thread: told instead of `work`.
    call: Option<Turn>,
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
    /// A turn was called for, and has not begun.
    called: bool,
}

impl Place {
    /// In a directory of this name on these files, with segments of the usual size.
    #[must_use]
    pub fn on(system: &System, dir: PathBuf, ensemble: EnsembleId) -> Self {
        let (files, random) = (Arc::clone(&system.files), system.random.clone());
        Self { files, random, dir, ensemble, segment_bytes: SEGMENT_BYTES }
    }

    fn salt(&self) -> Result<u64> {
        self.random.number().map_err(Error::io("draw random bytes for", &self.dir))
    }
}

impl Log {
    /// Makes an empty log.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn format(place: &Place) -> Result<()> {
        place.files.make_durable_dirs(&place.dir).map_err(Error::io("make", &place.dir))?;
        let header = segment::Header { ensemble: place.ensemble, first: 1, salt: place.salt()? };
        segment::start(place, header).map(|_| ())
    }

    /// Opens the log: what it holds, in order, and the log itself with a new segment. Blocks: reads it back.
    ///
    /// # Errors
    /// [`Error::LogAbsent`], [`Error::BadSegment`], [`Error::Damaged`], [`Error::Io`].
    pub fn open(place: Place) -> Result<(Self, Vec<Recovered>)> {
        let (writer, shared, recovered) = Self::start(place, None)?;
        let run = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("intention-log".to_owned())
            .spawn(move || writer.run(&run))
            .map_err(|_| Error::NoWriter)?;
        Ok((Self { shared, runner: Runner::Thread(Some(thread)) }, recovered))
    }

    /// The same without a thread: for simulations. `wanted` is told when there is something to write, and has then to see to it
    /// that [`turn`](Self::turn) is called, once for each time that it was told.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_on(
        place: Place,
        wanted: impl Fn() + Send + Sync + 'static,
    ) -> Result<(Self, Vec<Recovered>)> {
        let (writer, shared, recovered) = Self::start(place, Some(Box::new(wanted)))?;
        Ok((Self { shared, runner: Runner::Turns(Mutex::new(writer)) }, recovered))
    }

    /// Takes the turn that was wanted ([`open_on`](Self::open_on)): writes what has gathered, and makes it durable.
    pub fn turn(&self) {
        let Runner::Turns(writer) = &self.runner else { return };
        let work = {
            let mut queue = self.shared.queue.lock();
            queue.called = false;
            queue.take()
        };
        if let Some(work) = work {
            writer.lock().step(&self.shared, &work);
        }
    }

    fn start(place: Place, call: Option<Turn>) -> Result<(Writer, Arc<Shared>, Vec<Recovered>)> {
        let (recovered, next, old) = recover(&place)?;
        let mut writer = Writer::new(place, old);
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
            called: false,
        };
        Ok((writer, Arc::new(Shared { queue: Mutex::new(queue), work: Condvar::new(), call }), recovered))
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
        if idle {
            self.shared.wake(queue);
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
            self.shared.wake(queue);
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
        if let Runner::Thread(thread) = &mut self.runner
            && let Some(thread) = thread.take()
        {
            self.shared.work.notify_one();
            // A panic of the writer has been printed; nobody is left to be told.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// There is something to do.
    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        match &self.call {
            None => {
                drop(queue);
                self.work.notify_one();
            }
            Some(call) => {
                if !std::mem::replace(&mut queue.called, true) {
                    drop(queue);
                    call();
                }
            }
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({:?})", self.queue)
    }
}

impl Queue {
    /// All that is to be done, if there is anything.
    fn take(&mut self) -> Option<Work> {
        let releasable = self.segments.get(1).is_some_and(|second| *second <= self.release);
        if self.pending.is_empty() && !releasable {
            return None;
        }
        let payloads = std::mem::take(&mut self.pending);
        let first = self.next - payloads.len() as u64;
        Some(Work { first, payloads, durable: self.durable, release: self.release })
    }
}

/// What the log holds, the sequence after it, and the segments.
type Found = (Vec<Recovered>, u64, Vec<(u64, PathBuf)>);

fn recover(place: &Place) -> Result<Found> {
    let segments = segment::list(place)?;
    let Some((_, oldest)) = segments.first() else { return Err(Error::LogAbsent { dir: place.dir.clone() }) };
    let mut next = oldest.first;
    let mut recovered = Vec::new();
    for (path, header) in &segments {
        if header.first != next {
            return Err(Error::BadSegment { path: path.clone(), why: "the records before it are missing" });
        }
        next = segment::read(&*place.files, path, *header, |r| {
            recovered.push(Recovered { sequence: r.sequence, payload: r.payload.to_vec() });
        })?;
    }
    Ok((recovered, next, segments.into_iter().map(|(path, header)| (header.first, path)).collect()))
}

#[cfg(test)]
mod tests;
