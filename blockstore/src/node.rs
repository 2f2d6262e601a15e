//! The server: what its requests share, and its life from open to shutdown.

use crate::cache::{Cache, Place, open_files};
use crate::config::{BlockConfig, FORMAT};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::object::Object;
use crate::reply::Refusal;
use crate::space::Space;
use parking_lot::RwLock;
use slice_proto::handle::{Handle, KeyRing};
use slice_proto::ids::{Epoch, FileId, Role, SITES_PER_ROLE, ServerId, Site, TableEpoch};
use slice_proto::nfs3::{NfsStat3, Verifier};
use slice_proto::peer::PrivateStatus;
use slice_proto::secret::Identity;
use slice_proto::stats::ServerStats;
use slice_proto::table::{RoutingTable, Volume};
use slice_rpc::clock::{SharedClock, Steady};
use slice_rpc::tables::Tables;
use slice_store::data_keys::{SITE_STAMP, SITES, site_key, site_of};
use slice_store::{Batch, Direction, KeyRange, Store, StoreStamp};
use slice_system::{Files, Kernel, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::watch;

/// Objects that are made durable one after the other to make room for one more, before the bound on open files is
/// passed over.
const MAX_SYNCED_FOR_ROOM: usize = 4;

/// A block storage node.
#[derive(Debug)]
pub struct BlockStore {
    pub(crate) node: Arc<Node>,
}

/// What all requests share.
pub(crate) struct Node {
    identity: Identity,
    server: ServerId,
    pub(crate) store: Store,
    pub(crate) system: System,
    /// Group commits of objects' bytes.
    pub(crate) commits: slice_metrics::Commits,
    pub(crate) layout: Layout,
    pub(crate) cache: Cache,
    pub(crate) space: Space,
    /// How long tombstones have stood.
    pub(crate) steady: Steady,
    tables: Tables,
    keys: RwLock<(u16, KeyRing)>,
    /// Sites whose stamps the store has.
    stamped: [AtomicBool; SITES_PER_ROLE],
    verifier: AtomicU64,
    pub(crate) calls: Calls,
    stop: watch::Sender<bool>,
    #[cfg(test)]
    pub(crate) fail_fsync: AtomicBool,
}

/// Calls answered since start.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub read: AtomicU64,
    pub write: AtomicU64,
    pub commit: AtomicU64,
    pub truncate: AtomicU64,
    pub purge: AtomicU64,
    pub stat: AtomicU64,
    pub list: AtomicU64,
}

/// Whether a call is for this server (I4).
pub(crate) enum Admission {
    /// It is. The epoch of the table by which it was judged.
    Yes(TableEpoch),
    /// The caller knows a newer table: wait for ours.
    Wait,
    /// It is not.
    No(PrivateStatus, TableEpoch),
}

// === impl Node ===

impl Node {
    fn open(
        store: Store,
        config: BlockConfig,
        tables: Tables,
        clock: SharedClock,
        system: System,
        open_files: usize,
    ) -> Result<Self> {
        let BlockConfig { data, identity, server, .. } = config;
        let layout = Layout::open(Arc::clone(&system.files), &data, &identity, server)?;
        let stamped = [const { AtomicBool::new(false) }; SITES_PER_ROLE];
        for pair in store.iter(KeyRange::prefix(SITES), Direction::Forward) {
            let (key, _) = pair?;
            if let Some(flag) = site_of(&key).and_then(|s| stamped.get(usize::from(s.0))) {
                flag.store(true, Ordering::Relaxed);
            }
        }
        let key_id = tables.current().key_id;
        let verifier = system.random.verifier();
        let keys = RwLock::new((key_id, KeyRing::new(&identity, key_id)));
        Ok(Self {
            space: Space::of(layout.open_root()?),
            cache: Cache::new(open_files),
            identity,
            server,
            store,
            system,
            commits: slice_metrics::Commits::default(),
            layout,
            steady: Steady::new(clock),
            tables,
            keys,
            stamped,
            verifier: AtomicU64::new(verifier),
            calls: Calls::default(),
            stop: watch::Sender::new(false),
            #[cfg(test)]
            fail_fsync: AtomicBool::new(false),
        })
    }

    /// The newest routing table.
    pub(crate) fn table(&self) -> Arc<RoutingTable> {
        self.tables.current()
    }

    /// Whether a site is ours by the table.
    pub(crate) fn owns(&self, table: &RoutingTable, site: Site) -> bool {
        table.owner(Role::Block, site) == Some(self.server)
    }

    /// Judges a call that was sent by table `sender` and is about `sites`.
    pub(crate) fn admission(&self, sender: TableEpoch, sites: impl IntoIterator<Item = Site>) -> Admission {
        let table = self.tables.current();
        if sender > table.epoch {
            return Admission::Wait;
        }
        for site in sites {
            if !self.owns(&table, site) {
                return Admission::No(PrivateStatus::WrongSite, table.epoch);
            }
            let stamp = self.stamped.get(usize::from(site.0));
            if !stamp.is_some_and(|s| s.load(Ordering::Acquire)) {
                tracing::error!(
                    site = site.0,
                    "this store has no stamp for a site that the table says is ours"
                );
                return Admission::No(PrivateStatus::Unstamped, table.epoch);
            }
        }
        Admission::Yes(table.epoch)
    }

    /// The same, waiting for a newer table where it must.
    ///
    /// # Errors
    /// What the caller is told.
    pub(crate) async fn admit(
        &self,
        sender: TableEpoch,
        sites: impl IntoIterator<Item = Site> + Clone,
    ) -> std::result::Result<(), Refusal> {
        loop {
            match self.admission(sender, sites.clone()) {
                Admission::Yes(_) => return Ok(()),
                Admission::No(why, _) => return Err(why.into()),
                Admission::Wait => {
                    // Nobody will bring a newer table: the server is going down.
                    let mut tables = self.tables.clone();
                    tables.at_least(sender).await.ok_or(Error::ShuttingDown)?;
                }
            }
        }
    }

    /// Checks a handle: of this ensemble, of the live file, of a regular file.
    pub(crate) fn open_handle(&self, bytes: &[u8]) -> std::result::Result<Handle, Refusal> {
        let key_id = self.tables.current().key_id;
        if self.keys.read().0 < key_id {
            *self.keys.write() = (key_id, KeyRing::new(&self.identity, key_id));
        }
        let handle = self.keys.read().1.open(bytes).map_err(|_| NfsStat3::BADHANDLE)?;
        match (handle.ftype, handle.snapshot) {
            (1, 0) => Ok(handle),
            (2, _) => Err(NfsStat3::ISDIR.into()),
            (1, _) => Err(NfsStat3::ROFS.into()),
            _ => Err(NfsStat3::INVAL.into()),
        }
    }

    /// The write verifier as it is now.
    pub(crate) fn verifier(&self) -> Verifier {
        Verifier(self.verifier.load(Ordering::SeqCst).to_be_bytes())
    }

    /// Uncommitted data may have been lost.
    pub(crate) fn change_verifier(&self) {
        self.verifier.store(self.system.random.verifier(), Ordering::SeqCst);
    }

    /// The object of a file, loaded.
    pub(crate) async fn object(self: &Arc<Self>, file: FileId) -> Result<Arc<Object>> {
        self.object_for(file, None).await
    }

    /// The object of a file, loaded; with its file, if it is loaded now for a WRITE of epoch `write`.
    pub(crate) async fn object_for(
        self: &Arc<Self>,
        file: FileId,
        write: Option<Epoch>,
    ) -> Result<Arc<Object>> {
        let mut tries = 0;
        let object = loop {
            match self.cache.place(file, |o| self.is_clean(o), tries == MAX_SYNCED_FOR_ROOM) {
                Place::Object(object) => break object,
                Place::Full(other) => {
                    tries += 1;
                    // A failure is known to the object, and to whoever commits it.
                    let _ = self.durable(&other).await;
                }
            }
        };
        let load = || {
            let (node, object) = (Arc::clone(self), Arc::clone(&object));
            async move { self.blocking(move || object.load(&node.store, &node.layout, write)).await? }
        };
        object.loaded.get_or_try_init(load).await?;
        Ok(object)
    }

    fn stats(&self) -> ServerStats {
        let c = &self.calls;
        let ops = [
            ("READ", &c.read),
            ("WRITE", &c.write),
            ("COMMIT", &c.commit),
            ("TRUNCATE", &c.truncate),
            ("PURGE", &c.purge),
            ("STAT", &c.stat),
            ("LIST_OBJECTS", &c.list),
        ];
        let figures = self.space.figures().ok();
        ServerStats {
            ops: ops.into_iter().map(|(n, v)| (n.to_owned(), v.load(Ordering::Relaxed))).collect(),
            space_total: figures.map_or(0, |f| f.total),
            space_free: figures.map_or(0, |f| f.free),
            objects: self.cache.len() as u64,
            sites: self.tables.current().owned(Role::Block, self.server).count() as u32,
            unsettled: 0,
        }
    }

    /// Has what blocks done by those who may wait.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.system.pool.run(work).await.map_err(|_| Error::ShuttingDown)
    }

    /// Resolves when the server is to stop.
    pub(crate) async fn stopped(&self) {
        // The sender is ours: the wait cannot fail.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.server)
    }
}

// === impl BlockStore ===

impl BlockStore {
    /// Makes an empty node in the directory of `config`. Blocks.
    ///
    /// # Errors
    /// An [`Error`], also if there is one already: nothing is overwritten.
    pub fn format(config: &BlockConfig) -> std::result::Result<(), Error> {
        // The store last: it is what says that there is a node.
        Self::format_on(&Kernel, config)?;
        Ok(Store::format(&config.data, config.engine, Self::stamp(config))?)
    }

    /// The same without its store, which the caller brings to [`open_on`](Self::open_on), on files of the caller's: for
    /// simulations. Blocks.
    ///
    /// # Errors
    /// An [`Error`], also if there is one already.
    pub fn format_on(files: &dyn Files, config: &BlockConfig) -> std::result::Result<(), Error> {
        let BlockConfig { data, identity, server, .. } = config;
        files.make_durable_dirs(data).map_err(Error::io("make", data))?;
        Layout::format(files, data, identity, *server)
    }

    /// Whose store it is.
    #[must_use]
    pub fn stamp(config: &BlockConfig) -> StoreStamp {
        let BlockConfig { identity, server, .. } = config;
        StoreStamp { ensemble: identity.ensemble, server: *server, role: Role::Block, format: FORMAT }
    }

    /// Opens the node in the directory of `config`, if it is the one that was formatted there. It calls nobody, and so has
    /// no use for the directory of servers.
    ///
    /// # Errors
    /// An [`Error`] that says what is wrong with the directory.
    pub async fn open(
        config: BlockConfig,
        tables: Tables,
        _directory: slice_rpc::Directory,
        clock: SharedClock,
    ) -> std::result::Result<Arc<Self>, Error> {
        let system = System::kernel();
        let on = system.clone();
        let open = move || {
            let store = Store::open(&config.data, config.engine, Self::stamp(&config))?;
            Node::open(store, config, tables, clock, on, open_files())
        };
        let node = system.pool.run(open).await.map_err(|_| Error::ShuttingDown)??;
        Ok(Arc::new(Self { node: Arc::new(node) }))
    }

    /// The same on a store and a system of the caller's: for simulations. The node has at most about `open_files` files open.
    ///
    /// # Errors
    /// An [`Error`] that says what is wrong with what is on them.
    pub async fn open_on(
        store: Store,
        config: BlockConfig,
        tables: Tables,
        clock: SharedClock,
        system: System,
        open_files: usize,
    ) -> std::result::Result<Arc<Self>, Error> {
        let on = system.clone();
        let open = move || Node::open(store, config, tables, clock, on, open_files);
        let node = system.pool.run(open).await.map_err(|_| Error::ShuttingDown)??;
        Ok(Arc::new(Self { node: Arc::new(node) }))
    }

    /// Stamps sites that were dealt to this server (I4); durable when it returns. `volumes` are of no concern here.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn adopt(&self, sites: &[Site], _volumes: &[Volume]) -> std::result::Result<(), Error> {
        let mut batch = Batch::new();
        for site in sites {
            batch.put(site_key(*site), SITE_STAMP);
        }
        self.node.store.commit(batch)?.await?;
        for site in sites {
            if let Some(flag) = self.node.stamped.get(usize::from(site.0)) {
                flag.store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    /// The sites whose stamps the store holds.
    #[must_use]
    pub fn stamped(&self) -> Vec<Site> {
        let held = (0u16..).zip(&self.node.stamped).filter(|(_, s)| s.load(Ordering::Acquire));
        held.map(|(site, _)| Site(site)).collect()
    }

    /// The node's figures. `objects` are those in memory.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        self.node.stats()
    }

    /// What the metrics endpoint shows besides calls.
    pub fn samples(&self, out: &mut slice_metrics::Samples) {
        self.node.store.commits().samples("store", out);
        self.node.commits.samples("data", out);
    }

    /// Background work, until [`shutdown`](Self::shutdown): collects old tombstones.
    pub async fn run(self: Arc<Self>) {
        tokio::select! {
            () = self.node.stopped() => {}
            () = self.node.collect_forever() => {}
        }
    }

    /// Makes everything durable and ends the background work. What is still called is still answered.
    pub async fn shutdown(&self) {
        self.node.stop.send_replace(true);
        for object in self.node.cache.all() {
            if let Err(error) = self.node.durable(&object).await {
                tracing::error!(file = %object.file, %error, "data is lost that nobody was told is durable");
            }
        }
    }
}
