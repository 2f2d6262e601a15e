//! The µproxy as the program sees it: made, started on worker threads, asked for figures, shut down.

use crate::config::ProxyConfig;
use crate::error::Error;
use crate::front::Front;
use crate::portmapper::{Portmapper, Registration, services};
use crate::shared::Shared;
use bytes::BytesMut;
use parking_lot::Mutex;
use slice_metrics::{Phases, Samples};
use slice_proto::ids::ServerId;
use slice_proto::rpc_msg::{program, version};
use slice_proto::stats::ServerStats;
use slice_rpc::clock::SharedClock;
use slice_rpc::tables::Tables;
use slice_rpc::{
    Directory, Handled, Listener, LocalService, Message, Options, Peer, Service, Workers, serve_local,
    serve_udp,
};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long clients' last requests and the last pushes may take at shutdown. What is not pushed then is lost soft state:
/// the data is at its servers, and nothing promised its size.
const GRACE: Duration = Duration::from_secs(5);

/// A µproxy. One per process and listening address; all its threads share it.
pub struct Proxy {
    shared: Arc<Shared>,
    id: ServerId,
    listen: SocketAddr,
    portmap: Option<SocketAddr>,
    running: Mutex<Running>,
}

/// What was started.
#[derive(Default)]
struct Running {
    workers: Option<Workers>,
    listeners: Vec<Listener>,
    registered: Vec<Registration>,
}

/// A thread's front behind a listener.
struct Serving(Rc<Front>);

impl LocalService for Serving {
    fn call(&self, connection: &slice_rpc::Connection, record: BytesMut, reply: &mut Message) -> Handled {
        self.0.call(connection, record, reply)
    }

    fn phases(&self) -> Option<Rc<Phases>> {
        LocalService::phases(&*self.0)
    }
}

/// MOUNT and portmap over UDP. NFS is not served over UDP: nothing would push back, and a WRITE does not fit.
struct Datagrams(Arc<Shared>);

impl Service for Datagrams {
    fn call(&self, peer: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        if crate::classify::program_of(&record) == Some(program::NFS) {
            return Handled::Close;
        }
        self.0.front().handle(peer, None, record, reply)
    }
}

impl Proxy {
    /// Makes a µproxy that routes by `tables` and reaches servers through `directory`.
    ///
    /// # Errors
    /// [`Error::Random`] if the system has no random bytes for the write verifier (I7).
    pub fn new(
        config: ProxyConfig,
        tables: Tables,
        directory: Directory,
        clock: SharedClock,
    ) -> Result<Arc<Self>, Error> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(Error::Random)?;
        let shared = Shared::new(
            config.identity,
            config.exports,
            config.space,
            (tables, directory, clock),
            u64::from_be_bytes(random),
        );
        Ok(Arc::new(Self {
            shared,
            id: config.id,
            listen: config.listen,
            portmap: config.portmap,
            running: Mutex::default(),
        }))
    }

    /// Listens, on all worker threads. Returns the address of NFS, with the port that the system chose if none was given.
    ///
    /// # Errors
    /// [`Error::Rpc`] if an address is taken or not ours; a port of the port mapper that is taken is no error: NFS and
    /// MOUNT are registered with who has it.
    pub fn start(&self, workers: &Workers) -> Result<SocketAddr, Error> {
        let nfs = serve_local(workers, self.listen, self.maker(), Options::clients())?;
        let addr = nfs.local_addr();
        if let Err(error) = serve_udp(workers, 0, addr, Arc::new(Datagrams(Arc::clone(&self.shared)))) {
            // Clients that ask MOUNT over UDP can be told mountproto=tcp.
            tracing::warn!(%error, "MOUNT does not answer over UDP: mount with -o mountproto=tcp");
        }
        tracing::info!(id = %self.id, %addr, "NFS, MOUNT and portmap answer here");
        let mut registered = services(addr);
        let mut listeners = vec![nfs];
        let mut elsewhere = Vec::new();
        if let Some(at) = self.portmap {
            match self.start_portmap(workers, at) {
                Ok(listener) => {
                    registered.extend(portmap_itself(listener.local_addr()));
                    listeners.push(listener);
                }
                Err(error) => {
                    tracing::info!(%at, %error, "a port mapper runs already: NFS and MOUNT are registered with it");
                    elsewhere.clone_from(&registered);
                }
            }
        }
        self.shared.set_portmapper(Portmapper(registered));
        if !elsewhere.is_empty() {
            let services = elsewhere.clone();
            workers.spawn_on(0, move || async move { crate::register::register(&services).await });
        }
        *self.running.lock() = Running { workers: Some(workers.clone()), listeners, registered: elsewhere };
        Ok(addr)
    }

    fn start_portmap(&self, workers: &Workers, at: SocketAddr) -> Result<Listener, Error> {
        let listener = serve_local(workers, at, self.maker(), Options::clients())?;
        serve_udp(workers, 0, listener.local_addr(), Arc::new(Datagrams(Arc::clone(&self.shared))))?;
        Ok(listener)
    }

    fn maker(&self) -> impl Fn(usize) -> Rc<dyn LocalService> + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move |_| Rc::new(Serving(shared.front()))
    }

    /// The current thread's part of this µproxy, for those who bring its connections themselves (simulation, tests).
    /// Must be called inside a `LocalSet`.
    #[must_use]
    pub fn local_service(&self) -> Rc<dyn LocalService> {
        Rc::new(Serving(self.shared.front()))
    }

    /// Where portmap answers, if it is ours.
    #[must_use]
    pub fn portmap_addr(&self) -> Option<SocketAddr> {
        self.running.lock().listeners.get(1).map(Listener::local_addr)
    }

    /// What `slice status` shows. A µproxy has no store: only its calls and connections count.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        ServerStats { ops: self.shared.watched.ops(), ..ServerStats::default() }
    }

    /// What the metrics endpoint shows.
    pub fn samples(&self, out: &mut Samples) {
        self.shared.watched.samples(&self.shared.tables.current(), out);
        let help = "Connections open now.";
        out.gauge("slice_connections", help, &[], self.connections() as f64);
    }

    /// Clients' requests since start, all procedures together.
    #[must_use]
    pub fn total(&self) -> slice_rpc::metered::Total {
        slice_rpc::metered::total(&self.shared.watched.clients)
    }

    /// Calls to each server since start.
    #[must_use]
    pub fn asked(&self) -> Vec<(ServerId, u64)> {
        self.shared.watched.asked()
    }

    /// Clients that are connected, and by how many connections each.
    #[must_use]
    pub fn clients(&self) -> Vec<(IpAddr, usize)> {
        self.running.lock().listeners.first().map(Listener::hosts).unwrap_or_default()
    }

    /// Clients' connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.running.lock().listeners.iter().map(Listener::connections).sum()
    }

    /// Answers what is pending, closes, pushes everything. Must not be called on a worker thread.
    pub async fn shutdown(&self) {
        let Running { workers, listeners, registered } = std::mem::take(&mut *self.running.lock());
        for listener in &listeners {
            listener.stop(GRACE).await;
        }
        if !registered.is_empty() {
            crate::register::unregister(&registered).await;
        }
        let Some(workers) = workers else { return };
        let all = (0..workers.count()).map(|worker| {
            let shared = Arc::clone(&self.shared);
            workers.ask(worker, move || async move {
                if let Some(front) = shared.take_front() {
                    front.push_all().await;
                }
            })
        });
        if tokio::time::timeout(GRACE, futures_util::future::join_all(all)).await.is_err() {
            tracing::warn!("not all growth and times could be pushed before the end");
        }
    }
}

/// The port mapper's own registrations.
fn portmap_itself(addr: SocketAddr) -> Vec<Registration> {
    let versions = [version::PORTMAP2, version::RPCBIND3, version::RPCBIND4];
    let of = |vers| [true, false].map(|tcp| Registration { prog: program::PORTMAP, vers, tcp, addr });
    versions.into_iter().flat_map(of).collect()
}
