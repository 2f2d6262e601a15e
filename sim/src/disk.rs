//! A disk with one store on it: an engine in memory that forgets at a crash what was not fsynced, all or some of it.
//!
//! An engine's write is atomic by its contract (its journal cuts off what is torn), so what a crash leaves of several writes
//! is a number of the first of them, none by halves.

use bytes::Bytes;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use slice_store::engine::Pairs;
use slice_store::{Direction, Engine, EngineKind, Error, KeyRange, Result};
use slice_system::disk::{Kind, Power};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

type Map = BTreeMap<Bytes, Bytes>;
type Write = Vec<(Bytes, Option<Bytes>)>;

#[derive(Debug, Default)]
struct State {
    durable: Map,
    /// Durable, and what was written since.
    visible: Map,
    unsynced: Vec<Write>,
    /// Engines of earlier lives write no more.
    life: u64,
    /// The power goes between a write and its fsync.
    dying: bool,
}

/// What outlives its server.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

struct Mounted {
    disk: Disk,
    life: u64,
    /// Files that stand on the same disk: the power goes for all at once.
    power: Option<Arc<Power>>,
}

fn apply(map: &mut Map, write: &Write) {
    for (key, value) in write {
        match value {
            Some(value) => drop(map.insert(key.clone(), value.clone())),
            None => drop(map.remove(key)),
        }
    }
}

impl Disk {
    /// The engine of a new life, beside the files that `power` is the switch of.
    #[must_use]
    pub fn mount(&self, power: Option<Arc<Power>>) -> Box<dyn Engine> {
        let mut state = self.0.lock();
        state.life += 1;
        Box::new(Mounted { disk: self.clone(), life: state.life, power })
    }

    /// From now on fsyncs fail: whoever flushes writes in vain.
    pub fn die(&self) {
        self.0.lock().dying = true;
    }

    /// The server is gone: of what was not fsynced some first writes are there, or none. How many. Without a loss of power all
    /// are: a store that is opened makes durable what it finds.
    pub fn crash(&self, rng: &mut StdRng, power_is_lost: bool) -> usize {
        let mut state = self.0.lock();
        let unsynced = std::mem::take(&mut state.unsynced);
        let least = if power_is_lost { 0 } else { unsynced.len() };
        let kept = rng.random_range(least..=unsynced.len());
        for write in unsynced.iter().take(kept) {
            apply(&mut state.durable, write);
        }
        state.visible = state.durable.clone();
        state.dying = false;
        state.life += 1;
        kept
    }
}

fn gone(what: &'static str) -> Error {
    let source = Arc::new(std::io::Error::other("the simulated power is gone"));
    Error::Engine { kind: EngineKind::Fjall, what, source }
}

impl Mounted {
    /// A change of the disk, as the switch before it counts them.
    fn change(&self, what: &'static str) -> Result<()> {
        self.power
            .as_ref()
            .map_or(Ok(()), |power| power.run(Kind::Change, |_| Ok(())))
            .map_err(|_| gone(what))
    }
}

impl Engine for Mounted {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.disk.0.lock().visible.get(key).cloned())
    }

    fn iter(&self, range: KeyRange, direction: Direction) -> Pairs {
        let disk = self.disk.clone();
        let KeyRange { mut start, mut end } = range;
        Box::new(std::iter::from_fn(move || {
            if (KeyRange { start: start.clone(), end: end.clone() }).is_empty() {
                return None;
            }
            let state = disk.0.lock();
            let mut pairs = state.visible.range::<Bytes, _>((start.as_ref(), end.as_ref()));
            let (key, value) = match direction {
                Direction::Forward => pairs.next(),
                Direction::Backward => pairs.next_back(),
            }?;
            match direction {
                Direction::Forward => start = Bound::Excluded(key.clone()),
                Direction::Backward => end = Bound::Excluded(key.clone()),
            }
            Some(Ok((key.clone(), value.clone())))
        }))
    }

    fn write(&self, ops: &mut dyn ExactSizeIterator<Item = (&Bytes, Option<&Bytes>)>) -> Result<()> {
        self.change("write")?;
        let mut state = self.disk.0.lock();
        if state.life != self.life {
            return Err(gone("write"));
        }
        let write: Write = ops.map(|(k, v)| (k.clone(), v.cloned())).collect();
        apply(&mut state.visible, &write);
        state.unsynced.push(write);
        Ok(())
    }

    fn persist(&self) -> Result<()> {
        self.change("fsync")?;
        let mut state = self.disk.0.lock();
        if state.life != self.life || state.dying {
            return Err(gone("fsync"));
        }
        for write in std::mem::take(&mut state.unsynced) {
            apply(&mut state.durable, &write);
        }
        Ok(())
    }

    fn space(&self) -> Result<u64> {
        Ok(0)
    }

    fn stamp(&self) -> Result<Option<Bytes>> {
        Ok(None)
    }

    fn set_stamp(&self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}
