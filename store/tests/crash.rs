//! kill -9 under load, and journals with a torn end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{Rng, open, stamp};
use slice_store::{Batch, Direction, EngineKind, Error, KeyRange, Store};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Keys of a batch; so many that some batches take several pages.
const WIDTH: u32 = 40;

fn batch(n: u32) -> Batch {
    let mut b = Batch::new();
    for i in 0..1 + n % WIDTH {
        b.put([n.to_be_bytes(), i.to_be_bytes()].concat(), n.to_be_bytes().repeat(50));
    }
    b
}

/// How many batches are there; panics unless each is whole, and they are all up to that one.
fn whole_batches(store: &Store) -> u32 {
    let mut n = 0u32;
    let mut i = 0u32;
    for pair in store.iter(KeyRange::all(), Direction::Forward) {
        let (k, v) = pair.unwrap();
        assert_eq!(
            &k[..],
            [n.to_be_bytes(), i.to_be_bytes()].concat(),
            "batch {n} is not whole or is missing"
        );
        assert_eq!(&v[..], n.to_be_bytes().repeat(50));
        i += 1;
        if i == 1 + n % WIDTH {
            (n, i) = (n + 1, 0);
        }
    }
    assert_eq!(i, 0, "batch {n} is there by half");
    n
}

/// Not a test: the process that is killed. Writes batches for ever, and says which are durable.
#[test]
fn writer() {
    let Ok(dir) = std::env::var("WRITER_DIR") else { return };
    let kind: EngineKind = std::env::var("WRITER_ENGINE").unwrap().parse().unwrap();
    let store = open(Path::new(&dir), kind);
    let mut n = whole_batches(&store);
    let mut waiting = VecDeque::new();
    loop {
        waiting.push_back((n, store.commit(batch(n)).unwrap()));
        n += 1;
        if waiting.len() == 16 {
            let (n, done) = waiting.pop_front().unwrap();
            done.wait_blocking().unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "durable {n}").unwrap();
            out.flush().unwrap();
        }
    }
}

#[test]
fn what_was_durable_survives_kill_9() {
    let mut rng = Rng::new();
    for kind in EngineKind::ALL {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..8 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "writer", "--nocapture"])
                .env("WRITER_DIR", dir.path())
                .env("WRITER_ENGINE", kind.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
            let mut durable = None;
            let mut see = |line: String| {
                if let Some(n) = line.strip_prefix("durable ") {
                    durable = Some(n.parse::<u32>().unwrap());
                }
            };
            lines.by_ref().take(10 + rng.below(1_500)).for_each(&mut see);
            child.kill().unwrap();
            // What it said before it died counts too.
            lines.for_each(&mut see);
            child.wait().unwrap();
            let store = open(dir.path(), kind);
            let there = whole_batches(&store);
            println!("{kind} round {round}: {durable:?} said durable, {there} batches there");
            assert!(durable.is_none_or(|d| d < there));
        }
    }
}

fn fjall_journal(dir: &Path) -> PathBuf {
    let journals = std::fs::read_dir(dir.join("store/db")).unwrap().map(|e| e.unwrap().path());
    journals.filter(|p| p.extension().is_some_and(|e| e == "jnl")).max().unwrap()
}

/// Bytes in use: the file is allocated ahead with zeros, and a batch ends in fjall's trailer.
fn used(journal: &Path) -> usize {
    std::fs::read(journal).unwrap().iter().rposition(|b| *b != 0).unwrap() + 1
}

#[test]
fn fjall_opens_with_a_prefix_after_a_torn_tail() {
    let mut rng = Rng::new();
    for round in 0..30u32 {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), EngineKind::Fjall);
        for n in 0..20 {
            store.commit(batch(n)).unwrap().wait_blocking().unwrap();
        }
        drop(store);
        let journal = fjall_journal(dir.path());
        let before = used(&journal);
        let store = open(dir.path(), EngineKind::Fjall);
        store.commit(batch(20)).unwrap().wait_blocking().unwrap();
        drop(store);
        let after = used(&journal);
        let mut bytes = std::fs::read(&journal).unwrap();
        let at = before + rng.below(after - before);
        let least = match round % 3 {
            // Cut anywhere: every batch before the cut is there.
            0 => {
                bytes.truncate(rng.below(after));
                0
            }
            // The last batch's pages reached the disk out of order: a hole of zeros.
            1 => {
                let end = (at + 512).min(after);
                bytes[at..end].fill(0);
                20
            }
            _ => {
                // Behind the sequence number, see fjall_journal.rs.
                let at = at.max(before + 13);
                bytes[at.min(after - 1)] ^= 0xff;
                20
            }
        };
        std::fs::write(&journal, bytes).unwrap();
        let there = if least == 0 && std::fs::metadata(&journal).unwrap().len() < 600 {
            // The cut may have taken the stamp's own batch: then the store must refuse, not be empty.
            match Store::open(dir.path(), EngineKind::Fjall, stamp()) {
                Ok(store) => whole_batches(&store),
                Err(e) => {
                    assert!(matches!(e, Error::Mixed { .. }), "{e}");
                    continue;
                }
            }
        } else {
            whole_batches(&open(dir.path(), EngineKind::Fjall))
        };
        assert!(
            (least..=21).contains(&there),
            "round {round}: {there} batches, at {at} of {before}..{after}"
        );
        // It goes on from there.
        let store = open(dir.path(), EngineKind::Fjall);
        for n in there..there + 3 {
            store.commit(batch(n)).unwrap().wait_blocking().unwrap();
        }
        drop(store);
        assert_eq!(whole_batches(&open(dir.path(), EngineKind::Fjall)), there + 3);
    }
}

#[test]
fn fjall_refuses_when_acknowledged_batches_are_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), EngineKind::Fjall);
    for n in 0..20 {
        store.commit(batch(n)).unwrap().wait_blocking().unwrap();
    }
    drop(store);
    let journal = fjall_journal(dir.path());
    let mut bytes = std::fs::read(&journal).unwrap();
    let middle = used(&journal) / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&journal, bytes).unwrap();
    let refused = Store::open(dir.path(), EngineKind::Fjall, stamp()).map(|_| ()).unwrap_err();
    assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
}

/// sled promises less: it may refuse to open, but what it shows must be whole batches.
#[test]
fn sled_never_shows_halves_after_a_torn_tail() {
    let mut rng = Rng::new();
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), EngineKind::Sled);
        for n in 0..20 {
            store.commit(batch(n)).unwrap().wait_blocking().unwrap();
        }
        drop(store);
        // Opening once more waits until sled's threads have closed the file.
        drop(open(dir.path(), EngineKind::Sled));
        let log = dir.path().join("store/db/db");
        let file = std::fs::File::options().write(true).open(&log).unwrap();
        file.lock().unwrap();
        file.set_len(file.metadata().unwrap().len() - rng.below(4_000) as u64 - 1).unwrap();
        drop(file);
        match Store::open(dir.path(), EngineKind::Sled, stamp()) {
            Ok(store) => assert!(whole_batches(&store) <= 20),
            Err(e) => println!("refused: {e}"),
        }
    }
}
