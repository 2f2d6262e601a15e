//! The key-value store alone, with so much in a batch that its journals and tables fill up, and are written and removed.

use std::path::Path;

use rand::Rng;
use rand::rngs::StdRng;
use slice_proto::ids::{EnsembleId, Role as Place, ServerId};
use slice_store::{Batch, Direction, EngineKind, KeyRange, Store, StoreStamp};

use super::round::{Dark, Life, Role};
use super::wire;

/// Batches that wait to be durable at a time.
const WAITING: usize = 8;

/// Keys are used again: what is written over is what compaction throws away.
const KEYS: u64 = 40;

const VALUE: usize = 300 << 10;

/// Batches `1..=n` write key `n % KEYS`, and say `n` at the counter.
pub struct Pairs {
    /// Batches that were submitted.
    submitted: u64,
    /// Those of them that are durable, as the store said.
    durable: u64,
    acknowledged: u64,
    rng: StdRng,
}

const COUNTER: &[u8] = b"counter";

pub fn stamp() -> StoreStamp {
    StoreStamp { ensemble: EnsembleId(1), server: ServerId(1), role: Place::Dir, format: 1 }
}

fn key(n: u64) -> Vec<u8> {
    format!("key {:03}", n % KEYS).into_bytes()
}

fn value(n: u64) -> Vec<u8> {
    let mut value = n.to_be_bytes().to_vec();
    // No two alike, and nothing that can be made smaller.
    let mut word = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while value.len() < VALUE {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        value.extend(word.to_be_bytes());
    }
    value
}

fn batch(n: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(key(n), value(n));
    batch.put(COUNTER, n.to_be_bytes().to_vec());
    batch
}

impl Role for Pairs {
    const NAME: &'static str = "key-value store";
    const CHANGES: u64 = 1_500;
    const CUTS: [usize; 3] = [3, 6, 200];

    fn new(rng: StdRng) -> Self {
        Self { submitted: 0, durable: 0, acknowledged: 0, rng }
    }

    fn format(data: &Path) -> Result<(), String> {
        let format = || Store::format(data, EngineKind::Fjall, stamp()).map_err(|error| error.to_string());
        wire::make_once(data, format)
    }

    async fn make(&mut self, _: &Path) {}

    async fn live(&mut self, life: &Life) -> Result<(), Dark> {
        let store = life.good("it does not open", Store::open(life.data(), EngineKind::Fjall, stamp()))?;
        let counter = life.good("get", store.get(COUNTER))?;
        let there = counter.map_or(0, |n| u64::from_be_bytes(n[..].try_into().unwrap()));
        let may = self.durable..=self.submitted;
        assert!(may.contains(&there), "{there} batches, it must be in {may:?}");
        let mut found = 0;
        for pair in store.iter(KeyRange::prefix(b"key"), Direction::Forward) {
            let (k, v) = life.good("iter", pair)?;
            let n = u64::from_be_bytes(v[..8].try_into().unwrap());
            assert!(k == key(n) && n + KEYS > there && n <= there, "batch {n} of {there} at {k:?}");
            assert!(v[..] == value(n)[..], "batch {n} is damaged");
            found += 1;
        }
        assert_eq!(found, there.min(KEYS), "batches are missing");
        (self.durable, self.submitted) = (there, there);
        if life.last {
            return Ok(());
        }
        life.load();
        let mut waiting = std::collections::VecDeque::new();
        loop {
            self.submitted += 1;
            let ticket = life.good("submit", store.submit(batch(self.submitted)))?;
            waiting.push_back((self.submitted, ticket));
            if waiting.len() > self.rng.random_range(0..WAITING) {
                let Some((n, ticket)) = waiting.pop_front() else { continue };
                life.good("commit", life.lit(store.wait(ticket)).await?)?;
                self.acknowledged += n - self.durable;
                self.durable = n;
            }
        }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}
