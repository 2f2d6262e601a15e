//! That programs see a file system, and that one which breaks its word is caught.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use slice_system::disk::bytes::PAGE;

use super::{Disk, Mounted, obstacle};

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
