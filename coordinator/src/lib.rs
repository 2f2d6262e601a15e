//! The coordinator: format, membership, the routing table, and the intention log.
#![forbid(unsafe_code)]

pub mod deal;
mod error;
pub mod log;

pub use error::{Error, Result};
