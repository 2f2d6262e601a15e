//! I9, as callers see it: what each call does to an object whose epoch is 5, and whether that survives a crash.

use super::harness::*;
use slice_proto::ids::{Epoch, FileId};
use slice_proto::nfs3::{NfsStat3, StableHow};
use slice_proto::peer::PrivateStatus;

const MIB: u64 = 1 << 20;
const FENCED: u32 = PrivateStatus::Fenced as u32;

#[derive(Debug, Clone, Copy)]
enum Call {
    Write,
    Truncate,
    Purge,
}

/// The status, and the object's epoch as STAT shows it afterwards.
async fn does(h: &Harness, file: FileId, call: Call, epoch: u64) -> (u32, u64) {
    let status = match call {
        Call::Write => h.write(file, epoch, MIB, b"new", StableHow::FileSync).await.map(drop),
        Call::Truncate => h.truncate(file, epoch, MIB + 1).await.map(drop),
        Call::Purge => h.purge(file, epoch).await.map(drop),
    };
    (status.err().unwrap_or(0), h.stat(file).await.unwrap().epoch.0)
}

#[test]
fn the_table() {
    run(async || {
        use Call::{Purge, Truncate, Write};
        let mut h = Harness::new(|_| true).await;
        let stale = NfsStat3::STALE.0;
        let cases = [
            // Object, call, its epoch, status, epoch afterwards, bytes afterwards.
            (false, Write, 4, FENCED, 5, "old"),
            (false, Write, 5, 0, 5, "new"),
            (false, Write, 6, 0, 6, "new"),
            (false, Truncate, 4, FENCED, 5, "old"),
            (false, Truncate, 5, 0, 5, "old"),
            (false, Truncate, 6, 0, 6, "o"),
            (false, Purge, 4, FENCED, 5, "old"),
            (false, Purge, 5, 0, 5, "old"),
            (false, Purge, 6, 0, 6, ""),
            (true, Write, 4, FENCED, 5, ""),
            (true, Write, 5, stale, 5, ""),
            (true, Write, 6, stale, 5, ""),
            (true, Truncate, 4, FENCED, 5, ""),
            (true, Truncate, 5, 0, 5, ""),
            (true, Truncate, 6, 0, 6, ""),
            (true, Purge, 4, FENCED, 5, ""),
            (true, Purge, 5, 0, 5, ""),
            (true, Purge, 6, 0, 6, ""),
        ];
        for crash in [false, true] {
            for (i, (purged, call, epoch, status, after, bytes)) in cases.into_iter().enumerate() {
                let file = FileId(1 + i as u64 + if crash { 1000 } else { 0 });
                h.put(file, 1, MIB, b"old").await;
                if purged {
                    h.purge(file, 5).await.unwrap();
                } else {
                    h.truncate(file, 5, 2 * MIB).await.unwrap();
                }
                if crash {
                    h.crash().await;
                }
                let what = format!("{call:?} {epoch} at purged={purged}, after crash={crash}");
                assert_eq!(does(&h, file, call, epoch).await, (status, after), "{what}");
                assert_eq!(h.read(file, MIB, 3).await.unwrap().0, bytes.as_bytes(), "{what}");
                if crash {
                    h.crash().await;
                    assert_eq!(h.stat(file).await.unwrap().epoch, Epoch(after), "{what}");
                    assert_eq!(h.read(file, MIB, 3).await.unwrap().0, bytes.as_bytes(), "{what}");
                }
            }
        }
    });
}

#[test]
fn reads_are_not_fenced() {
    run(async || {
        let h = Harness::new(|_| true).await;
        h.put(FileId(1), 7, MIB, b"abc").await;
        // The harness reads with epoch 0.
        assert_eq!(h.read(FileId(1), MIB, 3).await.unwrap().0, b"abc");
    });
}

#[test]
fn an_epoch_that_a_write_came_with_is_durable_with_the_commit() {
    run(async || {
        let mut h = Harness::new(|_| true).await;
        let f = FileId(1);
        let verf = h.write(f, 6, MIB, b"abc", StableHow::Unstable).await.unwrap().1;
        assert_eq!(h.commit(f).await, Ok(verf));
        h.crash().await;
        assert_eq!(h.write(f, 5, MIB, b"x", StableHow::Unstable).await.unwrap_err(), FENCED);
        // A TRUNCATE that handed this epoch out did not concern us then, and must not cut now.
        assert_eq!(h.truncate(f, 6, 0).await, Ok(Epoch(6)));
        assert_eq!(h.read(f, MIB, 3).await.unwrap().0, b"abc");
    });
}
