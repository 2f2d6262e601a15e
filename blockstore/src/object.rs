//! An object in memory: its fence, its file, and what of it is not durable yet.

use crate::error::Result;
use crate::fence::{Fence, UNRECORDED, WriteVerdict};
use crate::layout::Layout;
use crate::record::Record;
use crate::sync::Committer;
use parking_lot::{RwLock, RwLockReadGuard};
use slice_proto::ids::{Epoch, FileId};
use slice_store::data_keys::object_key;
use slice_store::{Batch, Store, Ticket};
use slice_system::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::OnceCell;

/// An object in memory.
#[derive(Debug)]
pub(crate) struct Object {
    pub file: FileId,
    /// Filled in by the first who needs the object.
    pub(crate) loaded: OnceCell<()>,
    /// WRITEs hold it shared from their judgement until their bytes are in; TRUNCATE and PURGE alone while they judge
    /// and cut: no byte that a judgement let in lands after the cut that fences it.
    pub(crate) state: RwLock<State>,
    /// End of the last byte, an offset in the NFS file.
    end: AtomicU64,
    pub(crate) committer: Committer,
    /// Its file was found, and nobody knows whether the file's entry is durable: an earlier life may have ended before that.
    found: AtomicBool,
    /// Used since the cache's hand last came by.
    pub(crate) used: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub fence: Fence,
    /// When it was purged.
    pub purged_ns: Option<u64>,
    /// Its file, if it has one.
    pub bytes: Option<Arc<dyn File>>,
    /// The last batch that holds its record: durable before anything that the record must outlive is acknowledged.
    pub record: Ticket,
}

impl Object {
    pub(crate) fn new(file: FileId) -> Self {
        Self {
            file,
            loaded: OnceCell::new(),
            state: RwLock::default(),
            end: AtomicU64::new(0),
            committer: Committer::default(),
            found: AtomicBool::new(false),
            used: AtomicBool::new(true),
        }
    }

    /// Reads what store and disk have of it, and makes its file if a WRITE of epoch `write` needs it. Blocks.
    pub(crate) fn load(&self, store: &Store, layout: &Layout, write: Option<Epoch>) -> Result<()> {
        let record = match store.get(&object_key(self.file))? {
            Some(bytes) => Record::decode(self.file, &bytes)?,
            None => Record::default(),
        };
        let mut bytes = layout.open_object(self.file)?;
        if record.purged_ns.is_some() && bytes.take().is_some() {
            // The tombstone was durable before the removal.
            layout.remove_object(self.file)?;
        }
        if let Some(bytes) = &bytes {
            let stat =
                bytes.stat().map_err(|e| crate::error::Error::io("stat", layout.path(self.file))(e))?;
            self.end.store(stat.len, Ordering::Release);
            self.found.store(!layout.knows(self.file), Ordering::Relaxed);
        }
        let fence =
            Fence { epoch: record.epoch, applied: record.epoch, tombstone: record.purged_ns.is_some() };
        let wanted =
            write.is_some_and(|epoch| matches!(fence.write(epoch), WriteVerdict::Go | WriteVerdict::Raise));
        {
            let mut state = self.state.write();
            state.fence = fence;
            state.purged_ns = record.purged_ns;
            state.bytes = bytes;
        }
        if wanted { self.create(layout) } else { Ok(()) }
    }

    /// Makes its file, if it has none and is not purged. Blocks.
    pub(crate) fn create(&self, layout: &Layout) -> Result<()> {
        let mut state = self.state.write();
        if state.bytes.is_none() && !state.fence.tombstone {
            state.bytes = Some(layout.create_object(self.file)?);
            self.committer.created();
        }
        Ok(())
    }

    /// The state, shared; `None` rather than wait, if `wait` is false and somebody cuts.
    pub(crate) fn shared(&self, wait: bool) -> Option<RwLockReadGuard<'_, State>> {
        if wait { Some(self.state.read()) } else { self.state.try_read() }
    }

    /// Remembers a higher epoch that a WRITE came with: durable with [`State::record`]. False rather than wait, if `wait` is
    /// false and somebody uses the object.
    pub(crate) fn raise(&self, epoch: Epoch, store: &Store, wait: bool) -> Result<bool> {
        let Some(mut state) = (if wait { Some(self.state.write()) } else { self.state.try_write() }) else {
            return Ok(false);
        };
        if epoch > state.fence.epoch && !state.fence.tombstone {
            if epoch > UNRECORDED {
                let mut batch = Batch::new();
                batch.put(object_key(self.file), Record { epoch, purged_ns: None }.encode());
                state.record = store.submit(batch)?;
            }
            // Nothing was to be cut here: see `fence`.
            state.fence.epoch = epoch;
            state.fence.applied = epoch;
        }
        Ok(true)
    }

    /// Bytes were written. With the state shared.
    pub(crate) fn wrote(&self) {
        if self.found.load(Ordering::Relaxed) && self.found.swap(false, Ordering::Relaxed) {
            self.committer.created();
        } else {
            self.committer.wrote();
        }
    }

    /// End of the last byte, an offset in the NFS file.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Bytes up to `end` have been written. With the state shared.
    pub(crate) fn grew(&self, end: u64) {
        self.end.fetch_max(end, Ordering::AcqRel);
    }

    /// Nothing is left from `end` on. With the state alone.
    pub(crate) fn cut(&self, end: u64) {
        self.end.fetch_min(end, Ordering::AcqRel);
    }
}
