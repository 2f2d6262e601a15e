//! Failed fsyncs (I8), a full disk, more objects than open files.

use super::harness::*;
use crate::cache::Cache;
use slice_proto::ids::FileId;
use slice_proto::nfs3::{NfsStat3, StableHow};
use std::sync::atomic::Ordering;

const F: FileId = FileId(3);
const MIB: u64 = 1 << 20;
const IO: u32 = NfsStat3::IO.0;

#[test]
fn a_failed_fsync_is_never_followed_by_success() {
    run(async || {
        let mut h = Harness::new(|_| true).await;
        h.put(F, 1, MIB, b"kept").await;
        h.put(FileId(4), 1, MIB, b"other").await;
        let verf = h.write(F, 1, MIB + 4, b"lost", StableHow::Unstable).await.unwrap().1;
        h.node().node.fail_fsync.store(true, Ordering::SeqCst);
        assert_eq!(h.commit(F).await, Err(IO));
        assert_eq!(h.commit(F).await, Err(IO), "and again");
        assert_eq!(h.write(F, 1, MIB, b"x", StableHow::Unstable).await.unwrap_err(), IO);
        assert_eq!(h.read(F, MIB, 4).await.unwrap().0, b"kept");
        // Whoever has unacknowledged data of any object sends it again.
        let other = h.commit(FileId(4)).await.unwrap();
        assert_ne!(other, verf);
        // With no byte left there is nothing that could be lost.
        h.truncate(F, 2, 0).await.unwrap();
        h.put(F, 2, MIB, b"healed").await;
        assert_eq!(h.commit(F).await, Ok(other));
        h.crash().await;
        assert_eq!(h.read(F, MIB, 6).await.unwrap().0, b"healed");
    });
}

#[test]
fn a_failed_stable_write_is_not_acknowledged() {
    run(async || {
        let h = Harness::new(|_| true).await;
        h.node().node.fail_fsync.store(true, Ordering::SeqCst);
        assert_eq!(h.write(F, 1, MIB, b"lost", StableHow::FileSync).await.unwrap_err(), IO);
        h.purge(F, 2).await.unwrap();
    });
}

#[test]
fn a_truncate_that_failed_is_done_again_under_the_same_epoch() {
    run(async || {
        let h = Harness::new(|_| true).await;
        h.put(F, 1, MIB, b"abcdef").await;
        h.node().node.fail_fsync.store(true, Ordering::SeqCst);
        assert_eq!(h.truncate(F, 2, MIB + 3).await, Err(IO));
        assert_eq!(h.truncate(F, 2, MIB + 3).await.map(|e| e.0), Ok(2));
        assert_eq!(h.read(F, MIB, 6).await.unwrap().0, b"abc");
    });
}

#[test]
fn only_the_open_files_are_bounded() {
    run(async || {
        let mut h = Harness::new(|_| true).await;
        let few = 16;
        let node = std::sync::Arc::get_mut(h.block.as_mut().unwrap()).unwrap();
        std::sync::Arc::get_mut(&mut node.node).unwrap().cache = Cache::new(few);
        for i in 0..200u64 {
            // Not committed: they must be made durable before they can be forgotten.
            h.write(FileId(i + 1), 2, MIB, &i.to_be_bytes(), StableHow::Unstable).await.unwrap();
        }
        // Jobs that have answered may hold theirs a moment longer.
        assert!(h.node().node.cache.len() < 100, "{} objects", h.node().node.cache.len());
        for i in 0..200u64 {
            assert_eq!(h.read(FileId(i + 1), MIB, 8).await.unwrap().0, i.to_be_bytes());
            assert_eq!(h.stat(FileId(i + 1)).await.unwrap().epoch.0, 2);
        }
        h.node().shutdown().await;
        assert!(h.node().node.cache.all().iter().all(|o| h.node().node.is_clean(o)));
    });
}

#[test]
fn the_background_work_ends_with_the_server() {
    run(async || {
        let h = Harness::new(|_| true).await;
        let work = tokio::task::spawn_local(h.node().clone().run());
        tokio::task::yield_now().await;
        assert!(!work.is_finished());
        h.node().shutdown().await;
        work.await.unwrap();
    });
}
