//! REMOVE and RMDIR (RFC 1813 §3.3.12, §3.3.13).

use slice_proto::nfs3::{NfsStat3, StableHow};
use slice_tests::wire::answer::{true_wcc, unchanged};
use slice_tests::wire::content::{pattern, read_all, write_all};
use slice_tests::wire::stage::{create, mkdir, names};
use slice_tests::wire::{Expect, Stage, mode};

crate::claims![
    remove_takes_the_name_and_the_file,
    remove_shows_the_directory_before_and_after,
    remove_of_nothing_is_noent,
    remove_of_a_directory_is_refused,
    a_removed_file_is_stale_for_everything,
    the_last_name_takes_the_bytes,
    a_name_made_anew_is_another_file,
    rmdir_takes_an_empty_directory,
    rmdir_of_a_full_directory_is_notempty,
    rmdir_of_a_file_is_notdir,
    rmdir_of_dot_is_refused,
    a_directory_emptied_can_go,
];

async fn remove_takes_the_name_and_the_file(s: Stage) {
    let file = s.file("f").await;
    s.c.symlink(&s.dir, b"l", mode(0o777), b"f").await.good();
    s.c.remove(&s.dir, b"l").await.good();
    s.c.getattr(&file).await.good();
    s.c.remove(&s.dir, b"f").await.good();
    s.c.lookup(&s.dir, b"f").await.fails(NfsStat3::NOENT);
    s.c.getattr(&file).await.fails(NfsStat3::STALE);
    assert!(names(&s.c, &s.dir).await.is_empty());
}

async fn remove_shows_the_directory_before_and_after(s: Stage) {
    for i in 0..6 {
        let name = format!("f{i}");
        s.file(&name).await;
        let before = s.attr(&s.dir).await;
        let wcc = s.c.remove(&s.dir, name.as_bytes()).await.good();
        let after = s.attr(&s.dir).await;
        true_wcc(wcc, &before, &after);
        assert!(after.mtime > before.mtime && after.ctime > before.ctime);
    }
}

async fn remove_of_nothing_is_noent(s: Stage) {
    let dir = s.attr(&s.dir).await;
    unchanged(s.c.remove(&s.dir, b"nothing").await.fails(NfsStat3::NOENT), &dir);
    unchanged(s.c.rmdir(&s.dir, b"nothing").await.fails(NfsStat3::NOENT), &dir);
}

async fn remove_of_a_directory_is_refused(s: Stage) {
    let sub = s.subdir("d").await;
    let dir = s.attr(&s.dir).await;
    let refusals = [NfsStat3::ISDIR, NfsStat3::PERM];
    unchanged(s.c.remove(&s.dir, b"d").await.fails_with(&refusals), &dir);
    for name in [&b"."[..], b".."] {
        let refusals = [NfsStat3::ISDIR, NfsStat3::PERM, NfsStat3::INVAL, NfsStat3::EXIST, NfsStat3::ACCES];
        s.c.remove(&sub, name).await.fails_with(&refusals);
    }
    s.c.getattr(&sub).await.good();
}

async fn a_removed_file_is_stale_for_everything(s: Stage) {
    let file = s.file("f").await;
    write_all(&s.c, &file, 0, &pattern(1, 0, 150_000), StableHow::FileSync).await;
    s.c.remove(&s.dir, b"f").await.good();
    const STALE: NfsStat3 = NfsStat3::STALE;
    s.c.getattr(&file).await.fails(STALE);
    s.c.setattr(&file, mode(0o600), None).await.fails(STALE);
    s.c.access(&file, 1).await.fails(STALE);
    s.c.link(&file, &s.dir, b"again").await.fails(STALE);
    // The data servers hear of it after the client (docs/wire.md): until then they answer as before.
    for offset in [0, 100_000] {
        while s.c.read(&file, offset, 100).await.stat() == NfsStat3::OK {}
        s.c.read(&file, offset, 100).await.fails(STALE);
        while s.c.write(&file, offset, b"x", StableHow::FileSync).await.stat() == NfsStat3::OK {}
        s.c.write(&file, offset, b"x", StableHow::FileSync).await.fails(STALE);
    }
    s.c.commit(&file, 0, 0).await.fails(STALE);
    s.c.getattr(&file).await.fails(STALE);
    assert!(names(&s.c, &s.dir).await.is_empty());
}

async fn the_last_name_takes_the_bytes(s: Stage) {
    let file = s.file("a").await;
    let data = pattern(3, 0, 300_000);
    write_all(&s.c, &file, 0, &data, StableHow::FileSync).await;
    s.c.link(&file, &s.dir, b"b").await.good();
    s.c.remove(&s.dir, b"a").await.good();
    assert!(read_all(&s.c, &file, 0, 400_000).await == data, "one name is left");
    s.c.remove(&s.dir, b"b").await.good();
    while s.c.read(&file, 0, 10).await.stat() == NfsStat3::OK {}
    s.c.read(&file, 0, 10).await.fails(NfsStat3::STALE);
}

async fn a_name_made_anew_is_another_file(s: Stage) {
    let old = s.file("f").await;
    write_all(&s.c, &old, 0, &pattern(1, 0, 100_000), StableHow::FileSync).await;
    s.c.remove(&s.dir, b"f").await.good();
    let new = s.file("f").await;
    assert_ne!(old, new);
    assert_eq!(s.attr(&new).await.size, 0);
    assert!(read_all(&s.c, &new, 0, 1000).await.is_empty());
    s.c.getattr(&old).await.fails(NfsStat3::STALE);
}

async fn rmdir_takes_an_empty_directory(s: Stage) {
    for i in 0..5 {
        let name = format!("d{i}");
        let dir = s.subdir(&name).await;
        let before = s.attr(&s.dir).await;
        let wcc = s.c.rmdir(&s.dir, name.as_bytes()).await.good();
        true_wcc(wcc, &before, &s.attr(&s.dir).await);
        s.c.getattr(&dir).await.fails(NfsStat3::STALE);
        s.c.lookup(&s.dir, name.as_bytes()).await.fails(NfsStat3::NOENT);
        s.c.readdir(&dir, 0, Default::default(), 4096).await.fails(NfsStat3::STALE);
    }
}

async fn rmdir_of_a_full_directory_is_notempty(s: Stage) {
    let dir = s.subdir("d").await;
    for child in ["file", "directory"] {
        if child == "file" {
            create(&s.c, &dir, child, 0o644).await;
        } else {
            mkdir(&s.c, &dir, child, 0o755).await;
        }
        let attr = s.attr(&s.dir).await;
        unchanged(s.c.rmdir(&s.dir, b"d").await.fails(NfsStat3::NOTEMPTY), &attr);
        assert_eq!(names(&s.c, &dir).await, [child.as_bytes()]);
        if child == "file" {
            s.c.remove(&dir, child.as_bytes()).await.good();
        } else {
            s.c.rmdir(&dir, child.as_bytes()).await.good();
        }
    }
    s.c.rmdir(&s.dir, b"d").await.good();
}

async fn rmdir_of_a_file_is_notdir(s: Stage) {
    s.file("f").await;
    s.c.symlink(&s.dir, b"l", mode(0o777), b".").await.good();
    let attr = s.attr(&s.dir).await;
    for name in [&b"f"[..], b"l"] {
        unchanged(s.c.rmdir(&s.dir, name).await.fails(NfsStat3::NOTDIR), &attr);
    }
}

/// §3.3.13: `.` is INVAL, `..` is EXIST; knfsd and POSIX have other errors for `..`.
async fn rmdir_of_dot_is_refused(s: Stage) {
    let dir = s.subdir("d").await;
    s.c.rmdir(&dir, b".").await.fails(NfsStat3::INVAL);
    s.c.rmdir(&dir, b"..").await.fails_with(&[NfsStat3::EXIST, NfsStat3::NOTEMPTY, NfsStat3::INVAL]);
    s.c.getattr(&dir).await.good();
}

async fn a_directory_emptied_can_go(s: Stage) {
    const FILES: usize = 60;
    let dir = s.subdir("d").await;
    for i in 0..FILES {
        create(&s.c, &dir, &format!("f{i}"), 0o644).await;
    }
    for i in 0..FILES {
        s.c.rmdir(&s.dir, b"d").await.fails(NfsStat3::NOTEMPTY);
        s.c.remove(&dir, format!("f{i}").as_bytes()).await.good();
    }
    s.c.rmdir(&s.dir, b"d").await.good();
}
