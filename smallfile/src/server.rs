//! The server: its life from open to shutdown.

use crate::config::{FORMAT, SmallConfig, Tuning};
use crate::error::Error;
use crate::log::flush::Hand;
use crate::log::queue::Queue;
use crate::log::table::Segments;
use crate::node::Node;
use parking_lot::Mutex;
use slice_proto::ids::{Role, Site};
use slice_proto::stats::ServerStats;
use slice_proto::table::Volume;
use slice_rpc::clock::SharedClock;
use slice_rpc::tables::Tables;
use slice_store::data_keys::{SITE_STAMP, site_key};
use slice_store::{Batch, Store, StoreStamp};
use slice_system::{Files, Kernel, System};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

/// A small-file server. When it is dropped without [`shutdown`](Self::shutdown), what nobody was told is durable may be lost.
#[derive(Debug)]
pub struct SmallFileStore {
    node: Arc<Node>,
    log: Mutex<Log>,
}

/// Who runs the log.
#[derive(Debug)]
enum Log {
    /// A thread; none once it has ended.
    Thread(Option<JoinHandle<()>>),
    /// Whoever calls [`SmallFileStore::turn`].
    Turns(Hand),
}

impl SmallFileStore {
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Makes an empty server in the directory of `config`. Blocks.
    ///
    /// # Errors
    /// An [`Error`], also if there is one already: nothing is overwritten.
    pub fn format(config: &SmallConfig) -> Result<(), Error> {
        // The store last: it is what says that there is a server.
        Self::format_on(&Kernel, config)?;
        Ok(Store::format(&config.data, config.engine, Self::stamp(config))?)
    }

    /// The same without its store, which the caller brings to [`open_on`](Self::open_on), on files of the caller's: for
    /// simulations. Blocks.
    ///
    /// # Errors
    /// An [`Error`], also if there is one already.
    pub fn format_on(files: &dyn Files, config: &SmallConfig) -> Result<(), Error> {
        let SmallConfig { data, identity, server, .. } = config;
        files.make_durable_dirs(data).map_err(Error::io("make", data))?;
        Segments::format(files, data, identity, *server)
    }

    /// Whose store it is.
    #[must_use]
    pub fn stamp(config: &SmallConfig) -> StoreStamp {
        let SmallConfig { identity, server, .. } = config;
        StoreStamp { ensemble: identity.ensemble, server: *server, role: Role::Small, format: FORMAT }
    }

    /// Opens the server in the directory of `config`, if it is the one that was formatted there. It calls nobody, and so has
    /// no use for the directory of servers.
    ///
    /// # Errors
    /// An [`Error`] that says what is wrong with the directory.
    pub async fn open(
        config: SmallConfig,
        tables: Tables,
        _directory: slice_rpc::Directory,
        clock: SharedClock,
    ) -> Result<Arc<Self>, Error> {
        let open = move || Self::open_with(config, tables, clock, Tuning::default());
        System::kernel().pool.run(open).await.map_err(|_| Error::ShuttingDown)?.map(Arc::new)
    }

    /// The same with segments so small that they fill up, and are cleaned, while a test waits.
    ///
    /// # Errors
    /// An [`Error`] that says what is wrong with the directory.
    #[doc(hidden)]
    pub async fn open_small(
        config: SmallConfig,
        tables: Tables,
        clock: SharedClock,
    ) -> Result<Arc<Self>, Error> {
        let open = move || Self::open_with(config, tables, clock, Tuning::SMALL);
        System::kernel().pool.run(open).await.map_err(|_| Error::ShuttingDown)?.map(Arc::new)
    }

    /// The same with other bounds. Blocks.
    pub(crate) fn open_with(
        config: SmallConfig,
        tables: Tables,
        clock: SharedClock,
        tuning: Tuning,
    ) -> Result<Self, Error> {
        let store = Store::open(&config.data, config.engine, Self::stamp(&config))?;
        let (system, queue) = (System::kernel(), Queue::default());
        let node = Arc::new(Node::open(store, config, tables, clock, system, queue, tuning)?);
        let run = Arc::clone(&node);
        let thread = std::thread::Builder::new().name("small-log".to_owned()).spawn(move || run.run_log());
        // A segment is cleaned if it was worth it before the stop.
        node.queue.freed();
        Ok(Self { node, log: Mutex::new(Log::Thread(Some(thread.map_err(Error::Thread)?))) })
    }

    /// The same on a store and a system of the caller's, with small segments and without a thread: for simulations. `wanted` is
    /// told when the log has work, and has then to see to it that [`turn`](Self::turn) is called, once for each time that it
    /// was told.
    ///
    /// # Errors
    /// An [`Error`] that says what is wrong with what is on them.
    pub async fn open_on(
        store: Store,
        config: SmallConfig,
        tables: Tables,
        clock: SharedClock,
        system: System,
        wanted: impl Fn() + Send + Sync + 'static,
    ) -> Result<Arc<Self>, Error> {
        let (pool, queue) = (system.pool.clone(), Queue::calling(Box::new(wanted)));
        let open = move || Node::open(store, config, tables, clock, system, queue, Tuning::SMALL);
        let node = Arc::new(pool.run(open).await.map_err(|_| Error::ShuttingDown)??);
        node.queue.freed();
        Ok(Arc::new(Self { node, log: Mutex::new(Log::Turns(Hand::default())) }))
    }

    /// Takes the turn that was wanted ([`open_on`](Self::open_on)): does one piece of the log's work, and wants another turn if
    /// there may be more.
    pub fn turn(&self) {
        if let Log::Turns(hand) = &mut *self.log.lock()
            && self.node.log_turn(hand)
        {
            self.node.queue.again();
        }
    }

    /// The log's thread, if it runs.
    fn thread(&self) -> Option<JoinHandle<()>> {
        match &mut *self.log.lock() {
            Log::Thread(thread) => thread.take(),
            Log::Turns(_) => None,
        }
    }

    /// Stamps sites that were dealt to this server (I4); durable when it returns. `volumes` are of no concern here.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn adopt(&self, sites: &[Site], _volumes: &[Volume]) -> Result<(), Error> {
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

    /// The server's figures.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        let node = &self.node;
        let c = &node.calls;
        let ops = [
            ("READ", &c.read),
            ("WRITE", &c.write),
            ("COMMIT", &c.commit),
            ("TRUNCATE", &c.truncate),
            ("PURGE", &c.purge),
            ("EXTEND", &c.extend),
            ("STAT", &c.stat),
            ("LIST_OBJECTS", &c.list),
        ];
        let figures = node.segments.figures().unwrap_or_default();
        let room = node.segments.usable().saturating_sub(node.held());
        ServerStats {
            ops: ops.into_iter().map(|(n, v)| (n.to_owned(), v.load(Ordering::Relaxed))).collect(),
            space_total: figures.total,
            space_free: figures.free.saturating_add(room).min(figures.total),
            objects: node.objects.load(Ordering::Relaxed),
            sites: node.table().owned(Role::Small, node.server).count() as u32,
            unsettled: 0,
        }
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

    /// Makes everything durable and ends the background work. READs are still answered; WRITEs fail from then on.
    pub async fn shutdown(&self) {
        self.node.stop.send_replace(true);
        for cell in self.node.cache.all() {
            if cell.object.lock().is_dirty()
                && let Err(why) = self.node.make_durable(cell.file).await
            {
                tracing::error!(file = %cell.file, status = why.0, "data is lost that nobody was told is durable");
            }
        }
        self.node.queue.stop();
        if let Some(log) = self.thread() {
            // It fails if the runtime is going down: then the drop below waits for nothing either.
            let _ = self.node.blocking(move || log.join()).await;
        }
    }
}

impl Drop for SmallFileStore {
    fn drop(&mut self) {
        self.node.queue.stop();
        if let Some(log) = self.thread() {
            // A panic of the log has been printed, and all who waited were told.
            let _ = log.join();
        }
    }
}
