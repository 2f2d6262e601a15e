//! PUSH and RAISE_REACH: what a µproxy tells of a file it writes (DESIGN §8; I5, I6).

use crate::records::{AttrRec, S_ISGID, S_ISUID, S_IXGRP};
use slice_proto::nfs3::FType3;
use slice_proto::peer::attrs::{PushArgs, RaiseArgs};

/// The record after a push; `None` if it changes nothing: who only asks. One that comes twice, or late, moves ctime alone.
/// Judged per field: the size by the file epoch, times by the set-attribute sequence.
pub(crate) fn push(rec: &AttrRec, p: &PushArgs) -> Option<AttrRec> {
    if rec.ftype != FType3::Reg {
        return None;
    }
    let mut new = rec.clone();
    if p.epoch == rec.epoch {
        new.size = rec.size.max(p.end);
    }
    let timely = p.seq == rec.seq;
    if timely && p.mtime_ns != 0 {
        // A write sets mtime to now, also where utimes had put it into the future; among writers the latest counts.
        new.mtime_ns = if rec.mtime_set { p.mtime_ns } else { rec.mtime_ns.max(p.mtime_ns) };
        new.mtime_set = false;
    }
    if p.clear_set_ids {
        new.mode &= !S_ISUID;
        if rec.mode & S_IXGRP != 0 {
            new.mode &= !S_ISGID;
        }
    }
    let changed = new != *rec;
    // A write that changes nothing else has changed bytes: whoever keeps old ones must see another ctime, also where this µproxy's
    // clock is behind another's, or somebody set attributes meanwhile. Two µproxies may stamp alike, so a push that comes twice counts
    // twice: somebody looks again in vain.
    if !changed && p.ctime_ns == 0 {
        return None;
    }
    // What the writer was shown stays what it sees; and ctime rises with every change whatever the clocks say.
    new.ctime_ns = rec.next_ctime(p.ctime_ns);
    Some(new)
}

/// The record with the reach raised; `None` if it is high enough, or the epoch is another.
pub(crate) fn raise(rec: &AttrRec, r: &RaiseArgs) -> Option<AttrRec> {
    (rec.ftype == FType3::Reg && r.epoch == rec.epoch && r.reach > rec.reach)
        .then(|| AttrRec { reach: r.reach, ..rec.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_proto::ids::{AttrSeq, Epoch, FileId, TableEpoch, VolumeId};

    fn rec() -> AttrRec {
        AttrRec::new(FType3::Reg, VolumeId(0), 0, 0o6775, 1, 1, 1000)
    }

    fn args() -> PushArgs {
        PushArgs {
            table: TableEpoch(1),
            file: FileId(1),
            epoch: Epoch(1),
            seq: AttrSeq(1),
            end: 10,
            mtime_ns: 2000,
            ctime_ns: 2000,
            clear_set_ids: false,
        }
    }

    #[test]
    fn a_push_that_comes_twice_moves_ctime_alone() {
        let after = push(&rec(), &args()).unwrap();
        assert_eq!((after.size, after.mtime_ns, after.ctime_ns), (10, 2000, 2000));
        assert_eq!(push(&after, &args()), Some(AttrRec { ctime_ns: 2001, ..after }));
    }

    #[test]
    fn a_late_push_undoes_no_truncate_and_no_utimes_but_loses_no_growth() {
        let mut r = rec();
        r.epoch = Epoch(2);
        let after = push(&r, &args()).unwrap();
        assert_eq!(
            (after.size, after.mtime_ns),
            (0, 2000),
            "the size is of another epoch, the times are not"
        );
        let mut r = rec();
        r.seq = AttrSeq(2);
        r.mtime_ns = 5000;
        r.ctime_ns = 6000;
        let after = push(&r, &args()).unwrap();
        assert_eq!((after.size, after.mtime_ns, after.ctime_ns), (10, 5000, 6001));
    }

    #[test]
    fn a_write_after_utimes_moves_mtime_back_to_now() {
        let mut r = rec();
        r.mtime_ns = 9_000_000;
        r.mtime_set = true;
        let after = push(&r, &args()).unwrap();
        assert_eq!((after.mtime_ns, after.mtime_set), (2000, false));
        let mut earlier = args();
        earlier.mtime_ns = 1500;
        assert_eq!(push(&after, &earlier).unwrap().mtime_ns, 2000);
    }

    #[test]
    fn a_write_that_changes_nothing_but_bytes_shows_in_ctime() {
        let mut r = rec();
        (r.size, r.mtime_ns, r.ctime_ns) = (10, 9000, 9000);
        let after = push(&r, &args()).unwrap();
        assert_eq!(
            (after.size, after.mtime_ns, after.ctime_ns),
            (10, 9000, 9001),
            "by a clock that is behind"
        );
        r.seq = AttrSeq(2);
        assert_eq!(push(&r, &args()).unwrap().ctime_ns, 9001, "before another set attributes, told after it");
        r.ctime_ns = 2000;
        assert_eq!(push(&r, &args()).unwrap().ctime_ns, 2001, "the other's ctime is by chance the write's");
        r.ctime_ns = 1500;
        assert_eq!(push(&r, &args()).unwrap().ctime_ns, 2000, "and what the writer was shown stays");
        let asks = PushArgs { end: 0, mtime_ns: 0, ctime_ns: 0, ..args() };
        assert_eq!(push(&r, &asks), None, "who only asks changes nothing");
    }

    #[test]
    fn a_strangers_write_clears_set_ids() {
        let mut p = args();
        p.clear_set_ids = true;
        assert_eq!(push(&rec(), &p).unwrap().mode, 0o775);
        let mut locking = rec();
        locking.mode = 0o6765 & !S_IXGRP;
        assert_eq!(
            push(&locking, &p).unwrap().mode & 0o7000,
            S_ISGID,
            "without group execute it is no set-id bit"
        );
    }

    #[test]
    fn reach_only_rises_and_only_in_its_epoch() {
        let raise_to =
            |reach, epoch| RaiseArgs { table: TableEpoch(1), file: FileId(1), epoch: Epoch(epoch), reach };
        assert_eq!(raise(&rec(), &raise_to(1 << 20, 1)).unwrap().reach, 1 << 20);
        assert_eq!(raise(&rec(), &raise_to(1, 1)), None);
        assert_eq!(raise(&rec(), &raise_to(1 << 20, 2)), None);
    }
}
