//! `slice health`: whether a server answers, for those who supervise it from outside.

use crate::cli::values;
use crate::error::{Error, Result};
use crate::up::ready::reachable;
use bytes::BytesMut;
use clap::Args;
use slice_proto::ids::{ServerId, Xid};
use slice_proto::peer::{PROGRAM, PeerProc, VERSION};
use slice_proto::rpc_msg::{OpaqueAuth, encode_call};
use slice_rpc::{Channel, Message, Target};
use std::net::SocketAddr;
use std::time::Duration;

/// Arguments of `slice health`.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// Where the server listens: a µproxy's --listen, or the --listen of any other role
    #[arg(value_name = "ADDR:PORT", value_parser = values::listen, default_value = "127.0.0.1:2049")]
    pub address: SocketAddr,
    /// Seconds to wait for its answer
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub timeout: u32,
}

/// Asks the NULL of our own program: servers answer it before any hello, and a µproxy says that it has no such program.
/// Both live.
///
/// # Errors
/// A sentence if nothing answers.
pub async fn run(args: HealthArgs) -> Result<()> {
    let addr = reachable(args.address);
    let channel = Channel::open(ServerId(0), Target::Socket(addr), None, None);
    let mut call = BytesMut::new();
    encode_call(&mut call, Xid(0), PROGRAM, VERSION, PeerProc::Null as u32, &OpaqueAuth::NONE);
    let limit = Duration::from_secs(u64::from(args.timeout));
    match tokio::time::timeout(limit, channel.call(Message::from(call))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Error::Unhealthy(format!("what listens at {addr} does not answer: {error}"))),
        Err(_) => Err(Error::Unhealthy(format!("nothing answers at {addr} within {} s", args.timeout))),
    }
}
