//! Why a small-file server cannot be opened, or an operation on it has failed.

use slice_proto::ids::{FileId, ServerId};
use slice_proto::nfs3::NfsStat3;
use std::path::PathBuf;
use thiserror::Error;

/// Why a small-file server cannot be opened, or an operation on it has failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The map's store, or the log: its errors are told in the same words.
    #[error(transparent)]
    Store(#[from] slice_store::Error),
    /// A system call on the segments.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// `DIR/segments` is not there, or is not the one that the store was formatted with: it never reads as zeros (I4).
    #[error(
        "{} does not hold the segments of server {server}: is a disk not mounted? Restore the whole directory from one backup",
        path.display()
    )]
    NotOurSegments {
        /// The segments' directory.
        path: PathBuf,
        /// Whose segments it should hold.
        server: ServerId,
    },
    /// Format was asked for where segments lie already.
    #[error("{} is not empty: it is not formatted again", path.display())]
    NotEmpty {
        /// The segments' directory.
        path: PathBuf,
    },
    /// A map record points to where no segment is.
    #[error(
        "the map of file {file} points to byte {offset} of segment {segment:08x}, which is not there: restore the directory from a backup"
    )]
    NoSegment {
        /// The file.
        file: FileId,
        /// The segment.
        segment: u32,
        /// Byte offset in it.
        offset: u32,
    },
    /// A map record is not one of ours.
    #[error("the map record of file {file} is damaged: {why}")]
    BadRecord {
        /// The file.
        file: FileId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Bytes on disk are not those that were written.
    #[error(
        "checksum {got:08x} instead of {expected:08x} at byte {offset} of segment {segment:08x}, {len} bytes"
    )]
    Checksum {
        /// CRC-32 of the bytes that are there.
        got: u32,
        /// CRC-32 of the bytes that were written.
        expected: u32,
        /// The segment.
        segment: u32,
        /// Byte offset in it.
        offset: u32,
        /// Length in bytes.
        len: u16,
    },
    /// No space outside the reserve.
    #[error("no space left outside the reserve")]
    NoSpace,
    /// The thread that writes the log could not be started.
    #[error("the log's thread cannot be started: {0}")]
    Thread(std::io::Error),
    /// The server is being shut down.
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
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => NfsStat3::NOSPC,
            // The log has ended with the server: the client is to come again, to the next life of it.
            Self::Store(slice_store::Error::Overloaded { .. } | slice_store::Error::NoCommitter)
            | Self::ShuttingDown => NfsStat3::JUKEBOX,
            Self::NoSpace => NfsStat3::NOSPC,
            _ => NfsStat3::IO,
        }
    }
}
