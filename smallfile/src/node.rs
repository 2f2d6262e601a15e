//! What all requests share.

use crate::cache::{Cache, Cell};
use crate::config::{SmallConfig, Tuning};
use crate::core::Object;
use crate::core::object::Freed;
use crate::core::record::Record;
use crate::error::{Error, Result};
use crate::log::queue::Queue;
use crate::log::table::{Census, Segments};
use crate::reply::Refusal;
use parking_lot::{Mutex, RwLock};
use slice_proto::handle::{Handle, KeyRing};
use slice_proto::ids::{FileId, Role, SITES_PER_ROLE, ServerId, Site, TableEpoch};
use slice_proto::nfs3::{NfsStat3, Verifier};
use slice_proto::peer::PrivateStatus;
use slice_proto::secret::Identity;
use slice_proto::table::RoutingTable;
use slice_rpc::clock::{SharedClock, Steady};
use slice_rpc::tables::Tables;
use slice_store::data_keys::{OBJECTS, SITES, grave_key, object_key, object_of, site_of};
use slice_store::{Batch, Direction, KeyRange, Store, Ticket};
use slice_system::System;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::watch;

/// What all requests share.
pub(crate) struct Node {
    identity: Identity,
    pub(crate) server: ServerId,
    pub(crate) store: Store,
    system: System,
    /// The data log's group commits.
    pub(crate) commits: slice_metrics::Commits,
    pub(crate) segments: Segments,
    pub(crate) cache: Cache,
    pub(crate) queue: Queue,
    /// How long tombstones have stood.
    pub(crate) steady: Steady,
    pub(crate) tables: Tables,
    keys: RwLock<(u16, KeyRing)>,
    /// Sites whose stamps the store has.
    pub(crate) stamped: [AtomicBool; SITES_PER_ROLE],
    /// Of each home site the highest sequence of which there may be a record: a file above was never seen here, and the
    /// first WRITE of a new file, the most frequent miss of the cache, need not ask the store.
    seen: [AtomicU64; SITES_PER_ROLE],
    verifier: [u8; 8],
    /// Bytes of unstable writes held in memory.
    held: AtomicU64,
    /// Objects that are not tombstones.
    pub(crate) objects: AtomicU64,
    /// Extents that nothing points to any more when these tickets of the store are durable.
    frees: Mutex<VecDeque<(Ticket, Freed)>>,
    pub(crate) calls: Calls,
    pub(crate) stop: watch::Sender<bool>,
    tuning: Tuning,
}

/// Calls answered since start.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub read: AtomicU64,
    pub write: AtomicU64,
    pub commit: AtomicU64,
    pub truncate: AtomicU64,
    pub purge: AtomicU64,
    pub extend: AtomicU64,
    pub stat: AtomicU64,
    pub list: AtomicU64,
}

/// Whether a call is for this server (I4).
pub(crate) enum Admission {
    /// It is.
    Yes,
    /// The caller knows a newer table: wait for ours.
    Wait,
    /// It is not.
    No(PrivateStatus, TableEpoch),
}

// === impl Node ===

impl Node {
    /// Opens map and segments, and sees that they belong together. Blocks: reads the whole map.
    pub(crate) fn open(
        store: Store,
        config: SmallConfig,
        tables: Tables,
        clock: SharedClock,
        system: System,
        queue: Queue,
        tuning: Tuning,
    ) -> Result<Self> {
        let SmallConfig { data, identity, server, .. } = config;
        let files = Arc::clone(&system.files);
        let mut census = Census::open(files, &data, &identity, server, tuning.segment_bytes)?;
        let seen = [const { AtomicU64::new(0) }; SITES_PER_ROLE];
        let mut objects = 0;
        for pair in store.iter(KeyRange::prefix(OBJECTS), Direction::Forward) {
            let (key, value) = pair?;
            let Some(file) = object_of(&key) else { continue };
            let record = Record::decode(file, &value)?;
            for e in record.extents.iter().flatten() {
                census.count(file, e)?;
            }
            objects += u64::from(record.purged_ns.is_none());
            see(&seen, file);
        }
        let stamped = [const { AtomicBool::new(false) }; SITES_PER_ROLE];
        for pair in store.iter(KeyRange::prefix(SITES), Direction::Forward) {
            let (key, _) = pair?;
            if let Some(flag) = site_of(&key).and_then(|s| stamped.get(usize::from(s.0))) {
                flag.store(true, Ordering::Relaxed);
            }
        }
        let key_id = tables.current().key_id;
        let keys = RwLock::new((key_id, KeyRing::new(&identity, key_id)));
        Ok(Self {
            identity,
            server,
            store,
            commits: slice_metrics::Commits::default(),
            segments: census.finish()?,
            cache: Cache::new(tuning.objects),
            queue,
            steady: Steady::new(clock),
            tables,
            keys,
            stamped,
            seen,
            verifier: system.random.verifier().to_be_bytes(),
            system,
            held: AtomicU64::new(0),
            objects: AtomicU64::new(objects),
            frees: Mutex::default(),
            calls: Calls::default(),
            stop: watch::Sender::new(false),
            tuning,
        })
    }

    /// The newest routing table.
    pub(crate) fn table(&self) -> Arc<RoutingTable> {
        self.tables.current()
    }

    /// Judges a call that was sent by table `sender` and is about `sites`.
    pub(crate) fn admission(&self, sender: TableEpoch, sites: impl IntoIterator<Item = Site>) -> Admission {
        let table = self.tables.current();
        if sender > table.epoch {
            return Admission::Wait;
        }
        for site in sites {
            if table.owner(Role::Small, site) != Some(self.server) {
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
        Admission::Yes
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
                Admission::Yes => return Ok(()),
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

    /// The write verifier: what is not committed is lost when it changes.
    pub(crate) const fn verifier(&self) -> Verifier {
        Verifier(self.verifier)
    }

    /// The object of a file; a blank one if nothing was ever written of it. Asks the store on the caller's thread: 4 µs if its
    /// pages are cached, where the two wakes of a hand-off cost some 70 of CPU.
    pub(crate) fn cell(&self, file: FileId) -> Result<Arc<Cell>> {
        if self.cache.is_crowded() {
            self.queue.press();
        }
        self.cache.get_or(file, || {
            if see(&self.seen, file) {
                return Ok(Object::default());
            }
            match self.store.get(&object_key(file))? {
                Some(bytes) => Ok(Object::from_record(&Record::decode(file, &bytes)?)),
                None => Ok(Object::default()),
            }
        })
    }

    /// Changes an object, and keeps count of what is in memory.
    pub(crate) fn change<T>(&self, cell: &Cell, change: impl FnOnce(&mut Object) -> T) -> T {
        let mut object = cell.object.lock();
        let before = object.held() as u64;
        let result = change(&mut object);
        let after = object.held() as u64;
        // Wraps where it shrinks; the sum never does.
        self.held.fetch_add(after.wrapping_sub(before), Ordering::AcqRel);
        result
    }

    /// Bytes of unstable writes held in memory.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// Whether so much is in memory that some of it is to be flushed.
    pub(crate) fn is_pressed(&self) -> bool {
        self.held() > self.tuning.flush_at
    }

    /// Whether so much is in memory that a WRITE must wait until it is durable.
    pub(crate) fn is_full(&self) -> bool {
        self.held() > self.tuning.held_max
    }

    /// Writes an object's map record, to be durable with its ticket. With the object locked, so that records of one object
    /// follow each other in the store as they do here.
    pub(crate) fn log_record(&self, cell: &Cell, o: &mut Object) -> Result<Ticket> {
        let ticket = self.store.submit(self.record_batch(cell, o));
        self.logged(o, ticket)
    }

    /// The same, without anything being started for it.
    pub(crate) fn log_record_lazily(&self, cell: &Cell, o: &mut Object) -> Result<Ticket> {
        let mut ticket = self.store.submit_lazy(self.record_batch(cell, o));
        if matches!(ticket, Err(slice_store::Error::Overloaded { .. })) {
            self.store.flush()?;
            ticket = self.store.submit_lazy(self.record_batch(cell, o));
        }
        self.logged(o, ticket)
    }

    fn logged(&self, o: &mut Object, ticket: slice_store::Result<Ticket>) -> Result<Ticket> {
        // If it failed, the next who comes tries again.
        o.unlogged = ticket.is_err();
        let ticket = ticket?;
        o.ticket = ticket;
        let counts = !o.is_tombstone();
        if counts != std::mem::replace(&mut o.counted, counts) {
            let by = if counts { 1 } else { u64::MAX };
            self.objects.fetch_add(by, Ordering::Relaxed);
        }
        Ok(ticket)
    }

    fn record_batch(&self, cell: &Cell, o: &Object) -> Batch {
        let record = o.record();
        let mut batch = Batch::new();
        batch.put(object_key(cell.file), record.encode());
        if let Some(ns) = record.purged_ns {
            batch.put(grave_key(ns, cell.file), &b""[..]);
        }
        batch
    }

    /// Nothing points to these extents any more, once this ticket is durable.
    pub(crate) fn free_at(&self, ticket: Ticket, freed: Freed) {
        if !freed.is_empty() {
            self.frees.lock().push_back((ticket, freed));
        }
    }

    /// Frees what is due.
    pub(crate) fn settle_frees(&self) {
        let durable = self.store.durable();
        let mut due = Vec::new();
        {
            let mut frees = self.frees.lock();
            while frees.front().is_some_and(|(ticket, _)| *ticket <= durable) {
                due.extend(frees.pop_front().into_iter().flat_map(|(_, freed)| freed));
            }
        }
        self.release(&due);
    }

    /// Nothing points to these extents any more.
    pub(crate) fn release(&self, freed: &[crate::core::Extent]) {
        if self.segments.release(freed) {
            self.queue.freed();
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

/// Remembers that there may be a record of a file; whether there could be none before.
fn see(seen: &[AtomicU64; SITES_PER_ROLE], file: FileId) -> bool {
    let highest = seen.get(usize::from(file.home().0));
    // Sequence 0 of a site must not pass for one that was never seen, nor a home site that cannot be.
    highest.is_some_and(|h| h.fetch_max(file.sequence(), Ordering::AcqRel) < file.sequence())
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.server)
    }
}
