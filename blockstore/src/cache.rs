//! The objects in memory, and with them the open files: a bounded number, those used last.

use crate::object::Object;
use parking_lot::Mutex;
use slice_proto::ids::FileId;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Open files of one node at most; each object costs some 500 bytes and an open file.
const MAX_OPEN: usize = 4096;
/// Nodes in one process (`slice up`), each with sockets beside, share the process's limit.
const LIMIT_SHARE: u64 = 8;
/// Fewer would make every second request open a file.
const MIN_OPEN: usize = 64;
/// Locks that requests for different objects meet on.
const SHARDS: usize = 16;

/// The objects in memory.
#[derive(Debug)]
pub(crate) struct Cache {
    shards: Vec<Mutex<Shard>>,
    /// Objects of one shard at most.
    most: usize,
}

#[derive(Debug, Default)]
struct Shard {
    objects: HashMap<FileId, Arc<Object>>,
    /// Second chance: in the order in which they came, or were last found used.
    order: VecDeque<FileId>,
}

/// What becomes of a place for an object.
pub(crate) enum Place {
    /// Here it is; it may not be loaded yet.
    Object(Arc<Object>),
    /// Nothing can go before this object is durable.
    Full(Arc<Object>),
}

/// How many files may be open: the named bound, or less where the process's limit is low.
pub(crate) fn open_files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let share = limit.map_or(MAX_OPEN, |l| usize::try_from(l / LIMIT_SHARE).unwrap_or(MAX_OPEN));
    share.clamp(MIN_OPEN, MAX_OPEN)
}

impl Cache {
    pub(crate) fn new(open_files: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            most: open_files.div_ceil(SHARDS).max(1),
        }
    }

    fn shard(&self, file: FileId) -> Option<&Mutex<Shard>> {
        // Sequences of one site follow each other: their low bits spread.
        self.shards.get((file.0 ^ file.0 >> 48) as usize % SHARDS)
    }

    /// An object that is in memory.
    pub(crate) fn get(&self, file: FileId) -> Option<Arc<Object>> {
        let object = self.shard(file)?.lock().objects.get(&file).cloned()?;
        object.used.store(true, Ordering::Relaxed);
        object.loaded.initialized().then_some(object)
    }

    /// An object, or a place for it. `is_clean` tells whether one may be forgotten; with `force` the bound is passed over
    /// rather than answering [`Place::Full`].
    pub(crate) fn place(&self, file: FileId, is_clean: impl Fn(&Object) -> bool, force: bool) -> Place {
        let Some(shard) = self.shard(file) else { return Place::Object(Arc::new(Object::new(file))) };
        let mut shard = shard.lock();
        if let Some(object) = shard.objects.get(&file) {
            object.used.store(true, Ordering::Relaxed);
            return Place::Object(Arc::clone(object));
        }
        if shard.objects.len() >= self.most
            && let Some(full) = shard.evict(is_clean)
            && !force
        {
            return Place::Full(full);
        }
        let object = Arc::new(Object::new(file));
        shard.objects.insert(file, Arc::clone(&object));
        shard.order.push_back(file);
        Place::Object(object)
    }

    /// Forgets an object, if nobody uses it.
    pub(crate) fn forget(&self, object: Arc<Object>) {
        let Some(shard) = self.shard(object.file) else { return };
        let mut shard = shard.lock();
        // Ours and the map's.
        if Arc::strong_count(&object) == 2 {
            shard.objects.remove(&object.file);
            shard.order.retain(|f| *f != object.file);
        }
    }

    /// How many objects are in memory.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().objects.len()).sum()
    }

    /// Every object in memory.
    pub(crate) fn all(&self) -> Vec<Arc<Object>> {
        self.shards.iter().flat_map(|s| s.lock().objects.values().cloned().collect::<Vec<_>>()).collect()
    }
}

impl Shard {
    /// Makes room for one. Answers an idle object that is not clean if nothing clean is idle; nothing if there is room now, or
    /// if all are in use: as many as there are requests in flight, which are bounded elsewhere.
    fn evict(&mut self, is_clean: impl Fn(&Object) -> bool) -> Option<Arc<Object>> {
        let mut unclean = None;
        // Twice round: the first takes their second chance.
        for _ in 0..self.order.len() * 2 {
            let file = self.order.pop_front()?;
            let Some(object) = self.objects.get(&file) else { continue };
            let idle = Arc::strong_count(object) == 1;
            if object.used.swap(false, Ordering::Relaxed) || !idle {
                self.order.push_back(file);
            } else if is_clean(object) {
                self.objects.remove(&file);
                return None;
            } else {
                unclean.get_or_insert(file);
                self.order.push_back(file);
            }
        }
        unclean.and_then(|file| self.objects.get(&file).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(c: &Cache, file: u64, clean: bool, force: bool) -> Option<Arc<Object>> {
        match c.place(FileId(file * SHARDS as u64), |_| clean, force) {
            Place::Object(o) => {
                o.loaded.set(()).ok();
                Some(o)
            }
            Place::Full(_) => None,
        }
    }

    #[test]
    fn clean_idle_objects_go_used_and_unclean_ones_stay() {
        let cache = Cache::new(2 * SHARDS);
        let held = place(&cache, 1, true, false).unwrap();
        place(&cache, 2, true, false).unwrap();
        place(&cache, 3, true, false).unwrap();
        assert!(cache.get(held.file).is_some(), "in use");
        assert!(cache.get(FileId(2 * SHARDS as u64)).is_none(), "gone");
        assert!(place(&cache, 4, false, false).is_none(), "3 is idle, but not clean");
        assert!(place(&cache, 4, false, true).is_some(), "forced");
        assert_eq!(cache.all().len(), 3);
        cache.forget(held);
        assert_eq!(cache.all().len(), 2);
    }
}
