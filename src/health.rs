//! `slice health`: whether a server answers, for those who supervise it from outside.

use crate::cli::values;
use crate::error::{Error, Result};
use crate::up::ready::{mounted, reachable};
use bytes::BytesMut;
use clap::Args;
use slice_proto::ids::{ServerId, Xid};
use slice_proto::peer::{PROGRAM, PeerProc, VERSION};
use slice_proto::rpc_msg::{OpaqueAuth, encode_call};
use slice_rpc::{Channel, Message, Target, names};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Arguments of `slice health`.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// Where the server listens: a µproxy's --listen, or the --listen of any other role
    #[arg(value_name = "HOST:PORT", value_parser = values::host_port, default_value = "127.0.0.1:2049")]
    pub address: String,
    /// Asks a µproxy also whether this export can be mounted: its servers have come, and tell of their space
    #[arg(long, value_name = "PATH")]
    pub export: Option<String>,
    /// Seconds to wait for its answer
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub timeout: u32,
}

/// Asks the NULL of our own program: servers answer it before any hello, and a µproxy says that it has no such program.
/// Both live. With an export, asks for its mount as a client does.
///
/// # Errors
/// A sentence if nothing answers, or the mount does not work yet.
pub async fn run(args: HealthArgs) -> Result<()> {
    let (address, timeout) = (&args.address, args.timeout);
    let until = Instant::now() + Duration::from_secs(u64::from(timeout));
    let addr = names::look_up(address).await;
    let addr = reachable(addr.map_err(|e| Error::Unhealthy(format!("nothing answers at {address}: {e}")))?);
    match timeout_at(until, null(addr)).await {
        Ok(answered) => answered?,
        Err(_) => return Err(Error::Unhealthy(format!("nothing answers at {address} within {timeout} s"))),
    }
    let Some(export) = args.export else { return Ok(()) };
    timeout_at(until, mounted(addr, &export)).await.unwrap_or_else(|_| {
        let why = format!("{address} lives, but {export} cannot be mounted within {timeout} s: `slice status` shows which server is missing");
        Err(Error::Unhealthy(why))
    })
}

async fn null(addr: SocketAddr) -> Result<()> {
    let channel = Channel::open(ServerId(0), Target::Socket(addr), None, None);
    let mut call = BytesMut::new();
    encode_call(&mut call, Xid(0), PROGRAM, VERSION, PeerProc::Null as u32, &OpaqueAuth::NONE);
    let answer = channel.call(Message::from(call)).await;
    let silent = |e| Error::Unhealthy(format!("what listens at {addr} does not answer: {e}"));
    answer.map(|_| ()).map_err(silent)
}
