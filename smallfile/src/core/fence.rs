//! What an epoch may do to an object (I9).
//!
//! The home site hands out a new epoch only when every site under the file's reach has applied the TRUNCATE or PURGE that
//! made it; for a small-file site that is always. So whoever writes under a lower epoch than the object's may be late, and is
//! refused; whoever writes under a higher one writes to an object that has no record here yet.

use slice_proto::ids::Epoch;

/// What becomes of a WRITE or EXTEND.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteVerdict {
    /// It goes on, and its epoch is the object's from now on.
    Go,
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

/// Judges a WRITE or EXTEND under epoch `with` on an object of epoch `epoch`.
pub(crate) fn write(epoch: Epoch, tombstone: bool, with: Epoch) -> WriteVerdict {
    if with < epoch {
        WriteVerdict::Fenced
    } else if tombstone {
        WriteVerdict::Gone
    } else {
        WriteVerdict::Go
    }
}

/// Judges a TRUNCATE or PURGE. A truncate after a purge does not bring the object back.
pub(crate) fn change(epoch: Epoch, tombstone: bool, with: Epoch) -> ChangeVerdict {
    if with < epoch {
        ChangeVerdict::Fenced
    } else if with == epoch || tombstone {
        ChangeVerdict::Done
    } else {
        ChangeVerdict::Act
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        use ChangeVerdict as C;
        use WriteVerdict as W;
        for (epoch, tombstone, with, w, c) in [
            (0, false, 0, W::Go, C::Done),
            (0, false, 1, W::Go, C::Act),
            (5, false, 4, W::Fenced, C::Fenced),
            (5, false, 5, W::Go, C::Done),
            (5, false, 6, W::Go, C::Act),
            (5, true, 4, W::Fenced, C::Fenced),
            (5, true, 5, W::Gone, C::Done),
            (5, true, 6, W::Gone, C::Done),
        ] {
            assert_eq!(write(Epoch(epoch), tombstone, Epoch(with)), w, "WRITE {with} at {epoch}");
            assert_eq!(change(Epoch(epoch), tombstone, Epoch(with)), c, "change {with} at {epoch}");
        }
    }
}
