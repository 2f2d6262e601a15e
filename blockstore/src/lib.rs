//! Block storage node: the bytes of files from 64 KiB on, striped over storage sites.
//!
//! ```text
//!   record ──▶ service ──▶ I4: table, sites, stamps ──▶ cache: the object in memory ──▶ I9: fence ──▶ page cache
//!                                      │ newer table           │ miss                                  │ stable, COMMIT
//!                                      ▼ waits                 ▼ pool: record, open                    ▼ pool: one fdatasync for all
//! ```
//!
//! One object is one sparse file per NFS file on this server, with its bytes at their offsets in the NFS file: all
//! stripe units whose sites this server owns share it, so that a COMMIT is one fdatasync.
//!
//! | file | idea |
//! | --- | --- |
//! | `fence` | what an epoch may do to an object (I9), decided without I/O |
//! | `record` | the metadata record of an object in the key-value store |
//! | `layout` | where objects lie on disk |
//! | `object`, `cache` | an object in memory; a bounded number of them |
//! | `sync` | group commit per object; what follows from a failed fsync (I8) |
//! | `space` | the reserve that only truncate and purge may use |
//! | `read`, `write`, `commit` | the NFSv3 procedures |
//! | `truncate`, `purge`, `list` | the private procedures |
//! | `collect` | tombstones that have served their time |
//! | `node` | the server: open, adopt, run, shut down |
//! | `service` | records in, records out |
#![forbid(unsafe_code)]

mod buffer;
mod cache;
mod collect;
mod commit;
mod config;
mod error;
mod fence;
#[doc(hidden)]
pub mod fuzzing;
mod layout;
mod list;
mod node;
mod object;
mod purge;
mod read;
mod record;
mod reply;
mod service;
mod space;
mod sync;
mod truncate;
mod write;

#[cfg(test)]
mod tests;

pub use config::BlockConfig;
pub use error::Error;
pub use node::BlockStore;
