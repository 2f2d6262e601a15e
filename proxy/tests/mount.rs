//! MOUNT and portmap over TCP and UDP, as `mount` and `showmount` ask them.

// A test's helpers may stop at the first surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ensemble;

use bytes::BytesMut;
use ensemble::*;
use slice_proto::ids::Xid;
use slice_proto::mount::{ExportList, MntRes, MountList, MountProc, MountStat};
use slice_proto::nfs3::FType3;
use slice_proto::portmap::{IPPROTO_TCP, IPPROTO_UDP, Mapping, proc2};
use slice_proto::rpc_msg::{AuthSys, ReplyHeader, ReplyStatus, encode_call, program};
use slice_proto::table::NamePolicy;
use slice_proto::xdr::{Decode, Encode, Put, Reader};
use slice_proxy::{Export, Exports, Network};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;

struct Path<'a>(&'a [u8]);

impl Encode for Path<'_> {
    fn encode(&self, w: &mut BytesMut) {
        w.put_opaque(self.0);
    }
}

struct Nothing;

impl Encode for Nothing {
    fn encode(&self, _: &mut BytesMut) {}
}

async fn mnt(client: &Client, vers: u32, path: &str) -> Result<Vec<u8>, u32> {
    let (_, body) = client.raw(program::MOUNT, vers, MountProc::Mnt as u32, &Path(path.as_bytes())).await;
    match MntRes::decode(&mut Reader::new(&body)).unwrap() {
        MntRes::Ok { handle, flavors } => {
            assert!(flavors.contains(&1), "AUTH_SYS");
            Ok(handle.to_vec())
        }
        MntRes::Err(status) => Err(status.0),
    }
}

/// One datagram there and back.
async fn udp(to: SocketAddr, prog: u32, vers: u32, proc: u32, args: &impl Encode) -> (ReplyStatus, BytesMut) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut w = BytesMut::new();
    encode_call(&mut w, Xid(9), prog, vers, proc, &AuthSys { stamp: 1, machine: b"test", cred: user(0) });
    args.encode(&mut w);
    let mut buf = vec![0; 8192];
    // Datagrams may be lost even here: the server's thread may not have begun to listen.
    for _ in 0..50 {
        socket.send_to(&w, to).await.unwrap();
        if let Ok(Ok((n, _))) =
            tokio::time::timeout(Duration::from_millis(200), socket.recv_from(&mut buf)).await
        {
            let header = ReplyHeader::decode(&buf[..n]).unwrap();
            assert_eq!(header.xid, Xid(9));
            return (header.status, BytesMut::from(&buf[header.body_at..n]));
        }
    }
    panic!("no answer over UDP");
}

#[test]
fn an_export_and_directories_in_it_can_be_mounted() {
    let world = World::new(NamePolicy::Hash);
    let front = world.start(Exports::default());
    let sub = slice_proto::ids::FileId::new(slice_proto::ids::Site(9), 5);
    world.files.insert(sub, attributes(sub, FType3::Dir, 0, 0o755));
    world.files.name(b"sub", sub);
    let (file, _) = world.file(1, 500, 0o644);
    world.files.name(b"file", file);
    run(|| async move {
        let client = Client::new(front.addr, 0);
        assert_eq!(mnt(&client, 3, "/").await, Ok(world.root()));
        assert_eq!(mnt(&client, 3, "/sub").await, Ok(world.handle(sub, 2)));
        assert_eq!(mnt(&client, 3, "/file").await, Err(MountStat::NOTDIR.0));
        assert_eq!(mnt(&client, 3, "/none").await, Err(MountStat::NOENT.0));
        assert_eq!(mnt(&client, 3, "/../etc").await, Err(MountStat::NOENT.0));
        assert_eq!(
            mnt(&client, 1, "/").await,
            Err(MountStat::INVAL.0),
            "a handle of ours is too long for version 1"
        );
        for vers in [1, 3] {
            let (_, body) = client.raw(program::MOUNT, vers, MountProc::Dump as u32, &Nothing).await;
            let list = MountList::decode(&mut Reader::new(&body)).unwrap();
            let paths: Vec<_> = list.0.iter().map(|e| (e.host, e.path)).collect();
            assert_eq!(paths, [(&b"127.0.0.1"[..], &b"/"[..]), (b"127.0.0.1", b"/sub")]);
            let (_, body) = client.raw(program::MOUNT, vers, MountProc::Export as u32, &Nothing).await;
            let list = ExportList::decode(&mut Reader::new(&body)).unwrap();
            assert_eq!((list.0.len(), list.0[0].path, list.0[0].groups.len()), (1, &b"/"[..], 0));
        }
        client.raw(program::MOUNT, 3, MountProc::UmntAll as u32, &Nothing).await;
        let (_, body) = client.raw(program::MOUNT, 3, MountProc::Dump as u32, &Nothing).await;
        assert!(MountList::decode(&mut Reader::new(&body)).unwrap().0.is_empty());
        assert_eq!(client.raw(program::MOUNT, 3, 9, &Nothing).await.0, ReplyStatus::ProcUnavail);
        assert_eq!(
            client.raw(program::MOUNT, 3, MountProc::Mnt as u32, &Nothing).await.0,
            ReplyStatus::GarbageArgs
        );
    });
}

#[test]
fn an_export_for_others_is_refused() {
    let world = World::new(NamePolicy::Partition);
    let elsewhere = Network::parse("10.0.0.0/8").unwrap();
    let front = world.start(Exports(vec![Export { clients: vec![elsewhere], ..Export::default() }]));
    run(|| async move {
        assert_eq!(mnt(&Client::new(front.addr, 0), 3, "/").await, Err(MountStat::ACCES.0));
    });
}

#[test]
fn mount_answers_over_udp_and_portmap_tells_the_ports_over_both() {
    let world = World::new(NamePolicy::Partition);
    let front = world.start_with(Exports::default(), Some("127.0.0.1:0".parse().unwrap()));
    let mapper = front.proxy.portmap_addr().expect("a port of our own");
    run(|| async move {
        let (status, body) = udp(front.addr, program::MOUNT, 3, MountProc::Mnt as u32, &Path(b"/")).await;
        assert_eq!(status, ReplyStatus::Success);
        assert!(matches!(MntRes::decode(&mut Reader::new(&body)), Ok(MntRes::Ok { .. })));
        let asked = |prog, prot| Mapping { prog, vers: 3, prot, port: 0 };
        let port = |body: BytesMut| Reader::new(&body).u32().unwrap();
        let ours = u32::from(front.addr.port());
        for (prog, prot, expected) in [
            (program::NFS, IPPROTO_TCP, ours),
            (program::NFS, IPPROTO_UDP, 0),
            (program::MOUNT, IPPROTO_TCP, ours),
            (program::MOUNT, IPPROTO_UDP, ours),
        ] {
            let args = asked(prog, prot);
            assert_eq!(port(udp(mapper, program::PORTMAP, 2, proc2::GETPORT, &args).await.1), expected);
            for tcp in [mapper, front.addr] {
                let client = Client::new(tcp, 0);
                assert_eq!(port(client.raw(program::PORTMAP, 2, proc2::GETPORT, &args).await.1), expected);
            }
        }
        let args = asked(program::PORTMAP, IPPROTO_UDP);
        let got = port(udp(mapper, program::PORTMAP, 2, proc2::GETPORT, &args).await.1);
        assert_eq!(got, u32::from(mapper.port()));
    });
}

#[test]
fn a_taken_portmap_port_is_no_reason_not_to_serve() {
    let world = World::new(NamePolicy::Partition);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let front = world.start_with(Exports::default(), Some(taken.local_addr().unwrap()));
    assert!(front.proxy.portmap_addr().is_none());
    run(|| async move {
        assert!(mnt(&Client::new(front.addr, 0), 3, "/").await.is_ok());
    });
}
