//! Hot records in memory, bounded in bytes. A cell is never changed: a change puts a new cell in its place, so that a
//! reader needs no lock and sees a record whole.

use crate::bucket::Bucket;
use crate::records::AttrRec;
use quick_cache::Weighter;
use quick_cache::sync::Cache as Quick;
use slice_proto::ids::FileId;
use slice_store::Ticket;
use std::sync::Arc;

/// Bytes that a cell costs beside what it holds: reference counts, the cache's own table and queues.
const CELL_OVERHEAD: usize = 96;
/// Typical bytes of a cell: for the cache's first guess at how many there will be.
const TYPICAL_CELL: usize = 256;
/// Share of the budget that attribute records get; entries get the rest.
const ATTRS_NUM: u64 = 5;
const ATTRS_DEN: u64 = 8;

/// An attribute record and the commit after which it is durable.
#[derive(Debug)]
pub(crate) struct AttrCell {
    pub(crate) rec: AttrRec,
    pub(crate) ticket: Ticket,
}

/// The names of one hash, possibly none, and the commit after which they are durable.
#[derive(Debug)]
pub(crate) struct NamesCell {
    pub(crate) bucket: Bucket,
    pub(crate) ticket: Ticket,
}

/// Which names: directory and hash.
pub(crate) type NamesKey = (FileId, u64);

#[derive(Clone)]
struct Weigh;

impl Weighter<FileId, Arc<AttrCell>> for Weigh {
    fn weight(&self, _: &FileId, cell: &Arc<AttrCell>) -> u64 {
        (CELL_OVERHEAD + cell.rec.weight()) as u64
    }
}

impl Weighter<NamesKey, Arc<NamesCell>> for Weigh {
    fn weight(&self, _: &NamesKey, cell: &Arc<NamesCell>) -> u64 {
        (CELL_OVERHEAD + cell.bucket.weight()) as u64
    }
}

/// The cache of one server.
pub(crate) struct Cache {
    attrs: Quick<FileId, Arc<AttrCell>, Weigh>,
    names: Quick<NamesKey, Arc<NamesCell>, Weigh>,
}

impl Cache {
    /// A cache of at most `bytes`.
    pub(crate) fn new(bytes: u64) -> Self {
        let attrs = bytes / ATTRS_DEN * ATTRS_NUM;
        let items = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX) / TYPICAL_CELL;
        Self {
            attrs: Quick::with_weighter(items(attrs), attrs, Weigh),
            names: Quick::with_weighter(items(bytes - attrs), bytes - attrs, Weigh),
        }
    }

    /// Attribute records in memory.
    pub(crate) fn attrs_len(&self) -> usize {
        self.attrs.len()
    }

    /// Bytes that attribute records and names take, by their weights.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.attrs.weight(), self.names.weight())
    }

    pub(crate) fn attr(&self, file: FileId) -> Option<Arc<AttrCell>> {
        self.attrs.get(&file)
    }

    pub(crate) fn names(&self, key: NamesKey) -> Option<Arc<NamesCell>> {
        self.names.get(&key)
    }

    /// Only under the lock of the file's home site.
    pub(crate) fn put_attr(&self, file: FileId, cell: Option<Arc<AttrCell>>) {
        match cell {
            Some(cell) => self.attrs.insert(file, cell),
            None => {
                self.attrs.remove(&file);
            }
        }
    }

    /// Only under the lock of the names' entry site.
    pub(crate) fn put_names(&self, key: NamesKey, cell: Arc<NamesCell>) {
        self.names.insert(key, cell);
    }
}
