//! A µproxy's soft state, one per thread, bounded: what it knows of files, and what it has to push.
//! All of it may be lost at any moment with nothing lost to the user: bytes whose COMMIT is due come again because the
//! write verifier changes, sizes and times were pushed before anything promised them.

pub mod clock;
pub mod file;
pub mod uncommitted;

use file::FileState;
use quick_cache::unsync::Cache;
use quick_cache::{Lifecycle, UnitWeighter};
use slice_proto::ids::FileId;
use slice_proto::nfs3::Fattr3;
use slice_proto::trailer::Stamp;
use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;
use tokio::time::Instant;

/// Files that one thread remembers: about 4 MiB.
pub const MAX_FILES: usize = 16 << 10;
/// Files with something to push that one thread may have; a WRITE to one more waits for its push, so that what cannot
/// be evicted stays bounded.
pub const MAX_DIRTY: usize = 4 << 10;
/// Growth and times are pushed within this time (DESIGN §8).
pub const PUSH_WITHIN: Duration = Duration::from_secs(1);

/// File ids are a site and a counter: multiplied, they spread well.
#[derive(Default)]
pub struct FileHasher(u64);

impl Hasher for FileHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_u64(&mut self, id: u64) {
        let h = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = h ^ h >> 32;
    }
}

/// Evicts only what needs no push, and tells when a record of uncommitted bytes went.
#[derive(Debug, Default)]
struct Keep;

impl Lifecycle<FileId, FileState> for Keep {
    /// Whether a record of uncommitted bytes was evicted.
    type RequestState = bool;

    fn is_pinned(&self, _: &FileId, file: &FileState) -> bool {
        file.is_dirty()
    }

    fn on_evict(&self, lost: &mut bool, _: FileId, file: FileState) {
        *lost |= !file.uncommitted.is_empty();
    }
}

type Files = Cache<FileId, FileState, UnitWeighter, BuildHasherDefault<FileHasher>, Keep>;

/// One thread's soft state.
pub struct Soft {
    files: Files,
    /// Files that became dirty, in order, and when they are to be pushed.
    due: VecDeque<(Instant, FileId)>,
    /// A record of uncommitted bytes was evicted once: files met from now on may have such bytes.
    forgotten: bool,
    /// Counts names that were taken away by calls passing through: nobody says which file has lost a link.
    taken: u64,
    /// Ensemble time.
    pub clock: clock::EnsembleClock,
}

impl Default for Soft {
    fn default() -> Self {
        Self::with_capacity(MAX_FILES)
    }
}

impl Soft {
    /// Soft state for at most `files` files (and what is dirty besides).
    #[must_use]
    pub fn with_capacity(files: usize) -> Self {
        // The estimate only sizes the first allocation: an idle µproxy owns next to nothing.
        let cache = Cache::with(1, files as u64, UnitWeighter, BuildHasherDefault::default(), Keep);
        Self {
            files: cache,
            due: VecDeque::new(),
            forgotten: false,
            taken: 0,
            clock: clock::EnsembleClock::default(),
        }
    }

    /// Files that are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether no file is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.len() == 0
    }

    /// Files whose growth or times are to be pushed.
    #[must_use]
    pub fn due(&self) -> usize {
        self.due.len()
    }

    /// A file, if it is known.
    #[must_use]
    pub fn get(&self, file: FileId) -> Option<&FileState> {
        self.files.get(&file)
    }

    /// Changes a file, if it is known.
    pub fn update<T>(&mut self, file: FileId, change: impl FnOnce(&mut FileState) -> T) -> Option<T> {
        self.files.get_mut(&file).map(|mut state| change(&mut state))
    }

    /// Changes a file, known or not.
    pub fn upsert<T>(&mut self, file: FileId, change: impl FnOnce(&mut FileState) -> T) -> T {
        if let Some(mut state) = self.files.get_mut(&file) {
            return change(&mut state);
        }
        let mut state = FileState::default();
        state.forgotten = self.forgotten;
        let result = change(&mut state);
        let mut lost = false;
        self.files.insert_with_lifecycle(file, state, &mut lost);
        self.forgotten |= lost;
        result
    }

    /// Takes in attributes that the home site has shown: see [`FileState::absorb`].
    pub fn absorb(
        &mut self,
        file: FileId,
        attr: &Fattr3,
        stamp: Stamp,
        now: Instant,
        replayed: bool,
    ) -> Option<&FileState> {
        let taken = self.taken;
        self.upsert(file, |state| state.absorb(attr, stamp, (now, taken), replayed));
        self.get(file)
    }

    /// A name was taken away, perhaps a file's.
    pub const fn name_taken(&mut self) {
        self.taken += 1;
    }

    /// Attributes for the reply to a WRITE or COMMIT, if they are known to be true: fresh, and not of a file that may have
    /// lost one of its links since.
    #[must_use]
    pub fn shown(&self, file: FileId, now: Instant) -> Option<Fattr3> {
        let state = self.get(file)?;
        state.fresh(now).filter(|attr| attr.nlink <= 1 || state.taken == self.taken)
    }

    /// Notes that a file is dirty; true if nothing was due before: somebody must attend to what is due.
    #[must_use]
    pub fn dirtied(&mut self, file: FileId, now: Instant) -> bool {
        let queued = self.update(file, |state| std::mem::replace(&mut state.queued, true));
        if queued != Some(false) {
            return false;
        }
        let first = self.due.is_empty();
        self.due.push_back((now + PUSH_WITHIN, file));
        first
    }

    /// Whether as many files as may be have something to push.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.due.len() >= MAX_DIRTY
    }

    /// When the next push is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.due.front().map(|(at, _)| *at)
    }

    /// Takes the next file whose push is due at `now`. It may have been pushed meanwhile.
    pub fn take_due(&mut self, now: Instant) -> Option<FileId> {
        let file = self.due.front().filter(|(at, _)| *at <= now).map(|(_, file)| *file)?;
        self.due.pop_front();
        self.update(file, |state| state.queued = false);
        Some(file)
    }

    /// Files that have something to push.
    #[must_use]
    pub fn dirty(&self) -> Vec<FileId> {
        self.files.iter().filter(|(_, state)| state.is_dirty()).map(|(file, _)| *file).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::file::Wrote;
    use super::*;
    use slice_proto::ids::{Epoch, Site};
    use slice_proto::placement::DataSite;

    fn dirty(state: &mut FileState) {
        state.wrote(Wrote { epoch: Epoch(0), end: 1, time_ns: 1, clear_set_ids: false }, None);
    }

    #[test]
    fn what_is_to_be_pushed_is_never_evicted() {
        let mut soft = Soft::with_capacity(64);
        for id in 0..10_000 {
            soft.upsert(FileId(id), |s| {
                if id % 100 == 0 {
                    dirty(s)
                }
            });
        }
        assert_eq!(soft.dirty().len(), 100);
        assert!(soft.files.len() <= 64 + 100, "{}", soft.files.len());
    }

    #[test]
    fn an_evicted_record_of_uncommitted_bytes_makes_later_records_doubtful() {
        let mut soft = Soft::with_capacity(16);
        soft.upsert(FileId(0), |s| s.uncommitted.wrote(DataSite::Small(Site(1))));
        // Files in use push it out; files met once would only push each other out.
        for id in (1..1000u64).flat_map(|id| [id, id, id.saturating_sub(5)]).filter(|id| *id != 0) {
            soft.upsert(FileId(id), |_| ());
        }
        assert!(soft.get(FileId(0)).is_none());
        assert!(soft.upsert(FileId(5000), |s| s.forgotten));
    }

    #[tokio::test(start_paused = true)]
    async fn pushes_fall_due_in_order() {
        let mut soft = Soft::default();
        soft.upsert(FileId(1), dirty);
        soft.upsert(FileId(2), dirty);
        let now = Instant::now();
        assert!(soft.dirtied(FileId(1), now));
        assert!(!soft.dirtied(FileId(1), now), "noted already");
        assert!(!soft.dirtied(FileId(2), now + Duration::from_millis(5)));
        assert_eq!(soft.take_due(now), None);
        assert_eq!(soft.take_due(now + PUSH_WITHIN), Some(FileId(1)));
        assert_eq!(soft.take_due(now + PUSH_WITHIN), None);
        assert_eq!(soft.next_due(), Some(now + PUSH_WITHIN + Duration::from_millis(5)));
    }
}
