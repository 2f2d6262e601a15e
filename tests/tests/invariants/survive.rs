//! I3, I8: a reply means durable. SIGKILL of every process while many clients work; what was acknowledged is there.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use slice_load::Client;
use slice_load::client::Fh;
use slice_proto::nfs3::{CreateHow, StableHow};
use slice_tests::ensemble::{Ensemble, Layout, Policy};
use slice_tests::wire::content::{THRESHOLD, UNIT, pattern, read_all};
use slice_tests::wire::stage::{create, list, mkdir};
use slice_tests::wire::{self, Expect, mode};

use super::{check, connect, root, start};

/// Clients that work at once.
const CLIENTS: usize = 8;
/// Acknowledged operations before the kill.
const ACKNOWLEDGED: usize = 400;
/// Lives of each ensemble.
const ROUNDS: usize = 3;

/// What one client knows of its directory.
#[derive(Default)]
struct Known {
    /// Names whose last operation was answered: there, and whom they stand for, or not there.
    names: BTreeMap<String, Option<Fh>>,
    /// Names of the operation under way when the servers were killed: either way is right.
    doubt: BTreeSet<String>,
}

fn is_ok<O, F>(answer: &Result<slice_proto::nfs3::Res3<O, F>, slice_load::Error>) -> bool
where
    O: std::fmt::Debug,
    F: std::fmt::Debug,
{
    match answer {
        Ok(res) => {
            assert_eq!(res.status(), slice_proto::nfs3::NfsStat3::OK, "{res:?}");
            true
        }
        // Killed under it.
        Err(_) => false,
    }
}

/// Makes, moves, links and removes until the connection breaks.
async fn work(c: &Client, dir: &Fh, round: usize, known: &RefCell<Known>, done: &Cell<usize>) {
    for step in 0.. {
        let name = |kind: &str| format!("{kind}-{round}-{step}");
        let (file, sub, moved, link) = (name("file"), name("sub"), name("moved"), name("link"));
        let doubt = |names: &[&String]| {
            known.borrow_mut().doubt = names.iter().map(|n| (*n).clone()).collect();
        };
        let note = |changes: &[(&String, Option<Fh>)]| {
            let mut known = known.borrow_mut();
            known.doubt.clear();
            known.names.extend(changes.iter().map(|(name, fh)| ((*name).clone(), *fh)));
            done.set(done.get() + 1);
        };

        doubt(&[&file]);
        let made = c.create(dir, file.as_bytes(), CreateHow::Guarded(mode(0o644))).await;
        if !is_ok(&made) {
            return;
        }
        let object = made.good().object;
        note(&[(&file, object)]);

        doubt(&[&sub]);
        let made = c.mkdir(dir, sub.as_bytes(), mode(0o755)).await;
        if !is_ok(&made) {
            return;
        }
        note(&[(&sub, made.good().object)]);

        if step % 2 == 0 {
            doubt(&[&link]);
            if !is_ok(&c.link(&object.unwrap(), dir, link.as_bytes()).await) {
                return;
            }
            note(&[(&link, object)]);
        }
        if step % 3 == 0 {
            doubt(&[&file, &moved]);
            if !is_ok(&c.rename((dir, file.as_bytes()), (dir, moved.as_bytes())).await) {
                return;
            }
            note(&[(&file, None), (&moved, object)]);
        }
        if step % 4 == 1 && step % 3 != 0 {
            doubt(&[&file]);
            if !is_ok(&c.remove(dir, file.as_bytes()).await) {
                return;
            }
            note(&[(&file, None)]);
            doubt(&[&sub]);
            if !is_ok(&c.rmdir(dir, sub.as_bytes()).await) {
                return;
            }
            note(&[(&sub, None)]);
        }
    }
}

/// Runs `each` for every client until `enough` acknowledgements are there, then kills everything under them.
async fn until_killed(
    ensemble: &mut Ensemble,
    each: Vec<impl Future<Output = ()>>,
    done: &Cell<usize>,
    enough: usize,
) {
    let kill = async {
        while done.get() < enough {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        ensemble.kill();
    };
    futures_util::join!(join_all(each), kill);
}

fn names_survive(name: &str, policy: Policy, layout: Layout) {
    let mut ensemble = start(name, policy, layout);
    let mut known: Vec<RefCell<Known>> = (0..CLIENTS).map(|_| RefCell::default()).collect();
    let dirs = wire::run(async {
        let c = connect(ensemble.port()).await;
        let top = root(&c).await;
        let mut dirs = Vec::new();
        for i in 0..CLIENTS {
            dirs.push(mkdir(&c, &top, &format!("client-{i}"), 0o755).await);
        }
        dirs
    });
    for round in 0..ROUNDS {
        let done = Cell::new(0);
        wire::run(async {
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                clients.push(connect(ensemble.port()).await);
            }
            let each = (0..CLIENTS).map(|i| work(&clients[i], &dirs[i], round, &known[i], &done)).collect();
            until_killed(&mut ensemble, each, &done, ACKNOWLEDGED).await;
        });
        ensemble.restart().unwrap();
        wire::run(async {
            let c = connect(ensemble.port()).await;
            for (known, dir) in known.iter_mut().zip(&dirs) {
                verify_names(&c, dir, known.get_mut(), round).await;
            }
        });
        // What was under way has rolled forward, or back.
        check(&ensemble);
        wire::run(async {
            let c = connect(ensemble.port()).await;
            for (known, dir) in known.iter_mut().zip(&dirs) {
                learn_names(&c, dir, known.get_mut()).await;
            }
        });
    }
}

async fn listed(c: &Client, dir: &Fh) -> BTreeSet<String> {
    list(c, dir, 32_768).await.into_iter().map(|e| String::from_utf8(e.name).unwrap()).collect()
}

/// What was acknowledged is there, at once.
async fn verify_names(c: &Client, dir: &Fh, known: &Known, round: usize) {
    let listed = listed(c, dir).await;
    for (name, handle) in known.names.iter().filter(|(name, _)| !known.doubt.contains(*name)) {
        assert_eq!(listed.contains(name), handle.is_some(), "round {round}: {name} in the listing");
        let found = c.lookup(dir, name.as_bytes()).await;
        match handle {
            Some(handle) => {
                assert_eq!(found.good().object, *handle, "round {round}: {name}");
                c.getattr(handle).await.good();
            }
            None => drop(found.fails(slice_proto::nfs3::NfsStat3::NOENT)),
        }
    }
    for name in listed.iter().filter(|name| !name.starts_with('.')) {
        let ours = known.names.contains_key(name) || known.doubt.contains(name);
        assert!(ours, "round {round}: {name} was never made");
    }
}

/// What became of the operations that were not answered.
async fn learn_names(c: &Client, dir: &Fh, known: &mut Known) {
    let listed = listed(c, dir).await;
    for name in std::mem::take(&mut known.doubt) {
        let object = match listed.contains(&name) {
            true => Some(c.lookup(dir, name.as_bytes()).await.good().object),
            false => None,
        };
        known.names.insert(name, object);
    }
}

#[test]
fn acknowledged_names_survive_partition() {
    names_survive("names-partition", Policy::Partition, Layout::OneProcess);
}

#[test]
fn acknowledged_names_survive_mkdir() {
    names_survive("names-mkdir", Policy::Mkdir, Layout::Separate);
}

#[test]
fn acknowledged_names_survive_hash_one_process() {
    names_survive("names-hash", Policy::Hash, Layout::OneProcess);
}

#[test]
fn acknowledged_names_survive_hash_separate() {
    names_survive("names-hash-separate", Policy::Hash, Layout::Separate);
}

/// Bytes of a block; blocks lie so that some cross the threshold and stripe units.
const BLOCK: u64 = 40_000;
/// Blocks of a file.
const BLOCKS: u64 = 60;

/// What one client knows of its file.
struct Written {
    file: Fh,
    /// The last acknowledged round of every block that is not in doubt.
    blocks: BTreeMap<u64, u64>,
    doubt: BTreeSet<u64>,
    round: u64,
}

impl Written {
    fn acknowledge(&mut self, blocks: &[u64], round: u64) {
        for block in blocks {
            self.doubt.remove(block);
            self.blocks.insert(*block, round);
        }
    }
}

/// Writes blocks until the connection breaks: some each durable by itself, some together by a COMMIT.
async fn write(c: &Client, who: usize, written: &RefCell<Written>, done: &Cell<usize>) {
    let file = written.borrow().file;
    for step in 0_u64.. {
        let round = {
            let mut w = written.borrow_mut();
            w.round += 1;
            w.round
        };
        let some: Vec<u64> = (0..3).map(|i| (step * 7 + i * 13 + who as u64) % BLOCKS).collect();
        written.borrow_mut().doubt.extend(&some);
        if step % 2 == 0 {
            for block in &some {
                let data = pattern(round, block * BLOCK, BLOCK as usize);
                let how = if step % 4 == 0 { StableHow::FileSync } else { StableHow::DataSync };
                let answer = c.write(&file, block * BLOCK, &data, how).await;
                if !is_ok(&answer) {
                    return;
                }
                assert_eq!(u64::from(answer.good().count), BLOCK);
                written.borrow_mut().acknowledge(&[*block], round);
                done.set(done.get() + 1);
            }
            continue;
        }
        let mut verifiers = Vec::new();
        for block in &some {
            let data = pattern(round, block * BLOCK, BLOCK as usize);
            let answer = c.write(&file, block * BLOCK, &data, StableHow::Unstable).await;
            if !is_ok(&answer) {
                return;
            }
            verifiers.push(answer.good().verf);
        }
        let answer = c.commit(&file, 0, 0).await;
        if !is_ok(&answer) {
            return;
        }
        let verf = answer.good().verf;
        assert!(verifiers.iter().all(|v| *v == verf), "nothing was restarted");
        written.borrow_mut().acknowledge(&some, round);
        done.set(done.get() + 1);
    }
}

fn bytes_survive(name: &str, layout: Layout) {
    let mut ensemble = start(name, Policy::Hash, layout);
    let mut written: Vec<RefCell<Written>> = wire::run(async {
        let c = connect(ensemble.port()).await;
        let top = root(&c).await;
        let mut all = Vec::new();
        for i in 0..CLIENTS {
            let file = create(&c, &top, &format!("f{i}"), 0o644).await;
            let none = Written {
                file,
                blocks: BTreeMap::new(),
                doubt: BTreeSet::new(),
                round: i as u64 * 1_000_000,
            };
            all.push(RefCell::new(none));
        }
        all
    });
    const { assert!(BLOCK * BLOCKS > 2 * UNIT && BLOCK < THRESHOLD) };
    for round in 0..ROUNDS {
        let done = Cell::new(0);
        wire::run(async {
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                clients.push(connect(ensemble.port()).await);
            }
            let each = (0..CLIENTS).map(|i| write(&clients[i], i, &written[i], &done)).collect();
            until_killed(&mut ensemble, each, &done, ACKNOWLEDGED).await;
        });
        ensemble.restart().unwrap();
        wire::run(async {
            let c = connect(ensemble.port()).await;
            for w in &mut written {
                let w = w.get_mut();
                let size = c.getattr(&w.file).await.good().size;
                let end =
                    w.blocks.keys().filter(|b| !w.doubt.contains(b)).max().map_or(0, |b| (b + 1) * BLOCK);
                assert!(size >= end, "round {round}: {size} of {end} acknowledged bytes");
                let bytes = read_all(&c, &w.file, 0, size).await;
                assert_eq!(bytes.len() as u64, size);
                for (block, version) in w.blocks.iter().filter(|(b, _)| !w.doubt.contains(b)) {
                    let at = (block * BLOCK) as usize;
                    let want = pattern(*version, block * BLOCK, BLOCK as usize);
                    assert!(
                        bytes[at..at + BLOCK as usize] == want,
                        "round {round}: block {block} of {:?}",
                        w.file
                    );
                }
            }
        });
    }
    check(&ensemble);
}

#[test]
fn acknowledged_bytes_survive_one_process() {
    bytes_survive("bytes", Layout::OneProcess);
}

#[test]
fn acknowledged_bytes_survive_separate() {
    bytes_survive("bytes-separate", Layout::Separate);
}

/// A truncation that was answered stays; one that was not is whole or not at all; no byte comes back.
#[test]
fn truncations_survive() {
    let mut ensemble = start("truncations", Policy::Hash, Layout::Separate);
    let cuts = [0, 1000, THRESHOLD, THRESHOLD + 5, UNIT, UNIT + 70_000];
    let end = 2 * UNIT + 5000;
    let files = wire::run(async {
        let c = connect(ensemble.port()).await;
        let top = root(&c).await;
        let mut files = Vec::new();
        for (i, cut) in cuts.into_iter().enumerate() {
            let file = create(&c, &top, &format!("f{i}"), 0o644).await;
            wire::content::write_all(&c, &file, 0, &pattern(i as u64, 0, end as usize), StableHow::FileSync)
                .await;
            files.push(file);
            c.setattr(&file, wire::stage::size(cut), None).await.good();
        }
        // One more of each that nobody waits for.
        for file in &files {
            drop(c.start(
                slice_proto::nfs3::Proc3::Setattr,
                &slice_proto::nfs3::SetattrArgs {
                    object: file.as_slice(),
                    attr: wire::stage::size(500),
                    guard: None,
                },
            ));
        }
        tokio::task::yield_now().await;
        files
    });
    ensemble.kill();
    ensemble.restart().unwrap();
    wire::run(async {
        let c = connect(ensemble.port()).await;
        for (i, (file, cut)) in files.iter().zip(cuts).enumerate() {
            let size = c.getattr(file).await.good().size;
            assert!(size == cut || size == 500, "file {i} has {size} bytes, not {cut} and not 500");
            c.setattr(file, wire::stage::size(end), None).await.good();
            let bytes = read_all(&c, file, 0, end).await;
            let kept = size.min(cut) as usize;
            assert!(bytes[..kept] == pattern(i as u64, 0, kept), "file {i}: what was not cut");
            assert!(bytes[kept..].iter().all(|b| *b == 0), "file {i}: something came back");
        }
    });
    check(&ensemble);
}
