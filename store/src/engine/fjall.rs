//! fjall 3: the default engine.

use super::{Direction, Engine, EngineKind, KeyRange, Pairs, fjall_journal};
use crate::error::{Error, Result};
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;
use std::sync::Arc;

/// Bytes of table blocks kept in memory. The services keep their hot records themselves; this is for the misses.
const CACHE_BYTES: u64 = 32 << 20;

/// Bytes written that gather in memory before they become a table. fjall takes some three times as much for them.
const MEMTABLE_BYTES: u64 = 16 << 20;

/// Flush and compaction threads: one may compact while the other flushes, so that writers are not stalled.
const WORKERS: usize = 2;

const DATA: &str = "data";
const STAMP: &str = "stamp";
const STAMP_KEY: &[u8] = b"stamp";

pub(crate) struct Fjall {
    data: Keyspace,
    stamp: Keyspace,
    // Last, so that the keyspaces are gone when the database stops its threads.
    db: Database,
}

fn failed(what: &'static str) -> impl FnOnce(fjall::Error) -> Error {
    move |e| Error::Engine { kind: EngineKind::Fjall, what, source: Arc::new(e) }
}

impl Fjall {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        fjall_journal::check(dir)?;
        let db = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .worker_threads(WORKERS)
            .open()
            .map_err(failed("open"))?;
        // A keyspace keeps the size that it was made with.
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let data = db.keyspace(DATA, options).map_err(failed("open"))?;
        let stamp = db.keyspace(STAMP, KeyspaceCreateOptions::default).map_err(failed("open"))?;
        sync_names(dir)?;
        Ok(Self { data, stamp, db })
    }
}

/// fjall makes durable what is in a keyspace's directory, but not that directory's name: without it, fjall finds a journal
/// and makes new keyspaces, empty ones (`tests/tests/powercut`).
fn sync_names(dir: &Path) -> Result<()> {
    let keyspaces = dir.join("keyspaces");
    let sync = std::fs::File::open(&keyspaces).and_then(|names| names.sync_all());
    sync.map_err(Error::io("fsync", keyspaces))
}

fn copy(slice: &[u8]) -> Bytes {
    Bytes::copy_from_slice(slice)
}

// === impl Engine ===

impl Engine for Fjall {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.data.get(key).map_err(failed("get"))?.map(|v| copy(&v)))
    }

    fn iter(&self, range: KeyRange, direction: Direction) -> Pairs {
        let pairs = self.data.range::<Bytes, _>((range.start, range.end));
        let open = |guard: fjall::Guard| {
            let (k, v) = guard.into_inner().map_err(failed("scan"))?;
            Ok((copy(&k), copy(&v)))
        };
        match direction {
            Direction::Forward => Box::new(pairs.map(open)),
            Direction::Backward => Box::new(pairs.rev().map(open)),
        }
    }

    fn write(&self, ops: &mut dyn ExactSizeIterator<Item = (&Bytes, Option<&Bytes>)>) -> Result<()> {
        // Durability is persist()'s business; until then the journal may stay in the process's buffer.
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.db.clone(), ops.len()).durability(None);
        for (key, value) in ops {
            match value {
                Some(value) => batch.insert(&self.data, key.as_ref(), value.as_ref()),
                None => batch.remove(&self.data, key.as_ref()),
            }
        }
        batch.commit().map_err(failed("write"))
    }

    fn persist(&self) -> Result<()> {
        self.db.persist(PersistMode::SyncData).map_err(failed("fsync"))
    }

    fn space(&self) -> Result<u64> {
        self.db.disk_space().map_err(failed("measure its files"))
    }

    fn stamp(&self) -> Result<Option<Bytes>> {
        Ok(self.stamp.get(STAMP_KEY).map_err(failed("get"))?.map(|v| copy(&v)))
    }

    fn set_stamp(&self, stamp: &[u8]) -> Result<()> {
        self.stamp.insert(STAMP_KEY, stamp).map_err(failed("write"))?;
        self.db.persist(PersistMode::SyncAll).map_err(failed("fsync"))
    }
}
