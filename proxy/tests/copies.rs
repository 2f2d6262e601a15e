//! Calls that clients send twice: one copy is carried out, and both have its answer, however late the other comes (I9, I10).

// A test's helpers may stop at the first surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ensemble;

use ensemble::*;
use slice_proto::ids::FileId;
use slice_proto::nfs3::*;
use slice_proto::table::NamePolicy;
use slice_proxy::Exports;

const MKDIR: NamePolicy = NamePolicy::MkdirSwitching { affinity_ppm: 500_000 };
const UID: u32 = 500;

/// A world, its µproxy, and a file of the user's.
async fn with_file(test: impl AsyncFnOnce(&World, &Front, FileId, &[u8])) {
    let world = World::new(MKDIR);
    let front = world.start(Exports::default());
    let (id, fh) = world.file(1, UID, 0o644);
    test(&world, &front, id, &fh).await;
}

fn chmod(xid: u32, fh: &[u8], mode: u32) -> bytes::BytesMut {
    let attr = Sattr3 { mode: Some(mode), ..Sattr3::default() };
    record(xid, UID, Proc3::Setattr, &SetattrArgs { object: fh, attr, guard: None })
}

fn write(xid: u32, fh: &[u8], offset: u64, data: &[u8]) -> bytes::BytesMut {
    let args = WriteArgs { file: fh, offset, count: data.len() as u32, stable: StableHow::Unstable, data };
    record(xid, UID, Proc3::Write, &args)
}

/// Waits until so many calls have come to a server, which says nothing when it is called.
async fn came(world: &World, call: &str, count: usize) {
    while world.stage.count(call) < count {
        tokio::task::yield_now().await;
    }
}

/// Answers that this connection's thread has worked off all that came before.
async fn worked_off(raw: &mut Raw, fh: &[u8]) {
    raw.send(&record(u32::MAX, UID, Proc3::Getattr, &GetattrArgs { object: fh })).await;
    raw.reply::<GetattrRes>().await.1.into_result().unwrap();
}

#[test]
fn a_copy_waits_for_the_first_and_has_its_answer_though_the_firsts_connection_is_gone() {
    run(|| {
        with_file(async |world, front, id, fh| {
            let (mut first, mut second) = (Raw::connect(front.addr).await, Raw::connect(front.addr).await);
            let release = world.stage.hold_next("dir SETATTR");
            first.send(&chmod(7, fh, 0o600)).await;
            came(world, "dir SETATTR", 1).await;
            drop(first);
            second.send(&chmod(7, fh, 0o600)).await;
            worked_off(&mut second, fh).await;
            release.notify_one();
            second.reply::<SetattrRes>().await.1.into_result().unwrap();
            assert_eq!(
                (world.stage.count("dir SETATTR"), world.files.get(id).unwrap().attr.mode & 0o777),
                (1, 0o600)
            );
            // Done is remembered by the server, durably, and it is asked.
            second.send(&chmod(7, fh, 0o600)).await;
            second.reply::<SetattrRes>().await.1.into_result().unwrap();
            assert_eq!(world.stage.count("dir SETATTR"), 2);
        })
    });
}

/// The server forgets what it refused when it restarts, as this one does at once.
#[test]
fn a_refused_call_is_not_judged_anew_when_its_copy_comes_late() {
    run(|| {
        with_file(async |world, front, id, fh| {
            let mut first = Raw::connect(front.addr).await;
            let record = world.files.get(id).unwrap();
            world.files.remove(id);
            first.send(&chmod(7, fh, 0o600)).await;
            let (refused, result) = first.reply::<SetattrRes>().await;
            assert_eq!(result.into_result().err(), Some(NfsStat3::STALE));
            world.files.insert(id, record.attr);
            let mut second = Raw::connect(front.addr).await;
            second.send(&chmod(7, fh, 0o600)).await;
            assert_eq!(second.reply::<SetattrRes>().await.0, refused);
            assert_eq!(
                (world.stage.count("dir SETATTR"), world.files.get(id).unwrap().attr.mode & 0o777),
                (1, 0o644)
            );
            // Another number, another call; and the same number with other arguments.
            for (calls, other) in [(2, chmod(8, fh, 0o600)), (3, chmod(7, fh, 0o640))] {
                second.send(&other).await;
                second.reply::<SetattrRes>().await.1.into_result().unwrap();
                assert_eq!(world.stage.count("dir SETATTR"), calls);
            }
        })
    });
}

#[test]
fn a_write_whose_copy_comes_late_undoes_nothing_that_was_written_since() {
    run(|| {
        with_file(async |world, front, _, fh| {
            let (mut first, mut second) = (Raw::connect(front.addr).await, Raw::connect(front.addr).await);
            let old = write(7, fh, 0, b"old");
            first.send(&old).await;
            let (answer, result) = first.reply::<WriteRes>().await;
            result.into_result().unwrap();
            first.send(&write(8, fh, 0, b"new")).await;
            first.reply::<WriteRes>().await.1.into_result().unwrap();
            second.send(&old).await;
            assert_eq!(second.reply::<WriteRes>().await.0, answer);
            let (read, ..) = Client::new(front.addr, UID).read(fh, 0, 10).await.unwrap();
            assert_eq!((world.stage.count("small WRITE"), read), (2, b"new".to_vec()));
        })
    });
}

/// Seed 108 of the simulation: the first copy was fenced by the truncation that its client had gone on to, and went again.
#[test]
fn a_fenced_write_goes_again_once_and_not_after_its_copy_was_answered() {
    run(|| {
        with_file(async |world, front, id, fh| {
            let client = Client::new(front.addr, UID);
            client.write(fh, 0, &[1; 500], StableHow::Unstable).await.unwrap();
            client.commit(fh).await.unwrap();
            world.files.truncate(id, 10);
            world.stage.take_journal();
            let release = world.stage.hold_next("small WRITE");
            let (mut first, mut second) = (Raw::connect(front.addr).await, Raw::connect(front.addr).await);
            let late = write(7, fh, 100, b"late");
            first.send(&late).await;
            came(world, "small WRITE", 1).await;
            drop(first);
            second.send(&late).await;
            worked_off(&mut second, fh).await;
            assert_eq!(world.stage.count("small WRITE"), 1, "the copy waits");
            release.notify_one();
            // Fenced, and again under the new epoch.
            second.reply::<WriteRes>().await.1.into_result().unwrap();
            assert_eq!(world.stage.count("small WRITE"), 2);
            client.commit(fh).await.unwrap();
            client.setattr(fh, Sattr3 { size: Some(10), ..Sattr3::default() }).await.unwrap();
            second.send(&late).await;
            second.reply::<WriteRes>().await.1.into_result().unwrap();
            assert_eq!((client.getattr(fh).await.unwrap().size, world.stage.count("small WRITE")), (10, 2));
        })
    });
}
