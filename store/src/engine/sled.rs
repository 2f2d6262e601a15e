//! sled 0.34: selectable for comparison. **Not power-safe**: 300 flushes made 894 `sync_file_range` and 12 fsync
//! calls, and there are open reports of stores that do not open after a killed container (spacejam/sled #1533, #1166).

use super::{Direction, Engine, EngineKind, KeyRange, Pairs};
use crate::error::{Error, Result};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

/// Bytes of pages kept in memory.
const CACHE_BYTES: u64 = 32 << 20;

const DATA: &str = "data";
const STAMP: &str = "stamp";
const STAMP_KEY: &[u8] = b"stamp";

pub(crate) struct Sled {
    data: sled::Tree,
    stamp: sled::Tree,
    db: sled::Db,
}

fn failed(what: &'static str) -> impl FnOnce(sled::Error) -> Error {
    move |e| Error::Engine { kind: EngineKind::Sled, what, source: Arc::new(e) }
}

impl Sled {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        Self::wait_for_last_close(dir)?;
        let db = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            // Durability is persist()'s business.
            .flush_every_ms(None)
            .open()
            .map_err(failed("open"))?;
        let data = db.open_tree(DATA).map_err(failed("open"))?;
        let stamp = db.open_tree(STAMP).map_err(failed("open"))?;
        Ok(Self { data, stamp, db })
    }

    /// A dropped sled still has its file locked while its threads finish, and then refuses to open again. The store's
    /// own lock says that no other process has it, so that this waits for nothing but those.
    fn wait_for_last_close(dir: &Path) -> Result<()> {
        let path = dir.join("db");
        match std::fs::File::open(&path) {
            Ok(file) => file.lock().map_err(Error::io("lock", path)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::io("open", path)(e)),
        }
    }
}

fn copy(slice: &[u8]) -> Bytes {
    Bytes::copy_from_slice(slice)
}

// === impl Engine ===

impl Engine for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.data.get(key).map_err(failed("get"))?.map(|v| copy(&v)))
    }

    fn iter(&self, range: KeyRange, direction: Direction) -> Pairs {
        let pairs = self.data.range::<Bytes, _>((range.start, range.end));
        let open = |pair: sled::Result<(sled::IVec, sled::IVec)>| {
            let (k, v) = pair.map_err(failed("scan"))?;
            Ok((copy(&k), copy(&v)))
        };
        match direction {
            Direction::Forward => Box::new(pairs.map(open)),
            Direction::Backward => Box::new(pairs.rev().map(open)),
        }
    }

    fn write(&self, ops: &mut dyn ExactSizeIterator<Item = (&Bytes, Option<&Bytes>)>) -> Result<()> {
        let mut batch = sled::Batch::default();
        for (key, value) in ops {
            match value {
                Some(value) => batch.insert(key.as_ref(), value.as_ref()),
                None => batch.remove(key.as_ref()),
            }
        }
        self.data.apply_batch(batch).map_err(failed("write"))
    }

    fn persist(&self) -> Result<()> {
        self.db.flush().map(drop).map_err(failed("flush"))
    }

    fn space(&self) -> Result<u64> {
        self.db.size_on_disk().map_err(failed("measure its files"))
    }

    fn stamp(&self) -> Result<Option<Bytes>> {
        Ok(self.stamp.get(STAMP_KEY).map_err(failed("get"))?.map(|v| copy(&v)))
    }

    fn set_stamp(&self, stamp: &[u8]) -> Result<()> {
        self.stamp.insert(STAMP_KEY, stamp).map_err(failed("write"))?;
        self.persist()
    }
}
