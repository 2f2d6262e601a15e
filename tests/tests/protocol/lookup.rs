//! LOOKUP, and names (RFC 1813 §3.3.3, §4.6).

use slice_proto::nfs3::{CreateHow, Fattr3, NfsStat3, PostOpAttr, Sattr3};
use slice_tests::wire::stage::{mkdir, names};
use slice_tests::wire::{Expect, Stage, mode};

crate::claims![
    a_name_is_found_and_what_is_shown_is_true,
    a_missing_name_is_noent_with_the_directory,
    in_a_file_nothing_is_found,
    dot_is_the_directory,
    dotdot_is_the_parent,
    the_roots_parent_is_the_root,
    in_a_removed_directory_all_is_stale,
    names_of_255_bytes_live,
    names_of_256_bytes_are_too_long,
    an_empty_name_is_refused,
    every_byte_but_two_may_be_in_a_name,
    a_slash_or_a_nul_may_not,
    names_that_differ_in_one_byte_differ,
];

/// Statuses for a name that cannot be: the RFC leaves the choice (§4.6).
const NO_NAME: [NfsStat3; 3] = [NfsStat3::INVAL, NfsStat3::ACCES, NfsStat3::NOENT];

async fn a_name_is_found_and_what_is_shown_is_true(s: Stage) {
    let file = s.file("f").await;
    let found = s.c.lookup(&s.dir, b"f").await.good();
    assert_eq!(found.object, file);
    shown(found.attr, s.attr(&file).await);
    shown(found.dir_attr, s.attr(&s.dir).await);
}

/// §3.3.3: attributes may be missing, where another server has them; they may not be wrong.
#[track_caller]
fn shown(attr: PostOpAttr, want: Fattr3) {
    if let Some(attr) = attr {
        assert_eq!(attr, want);
    }
}

async fn a_missing_name_is_noent_with_the_directory(s: Stage) {
    let dir_attr = s.c.lookup(&s.dir, b"missing").await.fails(NfsStat3::NOENT);
    shown(dir_attr, s.attr(&s.dir).await);
}

async fn in_a_file_nothing_is_found(s: Stage) {
    let file = s.file("f").await;
    for name in [&b"x"[..], b".", b".."] {
        s.c.lookup(&file, name).await.fails(NfsStat3::NOTDIR);
    }
    let link = s.c.symlink(&s.dir, b"l", mode(0o777), b"f").await.good().object.unwrap();
    s.c.lookup(&link, b"x").await.fails(NfsStat3::NOTDIR);
}

async fn dot_is_the_directory(s: Stage) {
    let found = s.c.lookup(&s.dir, b".").await.good();
    assert_eq!(found.object, s.dir);
    shown(found.attr, s.attr(&s.dir).await);
}

async fn dotdot_is_the_parent(s: Stage) {
    let mut parent = s.dir;
    for depth in 0..6 {
        let child = mkdir(&s.c, &parent, &format!("d{depth}"), 0o755).await;
        let found = s.c.lookup(&child, b"..").await.good();
        assert_eq!(found.object, parent, "at depth {depth}");
        if let Some(attr) = found.attr {
            assert_eq!(attr.fileid, s.attr(&parent).await.fileid);
        }
        parent = child;
    }
}

async fn the_roots_parent_is_the_root(s: Stage) {
    assert_eq!(s.c.lookup(&s.root, b"..").await.good().object, s.root);
    assert_eq!(s.c.lookup(&s.root, b".").await.good().object, s.root);
    assert_eq!(s.c.lookup(&s.dir, b"..").await.good().object, s.root);
}

async fn in_a_removed_directory_all_is_stale(s: Stage) {
    let gone = s.subdir("gone").await;
    s.c.rmdir(&s.dir, b"gone").await.good();
    for name in [&b"x"[..], b".", b".."] {
        s.c.lookup(&gone, name).await.fails_with(&[NfsStat3::STALE, NfsStat3::NOENT]);
    }
    s.c.getattr(&gone).await.fails(NfsStat3::STALE);
    s.c.create(&gone, b"x", CreateHow::Guarded(mode(0o644)))
        .await
        .fails_with(&[NfsStat3::STALE, NfsStat3::NOENT]);
    s.c.mkdir(&gone, b"x", mode(0o755)).await.fails_with(&[NfsStat3::STALE, NfsStat3::NOENT]);
}

async fn names_of_255_bytes_live(s: Stage) {
    let long = [b'n'; 255];
    let file = s.c.create(&s.dir, &long, CreateHow::Guarded(mode(0o600))).await.good().object.unwrap();
    assert_eq!(s.c.lookup(&s.dir, &long).await.good().object, file);
    assert_eq!(names(&s.c, &s.dir).await, [long.to_vec()]);
    let other = [b'm'; 255];
    s.c.rename((&s.dir, &long), (&s.dir, &other)).await.good();
    s.c.link(&file, &s.dir, &long).await.good();
    s.c.remove(&s.dir, &other).await.good();
    s.c.remove(&s.dir, &long).await.good();
    s.c.mkdir(&s.dir, &long, mode(0o700)).await.good();
    s.c.rmdir(&s.dir, &long).await.good();
}

async fn names_of_256_bytes_are_too_long(s: Stage) {
    const TOO_LONG: NfsStat3 = NfsStat3::NAMETOOLONG;
    let file = s.file("f").await;
    for len in [256, 257, 1000, 4096] {
        let name = vec![b'n'; len];
        let before = s.attr(&s.dir).await;
        s.c.lookup(&s.dir, &name).await.fails(TOO_LONG);
        s.c.create(&s.dir, &name, CreateHow::Guarded(mode(0o600))).await.fails(TOO_LONG);
        s.c.create(&s.dir, &name, CreateHow::Exclusive([1; 8])).await.fails(TOO_LONG);
        s.c.mkdir(&s.dir, &name, mode(0o700)).await.fails(TOO_LONG);
        s.c.symlink(&s.dir, &name, mode(0o777), b"t").await.fails(TOO_LONG);
        s.c.mknod(&s.dir, &name, slice_proto::nfs3::MknodWhat::Fifo(mode(0o600))).await.fails(TOO_LONG);
        s.c.remove(&s.dir, &name).await.fails(TOO_LONG);
        s.c.rmdir(&s.dir, &name).await.fails(TOO_LONG);
        s.c.rename((&s.dir, b"f"), (&s.dir, &name)).await.fails(TOO_LONG);
        s.c.rename((&s.dir, &name), (&s.dir, b"g")).await.fails(TOO_LONG);
        s.c.link(&file, &s.dir, &name).await.fails(TOO_LONG);
        assert_eq!(s.attr(&s.dir).await, before, "nothing has changed");
    }
}

async fn an_empty_name_is_refused(s: Stage) {
    let file = s.file("f").await;
    let before = s.attr(&s.dir).await;
    s.c.lookup(&s.dir, b"").await.fails_with(&NO_NAME);
    s.c.create(&s.dir, b"", CreateHow::Unchecked(Sattr3::default())).await.fails_with(&NO_NAME);
    s.c.mkdir(&s.dir, b"", mode(0o700)).await.fails_with(&NO_NAME);
    s.c.symlink(&s.dir, b"", mode(0o777), b"t").await.fails_with(&NO_NAME);
    s.c.remove(&s.dir, b"").await.fails_with(&NO_NAME);
    s.c.rmdir(&s.dir, b"").await.fails_with(&NO_NAME);
    s.c.rename((&s.dir, b"f"), (&s.dir, b"")).await.fails_with(&NO_NAME);
    s.c.rename((&s.dir, b""), (&s.dir, b"g")).await.fails_with(&NO_NAME);
    s.c.link(&file, &s.dir, b"").await.fails_with(&NO_NAME);
    assert_eq!(s.attr(&s.dir).await, before, "nothing has changed");
}

async fn every_byte_but_two_may_be_in_a_name(s: Stage) {
    let mut all: Vec<Vec<u8>> = (1..=255_u8).filter(|b| *b != b'/').map(|b| vec![b'<', b, b'>']).collect();
    all.extend((1..=255_u8).filter(|b| ![b'/', b'.'].contains(b)).map(|b| vec![b]));
    all.push(b"...".to_vec());
    all.push(b" . ".to_vec());
    let mut handles = Vec::new();
    for name in &all {
        let made = s.c.create(&s.dir, name, CreateHow::Guarded(mode(0o600))).await.good();
        handles.push(made.object.unwrap());
    }
    for (name, handle) in all.iter().zip(&handles) {
        assert_eq!(s.c.lookup(&s.dir, name).await.good().object, *handle, "{name:?}");
    }
    let mut sorted = all.clone();
    sorted.sort();
    assert_eq!(names(&s.c, &s.dir).await, sorted);
}

async fn a_slash_or_a_nul_may_not(s: Stage) {
    s.subdir("a").await;
    for name in [&b"a/b"[..], b"/", b"a/", b"/a", b"a\0b", b"\0"] {
        s.c.create(&s.dir, name, CreateHow::Guarded(mode(0o600))).await.fails_with(&NO_NAME);
        s.c.mkdir(&s.dir, name, mode(0o700)).await.fails_with(&NO_NAME);
        s.c.symlink(&s.dir, name, mode(0o777), b"t").await.fails_with(&NO_NAME);
        s.c.lookup(&s.dir, name).await.fails_with(&NO_NAME);
        s.c.rename((&s.dir, b"a"), (&s.dir, name)).await.fails_with(&NO_NAME);
    }
    assert_eq!(names(&s.c, &s.dir).await, [b"a"]);
}

async fn names_that_differ_in_one_byte_differ(s: Stage) {
    let (a, b) = ("x".repeat(254) + "a", "x".repeat(254) + "b");
    let (fa, fb) = (s.file(&a).await, s.file(&b).await);
    assert_ne!(fa, fb);
    s.c.remove(&s.dir, a.as_bytes()).await.good();
    assert_eq!(s.c.lookup(&s.dir, b.as_bytes()).await.good().object, fb);
    s.c.lookup(&s.dir, a.as_bytes()).await.fails(NfsStat3::NOENT);
}
