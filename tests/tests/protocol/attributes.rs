//! GETATTR, SETATTR, ACCESS (RFC 1813 §3.3.1, §3.3.2, §3.3.4).

use slice_proto::nfs3::{NfsStat3, NfsTime3, Sattr3, StableHow, TimeHow, access};
use slice_tests::wire::answer::{true_wcc, unchanged};
use slice_tests::wire::stage::{owner, size, times};
use slice_tests::wire::{Expect, Stage, mode};

crate::claims![
    setattr_sets_each_attribute_alone,
    setattr_shows_the_file_before_and_after,
    setattr_of_nothing_changes_nothing_else,
    the_guard_lets_only_the_last_ctime_pass,
    times_keep_their_nanoseconds,
    servers_time_is_now,
    ctime_advances_with_every_change,
    setattr_of_a_directory_works,
    a_directory_has_no_size_to_set,
    every_object_has_one_file_system,
    root_may_do_everything_but_execute_data,
    access_asks_only_for_what_it_asks,
];

async fn setattr_sets_each_attribute_alone(s: Stage) {
    let file = s.file("f").await;
    s.c.setattr(&file, times(100, 200), None).await.good();
    let first = s.attr(&file).await;
    s.c.setattr(&file, mode(0o7510), None).await.good();
    s.c.setattr(&file, Sattr3 { uid: Some(5), ..Sattr3::default() }, None).await.good();
    s.c.setattr(&file, Sattr3 { gid: Some(6), ..Sattr3::default() }, None).await.good();
    let got = s.attr(&file).await;
    assert_eq!((got.uid, got.gid, got.mode & 0o777), (5, 6, 0o510));
    assert_eq!((got.atime, got.mtime, got.size), (first.atime, first.mtime, first.size));
    let only_mtime = Sattr3 { atime: TimeHow::DontChange, ..times(0, 333) };
    s.c.setattr(&file, only_mtime, None).await.good();
    let got = s.attr(&file).await;
    assert_eq!((got.atime.seconds, got.mtime.seconds), (100, 333));
    s.c.setattr(&file, Sattr3 { mtime: TimeHow::DontChange, ..times(444, 0) }, None).await.good();
    let got = s.attr(&file).await;
    assert_eq!((got.atime.seconds, got.mtime.seconds), (444, 333));
    s.c.setattr(&file, size(12_345), None).await.good();
    let got = s.attr(&file).await;
    assert_eq!((got.size, got.atime.seconds, got.uid, got.gid), (12_345, 444, 5, 6));
    assert!(got.mtime.seconds > 333, "a change of the size is a change of the data");
}

async fn setattr_shows_the_file_before_and_after(s: Stage) {
    let file = s.file("f").await;
    s.c.write(&file, 0, &[1; 70_000], StableHow::FileSync).await.good();
    let all = [mode(0o600), owner(3, 4), times(1, 2), size(100_000), size(10), size(0), Sattr3::default()];
    for attr in all {
        let before = s.attr(&file).await;
        let wcc = s.c.setattr(&file, attr, None).await.good();
        true_wcc(wcc, &before, &s.attr(&file).await);
    }
}

async fn setattr_of_nothing_changes_nothing_else(s: Stage) {
    let file = s.file("f").await;
    let before = s.attr(&file).await;
    s.c.setattr(&file, Sattr3::default(), None).await.good();
    let after = s.attr(&file).await;
    assert_eq!(
        (after.mode, after.uid, after.gid, after.size, after.atime, after.mtime, after.nlink),
        (before.mode, before.uid, before.gid, before.size, before.atime, before.mtime, before.nlink)
    );
}

async fn the_guard_lets_only_the_last_ctime_pass(s: Stage) {
    let file = s.file("f").await;
    let first = s.attr(&file).await.ctime;
    s.c.setattr(&file, mode(0o600), Some(first)).await.good();
    let now = s.attr(&file).await;
    unchanged(s.c.setattr(&file, mode(0o777), Some(first)).await.fails(NfsStat3::NOT_SYNC), &now);
    let early = NfsTime3 { nseconds: now.ctime.nseconds.wrapping_sub(1), ..now.ctime };
    unchanged(s.c.setattr(&file, size(100), Some(early)).await.fails(NfsStat3::NOT_SYNC), &now);
    assert_eq!(s.attr(&file).await, now);
    s.c.setattr(&file, mode(0o640), Some(now.ctime)).await.good();
    // A write moves ctime too.
    let before = s.attr(&file).await.ctime;
    s.c.write(&file, 0, b"x", StableHow::FileSync).await.good();
    s.c.setattr(&file, mode(0o777), Some(before)).await.fails(NfsStat3::NOT_SYNC);
}

async fn times_keep_their_nanoseconds(s: Stage) {
    let file = s.file("f").await;
    let extremes = [
        NfsTime3 { seconds: 0, nseconds: 0 },
        NfsTime3 { seconds: 0, nseconds: 1 },
        NfsTime3 { seconds: 1_700_000_000, nseconds: 123_456_789 },
        NfsTime3 { seconds: i32::MAX as u32, nseconds: 999_999_999 },
        NfsTime3 { seconds: u32::MAX, nseconds: 999_999_999 },
    ];
    for time in extremes {
        let attr = Sattr3 { atime: TimeHow::Client(time), mtime: TimeHow::Client(time), ..Sattr3::default() };
        s.c.setattr(&file, attr, None).await.good();
        let got = s.attr(&file).await;
        assert_eq!((got.atime, got.mtime), (time, time));
    }
}

async fn servers_time_is_now(s: Stage) {
    let file = s.file("f").await;
    s.c.setattr(&file, times(1, 1), None).await.good();
    let now = Sattr3 { atime: TimeHow::ServerTime, mtime: TimeHow::ServerTime, ..Sattr3::default() };
    s.c.setattr(&file, now, None).await.good();
    let got = s.attr(&file).await;
    let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for time in [got.atime, got.mtime] {
        // The same machine's clock: a day is beyond any doubt.
        assert!(u64::from(time.seconds).abs_diff(here) < 86_400, "{time:?}");
    }
}

/// DESIGN §8: Linux drops its cache only if ctime or size moved.
async fn ctime_advances_with_every_change(s: Stage) {
    let file = s.file("f").await;
    let mut last = s.attr(&file).await.ctime;
    let mut moved = async |what: &str| {
        let now = s.attr(&file).await.ctime;
        assert!(now > last, "{what} left ctime at {last:?}, or moved it back to {now:?}");
        last = now;
    };
    for round in 0..5 {
        s.c.setattr(&file, mode(0o600), None).await.good();
        moved("SETATTR mode").await;
        s.c.setattr(&file, times(round, round), None).await.good();
        moved("SETATTR times").await;
        for how in [StableHow::FileSync, StableHow::DataSync, StableHow::Unstable] {
            s.c.write(&file, 0, b"same", how).await.good();
            moved("WRITE").await;
        }
        s.c.setattr(&file, size(u64::from(round)), None).await.good();
        moved("SETATTR size").await;
        s.c.link(&file, &s.dir, b"l").await.good();
        moved("LINK").await;
        s.c.remove(&s.dir, b"l").await.good();
        moved("REMOVE").await;
    }
}

async fn setattr_of_a_directory_works(s: Stage) {
    let dir = s.subdir("d").await;
    s.c.setattr(&dir, Sattr3 { mode: Some(0o1730), uid: Some(9), gid: Some(8), ..times(70, 80) }, None)
        .await
        .good();
    let got = s.attr(&dir).await;
    assert_eq!((got.mode, got.uid, got.gid, got.atime.seconds, got.mtime.seconds), (0o1730, 9, 8, 70, 80));
    assert_eq!(got.nlink, 2);
}

async fn a_directory_has_no_size_to_set(s: Stage) {
    let dir = s.subdir("d").await;
    for to in [0, 1, 100_000] {
        s.c.setattr(&dir, size(to), None).await.fails_with(&[NfsStat3::ISDIR, NfsStat3::INVAL]);
    }
    s.file("f").await;
}

async fn every_object_has_one_file_system(s: Stage) {
    let want = s.attr(&s.root).await.fsid;
    for i in 0..10 {
        let (file, dir) = (s.file(&format!("f{i}")).await, s.subdir(&format!("d{i}")).await);
        assert_eq!((s.attr(&file).await.fsid, s.attr(&dir).await.fsid), (want, want));
    }
}

async fn root_may_do_everything_but_execute_data(s: Stage) {
    let (file, dir) = (s.file("f").await, s.subdir("d").await);
    s.c.setattr(&file, mode(0), None).await.good();
    s.c.setattr(&dir, mode(0), None).await.good();
    let data = access::READ | access::MODIFY | access::EXTEND;
    let on_file = s.access(&s.c, &file).await;
    assert_eq!(on_file & data, data);
    assert_eq!(on_file & access::EXECUTE, 0, "nobody executes what has no x");
    let all = access::READ | access::LOOKUP | access::MODIFY | access::EXTEND | access::DELETE;
    assert_eq!(s.access(&s.c, &dir).await & all, all);
    s.c.setattr(&file, mode(0o001), None).await.good();
    assert_ne!(s.access(&s.c, &file).await & access::EXECUTE, 0);
}

async fn access_asks_only_for_what_it_asks(s: Stage) {
    let dir = s.subdir("d").await;
    for bit in 0..6 {
        let ok = s.c.access(&dir, 1 << bit).await.good();
        assert_eq!(ok.access & !(1 << bit), 0);
        assert_eq!(ok.attr, Some(s.attr(&dir).await));
    }
    assert_eq!(s.c.access(&dir, 0).await.good().access, 0);
    assert_eq!(s.c.access(&dir, u32::MAX).await.good().access & !access::ALL, 0, "bits that no one knows");
}
