//! Listening: one socket per worker thread on the same address, so that the kernel deals connections out and nobody
//! hands them around, unless the placement wants all connections of one client on one thread.

use super::connection::Connection;
use super::limits::Limits;
use super::sweep::Watched;
use super::task::Task;
use crate::error::Error;
use crate::framing::MAX_RECORD;
use crate::hello::{self, Me};
use crate::intake::Intake;
use crate::service::{LocalService, Peer, Service};
use crate::socket;
use crate::worker::Workers;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Pause after a failed accept. The usual reason is that the process has no file descriptor left, and no event tells
/// when there is one again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Who may speak to a listener.
#[derive(Debug, Clone)]
pub enum Gate {
    /// Anybody: NFS clients, which know no hello.
    Open,
    /// Only who proves the ensemble's secret in a hello; until then nothing but NULL and the hello is answered.
    Hello(Arc<Me>),
}

/// Which thread serves a connection.
#[derive(Debug, Clone, Copy)]
pub enum Placement {
    /// The one that accepted it.
    Accepting,
    /// The one that this function of the client's address chooses, modulo the number of threads.
    Chosen(fn(&SocketAddr) -> u64),
}

/// How a listener treats connections.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who may speak.
    pub gate: Gate,
    /// On which thread.
    pub placement: Placement,
    /// How much of everything.
    pub limits: Limits,
}

impl Options {
    /// For NFS clients: no hello, all connections of one client on one thread.
    #[must_use]
    pub fn clients() -> Self {
        Self {
            gate: Gate::Open,
            placement: Placement::Chosen(socket::hash_of_host),
            limits: Limits::clients(),
        }
    }

    /// For servers, µproxies and tools of the ensemble, which greet `me` with a hello.
    #[must_use]
    pub fn peers(me: Arc<Me>) -> Self {
        Self { gate: Gate::Hello(me), placement: Placement::Accepting, limits: Limits::peers() }
    }
}

/// A listening address. Dropping it changes nothing; [`Listener::stop`] ends it.
#[derive(Clone)]
pub struct Listener {
    shared: Arc<Shared>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Ending {
    No,
    Finish,
    AtOnce,
}

struct Shared {
    addr: SocketAddr,
    /// Open connections, those included whose last requests still run.
    open: AtomicUsize,
    /// Connections by host, on all threads; bounded as connections are.
    hosts: Mutex<BTreeMap<IpAddr, usize>>,
    ending: watch::Sender<Ending>,
    /// Changes whenever a connection or a thread's listening socket is gone.
    gone: watch::Sender<()>,
    accepting: AtomicUsize,
}

impl Listener {
    /// The address, with the port that the system chose if none was given.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Hosts that are connected, and by how many connections each.
    #[must_use]
    pub fn hosts(&self) -> Vec<(IpAddr, usize)> {
        self.shared.hosts.lock().iter().map(|(host, count)| (*host, *count)).collect()
    }

    /// Stops accepting and reading, answers what is pending, closes; after `grace`, closes in any case.
    /// Returns once the address is free and no connection is left (or its requests do not end).
    pub async fn stop(&self, grace: Duration) {
        self.shared.ending.send_replace(Ending::Finish);
        if tokio::time::timeout(grace, self.shared.ended()).await.is_err() {
            self.shared.ending.send_replace(Ending::AtOnce);
            // Closed connections go within their next wake-up; only requests that never end are not waited for.
            let _ = tokio::time::timeout(grace, self.shared.ended()).await;
        }
    }
}

impl Shared {
    async fn ended(&self) {
        let mut gone = self.gone.subscribe();
        while self.open.load(Ordering::Acquire) > 0 || self.accepting.load(Ordering::Acquire) > 0 {
            // The sender lives as long as self.
            let _ = gone.changed().await;
        }
    }
}

/// Serves `service` at `addr` on all `workers`; port 0 lets the system choose.
///
/// # Errors
/// [`Error::Listen`] if the address is taken or not ours.
pub fn serve(
    workers: &Workers,
    addr: SocketAddr,
    service: Arc<dyn Service>,
    options: Options,
) -> Result<Listener, Error> {
    serve_local(workers, addr, move |_| Rc::new(Arc::clone(&service)) as Rc<dyn LocalService>, options)
}

/// Serves at `addr` with a service of each thread's own, which `make` makes on that thread from its index.
///
/// # Errors
/// As [`serve`].
pub fn serve_local(
    workers: &Workers,
    addr: SocketAddr,
    make: impl Fn(usize) -> Rc<dyn LocalService> + Send + Sync + 'static,
    options: Options,
) -> Result<Listener, Error> {
    let sockets = socket::listen(addr, workers.count()).map_err(|source| Error::Listen { addr, source })?;
    let addr = sockets.first().map_or(Ok(addr), std::net::TcpListener::local_addr)?;
    let shared = Arc::new(Shared {
        addr,
        open: AtomicUsize::new(0),
        hosts: Mutex::default(),
        ending: watch::Sender::new(Ending::No),
        gone: watch::Sender::new(()),
        accepting: AtomicUsize::new(sockets.len()),
    });
    let site = Arc::new(Site {
        workers: workers.clone(),
        shared: Arc::clone(&shared),
        options,
        make: Box::new(make),
    });
    for (worker, socket) in sockets.into_iter().enumerate() {
        let site = Arc::clone(&site);
        workers.spawn_on(worker, move || Local::of(&site, worker).accept(socket));
    }
    Ok(Listener { shared })
}

/// What the threads of one listener share.
struct Site {
    workers: Workers,
    shared: Arc<Shared>,
    options: Options,
    make: Box<dyn Fn(usize) -> Rc<dyn LocalService> + Send + Sync>,
}

impl Site {
    /// Closes a connection that loses little by it, for a newcomer of `host`: of a host with most connections, so that a few
    /// hosts cannot shut out the others, or else of any. Whether there was one.
    async fn make_room(self: &Arc<Self>, host: IpAddr) -> bool {
        let (own, most) = {
            let hosts = self.shared.hosts.lock();
            (hosts.get(&host).copied().unwrap_or(0), hosts.values().copied().max().unwrap_or(0))
        };
        let silent = self.options.limits.silent;
        // With the newcomer, its host must not have more than the other is left with.
        let at_once = if own + 1 < most { Duration::ZERO } else { silent };
        for (at_least, silent) in [(most, at_once), (0, silent)] {
            for worker in 0..self.workers.count() {
                let site = Arc::clone(self);
                let ask = move || async move { Local::of(&site, worker).make_room(at_least, silent) };
                if self.workers.ask(worker, ask).await == Some(true) {
                    return true;
                }
            }
        }
        false
    }
}

/// A listener's part on one thread.
struct Local {
    site: Arc<Site>,
    worker: usize,
    service: Rc<dyn LocalService>,
    watched: Rc<Watched>,
    /// Connections by host.
    hosts: RefCell<HashMap<IpAddr, usize>>,
}

thread_local! {
    /// The listeners' parts on this thread, so that a connection handed over finds its own. Few: one per port.
    static LOCALS: RefCell<Vec<Rc<Local>>> = const { RefCell::new(Vec::new()) };
}

impl Local {
    /// The part of `site` on this thread, made where it is missing.
    fn of(site: &Arc<Site>, worker: usize) -> Rc<Self> {
        let found = LOCALS.with(|l| l.borrow().iter().find(|l| Arc::ptr_eq(&l.site, site)).cloned());
        found.unwrap_or_else(|| {
            let watched = Rc::<Watched>::default();
            let service = (site.make)(worker);
            let local =
                Rc::new(Self { site: Arc::clone(site), worker, service, watched, hosts: RefCell::default() });
            LOCALS.with(|l| l.borrow_mut().push(Rc::clone(&local)));
            tokio::task::spawn_local(Rc::clone(&local).attend());
            local
        })
    }

    /// Sweeps, and obeys the listener's end.
    async fn attend(self: Rc<Self>) {
        let mut ending = self.site.shared.ending.subscribe();
        let sweep = Rc::clone(&self.watched).run(self.site.options.limits);
        let obey = async {
            // An error means that the listener's shared state is gone, which self prevents.
            let _ = ending.wait_for(|e| *e >= Ending::Finish).await;
            self.watched.end(false);
            let _ = ending.wait_for(|e| *e >= Ending::AtOnce).await;
            self.watched.end(true);
        };
        tokio::select! {
            () = sweep => {}
            () = obey => {}
            () = self.all_gone() => {}
        }
        LOCALS.with(|l| l.borrow_mut().retain(|l| !Rc::ptr_eq(l, &self)));
    }

    /// Ready once the listener is ending and its last connection is gone.
    async fn all_gone(&self) {
        let mut ending = self.site.shared.ending.subscribe();
        let _ = ending.wait_for(|e| *e >= Ending::Finish).await;
        self.site.shared.ended().await;
    }

    async fn accept(self: Rc<Self>, socket: std::net::TcpListener) {
        let shared = Arc::clone(&self.site.shared);
        let mut ending = shared.ending.subscribe();
        let accept = async {
            match TcpListener::from_std(socket) {
                Ok(socket) => self.accept_all(&socket).await,
                Err(error) => {
                    tracing::error!(addr = %shared.addr, %error, "cannot watch the listening socket")
                }
            }
        };
        tokio::select! {
            () = accept => {}
            _ = ending.wait_for(|e| *e != Ending::No) => {}
        }
        shared.accepting.fetch_sub(1, Ordering::AcqRel);
        shared.gone.send_replace(());
    }

    async fn accept_all(self: &Rc<Self>, socket: &TcpListener) {
        loop {
            match socket.accept().await {
                Ok((stream, peer)) => self.place(stream, peer).await,
                Err(error) => {
                    tracing::warn!(addr = %self.site.shared.addr, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Has an accepted connection served by its thread, if there is, or can be made, a place for it. Whoever comes next waits
    /// for that in the listening socket.
    async fn place(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let limit = self.site.options.limits.connections;
        let (guard, before) = Guard::new(&self.site);
        if before < limit || self.site.make_room(peer.ip()).await {
            self.hand_over(stream, peer, guard);
        } else {
            tracing::warn!(%peer, limit, "too many connections, and none of them idle: closed");
        }
    }

    /// Closes a connection of a host that has at least so many on this thread, if it has been silent for so long. Whether there
    /// was one.
    fn make_room(&self, at_least: usize, silent: Duration) -> bool {
        let hosts = self.hosts.borrow();
        self.watched.make_room(silent, |host| hosts.get(&host).is_some_and(|count| *count >= at_least))
    }

    fn hand_over(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, guard: Guard) {
        let threads = self.site.workers.count();
        let target = match self.site.options.placement {
            Placement::Accepting => self.worker,
            // The remainder is below the number of threads.
            Placement::Chosen(choose) => (choose(&peer) % threads as u64) as usize,
        };
        if target == self.worker {
            tokio::task::spawn_local(Rc::clone(self).begin(stream, peer, guard));
            return;
        }
        match stream.into_std() {
            Ok(stream) => {
                let site = Arc::clone(&self.site);
                self.site.workers.spawn_on(target, move || async move {
                    let local = Self::of(&site, target);
                    match TcpStream::from_std(stream) {
                        Ok(stream) => local.begin(stream, peer, guard).await,
                        Err(error) => tracing::warn!(%peer, %error, "cannot watch a connection"),
                    }
                });
            }
            Err(error) => tracing::warn!(%peer, %error, "cannot hand over a connection"),
        }
    }

    /// Greets the peer where that is asked for, then serves it.
    async fn begin(self: Rc<Self>, mut stream: TcpStream, addr: SocketAddr, _guard: Guard) {
        let Some(_host) = Host::new(&self, addr.ip()) else {
            tracing::warn!(peer = %addr, limit = self.site.options.limits.per_host, "too many connections of this host");
            return;
        };
        if let Err(error) = socket::prepare(&stream) {
            tracing::debug!(%addr, %error, "connection lost as it was accepted");
            return;
        }
        let mut intake = Intake::new(MAX_RECORD);
        let proved = match &self.site.options.gate {
            Gate::Open => None,
            Gate::Hello(me) => {
                let mut ending = self.site.shared.ending.subscribe();
                let greeted = tokio::select! {
                    greeted = hello::receive(me, &mut stream, &mut intake) => greeted,
                    _ = ending.wait_for(|e| *e != Ending::No) => return,
                };
                match greeted {
                    Ok(proved) => Some(proved),
                    Err(Error::Eof) => return,
                    Err(error) => {
                        tracing::info!(peer = %addr, %error, "connection refused");
                        return;
                    }
                }
            }
        };
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let connection = Connection::new(id, Peer { addr, proved });
        self.watched.add(&connection.0);
        if *self.site.shared.ending.borrow() != Ending::No {
            connection.finish();
        }
        Task::new(stream, intake, connection, Rc::clone(&self.service), self.site.options.limits).run().await;
    }
}

/// Counts a connection among its host's for as long as it lives.
struct Host(Rc<Local>, IpAddr);

impl Host {
    /// `None` if the host has as many as it may, and none is idle.
    fn new(local: &Rc<Local>, ip: IpAddr) -> Option<Self> {
        let mut hosts = local.hosts.borrow_mut();
        let count = hosts.entry(ip).or_default();
        *count += 1;
        let within = *count <= local.site.options.limits.per_host;
        drop(hosts);
        *local.site.shared.hosts.lock().entry(ip).or_default() += 1;
        let host = Self(Rc::clone(local), ip);
        let silent = local.site.options.limits.silent;
        (within || local.watched.make_room(silent, |other| other == ip)).then_some(host)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        {
            let mut all = self.0.site.shared.hosts.lock();
            if let Some(count) = all.get_mut(&self.1) {
                *count -= 1;
                if *count == 0 {
                    all.remove(&self.1);
                }
            }
        }
        let mut hosts = self.0.hosts.borrow_mut();
        if let Some(count) = hosts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                hosts.remove(&self.1);
            }
        }
    }
}

/// Counts a connection among the listener's for as long as it lives.
struct Guard(Arc<Site>);

impl Guard {
    /// And how many there were before.
    fn new(site: &Arc<Site>) -> (Self, usize) {
        let before = site.shared.open.fetch_add(1, Ordering::AcqRel);
        (Self(Arc::clone(site)), before)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.shared.open.fetch_sub(1, Ordering::AcqRel);
        // Only who waits for the end listens.
        if *self.0.shared.ending.borrow() != Ending::No {
            self.0.shared.gone.send_replace(());
        }
    }
}
