//! What an engine must be able to do, and which there are.

pub(crate) mod fjall;
mod fjall_journal;
pub(crate) mod sled;

use crate::error::{Error, Result};
use crate::stamp::StoreStamp;
use bytes::Bytes;
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::str::FromStr;

/// Keys and values in key order.
pub type Pairs = Box<dyn Iterator<Item = Result<(Bytes, Bytes)>> + Send>;

/// A range of keys, ordered as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// Where it starts.
    pub start: Bound<Bytes>,
    /// Where it ends.
    pub end: Bound<Bytes>,
}

/// Which way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key of the range up.
    Forward,
    /// From the greatest key of the range down.
    Backward,
}

/// An ordered map on disk. One thread writes, many read. Everything may block on the disk.
pub trait Engine: Send + Sync {
    /// The value at `key`.
    ///
    /// # Errors
    /// [`Error::Engine`].
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;

    /// The pairs in `range`. What is written later may show or not; what stands throughout shows exactly once.
    fn iter(&self, range: KeyRange, direction: Direction) -> Pairs;

    /// Makes all changes or none, visible to readers on return, durable after the next [`persist`](Self::persist).
    /// No key occurs twice. Changes of one call that is followed by a persist are never found by halves.
    ///
    /// # Errors
    /// [`Error::Engine`]; the engine is not to be written again.
    fn write(&self, ops: &mut dyn ExactSizeIterator<Item = (&Bytes, Option<&Bytes>)>) -> Result<()>;

    /// Makes durable all that was written before the call.
    ///
    /// # Errors
    /// [`Error::Engine`]; what was written since the last persist may or may not be there after a crash.
    fn persist(&self) -> Result<()>;

    /// Bytes on disk.
    ///
    /// # Errors
    /// [`Error::Engine`].
    fn space(&self) -> Result<u64>;

    /// The stamp that was put beside the data.
    ///
    /// # Errors
    /// [`Error::Engine`].
    fn stamp(&self) -> Result<Option<Bytes>>;

    /// Puts the stamp beside the data, durably.
    ///
    /// # Errors
    /// [`Error::Engine`].
    fn set_stamp(&self, stamp: &[u8]) -> Result<()>;
}

/// Which engine keeps the data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// fjall 3: a log-structured merge tree whose fsync is one. The default.
    #[default]
    Fjall,
    /// sled 0.34: survives a killed process, but **not a power cut**: its flush calls `sync_file_range`, which does
    /// not make a disk write its cache, and it may refuse to open afterwards. For comparison and for tests.
    Sled,
}

impl EngineKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Fjall, Self::Sled];

    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Fjall => 1,
            Self::Sled => 2,
        }
    }

    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.code() == code)
    }

    /// Opens the engine's files in `dir`, making them if `create`.
    pub(crate) fn open(self, dir: &Path, create: bool) -> Result<Box<dyn Engine>> {
        if !create && !dir.is_dir() {
            return Err(Error::Absent { dir: dir.to_owned() });
        }
        Ok(match self {
            Self::Fjall => Box::new(fjall::Fjall::open(dir)?),
            Self::Sled => Box::new(sled::Sled::open(dir)?),
        })
    }
}

/// Checks that an engine's own stamp is the one in the stamp file: nobody swapped the files below.
pub(crate) fn check_stamp(
    engine: &dyn Engine,
    stamp: &StoreStamp,
    kind: EngineKind,
    dir: &Path,
) -> Result<()> {
    match engine.stamp()? {
        Some(found) if found == stamp.encode(kind) => Ok(()),
        _ => Err(Error::Mixed { dir: dir.to_owned() }),
    }
}

// === impl EngineKind ===

impl FromStr for EngineKind {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "fjall" => Ok(Self::Fjall),
            "sled" => Ok(Self::Sled),
            _ => Err(Error::UnknownEngine(s.to_owned())),
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fjall => "fjall",
            Self::Sled => "sled",
        })
    }
}

// === impl KeyRange ===

impl KeyRange {
    /// Every key.
    #[must_use]
    pub const fn all() -> Self {
        Self { start: Bound::Unbounded, end: Bound::Unbounded }
    }

    /// The keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        let prefix = prefix.as_ref();
        Self { start: Bound::Included(Bytes::copy_from_slice(prefix)), end: after_prefix(prefix) }
    }

    /// The keys that begin with `prefix` and come after `last`: the next page of a scan.
    #[must_use]
    pub fn prefix_after(prefix: impl AsRef<[u8]>, last: impl AsRef<[u8]>) -> Self {
        Self {
            start: Bound::Excluded(Bytes::copy_from_slice(last.as_ref())),
            end: after_prefix(prefix.as_ref()),
        }
    }

    /// The keys in `range`.
    #[must_use]
    pub fn of<K: AsRef<[u8]>>(range: impl RangeBounds<K>) -> Self {
        let own = |b: Bound<&K>| b.map(|k| Bytes::copy_from_slice(k.as_ref()));
        Self { start: own(range.start_bound()), end: own(range.end_bound()) }
    }

    /// Whether no key can be in it. Asked first, because ordered maps panic at a range that ends before it starts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(a), Bound::Included(b)) => a > b,
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
        }
    }
}

/// The end of the keys that begin with `prefix`: the prefix with its last byte below 255 raised by one.
fn after_prefix(prefix: &[u8]) -> Bound<Bytes> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bound::Excluded(end.into());
        }
    }
    Bound::Unbounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_where_the_next_begins() {
        assert_eq!(after_prefix(b"ab"), Bound::Excluded(Bytes::from_static(b"ac")));
        assert_eq!(after_prefix(&[1, 255, 255]), Bound::Excluded(Bytes::from_static(&[2])));
        assert_eq!(after_prefix(&[255]), Bound::Unbounded);
        assert_eq!(after_prefix(b""), Bound::Unbounded);
    }

    #[test]
    fn backward_ranges_are_empty() {
        assert!(KeyRange::of(b"b".as_slice()..b"a".as_slice()).is_empty());
        assert!(KeyRange::of(b"a".as_slice()..b"a".as_slice()).is_empty());
        assert!(!KeyRange::of(b"a".as_slice()..=b"a".as_slice()).is_empty());
        assert!(KeyRange::of::<[u8; 1]>((Bound::Excluded(b"a"), Bound::Included(b"a"))).is_empty());
    }
}
