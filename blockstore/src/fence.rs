//! What an epoch may do to an object (I9). Decided here, without I/O.
//!
//! The home site hands out a new epoch only when every site under the file's reach has applied the TRUNCATE or PURGE
//! that made it. So whoever writes under a lower epoch than the object's may be late, and is refused; whoever
//! writes under a higher one than the object's reached a site that was not under the reach then, or is here again after
//! our record was not needed: nothing is to be cut, and the epoch is remembered.

use slice_proto::ids::Epoch;

/// What an object remembers of epochs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fence {
    /// Highest epoch seen. Whoever comes with a lower one is refused.
    pub epoch: Epoch,
    /// Highest epoch whose effect is durable here: below `epoch` only while a TRUNCATE or PURGE runs, or after it failed.
    pub applied: Epoch,
    /// Whether only a tombstone is left.
    pub tombstone: bool,
}

/// Objects without a record have epochs up to this: files begin with it, so that plain files need no record.
pub(crate) const UNRECORDED: Epoch = Epoch(1);

/// What becomes of a WRITE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteVerdict {
    /// It goes on.
    Go,
    /// It goes on when its epoch is remembered.
    Raise,
    /// Its epoch is too low.
    Fenced,
    /// The file was purged.
    Gone,
}

/// What becomes of a TRUNCATE or PURGE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeVerdict {
    /// It acts.
    Act,
    /// It was done before.
    Done,
    /// Its epoch is too low.
    Fenced,
}

impl Fence {
    /// Judges a WRITE.
    pub(crate) fn write(&self, epoch: Epoch) -> WriteVerdict {
        if epoch < self.epoch {
            WriteVerdict::Fenced
        } else if self.tombstone {
            WriteVerdict::Gone
        } else if epoch > self.epoch {
            WriteVerdict::Raise
        } else {
            WriteVerdict::Go
        }
    }

    /// Judges a TRUNCATE or PURGE. One that began and failed is done again under the same epoch.
    pub(crate) fn change(&self, epoch: Epoch) -> ChangeVerdict {
        if epoch < self.epoch {
            ChangeVerdict::Fenced
        } else if epoch > self.applied {
            ChangeVerdict::Act
        } else {
            ChangeVerdict::Done
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        use ChangeVerdict as C;
        use WriteVerdict as W;
        let fence =
            |epoch, applied, tombstone| Fence { epoch: Epoch(epoch), applied: Epoch(applied), tombstone };
        for (f, with, write, change) in [
            (fence(0, 0, false), 0, W::Go, C::Done),
            (fence(0, 0, false), 1, W::Raise, C::Act),
            (fence(5, 5, false), 4, W::Fenced, C::Fenced),
            (fence(5, 5, false), 5, W::Go, C::Done),
            (fence(5, 5, false), 6, W::Raise, C::Act),
            // A change under way, or one that failed.
            (fence(5, 4, false), 4, W::Fenced, C::Fenced),
            (fence(5, 4, false), 5, W::Go, C::Act),
            (fence(5, 5, true), 4, W::Fenced, C::Fenced),
            (fence(5, 5, true), 5, W::Gone, C::Done),
            (fence(5, 5, true), 6, W::Gone, C::Act),
        ] {
            assert_eq!(f.write(Epoch(with)), write, "WRITE {with} at {f:?}");
            assert_eq!(f.change(Epoch(with)), change, "change {with} at {f:?}");
        }
    }
}
