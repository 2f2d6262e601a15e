//! What can go wrong in the program. Each is a sentence for who started it, with what to do.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Result of what the program does.
pub type Result<T> = std::result::Result<T, Error>;

/// A sentence for who started the program.
#[derive(Debug, Error)]
pub enum Error {
    /// A flag, or what it says together with others, is wrong.
    #[error("{0}")]
    Usage(String),
    /// A file or directory is not as it should be.
    #[error("cannot {what} {}: {source}{}", path.display(), hint(what, source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {addr}: {source}{}", listen_hint(source))]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Another process runs on the data directory.
    #[error("{} is in use by another `slice up` (process {pid}): stop that one first, or give another --data", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Whose it is, as far as is known.
        pid: String,
    },
    /// The data directory of an ensemble lacks something.
    #[error("{} {why}", path.display())]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The RPC engine.
    #[error(transparent)]
    Rpc(slice_rpc::Error),
    /// The coordinator's store or log.
    #[error(transparent)]
    Coordinator(#[from] slice_coordinator::Error),
    /// The coordinator, asked over the control plane.
    #[error(transparent)]
    Control(#[from] slice_coordinator::client::ClientError),
    /// A store.
    #[error(transparent)]
    Store(#[from] slice_store::Error),
    /// A service could not be made or opened, or failed.
    #[error("{role}: {source}")]
    Service {
        /// Which role.
        role: slice_proto::ids::Role,
        /// What it says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A server that must run has ended.
    #[error("{0}")]
    Ended(String),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// The ensemble could not be checked.
    #[error(transparent)]
    Check(crate::admin::check::Error),
    /// The check found something wrong.
    #[error("the check found {problems} problem(s)")]
    Unclean {
        /// How many.
        problems: u64,
    },
    /// Something did not answer.
    #[error("{0}")]
    Unhealthy(String),
    /// A workload has no figures, not all, or replies that were wrong.
    #[error("{0}")]
    Load(String),
}

impl Error {
    /// For `map_err` on a file operation.
    pub fn io(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// A sentence about flags.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self::Usage(sentence.into())
    }

    /// For `map_err` on a service.
    pub fn service<E>(role: slice_proto::ids::Role) -> impl Fn(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |source| Self::Service { role, source: Box::new(source) }
    }

    /// The process's exit code: 2 for what the one who started it can set right, 1 for what failed by itself.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Ended(_) | Self::Unclean { .. } | Self::Unhealthy(_) | Self::Load(_) | Self::Random(_) => 1,
            _ => 2,
        }
    }
}

impl From<slice_rpc::Error> for Error {
    fn from(e: slice_rpc::Error) -> Self {
        match e {
            slice_rpc::Error::Listen { addr, source } => Self::Listen { addr, source },
            other => Self::Rpc(other),
        }
    }
}

fn hint(what: &str, source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied if what == "read" => ": run as a user who may read it",
        io::ErrorKind::PermissionDenied => {
            ": give a place that you may write to (--data), or change its owner"
        }
        io::ErrorKind::NotFound if what == "read" => ": check the path",
        io::ErrorKind::StorageFull => ": free some space",
        _ => "",
    }
}

fn listen_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => ": another program listens there; stop it, or give another --listen",
        io::ErrorKind::PermissionDenied => ": ports below 1024 need root; give a higher port with --listen",
        io::ErrorKind::AddrNotAvailable => {
            ": that is no address of this machine; give one that is with --listen"
        }
        _ => "",
    }
}
