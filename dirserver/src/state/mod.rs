//! What a directory server holds in memory: per site a mutex with its held records and its sequence, and one cache of
//! hot records above the store.
//!
//! Changes of a site's records happen under its mutex: submitted to the store first, then put into the cache. So the
//! store's order is memory's order. Readers take no mutex where the cache has what they need. A mutex is never held
//! across an await; at most across one read of the store, when a record was evicted between a load and its use.

pub(crate) mod cache;
pub(crate) mod changes;
pub(crate) mod locks;
pub(crate) mod pages;

use crate::bucket::Bucket;
use crate::error::{Error, Result};
use crate::keys;
use crate::records::{AttrRec, decode_number, encode_number};
use cache::{AttrCell, Cache, NamesCell, NamesKey};
use changes::Changes;
use locks::{Locks, Turn};
use pages::Pages;
use parking_lot::{Mutex, MutexGuard};
use slice_proto::ids::{FileId, SITES_PER_ROLE, Site};
use slice_proto::peer::dir::{HoldKey, OpId};
use slice_store::{Batch, Store, Ticket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Sequences below this are for roots of volumes; every other file's id is above.
pub const FIRST_SEQUENCE: u64 = 1 << 20;
/// One part in so many of the memory for hot records is for pages of directories: some 80,000 entries by default.
const PAGES_SHARE: u64 = 16;
/// Sequences are reserved durably this many at a time, so that a crash never uses one twice.
const SEQUENCE_BLOCK: u64 = 4096;

/// What changes under a site's mutex.
#[derive(Debug, Default)]
pub(crate) struct SiteState {
    /// Raised by every change of a record of the site: tells a loader that what it read may be old.
    pub(crate) version: u64,
    pub(crate) locks: Locks,
    /// Next sequence to be given, and the first that is not reserved; equal before the first is asked for.
    next: u64,
    reserved: u64,
    /// When the last reservation is durable.
    reserved_by: Ticket,
}

/// A server's state.
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) cache: Cache,
    pub(crate) pages: Pages,
    /// Which records have changed, for what is made of many of them.
    pub(crate) changes: Changes,
    sites: Vec<Mutex<SiteState>>,
    /// Records whose readers must wait: nearly always none, and then nobody looks for them.
    veiled: AtomicUsize,
}

impl State {
    pub(crate) fn new(store: Store, cache_bytes: u64) -> Self {
        let sites = (0..SITES_PER_ROLE).map(|_| Mutex::default()).collect();
        let pages = cache_bytes / PAGES_SHARE;
        Self {
            store,
            cache: Cache::new(cache_bytes - pages),
            pages: Pages::new(pages),
            changes: Changes::default(),
            sites,
            veiled: AtomicUsize::new(0),
        }
    }

    /// Locks a site. Several are locked in rising order. `None` for a site that cannot be.
    pub(crate) fn site(&self, site: Site) -> Option<MutexGuard<'_, SiteState>> {
        self.sites.get(usize::from(site.0)).map(Mutex::lock)
    }

    /// When what was just read from the store is durable.
    pub(crate) fn read_ticket(&self) -> Ticket {
        let submitted = self.store.submitted();
        if submitted <= self.store.durable() { Ticket::default() } else { submitted }
    }

    /// Reads an attribute record from the store; under the site's lock what is read stays true.
    fn read_attr(&self, file: FileId) -> Result<Option<Arc<AttrCell>>> {
        let key = keys::attr(file);
        let Some(bytes) = self.store.get(&key)? else { return Ok(None) };
        let rec = AttrRec::decode(&key, &bytes)?;
        Ok(Some(Arc::new(AttrCell { rec, ticket: self.read_ticket() })))
    }

    fn read_names(&self, (dir, hash47): NamesKey) -> Result<Arc<NamesCell>> {
        let key = keys::entry(dir, hash47);
        let bucket = match self.store.get(&key)? {
            Some(bytes) => Bucket::decode(&key, bytes)?,
            None => Bucket::default(),
        };
        Ok(Arc::new(NamesCell { bucket, ticket: self.read_ticket() }))
    }

    /// Reads and puts into the cache, unless the site changed meanwhile; then once more, under its lock.
    fn load<T>(&self, site: Site, read: impl Fn() -> Result<T>, put: impl Fn(&T)) -> Result<T> {
        let before = self.site(site).map(|s| s.version);
        let got = read()?;
        let guard = self.site(site);
        if guard.as_ref().map(|s| s.version) == before {
            put(&got);
            return Ok(got);
        }
        let got = read()?;
        put(&got);
        Ok(got)
    }

    /// An attribute record, from the cache or the store.
    pub(crate) fn attr(&self, file: FileId) -> Result<Option<Arc<AttrCell>>> {
        if let Some(cell) = self.cache.attr(file) {
            return Ok(Some(cell));
        }
        let put = |cell: &Option<Arc<AttrCell>>| {
            if let Some(cell) = cell {
                self.cache.put_attr(file, Some(Arc::clone(cell)));
            }
        };
        self.load(file.home(), || self.read_attr(file), put)
    }

    /// The names of a hash, from the cache or the store.
    pub(crate) fn names(&self, site: Site, key: NamesKey) -> Result<Arc<NamesCell>> {
        if let Some(cell) = self.cache.names(key) {
            return Ok(cell);
        }
        self.load(site, || self.read_names(key), |cell| self.cache.put_names(key, Arc::clone(cell)))
    }

    /// An attribute record, neither locked nor put into the cache.
    pub(crate) fn peek(&self, file: FileId) -> Result<Option<Arc<AttrCell>>> {
        match self.cache.attr(file) {
            Some(cell) => Ok(Some(cell)),
            None => self.read_attr(file),
        }
    }

    /// As [`Self::attr`], by one who has the site's lock.
    pub(crate) fn attr_locked(&self, file: FileId) -> Result<Option<Arc<AttrCell>>> {
        if let Some(cell) = self.cache.attr(file) {
            return Ok(Some(cell));
        }
        let cell = self.read_attr(file)?;
        if let Some(cell) = &cell {
            self.cache.put_attr(file, Some(Arc::clone(cell)));
        }
        Ok(cell)
    }

    /// As [`Self::names`], by one who has the site's lock.
    pub(crate) fn names_locked(&self, key: NamesKey) -> Result<Arc<NamesCell>> {
        if let Some(cell) = self.cache.names(key) {
            return Ok(cell);
        }
        let cell = self.read_names(key)?;
        self.cache.put_names(key, Arc::clone(&cell));
        Ok(cell)
    }

    /// A file id of the site that was never used. A reservation that it needs is submitted at once, before whatever
    /// uses the id, and so is durable no later.
    pub(crate) fn fresh(&self, site: Site, state: &mut SiteState) -> Result<FileId> {
        if state.next == state.reserved {
            let key = keys::sequence(site);
            if state.reserved == 0 {
                let stored = self.store.get(&key)?.map(|b| decode_number(&key, &b)).transpose()?;
                state.next = stored.unwrap_or(FIRST_SEQUENCE).max(FIRST_SEQUENCE);
            }
            let reserved = state.next + SEQUENCE_BLOCK;
            let mut batch = Batch::new();
            batch.put(key, encode_number(reserved));
            state.reserved_by = self.store.submit(batch)?;
            state.reserved = reserved;
        }
        let file = FileId::new(site, state.next);
        state.next += 1;
        Ok(file)
    }

    /// When the reservation behind the site's last file id is durable.
    pub(crate) fn reserved_by(&self, site: Site) -> Ticket {
        self.site(site).map_or(Ticket::default(), |s| s.reserved_by)
    }

    /// Has readers of a held record wait.
    pub(crate) fn veil(&self, state: &mut SiteState, key: &HoldKey, op: OpId) {
        if state.locks.veil(key, op) {
            self.veiled.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Lets readers see a record that is held on.
    pub(crate) fn unveil(&self, key: &HoldKey, op: OpId) {
        if self.site(key.site).is_some_and(|mut site| site.locks.unveil(key, op)) {
            self.veiled.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Frees a held record.
    pub(crate) fn release(&self, key: &HoldKey, op: OpId) {
        if let Some(mut site) = self.site(key.site) {
            self.release_locked(&mut site, key, op);
        }
    }

    pub(crate) fn release_locked(&self, site: &mut SiteState, key: &HoldKey, op: OpId) {
        if site.locks.release(key, op) {
            self.veiled.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// What a reader of `key` must wait for first, if for anything.
    pub(crate) fn veiled(&self, key: &HoldKey) -> Option<Turn> {
        if self.veiled.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut site = self.site(key.site)?;
        if site.locks.veiled(key) { site.locks.look(key) } else { None }
    }

    /// Whether readers of `key` must wait.
    pub(crate) fn is_veiled(&self, key: &HoldKey) -> bool {
        self.veiled.load(Ordering::Acquire) != 0
            && self.site(key.site).is_some_and(|site| site.locks.veiled(key))
    }

    /// What one who lists the names of `dir` from the hash `from` on must wait for first, if for anything. Names are
    /// veiled after a restart only, until their operations' senders have spoken: a scan that waits sees an end.
    pub(crate) fn veiled_names(&self, dir: FileId, from: u64) -> Option<Turn> {
        if self.veiled.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.sites.iter().find_map(|site| {
            let mut site = site.lock();
            let key = site.locks.veiled_name(dir, from)?;
            site.locks.look(&key)
        })
    }

    /// Records held by operations, at all sites.
    pub(crate) fn held(&self) -> usize {
        self.sites.iter().map(|s| s.lock().locks.len()).sum()
    }

    /// Records held by operations, for a log.
    pub(crate) fn tell_held(&self) -> String {
        let all = self.sites.iter().map(|s| s.lock()).filter(|s| s.locks.len() > 0);
        all.map(|s| format!("{:?} ", s.locks)).collect()
    }

    /// Waits until nobody holds `key`; `None` if that is now.
    pub(crate) fn look(&self, key: &HoldKey) -> Option<Turn> {
        self.site(key.site)?.locks.look(key)
    }
}

/// A store error, as far as a client is told of it.
pub(crate) fn status_of(error: &Error) -> slice_proto::nfs3::NfsStat3 {
    use slice_proto::nfs3::NfsStat3;
    match error {
        // Too much waits for the disk: the client comes again.
        Error::Store(slice_store::Error::Overloaded { .. }) => NfsStat3::JUKEBOX,
        Error::Store(_) => NfsStat3::IO,
        _ => NfsStat3::SERVERFAULT,
    }
}
