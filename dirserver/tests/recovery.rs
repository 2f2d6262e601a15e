//! Operations over several servers, interrupted at every step of the protocol by the death of any server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::cluster::View;
use common::{Client, Cluster, run};
use slice_proto::ids::ServerId;
use slice_proto::nfs3::types::DirOp;
use slice_proto::nfs3::{
    CreateArgs, CreateHow, LinkArgs, MkdirArgs, NfsStat3, Proc3, RemoveArgs, RenameArgs, Sattr3,
};
use slice_proto::peer::PeerProc;
use slice_proto::placement::entry_site;
use slice_proto::table::NamePolicy;
use slice_rpc::service::Message;
use std::time::Duration;

const SERVERS: usize = 3;

/// A name in `dir` whose entry is at server `at`.
fn name_at(root: &Client, dir: &[u8], at: ServerId, tag: &str) -> Vec<u8> {
    (0..1000)
        .map(|i| format!("{tag}{i}").into_bytes())
        .find(|n| root.owner(entry_site(root.volume(), root.open(dir).file, n)) == at)
        .unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Create,
    Mkdir,
    Remove,
    Rmdir,
    Link,
    Rename,
    RenameOver,
    RenameDir,
}

const ALL: [What; 8] = [
    What::Create,
    What::Mkdir,
    What::Remove,
    What::Rmdir,
    What::Link,
    What::Rename,
    What::RenameOver,
    What::RenameDir,
];

/// Two directories, and what an operation needs in them; the operation as a record, and whom to send it to.
struct Play {
    a: Vec<u8>,
    b: Vec<u8>,
    from: Vec<u8>,
    to: Vec<u8>,
}

async fn prepare(root: &Client, what: What, entry: ServerId, other: ServerId) -> Play {
    let top = root.root_fh();
    let a = root.mkdir(&top, &name_at(root, &top, other, "a"), 0o777).await.unwrap();
    let b = root.mkdir(&top, &name_at(root, &top, other, "b"), 0o777).await.unwrap();
    let (from, to) = (name_at(root, &a, other, "from"), name_at(root, &b, entry, "to"));
    match what {
        What::Create | What::Mkdir => {}
        What::Remove => {
            // Its file lives elsewhere than its name: it was renamed.
            root.file(&a, &from, 0o644).await.unwrap();
            root.rename(&a, &from, &b, &to).await.unwrap();
        }
        What::Rmdir => {
            root.mkdir(&a, &from, 0o755).await.unwrap();
            root.rename(&a, &from, &b, &to).await.unwrap();
        }
        What::Link | What::Rename => {
            root.file(&a, &from, 0o644).await.unwrap();
        }
        What::RenameOver => {
            root.file(&a, &from, 0o644).await.unwrap();
            root.file(&b, &to, 0o600).await.unwrap();
        }
        What::RenameDir => {
            root.mkdir(&a, &from, 0o755).await.unwrap();
        }
    }
    Play { a, b, from, to }
}

async fn record(root: &Client, what: What, p: &Play) -> bytes::BytesMut {
    let (from, to) = (DirOp { dir: &p.a, name: &p.from }, DirOp { dir: &p.b, name: &p.to });
    let attr = Sattr3::default();
    match what {
        What::Create => root.record(Proc3::Create, &CreateArgs { at: to, how: CreateHow::Guarded(attr) }),
        What::Mkdir => root.record(Proc3::Mkdir, &MkdirArgs { at: to, attr }),
        What::Remove => root.record(Proc3::Remove, &RemoveArgs { object: to }),
        What::Rmdir => root.record(Proc3::Rmdir, &RemoveArgs { object: to }),
        What::Rename | What::RenameOver | What::RenameDir => {
            root.record(Proc3::Rename, &RenameArgs { from, to })
        }
        What::Link => {
            let (file, _) = root.lookup(&p.a, &p.from).await.unwrap();
            root.record(Proc3::Link, &LinkArgs { file: &file, link: to })
        }
    }
}

/// Everything that a client is told holds afterwards.
async fn verify(root: &Client, what: What, p: &Play) {
    let (from, to) = (root.lookup(&p.a, &p.from).await, root.lookup(&p.b, &p.to).await);
    match what {
        What::Create | What::Mkdir => assert!(to.is_ok()),
        What::Remove | What::Rmdir => assert_eq!(to.map(|_| ()), Err(NfsStat3::NOENT)),
        What::Link => {
            assert_eq!(from.as_ref().unwrap().0, to.as_ref().unwrap().0);
            assert_eq!(from.unwrap().1.nlink, 2);
        }
        What::Rename | What::RenameOver | What::RenameDir => {
            assert_eq!(from.map(|_| ()), Err(NfsStat3::NOENT));
            let (fh, attr) = to.unwrap();
            if what == What::RenameDir {
                assert_eq!(root.lookup(&fh, b"..").await.unwrap().0, p.b);
            } else {
                assert_eq!((attr.nlink, attr.mode), (1, 0o644));
            }
        }
    }
}

/// Lets the operation come as far as the door of `other`, closed to `procs`; then kills `victims` and starts them again.
fn interrupt(what: What, procs: &[PeerProc], victims: &[usize]) {
    println!("{what:?} stopped at {procs:?}, then {victims:?} die");
    run(async || {
        let mut c = Cluster::new(SERVERS, NamePolicy::Hash).await;
        let root = Client::root(&c);
        let (entry, other) = (ServerId(1), ServerId(2));
        let p = prepare(&root, what, entry, other).await;
        c.settle().await;
        for door in &c.doors {
            door.close_to(procs);
        }
        let call = record(&root, what, &p).await;
        let reply = c.directory.channel(entry).unwrap().call(Message::from(call));
        tokio::pin!(reply);
        let stands = async {
            while c.doors.iter().all(|d| d.waiting() == 0) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Let the others come to their doors, too.
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        tokio::select! {
            // It may be that nothing of it goes through a door: then it is simply done.
            done = &mut reply => assert_eq!(done.unwrap()[24..28], [0; 4]),
            () = stands => {
                c.doors.iter().for_each(common::fake::Door::open);
                for v in victims {
                    c.kill(*v).await;
                }
                for v in victims {
                    c.start(*v).await;
                }
                if !victims.contains(&0) {
                    // Calls that stood before a door of a server that lives are lost there: kill it, too, so that the
                    // channel sends them again.
                    for v in 1..SERVERS {
                        if !victims.contains(&v) {
                            c.restart(v).await;
                        }
                    }
                }
                let done = tokio::time::timeout(Duration::from_secs(20), &mut reply).await;
                assert_eq!(done.expect("no reply").unwrap()[24..28], [0; 4], "{what:?}");
            }
        }
        verify(&root, what, &p).await;
        c.settle().await;
        common::check::consistent(&c).await;
    });
}

#[test]
fn stopped_before_a_hold() {
    for what in ALL {
        for victims in [&[0][..], &[1], &[0, 1, 2]] {
            interrupt(what, &[PeerProc::Hold], victims);
        }
    }
}

#[test]
fn stopped_before_a_confirm() {
    for what in ALL {
        for victims in [&[0][..], &[1], &[1, 2], &[0, 1, 2]] {
            interrupt(what, &[PeerProc::Confirm, PeerProc::Owe], victims);
        }
    }
}

#[test]
fn stopped_before_it_is_settled() {
    for what in [What::Create, What::RenameOver, What::RenameDir] {
        run(async || {
            let mut c = Cluster::new(SERVERS, NamePolicy::Hash).await;
            let root = Client::root(&c);
            let p = prepare(&root, what, ServerId(1), ServerId(2)).await;
            c.settle().await;
            for door in &c.doors {
                // The question whether all is durable is an OWE.
                door.close_to(&[PeerProc::Owe]);
            }
            let call = record(&root, what, &p).await;
            let reply = c.directory.channel(ServerId(1)).unwrap().call(Message::from(call)).await.unwrap();
            assert_eq!(reply[24..28], [0; 4]);
            c.doors.iter().for_each(common::fake::Door::open);
            for v in 0..SERVERS {
                c.kill(v).await;
            }
            for v in 0..SERVERS {
                c.start(v).await;
            }
            verify(&root, what, &p).await;
            c.settle().await;
            common::check::consistent(&c).await;
        });
    }
}

/// Twelve clients that do what comes to their minds in four directories.
async fn crowd(c: &Cluster, seed: u64, steps: usize) {
    crowd_of(c.view(), seed, steps).await;
}

async fn crowd_of(view: View, seed: u64, steps: usize) {
    let root = Client::of(&view, 0, 0, &[]);
    let top = root.root_fh();
    let mut dirs = vec![top.clone()];
    for i in 0..3 {
        dirs.push(root.mkdir(&top, format!("d{i}").as_bytes(), 0o777).await.unwrap());
    }
    let clients: Vec<_> = (0..12u64)
        .map(|n| {
            let (mut client, dirs) = (Client::of(&view, 0, 0, &[]), dirs.clone());
            client.client = slice_proto::trailer::ClientId([n as u8 + 100; 16]);
            tokio::task::spawn_local(async move {
                let mut rng = common::rng::Rng::new(seed + n);
                for _ in 0..steps {
                    let (d, e) = (&dirs[rng.index() % 4], &dirs[rng.index() % 4]);
                    let name = |rng: &mut common::rng::Rng| format!("x{}", rng.index() % 4).into_bytes();
                    let (x, y) = (name(&mut rng), name(&mut rng));
                    // What comes out depends on the others; that it comes out, and what is left, is what counts.
                    match rng.next() % 6 {
                        0 => drop(client.file(d, &x, 0o644).await),
                        1 => drop(client.mkdir(d, &x, 0o777).await),
                        2 => drop(client.remove(d, &x).await),
                        3 => drop(client.rmdir(d, &x).await),
                        4 => drop(client.rename(d, &x, e, &y).await),
                        _ => {
                            if let Ok((fh, _)) = client.lookup(d, &x).await {
                                let _ = client.link(&fh, e, &y).await;
                            }
                        }
                    }
                }
            })
        })
        .collect();
    let all = futures_util::future::join_all(clients);
    for done in tokio::time::timeout(Duration::from_secs(120), all).await.expect("somebody waits for ever") {
        done.unwrap();
    }
}

fn seed() -> u64 {
    let given = std::env::var("SLICE_SEED").ok().and_then(|s| s.parse().ok());
    given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into())
}

const SPREAD: [NamePolicy; 2] = [NamePolicy::Hash, NamePolicy::MkdirSwitching { affinity_ppm: 0 }];

#[test]
fn many_clients_get_in_each_others_way() {
    for policy in SPREAD {
        let seed = seed();
        println!("SLICE_SEED={seed} {policy:?}");
        run(async || {
            let c = Cluster::new(SERVERS, policy).await;
            crowd(&c, seed, 60).await;
            c.settle().await;
            common::check::consistent(&c).await;
        });
    }
}

#[test]
fn many_clients_while_servers_die() {
    for policy in SPREAD {
        let seed = seed();
        println!("SLICE_SEED={seed} {policy:?}");
        run(async || {
            let mut c = Cluster::new(SERVERS, policy).await;
            let mut working = Box::pin(crowd_of(c.view(), seed, 40));
            let mut rng = common::rng::Rng::new(!seed);
            loop {
                let pause = tokio::time::sleep(Duration::from_millis(30 + u64::from(rng.next() % 120)));
                tokio::select! {
                    () = &mut working => break,
                    () = pause => c.restart(rng.index() % SERVERS).await,
                }
            }
            c.settle().await;
            common::check::consistent(&c).await;
        });
    }
}
