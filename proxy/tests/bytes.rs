//! READ, WRITE, COMMIT and what is shown of a file while it is written: against data servers that may restart, refuse, or
//! be cut by somebody else. The invariants are DESIGN's.

// A test's helpers may stop at the first surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ensemble;

use ensemble::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use slice_proto::nfs3::*;
use slice_proto::peer::PrivateStatus;
use slice_proto::placement::{STRIPE_UNIT, THRESHOLD};
use slice_proto::table::NamePolicy;
use slice_proxy::Exports;
use std::time::Duration;

const MKDIR: NamePolicy = NamePolicy::MkdirSwitching { affinity_ppm: 500_000 };
const UNIT: usize = STRIPE_UNIT as usize;
const KIB64: usize = THRESHOLD as usize;

fn bytes(n: usize, seed: u8) -> Vec<u8> {
    (0..n).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn size_to(size: u64) -> Sattr3 {
    Sattr3 { size: Some(size), ..Sattr3::default() }
}

/// A world, its µproxy, a file of user 500, and that user.
async fn with_file(
    mode: u32,
    test: impl AsyncFnOnce(&World, &Front, slice_proto::ids::FileId, &[u8], &Client),
) {
    let world = World::new(MKDIR);
    let front = world.start(Exports::default());
    let (id, fh) = world.file(1, 500, mode);
    let client = Client::new(front.addr, 500);
    test(&world, &front, id, &fh, &client).await;
}

#[test]
fn growth_is_shown_at_once_and_pushed_with_the_commit() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            let before = client.getattr(fh).await.unwrap();
            let ok = client.write(fh, 0, b"hello", StableHow::Unstable).await.unwrap();
            let after = ok.wcc.after.expect("attributes of the write");
            assert_eq!((ok.count, ok.committed, after.size), (5, StableHow::Unstable, 5));
            assert!(after.ctime > before.ctime && after.mtime > before.mtime);
            assert_eq!(ok.wcc.before, None, "nobody vouches for it");
            let shown = client.getattr(fh).await.unwrap();
            assert_eq!((shown.size, shown.mtime, shown.ctime), (5, after.mtime, after.ctime));
            assert_eq!(world.files.size(id), 0, "not pushed yet");
            let committed = client.commit(fh).await.unwrap();
            assert_eq!(committed.verf, ok.verf);
            assert_eq!(committed.wcc.after.unwrap().size, 5);
            assert_eq!(world.files.size(id), 5, "I5: before the COMMIT was answered");
            let home = world.files.get(id).unwrap().attr;
            assert!(home.ctime >= after.ctime && home.mtime == after.mtime);
            assert_eq!(client.read(fh, 0, 100).await.unwrap(), (b"hello".to_vec(), true, None));
        })
    });
}

#[test]
fn a_stable_write_is_pushed_before_its_reply_and_leaves_no_bytes_to_commit() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            let ok = client.write(fh, 0, &bytes(100, 1), StableHow::FileSync).await.unwrap();
            assert_eq!(ok.committed, StableHow::FileSync);
            assert_eq!(world.files.size(id), 100);
            world.stage.take_journal();
            client.commit(fh).await.unwrap();
            assert_eq!(world.stage.take_journal(), ["dir PUSH"], "which only asks for the attributes");
        })
    });
}

#[test]
fn what_nobody_commits_is_pushed_within_about_a_second() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            client.write(fh, 0, b"hello", StableHow::Unstable).await.unwrap();
            while world.files.size(id) == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(world.files.size(id), 5);
            assert_eq!(world.stage.count("dir PUSH"), 1);
        })
    });
}

#[test]
fn shutdown_pushes_what_is_left() {
    run(|| {
        with_file(0o644, async |world, front, id, fh, client| {
            client.write(fh, 0, b"hello", StableHow::Unstable).await.unwrap();
            client.channel.close();
            front.proxy.shutdown().await;
            assert_eq!(world.files.size(id), 5);
        })
    });
}

#[test]
fn a_write_across_every_boundary_is_split_and_read_back_whole() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            let data = bytes(1 << 20, 7);
            let at = KIB64 - 1000;
            let ok = client.write(fh, at as u64, &data, StableHow::Unstable).await.unwrap();
            assert_eq!(ok.count as usize, data.len());
            let journal = world.stage.take_journal();
            let count = |what: &str| journal.iter().filter(|c| *c == what).count();
            assert_eq!((count("small WRITE"), count("block WRITE")), (1, 2));
            assert_eq!(count("small EXTEND"), 1, "told before the first byte past 64 KiB is acknowledged");
            let raise = journal.iter().position(|c| c == "dir RAISE").expect("the reach is raised");
            let write = journal.iter().position(|c| c == "block WRITE").unwrap();
            assert!(raise < write, "before a byte beyond it is sent");
            client.commit(fh).await.unwrap();
            assert_eq!(world.flat(id)[at..], data[..]);
            let (head, eof, _) = client.read(fh, 0, 1 << 20).await.unwrap();
            assert!(!eof && head.len() == 1 << 20);
            assert!(head[..at].iter().all(|b| *b == 0), "a hole");
            assert_eq!(head[at..], data[..(1 << 20) - at]);
            let (tail, eof, _) = client.read(fh, 1 << 20, 1 << 20).await.unwrap();
            assert_eq!((tail.as_slice(), eof), (&data[(1 << 20) - at..], true));
            // The second write past 64 KiB has nothing to tell or raise.
            world.stage.take_journal();
            client.write(fh, KIB64 as u64, &data[..4096], StableHow::Unstable).await.unwrap();
            assert_eq!(world.stage.take_journal(), ["block WRITE"]);
        })
    });
}

#[test]
fn a_partial_failure_returns_the_prefix_and_the_first_error_only_if_nothing_was_written() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            let data = bytes(KIB64 + 4096, 3);
            world.stage.fail_next("block WRITE", NfsStat3::NOSPC.0);
            let ok = client.write(fh, 0, &data, StableHow::Unstable).await.unwrap();
            assert_eq!(ok.count as usize, KIB64);
            assert_eq!(ok.wcc.after.unwrap().size as usize, KIB64);
            world.stage.fail_next("small WRITE", NfsStat3::NOSPC.0);
            assert_eq!(client.write(fh, 0, &data, StableHow::Unstable).await, Err(NfsStat3::NOSPC));
            client.commit(fh).await.unwrap();
            assert_eq!(world.files.size(id) as usize, KIB64);
        })
    });
}

#[test]
fn somebody_elses_truncate_fences_the_write_which_goes_again_under_the_new_epoch() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            client.write(fh, 0, &bytes(500, 1), StableHow::Unstable).await.unwrap();
            client.commit(fh).await.unwrap();
            world.files.truncate(id, 10);
            world.stage.take_journal();
            let ok = client.write(fh, 100, b"new", StableHow::Unstable).await.unwrap();
            assert_eq!(ok.wcc.after.unwrap().size, 103, "not the 500 of before");
            assert_eq!(world.stage.take_journal(), ["small WRITE", "dir GETATTR", "small WRITE"]);
            client.commit(fh).await.unwrap();
            let (data, eof, _) = client.read(fh, 0, 1000).await.unwrap();
            assert!(
                eof && data.len() == 103 && data[10..100].iter().all(|b| *b == 0) && data[100..] == *b"new"
            );
        })
    });
}

#[test]
fn a_data_server_that_restarts_changes_the_verifier_once() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            let wrote = client.write(fh, 0, b"lost", StableHow::Unstable).await.unwrap();
            world.smalls.iter().for_each(|s| s.restart());
            let committed = client.commit(fh).await.unwrap();
            assert_ne!(committed.verf, wrote.verf, "I7: the client must send again");
            let again = client.write(fh, 0, b"kept", StableHow::Unstable).await.unwrap();
            let committed = client.commit(fh).await.unwrap();
            assert_eq!(committed.verf, again.verf, "I7: and never loops");
            world.smalls.iter().for_each(|s| s.restart());
            assert_eq!(world.flat(id), b"kept");
        })
    });
}

/// What it knew of uncommitted bytes is gone, and perhaps it had not sent all of them.
#[test]
fn a_proxy_that_starts_anew_gives_another_verifier() {
    run(|| {
        with_file(0o644, async |world, front, _, fh, client| {
            let wrote = client.write(fh, 0, b"lost", StableHow::Unstable).await.unwrap();
            assert_eq!(client.commit(fh).await.unwrap().verf, wrote.verf);
            client.channel.close();
            front.proxy.shutdown().await;
            let anew = world.start(Exports::default());
            let client = Client::new(anew.addr, 500);
            assert_ne!(client.commit(fh).await.unwrap().verf, wrote.verf, "I7: the client must send again");
        })
    });
}

/// The server restarts, and is heard of only by the COMMIT's own answer.
#[test]
fn a_commit_carries_the_verifier_of_when_all_parts_have_answered() {
    run(|| {
        with_file(0o644, async |world, _, _, fh, client| {
            let data = bytes(KIB64 + 4096, 1);
            let wrote = client.write(fh, 0, &data, StableHow::Unstable).await.unwrap();
            // One part of the COMMIT has answered, the other has lost what it had.
            let release = world.stage.hold_next("small COMMIT");
            let lost = async {
                while world.stage.count("small COMMIT") + world.stage.count("block COMMIT") < 2 {
                    tokio::task::yield_now().await;
                }
                release.notify_one();
            };
            world.blocks.iter().for_each(|s| s.restart());
            let (committed, ()) = tokio::join!(client.commit(fh), lost);
            assert_ne!(committed.unwrap().verf, wrote.verf, "I7: the client must send again");
        })
    });
}

#[test]
fn a_write_carries_the_verifier_of_when_it_arrived() {
    run(|| {
        with_file(0o644, async |world, front, _, fh, client| {
            let data = bytes(KIB64 + 4096, 1);
            client.write(fh, 0, &bytes(KIB64 + 4096, 2), StableHow::Unstable).await.unwrap();
            // Its first part is at the small-file server, its second not answered yet.
            let release = world.stage.hold_next("block WRITE");
            let (_, other) = world.file(2, 500, 0o644);
            let between = async {
                while world.stage.count("block WRITE") < 2 {
                    tokio::task::yield_now().await;
                }
                // The first part is lost, and the µproxy learns of it by another file's WRITEs.
                world.smalls.iter().for_each(|s| s.restart());
                for _ in 0..4 {
                    client.write(&other, 0, b"x", StableHow::Unstable).await.unwrap();
                }
                let second = Client::new(front.addr, 500);
                for n in 10..20 {
                    let (_, fh) = world.file(n, 500, 0o644);
                    second.write(&fh, 0, b"x", StableHow::Unstable).await.unwrap();
                }
                release.notify_one();
            };
            let writer = Client::new(front.addr, 500);
            let (wrote, ()) = tokio::join!(writer.write(fh, 0, &data, StableHow::Unstable), between);
            let committed = client.commit(fh).await.unwrap();
            assert_ne!(committed.verf, wrote.unwrap().verf, "I7");
        })
    });
}

#[test]
fn a_commit_waits_for_the_push_and_for_every_data_server() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            client.write(fh, 0, &bytes(KIB64 + 4096, 1), StableHow::Unstable).await.unwrap();
            for held in ["dir PUSH", "block COMMIT", "small COMMIT"] {
                client.write(fh, KIB64 as u64 - 1, b"xy", StableHow::Unstable).await.unwrap();
                let release = world.stage.hold_next(held);
                let early = std::cell::Cell::new(true);
                let commit = async {
                    client.commit(fh).await.unwrap();
                    assert!(!early.get(), "answered before {held}");
                };
                let later = async {
                    world.stage.take_journal();
                    while world.stage.count(held) == 0 {
                        tokio::task::yield_now().await;
                    }
                    // Whatever else it waits for has its time now.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    early.set(false);
                    release.notify_one();
                };
                tokio::join!(commit, later);
            }
            assert_eq!(world.files.size(id) as usize, KIB64 + 4096);
        })
    });
}

#[test]
fn a_data_site_that_moves_changes_the_verifier() {
    run(|| {
        with_file(0o644, async |world, _, _, fh, client| {
            let wrote = client.write(fh, 0, b"data", StableHow::Unstable).await.unwrap();
            let mut moved = table(2, MKDIR);
            moved.small.iter_mut().for_each(|owners| *owners = vec![small_id(0)]);
            world.tables.publish(moved);
            // The table reaches the µproxy's thread by an event of its own.
            for _ in 0..1000 {
                if client.commit(fh).await.unwrap().verf != wrote.verf {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            panic!("the verifier never changed");
        })
    });
}

#[test]
fn a_restarted_proxy_commits_everywhere_under_the_reach_with_another_verifier() {
    run(|| {
        with_file(0o644, async |world, front, id, fh, client| {
            let data = bytes(KIB64 + 3 * 4096, 9);
            let wrote = client.write(fh, 0, &data, StableHow::Unstable).await.unwrap();
            // Killed: nothing is pushed, everything it knew is gone.
            let after = world.start(Exports::default());
            let _ = front;
            let client = Client::new(after.addr, 500);
            world.stage.take_journal();
            let committed = client.commit(fh).await.unwrap();
            assert_ne!(committed.verf, wrote.verf);
            let journal = world.stage.take_journal();
            let commits = journal.iter().filter(|c| c.ends_with("COMMIT")).count();
            assert_eq!(
                commits, 2,
                "the small-file site and the one unit under a reach of 128 KiB: {journal:?}"
            );
            // The client sends again, as the verifier tells it to.
            client.write(fh, 0, &data, StableHow::Unstable).await.unwrap();
            client.commit(fh).await.unwrap();
            world.smalls.iter().chain(&world.blocks).for_each(|s| s.restart());
            assert_eq!(world.flat(id), data);
        })
    });
}

#[test]
fn a_failed_commit_fails_and_the_next_one_covers_the_same_bytes() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            client.write(fh, 0, b"data", StableHow::Unstable).await.unwrap();
            world.stage.fail_next("small COMMIT", NfsStat3::IO.0);
            assert_eq!(client.commit(fh).await, Err(NfsStat3::IO));
            client.commit(fh).await.unwrap();
            world.smalls.iter().for_each(|s| s.restart());
            assert_eq!(world.flat(id), b"data");
            assert_eq!(world.stage.count("small COMMIT"), 2);
        })
    });
}

#[test]
fn what_is_written_goes_home_before_a_setattr_and_a_utimes_is_not_undone() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            client.write(fh, 0, b"data", StableHow::Unstable).await.unwrap();
            world.stage.take_journal();
            let then = NfsTime3 { seconds: 77, nseconds: 0 };
            let utimes = Sattr3 { mtime: TimeHow::Client(then), ..Sattr3::default() };
            let wcc = client.setattr(fh, utimes).await.unwrap();
            assert_eq!(world.stage.take_journal(), ["dir PUSH", "dir SETATTR"]);
            assert_eq!((wcc.after.unwrap().mtime, wcc.after.unwrap().size), (then, 4));
            client.commit(fh).await.unwrap();
            let shown = client.getattr(fh).await.unwrap();
            assert_eq!((shown.mtime, shown.size), (then, 4), "I6");
            assert_eq!(world.files.get(id).unwrap().attr.mtime, then);
        })
    });
}

#[test]
fn a_truncate_and_growth_again_show_zeros_between() {
    run(|| {
        with_file(0o644, async |_, _, _, fh, client| {
            client.write(fh, 0, &bytes(KIB64 + 10_000, 5), StableHow::Unstable).await.unwrap();
            client.setattr(fh, size_to(100)).await.unwrap();
            assert_eq!(client.getattr(fh).await.unwrap().size, 100);
            client.write(fh, KIB64 as u64 + 9000, b"end", StableHow::Unstable).await.unwrap();
            let (data, eof, _) = client.read(fh, 0, 1 << 20).await.unwrap();
            assert!(eof && data.len() == KIB64 + 9003);
            assert_eq!(data[..100], bytes(100, 5));
            assert!(data[100..KIB64 + 9000].iter().all(|b| *b == 0));
        })
    });
}

#[test]
fn permission_is_of_the_file_and_ends_within_a_second() {
    run(|| {
        with_file(0o604, async |world, front, id, fh, client| {
            client.write(fh, 0, b"data", StableHow::FileSync).await.unwrap();
            let other = Client::new(front.addr, 600);
            assert_eq!(other.read(fh, 0, 10).await.unwrap().0, b"data");
            assert_eq!(other.write(fh, 0, b"x", StableHow::Unstable).await, Err(NfsStat3::ACCES));
            // A SETATTR that passes through counts at once.
            client.setattr(fh, Sattr3 { mode: Some(0o600), ..Sattr3::default() }).await.unwrap();
            assert_eq!(other.read(fh, 0, 10).await, Err(NfsStat3::ACCES));
            assert_eq!(client.read(fh, 0, 10).await.unwrap().0, b"data", "the owner always may");
            // Somebody else's within a second.
            world.files.change(id, |f| f.attr.mode = 0o666);
            while other.write(fh, 0, b"x", StableHow::Unstable).await == Err(NfsStat3::ACCES) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    });
}

#[test]
fn a_write_by_another_than_root_clears_set_id_bits_before_its_reply() {
    run(|| {
        with_file(0o4777, async |world, _, id, fh, client| {
            let ok = client.write(fh, 0, b"data", StableHow::Unstable).await.unwrap();
            assert_eq!(world.files.get(id).unwrap().attr.mode, 0o777);
            assert_eq!(ok.wcc.after.unwrap().mode, 0o777);
        })
    });
}

#[test]
fn a_removed_file_is_stale_and_leaves_nothing_to_push() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            client.write(fh, 0, b"data", StableHow::Unstable).await.unwrap();
            world.files.remove(id);
            assert_eq!(client.commit(fh).await, Err(NfsStat3::STALE));
            assert_eq!(client.write(fh, 0, b"data", StableHow::Unstable).await, Err(NfsStat3::STALE));
            world.stage.take_journal();
            tokio::time::sleep(Duration::from_millis(1200)).await;
            assert_eq!(world.stage.count("dir PUSH"), 0);
        })
    });
}

#[test]
fn bytes_are_of_regular_files_and_ends_are_bounded() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            assert_eq!(client.read(&world.root(), 0, 10).await, Err(NfsStat3::ISDIR));
            let link = world.handle(id, FType3::Lnk as u8);
            assert_eq!(client.write(&link, 0, b"x", StableHow::Unstable).await, Err(NfsStat3::INVAL));
            assert_eq!(client.write(fh, u64::MAX - 5, b"x", StableHow::Unstable).await, Err(NfsStat3::FBIG));
            assert_eq!(client.write(fh, 5, b"", StableHow::Unstable).await.unwrap().count, 0);
            let (data, eof, _) = client.read(fh, u64::MAX - 5, 10).await.unwrap();
            assert!(data.is_empty() && eof);
            let (data, eof, attr) = client.read(fh, 0, 0).await.unwrap();
            assert!(data.is_empty() && eof && attr.is_none());
        })
    });
}

#[test]
fn a_read_that_needs_the_end_asks_the_home_site() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            client.write(fh, 0, &bytes(KIB64 + 100, 1), StableHow::FileSync).await.unwrap();
            // Another µproxy's client appends and commits: this one's cached size is old.
            world.files.change(id, |f| f.attr.size = KIB64 as u64 + 5000);
            let (data, eof, attr) = client.read(fh, KIB64 as u64, 8192).await.unwrap();
            assert_eq!(
                (data.len(), eof, attr),
                (5000, true, None),
                "a READ's reply never carries attributes"
            );
        })
    });
}

#[test]
fn what_somebody_else_has_cut_is_no_hole_of_this_clients_writes() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            let at = KIB64 as u64;
            client.write(fh, 0, &bytes(KIB64 + 9000, 1), StableHow::FileSync).await.unwrap();
            // Nobody tells this µproxy: what it remembers of its own writes is no longer the file's end.
            world.files.truncate(id, 10);
            assert_eq!(client.read(fh, at, 4096).await.unwrap(), (Vec::new(), true, None));
            world.files.truncate(id, at + 100);
            assert_eq!(client.read(fh, at, 4096).await.unwrap(), (vec![0; 100], true, None));
        })
    });
}

#[test]
fn a_commit_shows_attributes_of_now() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            client.write(fh, 0, b"hello", StableHow::FileSync).await.unwrap();
            let ctime = world
                .files
                .change(id, |f| {
                    f.attr.mode = 0o600;
                    f.attr.ctime = NfsTime3::from_ns(f.attr.ctime.as_ns() + 1);
                    f.attr.ctime
                })
                .unwrap();
            let after = client.commit(fh).await.unwrap().wcc.after.unwrap();
            assert_eq!((after.mode, after.ctime), (0o600, ctime));
        })
    });
}

#[test]
fn a_write_after_a_name_was_taken_away_shows_the_links_that_are_left() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            world.files.change(id, |f| f.attr.nlink = 3);
            client.write(fh, 0, b"one", StableHow::FileSync).await.unwrap();
            // The REMOVE's reply does not say whose name it was.
            world.files.name(b"second", id);
            let object = DirOp { dir: &world.root(), name: b"second" };
            let _: RemoveRes = client.call(Proc3::Remove, &RemoveArgs { object }).await;
            let after = client.write(fh, 0, b"two", StableHow::Unstable).await.unwrap().wcc.after.unwrap();
            assert_eq!(after.nlink, 2);
            world.stage.take_journal();
            let after = client.write(fh, 0, b"six", StableHow::Unstable).await.unwrap().wcc.after.unwrap();
            assert_eq!((after.nlink, world.stage.take_journal()), (2, vec!["small WRITE".to_owned()]));
        })
    });
}

#[test]
fn a_write_shows_the_time_that_it_sets_though_it_was_in_the_future() {
    run(|| {
        with_file(0o644, async |world, _, id, fh, client| {
            let future = NfsTime3 { seconds: 4_000_000_000, nseconds: 0 };
            let attr = Sattr3 { mtime: TimeHow::Client(future), ..Sattr3::default() };
            client.setattr(fh, attr).await.unwrap();
            let shown = client.write(fh, 0, b"now", StableHow::Unstable).await.unwrap().wcc.after.unwrap();
            assert!(shown.mtime < future && shown.mtime == shown.ctime, "{:?}", shown.mtime);
            assert_eq!(client.getattr(fh).await.unwrap().mtime, shown.mtime);
            assert_eq!(world.files.get(id).unwrap().attr.mtime, future, "the home site does not know yet");
        })
    });
}

/// A step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Write { at: usize, len: usize, stable: bool },
    Read { at: usize, len: usize },
    Truncate(usize),
    ElsewhereTruncate(usize),
    Commit,
    Restart,
    Glitch(&'static str, u32),
}

fn near() -> impl Strategy<Value = usize> {
    let bases = vec![0, KIB64, UNIT, 2 * UNIT];
    (prop::sample::select(bases), 0usize..20_000).prop_map(|(b, d)| (b + d).saturating_sub(10_000))
}

fn step() -> impl Strategy<Value = Step> {
    let glitches = [
        ("small WRITE", PrivateStatus::Fenced as u32),
        ("block WRITE", PrivateStatus::Fenced as u32),
        ("small READ", PrivateStatus::WrongSite as u32),
        ("block WRITE", PrivateStatus::WrongSite as u32),
        ("small EXTEND", PrivateStatus::Fenced as u32),
        ("dir PUSH", PrivateStatus::WrongSite as u32),
        ("small COMMIT", PrivateStatus::Fenced as u32),
    ];
    prop_oneof![
        4 => (near(), 1usize..200_000, any::<bool>()).prop_map(|(at, len, stable)| Step::Write { at, len, stable }),
        4 => (near(), 0usize..300_000).prop_map(|(at, len)| Step::Read { at, len }),
        1 => near().prop_map(Step::Truncate),
        1 => near().prop_map(Step::ElsewhereTruncate),
        2 => Just(Step::Commit),
        1 => Just(Step::Restart),
        1 => prop::sample::select(glitches.to_vec()).prop_map(|(call, status)| Step::Glitch(call, status)),
    ]
}

/// Random histories against a flat file. Data servers are only restarted when everything is committed or was sent
/// again as the verifier tells: then nothing may be lost.
#[test]
fn a_file_behind_the_proxy_is_one_flat_file() {
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let steps = prop::collection::vec(step(), 1..25);
    let outcome = runner.run(&steps, |steps| {
        run(|| {
            with_file(0o644, async |world, _, id, fh, client| {
                let mut flat: Vec<u8> = Vec::new();
                let mut uncommitted: Vec<(usize, Vec<u8>, Verifier)> = Vec::new();
                for (n, step) in steps.iter().enumerate() {
                    match step {
                        Step::Write { at, len, stable } => {
                            let data = bytes(*len, n as u8);
                            let how = if *stable { StableHow::FileSync } else { StableHow::Unstable };
                            let ok = client.write(fh, *at as u64, &data, how).await.unwrap();
                            assert_eq!(ok.count as usize, *len);
                            flat.resize(flat.len().max(at + len), 0);
                            flat[*at..at + len].copy_from_slice(&data);
                            // Attributes that were not seen for a second are not shown: this machine may be slow.
                            if let Some(after) = ok.wcc.after {
                                assert_eq!(after.size as usize, flat.len());
                            }
                            if !stable {
                                uncommitted.push((*at, data, ok.verf));
                            }
                        }
                        Step::Read { at, len } => {
                            let (data, eof, attr) = client.read(fh, *at as u64, *len as u32).await.unwrap();
                            let from = (*at).min(flat.len());
                            let to = (at + len).min(flat.len());
                            assert!(data == flat[from..to], "step {n}: {step:?}");
                            assert_eq!(eof, at + len >= flat.len(), "EOF is told exactly");
                            assert_eq!(attr, None);
                        }
                        Step::Truncate(size) => {
                            client.setattr(fh, size_to(*size as u64)).await.unwrap();
                            flat.resize(*size, 0);
                        }
                        Step::ElsewhereTruncate(size) => {
                            // What is not pushed yet would be cut or not depending on who comes first.
                            client.commit(fh).await.unwrap();
                            world.files.truncate(id, *size as u64);
                            flat.resize(*size, 0);
                        }
                        Step::Commit | Step::Restart => {
                            if matches!(step, Step::Restart) {
                                world.smalls.iter().chain(&world.blocks).for_each(|s| s.restart());
                            }
                            // What a client does: send again until a COMMIT has the verifier of every WRITE (I7).
                            loop {
                                let ok = client.commit(fh).await.unwrap();
                                let lost: Vec<_> = uncommitted.extract_if(.., |w| w.2 != ok.verf).collect();
                                if lost.is_empty() {
                                    uncommitted.clear();
                                    break;
                                }
                                // Pages as they are now, as far as the file goes.
                                for (at, data, _) in lost {
                                    let to = (at + data.len()).min(flat.len());
                                    if at < to {
                                        let ok = client
                                            .write(fh, at as u64, &flat[at..to], StableHow::Unstable)
                                            .await
                                            .unwrap();
                                        uncommitted.push((at, flat[at..to].to_vec(), ok.verf));
                                    }
                                }
                            }
                            assert_eq!(world.files.size(id) as usize, flat.len());
                            assert!(world.flat(id) == flat, "step {n}: what was committed is there");
                        }
                        Step::Glitch(call, status) => world.stage.fail_next(call, *status),
                    }
                    assert_eq!(
                        client.getattr(fh).await.unwrap().size as usize,
                        flat.len(),
                        "step {n}: {step:?}"
                    );
                }
            })
        });
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
}
