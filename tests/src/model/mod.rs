//! A reference model: random sequences of all NFSv3 procedures through the real wire protocol, every reply compared with
//! what a file system in memory says.
//!
//! ```text
//! generate ──op──▶ fs.judge: which errors apply ──▶ wire: the record, sent (and sent again) ──reply──▶ check
//!    ▲                                                  │ kill a server meanwhile                        │
//!    └──────────────── fs: what there is now ◀──────────┴── what the reply must be, what follows from it ◀┘
//! ```
//! The seed is printed and gives the same operations again (what the servers do meanwhile is theirs). Where the protocol
//! leaves a choice, such as which of several errors comes first, the model takes any; what then is true is learned from the
//! reply and must stay true.

pub mod check;
pub mod fs;
pub mod generate;
pub mod judge;
mod names;
pub mod op;
mod pages;
pub mod run;
pub mod scan;
pub mod wire;

pub use run::{Faults, Settings, run};

use slice_load::Error as Call;

/// How a server differs from the model, or why they could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server says something else than the model.
    #[error("{0}")]
    Differs(String),
    /// A call did not come to an answer.
    #[error("no answer: {0}")]
    Call(#[from] Call),
    /// A server could not be killed or found.
    #[error("{0}")]
    Stage(#[from] crate::Error),
    /// A sequence failed: where, and what came before.
    #[error("seed {seed}, step {step}: {op}: {why}\nbefore:\n{before}")]
    Step {
        /// Gives the same operations again.
        seed: u64,
        /// Which of them.
        step: usize,
        /// The operation.
        op: String,
        /// What is wrong.
        why: String,
        /// The operations before it.
        before: String,
    },
}

/// Result of a comparison.
pub type Result<T> = std::result::Result<T, Error>;

/// A difference.
pub(crate) fn differs<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Differs(what.into()))
}
