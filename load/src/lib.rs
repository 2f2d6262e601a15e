//! Workload generator over raw NFSv3, and the client that it and the tests speak with.
//!
//! | module | what |
//! | --- | --- |
//! | [`frame`] | record marks off and on (RFC 5531 section 11) |
//! | [`conn`] | one TCP connection with many calls in flight |
//! | [`client`] | the procedures of NFSv3, MOUNT and portmap, typed |
//! | [`meter`] | what is counted while a workload runs |
//! | [`cpu`] | CPU time of server processes |
//! | [`micro`] | one operation over and over, from many callers at once |
//! | [`compare`] | a table of ratios from the results of several servers |
#![forbid(unsafe_code)]

pub mod client;
pub mod compare;
pub mod conn;
pub mod cpu;
mod error;
pub mod frame;
pub mod meter;
pub mod micro;

pub use client::Client;
pub use conn::Conn;
pub use error::Error;
