//! What can go wrong, in one type.

use slice_proto::mount::MountStat;
use slice_proto::nfs3::{NfsStat3, Proc3};
use slice_proto::rpc_msg::ReplyStatus;
use slice_proto::xdr::XdrError;
use std::io;
use std::rc::Rc;
use thiserror::Error;

/// Why a call has no result, or a workload no figures.
#[derive(Debug, Clone, Error)]
pub enum Error {
    /// The connection could not be made, or broke.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: Rc<str>,
        /// What the system said.
        source: Rc<io::Error>,
    },
    /// The server closed the connection with calls outstanding.
    #[error("the server closed the connection")]
    Closed,
    /// A record's length is beyond any reply's, so the stream cannot be followed further.
    #[error("the server announced a record of {0} bytes")]
    RecordTooLong(usize),
    /// The call was not executed.
    #[error("the call was not executed: {0:?}")]
    Rpc(ReplyStatus),
    /// The reply is not what the procedure returns.
    #[error("the reply cannot be decoded: {0}")]
    Xdr(#[from] XdrError),
    /// Bytes follow the results.
    #[error("{0} bytes follow the results")]
    Trailing(usize),
    /// A procedure that the workload needs failed.
    #[error("{proc} failed: {status}")]
    Nfs {
        /// The procedure.
        proc: Proc3,
        /// Its status.
        status: NfsStat3,
    },
    /// The export could not be mounted.
    #[error("MOUNT refused: {0}")]
    Mount(MountStat),
    /// The server does what the RFC does not allow.
    #[error("{0}")]
    Protocol(&'static str),
    /// A server process whose CPU time was asked for is not there.
    #[error("process {0} is not there")]
    NoProcess(i32),
    /// A file of results, or a description of servers, cannot be read.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: Rc<str>,
        /// What is wrong with it.
        why: Rc<str>,
    },
    /// The ensemble that the workload started for itself has ended.
    #[error("the ensemble has ended: {0}")]
    Ended(Rc<str>),
    /// A stop was asked for before there were any figures.
    #[error("stopped before there were any figures")]
    Stopped,
    /// The server did not answer in time.
    #[error("no answer within {0} s")]
    Timeout(u64),
}

impl Error {
    /// An [`Error::Io`].
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what: what.into().into(), source: Rc::new(source) }
    }
}
