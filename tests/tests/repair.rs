//! `slice admin check --repair`: every kind of damage is done to the stores of an ensemble that stands still; the check names it,
//! the repair mends it or says why not, a second check is clean, and what was not damaged is as it was.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop at the first surprise"
)]

mod repair {
    pub mod damage;
}

use repair::damage::Stores;
use serde_json::Value;
use slice_load::Client;
use slice_load::client::Fh;
use slice_proto::ids::FileId;
use slice_proto::nfs3::{Fattr3, Sattr3, StableHow};
use slice_tests::ensemble::{Ensemble, Layout, Options, Policy};
use slice_tests::torment::work::{LIMIT, run};
use slice_tests::wire::Expect;
use slice_tests::wire::content::{pattern, read_all};
use slice_tests::wire::stage::{create, list, mkdir};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

const KIB: u64 = 1 << 10;
/// Bytes of a file that goes beyond its small-file site.
const LARGE: u64 = 200 * KIB;

/// A client of an ensemble, as root.
struct Hand {
    c: Client,
    root: Fh,
}

impl Hand {
    async fn of(ensemble: &Ensemble) -> Self {
        let c = Client::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, ensemble.port()))).await.unwrap();
        let root = c.mnt("/").await.unwrap().root;
        Self { c, root }
    }

    async fn id(&self, fh: &Fh) -> FileId {
        self.c.getattr(fh).await.good().fileid
    }

    async fn dir(&self, name: &str) -> (Fh, FileId) {
        let fh = mkdir(&self.c, &self.root, name, 0o755).await;
        (fh, self.id(&fh).await)
    }

    async fn sub(&self, dir: &Fh, name: &str) -> (Fh, FileId) {
        let fh = mkdir(&self.c, dir, name, 0o755).await;
        (fh, self.id(&fh).await)
    }

    /// A file with bytes that its name tells.
    async fn file(&self, dir: &Fh, name: &str, len: u64) -> (Fh, FileId) {
        let fh = create(&self.c, dir, name, 0o640).await;
        let mut at = 0;
        while at < len {
            let n = (len - at).min(64 * KIB);
            let bytes = pattern(seed(name), at, n as usize);
            self.c.write(&fh, at, &bytes, StableHow::FileSync).await.good();
            at += n;
        }
        (fh, self.id(&fh).await)
    }

    /// All its bytes.
    async fn read(&self, fh: &Fh) -> Vec<u8> {
        let size = self.c.getattr(fh).await.good().size;
        read_all(&self.c, fh, 0, size).await
    }

    async fn look(&self, dir: &Fh, name: &str) -> Option<Fh> {
        let res = self.c.lookup(dir, name.as_bytes()).await;
        res.unwrap().into_result().ok().map(|f| f.object)
    }

    /// The names of a directory.
    async fn names(&self, dir: &Fh) -> Vec<String> {
        let all = list(&self.c, dir, 32 << 10).await.into_iter();
        let mut all: Vec<_> = all.map(|e| String::from_utf8(e.name).unwrap()).collect();
        all.retain(|n| n != "." && n != "..");
        all.sort();
        all
    }
}

fn seed(name: &str) -> u64 {
    name.bytes().fold(7, |h, b| h * 31 + u64::from(b))
}

/// What is in a directory that nobody damages: attributes and bytes of each name.
type Kept = BTreeMap<String, (Fattr3, Vec<u8>)>;

const KEPT: [(&str, u64); 4] = [("empty", 0), ("small", 5000), ("whole", 64 * KIB), ("large", LARGE)];

async fn keep(hand: &Hand) -> Fh {
    let (dir, _) = hand.dir("kept").await;
    for (name, len) in KEPT {
        hand.file(&dir, name, len).await;
    }
    let (sub, _) = hand.sub(&dir, "sub").await;
    hand.file(&sub, "deep", 10).await;
    hand.c.link(&hand.look(&dir, "small").await.unwrap(), &sub, b"again").await.good();
    hand.c.symlink(&dir, b"link", Sattr3::default(), b"over/there").await.good();
    dir
}

async fn kept(hand: &Hand) -> Kept {
    let dir = hand.look(&hand.root, "kept").await.unwrap();
    let sub = hand.look(&dir, "sub").await.unwrap();
    let mut all = Kept::new();
    for (at, name) in [(&dir, "link"), (&dir, "sub"), (&sub, "again"), (&sub, "deep")]
        .into_iter()
        .chain(KEPT.iter().map(|(name, _)| (&dir, *name)))
    {
        let fh = hand.look(at, name).await.unwrap();
        let attr = hand.c.getattr(&fh).await.good();
        let bytes = match name {
            "link" => hand.c.readlink(&fh).await.good().target,
            "sub" => Vec::new(),
            _ => hand.read(&fh).await,
        };
        all.insert(name.to_owned(), (attr, bytes));
    }
    let attr = hand.c.getattr(&dir).await.good();
    all.insert("kept".to_owned(), (attr, Vec::new()));
    all
}

/// Runs `slice admin check`: its exit code, and what it says.
fn check(ensemble: &Ensemble, repair: bool) -> (i32, Value) {
    let mut command = Command::new(ensemble.binary());
    command.args(["admin", "check", "--json", "--data"]).arg(ensemble.data());
    if repair {
        command.arg("--repair");
    }
    let said = command.output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout);
    let value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}\n{}", String::from_utf8_lossy(&said.stderr)));
    (said.status.code().unwrap(), value)
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

/// The check finds all of `problems` and nothing else; it says of each whether it can be repaired.
fn finds(ensemble: &Ensemble, problems: &[String], repairable: bool) {
    let (code, said) = check(ensemble, false);
    assert_eq!(code, 1, "{said:#}");
    let found = strings(&said["problems"]);
    for problem in problems {
        assert!(found.iter().any(|f| f.contains(problem.as_str())), "{problem:?} is not among {found:#?}");
    }
    for f in &found {
        assert!(problems.iter().any(|p| f.contains(p.as_str())), "{f:?} was not asked for: {problems:#?}");
    }
    for proposal in said["proposals"].as_array().unwrap() {
        assert_eq!(proposal["repairable"], repairable, "{proposal:#}");
    }
}

/// The repair mends everything, and a second check is clean.
fn mends(ensemble: &Ensemble) -> Value {
    let (code, said) = check(ensemble, true);
    assert_eq!(code, 0, "{said:#}");
    assert_eq!(said["clean"], true);
    println!("{:#}", said["repair"]);
    let (code, again) = check(ensemble, false);
    assert_eq!((code, &again["clean"]), (0, &Value::Bool(true)), "{again:#}");
    said
}

fn start(name: &str, policy: Policy) -> Ensemble {
    Ensemble::start(&format!("repair-{name}"), Options::new(policy, Layout::OneProcess)).unwrap()
}

/// Stops the ensemble, changes its stores, and starts it again.
fn damage(ensemble: &mut Ensemble, change: impl FnOnce(&Stores)) {
    ensemble.stop().unwrap();
    let stores = Stores::open(ensemble.data());
    change(&stores);
    stores.close();
    ensemble.restart().unwrap();
}

/// Names: every kind, side by side.
fn names(name: &str, policy: Policy) {
    let mut ensemble = start(name, policy);
    let mut before = Kept::new();
    let mut ids: BTreeMap<&str, FileId> = BTreeMap::new();
    run(LIMIT, async {
        let hand = Hand::of(&ensemble).await;
        keep(&hand).await;
        let (base, id) = hand.dir("base").await;
        ids.insert("base", id);
        for name in ["dangling", "nameless", "twice", "type", "links"] {
            ids.insert(name, hand.file(&base, name, 0).await.1);
        }
        for name in ["lone", "count", "parent", "linked"] {
            ids.insert(name, hand.sub(&base, name).await.1);
        }
        let parent = hand.look(&base, "parent").await.unwrap();
        ids.insert("twin", hand.file(&parent, "twin", 0).await.1);
        for name in ["lost", "odd"] {
            let (dir, id) = hand.sub(&base, name).await;
            ids.insert(name, id);
            let inner = if name == "lost" { "in lost" } else { "in odd" };
            ids.insert(inner, hand.file(&dir, "inner", 3000).await.1);
            hand.sub(&dir, "below").await;
        }
        let (one, id) = hand.sub(&base, "one").await;
        ids.insert("one", id);
        let (two, id) = hand.sub(&one, "two").await;
        ids.insert("two", id);
        ids.insert("bait", hand.file(&two, "bait", 0).await.1);
        before = kept(&hand).await;
    });
    let id = |name| ids[name];
    damage(&mut ensemble, |s| {
        s.delete_attr(id("dangling"));
        s.rename_away(id("base"), "nameless");
        s.rename_away(id("base"), "lone");
        s.delete_attr(id("lost"));
        s.set_ftype(id("odd"), 1);
        s.double(id("base"), "twice");
        s.stand_for(id("base"), "type", id("type"), 5);
        s.set_nlink(id("links"), 7);
        s.set_entries(id("count"), 9);
        s.set_parent(id("parent"), FileId(12345));
        s.stand_for(id("parent"), "twin", id("linked"), 2);
        // one is below two, which is below one.
        s.rename_away(id("base"), "one");
        s.stand_for(id("two"), "bait", id("one"), 2);
        s.set_parent(id("one"), id("two"));
    });
    let base = id("base");
    finds(
        &ensemble,
        &[
            format!("stands for file {}, which has no", id("dangling")),
            format!("no name stands for file {}", id("nameless")),
            format!("no name stands for file {}", id("lone")),
            format!("stands for file {}, which has no", id("lost")),
            format!("2 names stand in directory {}", id("lost")),
            format!("2 names stand in {}, which is not", id("odd")),
            format!("name of file {} says type 2", id("odd")),
            format!("file {} has a link count of 3 instead of 1", id("odd")),
            format!("has the name {:?} twice", "twice"),
            format!("file {} has a link count of 1 instead of 2", id("twice")),
            format!("name of file {} says type 5", id("type")),
            format!("file {} has a link count of 7", id("links")),
            format!("directory {} counts 9", id("count")),
            format!("directory {} has parent", id("parent")),
            format!("2 names stand for directory {}", id("linked")),
            format!("no name stands for file {}", id("twin")),
            format!("file {} has a link count of 2 instead of 3", id("parent")),
            format!("no root leads to directory {}", id("one")),
            format!("no root leads to directory {}", id("two")),
            format!("no name stands for file {}", id("bait")),
            format!("file {} has a link count of 2 instead of 3", id("two")),
            format!("directory {base} counts"),
            format!("file {base} has a link count"),
        ],
        true,
    );
    let said = mends(&ensemble);
    assert_eq!(said["repair"]["void"], 0, "{said:#}");
    run(LIMIT, async {
        let hand = Hand::of(&ensemble).await;
        assert_eq!(kept(&hand).await, before);
        let lost = hand.look(&hand.root, "lost+found").await.unwrap();
        assert_eq!(hand.c.getattr(&lost).await.good().mode, 0o700);
        let found = hand.names(&lost).await;
        for name in ["nameless", "lone", "twin", "bait", "in odd"] {
            assert!(found.contains(&format!("#{}", id(name).0)), "{name} {} in {found:?}", id(name).0);
        }
        // The directory below the one that was no directory any more, and one of the circle.
        let circle = id("one").min(id("two"));
        assert!(found.contains(&format!("#{}", circle.0)));
        assert_eq!(found.len(), 7, "{found:?}");
        let dir = hand.look(&hand.root, "base").await.unwrap();
        assert_eq!(
            hand.names(&dir).await,
            ["count", "linked", "links", "lost", "odd", "parent", "twice", "type"]
        );
        // What is in lost+found is what it was.
        let inner = hand.look(&lost, &format!("#{}", id("in odd").0)).await.unwrap();
        assert_eq!(hand.read(&inner).await, pattern(seed("inner"), 0, 3000));
        let again = hand.look(&dir, "lost").await.unwrap();
        assert_eq!(hand.names(&again).await, ["below", "inner"]);
        assert_eq!(hand.c.getattr(&again).await.good().mode, 0o700);
        // And all of it can be used, and taken away.
        hand.file(&again, "new", 100).await;
        hand.c.rename((&lost, format!("#{}", circle.0).as_bytes()), (&dir, b"back")).await.good();
    });
    let (code, said) = check(&ensemble, false);
    assert_eq!(code, 0, "{said:#}");
}

#[test]
fn names_are_mended_under_hashing() {
    names("hash", Policy::Hash);
}

#[test]
fn names_are_mended_under_mkdir_switching() {
    names("mkdir", Policy::Mkdir);
}

#[test]
fn names_are_mended_under_partition() {
    names("partition", Policy::Partition);
}

#[test]
fn bytes_are_mended() {
    let mut ensemble = start("bytes", Policy::Hash);
    let mut before = Kept::new();
    let mut ids: BTreeMap<&str, FileId> = BTreeMap::new();
    run(LIMIT, async {
        let hand = Hand::of(&ensemble).await;
        keep(&hand).await;
        let (base, id) = hand.dir("base").await;
        ids.insert("base", id);
        for (name, len) in [
            ("shorter", 5000),
            ("longer", 5000),
            ("not beyond", 5000),
            ("beyond", LARGE),
            ("past size", LARGE),
            ("past reach", LARGE),
            ("ahead", 5000),
            ("ahead large", LARGE),
            ("orphan", LARGE),
        ] {
            ids.insert(name, hand.file(&base, name, len).await.1);
        }
        let link = hand.c.symlink(&base, b"link", Sattr3::default(), b"there").await.good();
        ids.insert("link", hand.id(&link.object.unwrap()).await);
        before = kept(&hand).await;
    });
    let id = |name| ids[name];
    damage(&mut ensemble, |s| {
        s.set_size(id("shorter"), 3000);
        s.set_size(id("longer"), 9000);
        s.set_beyond(id("not beyond"), true);
        s.set_beyond(id("beyond"), false);
        s.set_size(id("past size"), 100 * KIB);
        s.set_reach(id("past reach"), 64 * KIB);
        s.set_small_epoch(id("ahead"), 77);
        s.set_small_epoch(id("ahead large"), 88);
        s.delete_attr(id("orphan"));
        s.rename_away(id("base"), "orphan");
        s.put_small(id("link"), 5);
    });
    let file = |name, what: &str| format!("file {} {what}", id(name));
    finds(
        &ensemble,
        &[
            file("shorter", "has size 3000, but"),
            file("longer", "has size 9000, but"),
            file("not beyond", "has size 5000, but"),
            file("beyond", "has size 204800, but"),
            file("past size", "has size 102400, but"),
            file("past reach", "has reach 65536, but"),
            file("ahead", "has epoch 1, but"),
            file("ahead large", "has epoch 1, but"),
            file("orphan", "is gone, but"),
            format!("{} is not a regular file", id("link")),
            format!("directory {} counts 10 entries and has 9", id("base")),
        ],
        true,
    );
    let said = mends(&ensemble);
    assert_eq!(said["repair"]["void"], 0, "{said:#}");
    run(LIMIT, async {
        let hand = Hand::of(&ensemble).await;
        assert_eq!(kept(&hand).await, before);
        let base = hand.look(&hand.root, "base").await.unwrap();
        for (name, len, bytes) in [
            ("shorter", 3000, 3000),
            ("longer", 9000, 5000),
            ("not beyond", 5000, 5000),
            ("beyond", LARGE, LARGE),
            ("past size", 100 * KIB, 100 * KIB),
            ("past reach", LARGE, LARGE),
            ("ahead", 5000, 5000),
            ("ahead large", LARGE, LARGE),
        ] {
            let fh = hand.look(&base, name).await.unwrap();
            let mut want = pattern(seed(name), 0, bytes as usize).to_vec();
            want.resize(len as usize, 0);
            assert!(hand.read(&fh).await == want, "{name}");
            // It takes bytes again.
            hand.c.write(&fh, len, b"more", StableHow::FileSync).await.good();
            assert_eq!(hand.c.getattr(&fh).await.good().size, len + 4, "{name}");
        }
        assert_eq!(hand.look(&hand.root, "lost+found").await, None);
    });
    let (code, said) = check(&ensemble, false);
    assert_eq!(code, 0, "{said:#}");
}

#[test]
fn a_lost_root_is_made_again() {
    let mut ensemble = start("root", Policy::Hash);
    let (mut before, mut root) = (Kept::new(), FileId(0));
    run(LIMIT, async {
        let hand = Hand::of(&ensemble).await;
        keep(&hand).await;
        root = hand.id(&hand.root).await;
        before = kept(&hand).await;
    });
    damage(&mut ensemble, |s| s.delete_attr(root));
    let missing = [format!("root directory {root} has no"), format!("names stand in directory {root}")];
    finds(&ensemble, &missing, true);
    mends(&ensemble);
    run(LIMIT, async { assert_eq!(kept(&Hand::of(&ensemble).await).await, before) });
}

#[test]
fn what_takes_a_decision_is_left_and_told() {
    let mut ensemble = start("left", Policy::Hash);
    let mut before = Kept::new();
    let mut ids: BTreeMap<&str, FileId> = BTreeMap::new();
    run(LIMIT, async {
        let hand = Hand::of(&ensemble).await;
        keep(&hand).await;
        let (base, _) = hand.dir("base").await;
        for name in ["buried", "twin", "lost"] {
            ids.insert(name, hand.file(&base, name, 5000).await.1);
        }
        before = kept(&hand).await;
    });
    let id = |name| ids[name];
    damage(&mut ensemble, |s| {
        s.bury(id("buried"));
        s.copy_attr(id("twin"));
        s.delete_attr(id("lost"));
    });
    finds(
        &ensemble,
        &[
            format!("file {} lives, but", id("buried")),
            format!("file {} has size 5000, but", id("buried")),
            format!("what it has of file {} without", id("twin")),
            format!("stands for file {}, which has no", id("lost")),
            format!("file {} is gone, but", id("lost")),
        ],
        false,
    );
    let (code, said) = check(&ensemble, true);
    assert_eq!(code, 1, "{said:#}");
    assert_eq!(said["repair"]["repaired"], 0);
    let left: Vec<&str> =
        said["proposals"].as_array().unwrap().iter().map(|p| p["what"].as_str().unwrap()).collect();
    for what in ["bring it back from a backup", "give each server its own --data", "remove the name"] {
        assert!(left.iter().any(|l| l.contains(what)), "{what}: {left:#?}");
    }
    // What is left is not touched; and the operator does as he is told.
    run(LIMIT, async {
        let hand = Hand::of(&ensemble).await;
        assert_eq!(kept(&hand).await, before);
        let base = hand.look(&hand.root, "base").await.unwrap();
        hand.c.remove(&base, b"lost").await.good();
        hand.c.remove(&base, b"buried").await.good();
    });
    damage(&mut ensemble, |s| s.delete_strange_attr(id("twin")));
    mends(&ensemble);
    run(LIMIT, async { assert_eq!(kept(&Hand::of(&ensemble).await).await, before) });
}

/// Between two bursts of a client's work: the check waits for a moment in which nothing is under way.
const PAUSE: Duration = Duration::from_millis(150);

#[test]
fn clients_at_work_lose_nothing_by_it() {
    const EACH: usize = 8;
    let mut ensemble = start("busy", Policy::Hash);
    let mut before = Kept::new();
    let mut ids: Vec<[FileId; 4]> = Vec::new();
    let mut base_id = FileId(0);
    run(LIMIT, async {
        let hand = Hand::of(&ensemble).await;
        keep(&hand).await;
        let (base, id) = hand.dir("base").await;
        base_id = id;
        for i in 0..EACH {
            let mut four = [id; 4];
            for (id, (name, len)) in
                four.iter_mut().zip([("links", 10), ("shorter", 5000), ("nameless", 10), ("dangling", 0)])
            {
                *id = hand.file(&base, &format!("{name}{i}"), len).await.1;
            }
            ids.push(four);
        }
        before = kept(&hand).await;
    });
    damage(&mut ensemble, |s| {
        for (i, [links, shorter, _, dangling]) in ids.iter().enumerate() {
            s.set_nlink(*links, 7);
            s.set_size(*shorter, 3000);
            s.rename_away(base_id, &format!("nameless{i}"));
            s.delete_attr(*dangling);
        }
    });
    run(LIMIT, async {
        let hand = Hand::of(&ensemble).await;
        let base = hand.look(&hand.root, "base").await.unwrap();
        let mut command = Command::new(ensemble.binary());
        command.args(["admin", "check", "--repair", "--data"]).arg(ensemble.data());
        let repair = tokio::task::spawn_blocking(move || command.output().unwrap());
        // Names come, go and move in the damaged directory, and damaged files are written, while it is repaired.
        let mut bursts = 0;
        while !repair.is_finished() {
            hand.file(&base, &format!("made{bursts}"), 3000).await;
            hand.file(&base, "short-lived", 10).await;
            let moved = format!("moved{bursts}");
            hand.c
                .rename((&base, format!("made{bursts}").as_bytes()), (&base, moved.as_bytes()))
                .await
                .good();
            hand.c.remove(&base, b"short-lived").await.good();
            let written = hand.look(&base, &format!("shorter{}", bursts % EACH)).await.unwrap();
            let at = 6000 + 10 * bursts as u64;
            hand.c.write(&written, at, b"0123456789", StableHow::FileSync).await.good();
            bursts += 1;
            tokio::time::sleep(PAUSE).await;
        }
        let said = repair.await.unwrap();
        println!("{bursts} bursts; {}\n{}", said.status, String::from_utf8_lossy(&said.stdout));
        assert!(bursts > 0);
    });
    // What was void then is done now.
    mends(&ensemble);
    run(LIMIT, async {
        let hand = Hand::of(&ensemble).await;
        assert_eq!(kept(&hand).await, before);
        let base = hand.look(&hand.root, "base").await.unwrap();
        let names = hand.names(&base).await;
        let moved = names.iter().filter(|n| n.starts_with("moved")).count();
        assert_eq!(names.len(), moved + 2 * EACH, "{names:?}");
        for i in 0..moved {
            let fh = hand.look(&base, &format!("moved{i}")).await.unwrap();
            assert_eq!(hand.read(&fh).await, pattern(seed(&format!("made{i}")), 0, 3000));
            // What was written, and told to be stable, is there.
            let written = hand.look(&base, &format!("shorter{}", i % EACH)).await.unwrap();
            let got = read_all(&hand.c, &written, 6000 + 10 * i as u64, 10).await;
            assert_eq!(got, b"0123456789", "burst {i}");
        }
        let lost = hand.look(&hand.root, "lost+found").await.unwrap();
        assert_eq!(hand.names(&lost).await.len(), EACH);
    });
}
