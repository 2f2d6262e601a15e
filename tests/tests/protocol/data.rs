//! READ, WRITE, COMMIT and sizes (RFC 1813 §3.3.6, §3.3.7, §3.3.21; DESIGN §7): across the threshold, stripe units and
//! holes, as one server would answer.

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slice_proto::nfs3::{NfsStat3, StableHow};
use slice_tests::wire::content::{Content, MOST, THRESHOLD, UNIT, pattern, read, read_all};
use slice_tests::wire::stage::size;
use slice_tests::wire::{Expect, Stage, is_one_of};

crate::claims![
    an_empty_file_ends_at_once,
    writes_cross_every_boundary,
    reads_cross_every_boundary,
    holes_read_as_zeros,
    truncation_cuts_and_extends_at_every_boundary,
    what_was_cut_never_comes_back,
    the_end_of_file_is_told_exactly,
    a_count_of_zero_moves_nothing,
    more_than_may_be_read_is_read_in_part,
    a_write_that_lies_about_its_count_is_refused,
    promises_of_stability_are_kept,
    commit_and_write_have_one_verifier,
    commit_of_any_range_succeeds,
    a_write_shows_the_file_after,
    the_largest_file_is_as_large_as_fsinfo_says,
    past_the_largest_file_nothing_is,
    offsets_near_the_end_of_numbers_do_no_harm,
    parallel_writers_of_one_file_lose_nothing,
    random_operations_leave_the_right_bytes,
    other_types_are_not_read_or_written,
];

const HOWS: [StableHow; 3] = [StableHow::Unstable, StableHow::DataSync, StableHow::FileSync];

/// Offsets around every place where another server begins.
const EDGES: [u64; 5] = [THRESHOLD, UNIT, 2 * UNIT, 3 * UNIT, 4 * UNIT];

async fn an_empty_file_ends_at_once(s: Stage) {
    let file = s.file("f").await;
    for (offset, count) in [(0, 1), (0, MOST as u32), (100, 100), (THRESHOLD, 10), (10 * UNIT, 10), (0, 0)] {
        assert_eq!(read(&s.c, &file, offset, count).await, (Vec::new(), true), "{count} at {offset}");
    }
    s.c.commit(&file, 0, 0).await.good();
}

async fn writes_cross_every_boundary(s: Stage) {
    for (i, how) in HOWS.into_iter().enumerate() {
        let mut content = Content::new(s.file(&format!("f{i}")).await);
        for edge in EDGES {
            for (before, len) in [(1, 2), (3, 5000), (4097, 8191), (0, 1), (1, 1), (70_000, 140_001)] {
                content.write(&s.c, edge.saturating_sub(before), len, how).await;
            }
        }
        content.write(&s.c, 5, MOST, how).await;
        content.check(&s.c).await;
        s.c.commit(&content.file, 0, 0).await.good();
        content.check(&s.c).await;
    }
}

async fn reads_cross_every_boundary(s: Stage) {
    let mut content = Content::new(s.file("f").await);
    let end = 4 * UNIT + 12_345;
    let mut at = 0;
    while at < end {
        let len = (end - at).min(MOST as u64) as usize;
        content.write(&s.c, at, len, StableHow::Unstable).await;
        at += len as u64;
    }
    for edge in EDGES {
        for (before, count) in [(0, 1), (1, 1), (1, 2), (3, 9000), (70_001, 200_003), (4096, 8192)] {
            content.check_range(&s.c, edge.saturating_sub(before), count).await;
        }
        content.check_range(&s.c, edge - 17, MOST as u32).await;
    }
    content.check_range(&s.c, end - 1, 1).await;
    content.check_range(&s.c, end - 1, 2).await;
    content.check_range(&s.c, end - 70_000, MOST as u32).await;
}

async fn holes_read_as_zeros(s: Stage) {
    // One byte far out, with nothing before it; and the same with islands.
    for (i, at) in [THRESHOLD - 1, THRESHOLD, UNIT, 2 * UNIT + 77, 5 * UNIT - 1].into_iter().enumerate() {
        let mut content = Content::new(s.file(&format!("f{i}")).await);
        content.write(&s.c, at, 1, StableHow::FileSync).await;
        content.check(&s.c).await;
        content.write(&s.c, 4095, 2, StableHow::Unstable).await;
        content.write(&s.c, at / 2, 100, StableHow::Unstable).await;
        content.check(&s.c).await;
    }
    // And grown by SETATTR, so that no byte is anywhere.
    let mut content = Content::new(s.file("grown").await);
    for to in [1, 5000, THRESHOLD, THRESHOLD + 1, UNIT + 3, 3 * UNIT] {
        content.truncate(&s.c, to).await;
        content.check(&s.c).await;
    }
    content.write(&s.c, UNIT + 100, 50, StableHow::FileSync).await;
    content.check(&s.c).await;
}

async fn truncation_cuts_and_extends_at_every_boundary(s: Stage) {
    let mut content = Content::new(s.file("f").await);
    let sizes = [
        2 * UNIT + 5,
        UNIT,
        UNIT + 1,
        UNIT - 1,
        THRESHOLD + 1,
        THRESHOLD,
        THRESHOLD - 1,
        4096,
        1,
        0,
        THRESHOLD,
        3 * UNIT,
        100,
        2 * UNIT,
        0,
        5 * UNIT,
        THRESHOLD + 4096,
        4 * UNIT,
        1,
        UNIT,
    ];
    for (round, to) in sizes.into_iter().enumerate() {
        let how = HOWS[round % 3];
        // Something on both sides of the cut.
        content.write(&s.c, to.saturating_sub(3000), 6000, how).await;
        content.write(&s.c, 10, 500, how).await;
        content.truncate(&s.c, to).await;
        content.check(&s.c).await;
    }
}

async fn what_was_cut_never_comes_back(s: Stage) {
    for (i, cut) in
        [0, 1, 4096, 5000, THRESHOLD - 1, THRESHOLD, THRESHOLD + 1, UNIT, UNIT + 5000].into_iter().enumerate()
    {
        let mut content = Content::new(s.file(&format!("f{i}")).await);
        for (offset, len) in [(0, MOST), (UNIT, MOST), (2 * UNIT, 1000)] {
            content.write(&s.c, offset, len, HOWS[i % 3]).await;
        }
        content.truncate(&s.c, cut).await;
        // By SETATTR, and by a write beyond.
        if i % 2 == 0 {
            content.truncate(&s.c, 2 * UNIT + 1000).await;
        } else {
            content.write(&s.c, 2 * UNIT + 999, 1, StableHow::FileSync).await;
        }
        content.check(&s.c).await;
    }
}

async fn the_end_of_file_is_told_exactly(s: Stage) {
    for (i, len) in
        [1, 100, 4096, THRESHOLD - 1, THRESHOLD, THRESHOLD + 1, UNIT, UNIT + 1].into_iter().enumerate()
    {
        let mut content = Content::new(s.file(&format!("f{i}")).await);
        let first = (len as usize).min(MOST);
        content.write(&s.c, 0, first, StableHow::Unstable).await;
        if len as usize > MOST {
            content.write(&s.c, MOST as u64, len as usize - MOST, StableHow::Unstable).await;
        }
        for (offset, count) in [(0, 1), (len - 1, 1), (len - 1, 2), (len, 1), (len + 1, 1), (len + UNIT, 9)] {
            content.check_range(&s.c, offset, count).await;
        }
        if len <= MOST as u64 {
            content.check_range(&s.c, 0, len as u32).await;
            content.check_range(&s.c, 0, len as u32 - 1).await;
        }
    }
}

async fn a_count_of_zero_moves_nothing(s: Stage) {
    let mut content = Content::new(s.file("f").await);
    content.write(&s.c, 0, 100_000, StableHow::FileSync).await;
    for offset in [0, 5, THRESHOLD, 99_999, 100_000, 100_001, UNIT] {
        let ok = s.c.write(&content.file, offset, b"", StableHow::FileSync).await.good();
        assert_eq!(ok.count, 0);
        let got = s.c.read(&content.file, offset, 0).await.good();
        assert!(got.data.is_empty());
        assert!(!got.eof || offset >= content.size(), "nothing read before the end is not the end");
    }
    content.check(&s.c).await;
}

async fn more_than_may_be_read_is_read_in_part(s: Stage) {
    let mut content = Content::new(s.file("f").await);
    content.write(&s.c, 0, MOST, StableHow::Unstable).await;
    content.write(&s.c, UNIT, MOST, StableHow::Unstable).await;
    for count in [MOST as u32 + 1, 8 << 20, u32::MAX] {
        let got = s.c.read(&content.file, 0, count).await.good();
        assert!(!got.data.is_empty() && !got.eof, "{} bytes of {count}", got.data.len());
        assert!(got.data == content.bytes[..got.data.len()]);
        let got = s.c.read(&content.file, UNIT + 5, count).await.good();
        assert!(got.eof && got.data == content.bytes[UNIT as usize + 5..]);
    }
}

async fn a_write_that_lies_about_its_count_is_refused(s: Stage) {
    use slice_proto::nfs3::{Proc3, WriteArgs, WriteRes};
    let file = s.file("f").await;
    for count in [0_u32, 9, 11, 100_000, u32::MAX] {
        let args = WriteArgs {
            file: file.as_slice(),
            offset: 0,
            count,
            stable: StableHow::FileSync,
            data: &[1; 10],
        };
        match s.c.start(Proc3::Write, &args).reply().await {
            Ok(reply) => match reply.decode::<WriteRes>().unwrap() {
                // Fewer bytes than came are meant: as many as both say.
                slice_proto::nfs3::Res3::Ok(ok) => assert!(ok.count <= count.min(10), "{count}: {ok:?}"),
                slice_proto::nfs3::Res3::Err(status, _) => {
                    is_one_of(status, &[NfsStat3::INVAL, NfsStat3::IO])
                }
            },
            Err(slice_load::Error::Rpc(status)) => {
                assert_eq!(status, slice_proto::rpc_msg::ReplyStatus::GarbageArgs);
            }
            Err(error) => panic!("{error}"),
        }
        assert!(s.attr(&file).await.size <= 10);
    }
    s.c.write(&file, 0, b"fine", StableHow::FileSync).await.good();
}

async fn promises_of_stability_are_kept(s: Stage) {
    for (i, at) in [0, THRESHOLD - 5, THRESHOLD, UNIT - 5].into_iter().enumerate() {
        let file = s.file(&format!("f{i}")).await;
        for how in HOWS {
            let ok = s.c.write(&file, at, &[3; 100], how).await.good();
            assert_eq!(ok.count, 100);
            assert!(ok.committed >= how, "asked for {how:?}, got {:?} at {at}", ok.committed);
        }
    }
}

/// I7: verifiers that differ make clients write for ever.
async fn commit_and_write_have_one_verifier(s: Stage) {
    let mut first = None;
    for (i, (offset, len)) in
        [(0, 10), (THRESHOLD, 10), (0, MOST), (UNIT - 3, 70_000)].into_iter().enumerate()
    {
        let mut content = Content::new(s.file(&format!("f{i}")).await);
        for how in HOWS {
            let wrote = content.write(&s.c, offset, len, how).await;
            let committed = s.c.commit(&content.file, 0, 0).await.good();
            let again = s.c.commit(&content.file, 0, 0).await.good();
            let one = *first.get_or_insert(committed.verf);
            assert!(
                wrote.iter().chain([&committed.verf, &again.verf]).all(|v| *v == one),
                "no server has restarted"
            );
        }
    }
}

async fn commit_of_any_range_succeeds(s: Stage) {
    let mut content = Content::new(s.file("f").await);
    content.write(&s.c, 0, MOST, StableHow::Unstable).await;
    content.write(&s.c, UNIT, MOST, StableHow::Unstable).await;
    for (offset, count) in
        [(0, 1), (5, 100_000), (UNIT, 0), (50 * UNIT, 10), (0, u32::MAX), (u64::MAX, u32::MAX), (0, 0)]
    {
        let ok = s.c.commit(&content.file, offset, count).await.good();
        assert_eq!(ok.wcc.after.map(|a| a.size), Some(content.size()), "COMMIT shows the file");
    }
    content.check(&s.c).await;
    let dir = s.subdir("d").await;
    s.c.commit(&dir, 0, 0).await.fails_with(&[NfsStat3::INVAL, NfsStat3::ISDIR]);
}

async fn a_write_shows_the_file_after(s: Stage) {
    let file = s.file("f").await;
    let mut size = 0;
    for (round, offset) in [0, 100, THRESHOLD, UNIT, 10, 3 * UNIT].into_iter().enumerate() {
        for how in HOWS {
            let before = s.attr(&file).await;
            let ok = s.c.write(&file, offset, &[7; 1000], how).await.good();
            size = size.max(offset + 1000);
            let shown = ok.wcc.after.expect("wcc data on every mutating reply");
            let after = s.attr(&file).await;
            assert_eq!((shown.size, after.size), (size, size), "round {round}");
            assert!(after.mtime > before.mtime && after.ctime > before.ctime, "{before:?} {after:?}");
            assert_eq!(
                (shown.mtime, shown.ctime),
                (after.mtime, after.ctime),
                "what was shown stays what is seen"
            );
            if let Some(told) = ok.wcc.before {
                assert_eq!(told, before.wcc());
            }
        }
    }
}

async fn the_largest_file_is_as_large_as_fsinfo_says(s: Stage) {
    let most = s.c.fsinfo(&s.root).await.good().maxfilesize;
    let file = s.file("f").await;
    for at in [most - 1, most / 2, most - 100_000, 1 << 40, 1 << 32] {
        let ok = s.c.write(&file, at, b"x", StableHow::FileSync).await.good();
        assert_eq!(ok.count, 1);
        assert_eq!(read(&s.c, &file, at, 1).await.0, b"x");
        assert_eq!(read(&s.c, &file, at - 10, 10).await.0, [0; 10]);
    }
    assert_eq!(s.attr(&file).await.size, most);
    assert_eq!(read(&s.c, &file, most - 1, 100).await, (b"x".to_vec(), true));
    assert_eq!(read(&s.c, &file, 0, 1000).await, (vec![0; 1000], false));
    s.c.setattr(&file, size(5), None).await.good();
    assert_eq!(read(&s.c, &file, 0, 1000).await, (vec![0; 5], true));
    s.c.setattr(&file, size(most), None).await.good();
    assert_eq!(read(&s.c, &file, most - 1, 100).await, (vec![0], true), "what was cut does not come back");
    s.c.remove(&s.dir, b"f").await.good();
}

async fn past_the_largest_file_nothing_is(s: Stage) {
    let most = s.c.fsinfo(&s.root).await.good().maxfilesize;
    let file = s.file("f").await;
    let refusals = [NfsStat3::FBIG, NfsStat3::INVAL];
    for at in [most, most + 1, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX] {
        s.c.write(&file, at, b"xy", StableHow::FileSync).await.fails_with(&refusals);
    }
    for to in [most + 1, 1 << 63, u64::MAX] {
        s.c.setattr(&file, size(to), None).await.fails_with(&refusals);
    }
    // What crosses the end is refused, or written as far as it goes.
    match s.c.write(&file, most - 1, b"xy", StableHow::FileSync).await.unwrap() {
        slice_proto::nfs3::Res3::Ok(ok) => assert_eq!(ok.count, 1),
        slice_proto::nfs3::Res3::Err(status, _) => {
            is_one_of(status, &refusals);
            assert_eq!(s.attr(&file).await.size, 0);
        }
    }
}

async fn offsets_near_the_end_of_numbers_do_no_harm(s: Stage) {
    let mut content = Content::new(s.file("f").await);
    content.write(&s.c, 0, 100_000, StableHow::FileSync).await;
    for offset in [1 << 62, (1 << 63) - 1, 1 << 63, u64::MAX - 5, u64::MAX] {
        for count in [0, 1, 10, MOST as u32] {
            match s.c.read(&content.file, offset, count).await.unwrap() {
                slice_proto::nfs3::Res3::Ok(got) => {
                    assert!(got.data.is_empty() && got.eof, "{count} at {offset}")
                }
                slice_proto::nfs3::Res3::Err(status, _) => {
                    is_one_of(status, &[NfsStat3::INVAL, NfsStat3::FBIG])
                }
            }
        }
        s.c.commit(&content.file, offset, 10).await.good();
    }
    content.check(&s.c).await;
}

async fn parallel_writers_of_one_file_lose_nothing(s: Stage) {
    const PART: usize = 37_000;
    const PARTS: u64 = 64;
    let file = s.file("f").await;
    let clients = join_all((0..4).map(|_| s.connect())).await;
    // Far end first for half of them: the file's end moves under everyone.
    let writes = (0..PARTS).map(async |i| {
        let c = &clients[i as usize % clients.len()];
        let part = if i % 2 == 0 { i } else { PARTS - i };
        let at = part * PART as u64;
        let ok = c.write(&file, at, &pattern(7, at, PART), HOWS[i as usize % 3]).await.good();
        assert_eq!(ok.count as usize, PART);
    });
    join_all(writes).await;
    let end = PARTS * PART as u64;
    assert_eq!(s.attr(&file).await.size, end);
    s.c.commit(&file, 0, 0).await.good();
    assert!(read_all(&s.c, &file, 0, end).await == pattern(7, 0, end as usize));
}

async fn random_operations_leave_the_right_bytes(s: Stage) {
    for seed in [1, 2] {
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut content = Content::new(s.file(&format!("f{seed}")).await);
        for _ in 0..80 {
            let near = [0, THRESHOLD, UNIT, 2 * UNIT][rng.random_range(0..4)] + rng.random_range(0..20_000);
            let at = if rng.random() { near } else { near.saturating_sub(20_000) };
            let len = [1, 100, 5000, 70_000, 400_000][rng.random_range(0..5)];
            match rng.random_range(0..10) {
                0..6 => {
                    content.write(&s.c, at, len, HOWS[rng.random_range(0..3)]).await;
                }
                6 | 7 => content.truncate(&s.c, at).await,
                8 => {
                    s.c.commit(&content.file, 0, 0).await.good();
                }
                _ => content.check_range(&s.c, at, len as u32).await,
            }
        }
        content.check(&s.c).await;
    }
}

async fn other_types_are_not_read_or_written(s: Stage) {
    let dir = s.subdir("d").await;
    let link = s.c.symlink(&s.dir, b"l", Default::default(), b"target").await.good().object.unwrap();
    for (object, refusals) in [(dir, [NfsStat3::ISDIR, NfsStat3::INVAL]), (link, [NfsStat3::INVAL; 2])] {
        s.c.read(&object, 0, 10).await.fails_with(&refusals);
        s.c.write(&object, 0, b"x", StableHow::FileSync).await.fails_with(&refusals);
        s.c.write(&object, UNIT, b"x", StableHow::FileSync).await.fails_with(&refusals);
    }
}
