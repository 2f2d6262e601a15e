//! MOUNT (RFC 1813 appendix I, RFC 1094 appendix A), portmap and rpcbind (RFC 1833).

use std::net::SocketAddr;

use slice_load::{Client, Conn, Error};
use slice_proto::mount::{DirPath, ExportList, MntResV1, MountList, MountProc, MountStat};
use slice_proto::portmap::{
    AddrList, IPPROTO_TCP, IPPROTO_UDP, Mapping, MappingList, Rpcb, RpcbList, Text, proc2, proc3,
};
use slice_proto::rpc_msg::{ReplyStatus, program, version};
use slice_tests::wire::answer::refused;
use slice_tests::wire::raw::{ask, ask_udp, call_none};
use slice_tests::wire::{Expect, Stage};

crate::claims![
    mnt_gives_the_root_and_auth_sys,
    mnt_of_nothing_fails,
    dump_lists_a_mount_until_umnt,
    export_lists_the_export,
    version_1_dumps_and_exports,
    version_2_is_refused,
    mount_answers_over_udp,
    portmap_knows_nfs_and_mount,
    portmap_answers_where_it_is_told_to,
    portmap_answers_over_udp,
    portmap_changes_nothing_for_strangers,
    rpcbind_gives_universal_addresses,
];

async fn mnt_gives_the_root_and_auth_sys(s: Stage) {
    let mounted = s.c.mnt("/").await.unwrap();
    assert_eq!(mounted.root, s.root);
    assert!(mounted.flavors.contains(&1), "AUTH_SYS is not among {:?}", mounted.flavors);
    assert!(mounted.root.as_slice().len() <= 64);
    assert_eq!(s.c.getattr(&mounted.root).await.good().ftype, slice_proto::nfs3::FType3::Dir);
}

async fn mnt_of_nothing_fails(s: Stage) {
    for path in ["/nothing-here", "nothing-here"] {
        match s.c.mnt(path).await {
            Err(Error::Mount(status)) => assert!([MountStat::NOENT, MountStat::ACCES].contains(&status)),
            other => panic!("{path}: {other:?}"),
        }
    }
    let long = "/".to_owned() + &"x".repeat(1023);
    assert!(matches!(s.c.mnt(&long).await, Err(Error::Mount(_))));
}

async fn dump_lists_a_mount_until_umnt(s: Stage) {
    s.c.mnt("/").await.unwrap();
    let listed = s.c.dump().await.unwrap();
    assert!(listed.iter().any(|(host, path)| !host.is_empty() && path == b"/"), "{listed:?}");
    s.c.umnt("/never-mounted").await.unwrap();
    // Claims run side by side from one address, and others mount meanwhile: that it is gone afterwards cannot be said here.
    s.c.umnt("/").await.unwrap();
    s.c.umntall().await.unwrap();
    s.c.getattr(&s.root).await.good();
}

async fn export_lists_the_export(s: Stage) {
    let exports = s.c.exports().await.unwrap();
    assert!(exports.iter().any(|(path, _)| path == b"/"), "{exports:?}");
}

/// What `showmount -a` and `showmount -e` ask with.
async fn version_1_dumps_and_exports(s: Stage) {
    s.c.mnt("/").await.unwrap();
    let conn = s.c.conn();
    let dump = ask(conn, program::MOUNT, version::MOUNT1, MountProc::Dump as u32, &()).await.unwrap();
    dump.decode::<MountList<'_>>().unwrap();
    let export = ask(conn, program::MOUNT, version::MOUNT1, MountProc::Export as u32, &()).await.unwrap();
    let list: ExportList<'_> = export.decode().unwrap();
    assert!(list.0.iter().any(|e| e.path == b"/"));
    ask(conn, program::MOUNT, version::MOUNT1, 0, &()).await.unwrap().decode::<()>().unwrap();
    // A handle of ours does not fit into version 1's 32 bytes: whatever is answered, it is no handle.
    match ask(conn, program::MOUNT, version::MOUNT1, MountProc::Mnt as u32, &DirPath(b"/")).await {
        Ok(reply) => assert!(matches!(reply.decode::<MntResV1>().unwrap(), MntResV1::Err(_))),
        Err(Error::Rpc(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

async fn version_2_is_refused(s: Stage) {
    for other in [0, 4, 9] {
        let told = refused(ask(s.c.conn(), program::MOUNT, other, 0, &()).await);
        assert_eq!(told, ReplyStatus::ProgMismatch { low: 1, high: 3 }, "version {other}");
    }
}

/// Linux and the BSDs ask MOUNT over UDP unless told otherwise.
async fn mount_answers_over_udp(s: Stage) {
    let port = port_of(s.c.conn(), program::MOUNT, version::MOUNT3, IPPROTO_UDP).await;
    assert_ne!(port, 0, "MOUNT is not offered over UDP");
    let to = SocketAddr::new(s.addr.ip(), port as u16);
    let record = call_none(1, program::MOUNT, version::MOUNT3, MountProc::Export as u32, &());
    let reply = ask_udp(to, &record).await;
    assert!(reply.decode::<ExportList<'_>>().unwrap().0.iter().any(|e| e.path == b"/"));
    let record = call_none(2, program::MOUNT, version::MOUNT3, MountProc::Mnt as u32, &DirPath(b"/"));
    let reply = ask_udp(to, &record).await;
    match reply.decode().unwrap() {
        slice_proto::mount::MntRes::Ok { handle, .. } => assert_eq!(handle, s.root.as_slice()),
        slice_proto::mount::MntRes::Err(status) => panic!("MNT over UDP: {status}"),
    }
}

async fn port_of(conn: &Conn, prog: u32, vers: u32, prot: u32) -> u32 {
    let args = Mapping { prog, vers, prot, port: 0 };
    let reply = ask(conn, program::PORTMAP, version::PORTMAP2, proc2::GETPORT, &args).await.unwrap();
    reply.decode::<u32>().unwrap()
}

/// On the one port for everything too: `mount -o port=P,mountport=P` needs no port mapper.
async fn portmap_knows_nfs_and_mount(s: Stage) {
    knows_nfs_and_mount(s.c.conn(), s.addr).await;
}

async fn portmap_answers_where_it_is_told_to(s: Stage) {
    let conn = Conn::connect(s.portmap.unwrap()).await.unwrap();
    knows_nfs_and_mount(&conn, s.addr).await;
    assert_eq!(
        Client::connect(s.portmap.unwrap()).await.unwrap().getport(program::NFS, 3).await.unwrap(),
        u32::from(s.addr.port())
    );
}

async fn knows_nfs_and_mount(conn: &Conn, nfs: SocketAddr) {
    ask(conn, program::PORTMAP, version::PORTMAP2, proc2::NULL, &()).await.unwrap().decode::<()>().unwrap();
    let port = u32::from(nfs.port());
    assert_eq!(port_of(conn, program::NFS, 3, IPPROTO_TCP).await, port);
    assert_eq!(port_of(conn, program::MOUNT, 3, IPPROTO_TCP).await, port);
    assert_eq!(port_of(conn, program::MOUNT, 1, IPPROTO_TCP).await, port);
    assert_eq!(port_of(conn, program::NLM, 4, IPPROTO_TCP).await, 0, "locks are not offered");
    assert_eq!(port_of(conn, program::NFSACL, 3, IPPROTO_TCP).await, 0);
    assert_eq!(port_of(conn, 400_000, 1, IPPROTO_TCP).await, 0);
    let dump = ask(conn, program::PORTMAP, version::PORTMAP2, proc2::DUMP, &()).await.unwrap();
    let list: MappingList = dump.decode().unwrap();
    for (prog, vers) in [(program::NFS, 3), (program::MOUNT, 3)] {
        let want = Mapping { prog, vers, prot: IPPROTO_TCP, port };
        assert!(list.0.contains(&want), "{want:?} is not in {list:?}");
    }
    let told = refused(ask(conn, program::PORTMAP, 5, 0, &()).await);
    assert_eq!(told, ReplyStatus::ProgMismatch { low: 2, high: 4 });
}

async fn portmap_answers_over_udp(s: Stage) {
    let to = s.portmap.unwrap();
    let args = Mapping { prog: program::NFS, vers: 3, prot: IPPROTO_TCP, port: 0 };
    let record = call_none(4, program::PORTMAP, version::PORTMAP2, proc2::GETPORT, &args);
    assert_eq!(ask_udp(to, &record).await.decode::<u32>().unwrap(), u32::from(s.addr.port()));
    // macOS and the BSDs ask rpcbind 3 and 4 over UDP.
    for vers in [3, 4] {
        let args = Rpcb { prog: program::NFS, vers: 3, netid: b"tcp", addr: b"", owner: b"" };
        let record = call_none(5, program::PORTMAP, vers, proc3::GETADDR, &args);
        let reply = ask_udp(to, &record).await;
        let text: Text<'_> = reply.decode().unwrap();
        assert!(text.socket().unwrap().is_some(), "rpcbind {vers} knows no NFS: {text:?}");
    }
}

async fn portmap_changes_nothing_for_strangers(s: Stage) {
    let conn = s.c.conn();
    let ours = Mapping { prog: program::NFS, vers: 3, prot: IPPROTO_TCP, port: 1 };
    let theirs = Mapping { prog: 400_000, ..ours };
    for (proc, mapping) in [(proc2::SET, theirs), (proc2::SET, ours), (proc2::UNSET, ours)] {
        match ask(conn, program::PORTMAP, version::PORTMAP2, proc, &mapping).await {
            Ok(reply) => assert!(!bool_of(&reply), "a stranger may change mappings"),
            Err(Error::Rpc(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(port_of(conn, 400_000, 3, IPPROTO_TCP).await, 0);
    assert_eq!(port_of(conn, program::NFS, 3, IPPROTO_TCP).await, u32::from(s.addr.port()));
}

fn bool_of(reply: &slice_load::conn::Reply) -> bool {
    reply.decode::<u32>().unwrap() != 0
}

async fn rpcbind_gives_universal_addresses(s: Stage) {
    let conn = Conn::connect(s.portmap.unwrap()).await.unwrap();
    let args = |prog| Rpcb { prog, vers: 3, netid: b"tcp", addr: b"", owner: b"" };
    for vers in [version::RPCBIND3, version::RPCBIND4] {
        for prog in [program::NFS, program::MOUNT] {
            let reply = ask(&conn, program::PORTMAP, vers, proc3::GETADDR, &args(prog)).await.unwrap();
            let found = reply.decode::<Text<'_>>().unwrap().socket().unwrap();
            assert_eq!(found.map(|a| a.port()), Some(s.addr.port()), "rpcbind {vers}, program {prog}");
        }
        let reply = ask(&conn, program::PORTMAP, vers, proc3::GETADDR, &args(400_000)).await.unwrap();
        assert_eq!(reply.decode::<Text<'_>>().unwrap().0, b"");
        let dump = ask(&conn, program::PORTMAP, vers, proc3::DUMP, &()).await.unwrap();
        let list: RpcbList<'_> = dump.decode().unwrap();
        assert!(list.0.iter().any(|e| e.prog == program::NFS && e.vers == 3 && e.netid == b"tcp"));
        let time = ask(&conn, program::PORTMAP, vers, proc3::GETTIME, &()).await.unwrap();
        assert!(time.decode::<u32>().unwrap() > 1_600_000_000);
    }
    let reply = ask(&conn, program::PORTMAP, 4, proc3::GETVERSADDR, &args(program::NFS)).await.unwrap();
    assert!(reply.decode::<Text<'_>>().unwrap().socket().unwrap().is_some());
    let reply = ask(&conn, program::PORTMAP, 4, proc3::GETADDRLIST, &args(program::NFS)).await.unwrap();
    let list: AddrList<'_> = reply.decode().unwrap();
    assert!(list.0.iter().any(|e| e.netid == b"tcp"));
}
