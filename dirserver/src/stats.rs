//! Counts of calls.

use slice_proto::nfs3::Proc3;
use std::sync::atomic::{AtomicU64, Ordering};

/// Private procedures that are counted, by name.
const PEER: [(&str, u32); 12] = [
    ("PUSH", 10),
    ("RAISE_REACH", 11),
    ("HOLD", 20),
    ("CONFIRM", 21),
    ("DROP", 22),
    ("OWE", 23),
    ("RECONCILE", 24),
    ("LIST_ATTRS", 51),
    ("LIST_ENTRIES", 52),
    ("SETTLED", 53),
    ("INSPECT", 54),
    ("REPAIR", 55),
];

/// Calls since start, by procedure.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    nfs: [AtomicU64; 22],
    peer: [AtomicU64; PEER.len()],
}

// === impl Counters ===

impl Counters {
    pub(crate) fn nfs(&self, proc: Proc3) {
        if let Some(n) = self.nfs.get(proc as usize) {
            n.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn peer(&self, proc: u32) {
        let found = PEER.iter().zip(&self.peer).find(|((_, number), _)| *number == proc);
        if let Some((_, n)) = found {
            n.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Those that are not 0.
    pub(crate) fn named(&self) -> Vec<(String, u64)> {
        let nfs = Proc3::ALL.iter().map(|p| p.name()).zip(&self.nfs);
        let peer = PEER.iter().map(|(name, _)| *name).zip(&self.peer);
        let read = |(name, n): (&str, &AtomicU64)| (name.to_owned(), n.load(Ordering::Relaxed));
        nfs.chain(peer).map(read).filter(|(_, n)| *n != 0).collect()
    }
}
