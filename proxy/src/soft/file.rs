//! What a µproxy knows of one file: what the home site last said of it, and what this µproxy has shown its client for
//! bytes that it wrote. Transitions only; no I/O.
//!
//! Three fields of a file's attributes may be ahead of the home site here, each under its own condition (I6):
//! the size while the file epoch stands, mtime while the set-attribute sequence stands, ctime always, because it only
//! ever advances. Within its condition each only grows, so patching attributes that pass through is taking the maximum,
//! whether they were made before or after a push.

use super::uncommitted::Uncommitted;
use slice_proto::ids::{AttrSeq, Epoch, FileId, TableEpoch};
use slice_proto::nfs3::{Fattr3, NfsTime3};
use slice_proto::peer::attrs::PushArgs;
use slice_proto::placement::THRESHOLD;
use slice_proto::trailer::Stamp;
use std::time::Duration;
use tokio::time::Instant;

/// Attributes older than this are not good enough for permission checks and WRITE replies (DESIGN §8).
pub const FRESH: Duration = Duration::from_secs(1);

/// `used` is the size rounded up to this, unless known better.
const USED_UNIT: u64 = 4096;

/// How far the small-file site knows that the file goes beyond the threshold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Beyond {
    /// It was not told in this epoch.
    #[default]
    Untold,
    /// It was told, and a COMMIT must follow.
    Told,
    /// It was told durably.
    Durable,
}

/// One file.
#[derive(Debug, Clone, Default)]
pub struct FileState {
    /// Attributes as the home site last said, and when.
    attr: Option<(Fattr3, Instant)>,
    /// How many names calls had taken away by then: see [`super::Soft::shown`].
    pub(super) taken: u64,
    /// A data server knew better: they must be fetched before they are used again.
    expired: bool,
    epoch: Epoch,
    seq: AttrSeq,
    reach: u64,
    /// Highest end written here in this epoch; 0 if none.
    own_end: u64,
    /// Modification time shown for writes here under this sequence, ns; 0 if none.
    own_mtime: u64,
    /// Change time shown for writes here, ns; 0 if none.
    own_ctime: u64,
    /// Counts writes; what is pushed trails behind.
    version: u64,
    pushed: u64,
    /// A write by another than root owes the clearing of set-id bits.
    clear_set_ids: bool,
    beyond: (Beyond, u64),
    /// Bytes at data sites that await a COMMIT.
    pub uncommitted: Uncommitted,
    /// Whether this µproxy wrote to the file since it knows it.
    pub written: bool,
    /// It stands in the queue of pushes.
    pub queued: bool,
    /// A record of uncommitted bytes may have been lost with an earlier eviction: COMMIT goes everywhere.
    pub forgotten: bool,
}

/// A push about to be sent, and what it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// The arguments.
    pub args: PushArgs,
    version: u64,
}

/// A write that is not registered yet: its end and time, for a push that goes beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrote {
    /// Epoch that it was written under.
    pub epoch: Epoch,
    /// Its end.
    pub end: u64,
    /// Its stamp, ns of ensemble time.
    pub time_ns: u64,
    /// It clears set-id bits.
    pub clear_set_ids: bool,
}

impl FileState {
    /// The epoch, if the home site has said it.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.attr.map(|_| self.epoch)
    }

    /// The reach known for [`FileState::epoch`]; every file has at least 64 KiB.
    #[must_use]
    pub fn reach(&self) -> u64 {
        self.reach.max(THRESHOLD)
    }

    /// Whether something is to be pushed.
    #[must_use]
    pub const fn is_dirty(&self) -> bool {
        self.version > self.pushed
    }

    /// Whether losing this record loses nothing but time.
    #[must_use]
    pub fn may_be_forgotten(&self) -> bool {
        !self.is_dirty() && self.uncommitted.is_empty()
    }

    /// Takes in attributes and their stamp, made at the home site just now. Older ones than those known change nothing; and
    /// where the reply may be one of before, given to a retransmission, the same ones do not make those known any fresher.
    pub fn absorb(&mut self, attr: &Fattr3, stamp: Stamp, (now, taken): (Instant, u64), replayed: bool) {
        self.absorb_stamp(stamp);
        let stale = stamp.epoch < self.epoch
            || stamp.seq < self.seq
            || self.attr.is_some_and(|(known, _)| {
                attr.ctime < known.ctime || (replayed && attr.ctime == known.ctime)
            });
        if !stale {
            self.attr = Some((*attr, now));
            self.taken = taken;
            self.expired = false;
        }
    }

    /// A data server knows a newer epoch: what is known here is not to be used.
    pub const fn expire(&mut self) {
        self.expired = true;
    }

    fn absorb_stamp(&mut self, stamp: Stamp) {
        if stamp.epoch > self.epoch {
            self.epoch = stamp.epoch;
            self.reach = 0;
            // What was written before the cut is cut.
            self.own_end = 0;
            self.beyond = Default::default();
        }
        if stamp.epoch == self.epoch {
            self.reach = self.reach.max(stamp.reach);
        }
        if stamp.seq > self.seq {
            self.seq = stamp.seq;
            // Somebody set the times after our writes.
            self.own_mtime = 0;
        }
    }

    /// The attributes, as this µproxy's client is to see them, if they were fetched at most [`FRESH`] ago.
    #[must_use]
    pub fn fresh(&self, now: Instant) -> Option<Fattr3> {
        let (attr, at) = self.attr?;
        (!self.expired && now.saturating_duration_since(at) <= FRESH)
            .then(|| self.patched(attr, self.epoch, self.seq))
    }

    /// Attributes with what was written here taken in. `epoch` and `seq` are those of their stamp.
    #[must_use]
    pub fn patched(&self, mut attr: Fattr3, epoch: Epoch, seq: AttrSeq) -> Fattr3 {
        if epoch == self.epoch && self.own_end > attr.size {
            attr.size = self.own_end;
            attr.used = attr.used.max(self.own_end.next_multiple_of(USED_UNIT));
        }
        if seq == self.seq && self.own_mtime != 0 {
            let own = NfsTime3::from_ns(self.own_mtime);
            // Only utimes puts mtime past ctime, and a write takes it back to now.
            attr.mtime = if attr.mtime > attr.ctime { own } else { attr.mtime.max(own) };
        }
        attr.ctime = attr.ctime.max(NfsTime3::from_ns(self.own_ctime));
        attr
    }

    /// Whether [`FileState::patched`] may change anything.
    #[must_use]
    pub const fn patches(&self) -> bool {
        self.own_ctime != 0
    }

    /// A size that the file has had in this epoch, in which it only grows: attributes of any age, and writes here.
    #[must_use]
    pub fn size_at_least(&self) -> u64 {
        self.attr.map_or(0, |(attr, _)| attr.size).max(self.own_end)
    }

    /// The next stamp for a write here: ensemble time, but after every change that was seen.
    #[must_use]
    pub fn next_stamp(&self, ensemble_ns: u64) -> u64 {
        let seen = self.attr.map_or(0, |(attr, _)| attr.ctime.as_ns()).max(self.own_ctime);
        ensemble_ns.max(seen.saturating_add(1))
    }

    /// A write succeeded. `covered` is the push that went beside it with [`FileState::push`] and was answered well.
    pub fn wrote(&mut self, write: Wrote, covered: Option<&Push>) {
        self.written = true;
        if write.epoch == self.epoch {
            self.own_end = self.own_end.max(write.end);
        }
        self.own_mtime = self.own_mtime.max(write.time_ns);
        self.own_ctime = self.own_ctime.max(write.time_ns);
        let was = self.version;
        self.version += 1;
        match covered {
            // Nothing was written beside it: the push had everything.
            Some(push) if push.version == was && !self.clear_set_ids => self.pushed = self.version,
            Some(_) => {}
            None => self.clear_set_ids |= write.clear_set_ids,
        }
    }

    /// What is to be pushed, and with it a write that is under way. Nothing to push only asks for the attributes: all its
    /// fields are zero, so that it is no change.
    #[must_use]
    pub fn push(&self, file: FileId, table: TableEpoch, with: Option<Wrote>) -> Push {
        let own = |value: u64| if self.is_dirty() { value } else { 0 };
        let with_end = with.filter(|w| w.epoch == self.epoch).map_or(0, |w| w.end);
        let with_time = with.map_or(0, |w| w.time_ns);
        let args = PushArgs {
            table,
            file,
            epoch: self.epoch,
            seq: self.seq,
            end: own(self.own_end).max(with_end),
            mtime_ns: own(self.own_mtime).max(with_time),
            ctime_ns: own(self.own_ctime).max(with_time),
            clear_set_ids: self.clear_set_ids || with.is_some_and(|w| w.clear_set_ids),
        };
        Push { args, version: self.version }
    }

    /// A push was answered well.
    pub fn pushed(&mut self, push: &Push) {
        self.pushed = self.pushed.max(push.version);
        if push.args.clear_set_ids && !self.is_dirty() {
            self.clear_set_ids = false;
        }
    }

    /// The file is gone: nothing of it is to be pushed or committed any more.
    pub fn gone(&mut self) {
        // The version goes on, so that a push under way does not count for what is written later.
        let Self { epoch, seq, version, queued, .. } = *self;
        *self = Self { epoch, seq, version, pushed: version, queued, ..Self::default() };
    }

    /// What the small-file site was told in this epoch; `life` changes when that server may have forgotten.
    #[must_use]
    pub fn beyond(&self, life: u64) -> Beyond {
        if self.beyond.1 == life { self.beyond.0 } else { Beyond::Untold }
    }

    /// The small-file site was told under `epoch`.
    pub fn told_beyond(&mut self, epoch: Epoch, how: Beyond, life: u64) {
        if epoch == self.epoch && how > self.beyond(life) {
            self.beyond = (how, life);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use slice_proto::nfs3::{FType3, SpecData3};

    const F: FileId = FileId(9);

    fn attr(size: u64, mtime: u64, ctime: u64) -> Fattr3 {
        Fattr3 {
            ftype: FType3::Reg,
            mode: 0o644,
            nlink: 1,
            uid: 1,
            gid: 1,
            size,
            used: size,
            rdev: SpecData3::default(),
            fsid: 1,
            fileid: F,
            atime: NfsTime3::default(),
            mtime: NfsTime3::from_ns(mtime),
            ctime: NfsTime3::from_ns(ctime),
        }
    }

    fn stamp(epoch: u64, seq: u64) -> Stamp {
        Stamp { file: F, epoch: Epoch(epoch), seq: AttrSeq(seq), reach: THRESHOLD }
    }

    fn write(epoch: u64, end: u64, time_ns: u64) -> Wrote {
        Wrote { epoch: Epoch(epoch), end, time_ns, clear_set_ids: false }
    }

    fn known() -> FileState {
        let mut f = FileState::default();
        f.absorb(&attr(10, 100, 100), stamp(1, 1), (Instant::now(), 0), false);
        f
    }

    fn shown(f: &FileState) -> (u64, u64, u64) {
        let a = f.fresh(Instant::now()).unwrap();
        (a.size, a.mtime.as_ns(), a.ctime.as_ns())
    }

    #[test]
    fn growth_and_times_are_shown_until_the_home_site_overrides_them() {
        let mut f = known();
        f.wrote(write(1, 500, 200), None);
        assert_eq!(shown(&f), (500, 200, 200));
        // An answer made before the write passes through afterwards.
        f.absorb(&attr(10, 100, 100), stamp(1, 1), (Instant::now(), 0), false);
        assert_eq!(shown(&f), (500, 200, 200));
        // Somebody's utimes: the times are theirs, growth and ctime stay.
        f.absorb(&attr(10, 50, 150), stamp(1, 2), (Instant::now(), 0), false);
        assert_eq!(shown(&f), (500, 50, 200));
        // Somebody's truncate: the growth is cut.
        f.absorb(&attr(3, 300, 300), stamp(2, 3), (Instant::now(), 0), false);
        assert_eq!(shown(&f), (3, 300, 300));
        // A late write of the old epoch changes times only.
        f.wrote(write(1, 900, 400), None);
        assert_eq!(shown(&f), (3, 400, 400));
        assert!(f.is_dirty());
    }

    #[test]
    fn a_write_takes_back_a_time_that_was_set_into_the_future() {
        let mut f = known();
        f.absorb(&attr(10, 9000, 150), stamp(1, 2), (Instant::now(), 0), false);
        assert_eq!(shown(&f), (10, 9000, 150));
        f.wrote(write(1, 5, 200), None);
        assert_eq!(shown(&f), (10, 200, 200), "before the home site knows");
        f.absorb(&attr(10, 200, 200), stamp(1, 2), (Instant::now(), 0), false);
        assert_eq!(shown(&f), (10, 200, 200));
        // And set into the future once more.
        f.absorb(&attr(10, 9000, 300), stamp(1, 3), (Instant::now(), 0), false);
        assert_eq!(shown(&f), (10, 9000, 300));
    }

    #[test]
    fn an_answer_given_again_makes_nothing_fresh() {
        let mut f = known();
        let later = Instant::now() + FRESH * 2;
        f.absorb(&attr(10, 100, 100), stamp(1, 1), (later, 0), true);
        assert_eq!(f.fresh(later), None);
        f.absorb(&attr(10, 100, 100), stamp(1, 1), (later, 0), false);
        assert!(f.fresh(later).is_some(), "asked for now, they are");
    }

    #[test]
    fn an_answer_overtaken_by_a_newer_one_is_ignored() {
        let mut f = known();
        f.absorb(&attr(20, 200, 200), stamp(2, 2), (Instant::now(), 0), false);
        f.absorb(&attr(10, 100, 100), stamp(1, 1), (Instant::now(), 0), false);
        f.absorb(&attr(10, 100, 150), stamp(2, 2), (Instant::now(), 0), false);
        assert_eq!(shown(&f), (20, 200, 200));
        assert_eq!(f.epoch(), Some(Epoch(2)));
    }

    #[test]
    fn a_push_covers_what_was_written_before_it() {
        let mut f = known();
        f.wrote(write(1, 500, 200), None);
        let first = f.push(F, TableEpoch(1), None);
        assert_eq!((first.args.end, first.args.mtime_ns), (500, 200));
        f.wrote(write(1, 600, 300), None);
        f.pushed(&first);
        assert!(f.is_dirty(), "the second write is not pushed");
        let second = f.push(F, TableEpoch(1), None);
        f.pushed(&second);
        f.pushed(&first);
        assert!(!f.is_dirty());
    }

    #[test]
    fn a_push_beside_a_write_covers_it_unless_another_came_between() {
        let mut f = known();
        let w = write(1, 500, 200);
        let push = f.push(F, TableEpoch(1), Some(w));
        assert_eq!((push.args.end, push.args.ctime_ns), (500, 200));
        f.pushed(&push);
        f.wrote(w, Some(&push));
        assert!(!f.is_dirty());
        let push = f.push(F, TableEpoch(1), Some(write(1, 700, 300)));
        f.wrote(write(1, 600, 250), None);
        f.pushed(&push);
        f.wrote(write(1, 700, 300), Some(&push));
        assert!(f.is_dirty());
    }

    #[test]
    fn stamps_advance_past_everything_seen() {
        let mut f = known();
        assert_eq!(f.next_stamp(50), 101);
        assert_eq!(f.next_stamp(5000), 5000);
        f.wrote(write(1, 1, 7000), None);
        assert_eq!(f.next_stamp(5000), 7001);
    }

    #[test]
    fn what_a_file_that_is_gone_owed_is_owed_no_more() {
        let mut f = known();
        f.wrote(write(1, 500, 200), None);
        let late = f.push(F, TableEpoch(1), None);
        f.gone();
        assert!(f.may_be_forgotten());
        f.pushed(&late);
        assert_eq!(f.push(F, TableEpoch(1), None).args.ctime_ns, 0, "nothing to push is no change");
        f.wrote(write(1, 600, 300), None);
        assert!(f.is_dirty());
    }

    #[test]
    fn the_small_site_is_told_again_in_another_epoch_or_life() {
        let mut f = known();
        assert_eq!(f.beyond(0), Beyond::Untold);
        f.told_beyond(Epoch(1), Beyond::Durable, 0);
        f.told_beyond(Epoch(1), Beyond::Told, 0);
        assert_eq!(f.beyond(0), Beyond::Durable);
        assert_eq!(f.beyond(1), Beyond::Untold);
        f.absorb(&attr(3, 300, 300), stamp(2, 3), (Instant::now(), 0), false);
        assert_eq!(f.beyond(0), Beyond::Untold);
    }

    proptest! {
        // Within one epoch a size, and always ctime, never goes backwards before the client, whatever order replies come in.
        #[test]
        fn nothing_shown_goes_backwards(steps in prop::collection::vec((any::<bool>(), 0u64..100, 1u64..100), 1..40)) {
            let mut f = known();
            let (mut home_size, mut last) = (10, shown(&f));
            for (ours, end, time) in steps {
                if ours {
                    f.wrote(write(1, end, f.next_stamp(time)), None);
                } else {
                    home_size = home_size.max(end);
                    // The home site's own ctime advances too; this answer may be an old one.
                    f.absorb(&attr(home_size, 100, 100 + time), stamp(1, 1), (Instant::now(), 0), false);
                }
                let now = shown(&f);
                prop_assert!(now.0 >= last.0 && now.2 >= last.2, "{last:?} then {now:?}");
                last = now;
            }
        }
    }
}
