//! The ONC RPC engine: record framing, server and client connections, the in-process channel.
//! The only crate that opens data sockets.
#![forbid(unsafe_code)]

pub mod service;
