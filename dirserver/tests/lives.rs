//! Servers that die while operations between them are under way: what one life of a server was told, granted or said is
//! not what the next one knows. Each test is one order of messages in which something stayed held, owed or lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::client::Fh;
use common::cluster::ME;
use common::{Client, Cluster, run};
use futures_util::poll;
use slice_proto::ids::{ServerId, TableEpoch};
use slice_proto::nfs3::types::DirOp;
use slice_proto::nfs3::{CreateArgs, CreateHow, NfsStat3, Proc3, RenameArgs, Sattr3};
use slice_proto::peer::PeerProc;
use slice_proto::peer::dir::{DirRes, DropArgs, HoldArgs, HoldKey, HoldMode, HoldPart, HoldRes, OpId};
use slice_proto::placement::entry_site;
use slice_proto::table::NamePolicy;
use slice_rpc::service::Message;
use std::pin::pin;
use std::time::Duration;

/// The server that runs the operation, one with records of it, and the one with the root directory.
const ENTRY: ServerId = ServerId(1);
const OTHER: ServerId = ServerId(2);
const TOP: ServerId = ServerId(3);
/// Longer than any wait that ends.
const FOR_EVER: Duration = Duration::from_secs(60);

const fn index(server: ServerId) -> usize {
    server.0 as usize - 1
}

/// A name in `dir` whose entry is at server `at`.
fn name_at(root: &Client, dir: &[u8], at: ServerId, tag: &str) -> Vec<u8> {
    let site = |n: &Vec<u8>| entry_site(root.volume(), root.open(dir).file, n);
    (0..1000).map(|i| format!("{tag}{i}").into_bytes()).find(|n| root.owner(site(n)) == at).unwrap()
}

async fn cluster() -> (Cluster, Client) {
    let c = Cluster::new(3, NamePolicy::Hash).await;
    let root = Client::root(&c);
    assert_eq!(root.owner(root.volume().root.home()), TOP);
    (c, root)
}

/// A directory of the root's whose record is at `at`.
async fn dir_at(root: &Client, at: ServerId, tag: &str) -> Fh {
    let top = root.root_fh();
    root.mkdir(&top, &name_at(root, &top, at, tag), 0o777).await.unwrap()
}

/// The reply to a call, which must come.
async fn done(reply: impl Future<Output = Result<bytes::BytesMut, slice_rpc::CallError>>, c: &Cluster) {
    match tokio::time::timeout(FOR_EVER, reply).await {
        Ok(reply) => assert_eq!(reply.unwrap()[24..28], [0; 4]),
        Err(_) => panic!("it waits for ever\n{}", c.tell()),
    }
}

/// Returns once a server has heard what the others' operations hold there.
async fn reconciled(c: &Cluster, server: ServerId) {
    while !c.server(index(server)).tell().contains("reconciled: true") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A directory that moves from one directory at [`OTHER`] to another, by a name at [`ENTRY`].
struct Move {
    a: Fh,
    b: Fh,
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Move {
    /// Who walks up from the target looks at [`OTHER`]'s records: at the target itself, or, if it is `deep`, at the directory
    /// in which it is.
    async fn prepare(c: &Cluster, root: &Client, deep: bool) -> Self {
        let (a, mut b) = (dir_at(root, OTHER, "a").await, dir_at(root, OTHER, "b").await);
        if deep {
            b = root.mkdir(&b, &name_at(root, &b, ENTRY, "deep"), 0o777).await.unwrap();
        }
        let (from, to) = (name_at(root, &a, OTHER, "from"), name_at(root, &b, ENTRY, "to"));
        root.mkdir(&a, &from, 0o755).await.unwrap();
        c.settle().await;
        Self { a, b, from, to }
    }

    fn record(&self, root: &Client) -> Message {
        let from = DirOp { dir: &self.a, name: &self.from };
        let to = DirOp { dir: &self.b, name: &self.to };
        Message::from(root.record(Proc3::Rename, &RenameArgs { from, to }))
    }
}

/// The walk up looks at directories that it does not hold, and at ones that it does. A server that starts meanwhile must
/// neither take the first for held nor have the second's readers wait: the operation would wait for itself.
#[test]
fn who_only_looks_at_a_record_does_not_wait_for_his_own_hold() {
    for deep in [false, true] {
        run(async || {
            let (mut c, root) = cluster().await;
            let m = Move::prepare(&c, &root, deep).await;
            let door = c.doors[index(OTHER)].clone();
            door.close_to_holds(&[HoldMode::Peek]);
            let reply = c.directory.channel(ENTRY).unwrap().call(m.record(&root));
            let mut reply = pin!(reply);
            tokio::select! {
                _ = &mut reply => panic!("it looked at nothing"),
                () = door.knocked() => {}
            }
            c.restart(index(OTHER)).await;
            reconciled(&c, OTHER).await;
            door.let_in();
            done(reply, &c).await;
            c.settle().await;
            common::check::consistent(&c).await;
        });
    }
}

/// The volume's rename right is held where the root directory is, and nothing is to be done there. If whoever holds it dies
/// with its operation committed, what it owes to others says nothing about the right: it is free.
#[test]
fn what_is_held_where_nothing_is_owed_is_free_when_its_holder_dies() {
    run(async || {
        let (mut c, root) = cluster().await;
        let m = Move::prepare(&c, &root, false).await;
        c.doors[index(OTHER)].close_to(&[PeerProc::Confirm, PeerProc::Owe]);
        c.doors[index(TOP)].close_to(&[PeerProc::Drop]);
        let reply = c.directory.channel(ENTRY).unwrap().call(m.record(&root));
        let mut reply = pin!(reply);
        tokio::select! {
            _ = &mut reply => panic!("it had nothing to have confirmed"),
            () = async { tokio::join!(c.doors[index(OTHER)].knocked(), c.doors[index(TOP)].knocked()); } => {}
        }
        c.kill(index(ENTRY)).await;
        c.doors.iter().for_each(common::fake::Door::open);
        c.start(index(ENTRY)).await;
        done(reply, &c).await;
        c.settle().await;
        // Another moves a directory: back.
        root.rename(&m.b, &m.to, &m.a, &m.from).await.unwrap();
        c.settle().await;
        common::check::consistent(&c).await;
    });
}

/// A CONFIRM is answered once a hold is durable; the effects may be lost with the server that answered. Its next life is
/// sent them again, and nobody takes its word that all it had applied is durable for theirs.
#[test]
fn what_a_life_has_lost_is_carried_out_by_the_next() {
    for asked_before_it_starts in [false, true] {
        run(async || {
            let (mut c, root) = cluster().await;
            let d = dir_at(&root, OTHER, "d").await;
            c.settle().await;
            let door = c.doors[index(OTHER)].clone();
            door.lose_confirms(1);
            let mut procs = vec![PeerProc::Owe];
            if !asked_before_it_starts {
                // The question whether all is durable comes to the next life first.
                procs.push(PeerProc::Reconcile);
                c.doors[index(ENTRY)].close_to(&[PeerProc::Reconcile]);
            }
            door.close_to(&procs);
            let name = name_at(&root, &d, ENTRY, "f");
            let how = CreateHow::Guarded(Sattr3::default());
            let create = root.record(Proc3::Create, &CreateArgs { at: DirOp { dir: &d, name: &name }, how });
            done(c.directory.channel(ENTRY).unwrap().call(Message::from(create)), &c).await;
            door.knocked().await;
            c.kill(index(OTHER)).await;
            door.open();
            c.start(index(OTHER)).await;
            if !asked_before_it_starts {
                c.doors[index(ENTRY)].knocked().await;
                c.doors[index(ENTRY)].let_in();
            }
            c.settle().await;
            common::check::consistent(&c).await;
        });
    }
}

/// A RENAME was answered, and the server of the old name died before it had written that it is gone. Its next life knows that
/// somebody holds the name, not what has become of it: who lists the directory waits, as who looks it up does.
#[test]
fn who_lists_a_directory_waits_for_what_is_owed_to_its_names() {
    for plus in [false, true] {
        run(async || {
            let (mut c, root) = cluster().await;
            let d = dir_at(&root, TOP, "d").await;
            let beside = dir_at(&root, OTHER, "beside").await;
            let (from, to) = (name_at(&root, &d, OTHER, "from"), name_at(&root, &d, ENTRY, "to"));
            root.file(&d, &from, 0o644).await.unwrap();
            c.settle().await;
            let door = c.doors[index(OTHER)].clone();
            door.lose_confirms(1);
            door.close_to(&[PeerProc::Owe]);
            let args = RenameArgs { from: DirOp { dir: &d, name: &from }, to: DirOp { dir: &d, name: &to } };
            let rename = Message::from(root.record(Proc3::Rename, &args));
            done(c.directory.channel(ENTRY).unwrap().call(rename), &c).await;
            c.kill(index(OTHER)).await;
            door.open();
            door.close_to(&[PeerProc::Confirm]);
            c.start(index(OTHER)).await;
            reconciled(&c, OTHER).await;
            let list = async {
                let page = if plus {
                    root.page(OTHER, &d, 0, 4096).await
                } else {
                    root.plain_page(OTHER, &d, 0, 4096).await
                };
                page.unwrap().0.into_iter().map(|e| e.name).collect::<Vec<_>>()
            };
            let mut list = pin!(list);
            assert!(poll!(&mut list).is_pending());
            // The same connection: when this is answered, that has been looked at.
            root.getattr(&beside).await.unwrap();
            assert!(poll!(&mut list).is_pending(), "listed while the old name was still there");
            door.let_in();
            let names = tokio::time::timeout(FOR_EVER, list).await.unwrap_or_else(|_| panic!("{}", c.tell()));
            assert!(names.is_empty(), "the old name is listed: {names:?}");
            c.settle().await;
            common::check::consistent(&c).await;
        });
    }
}

/// A RENAME that replaces a file is done where its new name is, and not where the file was. Who is told of the new name there
/// may ask for the file here, and must not find it: the answer waits, also if the server that has to give it has died since.
#[test]
fn who_sees_what_an_operation_has_done_is_answered_when_it_is_done_everywhere() {
    for dies in [false, true] {
        run(async || {
            let (mut c, root) = cluster().await;
            let d = dir_at(&root, TOP, "d").await;
            let beside = dir_at(&root, ENTRY, "beside").await;
            let (from, to) = (name_at(&root, &d, OTHER, "from"), name_at(&root, &d, ENTRY, "to"));
            let moved = root.file(&d, &from, 0o644).await.unwrap();
            // Made by a name at OTHER, so that it is there.
            let made = name_at(&root, &d, OTHER, "made");
            let replaced = root.file(&d, &made, 0o644).await.unwrap();
            root.rename(&d, &made, &d, &to).await.unwrap();
            c.settle().await;
            let door = c.doors[index(OTHER)].clone();
            door.close_to(&[PeerProc::Confirm, PeerProc::Owe]);
            let args = RenameArgs { from: DirOp { dir: &d, name: &from }, to: DirOp { dir: &d, name: &to } };
            let rename = Message::from(root.record(Proc3::Rename, &args));
            let mut rename = pin!(c.directory.channel(ENTRY).unwrap().call(rename));
            tokio::select! {
                _ = &mut rename => panic!("it had nothing to have confirmed"),
                () = door.knocked() => {}
            }
            if dies {
                c.kill(index(ENTRY)).await;
                c.start(index(ENTRY)).await;
            }
            let names = |page: Result<(Vec<common::client::Listed>, bool), _>| {
                page.unwrap().0.into_iter().map(|e| e.name).collect::<Vec<_>>()
            };
            let mut found = pin!(root.lookup(&d, &to));
            let mut list = pin!(async { names(root.plain_page(ENTRY, &d, 0, 4096).await) });
            let mut list_plus = pin!(async { names(root.page(ENTRY, &d, 0, 4096).await) });
            assert!(poll!(&mut found).is_pending());
            assert!(poll!(&mut list).is_pending() && poll!(&mut list_plus).is_pending());
            // The same connection: when this is answered, those have been looked at.
            root.getattr(&beside).await.unwrap();
            assert!(poll!(&mut found).is_pending(), "the new name was told of");
            assert!(poll!(&mut list).is_pending() && poll!(&mut list_plus).is_pending(), "listed");
            assert_eq!(root.getattr(&replaced).await.unwrap().nlink, 1);
            door.let_in();
            let answers = async { tokio::join!(found, list, list_plus) };
            let (found, list, list_plus) =
                tokio::time::timeout(FOR_EVER, answers).await.unwrap_or_else(|_| panic!("{}", c.tell()));
            assert_eq!(found.unwrap().0, moved);
            assert!(list == [to.clone()] && list_plus == list);
            assert_eq!(root.getattr(&replaced).await, Err(NfsStat3::STALE));
            done(rename, &c).await;
            c.settle().await;
            common::check::consistent(&c).await;
        });
    }
}

/// Shared holds may be lost with the life that granted them, and who removes a directory counts on there being none: so
/// nobody holds it for himself before all have told what they hold.
#[test]
fn who_wants_a_record_for_himself_waits_until_all_holds_are_known() {
    run(async || {
        let (mut c, root) = cluster().await;
        let d = dir_at(&root, OTHER, "d").await;
        c.settle().await;
        let dir = root.open(&d).file;
        c.doors[index(TOP)].close_to(&[PeerProc::Reconcile]);
        c.restart(index(OTHER)).await;
        c.doors[index(TOP)].knocked().await;
        let ask = async |n: u64, share, mode| {
            let key = HoldKey { site: dir.home(), file: dir, part: HoldPart::Attr };
            let op = OpId { sender: ME, seq: (1 << OpId::COUNT_BITS) + n };
            let args = HoldArgs { table: TableEpoch(1), op, settled: 0, key, mode, share };
            root.private::<HoldRes>(OTHER, PeerProc::Hold, &args).await.status
        };
        let free = async |n: u64| {
            let op = OpId { sender: ME, seq: (1 << OpId::COUNT_BITS) + n };
            root.private::<DirRes>(OTHER, PeerProc::Drop, &DropArgs { op, durable: true }).await
        };
        let mut alone = pin!(ask(1, false, HoldMode::Wait));
        assert!(poll!(&mut alone).is_pending());
        // The same connection: when this is answered, that has been looked at.
        root.getattr(&d).await.unwrap();
        assert_eq!(ask(2, true, HoldMode::Try).await, 0, "who shares it finds it free");
        free(2).await;
        c.doors[index(TOP)].let_in();
        assert_eq!(alone.await, 0);
        free(1).await;
        c.settle().await;
    });
}

/// A hold that was granted, but whose answer died with the life that granted it, is asked for again. So it is not decided,
/// and who asks may look at what it holds: as RENAME of a directory does on its way up, which waited for itself for ever.
#[test]
fn who_asks_for_its_hold_again_may_look_at_the_record() {
    run(async || {
        let (mut c, root) = cluster().await;
        let d = dir_at(&root, OTHER, "d").await;
        c.settle().await;
        let dir = root.open(&d).file;
        let op = OpId { sender: ME, seq: (1 << OpId::COUNT_BITS) + 1 };
        let key = HoldKey { site: dir.home(), file: dir, part: HoldPart::Attr };
        let ask = async |mode| {
            let args = HoldArgs { table: TableEpoch(1), op, settled: 0, key, mode, share: false };
            root.private::<HoldRes>(OTHER, PeerProc::Hold, &args).await.status
        };
        assert_eq!(ask(HoldMode::Wait).await, 0);
        c.restart(index(OTHER)).await;
        assert_eq!(ask(HoldMode::Wait).await, 0);
        let looked = tokio::time::timeout(FOR_EVER, ask(HoldMode::Peek)).await;
        assert_eq!(looked.unwrap_or_else(|_| panic!("it waits for itself\n{}", c.tell())), 0);
        root.private::<DirRes>(OTHER, PeerProc::Drop, &DropArgs { op, durable: true }).await;
        c.settle().await;
        common::check::consistent(&c).await;
    });
}

/// Settling with one peer does not wait for another that is away.
#[test]
fn nobody_waits_to_be_settled_for_one_that_is_away() {
    run(async || {
        let (mut c, root) = cluster().await;
        let (there, away) = (dir_at(&root, OTHER, "there").await, dir_at(&root, TOP, "away").await);
        c.settle().await;
        c.doors[index(TOP)].close_to(&[PeerProc::Owe]);
        // A part that is durable by the time that it is answered is not asked about: until one is not.
        for i in 0.. {
            root.file(&away, &name_at(&root, &away, ENTRY, &format!("f{i}-")), 0o644).await.unwrap();
            let settled = async {
                while c.server(index(ENTRY)).stats().unsettled > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                () = c.doors[index(TOP)].knocked() => break,
                () = settled => {}
            }
        }
        for i in 0..10 {
            root.file(&there, &name_at(&root, &there, ENTRY, &format!("f{i}-")), 0o644).await.unwrap();
        }
        let rest = async {
            while c.server(index(ENTRY)).stats().unsettled > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(FOR_EVER, rest).await.unwrap_or_else(|_| panic!("{}", c.tell()));
        c.kill(index(TOP)).await;
        c.doors[index(TOP)].open();
        c.start(index(TOP)).await;
        c.settle().await;
        common::check::consistent(&c).await;
    });
}
