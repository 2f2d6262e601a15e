//! Forwarded calls: whose record arrives where, with what behind it, and what comes back.

// A test's helpers may stop at the first surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ensemble;

use ensemble::*;
use slice_proto::ids::TableEpoch;
use slice_proto::nfs3::*;
use slice_proto::peer::PrivateStatus;
use slice_proto::rpc_msg::{Cred, ReplyStatus, program};
use slice_proto::table::NamePolicy;
use slice_proxy::config::ANON_ID;
use slice_proxy::{Export, Exports, Squash};
use std::time::Duration;

const MKDIR: NamePolicy = NamePolicy::MkdirSwitching { affinity_ppm: 500_000 };

#[test]
fn a_forwarded_call_carries_its_trailer_and_comes_back_clean() {
    let world = World::new(MKDIR);
    let front = world.start(Exports::default());
    let (id, fh) = world.file(1, 500, 0o644);
    run(|| async move {
        let client = Client::new(front.addr, 500);
        let attr = client.getattr(&fh).await.unwrap();
        assert_eq!((attr.fileid, attr.uid), (id, 500));
        let trailers: Vec<_> = world.dirs.iter().flat_map(|d| d.trailers.lock().unwrap().clone()).collect();
        assert_eq!(trailers.len(), 1, "home site only");
        assert_eq!(trailers[0].table, TableEpoch(1));
        assert_eq!(trailers[0].client, std::net::IpAddr::from([127, 0, 0, 1]).into());
        assert_eq!(front.proxy.stats().ops, vec![("GETATTR".to_owned(), 1)]);
    });
}

#[test]
fn root_arrives_squashed_and_others_as_themselves() {
    let world = World::new(MKDIR);
    let squashing = world.start(Exports::default());
    let open = world.start(Exports(vec![Export { squash: Squash::None, ..Export::default() }]));
    let (_, fh) = world.file(1, 500, 0o644);
    let creds = || {
        world.dirs.iter().flat_map(|d| std::mem::take(&mut *d.creds.lock().unwrap())).collect::<Vec<Cred>>()
    };
    run(|| async {
        Client::new(squashing.addr, 0).getattr(&fh).await.unwrap();
        let got = creds();
        assert_eq!((got[0].uid, got[0].gid, got[0].gids.as_slice()), (ANON_ID, ANON_ID, &[ANON_ID][..]));
        Client::new(open.addr, 0).getattr(&fh).await.unwrap();
        assert_eq!(creds(), vec![user(0)]);
        Client::new(squashing.addr, 7).getattr(&fh).await.unwrap();
        assert_eq!(creds(), vec![user(7)]);
    });
}

#[test]
fn a_moved_site_is_found_again_by_the_newer_table() {
    let world = World::new(MKDIR);
    let front = world.start(Exports::default());
    let (_, fh) = world.file(1, 500, 0o644);
    run(|| async move {
        let client = Client::new(front.addr, 500);
        // The server knows already, the µproxy not yet: it is told so once, and waits for the table.
        world.stage.fail_next("dir GETATTR", PrivateStatus::WrongSite as u32);
        let tables = world.tables.clone();
        let publish = async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut moved = table(2, MKDIR);
            moved.dir[7] = vec![dir_id(0)];
            tables.publish(moved);
        };
        let (attr, ()) = tokio::join!(client.getattr(&fh), publish);
        attr.unwrap();
        assert_eq!(world.dirs[0].trailers.lock().unwrap().last().unwrap().table, TableEpoch(2));
        assert_eq!(world.stage.count("dir GETATTR"), 2);
    });
}

#[test]
fn an_unstamped_store_and_a_removed_server_never_read_as_no_such_file() {
    let world = World::new(MKDIR);
    let front = world.start(Exports::default());
    let (_, fh) = world.file(1, 500, 0o644);
    run(|| async move {
        let client = Client::new(front.addr, 500);
        world.stage.fail_next("dir GETATTR", PrivateStatus::Unstamped as u32);
        assert_eq!(client.getattr(&fh).await, Err(NfsStat3::JUKEBOX));
        // Gone from the directory: waited for until the table names another.
        world.directory.remove(dir_id(1));
        let tables = world.tables.clone();
        let publish = async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut moved = table(2, MKDIR);
            moved.dir.iter_mut().for_each(|owners| *owners = vec![dir_id(0)]);
            tables.publish(moved);
        };
        let (attr, ()) = tokio::join!(client.getattr(&fh), publish);
        attr.unwrap();
    });
}

#[test]
fn before_the_first_table_a_handle_is_not_stale() {
    let world = World::without_table();
    let front = world.start(Exports::default());
    let (_, fh) = world.file(1, 500, 0o644);
    run(|| async move {
        let client = Client::new(front.addr, 500);
        let tables = world.tables.clone();
        let publish = async move {
            // Longer than one wait for a table.
            tokio::time::sleep(Duration::from_millis(600)).await;
            tables.publish(table(1, MKDIR));
        };
        let (attr, ()) = tokio::join!(client.getattr(&fh), publish);
        attr.unwrap();
    });
}

#[test]
fn a_read_only_export_changes_nothing_and_grants_nothing() {
    let world = World::new(MKDIR);
    let front = world.start(Exports(vec![Export { read_only: true, ..Export::default() }]));
    let (_, fh) = world.file(1, 500, 0o644);
    run(|| async move {
        let client = Client::new(front.addr, 500);
        assert_eq!(client.write(&fh, 0, b"x", StableHow::Unstable).await, Err(NfsStat3::ROFS));
        assert_eq!(client.setattr(&fh, Sattr3::default()).await, Err(NfsStat3::ROFS));
        let args = AccessArgs { object: &fh, access: access::ALL };
        let Res3::Ok(ok) = client.call::<AccessRes>(Proc3::Access, &args).await else { panic!("refused") };
        assert_eq!(ok.access, access::READ | access::LOOKUP | access::EXECUTE);
    });
}

#[test]
fn a_client_that_the_export_is_not_for_gets_nothing() {
    let world = World::new(MKDIR);
    let elsewhere = slice_proxy::Network::parse("10.0.0.0/8").unwrap();
    let front = world.start(Exports(vec![Export { clients: vec![elsewhere], ..Export::default() }]));
    let (_, fh) = world.file(1, 500, 0o644);
    run(|| async move {
        assert_eq!(Client::new(front.addr, 500).getattr(&fh).await, Err(NfsStat3::ACCES));
    });
}

#[test]
fn what_is_local_is_answered_here() {
    let world = World::new(MKDIR);
    let front = world.start(Exports::default());
    let root = world.root();
    run(|| async move {
        let client = Client::new(front.addr, 500);
        let args = FsArgs { object: &root };
        let info = client.call::<FsinfoRes>(Proc3::Fsinfo, &args).await.into_result().unwrap();
        assert_eq!((info.rtmax, info.wtmax), (1 << 20, 1 << 20));
        let stat = client.call::<FsstatRes>(Proc3::Fsstat, &args).await.into_result().unwrap();
        assert_eq!((stat.tbytes, stat.abytes), (1 << 40, 1 << 38));
        let conf = client.call::<PathconfRes>(Proc3::Pathconf, &args).await.into_result().unwrap();
        assert!(conf.no_trunc && conf.chown_restricted && conf.case_preserving && conf.name_max == 255);
        assert!(world.stage.take_journal().is_empty());
        for (prog, vers, expected) in [
            (program::NFS, 4, ReplyStatus::ProgMismatch { low: 3, high: 3 }),
            (program::NFS, 2, ReplyStatus::ProgMismatch { low: 3, high: 3 }),
            (program::NFSACL, 3, ReplyStatus::ProgUnavail),
            (program::NLM, 4, ReplyStatus::ProgUnavail),
        ] {
            assert_eq!(client.raw(prog, vers, 0, &0u32).await.0, expected);
        }
    });
}

#[test]
fn a_spread_directory_is_listed_whole_in_pages_of_any_size() {
    let world = World::new(NamePolicy::Hash);
    let front = world.start(Exports::default());
    for n in 0..200u64 {
        let (id, _) = world.file(n, 1, 0o644);
        world.files.name(format!("a file with number {n}").as_bytes(), id);
    }
    let root = world.root();
    run(|| async move {
        let client = Client::new(front.addr, 500);
        for count in [200u32, 700, 4096, 1 << 16] {
            let (mut cookie, mut names) = (0, Vec::new());
            loop {
                let args = ReaddirArgs { dir: &root, cookie, verf: CookieVerf::default(), count };
                let (_, body) = client.raw(program::NFS, 3, Proc3::Readdir as u32, &args).await;
                assert!(body.len() <= count as usize + 4, "{} of {count}", body.len());
                let mut r = slice_proto::xdr::Reader::new(&body);
                let page = <ReaddirRes<'_> as slice_proto::xdr::Decode<'_>>::decode(&mut r).unwrap();
                let page = page.into_result().unwrap();
                assert!(page.dir_attr.is_some(), "the home site's");
                names.extend(page.entries.iter().map(|e| e.name.to_vec()));
                if page.eof {
                    break;
                }
                cookie = page.entries.last().expect("a page is never empty").cookie;
            }
            assert_eq!(&names[..2], [b".".to_vec(), b"..".to_vec()]);
            assert_eq!(names.len(), 202, "count {count}");
            names.sort();
            names.dedup();
            assert_eq!(names.len(), 202, "none twice, count {count}");
        }
        let args = ReaddirArgs { dir: &root, cookie: 0, verf: CookieVerf::default(), count: 30 };
        let (_, body) = client.raw(program::NFS, 3, Proc3::Readdir as u32, &args).await;
        assert_eq!(slice_proto::xdr::Reader::new(&body).u32(), Ok(NfsStat3::TOOSMALL.0));
    });
}

#[test]
fn a_directory_that_may_not_be_searched_hides_its_names_wherever_they_are() {
    let world = World::new(NamePolicy::Hash);
    let front = world.start(Exports::default());
    for n in 0..20u64 {
        let (id, _) = world.file(n, 1, 0o644);
        world.files.name(format!("{n}").as_bytes(), id);
    }
    let (root, (_, fh)) = (world.root(), world.file(77, 500, 0o644));
    run(|| async move {
        let client = Client::new(front.addr, 500);
        let lookup = async |dir: &[u8], name: &str| {
            let args = LookupArgs { what: DirOp { dir, name: name.as_bytes() } };
            let (_, body) = client.raw(program::NFS, 3, Proc3::Lookup as u32, &args).await;
            NfsStat3(slice_proto::xdr::Reader::new(&body).u32().unwrap())
        };
        for n in 0..20 {
            assert_eq!(lookup(&root, &n.to_string()).await, NfsStat3::OK);
        }
        assert_eq!(lookup(&root, "missing").await, NfsStat3::NOENT);
        assert_eq!(lookup(&fh, "0").await, NfsStat3::NOTDIR);
        world.files.change(ensemble::root(), |r| r.attr.mode = 0o766);
        // Attributes count for a second. The fake directory servers check nothing: entries at the home site's own server
        // would be theirs to refuse.
        let refused = async || {
            let mut refused = 0;
            for n in 0..20 {
                refused += usize::from(lookup(&root, &n.to_string()).await == NfsStat3::ACCES);
            }
            refused
        };
        while refused().await == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!((1..20).contains(&refused().await));
    });
}
