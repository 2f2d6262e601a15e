//! An ensemble under torment, and clients that must not notice more than a pause.
//!
//! ```text
//!  names, bytes ─┐                        ┌ kill, stop, cut ┐
//!  race ─────────┴▶ Client ─▶ hard mount ─┴▶ µproxy ─▶ servers
//!                             keeps what is not answered, sends it again
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`hard`] | a hard mount: the same record again until it is answered, over new connections where old ones break |
//! | [`names`] | makes, moves, links and removes names; knows what must be there |
//! | [`bytes`] | writes, commits, truncates files; sends again what a changed verifier calls lost |
//! | [`disk`] | a small disk under one server |
//! | [`doubt`] | a client that is told errors, and knows what they leave in doubt |
//! | [`race`] | clients that want the same name: one of them gets it, once |
//! | [`rival`] | the same race against a stock client's programs |
//! | [`tormentor`] | SIGKILL, SIGSTOP, connections cut, from a seed |
//! | [`work`] | all of it together on one ensemble |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "helpers of tests: a test may stop at the first surprise, and their names say what they do"
)]

pub mod bytes;
pub mod disk;
pub mod doubt;
pub mod hard;
pub mod names;
pub mod race;
pub mod rival;
pub mod tormentor;
pub mod work;

pub use disk::SmallDisk;
pub use hard::HardMount;
pub use tormentor::Tormentor;
pub use work::Work;

use std::time::Duration;

/// A number from the environment: seeds and lengths.
#[must_use]
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

/// Between two looks at what tells nobody when it changes: a port, a file that another process rewrites.
pub const LOOK: Duration = Duration::from_millis(20);
