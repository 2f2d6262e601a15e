//! A disk in memory that remembers what was not fsynced, and forgets or tears it when its power is cut. For tests: of one
//! server (`tests/src/powercut` mounts it by FUSE), and of a whole ensemble (`sim`, where servers call it directly).
//!
//! ## What a cut may do
//!
//! The rules are at least as harsh as ext4's with `data=ordered`: whatever can be found after a power cut there can be found here.
//!
//! | what | is durable | may otherwise |
//! | --- | --- | --- |
//! | bytes of a file | after fsync or fdatasync of the file | reach the disk or not, page by page (4 KiB), in any order; a page may be torn between its sectors (512 bytes); the kernel writes some pages back early |
//! | growth by a write | with the file's bytes | be there, not be there, or be there by a part; bytes under it that did not reach the disk read as zeros, or as they were |
//! | truncate, fallocate that grows, punched holes | with the file's bytes | be undone, and everything written to that file after it with it |
//! | names (create, mkdir, unlink, rmdir, rename, link) | after fsync of their directory; one name's earlier changes go with it | reach the disk or not, each for itself and in any order, but those of one name in their order; a rename is whole |
//! | the inode's mode and times | at once | – (nothing of ours reads them) |
//!
//! Harsher than ext4: fsync of a file does not make its name durable, no fsync makes anybody else's changes durable, names do
//! not become durable in the order in which they were made.
//! Softer than some disks: what was fsynced never decays, and a sector is never torn.
//!
//! | file | idea |
//! | --- | --- |
//! | [`bytes`] | one file's bytes: as they read, as they are durable, and what lies between |
//! | [`names`] | names, and all files |
//! | [`power`] | the switch before the disk: power cuts, and failures of a disk that is there ([`Fault`]) |
//! | [`memory`] | the disk as a server's files |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests: a test may stop at the first surprise"
)]

pub mod bytes;
pub mod memory;
pub mod names;
pub mod power;

pub use memory::Memory;
pub use names::Disk;
pub use power::{Fault, Kind, Power};

#[cfg(test)]
mod tests;
