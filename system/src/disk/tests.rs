//! The disk's rules.

use std::path::Path;
use std::sync::Arc;

use super::bytes::{PAGE, SECTOR};
use super::memory::Memory;
use super::names::{Disk, ROOT};
use super::power::{Fault, Kind, Power};
use crate::files::{Files, Open};
use rustix::io::Errno;

const SEEDS: u64 = 200;

/// A disk with a durable file `f` of two pages of ones.
fn with_file() -> (Disk, u64) {
    let mut disk = Disk::new(7);
    let ino = disk.make(ROOT, b"f", 0o644, false).unwrap();
    disk.write(ino, 0, &[1; 2 * PAGE]).unwrap();
    disk.sync(ino).unwrap();
    disk.sync(ROOT).unwrap();
    (disk, ino)
}

/// What is in `f` after each of many cuts of what `make` does.
fn cuts(make: impl Fn(&mut Disk, u64)) -> Vec<Vec<u8>> {
    let after = |seed| {
        let (mut disk, ino) = with_file();
        make(&mut disk, ino);
        let mut disk = disk.cut(seed);
        let ino = disk.lookup(ROOT, b"f").unwrap();
        let size = disk.attr(ino).unwrap().size;
        disk.read(ino, 0, size as usize).unwrap()
    };
    (0..SEEDS).map(after).collect()
}

#[test]
fn what_is_fsynced_survives_every_cut() {
    let wrote = cuts(|disk, ino| {
        disk.write(ino, 100, &[2; PAGE]).unwrap();
        disk.resize(ino, 5000).unwrap();
        disk.write(ino, 6000, &[3; 10]).unwrap();
        disk.sync(ino).unwrap();
    });
    let mut want = vec![1; 100];
    want.extend([2; PAGE]);
    want.resize(5000, 1);
    want.resize(6000, 0);
    want.extend([3; 10]);
    assert!(wrote.iter().all(|got| *got == want));
}

#[test]
fn what_is_not_may_be_lost_torn_or_out_of_order() {
    let wrote = cuts(|disk, ino| disk.write(ino, 0, &[2; 2 * PAGE]).unwrap());
    let has = |page: usize, byte| move |got: &&Vec<u8>| got[page * PAGE..][..PAGE].iter().all(|b| *b == byte);
    for (first, second) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        assert!(wrote.iter().filter(has(0, first)).any(|got| has(1, second)(&got)), "{first} {second}");
    }
    let torn = wrote.iter().filter(|got| !has(0, 1)(got) && !has(0, 2)(got)).collect::<Vec<_>>();
    assert!(!torn.is_empty());
    let whole = |sector: &[u8]| sector.iter().all(|b| *b == sector[0]);
    assert!(torn.iter().all(|got| got.chunks(SECTOR).all(whole)), "sectors are never torn");
}

#[test]
fn growth_may_be_lost_or_come_without_its_bytes() {
    let wrote = cuts(|disk, ino| disk.write(ino, 2 * PAGE as u64, &[2; PAGE]).unwrap());
    assert!(wrote.iter().any(|got| got.len() == 2 * PAGE));
    assert!(wrote.iter().any(|got| got.len() == 3 * PAGE && got[2 * PAGE..] == [0; PAGE]));
    assert!(wrote.iter().any(|got| got.len() == 3 * PAGE && got[2 * PAGE..] == [2; PAGE]));
    assert!(wrote.iter().any(|got| (2 * PAGE + 1..3 * PAGE).contains(&got.len())));
    assert!(wrote.iter().all(|got| got[..2 * PAGE] == [1; 2 * PAGE]));
}

#[test]
fn a_truncation_that_is_lost_takes_later_writes_with_it() {
    let wrote = cuts(|disk, ino| {
        disk.resize(ino, 0).unwrap();
        disk.write(ino, 0, &[2; PAGE]).unwrap();
    });
    for got in &wrote {
        let undone = *got == [1; 2 * PAGE];
        assert!(undone || (got.len() <= PAGE && !got.contains(&1)));
    }
    assert!(wrote.iter().any(|got| got.len() == 2 * PAGE) && wrote.iter().any(|got| got.len() <= PAGE));
}

#[test]
fn pages_are_written_back_early() {
    let early = (0..SEEDS).filter(|seed| {
        let mut disk = Disk::new(*seed);
        let ino = disk.make(ROOT, b"f", 0o644, false).unwrap();
        disk.write(ino, 0, &[1; PAGE]).unwrap();
        disk.sync(ino).unwrap();
        disk.sync(ROOT).unwrap();
        disk.write(ino, 0, &[2; PAGE]).unwrap();
        disk.write(ino, 0, &[3; PAGE]).unwrap();
        let mut disk = disk.cut(*seed);
        disk.read(2, 0, PAGE).unwrap() == [2; PAGE]
    });
    assert!(early.count() > 0);
}

#[test]
fn names_are_durable_after_their_directorys_fsync_and_not_before() {
    let names = |seed, sync: bool| {
        let (mut disk, ino) = with_file();
        let dir = disk.make(ROOT, b"d", 0o755, true).unwrap();
        disk.sync(ROOT).unwrap();
        for name in [b"a", b"b", b"c"] {
            let made = disk.make(ROOT, name, 0o644, false).unwrap();
            // The file's own fsync does nothing for its name.
            disk.sync(made).unwrap();
        }
        disk.rename((ROOT, b"f"), (dir, b"g"), true).unwrap();
        disk.remove(ROOT, b"a", false).unwrap();
        if sync {
            disk.sync(ROOT).unwrap();
        }
        let mut disk = disk.cut(seed);
        let (f, g) = (disk.lookup(ROOT, b"f"), disk.lookup(dir, b"g"));
        assert!(f.is_ok() != g.is_ok() && f.or(g) == Ok(ino), "a rename is whole");
        [b"a", b"b", b"c", b"f"].map(|name| disk.lookup(ROOT, name).is_ok())
    };
    let after: Vec<_> = (0..SEEDS).map(|seed| names(seed, false)).collect();
    assert!(after.contains(&[false, false, true, true]), "c without b: in any order");
    assert!(after.contains(&[true, true, false, true]), "a's removal is lost");
    assert!(after.contains(&[false, false, false, false]) && after.contains(&[false, true, true, false]));
    assert!((0..SEEDS).all(|seed| names(seed, true) == [false, true, true, false]));
}

/// As a format makes a server's directory.
#[test]
fn durable_directories_survive_every_cut_and_others_do_not() {
    let survivors = |durably: bool| {
        let there = |seed: &u64| {
            let power = Arc::new(Power::new(Disk::new(*seed)));
            let files = Memory(Arc::clone(&power));
            let path = Path::new("/a/b/c");
            if durably { files.make_durable_dirs(path) } else { files.make_dirs(path) }.unwrap();
            files.open(&path.join("f"), Open::Create).unwrap().sync_all().unwrap();
            files.sync_dir(path).unwrap();
            let left = Memory(Arc::new(Power::new(power.take().unwrap().cut(*seed))));
            left.open(&path.join("f"), Open::Existing).is_ok()
        };
        (0..SEEDS).filter(there).count() as u64
    };
    assert_eq!(survivors(true), SEEDS);
    assert!((1..SEEDS).contains(&survivors(false)));
}

#[test]
fn one_seed_makes_one_cut() {
    let once = || cuts(|disk, ino| disk.write(ino, 1000, &[2; 3 * PAGE]).unwrap());
    assert_eq!(once(), once());
}

/// As kernels do since 2018, and did before: what could not be written is clean, still reads, and is on no disk.
#[test]
fn what_a_failed_fsync_lost_no_later_fsync_writes() {
    for seed in 0..SEEDS {
        let (disk, ino) = with_file();
        let power = Power::new(disk);
        power.run(Kind::Change, |disk| disk.write(ino, 0, &[2; PAGE])).unwrap();
        power.fail(Some(Fault::Sync));
        power.run(Kind::Sync(ino), |disk| disk.sync(ino)).unwrap_err();
        assert_eq!(power.faults(), 1);
        power.fail(None);
        assert_eq!(power.run(Kind::Read, |disk| disk.read(ino, 0, PAGE)).unwrap(), [2; PAGE]);
        power.run(Kind::Change, |disk| disk.write(ino, PAGE as u64, &[3; PAGE])).unwrap();
        power.run(Kind::Sync(ino), |disk| disk.sync(ino)).unwrap();
        let mut left = power.take().unwrap().cut(seed);
        assert_eq!(left.read(ino, 0, PAGE).unwrap(), [1; PAGE]);
        assert_eq!(left.read(ino, PAGE as u64, PAGE).unwrap(), [3; PAGE]);
    }
}

#[test]
fn a_disk_fails_in_what_it_is_told_to_fail_in() {
    let (disk, ino) = with_file();
    let power = Power::new(disk);
    let tried = |power: &Power| {
        [Kind::Look, Kind::Read, Kind::Change, Kind::Sync(ino)].map(|kind| power.run(kind, |_| Ok(())).err())
    };
    let (io, rofs) = (Some(Errno::IO), Some(Errno::ROFS));
    for (fault, comes_to) in [
        (Fault::Sync, [None, None, None, io]),
        (Fault::Write, [None, None, io, None]),
        (Fault::Read, [None, io, None, None]),
        (Fault::ReadOnly, [None, None, rofs, rofs]),
    ] {
        power.fail(Some(fault));
        assert_eq!(tried(&power), comes_to, "{fault:?}");
    }
    power.fail(None);
    assert_eq!(tried(&power), [None; 4]);
}
