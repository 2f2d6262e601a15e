//! CREATE, MKDIR, SYMLINK, MKNOD, READLINK (RFC 1813 §3.3.5, §3.3.8–3.3.11).

use slice_load::client::Fh;
use slice_proto::nfs3::{CreateHow, FType3, Fattr3, MknodWhat, NfsStat3, Res3, Sattr3, SpecData3, StableHow};
use slice_tests::wire::answer::{true_wcc, unchanged};
use slice_tests::wire::content::read_all;
use slice_tests::wire::stage::{names, size, times};
use slice_tests::wire::{Expect, Stage, is_one_of, mode};

crate::claims![
    create_makes_a_file_with_these_attributes,
    create_shows_the_directory_before_and_after,
    unchecked_takes_what_is_there,
    unchecked_with_a_size_cuts_what_is_there,
    guarded_says_exist,
    exclusive_knows_its_verifier_again,
    exclusive_keeps_all_eight_bytes,
    exclusive_after_setattr_still_says_exist_to_others,
    create_over_other_types_fails,
    create_in_a_file_is_notdir,
    create_of_dot_is_refused,
    mkdir_makes_a_directory,
    mkdir_says_exist,
    mkdir_counts_links,
    a_symlink_keeps_its_target,
    long_targets_live_and_longer_ones_do_not,
    readlink_of_no_link_is_inval,
    special_files_are_what_they_were_made,
    mknod_of_ordinary_types_is_badtype,
    fileids_and_handles_are_never_used_twice,
];

async fn made(s: &Stage, name: &[u8]) -> (Fh, Fattr3) {
    let found = s.c.lookup(&s.dir, name).await.good();
    (found.object, s.attr(&found.object).await)
}

async fn create_makes_a_file_with_these_attributes(s: Stage) {
    let attr = Sattr3 { mode: Some(0o6421), uid: Some(17), gid: Some(18), ..times(1000, 2000) };
    let made = s.c.create(&s.dir, b"f", CreateHow::Guarded(attr)).await.good();
    let got = made.attr.unwrap();
    assert_eq!(got, s.attr(&made.object.unwrap()).await);
    assert_eq!((got.ftype, got.mode, got.nlink, got.uid, got.gid), (FType3::Reg, 0o6421, 1, 17, 18));
    assert_eq!((got.size, got.atime.seconds, got.mtime.seconds), (0, 1000, 2000));
    assert!(got.ctime.seconds > 1_600_000_000);
    assert_eq!(got.fsid, s.attr(&s.root).await.fsid);
}

async fn create_shows_the_directory_before_and_after(s: Stage) {
    for name in [&b"a"[..], b"b", b"c", b"d", b"e"] {
        let before = s.attr(&s.dir).await;
        let made = s.c.create(&s.dir, name, CreateHow::Guarded(mode(0o644))).await.good();
        let after = s.attr(&s.dir).await;
        true_wcc(made.dir_wcc, &before, &after);
        assert!(after.mtime > before.mtime && after.ctime > before.ctime, "times of the directory advance");
        assert_eq!(after.nlink, before.nlink);
    }
}

async fn unchecked_takes_what_is_there(s: Stage) {
    let file = s.file("f").await;
    s.c.write(&file, 0, b"content", StableHow::FileSync).await.good();
    let made = s.c.create(&s.dir, b"f", CreateHow::Unchecked(Sattr3::default())).await.good();
    assert_eq!(made.object, Some(file));
    assert_eq!(read_all(&s.c, &file, 0, 100).await, b"content");
    let fresh = s.c.create(&s.dir, b"new", CreateHow::Unchecked(mode(0o640))).await.good();
    assert_eq!(fresh.attr.unwrap().mode, 0o640);
}

async fn unchecked_with_a_size_cuts_what_is_there(s: Stage) {
    let file = s.file("f").await;
    s.c.write(&file, 0, &[9; 200_000], StableHow::FileSync).await.good();
    let made = s.c.create(&s.dir, b"f", CreateHow::Unchecked(size(0))).await.good();
    assert_eq!(made.object, Some(file));
    assert_eq!(s.attr(&file).await.size, 0);
    assert_eq!(read_all(&s.c, &file, 0, 100).await, b"");
    // What was cut does not come back.
    s.c.setattr(&file, size(200_000), None).await.good();
    assert_eq!(read_all(&s.c, &file, 0, 200_000).await, vec![0; 200_000]);
}

async fn guarded_says_exist(s: Stage) {
    let file = s.file("f").await;
    let (before, dir) = (s.attr(&file).await, s.attr(&s.dir).await);
    let wcc = s.c.create(&s.dir, b"f", CreateHow::Guarded(mode(0o777))).await.fails(NfsStat3::EXIST);
    unchanged(wcc, &dir);
    assert_eq!(s.attr(&file).await, before);
}

/// §3.3.8: a retransmission, under another xid too, finds its file; another's verifier does not.
async fn exclusive_knows_its_verifier_again(s: Stage) {
    let verf = *b"verifier";
    let first = s.c.create(&s.dir, b"f", CreateHow::Exclusive(verf)).await.good();
    let file = first.object.unwrap();
    let again = s.c.create(&s.dir, b"f", CreateHow::Exclusive(verf)).await.good();
    assert_eq!(again.object, Some(file));
    let other = s.connect().await;
    assert_eq!(other.create(&s.dir, b"f", CreateHow::Exclusive(verf)).await.good().object, Some(file));
    let dir = s.attr(&s.dir).await;
    let wcc = s.c.create(&s.dir, b"f", CreateHow::Exclusive(*b"somebody")).await.fails(NfsStat3::EXIST);
    unchanged(wcc, &dir);
    assert_eq!(names(&s.c, &s.dir).await, [b"f"]);
    // A file that was not made exclusively has no verifier, not one of zeros either.
    s.file("plain").await;
    s.c.create(&s.dir, b"plain", CreateHow::Exclusive([0; 8])).await.fails(NfsStat3::EXIST);
    s.c.create(&s.dir, b"plain", CreateHow::Exclusive(verf)).await.fails(NfsStat3::EXIST);
}

async fn exclusive_keeps_all_eight_bytes(s: Stage) {
    let verf: [u8; 8] = [0xff, 1, 2, 3, 4, 5, 6, 7];
    s.c.create(&s.dir, b"f", CreateHow::Exclusive(verf)).await.good();
    for bit in 0..64 {
        let mut other = verf;
        other[bit / 8] ^= 1 << (bit % 8);
        s.c.create(&s.dir, b"f", CreateHow::Exclusive(other)).await.fails(NfsStat3::EXIST);
    }
    s.c.create(&s.dir, b"f", CreateHow::Exclusive(verf)).await.good();
}

async fn exclusive_after_setattr_still_says_exist_to_others(s: Stage) {
    let made = s.c.create(&s.dir, b"f", CreateHow::Exclusive([1; 8])).await.good();
    let file = made.object.unwrap();
    // What every client does next: the verifier may have stood in the times.
    s.c.setattr(&file, Sattr3 { mode: Some(0o600), ..times(5, 6) }, None).await.good();
    s.c.create(&s.dir, b"f", CreateHow::Exclusive([2; 8])).await.fails(NfsStat3::EXIST);
    s.c.create(&s.dir, b"f", CreateHow::Guarded(mode(0o600))).await.fails(NfsStat3::EXIST);
    let attr = s.attr(&file).await;
    assert_eq!((attr.mode, attr.atime.seconds, attr.mtime.seconds), (0o600, 5, 6));
}

async fn create_over_other_types_fails(s: Stage) {
    s.subdir("d").await;
    s.c.symlink(&s.dir, b"l", mode(0o777), b"d").await.good();
    for name in [&b"d"[..], b"l"] {
        s.c.create(&s.dir, name, CreateHow::Guarded(mode(0o600))).await.fails(NfsStat3::EXIST);
        s.c.create(&s.dir, name, CreateHow::Exclusive([1; 8])).await.fails(NfsStat3::EXIST);
        // Refused, or answered with what is there, as knfsd does; in no case is it changed.
        let before = made(&s, name).await;
        match s.c.create(&s.dir, name, CreateHow::Unchecked(size(0))).await.unwrap() {
            Res3::Ok(ok) => assert_eq!(ok.object, Some(before.0)),
            Res3::Err(status, _) => is_one_of(status, &[NfsStat3::EXIST, NfsStat3::ISDIR, NfsStat3::INVAL]),
        }
        assert_eq!(made(&s, name).await, before);
    }
}

async fn create_in_a_file_is_notdir(s: Stage) {
    let file = s.file("f").await;
    s.c.create(&file, b"x", CreateHow::Guarded(mode(0o600))).await.fails(NfsStat3::NOTDIR);
    s.c.mkdir(&file, b"x", mode(0o600)).await.fails(NfsStat3::NOTDIR);
    s.c.symlink(&file, b"x", mode(0o600), b"t").await.fails(NfsStat3::NOTDIR);
    s.c.mknod(&file, b"x", MknodWhat::Fifo(mode(0o600))).await.fails(NfsStat3::NOTDIR);
    s.c.remove(&file, b"x").await.fails(NfsStat3::NOTDIR);
    s.c.rmdir(&file, b"x").await.fails(NfsStat3::NOTDIR);
    s.c.link(&file, &file, b"x").await.fails(NfsStat3::NOTDIR);
    s.c.rename((&s.dir, b"f"), (&file, b"x")).await.fails(NfsStat3::NOTDIR);
    s.c.rename((&file, b"x"), (&s.dir, b"y")).await.fails(NfsStat3::NOTDIR);
}

async fn create_of_dot_is_refused(s: Stage) {
    let before = s.attr(&s.dir).await;
    let refusals = [NfsStat3::EXIST, NfsStat3::INVAL, NfsStat3::ACCES, NfsStat3::ISDIR];
    for name in [&b"."[..], b".."] {
        s.c.create(&s.dir, name, CreateHow::Guarded(mode(0o600))).await.fails_with(&refusals);
        s.c.create(&s.dir, name, CreateHow::Unchecked(size(0))).await.fails_with(&refusals);
        s.c.create(&s.dir, name, CreateHow::Exclusive([1; 8])).await.fails_with(&refusals);
        s.c.mkdir(&s.dir, name, mode(0o700)).await.fails_with(&refusals);
        s.c.symlink(&s.dir, name, mode(0o700), b"t").await.fails_with(&refusals);
        s.c.mknod(&s.dir, name, MknodWhat::Fifo(mode(0o700))).await.fails_with(&refusals);
    }
    assert_eq!(s.attr(&s.dir).await, before);
}

async fn mkdir_makes_a_directory(s: Stage) {
    for (i, bits) in [0o755, 0o700, 0o1777, 0o2770].into_iter().enumerate() {
        let before = s.attr(&s.dir).await;
        let name = format!("d{i}");
        let made = s.c.mkdir(&s.dir, name.as_bytes(), mode(bits)).await.good();
        let dir = made.object.unwrap();
        let attr = s.attr(&dir).await;
        true_wcc(made.dir_wcc, &before, &s.attr(&s.dir).await);
        assert_eq!(made.attr, Some(attr));
        assert_eq!((attr.ftype, attr.mode, attr.nlink), (FType3::Dir, bits, 2));
        assert!(names(&s.c, &dir).await.is_empty());
        assert_eq!(s.c.lookup(&dir, b"..").await.good().object, s.dir);
    }
}

async fn mkdir_says_exist(s: Stage) {
    s.subdir("d").await;
    s.file("f").await;
    for name in [&b"d"[..], b"f"] {
        let dir = s.attr(&s.dir).await;
        let wcc = s.c.mkdir(&s.dir, name, mode(0o700)).await.fails(NfsStat3::EXIST);
        unchanged(wcc, &dir);
        let wcc = s.c.symlink(&s.dir, name, mode(0o700), b"t").await.fails(NfsStat3::EXIST);
        unchanged(wcc, &dir);
        let wcc = s.c.mknod(&s.dir, name, MknodWhat::Fifo(mode(0o700))).await.fails(NfsStat3::EXIST);
        unchanged(wcc, &dir);
    }
}

/// DESIGN §6: link counts of directories are exact.
async fn mkdir_counts_links(s: Stage) {
    for i in 0..10 {
        assert_eq!(s.attr(&s.dir).await.nlink, 2 + i);
        s.subdir(&format!("d{i}")).await;
    }
    for i in (0..10).rev() {
        s.c.rmdir(&s.dir, format!("d{i}").as_bytes()).await.good();
        assert_eq!(s.attr(&s.dir).await.nlink, 2 + i);
    }
}

async fn a_symlink_keeps_its_target(s: Stage) {
    let targets: [&[u8]; 5] = [b"plain", b"/absolute/path", b"../up", b"\xff\xfe not utf-8", b"dangling//."];
    for (i, target) in targets.into_iter().enumerate() {
        let before = s.attr(&s.dir).await;
        let name = format!("l{i}");
        let made = s.c.symlink(&s.dir, name.as_bytes(), mode(0o777), target).await.good();
        true_wcc(made.dir_wcc, &before, &s.attr(&s.dir).await);
        let (link, attr) = self::made(&s, name.as_bytes()).await;
        assert_eq!((Some(link), Some(attr)), (made.object, made.attr));
        assert_eq!((attr.ftype, attr.size, attr.nlink), (FType3::Lnk, target.len() as u64, 1));
        let read = s.c.readlink(&link).await.good();
        assert_eq!(read.target, target);
        assert_eq!(read.attr, Some(attr));
    }
}

async fn long_targets_live_and_longer_ones_do_not(s: Stage) {
    for len in [1, 59, 60, 255, 1023, 1024, 4095] {
        let (name, target) = (format!("l{len}"), "t".repeat(len));
        let made = s.c.symlink(&s.dir, name.as_bytes(), mode(0o777), target.as_bytes()).await.good();
        assert_eq!(s.c.readlink(&made.object.unwrap()).await.good().target, target.as_bytes());
    }
    for len in [4097, 8000] {
        let target = vec![b't'; len];
        s.c.symlink(&s.dir, b"too-long", mode(0o777), &target).await.fails(NfsStat3::NAMETOOLONG);
    }
}

async fn readlink_of_no_link_is_inval(s: Stage) {
    let (file, dir) = (s.file("f").await, s.subdir("d").await);
    for (object, what) in [(file, "file"), (dir, "directory")] {
        let attr = s.c.readlink(&object).await.fails(NfsStat3::INVAL);
        assert_eq!(attr, Some(s.attr(&object).await), "of a {what}");
    }
    let link = s.c.symlink(&s.dir, b"l", mode(0o777), b"f").await.good().object.unwrap();
    s.c.remove(&s.dir, b"l").await.good();
    s.c.readlink(&link).await.fails(NfsStat3::STALE);
}

async fn special_files_are_what_they_were_made(s: Stage) {
    let dev = SpecData3 { major: 8, minor: 0x1234 };
    let all = [
        ("chr", MknodWhat::Chr(mode(0o640), dev), FType3::Chr, dev),
        ("blk", MknodWhat::Blk(mode(0o640), dev), FType3::Blk, dev),
        ("sock", MknodWhat::Sock(mode(0o640)), FType3::Sock, SpecData3::default()),
        ("fifo", MknodWhat::Fifo(mode(0o640)), FType3::Fifo, SpecData3::default()),
    ];
    for (name, what, ftype, rdev) in all {
        let before = s.attr(&s.dir).await;
        let made = s.c.mknod(&s.dir, name.as_bytes(), what).await.good();
        true_wcc(made.dir_wcc, &before, &s.attr(&s.dir).await);
        let (object, attr) = self::made(&s, name.as_bytes()).await;
        assert_eq!((made.object, made.attr), (Some(object), Some(attr)));
        assert_eq!((attr.ftype, attr.mode, attr.nlink, attr.size), (ftype, 0o640, 1, 0), "{name}");
        if [FType3::Chr, FType3::Blk].contains(&ftype) {
            assert_eq!(attr.rdev, rdev);
        }
        s.c.read(&object, 0, 10).await.fails(NfsStat3::INVAL);
        s.c.write(&object, 0, b"x", StableHow::FileSync).await.fails(NfsStat3::INVAL);
        s.c.link(&object, &s.dir, format!("{name}-2").as_bytes()).await.good();
        s.c.remove(&s.dir, name.as_bytes()).await.good();
        assert_eq!(s.attr(&object).await.nlink, 1);
    }
}

async fn mknod_of_ordinary_types_is_badtype(s: Stage) {
    for ftype in [FType3::Reg, FType3::Dir, FType3::Lnk] {
        let dir = s.attr(&s.dir).await;
        let wcc = s.c.mknod(&s.dir, b"n", MknodWhat::Other(ftype)).await.fails(NfsStat3::BADTYPE);
        unchanged(wcc, &dir);
    }
}

async fn fileids_and_handles_are_never_used_twice(s: Stage) {
    let mut seen = std::collections::HashSet::new();
    for _ in 0..30 {
        let file = s.file("f").await;
        assert!(seen.insert(s.attr(&file).await.fileid));
        s.c.remove(&s.dir, b"f").await.good();
        s.c.getattr(&file).await.fails(NfsStat3::STALE);
        let dir = s.subdir("f").await;
        assert!(seen.insert(s.attr(&dir).await.fileid));
        s.c.rmdir(&s.dir, b"f").await.good();
        s.c.getattr(&dir).await.fails(NfsStat3::STALE);
    }
}
