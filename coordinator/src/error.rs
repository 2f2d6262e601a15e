//! Why the coordinator cannot do what it was asked.

use slice_proto::ids::Role;
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;

/// Result of a coordinator's operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the coordinator cannot do what it was asked. Cheap to clone: every waiter gets the same one.
#[derive(Debug, Clone, Error)]
pub enum Error {
    /// Its store failed.
    #[error(transparent)]
    Store(#[from] slice_store::Error),
    /// A file of the intention log cannot be read or written. After a failed write the log takes no more.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system says.
        source: Arc<std::io::Error>,
    },
    /// There is no intention log beside the store.
    #[error("the intention log in {} is gone: restore the coordinator's whole directory from one backup", dir.display())]
    LogAbsent {
        /// The log's directory.
        dir: PathBuf,
    },
    /// A segment of the intention log is not one, or of another ensemble.
    #[error("{} is not a segment of this ensemble's intention log ({why}): restore the coordinator's directory from a backup", path.display())]
    BadSegment {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An acknowledged record of the intention log is damaged: not a torn tail.
    #[error("{}: the record at byte {at} is damaged, but later ones show that it was durable: restore the coordinator's directory from a backup", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Byte offset of the first damaged record.
        at: u64,
    },
    /// The log's thread is gone, or could not be started.
    #[error("the intention log's thread is not running")]
    NoWriter,
    /// A record of the store or the log does not decode.
    #[error(
        "{what} in the coordinator's {whose} does not decode: restore the coordinator's directory from a backup"
    )]
    BadRecord {
        /// Which record.
        what: &'static str,
        /// Of the store or of the log.
        whose: &'static str,
    },
    /// A record was written by a newer program.
    #[error("{what} has format {found}, this program knows formats up to {known}: run a newer program")]
    NewerFormat {
        /// Which record.
        what: &'static str,
        /// What it says.
        found: u32,
        /// The newest this program knows.
        known: u32,
    },
    /// The plan for the format cannot be carried out.
    #[error("{n} {role}s: give at least 1 and at most {max} (there are that many sites)")]
    Expected {
        /// Of which role.
        role: Role,
        /// How many.
        n: usize,
        /// The bound.
        max: usize,
    },
    /// A volume cannot be made as asked.
    #[error("{0}")]
    Plan(#[from] slice_proto::control::ConvertError),
    /// The coordinator is shutting down.
    #[error("the coordinator is shutting down")]
    Closing,
}

impl Error {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source: Arc::new(source) }
    }
}
