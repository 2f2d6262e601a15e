//! The objects in memory: a bounded number, those used last.

use crate::core::Object;
use parking_lot::Mutex;
use slice_proto::ids::FileId;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Locks that requests for different objects meet on.
const SHARDS: usize = 64;
/// Places looked at to make room for one more: beyond, the cache grows by one.
const MAX_LOOKS: usize = 16;

/// An object that several requests share.
#[derive(Debug)]
pub(crate) struct Cell {
    pub file: FileId,
    /// Held for as long as memory and the page cache need, never across a wait.
    pub object: Mutex<Object>,
    /// Used since the cache's hand last came by.
    used: AtomicBool,
}

/// The objects in memory.
#[derive(Debug)]
pub(crate) struct Cache {
    shards: Vec<Mutex<Shard>>,
    /// Objects of one shard at most, while enough of them are clean.
    most: usize,
    /// The shard that is flushed next when memory is short.
    hand: AtomicUsize,
    /// Far more objects than there should be: too many have something to flush.
    crowded: AtomicBool,
}

#[derive(Debug, Default)]
struct Shard {
    cells: HashMap<FileId, Arc<Cell>>,
    /// Second chance: in the order in which they came, or were last found used.
    order: VecDeque<FileId>,
}

impl Cache {
    pub(crate) fn new(objects: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            most: objects.div_ceil(SHARDS).max(1),
            hand: AtomicUsize::new(0),
            crowded: AtomicBool::new(false),
        }
    }

    fn shard(&self, file: FileId) -> Option<&Mutex<Shard>> {
        // Sequences of one site follow each other: their low bits spread.
        self.shards.get((file.0 ^ file.0 >> 48) as usize % SHARDS)
    }

    /// An object; `load` finds it if it is not in memory.
    pub(crate) fn get_or<E>(
        &self,
        file: FileId,
        load: impl FnOnce() -> Result<Object, E>,
    ) -> Result<Arc<Cell>, E> {
        let cell = |object| Arc::new(Cell { file, object: Mutex::new(object), used: AtomicBool::new(true) });
        let Some(shard) = self.shard(file) else { return load().map(cell) };
        // Loading under the lock: nobody else may make the same object from an older record meanwhile.
        let mut shard = shard.lock();
        if let Some(cell) = shard.cells.get(&file) {
            cell.used.store(true, Ordering::Relaxed);
            return Ok(Arc::clone(cell));
        }
        let cell = cell(load()?);
        if shard.cells.len() >= self.most && !shard.evict() && shard.cells.len() >= 2 * self.most {
            self.crowded.store(true, Ordering::Relaxed);
        }
        shard.cells.insert(file, Arc::clone(&cell));
        shard.order.push_back(file);
        Ok(cell)
    }

    /// Forgets an object, if nobody uses it and nothing of it would be lost.
    pub(crate) fn forget(&self, file: FileId) {
        if let Some(shard) = self.shard(file) {
            let mut shard = shard.lock();
            if shard.cells.get(&file).is_some_and(Cell::is_idle) {
                shard.cells.remove(&file);
                shard.order.retain(|f| *f != file);
            }
        }
    }

    /// Whether there have come to be far more objects than there should be since this was last asked.
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed) && self.crowded.swap(false, Ordering::Relaxed)
    }

    /// Some objects that have something to flush, if there are any: those of one shard after the other.
    pub(crate) fn some_dirty(&self) -> Vec<Arc<Cell>> {
        for _ in 0..SHARDS {
            let hand = self.hand.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let cells: Vec<_> =
                self.shards.get(hand).map_or_else(Vec::new, |s| s.lock().cells.values().cloned().collect());
            let mut dirty: Vec<_> = cells.into_iter().filter(|c| c.object.lock().is_dirty()).collect();
            if !dirty.is_empty() {
                // In one order whatever the map's: a simulation runs again as it ran.
                dirty.sort_unstable_by_key(|c| c.file);
                return dirty;
            }
        }
        Vec::new()
    }

    /// Every object in memory.
    pub(crate) fn all(&self) -> Vec<Arc<Cell>> {
        self.shards.iter().flat_map(|s| s.lock().cells.values().cloned().collect::<Vec<_>>()).collect()
    }
}

impl Cell {
    /// Whether only the cache holds it, and the store has all of it. With the shard locked.
    fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && self.object.try_lock().is_some_and(|o| !o.is_dirty())
    }
}

impl Shard {
    /// Makes room for one, if one of the next few can go.
    fn evict(&mut self) -> bool {
        for _ in 0..MAX_LOOKS {
            let Some(file) = self.order.pop_front() else { return false };
            let Some(cell) = self.cells.get(&file) else { continue };
            if !cell.used.swap(false, Ordering::Relaxed) && cell.is_idle() {
                self.cells.remove(&file);
                return true;
            }
            self.order.push_back(file);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(cache: &Cache, n: u64) -> Arc<Cell> {
        cache.get_or::<()>(FileId(n * SHARDS as u64), || Ok(Object::default())).unwrap()
    }

    #[test]
    fn what_is_used_or_dirty_stays() {
        let cache = Cache::new(2 * SHARDS);
        let held = get(&cache, 1);
        get(&cache, 2).object.lock().write(0, b"x", |_| Vec::new());
        for n in 3..20 {
            get(&cache, n);
        }
        let mut left: Vec<u64> = cache.all().iter().map(|c| c.file.0 / SHARDS as u64).collect();
        left.sort_unstable();
        assert_eq!(left.len(), 3, "{left:?}");
        assert_eq!(left[..2], [1, 2]);
        assert_eq!(cache.some_dirty().len(), 1);
        drop(held);
        cache.forget(FileId(SHARDS as u64));
        cache.forget(FileId(2 * SHARDS as u64));
        assert_eq!(cache.all().len(), 2);
    }
}
