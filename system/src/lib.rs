//! What a data server or the coordinator asks of the operating system, beside sockets and time: files, threads for what
//! blocks, randomness. All three come in from outside, so that a server can stand on a disk that a test cuts the power of, and
//! in a simulation where one seed decides everything.
//!
//! | file | idea |
//! | --- | --- |
//! | [`files`] | files and directories, as traits: one method a system call |
//! | [`kernel`] | the kernel's |
//! | [`pool`] | who runs what blocks: the runtime's threads |
//! | [`random`] | random numbers: the kernel's |
//! | `disk` | a disk in memory that knows what was not fsynced, and forgets or tears it (feature `disk`) |
//!
//! On the way of a request a trait object stands where a file descriptor stood: a call through a table beside a system call,
//! and nothing is copied or allocated for it.
#![forbid(unsafe_code)]

#[cfg(feature = "disk")]
pub mod disk;
pub mod files;
pub mod kernel;
pub mod pool;
pub mod random;

pub use files::{Directory, File, Files, Open, Space, Stat};
pub use kernel::Kernel;
pub use pool::{Gone, Job, Pool};
pub use random::Random;

use std::sync::Arc;

/// What a server stands on.
#[derive(Debug, Clone)]
pub struct System {
    /// Its files.
    pub files: Arc<dyn Files>,
    /// Who runs what blocks.
    pub pool: Pool,
    /// Where random numbers come from.
    pub random: Random,
}

impl System {
    /// The machine's own.
    #[must_use]
    pub fn kernel() -> Self {
        Self { files: Arc::new(Kernel), pool: Pool::default(), random: Random::default() }
    }
}
