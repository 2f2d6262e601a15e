//! Data that finds no space, or cannot be written: what nobody wrote is never shown as the file's (DESIGN §7, §8; decision 0010).

// A test's helpers may stop at the first surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ensemble;

use ensemble::*;
use slice_proto::nfs3::*;
use slice_proto::placement::{STRIPE_UNIT, THRESHOLD};
use slice_proto::table::NamePolicy;
use slice_proxy::Exports;
use std::time::Duration;

const MKDIR: NamePolicy = NamePolicy::MkdirSwitching { affinity_ppm: 500_000 };
const UNIT: usize = STRIPE_UNIT as usize;
const KIB64: usize = THRESHOLD as usize;
const FAILURES: [NfsStat3; 2] = [NfsStat3::NOSPC, NfsStat3::IO];
const STABLE: [StableHow; 2] = [StableHow::DataSync, StableHow::FileSync];

/// A world, a file of user 500 in it, that user at one µproxy, and another at another.
async fn with_file(
    mode: u32,
    test: impl AsyncFnOnce(&World, slice_proto::ids::FileId, &[u8], &Client, &Client),
) {
    let world = World::new(MKDIR);
    let (one, two) = (world.start(Exports::default()), world.start(Exports::default()));
    let (id, fh) = world.file(1, 500, mode);
    test(&world, id, &fh, &Client::new(one.addr, 500), &Client::new(two.addr, 0)).await;
}

#[test]
fn a_stable_write_that_fails_does_not_grow_the_file() {
    run(|| {
        with_file(0o666, async |world, id, fh, client, other| {
            client.write(fh, 0, b"there", StableHow::FileSync).await.unwrap();
            for status in FAILURES {
                for stable in STABLE {
                    world.stage.fail_next("small WRITE", status.0);
                    assert_eq!(client.write(fh, 5, &[7; 4096], stable).await, Err(status));
                    assert_eq!(world.files.size(id), 5, "{status} {stable:?}");
                    for reader in [client, other] {
                        assert_eq!(reader.getattr(fh).await.unwrap().size, 5);
                        assert_eq!(reader.read(fh, 0, 100).await.unwrap(), (b"there".to_vec(), true, None));
                    }
                }
            }
        })
    });
}

#[test]
fn a_write_that_succeeds_in_part_grows_the_file_by_that_part_alone() {
    run(|| {
        with_file(0o666, async |world, id, fh, client, other| {
            // The end of the first 64 KiB, a stripe unit, and the beginning of the next.
            let (at, data) = (KIB64 - 1000, vec![7; UNIT]);
            world.stage.fail_next("block WRITE", NfsStat3::NOSPC.0);
            // One of its two stripe units fails, and that may be either: what comes first decides.
            let written =
                client.write(fh, at as u64, &data, StableHow::FileSync).await.unwrap().count as usize;
            assert!(written == 1000 || at + written == UNIT, "{written}");
            assert_eq!(world.files.size(id) as usize, at + written);
            let (read, eof, _) = other.read(fh, at as u64, UNIT as u32).await.unwrap();
            assert_eq!((read.len(), eof), (written, true));
            assert!(read.iter().all(|b| *b == 7), "nothing but what was written");
        })
    });
}

#[test]
fn the_small_file_site_is_not_told_of_bytes_beyond_it_that_are_not_there() {
    run(|| {
        with_file(0o666, async |world, id, fh, client, other| {
            client.write(fh, 0, b"there", StableHow::FileSync).await.unwrap();
            for stable in [StableHow::Unstable, StableHow::FileSync] {
                world.stage.fail_next("block WRITE", NfsStat3::NOSPC.0);
                let refused = client.write(fh, KIB64 as u64, &[7; 4096], stable).await;
                assert_eq!(refused, Err(NfsStat3::NOSPC));
                assert_eq!((world.stage.count("small EXTEND"), world.files.size(id)), (0, 5));
                for reader in [client, other] {
                    // It would answer 4096 zeros if it had been told.
                    assert_eq!(reader.read(fh, 0, 4096).await.unwrap(), (b"there".to_vec(), true, None));
                }
            }
        })
    });
}

#[test]
fn a_file_does_not_grow_past_what_its_small_file_site_knows() {
    run(|| {
        with_file(0o666, async |world, id, fh, client, other| {
            world.stage.fail_next("small EXTEND", NfsStat3::IO.0);
            let data = vec![7; 4096];
            let refused = client.write(fh, KIB64 as u64, &data, StableHow::FileSync).await;
            assert_eq!((refused, world.files.size(id)), (Err(NfsStat3::IO), 0));
            let (read, eof, _) = other.read(fh, 0, 4096).await.unwrap();
            assert_eq!((read, eof), (Vec::new(), true));
            client.write(fh, KIB64 as u64, &data, StableHow::FileSync).await.unwrap();
            assert_eq!(world.files.size(id) as usize, KIB64 + 4096);
        })
    });
}

#[test]
fn a_stranger_that_clears_set_id_bits_grows_nothing_by_a_write_that_fails() {
    run(|| {
        with_file(0o4777, async |world, id, fh, _, _| {
            let front = world.start(Exports::default());
            let stranger = Client::new(front.addr, 501);
            world.stage.fail_next("small WRITE", NfsStat3::NOSPC.0);
            let refused = stranger.write(fh, 0, b"new", StableHow::Unstable).await;
            assert_eq!((refused, world.files.size(id)), (Err(NfsStat3::NOSPC), 0));
            stranger.write(fh, 0, b"new", StableHow::Unstable).await.unwrap();
            let attr = world.files.get(id).unwrap().attr;
            assert_eq!((attr.size, attr.mode & 0o4000), (3, 0), "before its reply");
        })
    });
}

#[test]
fn only_growth_waits_for_the_bytes() {
    run(|| {
        with_file(0o666, async |world, id, fh, client, _| {
            let held = world.stage.hold_next("small WRITE");
            let write = client.write(fh, 0, &[1; 4096], StableHow::FileSync);
            tokio::pin!(write);
            // The data server has the bytes, and has not answered.
            tokio::select! {
                done = &mut write => panic!("{done:?}"),
                () = until(|| world.stage.count("small WRITE") == 1) => {}
            }
            assert_eq!((world.stage.count("dir PUSH"), world.files.size(id)), (0, 0));
            held.notify_one();
            write.await.unwrap();
            assert_eq!((world.stage.count("dir PUSH"), world.files.size(id)), (1, 4096));
            // Within the file the home site is told of the time beside.
            let held = world.stage.hold_next("small WRITE");
            let write = client.write(fh, 0, &[2; 4096], StableHow::FileSync);
            tokio::pin!(write);
            tokio::select! {
                done = &mut write => panic!("{done:?}"),
                () = until(|| world.stage.count("dir PUSH") == 2) => {}
            }
            held.notify_one();
            write.await.unwrap();
        })
    });
}

/// The fakes run on threads of their own, and say nothing when they are called.
async fn until(mut there: impl FnMut() -> bool) {
    while !there() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
