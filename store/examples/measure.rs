//! The store's figures under our load: `cargo run --release -p slice-store --example measure [-- RECORDS [DIR]]`.
//!
//! Records are shaped like an attribute record: an 18-byte key, a 150-byte value. Every figure is printed with what it
//! is; the last part compares who writes to the engine, the submitter or the committer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use rand::{RngCore, SeedableRng, rngs::StdRng};
use slice_proto::ids::{EnsembleId, Role, ServerId};
use slice_store::{Batch, Direction, EngineKind, KeyRange, Store, StoreStamp};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const STAMP: StoreStamp =
    StoreStamp { ensemble: EnsembleId(1), server: ServerId(1), role: Role::Dir, format: 1 };

fn key(n: u64) -> [u8; 18] {
    // site ‖ kind ‖ fileid ‖ rest; spread, because a directory server's file ids interleave over its sites.
    let mut k = [0; 18];
    k[..2].copy_from_slice(&((n % 64) as u16).to_be_bytes());
    k[2] = b'a';
    k[3..11].copy_from_slice(&n.to_be_bytes());
    k
}

fn value(rng: &mut StdRng) -> Vec<u8> {
    // Half of an attribute record is times and ids that do not repeat, half is zeros and small numbers.
    let mut v = vec![0; 150];
    rng.fill_bytes(&mut v[..75]);
    v
}

fn proc_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// User and system time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|f| f.parse().unwrap())
        .collect();
    Duration::from_millis((fields[0] + fields[1]) * 10)
}

fn disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::read_dir(dir)
        .unwrap()
        .map(|e| {
            let e = e.unwrap();
            let m = e.metadata().unwrap();
            if m.is_dir() { disk(&e.path()) } else { m.blocks() * 512 }
        })
        .sum()
}

fn say(what: &str, n: u64, start: Instant, cpu_before: Duration) {
    let (wall, cpu) = (start.elapsed(), cpu() - cpu_before);
    let each = |d: Duration| d.as_secs_f64() * 1e6 / n as f64;
    println!(
        "{what:<44} {:>9.0}/s  {:>8.2} µs each  {:>7.2} µs cpu",
        n as f64 / wall.as_secs_f64(),
        each(wall),
        each(cpu)
    );
}

fn one(n: u64, rng: &mut StdRng) -> Batch {
    let mut b = Batch::new();
    b.put(key(n), value(rng));
    b
}

fn durable_alone(what: &str, store: &Store, from: u64, rng: &mut StdRng) {
    let (start, c) = (Instant::now(), cpu());
    let mut times: Vec<Duration> = Vec::new();
    for n in 0..2_000 {
        let t = Instant::now();
        store.commit(one(from + n, rng)).unwrap().wait_blocking().unwrap();
        times.push(t.elapsed());
    }
    say(what, 2_000, start, c);
    times.sort();
    println!("{:<44} p50 {:?} p99 {:?}", "", times[1_000], times[1_980]);
}

fn durable_many(what: &str, store: &Store, from: u64) {
    let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (start, c) = (Instant::now(), cpu());
    tokio::task::LocalSet::new().block_on(&rt, async {
        let tasks: Vec<_> = (0..64)
            .map(|task| {
                let store = store.clone();
                tokio::task::spawn_local(async move {
                    let mut rng = StdRng::seed_from_u64(task);
                    for n in 0..500 {
                        store.commit(one(from + task * 500 + n, &mut rng)).unwrap().await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    say(what, 64 * 500, start, c);
}

fn measure(kind: EngineKind, dir: &Path, records: u64) {
    println!("\n== {kind}, {records} records");
    let mut rng = StdRng::seed_from_u64(1);
    let resident = proc_kib("VmRSS");
    Store::format(dir, kind, STAMP).unwrap();
    let store = Store::open(dir, kind, STAMP).unwrap();
    let (start, c) = (Instant::now(), cpu());
    let mut last = store.submitted();
    for n in 0..records {
        last = store.submit(one(n, &mut rng)).unwrap();
        if n % 10_000 == 0 {
            store.wait(last).wait_blocking().unwrap();
        }
    }
    store.wait(last).wait_blocking().unwrap();
    say("insert (submitted, fsync every 10,000)", records, start, c);
    println!("resident +{} MiB, disk {} MiB", (proc_kib("VmRSS") - resident) >> 10, disk(dir) >> 20);

    let gets = 200_000;
    let (start, c) = (Instant::now(), cpu());
    for _ in 0..gets {
        assert!(store.get(&key(rng.next_u64() % records)).unwrap().is_some());
    }
    say("get, random", gets, start, c);
    let (start, c) = (Instant::now(), cpu());
    let n = store.iter(KeyRange::all(), Direction::Forward).map(Result::unwrap).count() as u64;
    say("scan of all, a pair", n, start, c);

    durable_alone("durable put, alone", &store, records, &mut rng);
    durable_many("durable put, 64 in flight on one thread", &store, 2 * records);
    let (start, c) = (Instant::now(), cpu());
    for n in 0..1_000 {
        let mut b = Batch::new();
        for i in 0..32 {
            b.put(key(3 * records + n * 32 + i), value(&mut rng));
        }
        store.commit(b).unwrap().wait_blocking().unwrap();
    }
    say("durable batch of 32 alone, an op", 32_000, start, c);
    let start = Instant::now();
    drop(store);
    println!("closed in {:?}", start.elapsed());
    let start = Instant::now();
    let store = Store::open(dir, kind, STAMP).unwrap();
    println!("opened again in {:?}", start.elapsed());
    println!("resident +{} MiB, disk {} MiB", (proc_kib("VmRSS") - resident) >> 10, disk(dir) >> 20);
    durable_alone("durable put, alone, after reopening", &store, 4 * records, &mut rng);
    durable_many("durable put, 64 in flight, after reopening", &store, 5 * records);
}

/// What if the submitter wrote to the engine itself and a second thread only fsynced: how long a submit stands still.
fn submitter_writes(dir: &Path) {
    println!("\n== fjall, the submitter writes, another thread fsyncs without pause");
    let db = fjall::Database::builder(dir).open().unwrap();
    let data = db.keyspace("data", fjall::KeyspaceCreateOptions::default).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                db.persist(fjall::PersistMode::SyncData).unwrap();
            }
        });
        let mut rng = StdRng::seed_from_u64(1);
        let mut times = Vec::new();
        let (start, c) = (Instant::now(), cpu());
        for n in 0..20_000 {
            let value = value(&mut rng);
            // A server's thread has other work between two writes.
            let t = Instant::now();
            while t.elapsed() < Duration::from_micros(50) {
                std::hint::spin_loop();
            }
            let t = Instant::now();
            data.insert(key(n), value).unwrap();
            times.push(t.elapsed());
        }
        say("write every 50 µs under fsync", 20_000, start, c);
        times.sort();
        println!("{:<44} p50 {:?} p90 {:?} p99 {:?}", "", times[10_000], times[18_000], times[19_800]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

fn main() {
    let records: u64 = std::env::args().nth(1).map_or(1_000_000, |a| a.parse().expect("RECORDS is a number"));
    let at = std::env::args().nth(2).map_or_else(std::env::temp_dir, PathBuf::from);
    for kind in EngineKind::ALL {
        let dir = tempfile::tempdir_in(&at).unwrap();
        measure(kind, dir.path(), records);
    }
    let dir = tempfile::tempdir_in(&at).unwrap();
    submitter_writes(dir.path());
}
