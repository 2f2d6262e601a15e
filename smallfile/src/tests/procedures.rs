//! Each procedure, as docs/wire.md has it.

use super::harness::{Rig, SMALL, file, handle_bytes, routing, run};
use crate::config::Tuning;
use bytes::BytesMut;
use slice_proto::handle::{Handle, KeyRing};
use slice_proto::ids::{Epoch, FileId, SITES_PER_ROLE, Site, TableEpoch, VolumeId, Xid};
use slice_proto::nfs3::{NfsStat3, Proc3, ReadArgs, StableHow, WriteArgs};
use slice_proto::peer::PrivateStatus;
use slice_proto::peer::data::ObjectInfo;
use slice_proto::placement::{THRESHOLD, small_site};
use slice_proto::rpc_msg::{OpaqueAuth, ReplyHeader, ReplyStatus, encode_call, program, version};
use slice_proto::trailer::{CallTrailer, ResultTrailer};
use slice_proto::xdr::Encode;
use slice_store::data_keys::TOMBSTONE_KEPT;
use std::sync::atomic::Ordering;

const UNSTABLE: StableHow = StableHow::Unstable;
const FENCED: u32 = PrivateStatus::Fenced as u32;
const OK: u32 = NfsStat3::OK.0;
const STALE: u32 = NfsStat3::STALE.0;

#[test]
fn write_commit_read() {
    run(async {
        let mut rig = Rig::new(Tuning::default()).await;
        let f = file(0);
        assert_eq!(rig.read(f, 0, 100).await, Ok((vec![], true)), "a file that was never written is empty");
        let (how, verf) = rig.write(f, 1, 5, b"hello", UNSTABLE).await.unwrap();
        assert_eq!(how, UNSTABLE);
        assert_eq!(rig.read(f, 0, 100).await, Ok((b"\0\0\0\0\0hello".to_vec(), true)));
        assert_eq!(rig.read(f, 0, 9).await, Ok((b"\0\0\0\0\0hell".to_vec(), false)));
        assert_eq!(rig.read(f, 10, 1).await, Ok((vec![], true)));
        assert_eq!(rig.commit(f).await, Ok(verf));
        assert_eq!(rig.commit(f).await, Ok(verf), "and once more, with nothing to do");
        rig.crash();
        rig.start();
        assert_eq!(rig.read(f, 4, 100).await, Ok((b"\0hello".to_vec(), true)));
        assert_ne!(rig.commit(f).await.unwrap(), verf, "another life, another verifier");
        for how in [StableHow::DataSync, StableHow::FileSync] {
            assert_eq!(rig.write(f, 1, 0, b"HE", how).await.unwrap().0, StableHow::FileSync);
        }
        assert_eq!(rig.write(f, 1, 30, b"", UNSTABLE).await.unwrap().0, UNSTABLE);
        rig.crash();
        rig.start();
        assert_eq!(
            rig.read(f, 0, 100).await,
            Ok((b"HE\0\0\0hello".to_vec(), true)),
            "nothing written, nothing grown"
        );
    });
}

#[test]
fn a_whole_object_in_every_way() {
    run(async {
        let mut rig = Rig::new(Tuning::default()).await;
        let f = file(0);
        let all: Vec<u8> = (0..THRESHOLD as u32).map(|i| (i / 7) as u8).collect();
        rig.write(f, 1, 0, &all, UNSTABLE).await.unwrap();
        for _ in 0..2 {
            for (offset, count) in
                [(0, 65_536), (0, 1 << 20), (8_192, 8_192), (100, 20_000), (65_535, 1), (8_191, 2)]
            {
                let end = (offset + count as usize).min(all.len());
                let want = (all[offset..end].to_vec(), end == all.len());
                assert_eq!(rig.read(f, offset as u64, count).await.unwrap(), want, "{offset} {count}");
            }
            rig.commit(f).await.unwrap();
        }
        // Not in the page cache: the same, later.
        rig.server().node().segments.faults.not_cached.store(2, Ordering::SeqCst);
        assert_eq!(rig.read(f, 0, 65_536).await.unwrap().0, all);
        rig.server().node().segments.faults.not_cached.store(9, Ordering::SeqCst);
        assert_eq!(rig.read(f, 9_000, 10).await.unwrap().0, all[9_000..9_010]);
        rig.server().node().segments.faults.not_cached.store(1, Ordering::SeqCst);
        rig.write(f, 1, 20_000, b"x", UNSTABLE).await.unwrap();
        assert_eq!(rig.read(f, 19_999, 3).await.unwrap().0, [all[19_999], b'x', all[20_001]]);
    });
}

#[test]
fn beyond_64_kib_the_file_has_no_end_here() {
    run(async {
        let mut rig = Rig::new(SMALL).await;
        let f = file(1);
        rig.write(f, 1, 0, b"head", UNSTABLE).await.unwrap();
        assert_eq!(rig.extend(f, 1, 1 << 20, false).await, (OK, 1));
        let zeros = |n| vec![0; n];
        assert_eq!(rig.read(f, 60_000, 5_536).await, Ok((zeros(5_536), false)));
        assert_eq!(rig.read(f, 60_000, 100_000).await, Ok((zeros(5_536), false)));
        rig.crash();
        rig.start();
        assert_eq!(rig.stat(f).await, None, "not durable, not committed");
        rig.extend(f, 1, 1 << 20, false).await;
        rig.commit(f).await.unwrap();
        rig.crash();
        rig.start();
        let info = rig.stat(f).await.unwrap();
        assert_eq!((info.size, info.beyond), (THRESHOLD, true));
        assert_eq!(rig.extend(f, 1, 5, true).await, (OK, 1), "never shrinks");
        assert!(rig.stat(f).await.unwrap().beyond);
        let g = file(2);
        assert_eq!(rig.extend(g, 1, 100, true).await, (OK, 1));
        rig.crash();
        rig.start();
        assert_eq!(rig.read(g, 0, 1000).await, Ok((zeros(100), true)));
        assert_eq!(rig.truncate(g, 2, THRESHOLD).await, (OK, 2));
        assert_eq!(rig.read(g, 65_000, 1000).await, Ok((zeros(536), true)));
        assert_eq!(rig.truncate(g, 3, THRESHOLD + 1).await, (OK, 3));
        assert_eq!(rig.read(g, 65_000, 1000).await, Ok((zeros(536), false)));
    });
}

#[test]
fn truncate_cuts_fences_and_is_durable() {
    run(async {
        let mut rig = Rig::new(SMALL).await;
        let f = file(3);
        rig.write(f, 1, 0, &[1; 20_000], UNSTABLE).await.unwrap();
        rig.commit(f).await.unwrap();
        rig.write(f, 1, 20_000, &[2; 100], UNSTABLE).await.unwrap();
        assert_eq!(rig.truncate(f, 2, 10_000).await, (OK, 2));
        assert_eq!(rig.write(f, 1, 0, b"late", UNSTABLE).await, Err(FENCED));
        assert_eq!(rig.extend(f, 1, 5, true).await, (FENCED, 2));
        assert_eq!(rig.truncate(f, 1, 0).await, (FENCED, 2));
        assert_eq!(rig.truncate(f, 2, 0).await, (OK, 2), "was done already");
        rig.crash();
        rig.start();
        assert_eq!(rig.write(f, 1, 0, b"late", UNSTABLE).await, Err(FENCED));
        assert_eq!(rig.read(f, 9_999, 100).await, Ok((vec![1], true)));
        rig.write(f, 2, 19_999, b"x", UNSTABLE).await.unwrap();
        let mut want = vec![0; 10_001];
        want[0] = 1;
        want[10_000] = b'x';
        assert_eq!(rig.read(f, 9_999, 20_000).await, Ok((want, true)), "what the growth uncovers is zeros");
        assert_eq!(rig.read(f, 0, 5).await, Ok((vec![1; 5], false)), "read with an old epoch");
    });
}

#[test]
fn purge_leaves_a_tombstone_that_is_collected_in_time() {
    run(async {
        let mut rig = Rig::new(SMALL).await;
        let (f, never) = (file(4), file(5));
        rig.write(f, 1, 0, &[1; 20_000], StableHow::FileSync).await.unwrap();
        rig.write(f, 1, 0, &[2; 5], UNSTABLE).await.unwrap();
        assert_eq!(rig.server().stats().objects, 1);
        assert_eq!(rig.purge(f, 1).await, (OK, 1), "an epoch that is not newer has been seen to");
        assert!(rig.read(f, 0, 1).await.is_ok());
        assert_eq!(rig.purge(f, 2).await, (OK, 2));
        assert_eq!(rig.purge(never, 2).await, (OK, 2));
        for _ in 0..2 {
            for f in [f, never] {
                assert_eq!(rig.read(f, 0, 1).await, Err(STALE));
                assert_eq!(rig.write(f, 2, 0, b"x", UNSTABLE).await, Err(STALE));
                assert_eq!(rig.write(f, 1, 0, b"x", UNSTABLE).await, Err(FENCED));
                assert_eq!(rig.commit(f).await, Err(STALE));
                assert_eq!(rig.extend(f, 2, 9, true).await, (STALE, 2));
                assert_eq!(rig.purge(f, 2).await, (OK, 2));
                let info =
                    ObjectInfo { file: f, epoch: Epoch(2), size: 0, used: 0, beyond: false, tombstone: true };
                assert_eq!(rig.stat(f).await, Some(info));
            }
            rig.crash();
            rig.start();
        }
        assert_eq!(rig.server().stats().objects, 0);
        let node = rig.server().node().clone();
        let kept = TOMBSTONE_KEPT.as_nanos() as u64;
        rig.clock.0.store(kept + 999, Ordering::SeqCst);
        assert_eq!(node.collect().await.unwrap(), 0, "not yet");
        rig.clock.0.store(kept + 1_000, Ordering::SeqCst);
        assert_eq!(node.collect().await.unwrap(), 2);
        assert_eq!(node.collect().await.unwrap(), 0);
        drop(node);
        assert_eq!(rig.list(FileId(0), 10).await, []);
        rig.shutdown().await;
        rig.start();
        assert_eq!(rig.list(FileId(0), 10).await, []);
        assert_eq!(rig.server().node().segments.live().values().sum::<u64>(), 0);
    });
}

#[test]
fn a_tombstone_stays_for_its_time_whatever_the_time_of_day() {
    run(async {
        let mut rig = Rig::new(Tuning::default()).await;
        let clock = rig.clock.clone();
        let kept = TOMBSTONE_KEPT.as_nanos() as u64;
        let again = |rig: &mut Rig| {
            rig.crash();
            rig.start();
        };
        // The first in a life whose clock is a day ahead, the second when it was set right.
        clock.1.store(24 * kept, Ordering::SeqCst);
        again(&mut rig);
        assert_eq!(rig.purge(file(0), 2).await, (OK, 2));
        clock.1.store(0, Ordering::SeqCst);
        again(&mut rig);
        assert_eq!(rig.purge(file(1), 2).await, (OK, 2));
        // A leap ages nothing, in this life or in the next.
        clock.1.store(48 * kept, Ordering::SeqCst);
        assert_eq!(rig.server().node().collect().await.unwrap(), 0);
        again(&mut rig);
        clock.0.fetch_add(kept - 1, Ordering::SeqCst);
        assert_eq!(rig.server().node().collect().await.unwrap(), 0);
        clock.1.store(0, Ordering::SeqCst);
        again(&mut rig);
        // And neither is kept for ever.
        clock.0.fetch_add(kept, Ordering::SeqCst);
        assert_eq!(rig.server().node().collect().await.unwrap(), 2);
        assert_eq!(rig.list(FileId(0), 10).await, []);
    });
}

#[test]
fn list_pages_in_order() {
    run(async {
        let mut rig = Rig::new(SMALL).await;
        let mut files: Vec<FileId> = (0..50).map(file).collect();
        for (n, f) in files.iter().enumerate() {
            let stable = if n % 2 == 0 { StableHow::FileSync } else { UNSTABLE };
            rig.write(*f, 1, 0, &vec![1; n + 1], stable).await.unwrap();
        }
        rig.purge(files[7], 2).await;
        files.sort_unstable();
        let (mut got, mut after) = (Vec::new(), FileId(0));
        loop {
            let page = rig.list(after, 7).await;
            got.extend(page.iter().map(|o| o.file));
            match page.last() {
                Some(last) if page.len() == 7 => after = last.file,
                _ => break,
            }
        }
        assert_eq!(got, files);
        let all = rig.list(FileId(0), 1000).await;
        assert_eq!((all[9].size, all[9].tombstone, all[7].tombstone), (10, false, true));
        assert_eq!(rig.server().stats().ops.iter().find(|(n, _)| n == "WRITE").unwrap().1, 50);
    });
}

#[test]
fn nothing_is_executed_at_the_wrong_server() {
    run(async {
        let mut rig = Rig::new(SMALL).await;
        let theirs = (1..).map(|s| FileId::new(Site(3), s));
        let theirs =
            theirs.into_iter().find(|f| usize::from(small_site(*f).0) == SITES_PER_ROLE - 1).unwrap();
        let wrong = PrivateStatus::WrongSite as u32;
        assert_eq!(rig.read(theirs, 0, 1).await, Err(wrong));
        assert_eq!(rig.write(theirs, 1, 0, b"x", UNSTABLE).await, Err(wrong));
        assert_eq!(rig.commit(theirs).await, Err(wrong));
        assert_eq!(rig.truncate(theirs, 1, 0).await, (wrong, 0));
        assert_eq!(rig.purge(theirs, 1).await, (wrong, 0));
        assert_eq!(rig.extend(theirs, 1, 0, true).await, (wrong, 0));
        // A sender with a newer table waits until we have it.
        rig.table = TableEpoch(2);
        let (f, record) = (file(0), |rig: &mut Rig| {
            let handle = handle_bytes(file(0));
            rig.nfs_record(Proc3::Read, &ReadArgs { file: &handle, offset: 0, count: 1 }, Epoch(0))
        });
        let record = record(&mut rig);
        {
            let mut waiting = Box::pin(rig.record(record));
            tokio::select! { biased;
                _ = &mut waiting => panic!("answered by an older table"),
                () = tokio::task::yield_now() => {}
            }
            rig.sender.publish(routing(2));
            let reply = waiting.await.unwrap();
            assert_eq!(ResultTrailer::split(&reply).unwrap().1.table, TableEpoch(2));
        }
        // A sender with an older one is served as long as the site is ours.
        rig.table = TableEpoch(1);
        assert!(rig.read(f, 0, 1).await.is_ok());
        // Ours by the table, but the store never heard of it.
        let site = usize::from(small_site(f).0);
        rig.server().node().stamped[site].store(false, Ordering::SeqCst);
        let unstamped = PrivateStatus::Unstamped as u32;
        assert_eq!(rig.read(f, 0, 1).await, Err(unstamped));
        assert_eq!(rig.write(f, 1, 0, b"x", UNSTABLE).await, Err(unstamped));
        rig.crash();
        rig.start();
        assert!(rig.read(f, 0, 1).await.is_ok(), "stamps are durable");
    });
}

#[test]
fn bad_calls_get_clean_errors() {
    run(async {
        let mut rig = Rig::new(SMALL).await;
        let f = file(0);
        let inval = NfsStat3::INVAL.0;
        assert_eq!(rig.read(f, THRESHOLD, 1).await, Err(inval));
        assert_eq!(rig.read(f, u64::MAX, 1).await, Err(inval));
        assert_eq!(rig.write(f, 1, THRESHOLD - 1, b"xy", UNSTABLE).await, Err(inval));
        assert_eq!(rig.write(f, 1, THRESHOLD, b"", UNSTABLE).await, Err(inval));
        assert_eq!(rig.read(f, 0, u32::MAX).await, Ok((vec![], true)));

        let status = |reply: BytesMut| ReplyHeader::decode(&reply).unwrap().status;
        let word = |reply: &BytesMut| {
            let at = ReplyHeader::decode(reply).unwrap().body_at;
            u32::from_be_bytes(reply[at..at + 4].try_into().unwrap())
        };
        // Forged, of a directory, of a snapshot.
        let seal = |ftype, snapshot| {
            let keys = KeyRing::new(&super::harness::identity(), 0);
            keys.seal(&Handle { ftype, volume: VolumeId(0), policy: 0, file: f, snapshot })
        };
        let mut forged = handle_bytes(f);
        forged[20] ^= 1;
        for (handle, want) in [
            (forged, NfsStat3::BADHANDLE),
            (seal(2, 0), NfsStat3::ISDIR),
            (seal(1, 9), NfsStat3::ROFS),
            (seal(5, 0), NfsStat3::INVAL),
        ] {
            let record =
                rig.nfs_record(Proc3::Read, &ReadArgs { file: &handle, offset: 0, count: 1 }, Epoch(0));
            assert_eq!(word(&rig.record(record).await.unwrap()), want.0);
        }
        // A count that is not the data's.
        let handle = handle_bytes(f);
        let args = WriteArgs { file: &handle, offset: 0, count: 9, stable: UNSTABLE, data: b"x" };
        let record = rig.nfs_record(Proc3::Write, &args, Epoch(1));
        assert_eq!(word(&rig.record(record).await.unwrap()), inval);
        // Not ours to answer, not decodable, not a call.
        let record = rig.nfs_record(Proc3::Getattr, &0u32, Epoch(1));
        assert_eq!(status(rig.record(record).await.unwrap()), ReplyStatus::ProcUnavail);
        let record = rig.nfs_record(Proc3::Read, &7u32, Epoch(1));
        assert_eq!(status(rig.record(record).await.unwrap()), ReplyStatus::GarbageArgs);
        let record = rig.nfs_record(Proc3::Null, &(), Epoch(1));
        assert_eq!(status(rig.record(record).await.unwrap()), ReplyStatus::Success);
        let call = |prog, vers, proc| {
            let mut w = BytesMut::new();
            encode_call(&mut w, Xid(1), prog, vers, proc, &OpaqueAuth::NONE);
            w
        };
        let mut with_trailer = call(program::NFS, 4, 1);
        CallTrailer::default().append(&mut with_trailer);
        let mismatch = ReplyStatus::ProgMismatch { low: 3, high: 3 };
        assert_eq!(status(rig.record(with_trailer).await.unwrap()), mismatch);
        assert_eq!(status(rig.record(call(99, 1, 0)).await.unwrap()), ReplyStatus::ProgUnavail);
        assert!(rig.record(call(program::NFS, version::NFS3, 6)).await.is_none(), "no trailer");
        assert!(rig.record(BytesMut::from(&b"\0\0\0\x01\0\0\0\x01"[..])).await.is_none());
        let peer = slice_proto::peer::PROGRAM;
        assert_eq!(status(rig.record(call(peer, 1, 30)).await.unwrap()), ReplyStatus::GarbageArgs);
        assert_eq!(status(rig.record(call(peer, 1, 77)).await.unwrap()), ReplyStatus::ProcUnavail);
        let mut long = call(peer, 1, 33);
        slice_proto::peer::data::StatArgs { table: TableEpoch(1), file: f }.encode(&mut long);
        0u32.encode(&mut long);
        assert_eq!(status(rig.record(long).await.unwrap()), ReplyStatus::GarbageArgs);
    });
}
