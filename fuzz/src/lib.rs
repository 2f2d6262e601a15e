//! Targets for fuzzing: each takes any bytes, and panics if something that must not happen does.
//!
//! | module | what |
//! | --- | --- |
//! | [`decode`] | every decoder of what comes from a wire or a disk: no panic, and what was understood reads back as the same |
//! | [`whole`] | a whole µproxy, a whole directory server: every connection is answered or closed, and no thread panics |
//! | [`world`] | the ensemble that these stand in |
//! | [`seeds`] | what is right, for mutation to begin with |
//!
//! `fuzz/run SECONDS` runs them under libFuzzer, which sees what code an input reaches; `cargo test -p slice-fuzz` runs the kept
//! inputs and random mutations of the right ones.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a target tells what it found by a panic"
)]

pub mod decode;
pub mod seeds;
pub mod whole;
pub mod world;

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 16] = [
    ("rpc_message", decode::rpc_message),
    ("framing", decode::framing),
    ("nfs_args", decode::nfs_args),
    ("nfs_results", decode::nfs_results),
    ("mount", decode::mount),
    ("portmap", decode::portmap),
    ("handle", decode::handle),
    ("trailer", decode::trailer),
    ("peer", decode::peer),
    ("table", decode::table),
    ("records", decode::records),
    ("intent_log", decode::intent_log),
    ("configuration", slice::fuzzing::configuration),
    ("files", slice::fuzzing::files),
    ("proxy", whole::proxy),
    ("dirserver", whole::dirserver),
];
