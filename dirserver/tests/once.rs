//! I10: a retransmission gets the first answer, whenever it comes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Client, Cluster, run};
use slice_proto::nfs3::types::DirOp;
use slice_proto::nfs3::{
    CreateArgs, CreateHow, NfsStat3, Proc3, RemoveArgs, RenameArgs, Sattr3, SetattrArgs,
};
use slice_proto::peer::PeerProc;
use slice_proto::placement::entry_site;
use slice_proto::table::NamePolicy;

#[test]
fn a_retransmission_gets_the_same_bytes_also_after_a_restart() {
    for policy in [NamePolicy::Partition, NamePolicy::Hash] {
        run(async || {
            let mut c = Cluster::new(2, policy).await;
            let root = Client::root(&c);
            let top = root.root_fh();
            for name in [&b"a"[..], b"b", b"c", b"d"] {
                let server = root.owner(entry_site(root.volume(), root.open(&top).file, name));
                let at = DirOp { dir: &top, name };
                let how = CreateHow::Guarded(Sattr3::default());
                let create = root.record(Proc3::Create, &CreateArgs { at, how });
                let first = root.send(server, create.clone()).await;
                assert_eq!(root.send(server, create.clone()).await, first);
                c.restart(server.0 as usize - 1).await;
                assert_eq!(root.send(server, create.clone()).await, first, "after a restart");
                let remove = root.record(Proc3::Remove, &RemoveArgs { object: at });
                let first = root.send(server, remove.clone()).await;
                assert_eq!(first[..4], [0; 4]);
                c.restart(server.0 as usize - 1).await;
                assert_eq!(root.send(server, remove).await, first);
                assert_eq!(root.lookup(&top, name).await.map(|_| ()), Err(NfsStat3::NOENT));
                // Under the old xid, but with other arguments, it is another call.
                root.set_xid(root.xid() - 2);
                let other = CreateHow::Guarded(Sattr3 { mode: Some(0o600), ..Sattr3::default() });
                root.create(&top, name, other).await.unwrap();
            }
            c.settle().await;
            common::check::consistent(&c).await;
        });
    }
}

#[test]
fn a_late_truncate_cuts_nothing_a_second_time() {
    run(async || {
        let c = Cluster::new(1, NamePolicy::Partition).await;
        let root = Client::root(&c);
        let top = root.root_fh();
        let f = root.file(&top, b"f", 0o644).await.unwrap();
        let server = root.owner(root.open(&f).file.home());
        let attr = Sattr3 { size: Some(0), ..Sattr3::default() };
        let cut = root.record(Proc3::Setattr, &SetattrArgs { object: &f, attr, guard: None });
        let first = root.send(server, cut.clone()).await;
        let epoch = root.stamp(&f).await.epoch;
        root.truncate(&f, 100_000).await.unwrap();
        assert_eq!(root.send(server, cut).await, first);
        assert_eq!(root.getattr(&f).await.unwrap().size, 100_000);
        assert_eq!(root.stamp(&f).await.epoch, epoch, "growth past the reach takes no new epoch");
        root.truncate(&f, 0).await.unwrap();
        let epoch = root.stamp(&f).await.epoch;
        root.truncate(&f, 5000).await.unwrap();
        assert!(
            root.stamp(&f).await.epoch > epoch,
            "within the reach there may be bytes that nobody told of"
        );
    });
}

#[test]
fn a_duplicate_waits_for_the_first_and_gets_its_answer() {
    run(async || {
        let c = Cluster::new(2, NamePolicy::Hash).await;
        let root = Client::root(&c);
        let top = root.root_fh();
        let top_server = root.owner(root.open(&top).file.home());
        // A name whose entry is not at the root's home: a hold is needed, and stands before the door.
        let name = (0..100)
            .map(|i| format!("x{i}").into_bytes())
            .find(|n| root.owner(entry_site(root.volume(), root.open(&top).file, n)) != top_server)
            .unwrap();
        let server = root.owner(entry_site(root.volume(), root.open(&top).file, &name));
        let door = &c.doors[top_server.0 as usize - 1];
        door.close_to(&[PeerProc::Confirm]);
        let how = CreateHow::Guarded(Sattr3::default());
        let create = root.record(Proc3::Create, &CreateArgs { at: DirOp { dir: &top, name: &name }, how });
        let channel = c.directory.channel(server).unwrap();
        let first = channel.call(create.clone().into());
        while door.waiting() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let second = channel.call(create.into());
        tokio::pin!(first, second);
        let early = tokio::time::timeout(std::time::Duration::from_millis(50), &mut second).await;
        assert!(early.is_err(), "the duplicate must not be answered before the first");
        drop(early);
        // The confirm stands before the door for ever; its server dies, and the next life gets it again.
        door.open();
        let mut c = c;
        c.restart(top_server.0 as usize - 1).await;
        let (a, b) = tokio::join!(first, second);
        assert_eq!(a.unwrap()[4..], b.unwrap()[4..]);
        c.settle().await;
        common::check::consistent(&c).await;
    });
}

#[test]
fn what_succeeded_without_a_change_changes_nothing_later() {
    for policy in [NamePolicy::Partition, NamePolicy::Hash] {
        run(async || {
            let mut c = Cluster::new(2, policy).await;
            let root = Client::root(&c);
            let top = root.root_fh();
            let entry = |name: &[u8]| root.owner(entry_site(root.volume(), root.open(&top).file, name));
            for n in 0..4 {
                let (name, link) = (format!("name{n}").into_bytes(), format!("link{n}").into_bytes());
                let f = root.file(&top, &name, 0o644).await.unwrap();
                root.link(&f, &top, &link).await.unwrap();
                // Found; and moved to another name of the same file.
                let (at, to) = (DirOp { dir: &top, name: &name }, DirOp { dir: &top, name: &link });
                let how = CreateHow::Unchecked(Sattr3::default());
                let create = root.record(Proc3::Create, &CreateArgs { at, how });
                let rename = root.record(Proc3::Rename, &RenameArgs { from: at, to });
                let found = root.send(entry(&name), create.clone()).await;
                let same = root.send(entry(&link), rename.clone()).await;
                assert_eq!((&found[..4], &same[..4]), (&[0; 4][..], &[0; 4][..]));
                // Names change; then the same calls come again, late.
                root.remove(&top, &link).await.unwrap();
                assert_eq!(root.send(entry(&link), rename.clone()).await, same);
                root.remove(&top, &name).await.unwrap();
                for server in [entry(&name), entry(&link)] {
                    c.restart(server.0 as usize - 1).await;
                }
                assert_eq!(root.send(entry(&name), create).await, found);
                assert_eq!(root.send(entry(&link), rename).await, same);
                for gone in [&name, &link] {
                    assert_eq!(root.lookup(&top, gone).await.map(|_| ()), Err(NfsStat3::NOENT));
                }
            }
            c.settle().await;
            common::check::consistent(&c).await;
        });
    }
}

#[test]
fn what_was_refused_is_not_done_later() {
    for policy in [NamePolicy::Partition, NamePolicy::Hash] {
        run(async || {
            let c = Cluster::new(2, policy).await;
            let root = Client::root(&c);
            let top = root.root_fh();
            let to = DirOp { dir: &top, name: b"to" };
            let server = root.owner(entry_site(root.volume(), root.open(&top).file, b"to"));
            let args = RenameArgs { from: DirOp { dir: &top, name: b"from" }, to };
            let rename = root.record(Proc3::Rename, &args);
            let first = root.send(server, rename.clone()).await;
            assert_eq!(first[..4], NfsStat3::NOENT.0.to_be_bytes());
            // The client has its answer, and goes on; then a copy comes that was long on its way.
            root.file(&top, b"from", 0o644).await.unwrap();
            assert_eq!(root.send(server, rename.clone()).await, first);
            root.lookup(&top, b"from").await.unwrap();
            // Only so many are kept: after that, it is executed anew.
            for _ in 0..64 {
                assert_eq!(root.mkdir(&top, b"from", 0o755).await, Err(NfsStat3::EXIST));
                assert_eq!(root.remove(&top, b"to").await, Err(NfsStat3::NOENT));
            }
            assert_eq!(root.send(server, rename).await[..4], [0; 4]);
        });
    }
}

#[test]
fn the_ring_of_a_client_goes_round() {
    run(async || {
        let mut c = Cluster::new(1, NamePolicy::Partition).await;
        let root = Client::root(&c);
        let top = root.root_fh();
        let server = root.owner(root.open(&top).file.home());
        let how = CreateHow::Guarded(Sattr3::default());
        let first = root.record(Proc3::Create, &CreateArgs { at: DirOp { dir: &top, name: b"first" }, how });
        root.send(server, first.clone()).await;
        let records: Vec<_> = (0..1200)
            .map(|i| {
                let name = format!("f{i}").into_bytes();
                root.record(Proc3::Create, &CreateArgs { at: DirOp { dir: &top, name: &name }, how })
            })
            .collect();
        let channel = c.directory.channel(server).unwrap();
        let calls = records.iter().map(|r| channel.call(r.clone().into()));
        let replies: Vec<_> =
            futures_util::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
        // Long ago: it is executed anew, and finds itself.
        assert_eq!(root.send(server, first).await[..4], NfsStat3::EXIST.0.to_be_bytes());
        c.restart(0).await;
        let channel = c.directory.channel(server).unwrap();
        for i in [1199, 900, 300] {
            let again = channel.call(records[i].clone().into()).await.unwrap();
            assert_eq!(again[4..], replies[i][4..], "reply {i}");
        }
    });
}
