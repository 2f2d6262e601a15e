//! Speaks to an ensemble over the wire, as a client that no kernel would be: every procedure with every argument.
//!
//! | module | what |
//! | --- | --- |
//! | [`answer`] | what a reply must be, said where it is asked |
//! | [`content`] | a file's bytes as they must be |
//! | [`hosted`] | one ensemble for many tests |
//! | [`raw`] | records and sockets below any client |
//! | [`stage`] | a directory of a test's own, and who acts in it |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "helpers of tests: a test may stop at the first surprise, and their names say what they do"
)]

pub mod answer;
pub mod content;
pub mod hosted;
pub mod raw;
pub mod stage;

use std::cell::RefCell;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

pub use answer::{Expect, is_one_of, true_wcc};
pub use stage::{Stage, mode, times, user};

/// A server that never answers fails its test here, not at the limit of whoever runs all tests. No claim on speed.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// Runs a test's future on a thread of its own making, as the client's connections want it.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all = tokio::task::LocalSet::new();
    all.block_on(&runtime, async {
        tokio::time::timeout(HANGS_AFTER, future).await.expect("the ensemble does not answer any more")
    })
}

thread_local! {
    /// What the last panic of this thread said, and where.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs a test whose failure is a panic; tests that run side by side each keep their own words.
///
/// # Errors
/// What the panic said, and where.
pub fn caught(test: impl FnOnce()) -> Result<(), String> {
    panic::set_hook(Box::new(|info| SAID.with(|said| *said.borrow_mut() = info.to_string())));
    panic::catch_unwind(AssertUnwindSafe(test)).map_err(|_| SAID.take())
}
