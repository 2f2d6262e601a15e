//! `slice dirserver`, `slice smallfile`, `slice blockstore`.

use super::{needs, serve, unless_stopped};
use crate::cli::role::{ANY_LISTEN, ServerArgs};
use crate::error::Result;
use crate::host::{Host, ServerSettings};
use crate::{identity, signals, store};
use slice_coordinator::client::Client;
use slice_proto::ids::Role;
use slice_rpc::clock::SystemClock;
use std::net::SocketAddr;
use std::sync::Arc;

/// Runs the server until a signal, or until the coordinator will not have it.
///
/// # Errors
/// A sentence.
pub async fn run(role: Role, args: ServerArgs) -> Result<()> {
    let command = role.name();
    let data = args.data.ok_or_else(|| needs(command, "--data DIR"))?;
    let coordinator = args.reach.coordinator.ok_or_else(|| needs(command, "--coordinator HOST:PORT"))?;
    let identity = identity::read(&args.reach.identity.ok_or_else(|| needs(command, "--identity FILE"))?)?;
    let mut stop = signals::stop()?;
    let client = Client::new(&coordinator, identity.clone(), Arc::new(SystemClock))?;
    let engine = args.store.map(|e| e.0);
    let find = store::find_or_make(role, &data, engine, &identity, &client);
    let Some(made) = unless_stopped(&mut stop, find).await? else { return Ok(()) };
    let mut host = Host::start(identity, role, made.server, args.run.threads())?;
    host.watch(args.run.metrics).await?;
    let listen = args.listen.unwrap_or_else(|| SocketAddr::from(ANY_LISTEN));
    let settings = ServerSettings { role, data, listen, advertise: args.advertise };
    host.server(settings, made, client).await?;
    serve(host, &mut stop).await
}
