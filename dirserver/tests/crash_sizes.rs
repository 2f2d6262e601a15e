//! What acts at data servers — SETATTR of a size, CREATE with a size, REMOVE of a large file — with directory servers killed
//! right before and right after each step: afterwards it has happened once, its retransmission gets the first answer and
//! changes nothing, and nothing is left to do.
//!
//! ```text
//!  T record ─▶ IntentLog ─▶ Truncate ─▶ record, reply ─▶ IntentComplete
//!              record, T record, reply ─▶ Extend
//!              record goes, purge owed, reply ─▶ IntentLog ─▶ Purge ─▶ IntentComplete
//! ```
//! A batch lies between two calls: the server is killed before it where the call ahead of it is executed and not answered,
//! and after it where the next call is not executed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use bytes::BytesMut;
use common::client::Fh;
use common::fake::When;
use common::{Client, Cluster, run};
use futures_util::FutureExt;
use slice_proto::ids::{AttrSeq, Epoch, FileId, ServerId, TableEpoch};
use slice_proto::nfs3::types::DirOp;
use slice_proto::nfs3::{
    CreateArgs, CreateHow, CreateOk, NfsStat3, NfsTime3, Proc3, RemoveArgs, Res3, Sattr3, SetattrArgs,
    TimeHow, WccData,
};
use slice_proto::peer::PeerProc;
use slice_proto::peer::attrs::PushArgs;
use slice_proto::placement::{THRESHOLD, entry_site};
use slice_proto::table::NamePolicy;
use slice_proto::xdr::{Decode, Reader};
use std::sync::Arc;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// Of the files that are there: across the threshold and several stripe units.
const LARGE: u64 = 3 * MIB + 5;
/// Below every reach: a cut.
const CUT: u64 = MIB + 3;
/// Past every reach: growth.
const GROWN: u64 = 100 * MIB;
const MTIME: NfsTime3 = NfsTime3 { seconds: 1_000_000, nseconds: 5 };

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    /// SETATTR of a smaller size, a mode and a time.
    Cut,
    /// SETATTR of a size past the reach.
    Grow,
    /// CREATE of a new file that begins with a size.
    Make,
    /// CREATE of a file that is there: O_CREAT with O_TRUNC.
    Empty,
    /// The same, where the name is at another server than the file.
    EmptyElsewhere,
    /// REMOVE of the last link.
    Remove,
    /// The same, where the name is at another server than the file.
    RemoveElsewhere,
}

const ALL: [What; 7] = [
    What::Cut,
    What::Grow,
    What::Make,
    What::Empty,
    What::EmptyElsewhere,
    What::Remove,
    What::RemoveElsewhere,
];

/// The calls to data servers and the coordinator that each makes, in order.
fn steps(what: What) -> &'static [PeerProc] {
    match what {
        What::Cut | What::Empty | What::EmptyElsewhere => {
            &[PeerProc::IntentLog, PeerProc::Truncate, PeerProc::IntentComplete]
        }
        What::Grow | What::Make => &[PeerProc::Extend],
        What::Remove | What::RemoveElsewhere => {
            &[PeerProc::IntentLog, PeerProc::Purge, PeerProc::IntentComplete]
        }
    }
}

/// A file of [`LARGE`] bytes under a name, and the operation on it.
struct Play {
    what: What,
    dir: Fh,
    name: Vec<u8>,
    /// The file that is there, if one is.
    file: Option<(Fh, FileId)>,
    asked: ServerId,
    record: BytesMut,
}

/// A name whose entry is at a server.
fn name_at(root: &Client, dir: &[u8], at: ServerId, tag: &str) -> Vec<u8> {
    let owner = |n: &Vec<u8>| root.owner(entry_site(root.volume(), root.open(dir).file, n));
    (0..1000).map(|i| format!("{tag}{i}").into_bytes()).find(|n| owner(n) == at).unwrap()
}

async fn large(root: &Client, dir: &[u8], name: &[u8]) -> (Fh, FileId) {
    let fh = root.file(dir, name, 0o640).await.unwrap();
    let file = root.open(&fh).file;
    assert_eq!(root.raise(&fh, Epoch(1), 4 * MIB).await.status, 0);
    let push = PushArgs {
        table: TableEpoch(1),
        file,
        epoch: Epoch(1),
        seq: AttrSeq(1),
        end: LARGE,
        mtime_ns: 0,
        ctime_ns: 0,
        clear_set_ids: false,
    };
    assert_eq!(root.push(&push).await.status, 0);
    (fh, file)
}

fn sized(size: u64) -> Sattr3 {
    Sattr3 { size: Some(size), ..Sattr3::default() }
}

impl Play {
    /// The file's home is server 2 (if there are so many), and its name's server is that or 1.
    async fn prepare(root: &Client, what: What, servers: usize, tag: &str) -> Self {
        let home = ServerId(2.min(servers as u64));
        let dir = root.root_fh();
        let mut name = name_at(root, &dir, home, &format!("{what:?}{tag}"));
        let file = if what == What::Make { None } else { Some(large(root, &dir, &name).await) };
        if matches!(what, What::EmptyElsewhere | What::RemoveElsewhere) {
            let to = name_at(root, &dir, ServerId(1), &format!("{what:?}{tag}to"));
            root.rename(&dir, &name, &dir, &to).await.unwrap();
            name = to;
        }
        let at = DirOp { dir: &dir, name: &name };
        let create = |how| root.record(Proc3::Create, &CreateArgs { at, how });
        let setattr = |attr| {
            let object = &file.as_ref().unwrap().0;
            root.record(Proc3::Setattr, &SetattrArgs { object, attr, guard: None })
        };
        let record = match what {
            What::Cut => setattr(Sattr3 { mode: Some(0o600), mtime: TimeHow::Client(MTIME), ..sized(CUT) }),
            What::Grow => setattr(sized(GROWN)),
            What::Make => create(CreateHow::Guarded(sized(CUT))),
            What::Empty | What::EmptyElsewhere => create(CreateHow::Unchecked(sized(0))),
            What::Remove | What::RemoveElsewhere => root.record(Proc3::Remove, &RemoveArgs { object: at }),
        };
        let asked = match what {
            What::Cut | What::Grow => home,
            _ => root.owner(entry_site(root.volume(), root.open(&dir).file, &name)),
        };
        Self { what, dir, name, file, asked, record }
    }

    /// Everything that the client is told holds.
    async fn verify(&self, c: &Cluster, root: &Client, reply: &[u8]) {
        let found = root.lookup(&self.dir, &self.name).await;
        if matches!(self.what, What::Remove | What::RemoveElsewhere) {
            assert_eq!(found.map(|_| ()), Err(NfsStat3::NOENT));
            let (_, file) = self.file.as_ref().unwrap();
            let object = c.fake.object(*file).expect("purged");
            assert!(object.tombstone && object.epoch == Epoch(2), "{object:?}");
            return;
        }
        let (fh, attr) = found.unwrap();
        let file = root.open(&fh).file;
        let (size, epoch) = match self.what {
            What::Cut => (CUT, 2),
            What::Grow => (GROWN, 1),
            What::Make => (CUT, 1),
            _ => (0, 2),
        };
        assert_eq!(attr.size, size);
        let stamp = root.stamp(&fh).await;
        assert_eq!(stamp.epoch, Epoch(epoch), "it was cut once");
        let object = c.fake.object(file).expect("told");
        assert_eq!((object.size, object.epoch, object.tombstone), (size, Epoch(epoch), false));
        match self.what {
            What::Cut => {
                assert_eq!((attr.mode, attr.mtime), (0o600, MTIME));
                let wcc = Res3::<WccData, WccData>::decode(&mut Reader::new(reply)).unwrap();
                assert_eq!(wcc.into_result().unwrap().after, Some(attr), "the reply shows what is");
            }
            What::Grow => {
                let wcc = Res3::<WccData, WccData>::decode(&mut Reader::new(reply)).unwrap();
                assert_eq!(wcc.into_result().unwrap().after, Some(attr), "the reply shows what is");
            }
            _ => {
                let made = Res3::<CreateOk<'_>, WccData>::decode(&mut Reader::new(reply)).unwrap();
                let made = made.into_result().unwrap();
                assert_eq!(made.object.unwrap(), fh);
                assert!(made.attr.is_none_or(|a| a == attr), "the reply shows what is");
            }
        }
    }

    /// Others go on; the retransmission gets the first answer, and does nothing to what they did.
    async fn again(&self, c: &Cluster, root: &Client, reply: &[u8]) {
        let mut other = Client::root(c);
        other.client = slice_proto::trailer::ClientId([77; 16]);
        let found = other.lookup(&self.dir, &self.name).await;
        let later = match found {
            Ok((fh, _)) => {
                other.setattr(&fh, sized(CUT + 1), None).await.unwrap();
                fh
            }
            Err(_) => other.file(&self.dir, &self.name, 0o444).await.unwrap(),
        };
        let before = other.getattr(&later).await.unwrap();
        let repeated = root.send(self.asked, self.record.clone()).await;
        assert_eq!(repeated, reply, "the first answer");
        assert_eq!(other.getattr(&later).await, Ok(before));
        assert_eq!(other.lookup(&self.dir, &self.name).await.unwrap().0, later);
    }
}

/// Intentions whose completion was lost with a life of their server are the coordinator's to take over: it finds nothing to
/// do (docs/wire.md).
fn nothing_to_take_over(c: &Cluster) {
    for (id, intent) in c.fake.intents.lock().iter() {
        let object = c.fake.object(intent.file).unwrap();
        assert!(intent.epoch <= object.epoch, "{id:?}: {intent:?} would change {object:?}");
    }
}

/// A server's place in the cluster.
fn index(server: ServerId) -> usize {
    server.0 as usize - 1
}

/// One row: the operation on a file of its own, stopped at a step; the file's home dies there, or all do.
async fn interrupt(
    c: &mut Cluster,
    root: &Client,
    what: What,
    (step, when): (PeerProc, When),
    all_die: bool,
) {
    println!("{what:?} at {} servers stopped {when:?} {step:?}, all die: {all_die}", c.len());
    let play = Play::prepare(root, what, c.len(), &format!("{step:?}{when:?}{all_die}")).await;
    c.settle().await;
    let fake = Arc::clone(&c.fake);
    // Some may have come by after the one that was waited for.
    while fake.stands.notified().now_or_never().is_some() {}
    fake.stop_at(step, when);
    let call = root.send(play.asked, play.record.clone());
    tokio::pin!(call);
    let mut answered = None;
    let stands = fake.stands.notified();
    tokio::pin!(stands);
    tokio::select! {
        () = &mut stands => {}
        // The reply may come before that.
        reply = &mut call => {
            answered = Some(reply);
            tokio::time::timeout(Duration::from_secs(20), stands).await.expect("nobody comes by");
        }
    }
    let home = play.file.as_ref().map_or(play.asked, |(_, f)| c.owner(f.home()));
    let victims = if all_die { (0..c.len()).collect() } else { vec![index(home)] };
    for v in &victims {
        c.kill(*v).await;
    }
    fake.open();
    for v in &victims {
        c.start(*v).await;
    }
    let reply = match answered {
        Some(reply) => reply,
        None => tokio::time::timeout(Duration::from_secs(20), call).await.expect("no reply"),
    };
    assert_eq!(reply[..4], [0; 4], "{what:?}");
    c.settle().await;
    play.verify(c, root, &reply).await;
    play.again(c, root, &reply).await;
    c.settle().await;
    common::check::consistent(c).await;
    nothing_to_take_over(c);
}

fn table(servers: usize) {
    run(async || {
        let policy = if servers == 1 { NamePolicy::Partition } else { NamePolicy::Hash };
        let mut c = Cluster::new(servers, policy).await;
        let root = Client::root(&c);
        let here = |what: &What| servers > 1 || !matches!(what, What::EmptyElsewhere | What::RemoveElsewhere);
        for what in ALL.into_iter().filter(here) {
            for step in steps(what) {
                for when in [When::Before, When::After] {
                    interrupt(&mut c, &root, what, (*step, when), false).await;
                    if servers > 1 {
                        interrupt(&mut c, &root, what, (*step, when), true).await;
                    }
                }
            }
        }
        // Another life finds nothing that an earlier one left.
        for v in 0..servers {
            c.stop(v).await;
        }
        c.fake.calls.lock().clear();
        for v in 0..servers {
            c.start(v).await;
        }
        c.settle().await;
        let calls = c.fake.calls.lock().clone();
        assert!(calls.is_empty(), "{calls:?} in a life that was asked for nothing");
    });
}

#[test]
fn one_server_is_killed_at_every_step() {
    table(1);
}

#[test]
fn one_or_all_of_three_servers_are_killed_at_every_step() {
    table(3);
}

/// Between the batch that makes a file with a size and the small-file site's answer nobody sees it.
#[test]
fn a_file_is_not_seen_before_its_small_file_site_knows_its_size() {
    run(async || {
        let c = Cluster::new(1, NamePolicy::Partition).await;
        let root = Client::root(&c);
        let dir = root.root_fh();
        c.fake.stop_at(PeerProc::Extend, When::Before);
        let create = root.create(&dir, b"f", CreateHow::Guarded(sized(THRESHOLD + 1)));
        tokio::pin!(create);
        tokio::select! {
            () = c.fake.stands.notified() => {}
            made = &mut create => panic!("{made:?}"),
        }
        let other = Client::new(&c, 7, 7, &[]);
        let look = other.lookup(&dir, b"f");
        tokio::pin!(look);
        // It stands in the queue: whatever else is asked is answered meanwhile.
        tokio::select! {
            seen = &mut look => panic!("{seen:?}"),
            attr = root.getattr(&dir) => assert!(attr.is_ok()),
        }
        c.fake.open();
        let (fh, attr) = create.await.unwrap();
        assert_eq!(attr.unwrap().size, THRESHOLD + 1);
        let (seen, attr) = look.await.unwrap();
        assert_eq!((seen, attr.size), (fh, THRESHOLD + 1));
    });
}
