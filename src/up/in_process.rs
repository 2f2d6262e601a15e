//! All servers in this process: calls between them are function calls, and each listens on the loopback besides, for
//! `slice status`, `slice admin` and further µproxies.

use super::ensemble_file::EnsembleFile;
use super::{Deployment, layout, ready};
use crate::error::Result;
use crate::host::{Host, ServerSettings};
use crate::signals;
use crate::store::find_or_make;
use slice_proto::ids::Role;
use std::net::SocketAddr;

/// Runs the ensemble until a signal, or until a server cannot go on.
///
/// # Errors
/// A sentence.
pub async fn run(mut deployment: Deployment) -> Result<()> {
    let mut stop = signals::stop()?;
    let id = deployment.coordinator_id()?;
    let threads = deployment.args.run.threads();
    let mut host = Host::start(deployment.identity.clone(), Role::Coordinator, id, threads)?;
    let started = tokio::select! {
        started = start(&mut deployment, &mut host) => started,
        () = stop.wait() => { host.stop().await; return Ok(()) }
    };
    let ended = match started {
        Err(error) => Err(error),
        Ok((mut file, mount)) => {
            let up = tokio::select! {
                up = ready::mounted(mount, deployment.volume()) => up.map(|()| true),
                error = host.failed() => Err(error),
                () = stop.wait() => Ok(false),
            };
            match up {
                Ok(true) => {
                    file.pid = std::process::id();
                    deployment.announce(&file, mount)?;
                    tokio::select! {
                        error = host.failed() => Err(error),
                        () = stop.wait() => Ok(()),
                    }
                }
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            }
        }
    };
    // Whoever looks must not find what is about to go.
    let removed = EnsembleFile::remove(&deployment.dir);
    host.stop().await;
    ended.and(removed)
}

/// Starts every server. What runs, and where clients mount.
async fn start(deployment: &mut Deployment, host: &mut Host) -> Result<(EnsembleFile, SocketAddr)> {
    let pid = std::process::id();
    let id = deployment.coordinator_id()?;
    let (at, control) = (deployment.address("coordinator")?, deployment.address("control")?);
    let metrics = host.watch(deployment.args.run.metrics).await?;
    let config = deployment.coordinator_config(id);
    let (at, control) = host.coordinator(config, at, control, None).await?;
    let mut file = EnsembleFile::new(deployment.identity.ensemble, control);
    let client = host.client(&control.to_string())?;
    for (role, index) in deployment.layout.servers() {
        let name = layout::name(role, index);
        let (data, engine) = (deployment.dir.join(&name), deployment.layout.store.0);
        let made = find_or_make(role, &data, Some(engine), &deployment.identity, &client).await?;
        let listen = deployment.address(&name)?;
        let settings = ServerSettings { role, data, listen, advertise: None };
        let started = host.server(settings, made, client.clone()).await?;
        file.add(role, started.server.0, pid, vec![started.address]);
    }
    deployment.layout.save(&deployment.dir)?;
    let exports = deployment.args.exports.exports()?;
    let proxy = host.proxy(None, deployment.listen, None, deployment.args.portmap, exports, client)?;
    file.servers.insert(
        0,
        super::ensemble_file::ServerLine {
            role: Role::Proxy.name().to_owned(),
            id: proxy.server.to_string(),
            pid,
            addresses: vec![proxy.address],
            metrics: None,
        },
    );
    file.add(Role::Coordinator, id.0, pid, vec![at, control]);
    file.servers.iter_mut().for_each(|server| server.metrics = metrics);
    Ok((file, proxy.address))
}
