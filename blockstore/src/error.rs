//! Why a block storage node cannot be opened, or an operation on it has failed.

use slice_proto::ids::ServerId;
use slice_proto::nfs3::NfsStat3;
use std::path::PathBuf;
use thiserror::Error;

/// Why a block storage node cannot be opened, or an operation on it has failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The metadata store.
    #[error(transparent)]
    Store(#[from] slice_store::Error),
    /// A system call on the objects.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// `DIR/objects` is not there, or is not the one that the store was formatted with: it never reads as holes (I4).
    #[error(
        "{} does not hold the objects of server {server}: is a disk not mounted? Restore the whole directory from one backup",
        path.display()
    )]
    NotOurObjects {
        /// The objects' directory.
        path: PathBuf,
        /// Whose objects it should hold.
        server: ServerId,
    },
    /// Format was asked for where objects lie already.
    #[error("{} is not empty: it is not formatted again", path.display())]
    NotEmpty {
        /// The objects' directory.
        path: PathBuf,
    },
    /// A metadata record is not one of ours.
    #[error("the record of object {file:016x} is damaged: {why}")]
    BadRecord {
        /// The object.
        file: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A failed fsync lost data of this object; only removing all its bytes, or a restart, makes it writable again (I8).
    #[error("an earlier fsync of this object failed")]
    Poisoned,
    /// No space outside the reserve.
    #[error("no space left outside the reserve")]
    NoSpace,
    /// The node's threads are gone: it is being shut down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Result of an operation of this crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// The status that tells a caller of it.
    pub(crate) fn status(&self) -> NfsStat3 {
        match self {
            Self::Io { source, .. } => match NfsStat3::from_io(source) {
                // What names the caller's own doing is passed on; everything else is our disk's fault.
                s @ (NfsStat3::NOSPC | NfsStat3::DQUOT | NfsStat3::FBIG | NfsStat3::ROFS) => s,
                _ => NfsStat3::IO,
            },
            Self::Store(slice_store::Error::Overloaded { .. }) | Self::ShuttingDown => NfsStat3::JUKEBOX,
            Self::NoSpace => NfsStat3::NOSPC,
            _ => NfsStat3::IO,
        }
    }
}
