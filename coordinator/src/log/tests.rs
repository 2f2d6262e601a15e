//! The log through crashes: whatever a crash leaves of the tail, what was acknowledged is there, and nothing else.

use super::*;
use proptest::prelude::*;
use slice_system::System;
use slice_system::disk::{Disk, Memory, Power};
use std::fs;
use std::path::Path;

const ENSEMBLE: EnsembleId = EnsembleId(9);
/// Small, so that tests rotate.
const BYTES: u64 = 8192;

fn place(dir: &Path, ensemble: EnsembleId) -> Place {
    Place { segment_bytes: BYTES, ..Place::on(&System::kernel(), dir.to_owned(), ensemble) }
}

fn format(dir: &Path) {
    Log::format(&place(dir, ENSEMBLE)).unwrap();
}

fn open(dir: &Path) -> (Log, Vec<Recovered>) {
    Log::open(place(dir, ENSEMBLE)).unwrap()
}

fn block<T>(f: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(f)
}

fn payloads(recovered: &[Recovered]) -> Vec<Vec<u8>> {
    recovered.iter().map(|r| r.payload.clone()).collect()
}

/// Appends each payload and waits for it, so that each is a group of its own.
fn write(log: &Log, payloads: &[&[u8]]) -> u64 {
    let mut last = 0;
    for p in payloads {
        last = log.append(p.to_vec()).unwrap();
        block(log.wait(last)).unwrap();
    }
    last
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    segment::list(&place(dir, ENSEMBLE)).unwrap().into_iter().map(|(p, _)| p).collect()
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn what_was_appended_comes_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    format(dir.path());
    let (log, found) = open(dir.path());
    assert!(found.is_empty());
    let sequences: Vec<_> = (0..10u8).map(|i| log.append(vec![i; 3]).unwrap()).collect();
    assert_eq!(sequences, (1..=10).collect::<Vec<_>>());
    block(log.wait(10)).unwrap();
    drop(log);
    let (log, found) = open(dir.path());
    assert_eq!(found.iter().map(|r| r.sequence).collect::<Vec<_>>(), sequences);
    assert_eq!(payloads(&found), (0..10u8).map(|i| vec![i; 3]).collect::<Vec<_>>());
    assert_eq!(log.next_sequence(), 11);
}

#[test]
fn a_log_that_is_absent_or_foreign_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Log::open(place(dir.path(), ENSEMBLE)), Err(Error::LogAbsent { .. })));
    format(dir.path());
    assert!(matches!(Log::open(place(dir.path(), EnsembleId(10))), Err(Error::BadSegment { .. })));
}

const TORN: &[u8] = b"third, the one that is torn";

/// After a crash at any byte of the last record's write, the records before it stand, and the log goes on.
#[test]
fn truncated_or_garbled_at_every_byte_of_the_tail() {
    let made = tempfile::tempdir().unwrap();
    format(made.path());
    let (log, _) = open(made.path());
    write(&log, &[b"first", b"second", TORN]);
    drop(log);
    let path = segments(made.path()).pop().unwrap();
    let name = path.file_name().unwrap().to_owned();
    let bytes = fs::read(&path).unwrap();
    let start = RECORD_AT + 2 * record::room(6);
    let end = start + record::HEADER + TORN.len();
    for at in start..end {
        let mut garbled = bytes.clone();
        garbled[at] ^= 0x55;
        let mut zeroed = bytes.clone();
        zeroed[at..].fill(0);
        for (how, torn) in [("truncated", bytes[..at].to_vec()), ("garbled", garbled), ("zeroed", zeroed)] {
            let dir = tempfile::tempdir().unwrap();
            copy(made.path(), dir.path());
            fs::write(dir.path().join(&name), &torn).unwrap();
            let (log, found) = open(dir.path());
            // The last byte of the payload may be a zero already.
            let stands = if torn == bytes { 3 } else { 2 };
            assert_eq!(found.len(), stands, "{how} at {at}");
            write(&log, &[b"after the crash"]);
            drop(log);
            let (_, found) = open(dir.path());
            assert_eq!(found.last().unwrap().payload, b"after the crash", "{how} at {at}");
            assert_eq!(found.len(), stands + 1, "{how} at {at}");
        }
    }
}

const RECORD_AT: usize = segment::RECORDS_AT as usize;

#[test]
fn damage_to_what_was_durable_is_told() {
    let dir = tempfile::tempdir().unwrap();
    format(dir.path());
    let (log, _) = open(dir.path());
    write(&log, &[b"first", b"second"]);
    drop(log);
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[RECORD_AT + record::HEADER] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(Log::open(place(dir.path(), ENSEMBLE)), Err(Error::Damaged { at: 4096, .. })));
}

#[test]
fn a_lost_segment_is_told() {
    let dir = tempfile::tempdir().unwrap();
    format(dir.path());
    for _ in 0..3 {
        let (log, _) = open(dir.path());
        write(&log, &[b"one"]);
    }
    let all = segments(dir.path());
    assert_eq!(all.len(), 3);
    fs::remove_file(&all[1]).unwrap();
    assert!(matches!(Log::open(place(dir.path(), ENSEMBLE)), Err(Error::BadSegment { .. })));
}

#[test]
fn segments_are_used_again_when_released() {
    let dir = tempfile::tempdir().unwrap();
    format(dir.path());
    let (log, _) = open(dir.path());
    let payload = [7u8; 1000];
    // Three records fit into a segment of 8 KiB.
    for _ in 0..10 {
        let last = write(&log, &[&payload[..]; 3]);
        log.release(last);
        // The next write comes after the release.
        write(&log, &[&payload[..]]);
        assert!(log.crowded().is_none());
    }
    assert!(segments(dir.path()).len() <= 3, "{:?}", segments(dir.path()));
    drop(log);
    let (_, found) = open(dir.path());
    assert_eq!(found.last().unwrap().sequence, 40);
}

#[test]
fn a_log_that_is_not_released_gets_crowded() {
    let dir = tempfile::tempdir().unwrap();
    format(dir.path());
    let (log, _) = open(dir.path());
    write(&log, &[&[7u8; 1000][..]; 3 * (CROWDED + 1)]);
    let second = log.crowded().unwrap();
    log.release(second);
    write(&log, &[b"x"]);
    assert_eq!(log.crowded(), None);
}

#[test]
fn many_wait_for_one_fsync_and_each_is_told() {
    let dir = tempfile::tempdir().unwrap();
    format(dir.path());
    let (log, _) = open(dir.path());
    let last = (0..500).fold(0, |_, i| log.append(vec![i as u8; 9]).unwrap());
    let waits: Vec<_> = (1..=last).map(|s| log.wait(s)).collect();
    block(async {
        for w in waits {
            w.await.unwrap();
        }
    });
    drop(log);
    assert_eq!(open(dir.path()).1.len(), 500);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Groups of any sizes over several openings, the tail of the last segment cut anywhere: a prefix comes back that
    /// holds everything that was durable when the last group was written.
    #[test]
    fn a_prefix_comes_back(lives in proptest::collection::vec(proptest::collection::vec(1usize..2000, 1..8), 1..4), cut: u16) {
        let dir = tempfile::tempdir().unwrap();
        format(dir.path());
        let mut all: Vec<Vec<u8>> = Vec::new();
        for life in &lives {
            let (log, found) = open(dir.path());
            prop_assert_eq!(payloads(&found), all.clone());
            for size in life {
                all.push(vec![all.len() as u8; *size]);
                write(&log, &[all.last().unwrap()]);
            }
        }
        let last = segments(dir.path()).pop().unwrap();
        let bytes = fs::read(&last).unwrap();
        let cut = (usize::from(cut)).clamp(RECORD_AT, bytes.len());
        fs::write(&last, &bytes[..cut]).unwrap();
        let (_, found) = open(dir.path());
        let found = payloads(&found);
        prop_assert!(found.len() <= all.len());
        prop_assert_eq!(&found[..], &all[..found.len()]);
    }
}

/// A log on a disk in memory.
fn in_memory(power: &Arc<Power>) -> Place {
    Place { files: Arc::new(Memory(Arc::clone(power))), ..place(Path::new("/log"), ENSEMBLE) }
}

/// Nothing was logged in the last life: its segment is the only one, and is replaced when the log is opened.
#[test]
fn an_empty_log_survives_a_power_cut_at_every_change_of_its_opening() {
    let mut opened = 0;
    for seed in 0..40 {
        for changes in 0..20 {
            let power = Arc::new(Power::new(Disk::new(seed)));
            Log::format(&in_memory(&power)).unwrap();
            power.cut_after(changes, seed % 2 == 0);
            opened += u32::from(Log::open_on(in_memory(&power), || ()).is_ok());
            let left = Arc::new(Power::new(power.take().unwrap().cut(seed * 31 + changes)));
            let again = Log::open_on(in_memory(&left), || ());
            assert!(again.is_ok_and(|(_, found)| found.is_empty()), "seed {seed}, after {changes} changes");
        }
    }
    assert!((1..800).contains(&opened), "some cuts come before the log is open, some after: {opened}");
}
