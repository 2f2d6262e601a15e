//! The coordinator: format, membership, the routing table, and the intention log.
#![forbid(unsafe_code)]

pub mod deal;
pub mod ensemble;
mod error;
pub mod intents;
pub mod log;
mod log_entry;
mod stored;

pub use error::{Error, Result};
