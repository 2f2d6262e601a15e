//! `slice proxy`.

use super::{needs, serve};
use crate::cli::config_file::Section;
use crate::cli::role::{PROXY_LISTEN, ProxyArgs, ReachArgs};
use crate::error::Result;
use crate::host::Host;
use crate::reach::reach;
use crate::signals;
use crate::up::{print_out, ready, rules_path};
use slice_proto::ids::{Role, ServerId, TableEpoch};
use std::net::SocketAddr;

/// The arguments with their file: the one given, or the one of the `slice up` that DIR belongs to.
///
/// # Errors
/// A sentence.
pub fn with_rules(mut args: ProxyArgs) -> Result<ProxyArgs> {
    if args.run.config.is_none() {
        let rules = args.data.as_deref().map(rules_path).filter(|path| path.exists());
        args.run.config = rules;
    }
    args.with_file()
}

/// Runs the µproxy until a signal.
///
/// # Errors
/// A sentence.
pub async fn run(args: ProxyArgs) -> Result<()> {
    let ReachArgs { coordinator, identity } = &args.reach;
    if args.data.is_none() {
        let (address, file) = (coordinator.as_ref(), identity.as_ref());
        address.ok_or_else(|| {
            needs("proxy", "--coordinator HOST:PORT (or --data DIR of a running `slice up`)")
        })?;
        file.ok_or_else(|| needs("proxy", "--identity FILE (or --data DIR of a running `slice up`)"))?;
    }
    let (coordinator, identity) = reach(args.data.as_deref(), &args.reach)?;
    let exports = args.exports.exports()?;
    let mut stop = signals::stop()?;
    let id = match args.id {
        Some(id) => id.0,
        None => ServerId(crate::identity::random_id()?),
    };
    let mut host = Host::start(identity, Role::Proxy, id, args.run.threads())?;
    host.watch(args.run.metrics).await?;
    let client = host.client(&coordinator)?;
    let listen = args.listen.unwrap_or_else(|| SocketAddr::from(PROXY_LISTEN));
    let at = host.proxy(Some(id), listen, args.advertise, args.portmap, exports, client.clone())?.address;
    // Whoever started us by hand wants to know when and how it can be mounted.
    let mut tables = host.tables();
    let mountable = async {
        let table = tables.at_least(TableEpoch(1)).await;
        let volume =
            table.and_then(|t| t.volumes.first().map(|v| v.path.clone())).unwrap_or_else(|| "/".into());
        ready::mounted(at, &volume).await.map(|()| Some(volume))
    };
    let started = tokio::select! {
        volume = mountable => volume,
        error = host.failed() => Err(error),
        () = stop.wait() => Ok(None),
    };
    match started {
        Ok(Some(volume)) => {
            print_out(&format!("Mount it with:\n  {}\n", ready::mount_command(at, &volume)))?;
            serve(host, &mut stop).await
        }
        ended => {
            host.stop().await;
            ended.map(|_| ())
        }
    }
}
