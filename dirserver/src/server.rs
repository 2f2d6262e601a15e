//! The server: what all requests share, opening and closing it, its sites.

use crate::config::DirConfig;
use crate::error::{Error, Result};
use crate::gate::Gate;
use crate::owed::Owed;
use crate::records::{AttrRec, STORE_FORMAT, SiteStamp, decode_number, encode_number};
use crate::replies::Replies;
use crate::routes::Routes;
use crate::state::{FIRST_SEQUENCE, State};
use crate::stats::Counters;
use crate::tx::book::PeerOps;
use crate::tx::journal::Journal;
use crate::tx::unfinished::Due;
use crate::{keys, owed, tx};
use parking_lot::RwLock;
use slice_proto::ids::{Role, SITES_PER_ROLE, ServerId, Site, TableEpoch};
use slice_proto::nfs3::FType3;
use slice_proto::peer::PrivateStatus;
use slice_proto::secret::Identity;
use slice_proto::stats::ServerStats;
use slice_proto::table::Volume;
use slice_rpc::clock::SharedClock;
use slice_rpc::directory::Directory;
use slice_rpc::tables::Tables;
use slice_store::{Batch, Direction, KeyRange, Store, StoreStamp};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// A directory server.
pub struct DirServer {
    pub(crate) inner: Arc<Inner>,
}

/// What all requests share.
pub(crate) struct Inner {
    pub(crate) me: ServerId,
    identity: Identity,
    data: PathBuf,
    pub(crate) state: State,
    pub(crate) replies: Replies,
    pub(crate) journal: Journal,
    pub(crate) peers: PeerOps,
    pub(crate) owed: Owed,
    pub(crate) counters: Counters,
    pub(crate) directory: Directory,
    tables: Tables,
    routes: RwLock<Arc<Routes>>,
    clock: SharedClock,
    stamped: Vec<AtomicBool>,
    /// Set once every other directory server has told what its operations hold here.
    pub(crate) reconciled: Gate,
    stop: watch::Sender<bool>,
    /// What clients see as fsid is this plus the volume's number.
    fsid: u64,
}

/// Whether a call is for this server (I4).
pub(crate) enum Admission {
    /// It is.
    Yes,
    /// The caller knows a newer table: wait for ours.
    Wait,
    /// It is not.
    No(PrivateStatus),
}

fn stamp(config: &DirConfig) -> StoreStamp {
    StoreStamp {
        ensemble: config.identity.ensemble,
        server: config.server,
        role: Role::Dir,
        format: STORE_FORMAT,
    }
}

// === impl DirServer ===

impl DirServer {
    /// What its store is stamped with.
    #[must_use]
    pub fn stamp(config: &DirConfig) -> StoreStamp {
        stamp(config)
    }

    /// Makes an empty store. Blocks.
    ///
    /// # Errors
    /// [`Error::Store`], also if there is one already.
    pub fn format(config: &DirConfig) -> Result<()> {
        Ok(Store::format(&config.data, config.engine, stamp(config))?)
    }

    /// Opens the server's store.
    ///
    /// # Errors
    /// An [`Error`] that says what is wrong with the store.
    pub async fn open(
        config: DirConfig,
        tables: Tables,
        directory: Directory,
        clock: SharedClock,
    ) -> Result<Arc<Self>> {
        // Reading the journal back blocks, but nothing is served here yet.
        let store = Store::open(&config.data, config.engine, stamp(&config))?;
        Self::open_on(store, config, tables, directory, clock).await
    }

    /// As [`open`](Self::open), on a store that the caller has opened: for simulations.
    ///
    /// # Errors
    /// An [`Error`] that says what is wrong with the store.
    pub async fn open_on(
        store: Store,
        config: DirConfig,
        tables: Tables,
        directory: Directory,
        clock: SharedClock,
    ) -> Result<Arc<Self>> {
        let inner = Inner::open(store, config, tables, directory, clock)?;
        // This life's number is durable before anything is numbered by it.
        inner.state.store.wait(inner.state.store.submitted()).await?;
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }

    /// Stamps sites that were dealt to this server (I4), and makes the root directories whose home is among them. Durable
    /// when it returns. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::RootSequence`] if a volume's root is not below the ids of ordinary files.
    pub async fn adopt(&self, sites: &[Site], volumes: &[Volume]) -> Result<()> {
        let inner = &self.inner;
        let mut batch = Batch::new();
        for site in sites {
            batch.put(keys::stamp(*site), SiteStamp::encode());
        }
        for v in volumes.iter().filter(|v| sites.contains(&v.root.home())) {
            let key = keys::attr(v.root);
            if v.root.sequence() >= FIRST_SEQUENCE {
                return Err(Error::RootSequence {
                    volume: v.id.0,
                    site: v.root.home(),
                    sequence: v.root.sequence(),
                    first: FIRST_SEQUENCE,
                });
            }
            if inner.state.store.get(&key)?.is_none() {
                let now = inner.now_ns();
                let mut rec =
                    AttrRec::new(FType3::Dir, v.id, v.placement, v.root_mode, v.root_uid, v.root_gid, now);
                rec.parent = v.root;
                batch.put(key, rec.encode());
            }
        }
        inner.state.store.commit(batch)?.await?;
        for site in sites {
            if let Some(flag) = inner.stamped.get(usize::from(site.0)) {
                flag.store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    /// The sites whose stamps the store holds.
    #[must_use]
    pub fn stamped(&self) -> Vec<Site> {
        let held = (0u16..).zip(&self.inner.stamped).filter(|(_, s)| s.load(Ordering::Acquire));
        held.map(|(site, _)| Site(site)).collect()
    }

    /// Follows the routing table and does the work that no request waits for, until [`Self::shutdown`]. Inside a `LocalSet`.
    pub async fn run(self: Arc<Self>) {
        let inner = &self.inner;
        let mut stop = inner.stop.subscribe();
        // In this order, which is as good as any, so that a simulation runs the same way each time.
        tokio::select! {
            biased;
            () = inner.follow_tables() => {}
            () = owed::run(inner) => {}
            () = tx::recover::run(inner) => {}
            // The sender is ours: the wait cannot fail.
            _ = stop.wait_for(|s| *s) => {}
        }
    }

    /// Ends the background work; everything submitted is durable when it returns.
    pub async fn shutdown(&self) {
        self.inner.stop.send_replace(true);
        let store = &self.inner.state.store;
        if let Err(error) = store.wait(store.submitted()).await {
            tracing::error!(%error, "the directory server's store did not take its last writes");
        }
    }

    /// What is not at rest, in words: for a log, or for a test that fails because of it.
    #[must_use]
    pub fn tell(&self) -> String {
        self.inner.tell()
    }

    /// The server's figures. `objects` are the attribute records in memory.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        self.inner.stats()
    }

    /// What the metrics endpoint shows besides calls.
    pub fn samples(&self, out: &mut slice_metrics::Samples) {
        let state = &self.inner.state;
        state.store.commits().samples("store", out);
        let (attrs, names) = state.cache.bytes();
        for (of, bytes) in [("attributes", attrs), ("names", names), ("pages", state.pages.bytes())] {
            out.gauge(
                "slice_dirserver_cached_bytes",
                "Bytes of hot records and pages in memory.",
                &[("of", of)],
                bytes as f64,
            );
        }
    }
}

// === impl Inner ===

impl Inner {
    fn open(
        store: Store,
        config: DirConfig,
        tables: Tables,
        directory: Directory,
        clock: SharedClock,
    ) -> Result<Self> {
        let boot = match store.get(&keys::BOOT)? {
            Some(b) => decode_number(&keys::BOOT, &b)? + 1,
            None => 1,
        };
        let mut batch = Batch::new();
        batch.put(keys::BOOT, encode_number(boot));
        store.submit(batch)?;
        let stamped: Vec<AtomicBool> = (0..SITES_PER_ROLE).map(|_| AtomicBool::new(false)).collect();
        for pair in store.iter(KeyRange::prefix([keys::STAMP]), Direction::Forward) {
            let (key, value) = pair?;
            SiteStamp::decode(&key, &value)?;
            let site = keys::parse_site(&key).and_then(|s| stamped.get(usize::from(s.0)));
            if let Some(flag) = site {
                flag.store(true, Ordering::Relaxed);
            }
        }
        let me = config.server;
        let routes = Routes::new(tables.current(), &config.identity, me);
        let journal = Journal::load(&store, me, boot, |site| routes.owner(site))?;
        let replies = Replies::load(&store)?;
        let owed = Owed::load(&store, &journal)?;
        let state = State::new(store, config.cache_bytes);
        owed.lock_again(&state, &replies);
        let peers = PeerOps::load(&state)?;
        // A store that has never served has nobody to hear from.
        let reconciled = Gate::new(boot == 1);
        Ok(Self {
            me,
            fsid: config.identity.ensemble.0,
            identity: config.identity,
            data: config.data,
            state,
            replies,
            journal,
            peers,
            owed,
            counters: Counters::default(),
            directory,
            tables,
            routes: RwLock::new(Arc::new(routes)),
            clock,
            stamped,
            reconciled,
            stop: watch::Sender::new(false),
        })
    }

    /// Ensemble time, ns.
    pub(crate) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// What clients see as the file system's id.
    pub(crate) const fn fsid(&self, volume: slice_proto::ids::VolumeId) -> u64 {
        self.fsid.wrapping_add(volume.0 as u64)
    }

    /// The routing table that is in force here.
    pub(crate) fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.read())
    }

    fn refresh(&self) {
        let table = self.tables.current();
        let mut routes = self.routes.write();
        if table.epoch > routes.epoch() {
            *routes = Arc::new(Routes::new(table, &self.identity, self.me));
        }
    }

    async fn follow_tables(&self) {
        let mut tables = self.tables.clone();
        loop {
            self.refresh();
            if tables.changed().await.is_none() {
                // Nobody can bring a newer table: ours stays.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for a table of at least `epoch`.
    pub(crate) async fn table_at_least(&self, epoch: TableEpoch) {
        if self.tables.clone().at_least(epoch).await.is_none() {
            std::future::pending::<()>().await;
        }
        self.refresh();
    }

    /// Waits for a table newer than `routes`, or `limit`: something is wrong with a server, and either cures it.
    pub(crate) async fn table_after(&self, routes: &Routes, limit: std::time::Duration) {
        let newer = self.table_at_least(TableEpoch(routes.epoch().0 + 1));
        // An elapsed limit is as good: the caller tries again.
        let _ = tokio::time::timeout(limit, newer).await;
    }

    /// Waits until every other directory server has told what its operations hold here.
    pub(crate) async fn until_reconciled(&self) {
        self.reconciled.passed().await;
    }

    /// Judges a call that was sent by table `sender` and executes at `site`.
    pub(crate) fn admit(&self, routes: &Routes, sender: TableEpoch, site: Site) -> Admission {
        if sender > routes.epoch() {
            return Admission::Wait;
        }
        if !routes.mine(site) {
            return Admission::No(PrivateStatus::WrongSite);
        }
        match self.stamped.get(usize::from(site.0)) {
            Some(flag) if flag.load(Ordering::Acquire) => Admission::Yes,
            _ => Admission::No(PrivateStatus::Unstamped),
        }
    }

    fn stats(&self) -> ServerStats {
        let space = rustix::fs::statvfs(&self.data);
        let (total, free) = space.map_or((0, 0), |s| {
            (s.f_blocks.saturating_mul(s.f_frsize), s.f_bavail.saturating_mul(s.f_frsize))
        });
        ServerStats {
            ops: self.counters.named(),
            space_total: total,
            space_free: free,
            objects: self.state.cache.attrs_len() as u64,
            sites: self.routes().my_sites(),
            unsettled: self.unsettled(),
        }
    }

    /// All operations of ours with smaller numbers are settled.
    pub(crate) fn settled(&self) -> u64 {
        self.journal.settled(self.state.store.durable())
    }

    /// What is not at rest, in words.
    pub(crate) fn tell(&self) -> String {
        format!(
            "life {}, reconciled: {}, settled up to {:#x}\n operations of ours: {}\n peers': {}\n held: {}\n owed: {}",
            self.journal.boot(),
            self.reconciled.is_open(),
            self.settled(),
            self.journal.tell(),
            self.peers.tell(),
            self.state.tell_held(),
            self.owed.tell(),
        )
    }

    /// Whether a reply may go out now.
    pub(crate) fn is_due(&self, due: &Due) -> bool {
        due.ticket <= self.state.store.durable() && due.after.is_empty()
    }

    /// Effects owed, holds and operations under way.
    pub(crate) fn unsettled(&self) -> u64 {
        (self.journal.len() + self.state.held() + self.owed.len()) as u64
    }
}
