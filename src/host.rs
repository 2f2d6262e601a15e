//! The servers of one process: all of them under `slice up`, one alone otherwise. The same code for both.
//!
//! ```text
//!   main thread: control plane (gRPC), agents, supervision          worker threads: every record of every server
//!     Agent ──register, heartbeat, watch──▶ coordinator               listener ─▶ Service::call ◀─ channel (in process)
//!       └─ table ─▶ Targets ─▶ Directory, Tables ────────────────────────────────▲
//! ```

use crate::agent::{Activity, Agent, Told};
use crate::error::{Error, Result};
use crate::hosted::Hosted;
use crate::store::{self, Made};
use crate::targets::Targets;
use crate::watch::{Watch, Watched};
use futures_util::future::select_all;
use slice_coordinator::client::Client;
use slice_coordinator::{Coordinator, CoordinatorConfig};
use slice_proto::control::pb;
use slice_proto::ids::{Role, ServerId};
use slice_proto::secret::Identity;
use slice_proxy::Proxy;
use slice_proxy::{Exports, ProxyConfig};
use slice_rpc::clock::{SharedClock, SystemClock};
use slice_rpc::metered::{Metered, Total, total};
use slice_rpc::tables::Tables;
use slice_rpc::{Directory, Listener, Me, Options, Service, Workers, serve};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How long peers' last requests may take at shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// The servers of this process.
pub struct Host {
    workers: Workers,
    me: Arc<Me>,
    clock: SharedClock,
    targets: Arc<Targets>,
    running: Vec<Running>,
    coordinator: Option<Coordination>,
    watch: Watch,
}

/// A server that runs here.
struct Running {
    role: Role,
    hosted: Arc<dyn Hosted>,
    listener: Option<Listener>,
    agent: JoinHandle<Result<()>>,
    background: JoinHandle<()>,
}

/// The coordinator, if it runs here.
struct Coordination {
    coordinator: Arc<Coordinator>,
    listener: Listener,
    control: JoinHandle<Result<()>>,
}

/// How a server that owns sites is to run.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Which.
    pub role: Role,
    /// Directory of its store.
    pub data: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the others reach it, if not there.
    pub advertise: Option<String>,
}

/// What came of starting a server.
#[derive(Debug, Clone)]
pub struct Started {
    /// Its id.
    pub server: ServerId,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Host {
    /// Starts `threads` worker threads; `role` and `server` are who this process is in hellos.
    ///
    /// # Errors
    /// A sentence if the system has no threads to give.
    pub fn start(identity: Identity, role: Role, server: ServerId, threads: usize) -> Result<Self> {
        let me = Arc::new(Me { identity, role, server });
        let targets = Targets::new(Directory::new(Some(Arc::clone(&me))));
        Ok(Self {
            workers: Workers::start("slice", threads)?,
            watch: Watch::new(targets.tables()),
            targets,
            me,
            clock: Arc::new(SystemClock),
            running: Vec::new(),
            coordinator: None,
        })
    }

    /// The routing table as this process sees it.
    #[must_use]
    pub fn tables(&self) -> Tables {
        self.targets.tables()
    }

    /// Has metrics answered at `addr`, if one is given, and where the coordinator runs here its status page. Where that is.
    ///
    /// # Errors
    /// A sentence.
    pub async fn watch(&self, addr: Option<SocketAddr>) -> Result<Option<SocketAddr>> {
        match addr {
            Some(addr) => self.watch.serve(addr).await.map(Some),
            None => Ok(None),
        }
    }

    /// A client of the coordinator.
    ///
    /// # Errors
    /// A sentence if the address is none.
    pub fn client(&self, coordinator: &str) -> Result<Client> {
        Ok(Client::new(coordinator, self.me.identity.clone(), Arc::clone(&self.clock))?)
    }

    /// Listens for peers of the ensemble, as the server `server`.
    fn listen(
        &self,
        at: SocketAddr,
        role: Role,
        server: ServerId,
        service: Arc<dyn Service>,
    ) -> Result<Listener> {
        let me = Me { identity: self.me.identity.clone(), role, server };
        Ok(serve(&self.workers, at, service, Options::peers(Arc::new(me)))?)
    }

    /// Runs the coordinator here, its control plane at `control`. Returns where both listen.
    ///
    /// # Errors
    /// A sentence.
    pub async fn coordinator(
        &mut self,
        mut config: CoordinatorConfig,
        listen: SocketAddr,
        control: SocketAddr,
        advertise: Option<String>,
    ) -> Result<(SocketAddr, SocketAddr)> {
        let server = config.server;
        let gate = Arc::new(Late::default());
        let metered = Metered::new(Role::Coordinator, Arc::clone(&gate) as Arc<dyn Service>);
        let service = Arc::clone(&metered) as Arc<dyn Service>;
        let listener = self.listen(listen, Role::Coordinator, server, Arc::clone(&service))?;
        config.address = reached_at(listener.local_addr(), advertise)?;
        let control =
            TcpListener::bind(control).await.map_err(|source| Error::Listen { addr: control, source })?;
        let control_at = control.local_addr().map_err(Error::io("read", "the control plane's address"))?;
        let directory = self.targets.directory();
        let coordinator =
            Coordinator::open(config, self.targets.sender(), directory, Arc::clone(&self.clock)).await?;
        gate.open(Arc::clone(&coordinator) as Arc<dyn Service>);
        self.targets.add(server, service);
        self.watch.coordinator(Arc::clone(&coordinator));
        self.watch.add(Watched {
            role: Role::Coordinator,
            server,
            hosted: None,
            metered: Some(metered),
            listener: Some(listener.clone()),
        });
        let targets = Arc::clone(&self.targets);
        tokio::task::spawn_local(async move { targets.follow().await });
        let serve = Arc::clone(&coordinator).serve_control(control);
        let control = tokio::task::spawn_local(async move { serve.await.map_err(Into::into) });
        let run = Arc::clone(&coordinator);
        self.workers.spawn_on(0, move || run.run());
        let address = listener.local_addr();
        self.coordinator = Some(Coordination { coordinator, listener, control });
        Ok((address, control_at))
    }

    /// Opens a server that owns sites and ties it to the coordinator. `made` tells whose store it is.
    ///
    /// # Errors
    /// A sentence.
    pub async fn server(&mut self, settings: ServerSettings, made: Made, client: Client) -> Result<Started> {
        let ServerSettings { role, data, listen, advertise } = settings;
        let filesystem = store::filesystem(&data);
        let hosted = store::open(role, data, &made, &self.me.identity, &self.targets, &self.clock).await?;
        let service = hosted.service().ok_or_else(|| Error::usage(format!("a {role} owns no sites")))?;
        let metered = Metered::new(role, service);
        let service = Arc::clone(&metered) as Arc<dyn Service>;
        let server = made.server;
        let listener = self.listen(listen, role, server, Arc::clone(&service))?;
        self.targets.add(server, service);
        let address = listener.local_addr();
        let agent = Agent {
            server,
            role,
            address: reached_at(address, advertise)?,
            filesystem,
            fresh: made.fresh,
            client,
            hosted: Arc::clone(&hosted),
            targets: Arc::clone(&self.targets),
            activity: served(Arc::clone(&metered), listener.clone()),
            space: Arc::default(),
        };
        self.watch.add(Watched {
            role,
            server,
            hosted: Some(Arc::clone(&hosted)),
            metered: Some(metered),
            listener: Some(listener.clone()),
        });
        self.keep(role, hosted, Some(listener), agent);
        Ok(Started { server, address })
    }

    /// Runs a µproxy and ties it to the coordinator; an id is drawn if none is given.
    ///
    /// # Errors
    /// A sentence.
    pub fn proxy(
        &mut self,
        id: Option<ServerId>,
        listen: SocketAddr,
        advertise: Option<String>,
        portmap: Option<SocketAddr>,
        exports: Exports,
        client: Client,
    ) -> Result<Started> {
        let server = id.map_or_else(|| crate::identity::random_id().map(ServerId), Ok)?;
        let space = Arc::<Told>::default();
        let config = ProxyConfig {
            listen,
            portmap,
            identity: self.me.identity.clone(),
            id: server,
            exports,
            space: Arc::clone(&space) as Arc<dyn slice_proxy::SpaceSource>,
        };
        let proxy =
            Proxy::new(config, self.targets.tables(), self.targets.directory(), Arc::clone(&self.clock))
                .map_err(Error::service(Role::Proxy))?;
        let address = proxy.start(&self.workers).map_err(|e| match e {
            slice_proxy::Error::Rpc(e) => e.into(),
            other => Error::service(Role::Proxy)(other),
        })?;
        let activity = forwarded(Arc::clone(&proxy));
        let hosted: Arc<dyn Hosted> = Arc::new(proxy);
        let watched = Arc::clone(&hosted);
        self.watch.add(Watched {
            role: Role::Proxy,
            server,
            hosted: Some(watched),
            metered: None,
            listener: None,
        });
        let agent = Agent {
            server,
            role: Role::Proxy,
            // Nobody connects by it, so one that means every address does no harm.
            address: advertise.unwrap_or_else(|| address.to_string()),
            filesystem: 0,
            fresh: true,
            client,
            hosted: Arc::clone(&hosted),
            targets: Arc::clone(&self.targets),
            activity,
            space,
        };
        self.keep(Role::Proxy, hosted, None, agent);
        Ok(Started { server, address })
    }

    fn keep(&mut self, role: Role, hosted: Arc<dyn Hosted>, listener: Option<Listener>, agent: Agent) {
        let agent = tokio::task::spawn_local(agent.run());
        // Spread over the workers, on whose channels it calls others.
        let worker = self.running.len();
        let run = Arc::clone(&hosted);
        let (ended, background) = tokio::sync::oneshot::channel::<()>();
        self.workers.spawn_on(worker, move || async move {
            run.run().await;
            drop(ended);
        });
        let background = tokio::task::spawn_local(async move {
            // Dropped, never sent.
            let _ = background.await;
        });
        self.running.push(Running { role, hosted, listener, agent, background });
    }

    /// Waits until a server here cannot go on, and tells why.
    pub async fn failed(&mut self) -> Error {
        let control = self.coordinator.as_mut().map(|c| (Role::Coordinator, &mut c.control));
        let agents = self.running.iter_mut().map(|r| (r.role, &mut r.agent));
        let ends: Vec<_> = control
            .into_iter()
            .chain(agents)
            .map(|(role, task)| {
                Box::pin(async move {
                    match task.await {
                        Ok(Err(error)) => error,
                        Ok(Ok(())) => Error::Ended(format!("the {role} has ended")),
                        Err(panic) => Error::Ended(format!("the {role} has failed: {panic}")),
                    }
                })
            })
            .collect();
        if ends.is_empty() {
            return std::future::pending().await;
        }
        select_all(ends).await.0
    }

    /// Stops everything: clients first, then servers, the coordinator last.
    pub async fn stop(mut self) {
        // µproxies push what they hold to servers that still answer.
        self.running.sort_by_key(|r| r.role);
        for r in &self.running {
            r.agent.abort();
            if r.role == Role::Proxy {
                r.hosted.shutdown().await;
            }
        }
        for r in self.running.iter().filter(|r| r.role != Role::Proxy) {
            if let Some(listener) = &r.listener {
                listener.stop(GRACE).await;
            }
        }
        for r in self.running.drain(..) {
            if r.role != Role::Proxy {
                r.hosted.shutdown().await;
            }
            if tokio::time::timeout(GRACE, r.background).await.is_err() {
                tracing::warn!(role = %r.role, "background work did not end in time");
            }
        }
        if let Some(c) = self.coordinator.take() {
            c.listener.stop(GRACE).await;
            c.coordinator.shutdown().await;
            if tokio::time::timeout(GRACE, c.control).await.is_err() {
                tracing::warn!("the control plane did not end in time");
            }
        }
        self.workers.stop();
    }
}

/// Clients that a µproxy tells of; those with the most connections.
const CLIENTS_TOLD: usize = 32;

/// What a server does, from what it was called for.
fn served(metered: Arc<Metered>, listener: Listener) -> Activity {
    Box::new(move || activity(&total(metered.calls()), listener.connections()))
}

/// What a µproxy does.
fn forwarded(proxy: Arc<Proxy>) -> Activity {
    Box::new(move || {
        let mut clients = proxy.clients();
        clients.sort_by_key(|(address, connections)| (std::cmp::Reverse(*connections), *address));
        let clients = clients.into_iter().take(CLIENTS_TOLD).map(|(address, connections)| pb::Client {
            address: address.to_string(),
            connections: u32::try_from(connections).unwrap_or(u32::MAX),
        });
        let asked = proxy.asked().into_iter().map(|(server, calls)| pb::Asked { server: server.0, calls });
        pb::Activity {
            clients: clients.collect(),
            asked: asked.collect(),
            ..activity(&proxy.total(), proxy.connections())
        }
    })
}

fn activity(total: &Total, connections: usize) -> pb::Activity {
    let usage = crate::watch::process::usage();
    pb::Activity {
        errors: total.errors,
        faults: total.faults,
        latency: total.latency.buckets.to_vec(),
        connections: connections as u64,
        cpu_ns: usage.cpu_ns,
        resident_bytes: usage.resident_bytes,
        ..pb::Activity::default()
    }
}

/// `host:port` at which the others reach a server.
fn reached_at(listening: SocketAddr, advertise: Option<String>) -> Result<String> {
    match advertise {
        Some(address) => Ok(address),
        None if listening.ip().is_unspecified() => Err(Error::usage(format!(
            "--listen {listening} is every address of this machine and tells the others none: give --advertise HOST:PORT"
        ))),
        None => Ok(listening.to_string()),
    }
}

/// A service that is bound to its address before it is there: calls before that are told to come again.
#[derive(Default)]
struct Late(std::sync::OnceLock<Arc<dyn Service>>);

impl Late {
    fn open(&self, service: Arc<dyn Service>) {
        // Opened once.
        let _ = self.0.set(service);
    }
}

impl Service for Late {
    fn call(
        &self,
        peer: &slice_rpc::Peer,
        record: bytes::BytesMut,
        reply: &mut slice_rpc::Message,
    ) -> slice_rpc::Handled {
        match self.0.get() {
            Some(service) => service.call(peer, record, reply),
            // The channel connects and asks again.
            None => slice_rpc::Handled::Close,
        }
    }
}
