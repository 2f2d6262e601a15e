//! RENAME (RFC 1813 §3.3.14): every kind over every kind, within a directory and across.

use slice_load::client::Fh;
use slice_proto::nfs3::{MknodWhat, NfsStat3, StableHow};
use slice_tests::wire::answer::{true_wcc, unchanged};
use slice_tests::wire::content::read_all;
use slice_tests::wire::stage::{create, mkdir, names};
use slice_tests::wire::{Expect, Stage, mode};

crate::claims![
    every_kind_moves_and_keeps_its_handle,
    both_directories_are_shown_before_and_after,
    a_file_over_a_file_replaces_it,
    a_file_over_a_linked_file_takes_one_name,
    an_empty_directory_over_an_empty_one_replaces_it,
    a_directory_over_a_full_one_is_refused,
    a_directory_over_a_file_is_notdir,
    a_file_over_a_directory_is_isdir,
    onto_itself_nothing_happens,
    onto_another_name_of_itself_nothing_happens,
    a_missing_source_is_noent,
    dot_and_dotdot_are_refused,
    a_directory_into_itself_is_inval,
    a_moved_directory_knows_its_parent,
    a_deep_tree_moves_whole,
    a_chain_of_renames_ends_where_it_should,
];

async fn of_each_kind(s: &Stage, dir: &Fh) -> Vec<(&'static str, Fh)> {
    let file = create(&s.c, dir, "file", 0o644).await;
    let sub = mkdir(&s.c, dir, "dir", 0o755).await;
    let link = s.c.symlink(dir, b"link", mode(0o777), b"target").await.good().object.unwrap();
    let fifo = s.c.mknod(dir, b"fifo", MknodWhat::Fifo(mode(0o600))).await.good().object.unwrap();
    vec![("file", file), ("dir", sub), ("link", link), ("fifo", fifo)]
}

async fn every_kind_moves_and_keeps_its_handle(s: Stage) {
    let (a, b) = (s.subdir("a").await, s.subdir("b").await);
    for (name, handle) in of_each_kind(&s, &a).await {
        let before = s.attr(&handle).await;
        for (from, to, new) in [(&a, &a, "new"), (&a, &b, "newer"), (&b, &a, "newest")] {
            let old = if new == "new" {
                name
            } else if new == "newer" {
                "new"
            } else {
                "newer"
            };
            s.c.rename((from, old.as_bytes()), (to, new.as_bytes())).await.good();
            s.c.lookup(from, old.as_bytes()).await.fails(NfsStat3::NOENT);
            assert_eq!(s.c.lookup(to, new.as_bytes()).await.good().object, handle, "{name} as {new}");
        }
        let after = s.attr(&handle).await;
        assert_eq!(
            (after.fileid, after.size, after.nlink, after.mtime),
            (before.fileid, before.size, before.nlink, before.mtime)
        );
        s.c.rename((&a, b"newest"), (&b, name.as_bytes())).await.good();
    }
    assert!(names(&s.c, &a).await.is_empty());
    assert_eq!(names(&s.c, &b).await.len(), 4);
}

async fn both_directories_are_shown_before_and_after(s: Stage) {
    let (a, b) = (s.subdir("a").await, s.subdir("b").await);
    for i in 0..5 {
        let (old, new) = (format!("o{i}"), format!("n{i}"));
        create(&s.c, &a, &old, 0o644).await;
        let (a0, b0) = (s.attr(&a).await, s.attr(&b).await);
        let ok = s.c.rename((&a, old.as_bytes()), (&b, new.as_bytes())).await.good();
        let (a1, b1) = (s.attr(&a).await, s.attr(&b).await);
        true_wcc(ok.from_wcc, &a0, &a1);
        true_wcc(ok.to_wcc, &b0, &b1);
        assert!(a1.mtime > a0.mtime && b1.mtime > b0.mtime);
        let ok = s.c.rename((&b, new.as_bytes()), (&b, old.as_bytes())).await.good();
        let b2 = s.attr(&b).await;
        true_wcc(ok.from_wcc, &b1, &b2);
        true_wcc(ok.to_wcc, &b1, &b2);
    }
}

async fn a_file_over_a_file_replaces_it(s: Stage) {
    for (i, to_dir) in [s.dir, s.subdir("other").await].into_iter().enumerate() {
        let (old, new) = (format!("old{i}"), format!("new{i}"));
        let (from, over) = (s.file(&old).await, create(&s.c, &to_dir, &new, 0o644).await);
        s.c.write(&from, 0, b"from", StableHow::FileSync).await.good();
        s.c.write(&over, 0, &[1; 100_000], StableHow::FileSync).await.good();
        s.c.rename((&s.dir, old.as_bytes()), (&to_dir, new.as_bytes())).await.good();
        s.c.lookup(&s.dir, old.as_bytes()).await.fails(NfsStat3::NOENT);
        assert_eq!(s.c.lookup(&to_dir, new.as_bytes()).await.good().object, from);
        assert_eq!(read_all(&s.c, &from, 0, 100).await, b"from");
        s.c.getattr(&over).await.fails(NfsStat3::STALE);
    }
}

async fn a_file_over_a_linked_file_takes_one_name(s: Stage) {
    let (from, over) = (s.file("from").await, s.file("over").await);
    let other = s.subdir("d").await;
    s.c.link(&over, &other, b"kept").await.good();
    let before = s.attr(&over).await;
    s.c.rename((&s.dir, b"from"), (&s.dir, b"over")).await.good();
    let after = s.attr(&over).await;
    assert_eq!(after.nlink, 1);
    assert!(after.ctime > before.ctime);
    assert_eq!(s.c.lookup(&other, b"kept").await.good().object, over);
    assert_eq!(s.c.lookup(&s.dir, b"over").await.good().object, from);
}

async fn an_empty_directory_over_an_empty_one_replaces_it(s: Stage) {
    let (a, b) = (s.subdir("a").await, s.subdir("b").await);
    let (moved, over) = (mkdir(&s.c, &a, "x", 0o755).await, mkdir(&s.c, &b, "y", 0o755).await);
    create(&s.c, &moved, "inside", 0o644).await;
    s.c.rename((&a, b"x"), (&b, b"y")).await.good();
    s.c.getattr(&over).await.fails(NfsStat3::STALE);
    assert_eq!(s.c.lookup(&b, b"y").await.good().object, moved);
    assert_eq!(names(&s.c, &moved).await, [b"inside"]);
    assert_eq!((s.attr(&a).await.nlink, s.attr(&b).await.nlink), (2, 3));
}

/// §3.3.14 says EXIST, POSIX and every client either.
async fn a_directory_over_a_full_one_is_refused(s: Stage) {
    let (from, over) = (s.subdir("from").await, s.subdir("over").await);
    create(&s.c, &over, "inside", 0o644).await;
    let dir = s.attr(&s.dir).await;
    let refusals = [NfsStat3::EXIST, NfsStat3::NOTEMPTY];
    let fail = s.c.rename((&s.dir, b"from"), (&s.dir, b"over")).await.fails_with(&refusals);
    unchanged(fail.from_wcc, &dir);
    unchanged(fail.to_wcc, &dir);
    assert_eq!(s.c.lookup(&s.dir, b"from").await.good().object, from);
    assert_eq!(names(&s.c, &over).await, [b"inside"]);
}

async fn a_directory_over_a_file_is_notdir(s: Stage) {
    let (dir, file) = (s.subdir("d").await, s.file("f").await);
    s.c.rename((&s.dir, b"d"), (&s.dir, b"f")).await.fails_with(&[NfsStat3::NOTDIR, NfsStat3::EXIST]);
    assert_eq!(s.c.lookup(&s.dir, b"d").await.good().object, dir);
    assert_eq!(s.c.lookup(&s.dir, b"f").await.good().object, file);
}

async fn a_file_over_a_directory_is_isdir(s: Stage) {
    let (dir, file) = (s.subdir("d").await, s.file("f").await);
    s.c.rename((&s.dir, b"f"), (&s.dir, b"d")).await.fails_with(&[NfsStat3::ISDIR, NfsStat3::EXIST]);
    assert_eq!(s.c.lookup(&s.dir, b"d").await.good().object, dir);
    assert_eq!(s.c.lookup(&s.dir, b"f").await.good().object, file);
}

async fn onto_itself_nothing_happens(s: Stage) {
    for (name, handle) in of_each_kind(&s, &s.dir).await {
        s.c.rename((&s.dir, name.as_bytes()), (&s.dir, name.as_bytes())).await.good();
        assert_eq!(s.c.lookup(&s.dir, name.as_bytes()).await.good().object, handle);
    }
    assert_eq!(names(&s.c, &s.dir).await.len(), 4);
}

/// §3.3.14: if both names are hard links of one file, nothing is done, and that is a success.
async fn onto_another_name_of_itself_nothing_happens(s: Stage) {
    let (file, other) = (s.file("a").await, s.subdir("d").await);
    s.c.link(&file, &s.dir, b"b").await.good();
    s.c.link(&file, &other, b"c").await.good();
    s.c.rename((&s.dir, b"a"), (&s.dir, b"b")).await.good();
    s.c.rename((&s.dir, b"a"), (&other, b"c")).await.good();
    assert_eq!(s.attr(&file).await.nlink, 3);
    assert_eq!(names(&s.c, &s.dir).await, [&b"a"[..], b"b", b"d"]);
    assert_eq!(names(&s.c, &other).await, [b"c"]);
}

async fn a_missing_source_is_noent(s: Stage) {
    let (other, kept) = (s.subdir("d").await, s.file("kept").await);
    let dir = s.attr(&s.dir).await;
    let fail = s.c.rename((&s.dir, b"nothing"), (&s.dir, b"new")).await.fails(NfsStat3::NOENT);
    unchanged(fail.from_wcc, &dir);
    unchanged(fail.to_wcc, &dir);
    s.c.rename((&s.dir, b"nothing"), (&s.dir, b"kept")).await.fails(NfsStat3::NOENT);
    s.c.rename((&s.dir, b"nothing"), (&other, b"new")).await.fails(NfsStat3::NOENT);
    s.c.rename((&other, b"nothing"), (&s.dir, b"kept")).await.fails(NfsStat3::NOENT);
    assert_eq!(s.c.lookup(&s.dir, b"kept").await.good().object, kept);
    assert_eq!(s.attr(&s.dir).await, dir);
}

async fn dot_and_dotdot_are_refused(s: Stage) {
    let (sub, file) = (s.subdir("d").await, s.file("f").await);
    let before = s.attr(&s.dir).await;
    let refusals = [
        NfsStat3::INVAL,
        NfsStat3::EXIST,
        NfsStat3::PERM,
        NfsStat3::ACCES,
        NfsStat3::ISDIR,
        NfsStat3::NOTEMPTY,
    ];
    for dot in [&b"."[..], b".."] {
        s.c.rename((&sub, dot), (&s.dir, b"x")).await.fails_with(&refusals);
        s.c.rename((&s.dir, b"d"), (&s.dir, dot)).await.fails_with(&refusals);
        s.c.rename((&s.dir, b"f"), (&sub, dot)).await.fails_with(&refusals);
    }
    assert_eq!(s.attr(&s.dir).await, before);
    s.c.getattr(&file).await.good();
}

async fn a_directory_into_itself_is_inval(s: Stage) {
    let mut below = vec![s.subdir("d0").await];
    for i in 1..6 {
        below.push(mkdir(&s.c, below.last().unwrap(), &format!("d{i}"), 0o755).await);
    }
    for deep in &below {
        s.c.rename((&s.dir, b"d0"), (deep, b"loop")).await.fails(NfsStat3::INVAL);
    }
    s.c.rename((&below[0], b"d1"), (&below[4], b"loop")).await.fails(NfsStat3::INVAL);
    // Over an ancestor: not empty.
    let refusals = [NfsStat3::INVAL, NfsStat3::NOTEMPTY, NfsStat3::EXIST];
    s.c.rename((&below[2], b"d3"), (&s.dir, b"d0")).await.fails_with(&refusals);
    for (i, deep) in below.iter().enumerate().skip(1) {
        assert_eq!(s.c.lookup(&below[i - 1], format!("d{i}").as_bytes()).await.good().object, *deep);
        assert_eq!(s.c.lookup(deep, b"..").await.good().object, below[i - 1]);
    }
}

async fn a_moved_directory_knows_its_parent(s: Stage) {
    let (a, b) = (s.subdir("a").await, s.subdir("b").await);
    let sub = mkdir(&s.c, &a, "sub", 0o755).await;
    for (from, to) in [(&a, &b), (&b, &s.dir), (&s.dir, &a)] {
        s.c.rename((from, b"sub"), (to, b"sub")).await.good();
        assert_eq!(s.c.lookup(&sub, b"..").await.good().object, *to);
        let listed = slice_tests::wire::stage::list(&s.c, &sub, 4096).await;
        let dotdot = listed.iter().find(|e| e.name == b"..").unwrap();
        assert_eq!(dotdot.fileid, s.attr(to).await.fileid);
    }
    let counts = [s.attr(&a).await.nlink, s.attr(&b).await.nlink, s.attr(&s.dir).await.nlink];
    assert_eq!(counts, [3, 2, 4]);
}

async fn a_deep_tree_moves_whole(s: Stage) {
    let (top, other) = (s.subdir("top").await, s.subdir("other").await);
    let (mut deep, mut files) = (top, Vec::new());
    for i in 0..8 {
        files.push((deep, create(&s.c, &deep, "f", 0o644).await));
        deep = mkdir(&s.c, &deep, &format!("d{i}"), 0o755).await;
    }
    s.c.rename((&s.dir, b"top"), (&other, b"moved")).await.good();
    for (dir, file) in files {
        assert_eq!(s.c.lookup(&dir, b"f").await.good().object, file);
    }
    // And a tree may go back where it came from: the way up is another now.
    s.c.rename((&s.dir, b"other"), (&deep, b"x")).await.fails(NfsStat3::INVAL);
    s.c.rename((&other, b"moved"), (&s.dir, b"top")).await.good();
    s.c.rename((&s.dir, b"other"), (&deep, b"x")).await.good();
    assert_eq!(s.c.lookup(&other, b"..").await.good().object, deep);
}

async fn a_chain_of_renames_ends_where_it_should(s: Stage) {
    let dirs = [s.subdir("a").await, s.subdir("b").await, s.subdir("c").await];
    let file = create(&s.c, &dirs[0], "0", 0o644).await;
    let mut at = (0, "0".to_owned());
    for step in 1..40 {
        let to = ((step * 7) % 3, step.to_string());
        s.c.rename((&dirs[at.0], at.1.as_bytes()), (&dirs[to.0], to.1.as_bytes())).await.good();
        at = to;
    }
    assert_eq!(s.c.lookup(&dirs[at.0], at.1.as_bytes()).await.good().object, file);
    let mut left = 0;
    for dir in &dirs {
        left += names(&s.c, dir).await.len();
    }
    assert_eq!((left, s.attr(&file).await.nlink), (1, 1));
}
