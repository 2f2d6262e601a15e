//! I10: a retransmission gets the first answer: from another connection, after SIGKILL of the directory servers, of the
//! µproxy, of everything. The same record, byte for byte; so the answers must be.

use std::cell::Cell;

use bytes::Bytes;
use slice_load::client::Fh;
use slice_load::{Client, Conn};
use slice_proto::nfs3::{
    CreateArgs, CreateHow, DirOp, LinkArgs, MkdirArgs, MknodArgs, MknodWhat, NfsStat3, Proc3, RemoveArgs,
    RenameArgs, SetattrArgs, SymlinkArgs,
};
use slice_proto::rpc_msg::{Cred, ReplyHeader, ReplyStatus, program};
use slice_proto::xdr::{Encode, Reader};
use slice_tests::ensemble::{Ensemble, Layout, Policy};
use slice_tests::wire::raw::{call, send};
use slice_tests::wire::stage::{create, mkdir, names};
use slice_tests::wire::{self, Expect, mode};

use super::{LOOK, check, connect, kill_all, kill_one, loopback, root, start};

/// A call as it was sent, and its answer.
struct Said {
    what: String,
    record: Vec<u8>,
    answer: Bytes,
}

/// Each transaction id once.
struct Xids(Cell<u32>);

impl Xids {
    fn record(&self, proc: Proc3, args: &impl Encode) -> Vec<u8> {
        self.0.set(self.0.get() + 1);
        call(self.0.get(), program::NFS, 3, proc as u32, Cred::ROOT, args)
    }
}

fn status(answer: &Bytes) -> NfsStat3 {
    let header = ReplyHeader::decode(answer).unwrap();
    assert_eq!(header.status, ReplyStatus::Success);
    NfsStat3(Reader::at(answer, header.body_at).u32().unwrap())
}

fn at<'a>(dir: &'a Fh, name: &'a [u8]) -> DirOp<'a> {
    DirOp { dir: dir.as_slice(), name }
}

/// Every procedure that would answer otherwise a second time, on names with this ending, in an order that works.
fn records(xids: &Xids, dir: &Fh, other: &Fh, file: &Fh, ending: &str) -> Vec<(String, Vec<u8>)> {
    let n = |name: &str| format!("{name}{ending}").into_bytes();
    let (a, b, c, d, e, l) = (n("a"), n("b"), n("c"), n("d"), n("e"), n("l"));
    let (s, p) = (n("s"), n("p"));
    let how = CreateHow::Guarded(mode(0o644));
    let exclusive = CreateHow::Exclusive(*b"exclusiv");
    let create = |name| CreateArgs { at: at(dir, name), how };
    let all = [
        ("CREATE guarded", xids.record(Proc3::Create, &create(&a))),
        ("CREATE exclusive", xids.record(Proc3::Create, &CreateArgs { at: at(dir, &b), how: exclusive })),
        ("MKDIR", xids.record(Proc3::Mkdir, &MkdirArgs { at: at(dir, &d), attr: mode(0o755) })),
        (
            "SYMLINK",
            xids.record(Proc3::Symlink, &SymlinkArgs { at: at(dir, &s), attr: mode(0o777), target: b"t" }),
        ),
        (
            "MKNOD",
            xids.record(Proc3::Mknod, &MknodArgs { at: at(dir, &p), what: MknodWhat::Fifo(mode(0o600)) }),
        ),
        ("LINK", xids.record(Proc3::Link, &LinkArgs { file: file.as_slice(), link: at(other, &l) })),
        ("RENAME", xids.record(Proc3::Rename, &RenameArgs { from: at(dir, &a), to: at(other, &c) })),
        (
            "RENAME of a directory",
            xids.record(Proc3::Rename, &RenameArgs { from: at(dir, &d), to: at(other, &e) }),
        ),
        ("REMOVE", xids.record(Proc3::Remove, &RemoveArgs { object: at(dir, &b) })),
        ("REMOVE of a link", xids.record(Proc3::Remove, &RemoveArgs { object: at(other, &l) })),
        ("RMDIR", xids.record(Proc3::Rmdir, &RemoveArgs { object: at(other, &e) })),
    ];
    all.map(|(what, record)| (what.to_owned(), record)).into()
}

/// What is left when all of [`records`] have happened once.
async fn happened_once(c: &Client, dir: &Fh, other: &Fh, file: &Fh, ending: &str) {
    let left = |all: Vec<Vec<u8>>| -> Vec<String> {
        all.into_iter().map(|n| String::from_utf8(n).unwrap()).filter(|n| n.ends_with(ending)).collect()
    };
    assert_eq!(left(names(c, dir).await), [format!("p{ending}"), format!("s{ending}")]);
    assert_eq!(left(names(c, other).await), [format!("c{ending}")]);
    assert_eq!(c.getattr(file).await.good().nlink, 1);
}

struct Ground {
    dir: Fh,
    other: Fh,
    file: Fh,
}

async fn ground(c: &Client) -> Ground {
    let top = root(c).await;
    let (dir, other) = (mkdir(c, &top, "dir", 0o755).await, mkdir(c, &top, "other", 0o755).await);
    Ground { dir, other, file: create(c, &top, "file", 0o644).await }
}

async fn say(conn: &Conn, all: Vec<(String, Vec<u8>)>) -> Vec<Said> {
    let mut said = Vec::new();
    for (what, record) in all {
        let answer = send(conn, &record).await.unwrap();
        assert_eq!(status(&answer), NfsStat3::OK, "{what}");
        said.push(Said { what, record, answer });
    }
    said
}

async fn same_again(c: &Client, said: &[Said], when: &str) {
    for Said { what, record, answer } in said {
        let again = send(c.conn(), record).await.unwrap();
        assert_eq!(status(&again), NfsStat3::OK, "{what} {when}");
        assert!(again == answer, "{what} {when}: another answer\n{answer:02x?}\n{again:02x?}");
    }
}

fn retransmitted(name: &str, policy: Policy, layout: Layout) {
    let mut ensemble = start(name, policy, layout);
    let xids = Xids(Cell::new(1000));
    let (ground, said) = wire::run(async {
        let c = connect(ensemble.port()).await;
        let g = ground(&c).await;
        let said = say(c.conn(), records(&xids, &g.dir, &g.other, &g.file, "-1")).await;
        same_again(&c, &said, "on the same connection").await;
        same_again(&connect(ensemble.port()).await, &said, "on another connection").await;
        happened_once(&c, &g.dir, &g.other, &g.file, "-1").await;
        (g, said)
    });
    if layout == Layout::Separate {
        wire::run(async {
            let c = connect(ensemble.port()).await;
            kill_all(&ensemble, "dirserver");
            same_again(&c, &said, "after the directory servers' death").await;
            kill_all(&ensemble, "proxy");
            same_again(&connect(ensemble.port()).await, &said, "after the µproxy's death").await;
            kill_all(&ensemble, "dirserver");
            kill_all(&ensemble, "proxy");
            same_again(&connect(ensemble.port()).await, &said, "after the death of both").await;
        });
    }
    ensemble.kill();
    ensemble.restart().unwrap();
    wire::run(async {
        let c = connect(ensemble.port()).await;
        same_again(&c, &said, "after everything's death").await;
        happened_once(&c, &ground.dir, &ground.other, &ground.file, "-1").await;
    });
    check(&ensemble);
}

#[test]
fn a_retransmission_gets_the_first_answer_partition() {
    retransmitted("once-partition", Policy::Partition, Layout::OneProcess);
}

#[test]
fn a_retransmission_gets_the_first_answer_mkdir() {
    retransmitted("once-mkdir", Policy::Mkdir, Layout::Separate);
}

#[test]
fn a_retransmission_gets_the_first_answer_hash() {
    retransmitted("once-hash", Policy::Hash, Layout::Separate);
}

/// The same transaction id with other arguments, of another procedure, or by another user's hand is another call.
#[test]
fn another_call_with_the_same_xid_is_executed() {
    let ensemble = start("once-other", Policy::Hash, Layout::OneProcess);
    wire::run(async {
        let c = connect(ensemble.port()).await;
        let g = ground(&c).await;
        let create = |name: &[u8]| {
            let args = CreateArgs { at: at(&g.dir, name), how: CreateHow::Guarded(mode(0o644)) };
            call(77, program::NFS, 3, Proc3::Create as u32, Cred::ROOT, &args)
        };
        for name in [&b"one"[..], b"two", b"three"] {
            assert_eq!(status(&send(c.conn(), &create(name)).await.unwrap()), NfsStat3::OK);
        }
        assert_eq!(names(&c, &g.dir).await.len(), 3);
        let args = RemoveArgs { object: at(&g.dir, b"one") };
        let remove = call(77, program::NFS, 3, Proc3::Remove as u32, Cred::ROOT, &args);
        assert_eq!(status(&send(c.conn(), &remove).await.unwrap()), NfsStat3::OK);
        assert_eq!(names(&c, &g.dir).await.len(), 2);
        // A new call, not a retransmission: it is told that the name is there.
        let args = CreateArgs { at: at(&g.dir, b"two"), how: CreateHow::Guarded(mode(0o644)) };
        let fresh = call(78, program::NFS, 3, Proc3::Create as u32, Cred::ROOT, &args);
        assert_eq!(status(&send(c.conn(), &fresh).await.unwrap()), NfsStat3::EXIST);
    });
    check(&ensemble);
}

/// DESIGN §10: a duplicate that comes while the first runs is held back.
#[test]
fn duplicates_sent_at_once_happen_once() {
    let ensemble = start("once-at-once", Policy::Hash, Layout::Separate);
    let xids = Xids(Cell::new(5000));
    wire::run(async {
        let clients =
            [connect(ensemble.port()).await, connect(ensemble.port()).await, connect(ensemble.port()).await];
        let g = ground(&clients[0]).await;
        for round in 0..8 {
            let ending = format!("-{round}");
            for (what, record) in records(&xids, &g.dir, &g.other, &g.file, &ending) {
                let all = clients.iter().map(|c| c.conn().start_record(&record).unwrap());
                let answers = futures_util::future::join_all(all.collect::<Vec<_>>()).await;
                for answer in &answers {
                    let answer = answer.as_ref().unwrap();
                    assert_eq!(status(answer), NfsStat3::OK, "{what}, round {round}");
                    assert_eq!(answer, answers[0].as_ref().unwrap(), "{what}, round {round}");
                }
            }
            happened_once(&clients[0], &g.dir, &g.other, &g.file, &ending).await;
        }
    });
    check(&ensemble);
}

/// Guard and size are not idempotent either: the second time the ctime is another.
#[test]
fn a_guarded_setattr_happens_once() {
    let mut ensemble = start("once-guard", Policy::Hash, Layout::OneProcess);
    let xids = Xids(Cell::new(9000));
    let (record, answer, file) = wire::run(async {
        let c = connect(ensemble.port()).await;
        let g = ground(&c).await;
        let guard = Some(c.getattr(&g.file).await.good().ctime);
        let args = SetattrArgs { object: g.file.as_slice(), attr: mode(0o604), guard };
        let record = xids.record(Proc3::Setattr, &args);
        let answer = send(c.conn(), &record).await.unwrap();
        assert_eq!(status(&answer), NfsStat3::OK);
        assert_eq!(send(connect(ensemble.port()).await.conn(), &record).await.unwrap(), answer);
        (record, answer, g.file)
    });
    ensemble.kill();
    ensemble.restart().unwrap();
    wire::run(async {
        let c = connect(ensemble.port()).await;
        assert_eq!(send(c.conn(), &record).await.unwrap(), answer);
        assert_eq!(c.getattr(&file).await.good().mode, 0o604);
    });
    check(&ensemble);
}

/// Sends until it is answered, on a new connection whenever the last one broke.
async fn insist(port: u16, record: &[u8]) -> Bytes {
    loop {
        if let Ok(conn) = Conn::connect(loopback(port)).await
            && let Ok(answer) = send(&conn, record).await
        {
            return answer;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Servers are killed while each call is under way: every call is answered as if nothing had been.
fn killed_under_way(name: &str, policy: Policy, roles: &[&str]) {
    const ROUNDS: usize = 2;
    let ensemble: Ensemble = start(name, policy, Layout::Separate);
    let xids = Xids(Cell::new(20_000));
    wire::run(async {
        let c = connect(ensemble.port()).await;
        let g = ground(&c).await;
        let mut kills = 0;
        for round in 0..ROUNDS {
            let ending = format!("-{round}");
            for (what, record) in records(&xids, &g.dir, &g.other, &g.file, &ending) {
                let kill = async {
                    // Sooner and later within the call: after so many turns of this thread.
                    for _ in 0..kills % 7 {
                        tokio::task::yield_now().await;
                    }
                    kill_one(&ensemble, roles[kills % roles.len()], kills / roles.len());
                };
                let (answer, ()) = futures_util::join!(insist(ensemble.port(), &record), kill);
                kills += 1;
                assert_eq!(status(&answer), NfsStat3::OK, "{what}, round {round}");
            }
            let c = connect(ensemble.port()).await;
            happened_once(&c, &g.dir, &g.other, &g.file, &ending).await;
        }
    });
    check(&ensemble);
}

#[test]
fn calls_under_way_at_a_kill_happen_once_mkdir() {
    killed_under_way("once-killed-mkdir", Policy::Mkdir, &["dirserver", "proxy"]);
}

#[test]
fn calls_under_way_at_a_kill_happen_once_hash() {
    killed_under_way("once-killed-hash", Policy::Hash, &["dirserver", "dirserver", "proxy"]);
}
