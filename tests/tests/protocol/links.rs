//! LINK (RFC 1813 §3.3.15).

use slice_proto::nfs3::{NfsStat3, StableHow};
use slice_tests::wire::answer::{true_wcc, unchanged};
use slice_tests::wire::content::read_all;
use slice_tests::wire::stage::names;
use slice_tests::wire::{Expect, Stage, mode};

crate::claims![
    link_makes_another_name_of_the_same_file,
    link_shows_file_and_directory,
    links_are_counted_across_directories,
    link_onto_a_name_is_exist,
    link_of_a_directory_is_refused,
    link_of_a_symlink_is_the_symlink,
    link_into_a_removed_directory_is_stale,
];

async fn link_makes_another_name_of_the_same_file(s: Stage) {
    let file = s.file("a").await;
    s.c.link(&file, &s.dir, b"b").await.good();
    let found = s.c.lookup(&s.dir, b"b").await.good();
    assert_eq!(found.object, file);
    s.c.write(&found.object, 0, b"through b", StableHow::FileSync).await.good();
    assert_eq!(read_all(&s.c, &file, 0, 100).await, b"through b");
}

async fn link_shows_file_and_directory(s: Stage) {
    let file = s.file("a").await;
    for i in 2..8 {
        let (before, dir) = (s.attr(&file).await, s.attr(&s.dir).await);
        let ok = s.c.link(&file, &s.dir, format!("l{i}").as_bytes()).await.good();
        let after = s.attr(&file).await;
        assert_eq!((after.nlink, ok.attr), (i, Some(after)));
        assert!(after.ctime > before.ctime, "a link changes the file's ctime");
        assert_eq!(after.mtime, before.mtime);
        true_wcc(ok.dir_wcc, &dir, &s.attr(&s.dir).await);
    }
}

async fn links_are_counted_across_directories(s: Stage) {
    let file = s.file("f").await;
    let mut dirs = Vec::new();
    for i in 0..8 {
        let dir = s.subdir(&format!("d{i}")).await;
        s.c.link(&file, &dir, b"l").await.good();
        dirs.push(dir);
        assert_eq!(s.attr(&file).await.nlink, i + 2);
    }
    s.c.remove(&s.dir, b"f").await.good();
    for (i, dir) in dirs.iter().enumerate() {
        assert_eq!(s.attr(&file).await.nlink as usize, 8 - i);
        s.c.remove(dir, b"l").await.good();
    }
    s.c.getattr(&file).await.fails(NfsStat3::STALE);
}

async fn link_onto_a_name_is_exist(s: Stage) {
    let file = s.file("a").await;
    s.file("b").await;
    s.subdir("d").await;
    for name in [&b"a"[..], b"b", b"d"] {
        let (attr, dir) = (s.attr(&file).await, s.attr(&s.dir).await);
        let fail = s.c.link(&file, &s.dir, name).await.fails(NfsStat3::EXIST);
        unchanged(fail.dir_wcc, &dir);
        assert_eq!(s.attr(&file).await, attr);
    }
}

async fn link_of_a_directory_is_refused(s: Stage) {
    let sub = s.subdir("d").await;
    let refusals = [NfsStat3::PERM, NfsStat3::ISDIR, NfsStat3::INVAL];
    s.c.link(&sub, &s.dir, b"e").await.fails_with(&refusals);
    assert_eq!(names(&s.c, &s.dir).await, [b"d"]);
    assert_eq!(s.attr(&sub).await.nlink, 2);
}

async fn link_of_a_symlink_is_the_symlink(s: Stage) {
    let link = s.c.symlink(&s.dir, b"l", mode(0o777), b"target").await.good().object.unwrap();
    s.c.link(&link, &s.dir, b"m").await.good();
    s.c.remove(&s.dir, b"l").await.good();
    assert_eq!(s.c.readlink(&link).await.good().target, b"target");
    assert_eq!(s.c.lookup(&s.dir, b"m").await.good().object, link);
}

async fn link_into_a_removed_directory_is_stale(s: Stage) {
    let (file, dir) = (s.file("f").await, s.subdir("d").await);
    s.c.rmdir(&s.dir, b"d").await.good();
    s.c.link(&file, &dir, b"x").await.fails_with(&[NfsStat3::STALE, NfsStat3::NOENT]);
    s.c.rename((&s.dir, b"f"), (&dir, b"x")).await.fails_with(&[NfsStat3::STALE, NfsStat3::NOENT]);
    assert_eq!(s.attr(&file).await.nlink, 1);
    assert_eq!(names(&s.c, &s.dir).await, [b"f"]);
}
