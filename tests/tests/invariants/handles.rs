//! I1: no machine and no boot time is in a handle: it survives restart and rename.

use slice_proto::nfs3::{NfsStat3, StableHow};
use slice_tests::ensemble::{Layout, Policy};
use slice_tests::wire::stage::{create, mkdir, names};
use slice_tests::wire::{self, Expect, mode};

use super::{check, connect, root, start};

fn survive(name: &str, policy: Policy, layout: Layout) {
    let mut ensemble = start(name, policy, layout);
    let kept = wire::run(async {
        let c = connect(ensemble.port()).await;
        let top = root(&c).await;
        let mut kept = Vec::new();
        for i in 0..6 {
            let dir = mkdir(&c, &top, &format!("d{i}"), 0o755).await;
            let file = create(&c, &dir, "f", 0o644).await;
            c.write(&file, 0, format!("file {i}").as_bytes(), StableHow::FileSync).await.good();
            let link = c.symlink(&dir, b"l", mode(0o777), b"f").await.good().object.unwrap();
            for object in [dir, file, link] {
                kept.push((object, c.getattr(&object).await.good()));
            }
        }
        kept.insert(0, (top, c.getattr(&top).await.good()));
        kept
    });
    ensemble.kill();
    ensemble.restart().unwrap();
    wire::run(async {
        let c = connect(ensemble.port()).await;
        assert_eq!(root(&c).await, kept[0].0, "MNT gives the same root");
        for (handle, before) in &kept {
            assert_eq!(c.getattr(handle).await.good(), *before);
        }
        for (i, objects) in kept[1..].chunks(3).enumerate() {
            let [(dir, _), (file, _), (link, _)] = objects else { panic!() };
            assert_eq!(c.read(file, 0, 100).await.good().data, format!("file {i}"));
            assert_eq!(c.readlink(link).await.good().target, b"f");
            assert_eq!(c.lookup(dir, b"f").await.good().object, *file);
            let other = kept[1 + 3 * ((i + 1) % 6)].0;
            c.rename((dir, b"f"), (&other, b"moved")).await.good();
            c.remove(dir, b"l").await.good();
        }
    });
    ensemble.kill();
    ensemble.restart().unwrap();
    wire::run(async {
        let c = connect(ensemble.port()).await;
        for (i, objects) in kept[1..].chunks(3).enumerate() {
            let [(dir, _), (file, before), (link, _)] = objects else { panic!() };
            assert_eq!(c.getattr(file).await.good().fileid, before.fileid);
            assert_eq!(
                c.read(file, 0, 100).await.good().data,
                format!("file {i}"),
                "after rename and restart"
            );
            assert_eq!(names(&c, dir).await, [b"moved"]);
            c.getattr(link).await.fails(NfsStat3::STALE);
        }
    });
    check(&ensemble);
}

#[test]
fn a_handle_survives_restart_and_rename_partition() {
    survive("handles-partition", Policy::Partition, Layout::OneProcess);
}

#[test]
fn a_handle_survives_restart_and_rename_mkdir() {
    survive("handles-mkdir", Policy::Mkdir, Layout::Separate);
}

#[test]
fn a_handle_survives_restart_and_rename_hash() {
    survive("handles-hash", Policy::Hash, Layout::OneProcess);
}

#[test]
fn a_clean_stop_keeps_everything_too() {
    let mut ensemble = start("handles-stop", Policy::Hash, Layout::Separate);
    let file = wire::run(async {
        let c = connect(ensemble.port()).await;
        let file = create(&c, &root(&c).await, "f", 0o644).await;
        // Not committed: a clean stop has nothing to lose.
        c.write(&file, 0, &[7; 200_000], StableHow::Unstable).await.good();
        file
    });
    ensemble.stop().unwrap();
    ensemble.restart().unwrap();
    wire::run(async {
        let c = connect(ensemble.port()).await;
        assert_eq!(c.getattr(&file).await.good().size, 200_000);
        for at in [0, 100_000] {
            assert_eq!(c.read(&file, at, 100_000).await.good().data, vec![7; 100_000]);
        }
    });
    check(&ensemble);
}
