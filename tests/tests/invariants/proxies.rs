//! I5, I6, I9: two µproxies on the same files.

use futures_util::join;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slice_load::Client;
use slice_load::client::Fh;
use slice_proto::nfs3::StableHow;
use slice_tests::ensemble::{Ensemble, Layout, Policy};
use slice_tests::process::Process;
use slice_tests::wire::content::{THRESHOLD, UNIT, pattern, read_all, write_all};
use slice_tests::wire::stage::{create, list_plus, size, times};
use slice_tests::wire::{self, Expect, mode};

use super::{check, connect, root, start};

/// An ensemble with two µproxies.
struct Two {
    ensemble: Ensemble,
    other: u16,
    _second: Process,
}

fn two(name: &str, layout: Layout) -> Two {
    let ensemble = start(name, Policy::Hash, layout);
    let (second, other) = ensemble.second_proxy().unwrap();
    Two { ensemble, other, _second: second }
}

impl Two {
    async fn clients(&self) -> (Client, Client, Fh) {
        let (a, b) = (connect(self.ensemble.port()).await, connect(self.other).await);
        let top = root(&a).await;
        assert_eq!(root(&b).await, top);
        (a, b, top)
    }
}

/// I5: after COMMIT, or a stable WRITE, whoever asks any µproxy sees the new size.
#[test]
fn after_commit_every_proxy_sees_the_size() {
    let two = two("close-to-open", Layout::Separate);
    wire::run(async {
        let (a, b, top) = two.clients().await;
        for (i, end) in
            [1, 100, THRESHOLD, THRESHOLD + 1, UNIT - 1, UNIT + 1, 3 * UNIT].into_iter().enumerate()
        {
            for how in [StableHow::Unstable, StableHow::DataSync, StableHow::FileSync] {
                let name = format!("f{i}-{how:?}");
                let file = create(&a, &top, &name, 0o644).await;
                // The other µproxy has seen it empty, and has its attributes.
                assert_eq!(b.getattr(&file).await.good().size, 0);
                assert_eq!(b.read(&file, 0, 10).await.good().data, "");
                let (from, data) = (end - end.min(5000), pattern(i as u64, 0, end.min(5000) as usize));
                write_all(&a, &file, from, &data, how).await;
                if how == StableHow::Unstable {
                    a.commit(&file, 0, 0).await.good();
                }
                let seen = b.getattr(&file).await.good();
                assert_eq!(seen.size, end, "{name}");
                assert_eq!(seen, a.getattr(&file).await.good(), "both show the same");
                assert!(read_all(&b, &file, from, 10_000).await == data, "{name}");
                let listed = list_plus(&b, &top, 32_768).await;
                let entry = listed.into_iter().find(|e| e.name == name.as_bytes()).unwrap();
                assert!(entry.attr.is_none_or(|attr| attr.size == end));
            }
        }
    });
    check(&two.ensemble);
}

/// I6: growth that is pushed late does not undo a truncation by another; and growth after it is not lost.
#[test]
fn a_late_push_undoes_no_truncation() {
    let two = two("late-size", Layout::OneProcess);
    wire::run(async {
        let (a, b, top) = two.clients().await;
        for (i, cut) in [0, 10, THRESHOLD, THRESHOLD + 9, UNIT].into_iter().enumerate() {
            let end = 2 * UNIT + 777;
            let file = create(&a, &top, &format!("f{i}"), 0o644).await;
            write_all(&a, &file, 0, &pattern(1, 0, end as usize), StableHow::Unstable).await;
            b.setattr(&file, size(cut), None).await.good();
            a.commit(&file, 0, 0).await.good();
            for (c, who) in [(&b, "who cut it"), (&a, "who wrote it")] {
                assert_eq!(c.getattr(&file).await.good().size, cut, "seen by {who}");
                assert_eq!(read_all(c, &file, 0, end).await.len() as u64, cut);
            }
            // What comes after the truncation counts.
            a.write(&file, cut + 5, b"after", StableHow::Unstable).await.good();
            a.commit(&file, 0, 0).await.good();
            assert_eq!(b.getattr(&file).await.good().size, cut + 10);
            b.setattr(&file, size(end), None).await.good();
            let bytes = read_all(&b, &file, 0, end).await;
            assert!(bytes[..cut as usize] == pattern(1, 0, cut as usize));
            assert_eq!(bytes[cut as usize..cut as usize + 10], *b"\0\0\0\0\0after");
            assert!(bytes[cut as usize + 10..].iter().all(|b| *b == 0), "cut bytes came back");
        }
    });
    check(&two.ensemble);
}

/// I9: who writes after another's truncation, and does not know of it, is fenced and comes again: its bytes and its growth
/// stand under the new epoch, at every kind of data server.
#[test]
fn a_write_that_knows_of_no_truncation_still_counts() {
    let two = two("unknowing", Layout::Separate);
    wire::run(async {
        let (a, b, top) = two.clients().await;
        let places =
            [(0, 100), (THRESHOLD - 50, 100), (THRESHOLD + 9, 5000), (UNIT - 50, 100), (2 * UNIT, 1000)];
        for (i, (at, len)) in places.into_iter().enumerate() {
            for how in [StableHow::Unstable, StableHow::FileSync] {
                let file = create(&a, &top, &format!("f{i}-{how:?}"), 0o644).await;
                let end = 2 * UNIT + 7000;
                write_all(&a, &file, 0, &pattern(1, 0, end as usize), StableHow::FileSync).await;
                for (round, cut) in [(2, 0), (3, 10), (4, at.min(UNIT))] {
                    b.setattr(&file, size(cut), None).await.good();
                    write_all(&a, &file, at, &pattern(round, at, len), how).await;
                    if how == StableHow::Unstable {
                        a.commit(&file, 0, 0).await.good();
                    }
                    let size = at + len as u64;
                    assert_eq!(
                        b.getattr(&file).await.good().size,
                        size.max(cut),
                        "growth after a cut to {cut}"
                    );
                    assert_eq!(a.getattr(&file).await.good().size, size.max(cut));
                    for c in [&a, &b] {
                        assert!(read_all(c, &file, at, len as u64).await == pattern(round, at, len));
                        let hole = read_all(c, &file, cut, at.saturating_sub(cut)).await;
                        assert!(hole.iter().all(|b| *b == 0), "cut bytes came back");
                    }
                }
            }
        }
    });
    check(&two.ensemble);
}

/// I6: times that are pushed late do not undo a utimes by another.
#[test]
fn a_late_push_undoes_no_utimes() {
    let two = two("late-times", Layout::OneProcess);
    wire::run(async {
        let (a, b, top) = two.clients().await;
        for i in 0..6 {
            let file = create(&a, &top, &format!("f{i}"), 0o644).await;
            a.write(&file, i * 50_000, b"data", StableHow::Unstable).await.good();
            b.setattr(&file, times(111, 222), None).await.good();
            a.commit(&file, 0, 0).await.good();
            for c in [&a, &b] {
                let attr = c.getattr(&file).await.good();
                assert_eq!((attr.atime.seconds, attr.mtime.seconds), (111, 222));
                assert_eq!(attr.size, i * 50_000 + 4, "growth is not lost");
            }
            // A write after it does move mtime.
            a.write(&file, 0, b"more", StableHow::FileSync).await.good();
            assert!(b.getattr(&file).await.good().mtime.seconds > 1_600_000_000);
        }
    });
    check(&two.ensemble);
}

/// ctime moves with every change, whichever µproxy it goes through.
#[test]
fn ctime_advances_through_both() {
    let two = two("ctime", Layout::OneProcess);
    wire::run(async {
        let (a, b, top) = two.clients().await;
        let file = create(&a, &top, "f", 0o644).await;
        let mut last = a.getattr(&file).await.good().ctime;
        for round in 0..20 {
            let c = if round % 2 == 0 { &a } else { &b };
            match round % 3 {
                0 => drop(c.write(&file, 0, b"x", StableHow::FileSync).await.good()),
                1 => drop(c.setattr(&file, mode(0o600), None).await.good()),
                _ => {
                    c.write(&file, 0, b"y", StableHow::Unstable).await.good();
                    c.commit(&file, 0, 0).await.good();
                }
            }
            for reader in [&a, &b] {
                let now = reader.getattr(&file).await.good().ctime;
                assert!(now >= last, "ctime went back in round {round}");
            }
            let now = b.getattr(&file).await.good().ctime;
            assert!(now > last, "ctime did not move in round {round}");
            last = now;
        }
    });
    check(&two.ensemble);
}

/// I9: writes through one µproxy race truncations through the other. Whatever the order was: every stripe is all data or all
/// zeros from one of them, both µproxies agree, and nothing that was cut comes back.
#[test]
fn writes_race_truncations() {
    const SEED: u64 = 9;
    println!("seed {SEED}");
    let two = two("fence", Layout::Separate);
    wire::run(async {
        let mut rng = StdRng::seed_from_u64(SEED);
        let (a, b, top) = two.clients().await;
        let parts = [(0, THRESHOLD), (THRESHOLD, UNIT - THRESHOLD), (UNIT, UNIT), (2 * UNIT, 1000)];
        let end = 2 * UNIT + 1000;
        let file = create(&a, &top, "f", 0o644).await;
        for round in 1..40_u64 {
            let cut = [0, 0, 5000, THRESHOLD, UNIT + 3][rng.random_range(0..5)];
            let how = [StableHow::Unstable, StableHow::FileSync][rng.random_range(0..2)];
            let write = async {
                for (at, len) in parts {
                    write_all(&a, &file, at, &pattern(round, at, len as usize), how).await;
                }
            };
            let (_, done) = join!(write, b.setattr(&file, size(cut), None));
            done.good();
            a.commit(&file, 0, 0).await.good();
            let seen = a.getattr(&file).await.good().size;
            assert_eq!(b.getattr(&file).await.good().size, seen, "round {round}: the two disagree");
            assert!(seen == cut || parts.iter().any(|(at, len)| at + len == seen), "round {round}: {seen}");
            let bytes = read_all(&b, &file, 0, end).await;
            assert!(read_all(&a, &file, 0, end).await == bytes, "round {round}: the two disagree");
            for (at, len) in parts {
                let part = &bytes[(at.min(seen)) as usize..((at + len).min(seen)) as usize];
                let now = pattern(round, at, len as usize);
                // Bytes of this round, or zeros; below the cut nothing is lost.
                let good = |(i, byte): (usize, &u8)| *byte == now[i] || (*byte == 0 && at + i as u64 >= cut);
                assert!(part.iter().enumerate().all(good), "round {round}: bytes of another time at {at}");
            }
            b.setattr(&file, size(end), None).await.good();
            let grown = read_all(&b, &file, 0, end).await;
            assert!(grown[seen as usize..].iter().all(|b| *b == 0), "round {round}: something came back");
        }
    });
    check(&two.ensemble);
}

/// A file removed through one µproxy while the other writes it: nothing is left of it (the check finds orphaned bytes).
#[test]
fn a_removed_file_leaves_nothing_behind() {
    let two = two("orphans", Layout::OneProcess);
    wire::run(async {
        let (a, b, top) = two.clients().await;
        for round in 0..10 {
            let name = format!("f{round}");
            let file = create(&a, &top, &name, 0o644).await;
            write_all(&a, &file, 0, &pattern(1, 0, 2 * UNIT as usize), StableHow::Unstable).await;
            let writes = async {
                for i in 0..20 {
                    // It succeeds until it is too late.
                    let _ = a.write(&file, i * 100_000, &[1; 100_000], StableHow::Unstable).await.stat();
                }
            };
            let (_, gone) = join!(writes, b.remove(&top, name.as_bytes()));
            gone.good();
        }
    });
    check(&two.ensemble);
}
