//! Corner cases that the random tests meet seldom, by the manual page or RFC section that says what must come out.

use super::testing::{ROOT, World};
use super::{At, Op, Reply};
use slice_proto::ids::FileId;
use slice_proto::nfs3::{CreateHow, FType3, MknodWhat, NfsStat3, NfsTime3, Sattr3, SpecData3, TimeHow};
use slice_proto::rpc_msg::Cred;

const fn mode(mode: u32) -> Sattr3 {
    Sattr3 {
        mode: Some(mode),
        uid: None,
        gid: None,
        size: None,
        atime: TimeHow::DontChange,
        mtime: TimeHow::DontChange,
    }
}

fn at<'a>(w: &World, dir: FileId, name: &'a [u8]) -> At<'a> {
    At { dir: w.handle(dir), name }
}

fn create(w: &mut World, cred: Cred, dir: FileId, name: &[u8], m: u32) -> NfsStat3 {
    let op = Op::Create { at: at(w, dir, name), how: CreateHow::Guarded(mode(m)) };
    w.run(cred, &op).status
}

/// As [`create`], where it must succeed.
fn file(w: &mut World, cred: Cred, dir: FileId, name: &[u8], m: u32) -> FileId {
    assert_eq!(create(w, cred, dir, name, m), NfsStat3::OK);
    w.file(dir, name)
}

fn mkdir(w: &mut World, cred: Cred, dir: FileId, name: &[u8], m: u32) -> FileId {
    let op = Op::Mkdir { at: at(w, dir, name), attr: mode(m) };
    assert_eq!(w.run(cred, &op).status, NfsStat3::OK);
    w.file(dir, name)
}

fn rename(w: &mut World, cred: Cred, from: (FileId, &[u8]), to: (FileId, &[u8])) -> NfsStat3 {
    let op = Op::Rename { from: at(w, from.0, from.1), to: at(w, to.0, to.1) };
    w.run(cred, &op).status
}

fn remove(w: &mut World, cred: Cred, dir: FileId, name: &[u8]) -> NfsStat3 {
    let op = Op::Remove { at: at(w, dir, name) };
    w.run(cred, &op).status
}

fn rmdir(w: &mut World, cred: Cred, dir: FileId, name: &[u8]) -> NfsStat3 {
    let op = Op::Rmdir { at: at(w, dir, name) };
    w.run(cred, &op).status
}

/// RFC 1813 sections 3.3.8 to 3.3.15, and what Linux's VFS makes of `.` and `..`.
#[test]
fn dots_are_no_names() {
    let mut w = World::new();
    for name in [&b"."[..], b".."] {
        assert_eq!(create(&mut w, Cred::ROOT, ROOT, name, 0o644), NfsStat3::EXIST);
        assert_eq!(remove(&mut w, Cred::ROOT, ROOT, name), NfsStat3::ISDIR);
        assert_eq!(rename(&mut w, Cred::ROOT, (ROOT, name), (ROOT, b"x")), NfsStat3::INVAL);
        assert_eq!(rename(&mut w, Cred::ROOT, (ROOT, b"x"), (ROOT, name)), NfsStat3::INVAL);
    }
    assert_eq!(rmdir(&mut w, Cred::ROOT, ROOT, b"."), NfsStat3::INVAL);
    assert_eq!(rmdir(&mut w, Cred::ROOT, ROOT, b".."), NfsStat3::NOTEMPTY);
    assert_eq!(create(&mut w, Cred::ROOT, ROOT, &[b'x'; 256], 0o644), NfsStat3::NAMETOOLONG);
    assert_eq!(create(&mut w, Cred::ROOT, ROOT, &[b'x'; 255], 0o644), NfsStat3::OK);
    assert_eq!(create(&mut w, Cred::ROOT, ROOT, b"", 0o644), NfsStat3::INVAL);
}

/// mkdir(2), open(2): EEXIST comes before EACCES, EACCES for search before both.
#[test]
fn what_is_there_is_told_before_what_is_forbidden() {
    let mut w = World::new();
    let user = World::user(10, 10, &[]);
    let d = mkdir(&mut w, Cred::ROOT, ROOT, b"d", 0o755);
    file(&mut w, Cred::ROOT, d, b"f", 0o644);
    assert_eq!(create(&mut w, user, d, b"f", 0o644), NfsStat3::EXIST);
    assert_eq!(create(&mut w, user, d, b"g", 0o644), NfsStat3::ACCES);
    assert_eq!(remove(&mut w, user, d, b"g"), NfsStat3::NOENT);
    assert_eq!(remove(&mut w, user, d, b"f"), NfsStat3::ACCES);
    w.attrs.get_mut(&d).unwrap().mode = 0o700;
    assert_eq!(create(&mut w, user, d, b"f", 0o644), NfsStat3::ACCES);
    assert_eq!(remove(&mut w, user, d, b"g"), NfsStat3::ACCES);
}

/// unlink(2), rename(2): EPERM in a sticky directory for who owns neither it nor the file.
#[test]
fn sticky_directories() {
    let mut w = World::new();
    let (a, b) = (World::user(10, 10, &[]), World::user(11, 11, &[]));
    let d = mkdir(&mut w, Cred::ROOT, ROOT, b"d", 0o1777);
    for name in [&b"1"[..], b"2", b"3"] {
        assert_eq!(create(&mut w, a, d, name, 0o666), NfsStat3::OK);
    }
    assert_eq!(create(&mut w, b, d, b"own", 0o666), NfsStat3::OK);
    assert_eq!(remove(&mut w, b, d, b"1"), NfsStat3::PERM);
    assert_eq!(rename(&mut w, b, (d, b"1"), (d, b"x")), NfsStat3::PERM);
    assert_eq!(rename(&mut w, b, (d, b"own"), (d, b"1")), NfsStat3::PERM, "it takes the target away");
    assert_eq!(remove(&mut w, a, d, b"1"), NfsStat3::OK);
    w.attrs.get_mut(&d).unwrap().uid = 11;
    assert_eq!(remove(&mut w, b, d, b"2"), NfsStat3::OK, "the directory is the caller's");
    assert_eq!(remove(&mut w, Cred::ROOT, d, b"3"), NfsStat3::OK);
}

/// rename(2), every error that has to do with types and places.
#[test]
fn renames() {
    let mut w = World::new();
    let root = Cred::ROOT;
    let (a, b) = (mkdir(&mut w, root, ROOT, b"a", 0o755), mkdir(&mut w, root, ROOT, b"b", 0o755));
    let c = mkdir(&mut w, root, a, b"c", 0o755);
    file(&mut w, root, ROOT, b"f", 0o644);
    file(&mut w, root, b, b"g", 0o644);
    assert_eq!(rename(&mut w, root, (ROOT, b"none"), (ROOT, b"x")), NfsStat3::NOENT);
    assert_eq!(rename(&mut w, root, (ROOT, b"a"), (ROOT, b"f")), NfsStat3::NOTDIR);
    assert_eq!(rename(&mut w, root, (ROOT, b"f"), (ROOT, b"a")), NfsStat3::ISDIR);
    assert_eq!(rename(&mut w, root, (ROOT, b"a"), (ROOT, b"b")), NfsStat3::NOTEMPTY);
    assert_eq!(rename(&mut w, root, (ROOT, b"a"), (a, b"x")), NfsStat3::INVAL);
    assert_eq!(rename(&mut w, root, (ROOT, b"a"), (c, b"x")), NfsStat3::INVAL);
    assert_eq!(
        rename(&mut w, root, (a, b"c"), (ROOT, b"a")),
        NfsStat3::NOTEMPTY,
        "it lies in what it replaces"
    );
    assert_eq!(remove(&mut w, root, b, b"g"), NfsStat3::OK);
    let links = |w: &World, f: FileId| w.attrs[&f].nlink;
    assert_eq!((links(&w, ROOT), links(&w, a)), (4, 3));
    assert_eq!(rename(&mut w, root, (a, b"c"), (ROOT, b"b")), NfsStat3::OK, "over an empty directory");
    assert_eq!((links(&w, ROOT), links(&w, a)), (4, 2));
    assert!(!w.attrs.contains_key(&b));
    assert_eq!(w.attrs[&c].parent, ROOT);
    assert_eq!(w.attrs[&ROOT].entries, 3);
}

/// rename(2): EACCES where a directory changes its parent and may not be written.
#[test]
fn a_directory_that_moves_must_be_writable_for_its_dotdot() {
    let mut w = World::new();
    let user = World::user(10, 10, &[]);
    let (a, b) = (mkdir(&mut w, Cred::ROOT, ROOT, b"a", 0o777), mkdir(&mut w, Cred::ROOT, ROOT, b"b", 0o777));
    mkdir(&mut w, Cred::ROOT, a, b"theirs", 0o755);
    assert_eq!(rename(&mut w, user, (a, b"theirs"), (b, b"x")), NfsStat3::ACCES);
    assert_eq!(rename(&mut w, user, (a, b"theirs"), (a, b"x")), NfsStat3::OK, "its parent stays");
}

/// link(2).
#[test]
fn links() {
    let mut w = World::new();
    let d = mkdir(&mut w, Cred::ROOT, ROOT, b"d", 0o755);
    file(&mut w, Cred::ROOT, ROOT, b"f", 0o644);
    let f = w.file(ROOT, b"f");
    let mut link = |file, dir, name| {
        let op = Op::Link { file: w.handle(file), to: at(&w, dir, name) };
        w.run(Cred::ROOT, &op).status
    };
    assert_eq!(link(d, ROOT, b"x"), NfsStat3::PERM);
    assert_eq!(link(f, ROOT, b"d"), NfsStat3::EXIST);
    assert_eq!(link(f, f, b"x"), NfsStat3::NOTDIR);
    assert_eq!(link(f, d, b"x"), NfsStat3::OK);
    assert_eq!(link(FileId(77), d, b"y"), NfsStat3::STALE);
    w.attrs.get_mut(&f).unwrap().nlink = super::LINK_MAX;
    let op = Op::Link { file: w.handle(f), to: at(&w, d, b"y") };
    assert_eq!(w.run(Cred::ROOT, &op).status, NfsStat3::MLINK);
}

/// mknod(2): devices are root's to make; RFC 1813 section 3.3.11: BADTYPE for what is no special file.
#[test]
fn special_files() {
    let mut w = World::new();
    let user = World::user(10, 10, &[]);
    let rdev = SpecData3 { major: 8, minor: 1 };
    let mut mknod = |cred, name, what| {
        let op = Op::Mknod { at: at(&w, ROOT, name), what };
        w.run(cred, &op).status
    };
    assert_eq!(mknod(user, b"c", MknodWhat::Chr(mode(0o600), rdev)), NfsStat3::PERM);
    assert_eq!(mknod(user, b"p", MknodWhat::Fifo(mode(0o600))), NfsStat3::OK);
    assert_eq!(mknod(user, b"s", MknodWhat::Sock(mode(0o600))), NfsStat3::OK);
    assert_eq!(mknod(Cred::ROOT, b"r", MknodWhat::Other(FType3::Reg)), NfsStat3::BADTYPE);
    assert_eq!(mknod(Cred::ROOT, b"b", MknodWhat::Blk(mode(0o600), rdev)), NfsStat3::OK);
    assert_eq!(w.attrs[&w.file(ROOT, b"b")].rdev, rdev);
}

/// symlink(2).
#[test]
fn symlinks() {
    let mut w = World::new();
    let mut symlink = |name, target: &[u8]| {
        let op = Op::Symlink { at: at(&w, ROOT, name), attr: Sattr3::default(), target };
        w.run(Cred::ROOT, &op).status
    };
    assert_eq!(symlink(b"a", &[b'x'; 4095]), NfsStat3::OK);
    assert_eq!(symlink(b"b", &[b'x'; 4096]), NfsStat3::NAMETOOLONG);
    assert_eq!(symlink(b"b", b""), NfsStat3::INVAL);
    assert_eq!(symlink(b"a", b"x"), NfsStat3::EXIST);
}

/// chmod(2), chown(2), truncate(2).
#[test]
fn who_may_set_what() {
    let mut w = World::new();
    let (owner, other) = (World::user(10, 10, &[20]), World::user(11, 10, &[]));
    file(&mut w, owner, ROOT, b"f", 0o640);
    let f = w.file(ROOT, b"f");
    let mut set = |cred, attr: Sattr3| {
        let op = Op::Setattr { file: w.handle(f), attr, guard: None };
        w.run(cred, &op).status
    };
    assert_eq!(set(other, mode(0o777)), NfsStat3::PERM);
    let chown = |uid, gid| Sattr3 { uid, gid, ..Sattr3::default() };
    assert_eq!(set(other, chown(Some(10), None)), NfsStat3::PERM, "though nothing would change");
    assert_eq!(set(owner, chown(Some(10), Some(20))), NfsStat3::OK);
    assert_eq!(set(owner, chown(Some(11), None)), NfsStat3::PERM);
    assert_eq!(set(owner, chown(None, Some(30))), NfsStat3::PERM);
    let size = |s| Sattr3 { size: Some(s), ..Sattr3::default() };
    assert_eq!(set(other, size(0)), NfsStat3::ACCES);
    assert_eq!(set(owner, mode(0)), NfsStat3::OK);
    assert_eq!(set(owner, size(0)), NfsStat3::OK, "the owner may have opened it before");
    assert_eq!(set(owner, size(u64::MAX)), NfsStat3::FBIG);
    let op = Op::Setattr { file: w.handle(ROOT), attr: size(0), guard: None };
    assert_eq!(w.run(Cred::ROOT, &op).status, NfsStat3::ISDIR);
}

/// open(2) with O_TRUNC by one who may write: mtime comes along and is nobody else's business.
#[test]
fn a_writer_truncates_with_its_time() {
    let mut w = World::new();
    let other = World::user(11, 11, &[]);
    file(&mut w, World::user(10, 10, &[]), ROOT, b"f", 0o666);
    let f = w.file(ROOT, b"f");
    let attr = Sattr3 { size: Some(0), mtime: TimeHow::ServerTime, ..Sattr3::default() };
    let op = Op::Setattr { file: w.handle(f), attr, guard: None };
    let out = w.run(other, &op);
    assert_eq!((out.status, out.resize), (NfsStat3::OK, Some((f, 0))));
    let given = TimeHow::Client(NfsTime3 { seconds: 1, nseconds: 0 });
    let attr = Sattr3 { size: Some(0), mtime: given, ..Sattr3::default() };
    let op = Op::Setattr { file: w.handle(f), attr, guard: None };
    assert_eq!(w.run(other, &op).status, NfsStat3::PERM);
}

/// RFC 1813 section 3.3.8.
#[test]
fn create_finds_what_is_there() {
    let mut w = World::new();
    let d = mkdir(&mut w, Cred::ROOT, ROOT, b"d", 0o755);
    file(&mut w, Cred::ROOT, ROOT, b"f", 0o600);
    let f = w.file(ROOT, b"f");
    let mut unchecked = |name, attr| {
        let op = Op::Create { at: at(&w, ROOT, name), how: CreateHow::Unchecked(attr) };
        w.run(Cred::ROOT, &op)
    };
    let found = unchecked(b"f", mode(0o777));
    assert!(matches!(found.reply, Reply::Made { object, .. } if object.file == f));
    assert!(
        found.changes.is_empty() && found.resize.is_none(),
        "of a file that is there only the size is set"
    );
    assert_eq!(unchecked(b"d", mode(0o777)).status, NfsStat3::ISDIR);
    assert_eq!(w.attrs[&d].nlink, 2);
}
