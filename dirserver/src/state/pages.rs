//! Pages of directories that were listed lately, as they were sent: `ls -l`, a build or a backup comes by again, and what a
//! page costs is to look up each child and to seal its handle. A page is used as long as no name of the directory and
//! no attributes in it have changed ([`super::changes`]).

use super::changes::{Changes, Seen};
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache as Quick;
use slice_proto::handle::Handle;
use slice_proto::ids::{FileId, TableEpoch};
use slice_proto::trailer::Stamp;
use slice_store::Ticket;
use std::sync::Arc;

/// Typical bytes of a page: for the cache's first guess at how many there will be.
const TYPICAL_PAGE: usize = 48 << 10;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PageKey {
    pub(crate) dir: Handle,
    pub(crate) cookie: u64,
    pub(crate) dircount: usize,
    pub(crate) maxcount: usize,
    pub(crate) plus: bool,
}

/// What was answered behind the directory's own attributes.
#[derive(Debug)]
pub(crate) struct Page {
    /// The table by which it was judged whose attributes are here, and by whose keys handles are sealed.
    pub(crate) table: TableEpoch,
    /// Whom `..` stood for, where the directory's record is here.
    pub(crate) parent: Option<FileId>,
    /// Everything that it was made of.
    pub(crate) seen: Vec<Seen>,
    /// When everything in it is durable.
    pub(crate) ticket: Ticket,
    /// The entries as they were sent.
    pub(crate) entries: Bytes,
    /// One for each fattr3 in them.
    pub(crate) stamps: Vec<Stamp>,
    pub(crate) eof: bool,
}

#[derive(Clone)]
struct Weigh;

impl Weighter<PageKey, Arc<Page>> for Weigh {
    fn weight(&self, _: &PageKey, page: &Arc<Page>) -> u64 {
        let lists = page.seen.capacity() * size_of::<Seen>() + page.stamps.capacity() * size_of::<Stamp>();
        (size_of::<PageKey>() + size_of::<Page>() + lists + page.entries.len()) as u64
    }
}

/// The pages of one server.
pub(crate) struct Pages(Quick<PageKey, Arc<Page>, Weigh>);

// === impl Pages ===

impl Pages {
    /// At most `bytes` of them.
    pub(crate) fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes).unwrap_or(usize::MAX) / TYPICAL_PAGE;
        Self(Quick::with_weighter(items, bytes, Weigh))
    }

    /// A page that is still what would be answered.
    pub(crate) fn get(
        &self,
        key: &PageKey,
        table: TableEpoch,
        parent: Option<FileId>,
        changes: &Changes,
    ) -> Option<Arc<Page>> {
        let page = self.0.get(key)?;
        let same = page.table == table && page.parent == parent;
        (same && page.seen.iter().all(|seen| changes.still(seen))).then_some(page)
    }

    /// Bytes that they take, by their weights.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.weight()
    }

    pub(crate) fn put(&self, key: PageKey, page: Page) {
        self.0.insert(key, Arc::new(page));
    }
}
