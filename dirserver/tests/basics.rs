//! The shortest whole way, under each policy, on one server and on three.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Client, Cluster, run};
use slice_proto::nfs3::{CreateHow, FType3, MknodWhat, NfsStat3, Sattr3, SpecData3};
use slice_proto::table::NamePolicy;

const POLICIES: [NamePolicy; 3] =
    [NamePolicy::Partition, NamePolicy::MkdirSwitching { affinity_ppm: 300_000 }, NamePolicy::Hash];

#[test]
fn a_tree_is_made_listed_renamed_and_removed() {
    for policy in POLICIES {
        for n in [1, 3] {
            println!("{policy:?} on {n}");
            run(async || {
                let c = Cluster::new(n, policy).await;
                let root = Client::root(&c);
                let top = root.root_fh();
                assert_eq!(root.getattr(&top).await.unwrap().nlink, 2);
                let mut dirs = vec![top.clone()];
                for d in 0..6 {
                    let parent = dirs[d / 2].clone();
                    dirs.push(root.mkdir(&parent, format!("d{d}").as_bytes(), 0o755).await.unwrap());
                }
                for (i, dir) in dirs.iter().enumerate() {
                    for f in 0..5 {
                        let fh = root.file(dir, format!("f{f}").as_bytes(), 0o640).await.unwrap();
                        let attr = root.getattr(&fh).await.unwrap();
                        assert_eq!((attr.ftype, attr.mode, attr.nlink), (FType3::Reg, 0o640, 1));
                    }
                    root.symlink(dir, b"l", format!("to {i}").as_bytes()).await.unwrap();
                    let what = MknodWhat::Chr(Sattr3::default(), SpecData3 { major: 3, minor: 4 });
                    let fh = root.mknod(dir, b"c", what).await.unwrap();
                    assert_eq!(root.getattr(&fh).await.unwrap().rdev, SpecData3 { major: 3, minor: 4 });
                }
                for (i, dir) in dirs.iter().enumerate() {
                    let (fh, attr) = root.lookup(dir, b"l").await.unwrap();
                    assert_eq!(attr.ftype, FType3::Lnk);
                    assert_eq!(root.readlink(&fh).await.unwrap(), format!("to {i}").as_bytes());
                    let subdirs = (0..6).filter(|d| d / 2 == i).count();
                    assert_eq!(root.list(dir).await.unwrap().len(), 7 + subdirs);
                    assert_eq!(root.getattr(dir).await.unwrap().nlink as usize, 2 + subdirs);
                }
                // A directory moves to another; its ".." follows.
                root.rename(&dirs[0], b"d1", &dirs[1], b"moved").await.unwrap();
                let (fh, _) = root.lookup(&dirs[1], b"moved").await.unwrap();
                assert_eq!(fh, dirs[2]);
                assert_eq!(root.lookup(&fh, b"..").await.unwrap().0, dirs[1]);
                assert_eq!(root.rename(&dirs[0], b"d0", &dirs[2], b"below").await, Err(NfsStat3::INVAL));
                // Links count wherever they are.
                let (f, _) = root.lookup(&dirs[3], b"f0").await.unwrap();
                for (i, dir) in dirs.iter().enumerate().take(4) {
                    root.link(&f, dir, format!("hard{i}").as_bytes()).await.unwrap();
                }
                assert_eq!(root.getattr(&f).await.unwrap().nlink, 5);
                root.rename(&dirs[0], b"hard0", &dirs[1], b"hard1").await.unwrap();
                assert_eq!(
                    root.getattr(&f).await.unwrap().nlink,
                    5,
                    "two names of one file stay as they are"
                );
                root.rename(&dirs[0], b"hard0", &dirs[1], b"f1").await.unwrap();
                assert_eq!(root.getattr(&f).await.unwrap().nlink, 5);
                for (i, dir) in dirs.iter().enumerate().take(4).skip(1) {
                    root.remove(dir, format!("hard{i}").as_bytes()).await.unwrap();
                }
                root.remove(&dirs[1], b"f1").await.unwrap();
                assert_eq!(root.getattr(&f).await.unwrap().nlink, 1);
                root.remove(&dirs[3], b"f0").await.unwrap();
                assert_eq!(root.getattr(&f).await, Err(NfsStat3::STALE));
                assert_eq!(root.rmdir(&dirs[1], b"moved").await, Err(NfsStat3::NOTEMPTY));
                // Everything goes, deepest first.
                for dir in dirs.iter().rev() {
                    for name in root.list(dir).await.unwrap().into_keys() {
                        match root.remove(dir, &name).await {
                            Err(NfsStat3::ISDIR) => root.rmdir(dir, &name).await.unwrap(),
                            other => other.unwrap(),
                        }
                    }
                }
                let attr = root.getattr(&top).await.unwrap();
                assert_eq!(attr.nlink, 2);
                c.settle().await;
            });
        }
    }
}

#[test]
fn creation_keeps_to_its_mode() {
    for policy in POLICIES {
        run(async || {
            let c = Cluster::new(2, policy).await;
            let root = Client::root(&c);
            let top = root.root_fh();
            let first = root.create(&top, b"x", CreateHow::Exclusive(*b"12345678")).await.unwrap().0;
            let again = root.create(&top, b"x", CreateHow::Exclusive(*b"12345678")).await.unwrap().0;
            assert_eq!(first, again);
            let other = root.create(&top, b"x", CreateHow::Exclusive(*b"12345679")).await;
            assert_eq!(other.map(|_| ()), Err(NfsStat3::EXIST));
            let wcc = root.wcc.borrow().unwrap();
            assert_eq!(wcc.before, wcc.after.map(|a| a.wcc()), "EXIST shows the directory, unchanged");
            assert!(wcc.before.is_some());
            let guarded = CreateHow::Guarded(Sattr3::default());
            assert_eq!(root.create(&top, b"x", guarded).await.map(|_| ()), Err(NfsStat3::EXIST));
            let sized = CreateHow::Unchecked(Sattr3 { size: Some(0), ..Sattr3::default() });
            root.truncate(&first, 100).await.unwrap();
            let before = root.stamp(&first).await;
            let (same, _) = root.create(&top, b"x", sized).await.unwrap();
            assert_eq!(same, first);
            assert_eq!(root.getattr(&first).await.unwrap().size, 0);
            assert!(root.stamp(&first).await.epoch > before.epoch, "a cut takes a new epoch");
            let big = CreateHow::Guarded(Sattr3 { size: Some(5000), ..Sattr3::default() });
            let (fh, _) = root.create(&top, b"big", big).await.unwrap();
            assert_eq!(root.getattr(&fh).await.unwrap().size, 5000);
            c.settle().await;
        });
    }
}
