//! The coordinator: format, membership, the routing table, and the intention log.
//!
//! ```text
//!  gRPC (control) ──▶ ensemble: (state, event) ──▶ new state ──▶ store ──durable──▶ watchers: adopt, table
//!                     heard: heartbeats, FSSTAT's figures
//!  ONC RPC (service) ──▶ intents: (state, event) ──▶ commands ──▶ log ──durable──▶ answer
//!                                   │ aged
//!                                   └──▶ takeover ──PURGE, TRUNCATE──▶ data servers
//! ```
//!
//! | file | idea |
//! | --- | --- |
//! | `deal` | sites to servers, evenly |
//! | `ensemble` | format and membership, decided without I/O; `stored`: the same as a record |
//! | `heard` | who was heard of lately |
//! | `intents` | intentions, decided without I/O; `log_entry`: the same as records |
//! | `log` | a write-ahead log of our own |
//! | [`page`] | the status page: what servers do, and what to look at |
//! | `takeover` | rolls aged intentions forward |
//! | `service`, `control` | the two faces; `client`: the other side of `control` |
//! | `coordinator` | what they share; open and shutdown |
#![forbid(unsafe_code)]

pub mod client;
mod config;
mod control;
mod coordinator;
pub mod deal;
pub mod ensemble;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod heard;
pub mod intents;
pub mod log;
mod log_entry;
pub mod page;
mod service;
mod stored;
mod takeover;

#[cfg(test)]
mod tests;

pub use config::{CoordinatorConfig, TAKE_OVER_AFTER};
pub use coordinator::Coordinator;
pub use error::{Error, Result};
