//! The server: its life from open to shutdown.

use crate::config::{FORMAT, SmallConfig, Tuning};
use crate::core::record::{SITE_STAMP, site_key};
use crate::error::Error;
use crate::log::table::Segments;
use crate::node::{Node, blocking};
use parking_lot::Mutex;
use slice_proto::ids::{Role, Site};
use slice_proto::stats::ServerStats;
use slice_proto::table::Volume;
use slice_rpc::clock::SharedClock;
use slice_rpc::tables::Tables;
use slice_store::{Batch, Store, StoreStamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

/// A small-file server. When it is dropped without [`shutdown`](Self::shutdown), what nobody was told is durable may be lost.
#[derive(Debug)]
pub struct SmallFileStore {
    node: Arc<Node>,
    log: Mutex<Option<JoinHandle<()>>>,
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
        let SmallConfig { data, engine, identity, server } = config;
        std::fs::create_dir_all(data).map_err(Error::io("make", data))?;
        // The store last: it is what says that there is a server.
        Segments::format(data, identity, *server)?;
        let stamp =
            StoreStamp { ensemble: identity.ensemble, server: *server, role: Role::Small, format: FORMAT };
        Ok(Store::format(data, *engine, stamp)?)
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
        blocking(move || Self::open_with(config, tables, clock, Tuning::default())).await?.map(Arc::new)
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
        blocking(move || Self::open_with(config, tables, clock, Tuning::SMALL)).await?.map(Arc::new)
    }

    /// The same with other bounds. Blocks.
    pub(crate) fn open_with(
        config: SmallConfig,
        tables: Tables,
        clock: SharedClock,
        tuning: Tuning,
    ) -> Result<Self, Error> {
        let node = Arc::new(Node::open(config, tables, clock, tuning)?);
        let run = Arc::clone(&node);
        let thread = std::thread::Builder::new().name("small-log".to_owned()).spawn(move || run.run_log());
        // A segment is cleaned if it was worth it before the stop.
        node.queue.freed();
        Ok(Self { node, log: Mutex::new(Some(thread.map_err(Error::Thread)?)) })
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
        let log = self.log.lock().take();
        if let Some(log) = log {
            // It fails if the runtime is going down: then the drop below waits for nothing either.
            let _ = blocking(move || log.join()).await;
        }
    }
}

impl Drop for SmallFileStore {
    fn drop(&mut self) {
        self.node.queue.stop();
        if let Some(log) = self.log.lock().take() {
            // A panic of the log has been printed, and all who waited were told.
            let _ = log.join();
        }
    }
}
