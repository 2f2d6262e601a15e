//! `slice coordinator`.

use super::{needs, serve};
use crate::cli::role::{ANY_LISTEN, CONTROL_LISTEN, CoordinatorArgs};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::plan::plan;
use crate::{identity, signals, store};
use slice_coordinator::{Coordinator, CoordinatorConfig, TAKE_OVER_AFTER};
use slice_proto::ids::{Role, ServerId};
use std::net::SocketAddr;
use std::time::Duration;

/// Runs the coordinator until a signal.
///
/// # Errors
/// A sentence.
pub async fn run(args: CoordinatorArgs) -> Result<()> {
    let data = args.data.clone().ok_or_else(|| needs("coordinator", "--data DIR"))?;
    let secret = args.identity.clone().unwrap_or_else(|| data.join("identity"));
    let identity = if args.format {
        store::make_dir(&data)?;
        identity::read_or_make(&secret)?
    } else {
        identity::read(&secret)?
    };
    let mut stop = signals::stop()?;
    let after = args.take_over_after.map_or(TAKE_OVER_AFTER, |s| Duration::from_secs(u64::from(s)));
    let config = |server, engine| CoordinatorConfig {
        data: data.clone(),
        engine,
        identity: identity.clone(),
        server,
        address: "127.0.0.1:1".into(),
        take_over_after: after,
    };
    let engine = args.store.map(|e| e.0);
    let config = match store::find(Role::Coordinator, &data, engine, &identity)? {
        Some(made) => {
            store::free(&data).await;
            config(made.server, made.engine)
        }
        None if args.format => {
            let fresh = config(ServerId(identity::random_id()?), engine.unwrap_or_default());
            Coordinator::format(&fresh, plan(&args.plan, true)?)?;
            fresh
        }
        None => {
            let why = "holds no coordinator: make a new ensemble with --format, restore the store from its backup, or give the right --data";
            return Err(Error::Damaged { path: data, why: why.to_owned() });
        }
    };
    let mut host = Host::start(identity.clone(), Role::Coordinator, config.server, args.run.threads())?;
    host.watch(args.run.metrics).await?;
    let listen = args.listen.unwrap_or_else(|| SocketAddr::from(ANY_LISTEN));
    let control = args.control.unwrap_or_else(|| SocketAddr::from(CONTROL_LISTEN));
    host.coordinator(config, listen, control, args.advertise).await?;
    serve(host, &mut stop).await
}
