//! A whole ensemble in one thread: the real directory servers and µproxies, a network, clock and disks that are simulated,
//! faults, and clients whose every answer is judged. All of it follows from one seed, so that a failure can be run again.
//!
//! ```text
//!  clients ──▶ net ──▶ µproxies ──▶ net ──▶ directory servers ──▶ net ──▶ data servers, coordinator
//!     │         ▲                    ▲            │
//!     │         └── delay, cut, partition         └── disk: what was not fsynced is lost at a kill
//!     ▼
//!  history ──▶ judge: is there an order of all operations in which a plain file system answers the same?
//! ```
//!
//! | file | idea |
//! | --- | --- |
//! | [`world`] | nodes, events, time: who runs when |
//! | [`net`] | connections, and what becomes of what is on its way |
//! | [`disk`] | a store's engine that forgets what was not fsynced |
//! | [`ensemble`] | which nodes there are; starting and killing them |
//! | [`faults`] | what is done to them |
//! | [`client`], [`ops`] | NFS clients, and what they do |
//! | [`bytes`](mod@content) | one client's data file, and what a READ of it may show |
//! | [`machine`] | files, jobs and chance of a server |
//! | [`witness`] | who watches the coordinator |
//! | [`model`], [`judge`] | the file system in maps, and the search for an order |
//! | [`check`] | what must be true when all is quiet |
//! | [`run`] | one history from its seed to its verdict |
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a simulation is a test: it may stop at the first surprise"
)]

pub mod check;
pub mod client;
pub mod content;
pub mod disk;
pub mod ensemble;
pub mod faults;
pub mod judge;
pub mod machine;
pub mod model;
pub mod net;
pub mod ops;
pub mod run;
pub mod witness;
pub mod world;
