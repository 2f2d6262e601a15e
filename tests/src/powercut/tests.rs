//! The disk's rules, and that what breaks them is caught.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

use super::bytes::{PAGE, SECTOR};
use super::disk::{Disk, ROOT};
use super::{Mounted, obstacle};

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

#[test]
fn one_seed_makes_one_cut() {
    let once = || cuts(|disk, ino| disk.write(ino, 1000, &[2; 3 * PAGE]).unwrap());
    assert_eq!(once(), once());
}

/// Mounted, or told in one line why not.
fn mounted(disk: Disk) -> Option<Mounted> {
    match obstacle() {
        None => Some(Mounted::new(disk).unwrap()),
        Some(why) => {
            println!("not run: {why}");
            None
        }
    }
}

#[test]
fn programs_see_a_file_system() {
    let Some(on) = mounted(Disk::new(1)) else { return };
    let at = |name: &str| on.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::write(at("a/b/f"), vec![5; 300_000]).unwrap();
    let mut file = OpenOptions::new().append(true).open(at("a/b/f")).unwrap();
    file.write_all(b"end").unwrap();
    file.write_all_at(b"x", 10).unwrap();
    fs::rename(at("a/b/f"), at("a/g")).unwrap();
    assert_eq!(
        fs::read(at("a/g")).unwrap().len(),
        300_004,
        "one more byte: a file opened for appending is only appended to"
    );
    assert!(fs::remove_dir(at("a")).is_err());
    for n in 0..500 {
        File::create(at("a/b").join(format!("{n}"))).unwrap();
    }
    assert_eq!(fs::read_dir(at("a/b")).unwrap().count(), 500);
    fs::remove_dir_all(at("a")).unwrap();
    assert!(!at("a").exists());
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(at("s")).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    file.write_all_at(&[9; 100], 500_000).unwrap();
    assert_eq!(seek(&file, SeekFrom::Data(0)).unwrap(), 500_000 / PAGE as u64 * PAGE as u64);
    assert_eq!(seek(&file, SeekFrom::Hole(500_000)).unwrap(), (500_000 / PAGE as u64 + 1) * PAGE as u64);
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 500_050, 10).unwrap();
    let mut got = [1; 100];
    file.read_exact_at(&mut got, 500_000).unwrap();
    assert_eq!((got[49], got[50], got[59], got[60]), (9, 0, 0, 9));
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
}

#[test]
fn after_a_cut_everything_fails_until_it_is_mounted_again() {
    let Some(on) = mounted(Disk::new(1)) else { return };
    let file = File::create(on.path().join("f")).unwrap();
    on.power().cut_after(1, false);
    file.write_all_at(b"one", 0).unwrap();
    let failed = file.write_all_at(b"two", 0).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    assert!(*on.power().dark().borrow());
    assert!(file.sync_all().is_err() && fs::read_dir(on.path()).is_err());
    let path = on.path().to_owned();
    let on = Mounted::new(on.cut(3)).unwrap();
    assert!(!path.exists() && fs::read_dir(on.path()).is_ok());
}

/// A store of numbers: a log of them, and an answer for each that is said to be kept. `sync`: it keeps its word.
fn answered(log: &Path, sync: bool) -> Vec<u8> {
    let Ok(mut file) = OpenOptions::new().append(true).create(true).open(log) else { return Vec::new() };
    if sync && File::open(log.parent().unwrap()).and_then(|dir| dir.sync_all()).is_err() {
        return Vec::new();
    }
    let kept = |n: &u8| file.write_all(&[*n]).is_ok() && (!sync || file.sync_data().is_ok());
    (1..100).take_while(kept).collect()
}

/// Whether the store broke its word in any of many cuts.
fn caught(sync: bool) -> bool {
    let broke = |seed: u64| {
        let on = Mounted::new(Disk::new(seed)).unwrap();
        on.power().cut_after(seed % 150, seed.is_multiple_of(2));
        let answers = answered(&on.path().join("log"), sync);
        let on = Mounted::new(on.cut(seed)).unwrap();
        let there = fs::read(on.path().join("log")).unwrap_or_default();
        !there.starts_with(&answers)
    };
    (0..60).any(broke)
}

#[test]
fn a_store_that_does_not_fsync_is_caught() {
    if let Some(why) = obstacle() {
        return println!("not run: {why}");
    }
    assert!(!caught(true), "one that does is not");
    assert!(caught(false));
}
