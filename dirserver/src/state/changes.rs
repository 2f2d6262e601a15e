//! Tells whether a record has changed since it was looked at, without looking at it again: what is made of many
//! records (a page of a directory) is kept, and used as long as none of them has changed.

use slice_proto::ids::FileId;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters. Records share them: a change of one makes what is made of the others be made again, rarely.
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 14;

/// Which counter a record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

/// A record as it was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    slot: Slot,
    begun: u64,
}

#[derive(Debug, Default)]
struct Counter {
    begun: AtomicU64,
    done: AtomicU64,
}

/// Changes begun and done, of all records.
#[derive(Debug)]
pub(crate) struct Changes(Vec<Counter>);

/// Changes under way: done when it is dropped.
#[must_use]
pub(crate) struct Changing<'a> {
    changes: &'a Changes,
    slots: Vec<Slot>,
}

// === impl Slot ===

impl Slot {
    fn new(file: FileId, salt: u64) -> Self {
        let h = (file.0 ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The topmost bits: every bit of what was multiplied reaches them.
        Self((h >> (u64::BITS - SLOT_BITS)) as u32)
    }

    /// Of an attribute record.
    pub(crate) fn attr(file: FileId) -> Self {
        Self::new(file, 0)
    }

    /// Of all names of a directory together.
    pub(crate) fn names(dir: FileId) -> Self {
        Self::new(dir, 1 << 63)
    }
}

// === impl Changes ===

impl Default for Changes {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| Counter::default()).collect())
    }
}

impl Changes {
    /// To be called before a record is read. `None` while it is being changed.
    pub(crate) fn look(&self, slot: Slot) -> Option<Seen> {
        let counter = self.0.get(slot.0 as usize)?;
        // A change that begins after this is seen by what `still` reads.
        let begun = counter.begun.load(Ordering::Acquire);
        (counter.done.load(Ordering::Acquire) == begun).then_some(Seen { slot, begun })
    }

    /// Whether no change has begun since.
    pub(crate) fn still(&self, seen: &Seen) -> bool {
        self.0.get(seen.slot.0 as usize).is_some_and(|c| c.begun.load(Ordering::Acquire) == seen.begun)
    }

    /// To be called before changes can be seen by anybody, and dropped when they are seen by everybody.
    pub(crate) fn begin(&self, slots: impl IntoIterator<Item = Slot>) -> Changing<'_> {
        let slots: Vec<Slot> = slots.into_iter().collect();
        for counter in slots.iter().filter_map(|s| self.0.get(s.0 as usize)) {
            counter.begun.fetch_add(1, Ordering::AcqRel);
        }
        Changing { changes: self, slots }
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        for counter in self.slots.iter().filter_map(|s| self.changes.0.get(s.0 as usize)) {
            counter.done.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_at_before_or_during_a_change_is_not_used() {
        let changes = Changes::default();
        let (a, b) = (Slot::attr(FileId(1)), Slot::names(FileId(1)));
        assert_ne!(a, b);
        let (seen_a, seen_b) = (changes.look(a).unwrap(), changes.look(b).unwrap());
        let first = changes.begin([a]);
        assert!(!changes.still(&seen_a) && changes.still(&seen_b));
        assert_eq!(changes.look(a), None);
        // Two at once, ending in either order.
        let second = changes.begin([a, b]);
        drop(first);
        assert_eq!(changes.look(a), None);
        drop(second);
        let again = changes.look(a).unwrap();
        assert!(changes.still(&again) && !changes.still(&seen_a) && !changes.still(&seen_b));
    }
}
