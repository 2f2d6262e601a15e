//! Each procedure alone.

use super::harness::*;
use slice_proto::ids::{Epoch, FileId, ServerId, Site};
use slice_proto::nfs3::{NfsStat3, Proc3, ReadArgs, StableHow};
use slice_proto::peer::PrivateStatus;
use slice_proto::placement::{MAX_FILE_SIZE, STRIPE_UNIT, THRESHOLD, block_site};
use std::os::unix::fs::MetadataExt;

const F: FileId = FileId(0x0001_0000_0000_0042);
const MIB: u64 = 1 << 20;

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

#[test]
fn what_was_written_is_read_and_holes_are_zeros() {
    run(async || {
        let h = Harness::new(|_| true).await;
        assert_eq!(h.read(F, THRESHOLD, 100).await, Ok((vec![], true)), "nothing yet");
        let data = pattern(MIB as usize, 1);
        h.put(F, 1, 3 * MIB, &data).await;
        assert_eq!(h.read(F, 3 * MIB, MIB as u32).await, Ok((data.clone(), false)), "by the buffer");
        assert_eq!(h.read(F, 3 * MIB + 7, 1000).await, Ok((data[7..1007].to_vec(), false)), "in the head");
        assert_eq!(h.read(F, 4 * MIB - 5, 100).await, Ok((data[data.len() - 5..].to_vec(), true)));
        assert_eq!(h.read(F, 4 * MIB, 100).await, Ok((vec![], true)));
        assert_eq!(h.read(F, THRESHOLD, 5).await, Ok((vec![0; 5], false)), "a hole");
        assert_eq!(h.read(F, MIB, 0).await, Ok((vec![], false)));
        // Unaligned, odd lengths: padding.
        h.put(F, 1, MIB + 1, b"abc").await;
        assert_eq!(h.read(F, MIB, 5).await, Ok((b"\0abc\0".to_vec(), false)));
    });
}

#[test]
fn sparse_files_stay_sparse() {
    run(async || {
        let h = Harness::new(|_| true).await;
        h.put(F, 1, 1 << 40, &pattern(4096, 0)).await;
        let path = h.node().node.layout.path(F);
        let meta = std::fs::metadata(path).unwrap();
        assert_eq!(meta.len(), (1 << 40) + 4096);
        assert!(meta.blocks() * 512 <= 64 << 10, "{} blocks", meta.blocks());
        let info = h.stat(F).await.unwrap();
        assert_eq!((info.size, info.tombstone, info.beyond), ((1 << 40) + 4096, false, false));
        assert!(info.used <= 64 << 10);
    });
}

#[test]
fn bad_ranges_and_handles_are_refused() {
    run(async || {
        let h = Harness::new(|_| true).await;
        let w = async |offset, data: &[u8]| {
            h.write(F, 1, offset, data, StableHow::Unstable).await.map(|_| ()).unwrap_err()
        };
        assert_eq!(w(THRESHOLD - 1, b"ab").await, NfsStat3::INVAL.0);
        assert_eq!(w(MAX_FILE_SIZE - 1, b"ab").await, NfsStat3::FBIG.0);
        assert_eq!(w(u64::MAX, b"ab").await, NfsStat3::FBIG.0);
        assert_eq!(h.read(F, 0, 10).await, Err(NfsStat3::INVAL.0));
        let mut bad = h.handle(F);
        bad[20] ^= 1;
        let args = ReadArgs { file: &bad, offset: MIB, count: 1 };
        let body = h.send(h.nfs_record(Proc3::Read, &args, Epoch(1))).await;
        assert_eq!(&body[..4], NfsStat3::BADHANDLE.0.to_be_bytes());
        assert_eq!(h.stat(F).await, None, "nothing came of it");
    });
}

#[test]
fn only_bytes_of_our_stamped_sites_are_served() {
    run(async || {
        let ours = block_site(F, MIB);
        let mut h = Harness::new(|s| Site(s) == ours).await;
        h.put(F, 1, MIB, b"ours").await;
        let wrong = PrivateStatus::WrongSite as u32;
        let two = pattern(2, 0);
        for offset in [MIB - 1, 2 * MIB - 1, 2 * MIB] {
            let got = h.write(F, 1, offset, &two, StableHow::Unstable).await;
            assert_eq!(got.unwrap_err(), wrong, "WRITE at {offset}");
            assert_eq!(h.read(F, offset, 2).await, Err(wrong), "READ at {offset}");
        }
        // The table deals us another site, but nobody stamped it here.
        let next = block_site(F, 2 * MIB);
        h.tables.publish(table(2, |s| Site(s) == ours || Site(s) == next));
        assert_eq!(h.read(F, 2 * MIB, 2).await, Err(PrivateStatus::Unstamped as u32));
        assert!(h.read(F, MIB, 2).await.is_ok(), "an older caller's call of our site is executed");
        h.node().adopt(&[next], &[]).await.unwrap();
        h.put(F, 1, 2 * MIB - 1, &two).await;
        // Stamps are durable.
        h.crash().await;
        assert_eq!(h.read(F, 2 * MIB - 1, 2).await, Ok((two, false)));
        // A purge of a site that went to another server.
        h.tables.publish(table(3, |_| false));
        let sites = slice_proto::peer::data::Sites(vec![ours]);
        let args = slice_proto::peer::data::PurgeArgs { table: TABLE, sites, file: F, epoch: Epoch(2) };
        let res: slice_proto::peer::data::DataRes =
            h.private(slice_proto::peer::PeerProc::Purge, &args).await;
        assert_eq!(res.status, wrong);
    });
}

#[test]
fn a_caller_with_a_newer_table_waits_for_ours() {
    run(async || {
        let mut h = Harness::new(|_| true).await;
        h.sender = slice_proto::ids::TableEpoch(5);
        let fh = h.handle(F);
        let record = h.nfs_record(Proc3::Read, &ReadArgs { file: &fh, offset: MIB, count: 1 }, Epoch(1));
        let node = h.node().clone();
        let waits = tokio::task::spawn_local(async move { send(&node, record).await });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        h.tables.publish(table(5, |_| false));
        let reply = waits.await.unwrap().unwrap();
        let status = &reply[24..28];
        assert_eq!(status, (PrivateStatus::WrongSite as u32).to_be_bytes());
    });
}

#[test]
fn unstable_writes_become_durable_with_a_commit_of_the_same_verifier() {
    run(async || {
        let mut h = Harness::new(|_| true).await;
        let (n, verf) = h.write(F, 1, MIB, b"abc", StableHow::Unstable).await.unwrap();
        assert_eq!(n, 3);
        assert_eq!(h.write(F, 1, MIB + 3, b"def", StableHow::DataSync).await.unwrap(), (3, verf));
        assert_eq!(h.commit(F).await, Ok(verf));
        assert_eq!(h.commit(F).await, Ok(verf), "nothing left to do");
        assert_eq!(h.commit(FileId(77)).await, Ok(verf), "an object that is not there");
        h.crash().await;
        assert_ne!(h.commit(F).await.unwrap(), verf, "another life, another verifier");
        assert_eq!(h.read(F, MIB, 6).await, Ok((b"abcdef".to_vec(), false)));
    });
}

#[test]
fn many_commit_at_once() {
    run(async || {
        let h = Harness::new(|_| true).await;
        let node = h.node().clone();
        let fh = h.handle(F);
        let mut all = Vec::new();
        for i in 0..64u64 {
            let data = pattern(1000, i as u8);
            let args = slice_proto::nfs3::WriteArgs {
                file: &fh,
                offset: MIB + i * 1000,
                count: 1000,
                stable: StableHow::FileSync,
                data: &data,
            };
            let record = h.nfs_record(Proc3::Write, &args, Epoch(1));
            let node = node.clone();
            all.push(tokio::task::spawn_local(async move { send(&node, record).await.unwrap() }));
        }
        for reply in all {
            assert_eq!(&reply.await.unwrap()[24..28], [0; 4]);
        }
        for i in 0..64u64 {
            assert_eq!(h.read(F, MIB + i * 1000, 1000).await.unwrap().0, pattern(1000, i as u8));
        }
    });
}

#[test]
fn what_a_truncate_cut_off_reads_as_zeros_when_the_file_grows_again() {
    run(async || {
        let mut h = Harness::new(|_| true).await;
        h.put(F, 1, MIB, &[7; 5000]).await;
        assert_eq!(h.truncate(F, 2, MIB + 10).await, Ok(Epoch(2)));
        assert_eq!(h.read(F, MIB, 5000).await, Ok((vec![7; 10], true)));
        h.put(F, 2, MIB + 4999, &[8]).await;
        let mut want = vec![7; 10];
        want.resize(4999, 0);
        want.push(8);
        assert_eq!(h.read(F, MIB, 5000).await, Ok((want.clone(), false)));
        // Durable, as is its epoch; and again, it does nothing.
        h.crash().await;
        assert_eq!(h.truncate(F, 2, MIB + 10).await, Ok(Epoch(2)));
        assert_eq!(h.read(F, MIB, 5000).await, Ok((want, false)));
        // Growing is none of our business; cutting at the threshold leaves nothing.
        assert_eq!(h.truncate(F, 3, 1 << 30).await, Ok(Epoch(3)));
        assert_eq!(h.stat(F).await.unwrap().size, MIB + 5000);
        assert_eq!(h.truncate(F, 4, 100).await, Ok(Epoch(4)));
        assert_eq!(h.stat(F).await.unwrap().size, 0);
        assert_eq!(h.read(F, MIB, 10).await, Ok((vec![], true)));
    });
}

#[test]
fn a_purge_leaves_a_tombstone_for_its_time() {
    run(async || {
        let mut h = Harness::new(|_| true).await;
        h.put(F, 1, MIB, &[7; 5000]).await;
        let path = h.node().node.layout.path(F);
        assert_eq!(h.purge(F, 2).await, Ok(Epoch(2)));
        assert!(!path.exists());
        assert_eq!(h.read(F, MIB, 10).await, Ok((vec![], true)));
        assert_eq!(h.commit(F).await.map(drop), Ok(()));
        let fenced = PrivateStatus::Fenced as u32;
        let write = async |h: &Harness, epoch| h.write(F, epoch, MIB, b"x", StableHow::Unstable).await;
        assert_eq!(write(&h, 1).await.unwrap_err(), fenced);
        assert_eq!(write(&h, 2).await.unwrap_err(), NfsStat3::STALE.0);
        h.crash().await;
        assert_eq!(write(&h, 1).await.unwrap_err(), fenced, "the tombstone is durable");
        let info = h.stat(F).await.unwrap();
        assert_eq!((info.tombstone, info.epoch, info.size), (true, Epoch(2), 0));
        // As if the removal had not been durable.
        std::fs::write(&path, vec![1; 3 << 20]).unwrap();
        h.crash().await;
        assert_eq!(h.read(F, MIB, 10).await, Ok((vec![], true)));
        assert!(!path.exists());

        let kept = slice_store::data_keys::TOMBSTONE_KEPT.as_nanos() as u64;
        let clock = h.clock.clone();
        clock.0.fetch_add(kept - 1, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(h.node().node.collect().await.unwrap(), 0);
        clock.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(h.node().node.collect().await.unwrap(), 1);
        assert_eq!(h.node().node.collect().await.unwrap(), 0);
        assert_eq!(h.stat(F).await, None);
        assert!(!path.parent().unwrap().exists(), "the empty directory went with it");
        h.crash().await;
        assert_eq!(h.list(FileId(0), 10).await, []);
    });
}

#[test]
fn a_tombstone_stays_for_its_time_whatever_the_time_of_day() {
    use std::sync::atomic::Ordering::SeqCst;
    run(async || {
        let mut h = Harness::new(|_| true).await;
        let clock = h.clock.clone();
        let kept = slice_store::data_keys::TOMBSTONE_KEPT.as_nanos() as u64;
        // The first in a life whose clock is a day ahead, the second when it was set right.
        clock.1.store(24 * kept, SeqCst);
        h.crash().await;
        let (ahead, right) = (FileId(0x0100), FileId(0x0200));
        assert_eq!(h.purge(ahead, 2).await, Ok(Epoch(2)));
        clock.1.store(0, SeqCst);
        h.crash().await;
        assert_eq!(h.purge(right, 2).await, Ok(Epoch(2)));
        // A leap ages nothing, in this life or in the next.
        clock.1.store(48 * kept, SeqCst);
        assert_eq!(h.node().node.collect().await.unwrap(), 0);
        h.crash().await;
        clock.0.fetch_add(kept - 1, SeqCst);
        assert_eq!(h.node().node.collect().await.unwrap(), 0);
        clock.1.store(0, SeqCst);
        h.crash().await;
        // And neither is kept for ever.
        clock.0.fetch_add(kept, SeqCst);
        assert_eq!(h.node().node.collect().await.unwrap(), 2);
        assert_eq!(h.list(FileId(0), 10).await, []);
    });
}

#[test]
fn objects_and_tombstones_are_listed_in_pages() {
    run(async || {
        let h = Harness::new(|_| true).await;
        let id = |i: u64| FileId::new(Site((i % 3) as u16), 1 + i * 1500);
        for i in 0..20 {
            h.put(id(i), 1, MIB, &[1; 10]).await;
            if i % 4 == 0 {
                h.purge(id(i), 2).await.unwrap();
            }
        }
        let mut want: Vec<_> = (0..20).map(|i| (id(i), i % 4 == 0)).collect();
        want.sort_unstable();
        for limit in [1, 3, 7, 20, 100] {
            let (mut got, mut after) = (Vec::new(), FileId(0));
            loop {
                let page = h.list(after, limit).await;
                got.extend(page.iter().map(|o| (o.file, o.tombstone)));
                let Some(last) = page.last().filter(|_| page.len() == limit as usize) else { break };
                after = last.file;
            }
            assert_eq!(got, want, "limit {limit}");
        }
    });
}

#[test]
fn a_plain_file_costs_the_store_nothing() {
    run(async || {
        let h = Harness::new(|_| true).await;
        h.put(F, 1, MIB, &[1; 10]).await;
        let store = &h.node().node.store;
        assert_eq!(store.get(&slice_store::data_keys::object_key(F)).unwrap(), None);
        h.put(F, 2, MIB, &[1; 10]).await;
        assert!(store.get(&slice_store::data_keys::object_key(F)).unwrap().is_some());
    });
}

#[test]
fn a_write_in_parts_is_a_write() {
    run(async || {
        use slice_rpc::service::{Message, Service};
        let h = Harness::new(|_| true).await;
        let (fh, data) = (h.handle(F), pattern(10_001, 4));
        let args = slice_proto::nfs3::WriteArgs {
            file: &fh,
            offset: MIB,
            count: 10_001,
            stable: StableHow::Unstable,
            data: &data,
        };
        h.put(F, 1, MIB, b"warm").await;
        let mut head = h.nfs_record(Proc3::Write, &args, Epoch(1));
        let tail = head.split_off(head.len() - 48 - 3);
        let body = head.split_off(head.len() - data.len()).freeze();
        let mut reply = Message::default();
        let peer = slice_rpc::service::Peer { addr: ([0, 0, 0, 0], 0).into(), proved: None };
        h.node().call_message(&peer, Message { head, body, tail }, &mut reply);
        assert_eq!(&reply.head[24..28], [0; 4]);
        assert_eq!(h.read(F, MIB, 10_001).await, Ok((data, false)));
    });
}

#[test]
fn calls_that_are_none_are_refused() {
    run(async || {
        use slice_proto::rpc_msg::{OpaqueAuth, ReplyHeader, ReplyStatus, encode_call, program};
        let h = Harness::new(|_| true).await;
        let node = h.node();
        let status = async |prog, vers, proc, trailer: bool| {
            let mut w = bytes::BytesMut::new();
            encode_call(&mut w, slice_proto::ids::Xid(9), prog, vers, proc, &OpaqueAuth::NONE);
            if trailer {
                slice_proto::trailer::CallTrailer::default().append(&mut w);
            }
            send(node, w).await.map(|r| ReplyHeader::decode(&r).unwrap().status)
        };
        assert_eq!(status(program::NFS, 3, 0, true).await, Some(ReplyStatus::Success));
        assert_eq!(status(program::NFS, 3, 6, true).await, Some(ReplyStatus::GarbageArgs));
        assert_eq!(status(program::NFS, 3, 1, true).await, Some(ReplyStatus::ProcUnavail));
        assert_eq!(status(program::NFS, 3, 6, false).await, None, "no trailer");
        assert_eq!(
            status(program::NFS, 4, 0, true).await,
            Some(ReplyStatus::ProgMismatch { low: 3, high: 3 })
        );
        assert_eq!(status(1, 1, 1, false).await, Some(ReplyStatus::ProgUnavail));
        let program = slice_proto::peer::PROGRAM;
        assert_eq!(status(program, 1, 0, false).await, Some(ReplyStatus::Success));
        assert_eq!(status(program, 1, 30, false).await, Some(ReplyStatus::GarbageArgs));
        assert_eq!(status(program, 1, 20, false).await, Some(ReplyStatus::ProcUnavail));
        assert_eq!(send(node, bytes::BytesMut::from(&b"no call"[..])).await, None);
        assert_eq!(h.node().stats().ops.iter().map(|(_, n)| n).sum::<u64>(), 1);
    });
}

#[test]
fn another_servers_directory_is_refused() {
    run(async || {
        let mut h = Harness::new(|_| true).await;
        h.block = None;
        let config = crate::BlockConfig { server: ServerId(8), ..h.config() };
        let (_tx, tables) = slice_rpc::tables::tables();
        let directory = slice_rpc::Directory::new(None);
        let clock = std::sync::Arc::new(slice_rpc::clock::SystemClock);
        let got = crate::BlockStore::open(config, tables, directory, clock).await;
        assert!(matches!(got, Err(crate::Error::Store(slice_store::Error::OtherServer { .. }))));
        assert!(crate::BlockStore::format(&h.config()).is_err());
    });
}

#[test]
fn the_stripe_unit_is_what_the_wire_says() {
    assert_eq!(STRIPE_UNIT, MIB);
}
