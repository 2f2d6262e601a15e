//! What can go wrong in this crate.

use crate::framing::FrameError;
use slice_proto::peer::hello::HelloStatus;
use std::io;
use std::net::SocketAddr;
use thiserror::Error;

/// Errors of listeners, worker threads and connections.
#[derive(Debug, Error)]
pub enum Error {
    /// A listening address cannot be had.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A worker thread cannot be started.
    #[error("cannot start a worker thread: {0}")]
    Thread(io::Error),
    /// A socket failed.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
    /// The peer's record marks are out of bounds.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    Eof,
    /// The hello failed; the status says on which ground.
    #[error("hello refused: {}", hello_sentence(*.0))]
    Hello(HelloStatus),
    /// What came in place of a hello is none.
    #[error("the peer does not speak our hello")]
    NoHello,
    /// The hello did not come to its end in time.
    #[error("the hello was not finished in time")]
    Late,
}

/// Why a call made through a [`crate::channel::Channel`] has no reply.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// The server is not in the table (any more), or the channel was closed by its owner.
    #[error("the server is no longer part of the ensemble")]
    Gone,
    /// The server refused our hello, or we its: another ensemble, secret or version. The sentence says which.
    #[error("{0}")]
    Refused(&'static str),
    /// [`crate::channel::MAX_IN_FLIGHT`] calls are unanswered already.
    #[error("too many calls are in flight to this server")]
    Busy,
    /// The server closed the connection each time this call was sent to it.
    #[error("the server closed the connection each of {0} times that the call was sent")]
    Closed(u32),
    /// The message is longer than a record may be, or too short to be a call.
    #[error("the call is {0} bytes long, which no RPC call is")]
    Length(usize),
}

/// A sentence for an operator.
#[must_use]
pub(crate) const fn hello_sentence(status: HelloStatus) -> &'static str {
    match status {
        HelloStatus::Ok => "the hello was accepted",
        HelloStatus::Version => {
            "the peer speaks no version of the wire that we speak: upgrade the older side"
        }
        HelloStatus::Ensemble => "the peer belongs to another ensemble: check its --data and our addresses",
        HelloStatus::Proof => {
            "the peer has another ensemble secret: copy the ensemble's secret to both sides"
        }
        HelloStatus::Order => "the peer expected another step of the hello",
        HelloStatus::Server => {
            "another server answers at this address: its own registration will correct the table"
        }
    }
}
