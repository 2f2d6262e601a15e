//! Where the servers are. One [`Directory`] per process, shared by all threads; from it each thread builds the
//! [`Channels`] that it uses, lazily and for itself.

use crate::channel::{Channel, ReplySink, SinkCell};
use crate::error::CallError;
use crate::hello::Me;
use crate::metered::Targets;
use crate::service::Service;
use parking_lot::RwLock;
use slice_proto::ids::ServerId;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// How a server is reached.
#[derive(Clone)]
pub enum Target {
    /// At a socket address.
    Socket(SocketAddr),
    /// In this process: its handler runs on the caller's thread.
    InProcess(Arc<dyn Service>),
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Socket(a), Self::Socket(b)) => a == b,
            (Self::InProcess(a), Self::InProcess(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(addr) => write!(f, "{addr}"),
            Self::InProcess(_) => f.write_str("in process"),
        }
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);

/// All servers that this process may call. Cheap to clone.
#[derive(Clone)]
pub struct Directory(Arc<Shared>);

struct Shared {
    number: u64,
    me: Option<Arc<Me>>,
    targets: RwLock<HashMap<ServerId, Target>>,
    changed: watch::Sender<()>,
}

impl Directory {
    /// An empty directory of a process that says `me` in its hellos; `None` says no hello (to servers that are not of
    /// an ensemble: tests, load generators).
    #[must_use]
    pub fn new(me: Option<Arc<Me>>) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Shared { number, me, targets: RwLock::default(), changed: watch::Sender::new(()) }))
    }

    /// Who we are in hellos.
    #[must_use]
    pub fn me(&self) -> Option<&Arc<Me>> {
        self.0.me.as_ref()
    }

    /// Adds a server, or changes where it is reached: unanswered calls are sent again at the new address.
    pub fn set(&self, server: ServerId, target: Target) {
        let before = self.0.targets.write().insert(server, target.clone());
        if before != Some(target) {
            self.0.changed.send_replace(());
        }
    }

    /// Removes a server: unanswered calls to it fail with [`CallError::Gone`].
    pub fn remove(&self, server: ServerId) {
        if self.0.targets.write().remove(&server).is_some() {
            self.0.changed.send_replace(());
        }
    }

    /// Puts `targets` in the place of everything known.
    pub fn replace(&self, targets: impl IntoIterator<Item = (ServerId, Target)>) {
        let targets: HashMap<_, _> = targets.into_iter().collect();
        let before = std::mem::replace(&mut *self.0.targets.write(), targets.clone());
        if before != targets {
            self.0.changed.send_replace(());
        }
    }

    /// Where a server is reached.
    #[must_use]
    pub fn target(&self, server: ServerId) -> Option<Target> {
        self.0.targets.read().get(&server).cloned()
    }

    /// Every server known, in no order.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerId> {
        self.0.targets.read().keys().copied().collect()
    }

    /// This thread's channels. Must be called inside a `LocalSet`, as everything on a worker thread is.
    #[must_use]
    pub fn channels(&self) -> Channels {
        CHANNELS.with(|all| {
            let found = all.borrow().iter().find(|c| c.0.directory.0.number == self.0.number).cloned();
            found.unwrap_or_else(|| {
                let channels = Channels::new(self.clone());
                all.borrow_mut().push(channels.clone());
                channels
            })
        })
    }

    /// This thread's channel to a server. Must be called inside a `LocalSet`.
    ///
    /// # Errors
    /// [`CallError::Gone`] if the server is not known.
    pub fn channel(&self, server: ServerId) -> Result<Channel, CallError> {
        self.channels().get(server)
    }
}

thread_local! {
    static CHANNELS: RefCell<Vec<Channels>> = const { RefCell::new(Vec::new()) };
}

/// Server ids are random numbers: good hashes of themselves.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*b);
        }
    }

    fn write_u64(&mut self, id: u64) {
        // Ids that are small numbers (tests) must reach the high bits too, by which the map's groups are told apart.
        self.0 = id ^ id.rotate_left(57);
    }
}

/// One thread's channels, by server. Cheap to clone; stays on its thread.
#[derive(Clone)]
pub struct Channels(Rc<Inner>);

struct Inner {
    directory: Directory,
    channels: RefCell<HashMap<ServerId, Channel, BuildHasherDefault<IdHasher>>>,
    sink: Rc<SinkCell>,
}

impl Channels {
    /// Channels of their own to the servers in `directory`, apart from [`Directory::channels`]. Must be called inside
    /// a `LocalSet`.
    #[must_use]
    pub fn new(directory: Directory) -> Self {
        let changed = directory.0.changed.subscribe();
        let inner = Rc::new(Inner { directory, channels: RefCell::default(), sink: Rc::default() });
        tokio::task::spawn_local(follow(Rc::downgrade(&inner), changed));
        Self(inner)
    }

    /// Who takes the replies to forwarded calls on this thread.
    pub fn set_sink(&self, sink: Rc<dyn ReplySink>) {
        self.0.sink.set(sink);
    }

    /// Has the calls of this thread's channels counted, by server and procedure. To be said before they are used.
    pub fn count(&self, targets: Arc<Targets>) {
        self.0.sink.count(targets);
    }

    /// The channel to a server, connected when it is first used.
    ///
    /// # Errors
    /// [`CallError::Gone`] if the server is not known.
    pub fn get(&self, server: ServerId) -> Result<Channel, CallError> {
        if let Some(channel) = self.0.channels.borrow().get(&server) {
            return Ok(channel.clone());
        }
        let target = self.0.directory.target(server).ok_or(CallError::Gone)?;
        let channel = Channel::new(server, target, self.0.directory.me().cloned(), Rc::clone(&self.0.sink));
        self.0.channels.borrow_mut().insert(server, channel.clone());
        Ok(channel)
    }
}

/// Keeps a thread's channels up with the directory until they are dropped.
async fn follow(channels: Weak<Inner>, mut changed: watch::Receiver<()>) {
    while changed.changed().await.is_ok() {
        let Some(inner) = channels.upgrade() else { return };
        let mut lost = Vec::new();
        inner.channels.borrow_mut().retain(|server, channel| {
            let kept = inner.directory.target(*server).is_some_and(|target| channel.redirect(&target));
            if !kept {
                lost.push(channel.clone());
            }
            kept
        });
        // Sinks learn of it here, and may want channels.
        lost.iter().for_each(Channel::close);
    }
}
