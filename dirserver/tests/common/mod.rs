//! Directory servers on loopback sockets, each on a thread of its own that can be killed, and a client that routes as a
//! µproxy does.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod check;
pub mod client;
pub mod cluster;
pub mod fake;
pub mod model;
pub mod rng;

pub use client::Client;
pub use cluster::Cluster;

/// Runs a test on a runtime as servers have it.
pub fn run<T>(test: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test())
}
