//! Shared by the store's tests.
#![allow(dead_code, clippy::unwrap_used)]

use rand::{Rng as _, SeedableRng, rngs::StdRng};
use slice_proto::ids::{EnsembleId, Role, ServerId};
use slice_store::{EngineKind, Store, StoreStamp};
use std::path::Path;

pub fn stamp() -> StoreStamp {
    StoreStamp { ensemble: EnsembleId(0xe), server: ServerId(0x5), role: Role::Dir, format: 1 }
}

/// Opens the store in `dir`, formatting it the first time.
pub fn open(dir: &Path, kind: EngineKind) -> Store {
    if !dir.join("store").exists() {
        Store::format(dir, kind, stamp()).unwrap();
    }
    // A process that another test is just starting holds copies of our closed files until it has called exec.
    std::fs::File::open(dir.join("lock")).unwrap().lock().unwrap();
    Store::open(dir, kind, stamp()).unwrap()
}

/// Randomness whose seed is printed and can be set by `SEED`.
pub struct Rng(StdRng);

impl Rng {
    pub fn new() -> Self {
        let seed =
            std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random::<u64>);
        println!("SEED={seed}");
        Self(StdRng::seed_from_u64(seed))
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    pub fn key(&mut self) -> Vec<u8> {
        let mut k = vec![b'k'; 1 + self.below(3)];
        *k.last_mut().unwrap() = u8::try_from(self.below(100)).unwrap();
        k
    }
}
