//! What breaks, and what then.

use super::harness::{Rig, SMALL, config, file, run};
use crate::Error;
use crate::config::Tuning;
use crate::server::SmallFileStore;
use slice_proto::ids::{FileId, ServerId};
use slice_proto::nfs3::{NfsStat3, StableHow};
use std::sync::atomic::Ordering;

const UNSTABLE: StableHow = StableHow::Unstable;
const IO: u32 = NfsStat3::IO.0;

#[test]
fn damaged_bytes_are_an_error_never_zeros() {
    run(async {
        let mut rig = Rig::new(Tuning::default()).await;
        let f = file(0);
        rig.write(f, 1, 0, &[1; 20_000], StableHow::FileSync).await.unwrap();
        let extent = *rig.server().node().cell(f).unwrap().object.lock().extents().nth(1).unwrap();
        let segment = rig.server().node().segments.get(extent.segment).unwrap();
        segment.file.write_all_at(&[9], u64::from(extent.offset) + 100).unwrap();
        assert_eq!(rig.read(f, 0, 8_192).await.unwrap().0, [1; 8_192], "the other blocks are fine");
        assert_eq!(rig.read(f, 0, 20_000).await, Err(IO));
        assert_eq!(rig.read(f, 8_192, 1).await, Err(IO), "even where the byte asked for is right");
        assert_eq!(rig.write(f, 1, 8_192, b"x", UNSTABLE).await, Err(IO), "which would make the damage good");
        rig.write(f, 1, 8_192, &[2; 8_192], UNSTABLE).await.unwrap();
        assert_eq!(rig.read(f, 8_192, 8_192).await.unwrap().0, [2; 8_192]);
    });
}

#[test]
fn a_full_disk_says_so_at_the_write() {
    run(async {
        let mut rig = Rig::new(SMALL).await;
        let mut files = Vec::new();
        for n in 0..20 {
            rig.write(file(n), 1, 0, &[n as u8; 60_000], UNSTABLE).await.unwrap();
            files.push(file(n));
        }
        rig.server().node().segments.faults.full.store(true, Ordering::SeqCst);
        let mut n = 100;
        let full = loop {
            match rig.write(file(n), 1, 0, &[1; 60_000], UNSTABLE).await {
                Ok(_) => files.push(file(n)),
                Err(why) => break why,
            }
            n += 1;
        };
        assert_eq!(full, NfsStat3::NOSPC.0);
        for f in &files {
            rig.commit(*f).await.unwrap();
        }
        // Removing works, and makes room.
        for f in files.drain(..15) {
            assert_eq!(rig.purge(f, 2).await.0, 0);
        }
        let mut tries = 0;
        while rig.write(file(n), 1, 0, &[1; 60_000], StableHow::FileSync).await.is_err() {
            tries += 1;
            assert!(tries < 10_000, "no room after removing: {:?}", rig.server().node().segments.live());
            // Its turn comes on the log's thread.
            rig.commit(files[0]).await.unwrap();
            tokio::task::yield_now().await;
        }
        for f in &files {
            assert_eq!(rig.read(*f, 0, 60_000).await.unwrap().0.len(), 60_000);
        }
    });
}

#[test]
fn a_failed_fsync_is_told_and_stays() {
    run(async {
        let mut rig = Rig::new(SMALL).await;
        let (f, g) = (file(0), file(1));
        rig.write(f, 1, 0, b"durable", StableHow::FileSync).await.unwrap();
        rig.write(f, 1, 0, b"DUR", UNSTABLE).await.unwrap();
        rig.write(g, 1, 0, b"x", UNSTABLE).await.unwrap();
        rig.server().node().segments.faults.fsync.store(true, Ordering::SeqCst);
        assert_eq!(rig.commit(f).await, Err(IO));
        rig.server().node().segments.faults.fsync.store(false, Ordering::SeqCst);
        assert_eq!(rig.commit(g).await, Err(IO), "a later fsync would say that all is well");
        assert_eq!(rig.write(g, 1, 0, b"y", UNSTABLE).await, Err(IO));
        assert_eq!(rig.write(g, 1, 0, b"y", StableHow::FileSync).await, Err(IO));
        rig.crash();
        rig.start();
        assert_eq!(rig.read(f, 0, 10).await, Ok((b"durable".to_vec(), true)));
        assert_eq!(rig.read(g, 0, 10).await, Ok((vec![], true)));
    });
}

#[test]
fn memory_is_bounded_by_making_writes_durable() {
    run(async {
        let mut rig = Rig::new(SMALL).await;
        let mut durable = 0;
        for n in 0..200 {
            let (how, _) = rig.write(file(n), 1, 0, &[n as u8; 10_000], UNSTABLE).await.unwrap();
            durable += usize::from(how == StableHow::FileSync);
            assert!(rig.server().node().held() <= SMALL.held_max + 3 * 8_320);
        }
        println!("{durable} of 200 WRITEs had to wait");
        for n in 0..200 {
            assert_eq!(rig.read(file(n), 5_000, 10_000).await, Ok((vec![n as u8; 5_000], true)));
        }
    });
}

#[test]
fn missing_or_foreign_segments_are_refused() {
    run(async {
        let mut rig = Rig::new(SMALL).await;
        assert!(matches!(
            SmallFileStore::format(&config(rig.dir.path())),
            Err(Error::NotEmpty { .. } | Error::Store(_))
        ));
        rig.write(file(0), 1, 0, &[1; 100], StableHow::FileSync).await.unwrap();
        rig.shutdown().await;
        let dir = rig.dir.path().join("segments");
        let away = rig.dir.path().join("away");
        let refused = |rig: &Rig| rig.try_open().map(|_| ()).unwrap_err();
        std::fs::rename(&dir, &away).unwrap();
        assert!(matches!(refused(&rig), Error::NotOurSegments { .. }), "a disk that is not mounted");
        std::fs::create_dir(&dir).unwrap();
        std::fs::copy(away.join("STAMP"), dir.join("STAMP")).unwrap();
        assert!(matches!(refused(&rig), Error::NoSegment { .. }));
        let other = tempfile::tempdir().unwrap();
        let strange = crate::SmallConfig { server: ServerId(9), ..config(other.path()) };
        SmallFileStore::format(&strange).unwrap();
        std::fs::copy(other.path().join("segments/STAMP"), dir.join("STAMP")).unwrap();
        assert!(matches!(refused(&rig), Error::NotOurSegments { .. }));
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::rename(&away, &dir).unwrap();
        rig.start();
        assert_eq!(rig.read(file(0), 0, 5).await.unwrap().0, [1; 5]);
    });
}

#[test]
fn the_cleaner_gives_space_back() {
    run(async {
        let mut rig = Rig::new(SMALL).await;
        // Every eighth block of several segments stays in use.
        for n in 0..400 {
            rig.write(file(n), 1, 0, &[n as u8; 8_192], UNSTABLE).await.unwrap();
            if n % 10 == 9 {
                for m in n - 9..=n {
                    rig.commit(file(m)).await.unwrap();
                }
            }
        }
        for n in (0..400).filter(|n| n % 8 != 0) {
            rig.purge(file(n), 2).await;
        }
        let node = rig.server().node().clone();
        let live: u64 = 50 * 8_192;
        let mut tries = 0;
        // The cleaner works when the log has nothing else to do.
        while node.segments.live().len() > 5 {
            tries += 1;
            assert!(tries < 100_000, "{:?}", node.segments.live());
            rig.commit(file(0)).await.unwrap();
            std::thread::yield_now();
        }
        assert_eq!(node.segments.live().values().sum::<u64>(), live);
        drop(node);
        for restarted in [false, true] {
            for n in (0..400).filter(|n| n % 8 == 0) {
                assert_eq!(
                    rig.read(file(n), 0, 9_000).await,
                    Ok((vec![n as u8; 8_192], true)),
                    "{restarted}"
                );
            }
            if !restarted {
                rig.crash();
                rig.start();
            }
        }
        assert_eq!(rig.list(FileId(0), 1_000).await.iter().filter(|o| !o.tombstone).count(), 50);
    });
}
