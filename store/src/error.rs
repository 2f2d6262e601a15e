//! Why the store cannot do what it was asked.

use crate::EngineKind;
use slice_proto::ids::{EnsembleId, Role, ServerId};
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;

/// Result of a store operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a store cannot be opened, read or written. Cheap to clone: every waiter gets the same one.
#[derive(Debug, Clone, Error)]
pub enum Error {
    /// The engine failed. If it failed to write or to fsync, it stays failed.
    #[error("the {kind} engine failed to {what}: {source}")]
    Engine {
        /// Which engine.
        kind: EngineKind,
        /// What it was to do.
        what: &'static str,
        /// What it says.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A file of the store other than the engine's cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system says.
        source: Arc<std::io::Error>,
    },
    /// There is no store in this directory.
    #[error("there is no store in {}: format it, or point --data to where it is", dir.display())]
    Absent {
        /// The directory.
        dir: PathBuf,
    },
    /// Format was asked for where there is a store already.
    #[error("there is a store in {} already, of {stamp}: it is not formatted again", dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        stamp: String,
    },
    /// Another process has the store open.
    #[error("the store in {} is open in another process: stop that one first", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The stamp is not readable as one.
    #[error("the stamp {} is damaged ({why}): restore the store from a backup", path.display())]
    BadStamp {
        /// The stamp's file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The engine's files do not belong to the stamp: some were taken away or replaced.
    #[error("the files in {} are not those that were stamped: restore the whole directory from one backup", dir.display())]
    Mixed {
        /// The directory.
        dir: PathBuf,
    },
    /// The store belongs to another ensemble.
    #[error("the store in {} belongs to ensemble {:016x}, not to {:016x}", dir.display(), found.0, wanted.0)]
    OtherEnsemble {
        /// The directory.
        dir: PathBuf,
        /// What the stamp says.
        found: EnsembleId,
        /// What was asked for.
        wanted: EnsembleId,
    },
    /// The store belongs to another server.
    #[error("the store in {} belongs to server {found}, not to {wanted}", dir.display())]
    OtherServer {
        /// The directory.
        dir: PathBuf,
        /// What the stamp says.
        found: ServerId,
        /// What was asked for.
        wanted: ServerId,
    },
    /// The store belongs to another role.
    #[error("the store in {} is a {found}'s, not a {wanted}'s", dir.display())]
    OtherRole {
        /// The directory.
        dir: PathBuf,
        /// What the stamp says.
        found: Role,
        /// What was asked for.
        wanted: Role,
    },
    /// The store was made with the other engine.
    #[error("the store in {} was made with --store {found}, not with --store {wanted}", dir.display())]
    OtherEngine {
        /// The directory.
        dir: PathBuf,
        /// What the stamp says.
        found: EngineKind,
        /// What was asked for.
        wanted: EngineKind,
    },
    /// The store was written by a newer program.
    #[error("the store in {} has format {found}, this program knows formats up to {known}: run a newer program", dir.display())]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// What the stamp says.
        found: u32,
        /// The newest this program knows.
        known: u32,
    },
    /// Acknowledged data in the engine's journal does not have its checksum.
    #[error("{}: the record at byte {at} is damaged, but whole records follow it: restore the store from a backup", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Byte offset of the first damaged record.
        at: u64,
    },
    /// Too much waits to be written: answer the caller with a retriable error.
    #[error("{pending} bytes wait to be written, more than the bound of {max}: try again")]
    Overloaded {
        /// Bytes that wait.
        pending: usize,
        /// The bound.
        max: usize,
    },
    /// A key has no byte or more than 65,535, or a value more than 64 MiB: nothing of the batch was written.
    #[error("a key of {key} bytes with a value of {value} does not fit into a record")]
    BadSize {
        /// Length of the key in bytes.
        key: usize,
        /// Length of the value in bytes.
        value: usize,
    },
    /// No such engine.
    #[error("{0:?} is not a store engine: use fjall or sled")]
    UnknownEngine(String),
    /// The thread that writes and fsyncs could not be started, or has died.
    #[error("the store's commit thread is not running")]
    NoCommitter,
}

impl Error {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source: Arc::new(source) }
    }
}
