//! Power cuts: a disk that remembers what was not fsynced, and forgets or tears it when it is told to
//! ([`slice_system::disk`], which has the rules), as a file system.
//!
//! ```text
//!   server ──▶ kernel (FUSE) ──▶ fuse ──▶ power ──▶ disk: names, and bytes of each file ──cut(seed)──▶ what survived ──▶ mounted again
//!                                           │ after the n-th change: dark
//!                                           └▶ everything fails with EIO from then on
//! ```
//!
//! `syncfs` does nothing, as with any FUSE file system.
//!
//! | file | idea |
//! | --- | --- |
//! | `fuse` | the disk, as the kernel asks for it |
//! | [`mount`] | where the kernel shows it |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests: a test may stop at the first surprise"
)]

mod fuse;
pub mod mount;

pub use mount::{Mounted, obstacle};
pub use slice_system::disk::{Disk, Fault, Power};

#[cfg(test)]
mod tests;
