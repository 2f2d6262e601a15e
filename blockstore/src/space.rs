//! Space for bytes: refused at the WRITE, not at the COMMIT, and never the last of it.
//!
//! The file system itself reserves blocks at `pwrite` (delayed allocation of ext4, XFS and btrfs counts them as used at
//! once). What is kept free beyond that is for metadata: truncate and purge must go on when the disk is full.
//!
//! A long WRITE that makes a file longer has its blocks allocated first, all at once and no more than it fills: ext4's
//! delayed allocation accounts for each 4 KiB by itself, and 1 MiB costs 130 instead of 210 µs of CPU so (docs/performance.md).

use crate::error::{Error, Result};
use slice_system::{Directory, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that WRITEs leave free: some hundred thousand records of purges and truncates.
pub(crate) const RESERVE_BYTES: u64 = 32 << 20;
/// Bytes that may be written until the file system is asked again: well below the reserve, so that several servers
/// on one disk together do not use it up between two looks.
const GRANT_BYTES: u64 = 4 << 20;
/// A WRITE shorter than this does not gain by allocating at once: it would cost about as much as it saves.
const ALLOCATE_MIN: u64 = 256 << 10;

/// What may still be written.
#[derive(Debug)]
pub(crate) struct Space {
    dir: Arc<dyn Directory>,
    /// Bytes that may be written without asking. Approximate: threads race for the last of it, and that does not matter.
    granted: AtomicU64,
}

/// A file system's size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Bytes.
    pub total: u64,
    /// Bytes free, the reserve taken off.
    pub free: u64,
}

impl Space {
    pub(crate) fn of(dir: Arc<dyn Directory>) -> Self {
        Self { dir, granted: AtomicU64::new(0) }
    }

    pub(crate) fn figures(&self) -> Result<Figures> {
        let space = self.dir.space().map_err(Error::io("statvfs", "objects"))?;
        Ok(Figures { total: space.total, free: space.free.saturating_sub(RESERVE_BYTES) })
    }

    /// Whether `len` bytes may be written at `offset` of an object.
    pub(crate) fn admit(&self, object: &dyn File, offset: u64, len: u64) -> Result<()> {
        let granted = self.granted.load(Ordering::Relaxed);
        if granted >= len {
            self.granted.store(granted - len, Ordering::Relaxed);
            return Ok(());
        }
        let free = self.figures()?.free;
        if free >= len {
            self.granted.store((free - len).min(GRANT_BYTES), Ordering::Relaxed);
            return Ok(());
        }
        // Overwriting what has its blocks needs none.
        match object.next_hole(offset) {
            Ok(hole) if hole >= offset.saturating_add(len) => Ok(()),
            _ => Err(Error::NoSpace),
        }
    }
}

/// Allocates the blocks of a WRITE of `len` bytes at `offset` to an object that ends at `end`, if that is worth it.
/// Nothing depends on it: what is wrong with the disk, the WRITE itself is told.
#[cfg(target_os = "linux")]
pub(crate) fn allocate(object: &dyn File, end: u64, offset: u64, len: u64) {
    if offset >= end && len >= ALLOCATE_MIN {
        let _ = object.allocate(offset, len, true);
    }
}

/// There is no call that allocates without writing.
#[cfg(not(target_os = "linux"))]
pub(crate) fn allocate(_: &dyn File, _: u64, _: u64, _: u64) {}
