//! The write verifier that clients see (I7), one per µproxy process.
//!
//! 64 random bits at start, then counting. Raised when a data server answers with another verifier than last seen
//! (it restarted and may have lost uncommitted bytes) or when a data site changes owner. A WRITE's reply carries the
//! value as the request arrived, a COMMIT's the value as all parts have answered: so whatever may be lost was
//! acknowledged under another value than the COMMIT that was to save it, and the client sends it again; and a value once
//! raised does not come back, so that the client never loops.

use slice_proto::ids::{Role, ServerId};
use slice_proto::nfs3::Verifier;
use slice_proto::table::RoutingTable;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The value that clients see; shared by all threads.
#[derive(Debug, Clone)]
pub struct WriteVerifier(Arc<AtomicU64>);

impl WriteVerifier {
    /// Starts at `random`.
    #[must_use]
    pub fn new(random: u64) -> Self {
        Self(Arc::new(AtomicU64::new(random)))
    }

    /// The value now.
    #[must_use]
    pub fn current(&self) -> Verifier {
        // SeqCst: a COMMIT that has seen another thread's effect must see its raise, too.
        Verifier(self.0.load(Ordering::SeqCst).to_be_bytes())
    }

    /// Raises it: what was acknowledged before may be lost.
    pub fn raise(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The verifier that each data server was last seen to answer with; each thread has its own.
#[derive(Debug, Default)]
pub struct Seen(HashMap<ServerId, Verifier>);

impl Seen {
    /// Notes what `server` answered with; true if it is another than last seen: the µproxy's own must be raised. A server
    /// seen for the first time has nothing of this thread's to lose.
    #[must_use]
    pub fn changed(&mut self, server: ServerId, verf: Verifier) -> bool {
        match self.0.get_mut(&server) {
            Some(last) if *last == verf => false,
            Some(last) => {
                *last = verf;
                true
            }
            None => {
                self.0.insert(server, verf);
                false
            }
        }
    }

    /// Whether `server` was seen: only then would its restart be noticed.
    #[must_use]
    pub fn knows(&self, server: ServerId) -> bool {
        self.0.contains_key(&server)
    }

    /// Forgets servers that are not in the table: bounds the map.
    pub fn keep_only(&mut self, table: &RoutingTable) {
        self.0.retain(|server, _| table.servers.contains_key(server));
    }
}

/// Whether a data site has another owner in `new` than in `old`.
#[must_use]
pub fn owner_changed(old: &RoutingTable, new: &RoutingTable) -> bool {
    [Role::Small, Role::Block].into_iter().any(|role| {
        // A table without sites is the one before format: nothing was written under it.
        !old.sites(role).is_empty()
            && (old.sites(role).len() != new.sites(role).len()
                || old.sites(role).iter().zip(new.sites(role)).any(|(a, b)| a.first() != b.first()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_answers_otherwise_raises_the_value_once() {
        let (mut seen, own) = (Seen::default(), WriteVerifier::new(u64::MAX));
        let before = own.current();
        assert!(!seen.changed(ServerId(1), Verifier([1; 8])));
        assert!(!seen.changed(ServerId(1), Verifier([1; 8])));
        assert!(seen.changed(ServerId(1), Verifier([2; 8])));
        own.raise();
        assert!(!seen.changed(ServerId(1), Verifier([2; 8])));
        assert!(!seen.changed(ServerId(2), Verifier([9; 8])));
        assert_ne!(own.current(), before);
        assert_eq!(own.current(), Verifier([0; 8]), "it wraps");
    }

    #[test]
    fn moved_data_sites_count_and_moved_directory_sites_do_not() {
        let table = |dir: u64, small: u64| RoutingTable {
            dir: vec![vec![ServerId(dir)]],
            small: vec![vec![ServerId(small)]],
            block: vec![vec![ServerId(7)]],
            ..RoutingTable::default()
        };
        assert!(!owner_changed(&table(1, 2), &table(5, 2)));
        assert!(owner_changed(&table(1, 2), &table(1, 3)));
        assert!(!owner_changed(&RoutingTable::default(), &table(1, 3)), "nothing was written before format");
    }
}
