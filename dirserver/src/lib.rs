//! Directory server: names and attributes.
//!
//! ```text
//! record ─▶ service ─┬─▶ read, readdir      cache, else store                         ─▶ reply
//!                    ├─▶ tx ─▶ decide ─▶ changes ─▶ one batch in the store ─▶ fsync   ─▶ reply
//!                    │    │              └─▶ effects at peers (HOLD, CONFIRM, OWE)
//!                    │    └─▶ resize ─▶ data servers (TRUNCATE, EXTEND) first
//!                    └─▶ push               growth and times from µproxies
//!                         owed (background) ─▶ PURGE at data servers
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `server`, `config`, `routes` | opening, sites, the routing table |
//! | `service`, `call`, `reply` | records in, replies out |
//! | `records`, `bucket`, `keys` | what stands in the store |
//! | `state` | hot records, pages of directories listed lately, a mutex a site, held records, file ids |
//! | `decide` | what each operation does: pure, a file a procedure |
//! | `tx` | carries it out, here and at peers; recovery |
//! | `replies` | exactly once |
//! | `resize`, `owed`, `data` | what data servers are asked for |
//! | `repair` | what `slice admin check --repair` asks for |
//! | `read`, `readdir`, `push`, `lists` | the rest |
#![forbid(unsafe_code)]

mod bucket;
mod call;
mod config;
mod data;
mod decide;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod keys;
mod lists;
mod owed;
mod push;
mod read;
mod readdir;
mod records;
mod repair;
mod replies;
mod reply;
mod resize;
mod routes;
mod server;
mod service;
mod state;
mod stats;
mod tx;

pub use config::{DEFAULT_CACHE_BYTES, DirConfig};
pub use decide::LINK_MAX;
pub use error::{Error, Result};
pub use server::DirServer;
pub use state::FIRST_SEQUENCE;
