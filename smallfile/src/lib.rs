//! Small-file server: the first 64 KiB of every file.
//!
//! ```text
//!   record ─▶ service ─▶ I4: table, site, stamp ─▶ cache: the object in memory ─▶ I9: fence ─▶ dirty blocks
//!                               │ newer table            │ miss: map record               │ stable, COMMIT, memory short
//!                               ▼ waits                  ▼ store                          ▼
//!                                                                    log's thread: frames ─▶ segments ─▶ fdatasync
//!                                                                                  map records ─▶ store ─▶ fsync
//! ```
//!
//! An object is eight logical blocks of 8 KiB. Its map record in the store says where each block's bytes lie: in a segment, a
//! file allocated ahead and written from its start to its end; new files lie one behind the other, tails packed at their
//! exact length. A live block is never overwritten in place, and a map record points only to what is fsynced.
//!
//! | file | idea |
//! | --- | --- |
//! | `core` | what an object is and what may be done to it (I9), decided without I/O; the map record |
//! | `log::frame`, `log::segment` | what lies in a segment |
//! | `log::table` | which segments there are, what room they have, the reserve that only truncate and purge may use |
//! | `log::queue`, `log::flush` | the log's thread: group commit; what follows from a failed fsync (I8) |
//! | `log::clean` | the cleaner |
//! | `cache`, `node` | objects in memory; what all requests share |
//! | `fetch` | bytes from the segments, checked |
//! | `read`, `write`, `commit` | the NFSv3 procedures |
//! | `truncate`, `list` | the private procedures |
//! | `collect` | tombstones that have served their time |
//! | `service`, `reply` | records in, records out |
//! | `server` | open, adopt, run, shut down |
#![forbid(unsafe_code)]

mod cache;
mod collect;
mod commit;
mod config;
mod core;
mod error;
mod fetch;
#[doc(hidden)]
pub mod fuzzing;
mod list;
mod log;
mod node;
mod read;
mod reply;
mod server;
mod service;
mod truncate;
mod write;

#[cfg(test)]
mod tests;

pub use config::SmallConfig;
pub use error::Error;
pub use server::SmallFileStore;
