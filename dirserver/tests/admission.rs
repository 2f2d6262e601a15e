//! I4: nothing is executed at the wrong server, or without the site's stamp; and bad input is answered, not obeyed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use bytes::BytesMut;
use common::{Client, Cluster, run};
use proptest::prelude::*;
use slice_proto::handle::Handle;
use slice_proto::ids::{FileId, ServerId, Site, TableEpoch, VolumeId};
use slice_proto::nfs3::types::DirOp;
use slice_proto::nfs3::{
    CookieVerf, CreateArgs, CreateHow, GetattrArgs, LookupArgs, NfsStat3, Proc3, ReaddirArgs, Sattr3,
};
use slice_proto::peer::{PeerProc, PrivateStatus};
use slice_proto::rpc_msg::{ReplyHeader, ReplyStatus};
use slice_proto::table::NamePolicy;
use slice_proto::trailer::ResultTrailer;
use slice_rpc::service::{Handled, Message, Peer, Service};

fn status(result: &[u8]) -> u32 {
    u32::from_be_bytes(result[..4].try_into().unwrap())
}

fn made_up(client: &Client, site: Site, volume: u32, ftype: u8) -> Vec<u8> {
    let file = FileId::new(site, 1 << 30);
    client.seal(&Handle { ftype, volume: VolumeId(volume), policy: 0, file, snapshot: 0 })
}

#[test]
fn another_servers_site_is_refused() {
    run(async || {
        let c = Cluster::new(2, NamePolicy::MkdirSwitching { affinity_ppm: 1_000_000 }).await;
        let root = Client::root(&c);
        // Sites are dealt in turn: site 0 to server 1, site 1 to server 2.
        let fh = made_up(&root, Site(0), 0, 2);
        let wrong = ServerId(2);
        let at = DirOp { dir: &fh, name: b"x" };
        let how = CreateHow::Guarded(Sattr3::default());
        let records = [
            root.record(Proc3::Getattr, &GetattrArgs { object: &fh }),
            root.record(Proc3::Lookup, &LookupArgs { what: at }),
            root.record(Proc3::Create, &CreateArgs { at, how }),
            root.record(
                Proc3::Readdir,
                &ReaddirArgs { dir: &fh, cookie: 0, verf: CookieVerf::default(), count: 4096 },
            ),
        ];
        for record in records {
            let reply = c.directory.channel(wrong).unwrap().call(record.into()).await.unwrap();
            let (front, trailer) = ResultTrailer::split(&reply).unwrap();
            assert_eq!(front[24..], (PrivateStatus::WrongSite as u32).to_be_bytes());
            assert_eq!(trailer.table, TableEpoch(1));
        }
        // At the right one it is just gone.
        assert_eq!(root.getattr(&fh).await, Err(NfsStat3::STALE));
        assert_eq!(root.file(&fh, b"x", 0o644).await, Err(NfsStat3::STALE));
    });
}

#[test]
fn a_site_without_a_stamp_is_refused_and_a_newer_table_is_waited_for() {
    run(async || {
        let c = Cluster::new(2, NamePolicy::Partition).await;
        let root = Client::root(&c);
        // The other server is dealt all sites by a new table, but has no stamps for them.
        let mut table = c.table.clone();
        table.epoch = TableEpoch(2);
        table.dir.iter_mut().for_each(|s| *s = vec![ServerId(1)]);
        let fh = made_up(&root, Site(1), 0, 1);
        let mut record = root.record(Proc3::Getattr, &GetattrArgs { object: &fh });
        // The caller's table epoch: 24 bytes behind the trailer's start.
        let at = record.len() - 48 + 24;
        record[at..at + 8].copy_from_slice(&2u64.to_be_bytes());
        let reply = c.directory.channel(ServerId(1)).unwrap().call(record.into());
        tokio::pin!(reply);
        let early = tokio::time::timeout(std::time::Duration::from_millis(50), &mut reply).await;
        assert!(early.is_err(), "it must wait for the table that the caller has");
        c.sender.publish(table);
        let reply = reply.await.unwrap();
        let (front, trailer) = ResultTrailer::split(&reply).unwrap();
        assert_eq!(front[24..], (PrivateStatus::Unstamped as u32).to_be_bytes());
        assert_eq!(trailer.table, TableEpoch(2));
    });
}

#[test]
fn handles_that_are_not_ours() {
    run(async || {
        let c = Cluster::new(1, NamePolicy::Partition).await;
        let root = Client::root(&c);
        let top = root.root_fh();
        let mut forged = top.clone();
        forged[20] ^= 1;
        let get = async |fh: &[u8]| {
            status(&root.send(ServerId(1), root.record(Proc3::Getattr, &GetattrArgs { object: fh })).await)
        };
        assert_eq!(get(&forged).await, NfsStat3::BADHANDLE.0);
        assert_eq!(get(&top[..20]).await, NfsStat3::BADHANDLE.0);
        assert_eq!(get(&[]).await, NfsStat3::BADHANDLE.0);
        let snapshot = root.seal(&Handle { snapshot: 1, ..root.open(&top) });
        assert_eq!(get(&snapshot).await, NfsStat3::BADHANDLE.0);
        let volume = made_up(&root, Site(0), 9, 2);
        assert_eq!(root.file(&volume, b"x", 0o644).await, Err(NfsStat3::STALE));
        assert_eq!(root.file(&forged_dir(&root), b"x", 0o644).await, Err(NfsStat3::STALE));
    });
}

fn forged_dir(root: &Client) -> Vec<u8> {
    made_up(root, Site(3), 0, 2)
}

#[test]
fn a_store_of_another_server_is_not_opened() {
    run(async || {
        use slice_dirserver::{DirConfig, DirServer, Error};
        let dir = tempfile::tempdir().unwrap();
        let config = DirConfig::new(dir.path(), common::cluster::identity(), ServerId(1));
        let open = async |config: DirConfig| {
            let (_, tables) = slice_rpc::tables::tables();
            let clock = std::sync::Arc::new(slice_rpc::clock::SystemClock);
            DirServer::open(config, tables, slice_rpc::Directory::new(None), clock).await
        };
        assert!(matches!(open(config.clone()).await, Err(Error::Store(slice_store::Error::Absent { .. }))));
        DirServer::format(&config).unwrap();
        assert!(DirServer::format(&config).is_err());
        let server = open(config.clone()).await.unwrap();
        assert!(server.stamped().is_empty());
        server.adopt(&[Site(3), Site(9)], &[]).await.unwrap();
        server.shutdown().await;
        drop(server);
        let other = DirConfig { server: ServerId(2), ..config.clone() };
        assert!(matches!(open(other).await, Err(Error::Store(slice_store::Error::OtherServer { .. }))));
        assert_eq!(open(config).await.unwrap().stamped(), [Site(3), Site(9)]);
    });
}

/// Whatever a record holds, a call ends: with a reply that is one, or a closed connection.
fn survives(c: &Cluster, record: &[u8]) {
    let peer = Peer { addr: "127.0.0.1:1".parse().unwrap(), proved: None };
    let mut reply = Message::default();
    match c.server(0).call(&peer, BytesMut::from(record), &mut reply) {
        Handled::Done => {
            let header = ReplyHeader::decode(&reply.head).unwrap();
            if header.status == ReplyStatus::Success {
                assert!(reply.head.len() >= header.body_at);
            }
        }
        // It waits for a disk, or a table that never comes; dropped here.
        Handled::Later(_) | Handled::Close => {}
        Handled::Detached => panic!(),
    }
}

#[test]
fn damaged_records_are_answered() {
    run(async || {
        let c = Cluster::new(1, NamePolicy::Hash).await;
        let root = Client::root(&c);
        let top = root.root_fh();
        let at = DirOp { dir: &top, name: b"name" };
        let how = CreateHow::Unchecked(Sattr3 { size: Some(7), ..Sattr3::default() });
        let good = [
            root.record(Proc3::Create, &CreateArgs { at, how }),
            root.record(Proc3::Lookup, &LookupArgs { what: at }),
        ];
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(600));
        let damage = (
            0usize..2,
            prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            any::<prop::sample::Index>(),
            any::<bool>(),
        );
        runner
            .run(&damage, |(which, bytes, cut, truncate)| {
                let mut record = good[which].to_vec();
                for (at, byte) in bytes {
                    let at = at.index(record.len());
                    record[at] = byte;
                }
                if truncate {
                    record.truncate(cut.index(record.len()));
                }
                survives(&c, &record);
                Ok(())
            })
            .unwrap();
        // Every private procedure with arguments that are noise.
        let mut rng = common::rng::Rng::new(7);
        for proc in 0..60 {
            for len in [0, 1, 4, 40, 400] {
                let mut w = BytesMut::new();
                let none = slice_proto::rpc_msg::OpaqueAuth::NONE;
                slice_proto::rpc_msg::encode_call(
                    &mut w,
                    slice_proto::ids::Xid(1),
                    slice_proto::peer::PROGRAM,
                    slice_proto::peer::VERSION,
                    proc,
                    &none,
                );
                w.extend((0..len).map(|_| rng.next() as u8 & 3));
                if PeerProc::from_u32(proc).is_some() {
                    survives(&c, &w);
                }
            }
        }
        assert!(root.getattr(&top).await.is_ok());
    });
}
