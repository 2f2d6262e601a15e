//! What the threads of one µproxy share: settings, the write verifier, the book of mounts. Nothing here is touched by a
//! forwarded call.

use crate::config::{Exports, SpaceSource};
use crate::front::Front;
use crate::mounts::Mounts;
use crate::portmapper::Portmapper;
use crate::stats::Watched;
use crate::verifier::WriteVerifier;
use parking_lot::{Mutex, RwLock};
use slice_proto::secret::Identity;
use slice_rpc::Directory;
use slice_rpc::clock::{SharedClock, Steady};
use slice_rpc::tables::Tables;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The fronts on this thread, by their µproxy's number. A test has several µproxies in one thread.
    static FRONTS: RefCell<Vec<(u64, Rc<Front>)>> = const { RefCell::new(Vec::new()) };
}

/// See the head of this file.
pub struct Shared {
    number: u64,
    pub(crate) identity: Identity,
    pub(crate) exports: Exports,
    pub(crate) space: Arc<dyn SpaceSource>,
    pub(crate) tables: Tables,
    pub(crate) directory: Directory,
    /// The machine's time of day, for who asks for it.
    pub(crate) clock: SharedClock,
    /// What ensemble time is reckoned from: it must not leap with the machine's clock.
    pub(crate) steady: Steady,
    pub(crate) verifier: WriteVerifier,
    pub(crate) mounts: Mutex<Mounts>,
    portmapper: RwLock<Arc<Portmapper>>,
    pub(crate) watched: Watched,
}

impl Shared {
    pub(crate) fn new(
        identity: Identity,
        exports: Exports,
        space: Arc<dyn SpaceSource>,
        (tables, directory, clock): (Tables, Directory, SharedClock),
        random: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            identity,
            exports,
            space,
            tables,
            directory,
            steady: Steady::new(Arc::clone(&clock)),
            clock,
            verifier: WriteVerifier::new(random),
            mounts: Mutex::default(),
            portmapper: RwLock::default(),
            watched: Watched::default(),
        })
    }

    /// This thread's front, made when first asked for. Must be called inside a `LocalSet`.
    pub(crate) fn front(self: &Arc<Self>) -> Rc<Front> {
        let found = FRONTS
            .with(|all| all.borrow().iter().find(|(n, _)| *n == self.number).map(|(_, f)| Rc::clone(f)));
        found.unwrap_or_else(|| {
            let front = Front::new(Arc::clone(self));
            FRONTS.with(|all| all.borrow_mut().push((self.number, Rc::clone(&front))));
            front
        })
    }

    /// Drops this thread's front, if there is one, and returns it.
    pub(crate) fn take_front(&self) -> Option<Rc<Front>> {
        FRONTS.with(|all| {
            let mut all = all.borrow_mut();
            let at = all.iter().position(|(n, _)| *n == self.number)?;
            Some(all.swap_remove(at).1)
        })
    }

    pub(crate) fn portmapper(&self) -> Arc<Portmapper> {
        Arc::clone(&self.portmapper.read())
    }

    pub(crate) fn set_portmapper(&self, portmapper: Portmapper) {
        *self.portmapper.write() = Arc::new(portmapper);
    }
}
