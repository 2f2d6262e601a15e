//! `slice admin check`: whether all servers tell the same story.
//!
//! ```text
//! LIST_ENTRIES of every directory server ──merge by (directory, cookie)──▶ judge::Names ─┐ sorted by child
//! LIST_ATTRS   of every directory server ──┐                                             ▼
//! LIST_OBJECTS of every small-file server ─┼──merge by file id──────────────────▶ judge::Files ──▶ problems
//! LIST_OBJECTS of every storage node ──────┘
//! ```
//! What is found can be mended: [`repair`].
//!
//! Lists come in pages and are judged as they come; kept are 24 bytes for every entry and 40 for every directory. What the
//! ensemble changes while it is being listed can look wrong, so problems count only if a second look finds them again.

mod ask;
mod collect;
mod error;
pub mod judge;
mod merge;
mod problem;
pub mod repair;

#[cfg(test)]
mod tests;

pub use collect::{Options, run};
pub use error::Error;
#[cfg(test)]
use problem::Problem;
pub use problem::Report;
