//! What can go wrong when a µproxy starts, and the one reason why a request has no answer.

use thiserror::Error;

/// Errors of this crate.
#[derive(Debug, Error)]
pub enum Error {
    /// The engine cannot listen, or has no thread.
    #[error(transparent)]
    Rpc(#[from] slice_rpc::error::Error),
    /// An export rule is wrong; the sentence says what to do.
    #[error("{0}")]
    Export(String),
    /// The system has no random bytes for the write verifier.
    #[error("no random bytes for the write verifier: {0}")]
    Random(getrandom::Error),
}
