//! Who runs when: nodes, events, time.
//!
//! Everything runs on one thread under tokio's paused clock, which moves on to the next timer when nobody has anything to
//! do. A node is a server or µproxy with a `LocalSet` of its own: dropping that kills it at whatever await point its tasks
//! stand. Which node runs first is drawn anew at every turn. Events (a record arrives, an fsync is over, a fault strikes)
//! are closures in order of their time; they run outside all nodes.

use crate::disk::Disk;
use crate::machine::Machine;
use crate::net::Net;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use slice_proto::ids::{Role, ServerId};
use slice_rpc::{Clock, LocalService, Service};
use slice_store::Store;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::Instant;

/// Nanoseconds since the history began.
pub type Ns = u64;
/// A millisecond.
pub const MS: Ns = 1_000_000;
/// What the clocks show when a history begins: some day of 2023.
const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

/// A machine's clock: simulated time, and by how much it is wrong.
#[derive(Debug)]
pub struct SimClock {
    start: Instant,
    /// May be changed while the server runs: the clock jumps.
    pub off_ns: AtomicI64,
}

impl Clock for SimClock {
    fn now_ns(&self) -> u64 {
        let now = EPOCH_NS + self.start.elapsed().as_nanos() as u64;
        now.saturating_add_signed(self.off_ns.load(Ordering::Relaxed))
    }

    fn monotonic_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

/// What of a node answers.
#[derive(Clone)]
pub enum Host {
    /// A server.
    Server(Arc<dyn Service>),
    /// A µproxy.
    Proxy(Rc<dyn LocalService>),
}

/// A machine with one server or µproxy.
pub struct Node {
    /// For the log.
    pub name: String,
    /// Its server's id.
    pub id: ServerId,
    /// What it does.
    pub role: Role,
    /// Its server's life: counts starts and kills.
    pub life: Cell<u64>,
    /// Its tasks, while it is up.
    pub set: RefCell<Option<LocalSet>>,
    /// It is stopped: nothing of it runs, but nothing is lost.
    pub stopped: Cell<bool>,
    /// What answers, once it is open.
    pub host: RefCell<Option<Host>>,
    /// What strikes it, once so many more of its answers have arrived.
    pub doom: RefCell<Option<(u32, Strike)>>,
    /// Its store, while it is up.
    pub store: RefCell<Option<Store>>,
    /// Its store's disk.
    pub disk: Disk,
    /// Its files, if it is a data server's or the coordinator's.
    pub machine: Machine,
    /// Its clock.
    pub clock: Arc<SimClock>,
}

/// What happens to a node.
pub type Strike = Box<dyn FnOnce()>;

type Event = Box<dyn FnOnce(&Rc<World>)>;

/// Everything there is in one history.
pub struct World {
    rng: RefCell<StdRng>,
    /// The machines.
    pub nodes: Vec<Node>,
    /// The clients' tasks.
    pub clients: RefCell<LocalSet>,
    /// What is between them.
    pub net: RefCell<Net>,
    events: RefCell<BTreeMap<(Ns, u64), Event>>,
    scheduled: Cell<u64>,
    news: Notify,
    start: Instant,
    hash: RefCell<DefaultHasher>,
    trace: bool,
    tail: RefCell<Vec<String>>,
}

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// This thread's world.
#[must_use]
pub fn world() -> Rc<World> {
    WORLD.with_borrow(Clone::clone).expect("there is a world on this thread")
}

impl World {
    /// A world of these machines. It becomes this thread's; must be made inside the runtime.
    pub fn make(seed: u64, machines: Vec<(String, ServerId, Role)>) -> Rc<Self> {
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(seed);
        let node = |(name, id, role)| Node {
            name,
            id,
            role,
            life: Cell::new(0),
            set: RefCell::default(),
            stopped: Cell::new(false),
            host: RefCell::default(),
            doom: RefCell::default(),
            store: RefCell::default(),
            disk: Disk::default(),
            machine: Machine::default(),
            // Up to two seconds wrong.
            clock: Arc::new(SimClock {
                start,
                off_ns: AtomicI64::new(rng.random_range(-2_000_000_000..2_000_000_000)),
            }),
        };
        let world = Rc::new(Self {
            nodes: machines.into_iter().map(node).collect(),
            rng: RefCell::new(rng),
            clients: RefCell::default(),
            net: RefCell::default(),
            events: RefCell::default(),
            scheduled: Cell::new(0),
            news: Notify::new(),
            start,
            hash: RefCell::default(),
            trace: std::env::var_os("SLICE_SIM_TRACE").is_some(),
            tail: RefCell::default(),
        });
        WORLD.set(Some(Rc::clone(&world)));
        world
    }

    /// The thread is free for another world.
    pub fn unmake() {
        WORLD.set(None);
    }

    /// Simulated time.
    #[must_use]
    pub fn now(&self) -> Ns {
        self.start.elapsed().as_nanos() as u64
    }

    /// Draws.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.rng.borrow_mut())
    }

    /// Notes what happens: two runs of one seed must note the same.
    pub fn note(&self, what: impl FnOnce() -> String) {
        let line = format!("{:>12.3} ms {}", self.now() as f64 / MS as f64, what());
        line.hash(&mut *self.hash.borrow_mut());
        if self.trace {
            eprintln!("{line}");
        }
        let mut tail = self.tail.borrow_mut();
        tail.push(line);
    }

    /// A hash of all that was noted.
    #[must_use]
    pub fn noted(&self) -> u64 {
        self.hash.borrow().finish()
    }

    /// All that was noted.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.tail.borrow().clone()
    }

    /// Has something happen later.
    pub fn at(&self, when: Ns, event: impl FnOnce(&Rc<Self>) + 'static) {
        let number = self.scheduled.get();
        self.scheduled.set(number + 1);
        self.events.borrow_mut().insert((when, number), Box::new(event));
        self.news.notify_one();
    }

    /// Has something happen in a while.
    pub fn after(&self, wait: Ns, event: impl FnOnce(&Rc<Self>) + 'static) {
        self.at(self.now() + wait, event);
    }

    /// Runs events at their time, for ever. After most of them, and always before time goes on, the nodes get their turn.
    async fn run_events(self: &Rc<Self>) {
        loop {
            let next = self.events.borrow().keys().next().copied();
            match next {
                None => self.news.notified().await,
                Some((when, _)) if when > self.now() => {
                    let due = self.start + Duration::from_nanos(when);
                    tokio::select! {
                        biased;
                        () = self.news.notified() => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                Some(key) => {
                    let event = self.events.borrow_mut().remove(&key);
                    if let Some(event) = event {
                        event(self);
                    }
                    let now = self.now();
                    let more = self.events.borrow().keys().next().is_some_and(|(when, _)| *when <= now);
                    if !more || self.draw(|rng| rng.random_bool(0.7)) {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }

    /// Runs everything until `main` is done.
    pub async fn run<T>(self: &Rc<Self>, main: impl Future<Output = T>) -> T {
        let mut root =
            Root { world: Rc::clone(self), main: Box::pin(main), events: Box::pin(self.run_events()) };
        std::future::poll_fn(|cx| root.poll(cx)).await
    }
}

struct Root<'a, T> {
    world: Rc<World>,
    main: Pin<Box<dyn Future<Output = T> + 'a>>,
    events: Pin<Box<dyn Future<Output = ()> + 'a>>,
}

impl<T> Root<'_, T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        let mut order: Vec<usize> = (0..=self.world.nodes.len()).collect();
        self.world.draw(|rng| order.shuffle(rng));
        for i in order {
            match self.world.nodes.get(i) {
                Some(node) if node.stopped.get() => {}
                Some(node) => {
                    if let Some(set) = node.set.borrow_mut().as_mut() {
                        let _ = Pin::new(set).poll(cx);
                    }
                }
                None => {
                    let _ = Pin::new(&mut *self.world.clients.borrow_mut()).poll(cx);
                }
            }
        }
        let _ = self.events.as_mut().poll(cx);
        self.main.as_mut().poll(cx)
    }
}
