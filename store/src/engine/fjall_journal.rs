//! Checks fjall's journals before fjall reads them, and cuts a torn tail off.
//!
//! fjall 3.1 refuses to open if a batch at the journal's end has both its ends but not its checksum, which a power cut can
//! leave behind (pages reach the disk in any order), and silently cuts everything after a damaged tag, acknowledged
//! batches included. We know more than fjall: the committer writes one batch, then fsyncs, so that at most the very last
//! batch can be torn. Hence: a damaged batch with nothing whole behind it is cut off; one with a whole batch behind it is
//! [`Error::Damaged`], because what was acknowledged is gone.
//!
//! Layout, all integers little-endian (fjall's `journal/entry.rs`):
//!
//! ```text
//! batch = 1 · count u32 · seqno u64 ‖ count × (item | clear) ‖ 3 · xxh3-64 of the items u64 · "FJL\x03"
//! item  = 2 · type u8 · compression u8 · keyspace u64 · key length u16 · value length u32 · stored length u32 · key · value
//! clear = 4 · keyspace u64
//! ```

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8] = b"FJL\x03";

/// What follows the last whole batch of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// Nothing, or zeros: the file is allocated ahead.
    Clean,
    /// Something that is no whole batch, and no whole batch behind it.
    Torn,
    /// Something that is no whole batch, and a whole one behind it.
    Damaged,
}

/// Checks all journals in `dir`; cuts the newest one's torn tail off.
pub(crate) fn check(dir: &Path) -> Result<()> {
    let mut journals = journals(dir)?;
    let newest = journals.pop();
    for (_, path) in journals {
        // A journal is fsynced whole before the next one is begun.
        match inspect(&path)? {
            (_, Tail::Clean) => {}
            (at, _) => return Err(Error::Damaged { path, at }),
        }
    }
    let Some((_, path)) = newest else { return Ok(()) };
    match inspect(&path)? {
        (_, Tail::Clean) => Ok(()),
        (at, Tail::Damaged) => Err(Error::Damaged { path, at }),
        (at, Tail::Torn) => {
            tracing::info!(journal = %path.display(), at, "cutting off a batch that was never acknowledged");
            let cut = || {
                let file = std::fs::File::options().write(true).open(&path)?;
                file.set_len(at)?;
                file.sync_all()
            };
            cut().map_err(Error::io("cut the torn end off", path.clone()))
        }
    }
}

/// The journals, oldest first.
fn journals(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        // A store that is just being made.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", dir)(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("list", dir))?.path();
        if path.extension().is_some_and(|e| e == "jnl")
            && let Some(id) = path.file_stem().and_then(|s| s.to_str()?.parse().ok())
        {
            found.push((id, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Where the last whole batch ends, and what follows it. Reads the whole file: fjall keeps them near 64 MiB.
fn inspect(path: &Path) -> Result<(u64, Tail)> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let (at, tail) = judge(&bytes);
    Ok((at as u64, tail))
}

/// What a preallocated journal ends with, a block at a time.
const ZEROS: [u8; 4096] = [0; 4096];

fn judge(bytes: &[u8]) -> (usize, Tail) {
    let (mut at, mut last) = (0, None);
    while let Some((end, seqno)) = batch(bytes, at) {
        (at, last) = (end, Some(seqno));
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let Some(used) = rest.chunks(ZEROS.len()).rposition(|chunk| !ZEROS.starts_with(chunk)) else {
        return (at, Tail::Clean);
    };
    // No batch begins behind the last block that holds anything: it ends in a trailer.
    let mut starts = 1..rest.len().min((used + 1) * ZEROS.len());
    let whole_behind = starts.any(|i| batch(rest, i).is_some_and(|(_, seqno)| Some(seqno) > last));
    (at, if whole_behind { Tail::Damaged } else { Tail::Torn })
}

/// The end and the sequence number of the whole batch that begins at `at`, if one does.
fn batch(bytes: &[u8], at: usize) -> Option<(usize, u64)> {
    let mut r = Cursor { bytes, at };
    if r.take::<1>()? != [START] {
        return None;
    }
    let count = u32::from_le_bytes(r.take()?);
    let seqno = u64::from_le_bytes(r.take()?);
    let first = r.at;
    for _ in 0..count {
        match r.take()? {
            [ITEM] => {
                r.skip(1 + 1 + 8)?;
                let key = u16::from_le_bytes(r.take()?);
                r.skip(4)?;
                let stored = u32::from_le_bytes(r.take()?);
                r.skip(usize::from(key))?;
                r.skip(usize::try_from(stored).ok()?)?;
            }
            [CLEAR] => r.skip(8)?,
            _ => return None,
        }
    }
    let items = bytes.get(first..r.at)?;
    if r.take()? != [END] || u64::from_le_bytes(r.take()?) != xxh3_64(items) || r.take::<4>()? != *TRAILER {
        return None;
    }
    Some((r.at, seqno))
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let end = self.at.checked_add(N)?;
        let got = self.bytes.get(self.at..end)?.try_into().ok()?;
        self.at = end;
        Some(got)
    }

    fn skip(&mut self, n: usize) -> Option<()> {
        self.at = self.at.checked_add(n).filter(|end| *end <= self.bytes.len())?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fjall::{Database, KeyspaceCreateOptions, PersistMode};

    /// Where a batch has its sequence number: the one field that fjall's checksum does not cover. A torn write does
    /// not change it alone, for it stands in front of the items; a decayed disk could, and neither fjall nor we would see.
    const SEQNO: std::ops::Range<usize> = 5..13;

    /// A journal as fjall itself writes it: three batches of two items; and where each ends.
    fn written_by_fjall() -> (Vec<u8>, Vec<usize>) {
        let dir = tempfile::tempdir().unwrap();
        let db = Database::builder(dir.path()).open().unwrap();
        let data = db.keyspace("data", KeyspaceCreateOptions::default).unwrap();
        for n in 0..3u8 {
            let mut b = db.batch();
            // The second value is above fjall's threshold for compression in the journal.
            b.insert(&data, [n, 0], [n; 200]);
            b.insert(&data, [n, 1], vec![n; 6_000]);
            b.commit().unwrap();
        }
        db.persist(PersistMode::SyncAll).unwrap();
        let (_, path) = journals(dir.path()).unwrap().pop().unwrap();
        let mut bytes = std::fs::read(path).unwrap();
        let mut ends = Vec::new();
        let mut at = 0;
        while let Some((end, _)) = batch(&bytes, at) {
            ends.push(end);
            at = end;
        }
        bytes.truncate(at + 4096);
        (bytes, ends)
    }

    #[test]
    fn fjalls_own_journal_is_clean() {
        let (bytes, ends) = written_by_fjall();
        assert_eq!(ends.len(), 3, "fjall's journal format has changed: read journal/entry.rs again");
        assert_eq!(judge(&bytes), (ends[2], Tail::Clean));
    }

    #[test]
    fn every_damage_of_the_last_batch_is_a_torn_tail() {
        let (bytes, ends) = written_by_fjall();
        for at in (ends[1]..ends[2]).filter(|at| !SEQNO.contains(&(at - ends[1]))) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x55;
            assert_eq!(judge(&bad), (ends[1], Tail::Torn), "byte {at}");
            // Cut there, and the rest of the page zeros; at the first byte this is no tail at all.
            bad.truncate(at);
            bad.resize(ends[2] + 100, 0);
            let got = judge(&bad);
            assert!(
                got == (ends[1], if at == ends[1] { Tail::Clean } else { Tail::Torn }),
                "cut at {at}: {got:?}"
            );
        }
    }

    #[test]
    fn damage_before_a_whole_batch_is_not_cut_off() {
        let (bytes, ends) = written_by_fjall();
        for at in 0..ends[1] {
            let mut bad = bytes.clone();
            bad[at] ^= 0x55;
            let from = if at < ends[0] { 0 } else { ends[0] };
            if SEQNO.contains(&(at - from)) {
                continue;
            }
            assert_eq!(judge(&bad), (from, Tail::Damaged), "byte {at}");
        }
    }
}
