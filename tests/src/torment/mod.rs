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
//! | [`race`] | clients that want the same name: one of them gets it, once |
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
pub mod hard;
pub mod names;
pub mod race;
pub mod tormentor;
pub mod work;

pub use disk::SmallDisk;
pub use hard::HardMount;
pub use tormentor::Tormentor;
pub use work::Work;

use std::time::Duration;

/// Between two looks at what tells nobody when it changes: a port, a file that another process rewrites.
pub const LOOK: Duration = Duration::from_millis(20);
