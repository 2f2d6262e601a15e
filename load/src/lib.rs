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
//! | [`sfs`] | the SFS 3.0 NFSv3 mix at offered loads, open loop |
//! | [`untar`] | source trees unpacked by many clients |
//! | [`bulk`] | sequential writing and reading |
//! | [`single`] | each procedure alone |
//! | [`command`], [`report`] | `slice load`: flags, figures on a page |
//! | [`own`] | an ensemble that a workload starts for itself |
//! | [`content`] | what every byte of a file must be |
//! | [`tally`] | latencies by procedure, wrong replies |
//! | [`site`], [`clock`], [`stop`], [`progress`], [`servers`] | what all workloads need |
//! | [`result`], [`machine`] | what a run leaves, as JSON |
#![forbid(unsafe_code)]

pub mod bulk;
pub mod client;
pub mod clock;
pub mod command;
pub mod compare;
pub mod conn;
pub mod content;
pub mod cpu;
mod error;
pub mod frame;
pub mod machine;
pub mod meter;
pub mod micro;
pub mod own;
pub mod progress;
pub mod report;
pub mod result;
pub mod servers;
pub mod sfs;
pub mod single;
pub mod site;
pub mod stop;
pub mod tally;
pub mod untar;

pub use client::Client;
pub use conn::Conn;
pub use error::Error;
pub use stop::Stop;
