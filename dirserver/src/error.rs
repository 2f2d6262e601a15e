//! What can go wrong in this crate.

use slice_proto::ids::{FileId, Site};
use thiserror::Error;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a directory server cannot start or go on.
#[derive(Debug, Clone, Error)]
pub enum Error {
    /// The store cannot be opened, read or written.
    #[error(transparent)]
    Store(#[from] slice_store::Error),
    /// A stored record cannot be read.
    #[error(
        "the {what} record at key {key:02x?} is damaged or of a newer version ({why}): restore the store from a backup"
    )]
    BadRecord {
        /// Which kind of record.
        what: &'static str,
        /// Where it stands.
        key: Vec<u8>,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The routing table names no directory server for a site.
    #[error("no directory server serves site {}: the routing table is not complete", site.0)]
    NoOwner {
        /// The site.
        site: Site,
    },
    /// 65,536 names of a directory have equal hashes: somebody constructed them.
    #[error("directory {dir} has 65,536 names with one hash")]
    FullBucket {
        /// The directory.
        dir: FileId,
    },
    /// A volume's root directory has a file id that its home site would give to a new file.
    #[error("the root of volume {volume} has sequence {sequence} at site {}, but sequences from {first} on are new files'", site.0)]
    RootSequence {
        /// The volume.
        volume: u32,
        /// Its root's home site.
        site: Site,
        /// Its root's sequence.
        sequence: u64,
        /// The first sequence of ordinary files.
        first: u64,
    },
}
