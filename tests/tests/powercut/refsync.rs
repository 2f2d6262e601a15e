//! An fsync fails, the process ends, another one opens the store, and then the power goes. What the second life was shown, and what it
//! added, must be there: a kernel does not write again what it could not write, though it still reads.

use std::path::Path;

use slice_store::{Batch, EngineKind, Store};
use slice_tests::powercut::{Disk, Fault, Mounted, obstacle};
use slice_tests::wire::content::pattern;

use super::pairs::stamp;

/// Disks, each with other losses.
const DISKS: u64 = 12;

/// Over several pages, so that the next batch does not take all of it along.
const LARGE: usize = 20_000;

fn open(at: &Path) -> Store {
    Store::open(at, EngineKind::Fjall, stamp()).unwrap()
}

fn put(store: &Store, key: &str, len: usize) -> Result<(), slice_store::Error> {
    let mut batch = Batch::new();
    // Nothing that can be made smaller.
    batch.put(key, pattern(len as u64, 0, len));
    store.wait(store.submit(batch)?).wait_blocking()
}

fn has(store: &Store, key: &str) -> bool {
    store.get(key.as_bytes()).unwrap().is_some()
}

pub fn play() {
    if let Some(why) = obstacle() {
        println!("no fsync fails under a store: {why}");
        return;
    }
    let mut kept = 0;
    for seed in 0..DISKS {
        let on = Mounted::new(Disk::new(seed)).unwrap();
        Store::format(on.path(), EngineKind::Fjall, stamp()).unwrap();
        let store = open(on.path());
        put(&store, "before", 100).unwrap();
        on.power().fail(Some(Fault::Sync));
        put(&store, "failed", LARGE).unwrap_err();
        put(&store, "later", 1).unwrap_err();
        assert!(on.power().faults() > 0);
        drop(store);
        on.power().fail(None);
        let store = open(on.path());
        let shown = has(&store, "failed");
        put(&store, "after", 100).unwrap();
        // While it is open: one that is closed writes what it has in memory.
        let left = on.cut(seed);
        drop(store);
        let on = Mounted::new(left).unwrap();
        let store = open(on.path());
        assert!(has(&store, "before") && has(&store, "after"), "disk {seed}: what was acknowledged is gone");
        assert_eq!(has(&store, "failed"), shown, "disk {seed}: what was shown is gone");
        assert!(!has(&store, "later"));
        kept += u64::from(shown);
    }
    println!("{DISKS} failed fsyncs, {kept} of their batches found by the next life, and kept");
}
