//! What an effect makes of a record: relative to what the record is, so that it is right whenever it arrives.

use crate::records::{AttrRec, Purge};
use slice_proto::ids::Epoch;
use slice_proto::nfs3::FType3;
use slice_proto::peer::dir::AttrEffect;

/// A record after an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum After {
    /// It stays, changed.
    Stays(AttrRec),
    /// It goes; a regular file's bytes are to be purged.
    Goes(Option<Purge>),
}

/// Applies an effect.
pub(crate) fn apply(rec: &AttrRec, e: &AttrEffect) -> After {
    if e.remove {
        return After::Goes(None);
    }
    // Effects of those who share a directory come in any order: a removal's before the creation's that it removes. So
    // counts go below nothing and come back; whoever judges them holds the record alone, when none is on its way.
    let nlink = rec.nlink.wrapping_add_signed(e.nlink);
    if nlink == 0 && e.nlink < 0 && !rec.is_dir() {
        // The epoch of the last link's removal fences whatever is still on its way (I9).
        let purge = Purge { epoch: Epoch(rec.epoch.0 + 1), reach: rec.reach };
        return After::Goes((rec.ftype == FType3::Reg).then_some(purge));
    }
    let mut ctime_ns = rec.next_ctime(e.now_ns);
    if e.base_ns != 0 && e.base_ns != rec.ctime_ns {
        // Others have changed it since it was shown. What the reply shows never was: go past it, so that the client, which
        // takes it for the outcome of its change alone, looks again.
        let shown = e.now_ns.max(e.base_ns.saturating_add(1));
        ctime_ns = ctime_ns.max(shown).saturating_add(1);
    }
    After::Stays(AttrRec {
        nlink,
        ctime_ns,
        mtime_ns: if e.mtime { ctime_ns } else { rec.mtime_ns },
        entries: rec.entries.wrapping_add_signed(i64::from(e.entries)),
        parent: e.parent.unwrap_or(rec.parent),
        ..rec.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::super::touch;
    use super::*;
    use proptest::prelude::*;
    use slice_proto::ids::{FileId, VolumeId};

    #[test]
    fn ctime_advances_whatever_the_clock_says() {
        let rec = AttrRec::new(FType3::Dir, VolumeId(0), 0, 0o755, 0, 0, 1000);
        let mut e = touch(FileId(1), 500);
        e.mtime = true;
        let After::Stays(after) = apply(&rec, &e) else { panic!() };
        assert_eq!((after.ctime_ns, after.mtime_ns), (1001, 1001));
    }

    #[test]
    fn what_was_shown_beside_others_changes_is_gone_past() {
        let rec = AttrRec::new(FType3::Dir, VolumeId(0), 0, 0o755, 0, 0, 1000);
        let shared = |now_ns| {
            let mut e = touch(FileId(1), now_ns);
            (e.mtime, e.entries, e.base_ns) = (true, 1, rec.ctime_ns);
            e
        };
        let After::Stays(one) = apply(&rec, &shared(2000)) else { panic!() };
        assert_eq!(one.ctime_ns, 2000, "alone, it is as it was shown");
        for now in [1500, 2000, 2500] {
            let After::Stays(two) = apply(&one, &shared(now)) else { panic!() };
            assert!(two.ctime_ns > now && two.ctime_ns > one.ctime_ns, "{now}");
            assert_eq!(two.entries, 2);
        }
    }

    proptest! {
        #[test]
        fn the_order_of_effects_on_a_directory_does_not_matter(
            effects in proptest::collection::vec((-1i32..=1, -1i32..=1), 0..12),
            order in any::<proptest::sample::Index>(),
        ) {
            let rec = AttrRec::new(FType3::Dir, VolumeId(0), 0, 0o755, 0, 0, 1000);
            let run = |effects: &[(i32, i32)]| effects.iter().fold(rec.clone(), |rec, (entries, nlink)| {
                let mut e = touch(FileId(1), 500);
                (e.entries, e.nlink) = (*entries, *nlink);
                let After::Stays(next) = apply(&rec, &e) else { panic!() };
                assert!(next.shown_nlink() >= 2 && next.shown_nlink() < 100);
                next
            });
            let mut turned = effects.clone();
            turned.rotate_left(if effects.is_empty() { 0 } else { order.index(effects.len()) });
            turned.reverse();
            let (one, two) = (run(&effects), run(&turned));
            prop_assert_eq!((one.entries, one.nlink), (two.entries, two.nlink));
            let sum: i64 = effects.iter().map(|e| i64::from(e.0)).sum();
            prop_assert_eq!(one.entries.cast_signed(), sum);
        }
    }

    #[test]
    fn the_last_link_takes_the_record_with_it() {
        let mut rec = AttrRec::new(FType3::Reg, VolumeId(0), 0, 0o644, 0, 0, 1000);
        rec.nlink = 2;
        let mut e = touch(FileId(1), 2000);
        e.nlink = -1;
        let After::Stays(one) = apply(&rec, &e) else { panic!() };
        assert_eq!(one.nlink, 1);
        assert_eq!(apply(&one, &e), After::Goes(Some(Purge { epoch: Epoch(2), reach: rec.reach })));
        let fifo = AttrRec::new(FType3::Fifo, VolumeId(0), 0, 0o644, 0, 0, 1000);
        assert_eq!(apply(&fifo, &e), After::Goes(None));
    }
}
