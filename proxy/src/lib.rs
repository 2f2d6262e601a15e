//! The µproxy: presents one NFSv3 server (with MOUNT and portmap) to stock clients and is a client of all servers behind.
//! `front.rs` draws a request's way.
//!
//! | file | idea |
//! | --- | --- |
//! | `front` | one thread's µproxy: dispatch, routing table, rules |
//! | [`classify`], [`route`] | what a record is, and where it goes: pure |
//! | [`squash`] | credentials, rewritten in place |
//! | `forward`, [`reply`] | the fast path by token, and the way of replies back |
//! | `upstream` | calls from futures, routed until the right server answers |
//! | `single` | READ and WRITE of one part, by token |
//! | `read`, `write`, `commit`, `search`, `setattr`, `readdir`, `mount` | what takes more than a forward |
//! | [`merge`], [`listing`] | parts become one answer: pure |
//! | `attrs`, `pushes` | what home sites are asked and told |
//! | [`soft`] | soft state: files, uncommitted bytes, ensemble time: pure |
//! | [`verifier`], [`permission`] | the write verifier (I7); READ and WRITE permission: pure |
//! | `measured`, `stats` | what is counted |
//! | [`local`], [`mounts`], [`portmapper`], `register` | what is answered here |
#![forbid(unsafe_code)]

mod attrs;
pub mod classify;
mod commit;
pub mod config;
mod copies;
pub mod error;
mod forward;
mod front;
pub mod listing;
pub mod local;
mod measured;
pub mod merge;
mod mount;
pub mod mounts;
pub mod permission;
pub mod portmapper;
mod proxy;
mod pushes;
mod read;
mod readdir;
mod register;
pub mod reply;
pub mod route;
mod search;
mod setattr;
mod shared;
mod single;
pub mod soft;
pub mod squash;
mod stats;
mod upstream;
pub mod verifier;
mod write;

pub use config::{ANON_ID, Export, Exports, Network, ProxyConfig, Rule, Space, SpaceSource, Squash};
pub use error::Error;
pub use proxy::Proxy;
