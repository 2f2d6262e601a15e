//! `--separate`: a process for every server, on loopback sockets, started again when it dies, gone when we are.
//!
//! ```text
//!  slice up ─┬─ coordinator            children die with this process (parent-death signal);
//!            ├─ dirserver-0 …          a clean stop goes µproxy, servers, coordinator
//!            └─ proxy
//! ```

use super::ensemble_file::{EnsembleFile, ServerLine};
use super::layout::{self, Layout};
use super::{Deployment, ready, rules_path};
use crate::error::{Error, Result};
use crate::identity::random_id;
use crate::signals;
use futures_util::future::join_all;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use slice_coordinator::client::Client;
use slice_proto::ids::Role;
use slice_rpc::clock::SystemClock;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Pause before a child that died is started again; doubled each time it dies soon.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A child that lived so long had not died soon.
const LONG_LIFE: Duration = Duration::from_secs(10);
/// How long a child may take to stop cleanly.
const STOP_GRACE: Duration = Duration::from_secs(20);

/// A server's process, as it is started each time.
struct Spec {
    role: Role,
    name: String,
    index: usize,
}

/// What the supervisors of all children share.
struct Nursery {
    program: PathBuf,
    deployment: Deployment,
    layout: Mutex<Layout>,
    control: SocketAddr,
    proxy_id: u64,
    /// What `ensemble.json` says of each server, or will say.
    lines: Mutex<BTreeMap<(Role, usize), ServerLine>>,
    /// Whether the mount works: before, a child that ends is a failed start; after, it is started again.
    up: watch::Sender<bool>,
    /// Tells each child to stop, in stages.
    stage: watch::Sender<Stage>,
}

/// How far the stop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Run,
    StopProxy,
    StopServers,
    StopCoordinator,
}

/// Runs the ensemble until a signal, or until it cannot start.
///
/// # Errors
/// A sentence.
pub async fn run(mut deployment: Deployment) -> Result<()> {
    let mut stop = signals::stop()?;
    let control = deployment.address("control")?;
    let specs = specs(&deployment.layout);
    let nursery = Rc::new(Nursery {
        program: std::env::current_exe().map_err(Error::io("find", "this program"))?,
        layout: Mutex::new(deployment.layout.clone()),
        control,
        proxy_id: random_id()?,
        lines: Mutex::default(),
        up: watch::Sender::new(false),
        stage: watch::Sender::new(Stage::Run),
        deployment,
    });
    let (failed, mut failures) = mpsc::unbounded_channel();
    let children: Vec<(Role, JoinHandle<()>)> = specs
        .into_iter()
        .map(|spec| {
            let (role, nursery, failed) = (spec.role, Rc::clone(&nursery), failed.clone());
            let raise = async move {
                if let Err(error) = nursery.raise(&spec).await {
                    // The receiver lives as long as we run.
                    let _ = failed.send(error);
                }
            };
            (role, tokio::task::spawn_local(raise))
        })
        .collect();
    let listen = nursery.deployment.listen;
    let started = tokio::select! {
        up = nursery.ready(listen) => up.map(|()| true),
        Some(error) = failures.recv() => Err(error),
        () = stop.wait() => Ok(false),
    };
    let ended = match started {
        Ok(true) => match nursery.announce(listen) {
            Ok(()) => tokio::select! {
                Some(error) = failures.recv() => Err(error),
                () = stop.wait() => Ok(()),
            },
            Err(error) => Err(error),
        },
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    // A child that dies before it is told to stop must not bring the file back.
    nursery.up.send_replace(false);
    let removed = EnsembleFile::remove(&nursery.deployment.dir);
    nursery.stop(children).await;
    ended.and(removed)
}

fn specs(layout: &Layout) -> Vec<Spec> {
    let spec = |(role, index)| Spec { role, name: layout::name(role, index), index };
    let servers = layout.servers().into_iter().map(spec);
    std::iter::once((Role::Coordinator, 0)).map(spec).chain(servers).chain([spec((Role::Proxy, 0))]).collect()
}

impl Nursery {
    /// Resolves when the mount works and every server has come: a mount alone needs no storage node.
    async fn ready(&self, listen: SocketAddr) -> Result<()> {
        ready::mounted(listen, self.deployment.volume()).await?;
        let identity = self.deployment.identity.clone();
        let client = Client::new(&self.control.to_string(), identity, Arc::new(SystemClock))?;
        ready::all_heard(&client).await
    }

    /// Keeps a child alive until the stop.
    async fn raise(&self, spec: &Spec) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        let mut stage = self.stage.subscribe();
        loop {
            let born = Instant::now();
            let metrics = self.metrics(spec)?;
            let (mut child, addresses) = self.spawn(spec, metrics).await?;
            self.note(spec, child.id().unwrap_or(0), addresses, metrics)?;
            let status = tokio::select! {
                status = child.wait() => status.map_err(Error::io("wait for", &spec.name))?,
                _ = stage.wait_for(|s| *s >= stops_at(spec.role)) => return end(child, &spec.name).await,
            };
            if !*self.up.borrow() && status.code() == Some(2) {
                // It has said why on our standard error.
                return Err(Error::usage(format!(
                    "{} could not be started; its log is {}",
                    spec.name,
                    self.log(spec).display()
                )));
            }
            tracing::warn!(name = spec.name, %status, "a server has ended: starting it again");
            if born.elapsed() >= LONG_LIFE {
                pause = FIRST_PAUSE;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stage.wait_for(|s| *s >= stops_at(spec.role)) => return Ok(()),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Starts a child. Where it will listen.
    async fn spawn(&self, spec: &Spec, metrics: Option<SocketAddr>) -> Result<(Child, Vec<SocketAddr>)> {
        let (arguments, addresses) = self.arguments(spec, metrics)?;
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        // Of its own, so that ^C reaches only us, and we stop the children in order.
        command.process_group(0);
        let child = command.spawn().map_err(Error::io("start", &self.program))?;
        Ok((child, addresses))
    }

    fn log(&self, spec: &Spec) -> PathBuf {
        self.deployment.dir.join("log").join(format!("{}.log", spec.name))
    }

    fn arguments(
        &self,
        spec: &Spec,
        metrics: Option<SocketAddr>,
    ) -> Result<(Vec<OsString>, Vec<SocketAddr>)> {
        let Deployment { dir, args, listen, .. } = &self.deployment;
        let mut line: Vec<OsString> = vec![spec.role.name().into()];
        let mut flag = |name: &str, value: OsString| line.extend([name.into(), value]);
        flag("--identity", dir.join("identity").into());
        flag("--log", self.log(spec).into());
        flag("--parent", std::process::id().to_string().into());
        if let Some(format) = args.run.log_format {
            flag("--log-format", format.name().into());
        }
        if let Some(threads) = args.run.threads {
            flag("--threads", threads.to_string().into());
        }
        if let Some(at) = metrics {
            flag("--metrics", at.to_string().into());
        }
        if spec.role != Role::Coordinator {
            flag("--coordinator", self.control.to_string().into());
        }
        if spec.role == Role::Proxy {
            flag("--listen", listen.to_string().into());
            flag("--config", rules_path(dir).into());
            flag("--id", format!("{:016x}", self.proxy_id).into());
            if let Some(portmap) = args.portmap {
                flag("--portmap", portmap.to_string().into());
            }
            return Ok((line, vec![*listen]));
        }
        flag("--data", dir.join(&spec.name).into());
        flag("--store", self.deployment.layout.store.to_string().into());
        let at = self.address(spec)?;
        flag("--listen", at.to_string().into());
        if spec.role == Role::Coordinator {
            flag("--control", self.control.to_string().into());
            if let Some(seconds) = args.take_over_after {
                flag("--take-over-after", seconds.to_string().into());
            }
            return Ok((line, vec![at, self.control]));
        }
        Ok((line, vec![at]))
    }

    /// Where a server is to listen: at its port, or at another if somebody took that; the coordinator tells the others.
    fn address(&self, spec: &Spec) -> Result<SocketAddr> {
        let mut layout = self.layout.lock();
        let before = layout.ports.clone();
        let at = layout.ports.address(&spec.name, &self.deployment.taken())?;
        if layout.ports != before {
            layout.save(&self.deployment.dir)?;
        }
        Ok(at)
    }

    /// Where a child's metrics are to answer: the coordinator's, with the status page, where `--metrics` says, the others' at ports
    /// of their own.
    fn metrics(&self, spec: &Spec) -> Result<Option<SocketAddr>> {
        let Some(at) = self.deployment.args.run.metrics else { return Ok(None) };
        if spec.role == Role::Coordinator {
            return Ok(Some(at));
        }
        let mut layout = self.layout.lock();
        let before = layout.ports.clone();
        let own = layout.ports.address(&format!("{}-metrics", spec.name), &self.deployment.taken())?;
        if layout.ports != before {
            layout.save(&self.deployment.dir)?;
        }
        Ok(Some(SocketAddr::new(at.ip(), own.port())))
    }

    /// Notes a child that was started.
    fn note(
        &self,
        spec: &Spec,
        pid: u32,
        addresses: Vec<SocketAddr>,
        metrics: Option<SocketAddr>,
    ) -> Result<()> {
        let data = self.deployment.dir.join(&spec.name);
        let id = match spec.role {
            Role::Proxy => self.proxy_id,
            // A store that the child is making now shows in the next note.
            _ => slice_store::read_stamp(&data).map_or(0, |(stamp, _)| stamp.server.0),
        };
        let line = ServerLine {
            role: spec.role.name().to_owned(),
            id: format!("{id:016x}"),
            pid,
            addresses,
            metrics,
        };
        self.lines.lock().insert((spec.role, spec.index), line);
        if *self.up.borrow() { self.file().publish(&self.deployment.dir) } else { Ok(()) }
    }

    /// What runs now.
    fn file(&self) -> EnsembleFile {
        let mut file = EnsembleFile::new(self.deployment.identity.ensemble, self.control);
        file.servers = self.lines.lock().values().cloned().collect();
        file
    }

    /// The mount works: from now on children are started again, and `ensemble.json` follows them.
    fn announce(&self, listen: SocketAddr) -> Result<()> {
        for ((role, index), line) in self.lines.lock().iter_mut() {
            // Stores that were made since their server was noted.
            if let Ok((stamp, _)) =
                slice_store::read_stamp(&self.deployment.dir.join(layout::name(*role, *index)))
            {
                line.id = stamp.server.to_string();
            }
        }
        self.up.send_replace(true);
        self.deployment.announce(&self.file(), listen)
    }

    /// Stops everything, in order.
    async fn stop(&self, children: Vec<(Role, JoinHandle<()>)>) {
        let mut children = children;
        for stage in [Stage::StopProxy, Stage::StopServers, Stage::StopCoordinator] {
            self.stage.send_replace(stage);
            let (now, later) = children.into_iter().partition(|(role, _)| stops_at(*role) == stage);
            let now: Vec<_> = now;
            join_all(now.into_iter().map(|(_, task)| task)).await;
            children = later;
        }
    }
}

const fn stops_at(role: Role) -> Stage {
    match role {
        Role::Proxy | Role::Admin => Stage::StopProxy,
        Role::Dir | Role::Small | Role::Block => Stage::StopServers,
        Role::Coordinator => Stage::StopCoordinator,
    }
}

/// Ends a child: asks, waits, then kills.
async fn end(mut child: Child, name: &str) -> Result<()> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(STOP_GRACE, child.wait()).await.is_err() {
        tracing::warn!(name, "a server did not stop in time: killed");
        child.kill().await.map_err(Error::io("kill", name))?;
    }
    Ok(())
}
