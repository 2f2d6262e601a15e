//! Why a check could not be made.

use slice_proto::ids::{Role, ServerId};
use slice_proto::xdr::XdrError;
use slice_rpc::CallError;
use std::time::Duration;
use thiserror::Error;

/// Why a check could not be made. Nothing is known of the ensemble's state then.
#[derive(Debug, Error)]
pub enum Error {
    /// A server cannot be called.
    #[error("the {role} {server} cannot be asked: {source}")]
    Call {
        /// What it is.
        role: Role,
        /// Which.
        server: ServerId,
        /// Why not.
        source: CallError,
    },
    /// A server does not answer.
    #[error("the {role} {server} has not answered for {} s: is it running?", waited.as_secs())]
    Silent {
        /// What it is.
        role: Role,
        /// Which.
        server: ServerId,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A server refuses.
    #[error("the {role} {server} answers {what} with status {status}")]
    Refused {
        /// What it is.
        role: Role,
        /// Which.
        server: ServerId,
        /// What it was asked.
        what: &'static str,
        /// An nfsstat3 or a private status.
        status: u32,
    },
    /// A server's reply is none.
    #[error("the {role} {server} answers what is no reply: {why}")]
    Garbled {
        /// What it is.
        role: Role,
        /// Which.
        server: ServerId,
        /// What is wrong with it.
        why: String,
    },
    /// A list is not in order, so that it would never end.
    #[error("the {role} {server} does not list in order")]
    Disorder {
        /// What it is.
        role: Role,
        /// Which.
        server: ServerId,
    },
    /// Servers still have work under way.
    #[error("after {} s there is still something under way ({unsettled}): try again when the ensemble is at rest", waited.as_secs())]
    Unsettled {
        /// Where, and how much.
        unsettled: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The routing table names no directory server: the ensemble is not formatted yet.
    #[error("the routing table has no directory servers: the ensemble is not formatted yet")]
    NoServers,
}

impl Error {
    pub(super) fn garbled(role: Role, server: ServerId) -> impl FnOnce(XdrError) -> Self {
        move |e| Self::Garbled { role, server, why: e.to_string() }
    }
}
