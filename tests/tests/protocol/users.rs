//! Who may do what: AUTH_SYS, permission bits, sticky and set-id bits (RFC 1813 §4.4; DESIGN §8).

use slice_load::Client;
use slice_load::client::Fh;
use slice_proto::nfs3::{
    CookieVerf, CreateHow, MknodWhat, NfsStat3, Sattr3, SpecData3, StableHow, TimeHow, access,
};
use slice_tests::wire::stage::{create, mkdir, owner, size, times};
use slice_tests::wire::{Expect, Stage, mode};

crate::claims![
    permission_bits_decide_reading_and_writing,
    the_owner_may_always_read_and_write,
    what_may_be_executed_may_be_read,
    access_agrees_with_what_is_done,
    a_directory_without_x_hides_its_names,
    a_directory_without_w_takes_no_change,
    a_directory_without_r_is_not_listed,
    sixteen_groups_count,
    a_new_object_belongs_to_its_maker,
    a_setgid_directory_gives_its_group_on,
    only_the_owner_changes_mode_and_times,
    only_root_gives_files_away,
    the_owner_may_change_to_his_groups,
    servers_time_may_be_set_by_who_may_write,
    truncation_needs_permission_to_write,
    sticky_directories_keep_what_is_others,
    set_id_bits_go_with_a_write,
    set_id_bits_go_with_a_new_owner,
    setgid_needs_the_group,
    only_root_makes_devices,
    auth_none_is_nobody,
];

const ACCES: NfsStat3 = NfsStat3::ACCES;
const PERM: NfsStat3 = NfsStat3::PERM;

const ALICE: (u32, u32) = (1000, 1000);
const BOB: (u32, u32) = (1001, 1001);
/// A group that some are in.
const TEAM: u32 = 500;

fn alice(s: &Stage) -> Client {
    s.as_user(ALICE.0, ALICE.1, &[])
}

fn bob(s: &Stage) -> Client {
    s.as_user(BOB.0, BOB.1, &[])
}

fn of_team(s: &Stage) -> Client {
    s.as_user(1002, 1002, &[7, TEAM, 9])
}

/// A file of alice's and the team's, with ten bytes in it and as many past 64 KiB.
async fn file_with(s: &Stage, name: &str, bits: u32) -> Fh {
    let file = s.file(name).await;
    s.c.write(&file, 0, b"0123456789", StableHow::FileSync).await.good();
    s.c.write(&file, 100_000, b"0123456789", StableHow::FileSync).await.good();
    s.c.setattr(&file, owner(ALICE.0, TEAM), None).await.good();
    s.c.setattr(&file, mode(bits), None).await.good();
    file
}

async fn may_read(c: &Client, file: &Fh) -> bool {
    let mut both = Vec::new();
    for offset in [0, 100_000] {
        let got = c.read(file, offset, 10).await;
        if got.stat() != NfsStat3::OK {
            got.clone().fails(ACCES);
        }
        both.push(got.stat() == NfsStat3::OK);
    }
    assert_eq!(both[0], both[1], "one rule for all of a file");
    both[0]
}

async fn may_write(c: &Client, file: &Fh) -> bool {
    let mut both = Vec::new();
    for offset in [0, 100_000] {
        let got = c.write(file, offset, b"9876543210", StableHow::FileSync).await;
        if got.stat() != NfsStat3::OK {
            got.clone().fails(ACCES);
        }
        both.push(got.stat() == NfsStat3::OK);
    }
    assert_eq!(both[0], both[1], "one rule for all of a file");
    both[0]
}

async fn permission_bits_decide_reading_and_writing(s: Stage) {
    for bits in [0o600, 0o640, 0o660, 0o604, 0o606, 0o666, 0o620, 0o602, 0o066] {
        let file = file_with(&s, &format!("f{bits:o}"), bits).await;
        for (who, class) in [(of_team(&s), 3), (bob(&s), 0)] {
            assert_eq!(
                may_read(&who, &file).await,
                bits >> class & 4 != 0,
                "reading, {bits:o}, class {class}"
            );
            assert_eq!(
                may_write(&who, &file).await,
                bits >> class & 2 != 0,
                "writing, {bits:o}, class {class}"
            );
        }
        assert!(may_read(&s.c, &file).await && may_write(&s.c, &file).await, "root may");
    }
}

/// An open file goes on working for its owner whatever chmod says later; NFS has no open files.
async fn the_owner_may_always_read_and_write(s: Stage) {
    let file = file_with(&s, "f", 0o000).await;
    assert!(may_read(&alice(&s), &file).await && may_write(&alice(&s), &file).await);
    assert_eq!(
        s.access(&alice(&s), &file).await & (access::READ | access::MODIFY),
        0,
        "ACCESS says what open(2) would"
    );
}

/// knfsd does so, and clients rely on it: they read programs to run them (RFC 1813 §4.4).
async fn what_may_be_executed_may_be_read(s: Stage) {
    let file = file_with(&s, "f", 0o711).await;
    for who in [of_team(&s), bob(&s)] {
        assert!(may_read(&who, &file).await);
        assert!(!may_write(&who, &file).await);
    }
}

async fn access_agrees_with_what_is_done(s: Stage) {
    for bits in [0o000, 0o700, 0o750, 0o755, 0o644, 0o620, 0o711, 0o604] {
        let file = file_with(&s, &format!("f{bits:o}"), bits).await;
        for (who, class) in [(alice(&s), 6), (of_team(&s), 3), (bob(&s), 0)] {
            let got = s.access(&who, &file).await;
            let rwx = bits >> class & 7;
            let has = |bit: u32| got & bit != 0;
            assert_eq!(has(access::READ), rwx & 4 != 0, "read {bits:o} {class}");
            assert_eq!(has(access::MODIFY), rwx & 2 != 0, "modify {bits:o} {class}");
            assert_eq!(has(access::EXTEND), rwx & 2 != 0, "extend {bits:o} {class}");
            assert_eq!(has(access::EXECUTE), rwx & 1 != 0, "execute {bits:o} {class}");
        }
        let dir = s.subdir(&format!("d{bits:o}")).await;
        s.c.setattr(&dir, Sattr3 { mode: Some(bits), ..owner(ALICE.0, TEAM) }, None).await.good();
        for (who, class) in [(alice(&s), 6), (of_team(&s), 3), (bob(&s), 0)] {
            let got = s.access(&who, &dir).await;
            let rwx = bits >> class & 7;
            assert_eq!(got & access::READ != 0, rwx & 4 != 0, "list {bits:o} {class}");
            assert_eq!(got & access::LOOKUP != 0, rwx & 1 != 0, "search {bits:o} {class}");
            assert_eq!(got & access::EXTEND != 0, rwx & 3 == 3, "add {bits:o} {class}");
        }
    }
}

async fn dir_with(s: &Stage, name: &str, bits: u32) -> Fh {
    let dir = s.subdir(name).await;
    create(&s.c, &dir, "inside", 0o666).await;
    mkdir(&s.c, &dir, "sub", 0o777).await;
    s.c.setattr(&dir, Sattr3 { mode: Some(bits), ..owner(ALICE.0, TEAM) }, None).await.good();
    dir
}

async fn a_directory_without_x_hides_its_names(s: Stage) {
    let dir = dir_with(&s, "d", 0o766).await;
    for who in [of_team(&s), bob(&s)] {
        who.lookup(&dir, b"inside").await.fails(ACCES);
        who.lookup(&dir, b"missing").await.fails(ACCES);
        who.create(&dir, b"new", CreateHow::Guarded(mode(0o644))).await.fails(ACCES);
        who.remove(&dir, b"inside").await.fails(ACCES);
        who.readdir(&dir, 0, CookieVerf::default(), 4096).await.good();
    }
    alice(&s).lookup(&dir, b"inside").await.good();
}

async fn a_directory_without_w_takes_no_change(s: Stage) {
    let dir = dir_with(&s, "d", 0o755).await;
    let other = s.subdir("open").await;
    s.c.setattr(&other, mode(0o777), None).await.good();
    let file = s.c.lookup(&dir, b"inside").await.good().object;
    let before = s.attr(&dir).await;
    let who = bob(&s);
    who.create(&dir, b"new", CreateHow::Guarded(mode(0o644))).await.fails(ACCES);
    who.create(&dir, b"new", CreateHow::Exclusive([1; 8])).await.fails(ACCES);
    who.mkdir(&dir, b"new", mode(0o755)).await.fails(ACCES);
    who.symlink(&dir, b"new", mode(0o777), b"t").await.fails(ACCES);
    who.mknod(&dir, b"new", MknodWhat::Fifo(mode(0o644))).await.fails(ACCES);
    who.link(&file, &dir, b"new").await.fails(ACCES);
    who.remove(&dir, b"inside").await.fails(ACCES);
    who.rmdir(&dir, b"sub").await.fails(ACCES);
    who.rename((&dir, b"inside"), (&other, b"x")).await.fails(ACCES);
    let mine = create(&who, &other, "mine", 0o644).await;
    who.rename((&other, b"mine"), (&dir, b"x")).await.fails(ACCES);
    who.getattr(&mine).await.good();
    assert_eq!(s.attr(&dir).await, before);
    who.lookup(&dir, b"inside").await.good();
}

async fn a_directory_without_r_is_not_listed(s: Stage) {
    let dir = dir_with(&s, "d", 0o711).await;
    bob(&s).readdir(&dir, 0, CookieVerf::default(), 4096).await.fails(ACCES);
    bob(&s).readdirplus(&dir, 0, CookieVerf::default(), 4096, 4096).await.fails(ACCES);
    bob(&s).lookup(&dir, b"inside").await.good();
}

async fn sixteen_groups_count(s: Stage) {
    let file = file_with(&s, "f", 0o660).await;
    let groups: Vec<u32> = (100..115).chain([TEAM]).collect();
    assert_eq!(groups.len(), 16);
    let member = s.as_user(2000, 2000, &groups);
    assert!(may_read(&member, &file).await && may_write(&member, &file).await);
    let stranger = s.as_user(2000, 2000, &groups[..15]);
    assert!(!may_read(&stranger, &file).await && !may_write(&stranger, &file).await);
    assert!(may_read(&s.as_user(2000, TEAM, &[]), &file).await, "the first group counts");
}

async fn a_new_object_belongs_to_its_maker(s: Stage) {
    let who = alice(&s);
    let file = create(&who, &s.dir, "f", 0o644).await;
    let dir = mkdir(&who, &s.dir, "d", 0o755).await;
    let link = who.symlink(&s.dir, b"l", mode(0o777), b"t").await.good().object.unwrap();
    let fifo = who.mknod(&s.dir, b"p", MknodWhat::Fifo(mode(0o644))).await.good().object.unwrap();
    let sock = who.mknod(&s.dir, b"s", MknodWhat::Sock(mode(0o644))).await.good().object.unwrap();
    let made = who.create(&s.dir, b"x", CreateHow::Exclusive([4; 8])).await.good().object.unwrap();
    for object in [file, dir, link, fifo, sock, made] {
        let attr = s.attr(&object).await;
        assert_eq!((attr.uid, attr.gid), ALICE);
    }
}

async fn a_setgid_directory_gives_its_group_on(s: Stage) {
    let dir = s.subdir("d").await;
    s.c.setattr(&dir, owner(ALICE.0, TEAM), None).await.good();
    s.c.setattr(&dir, mode(0o2777), None).await.good();
    let who = bob(&s);
    let file = create(&who, &dir, "f", 0o644).await;
    let sub = mkdir(&who, &dir, "sub", 0o755).await;
    assert_eq!((s.attr(&file).await.uid, s.attr(&file).await.gid), (BOB.0, TEAM));
    let attr = s.attr(&sub).await;
    assert_eq!((attr.uid, attr.gid, attr.mode), (BOB.0, TEAM, 0o2755), "and a directory the bit");
    let below = create(&who, &sub, "f", 0o644).await;
    assert_eq!(s.attr(&below).await.gid, TEAM);
}

async fn only_the_owner_changes_mode_and_times(s: Stage) {
    let file = file_with(&s, "f", 0o666).await;
    let dir = dir_with(&s, "d", 0o777).await;
    for object in [file, dir] {
        for who in [of_team(&s), bob(&s)] {
            who.setattr(&object, mode(0o600), None).await.fails(PERM);
            who.setattr(&object, times(1, 1), None).await.fails(PERM);
        }
        alice(&s).setattr(&object, mode(0o700), None).await.good();
        alice(&s).setattr(&object, times(1, 1), None).await.good();
        s.c.setattr(&object, mode(0o777), None).await.good();
    }
}

async fn only_root_gives_files_away(s: Stage) {
    let file = file_with(&s, "f", 0o666).await;
    for who in [alice(&s), bob(&s)] {
        who.setattr(&file, Sattr3 { uid: Some(BOB.0), ..Sattr3::default() }, None).await.fails(PERM);
        who.setattr(&file, Sattr3 { gid: Some(BOB.1), ..Sattr3::default() }, None).await.fails(PERM);
    }
    assert_eq!((s.attr(&file).await.uid, s.attr(&file).await.gid), (ALICE.0, TEAM));
    alice(&s).setattr(&file, owner(ALICE.0, TEAM), None).await.good();
    s.c.setattr(&file, owner(BOB.0, BOB.1), None).await.good();
    assert_eq!((s.attr(&file).await.uid, s.attr(&file).await.gid), BOB);
}

async fn the_owner_may_change_to_his_groups(s: Stage) {
    let file = create(&alice(&s), &s.dir, "f", 0o644).await;
    let gid = |gid| Sattr3 { gid: Some(gid), ..Sattr3::default() };
    let in_team = s.as_user(ALICE.0, ALICE.1, &[TEAM]);
    in_team.setattr(&file, gid(TEAM), None).await.good();
    assert_eq!(s.attr(&file).await.gid, TEAM);
    in_team.setattr(&file, gid(TEAM + 1), None).await.fails(PERM);
    of_team(&s).setattr(&file, gid(7), None).await.fails(PERM);
}

async fn servers_time_may_be_set_by_who_may_write(s: Stage) {
    let now = Sattr3 { atime: TimeHow::ServerTime, mtime: TimeHow::ServerTime, ..Sattr3::default() };
    let open = file_with(&s, "open", 0o666).await;
    bob(&s).setattr(&open, now, None).await.good();
    let shut = file_with(&s, "shut", 0o644).await;
    bob(&s).setattr(&shut, now, None).await.fails_with(&[ACCES, PERM]);
    alice(&s).setattr(&shut, now, None).await.good();
}

async fn truncation_needs_permission_to_write(s: Stage) {
    let file = file_with(&s, "f", 0o644).await;
    for to in [0, 5, 70_000, 1 << 20] {
        bob(&s).setattr(&file, size(to), None).await.fails(ACCES);
    }
    assert_eq!(s.attr(&file).await.size, 100_010);
    // CREATE of what is there, with a size, is a truncation.
    bob(&s).create(&s.dir, b"f", CreateHow::Unchecked(size(0))).await.fails(ACCES);
    assert_eq!(s.attr(&file).await.size, 100_010);
    alice(&s).setattr(&file, size(5), None).await.good();
    s.c.setattr(&file, mode(0o666), None).await.good();
    bob(&s).setattr(&file, size(3), None).await.good();
}

async fn sticky_directories_keep_what_is_others(s: Stage) {
    let dir = s.subdir("tmp").await;
    s.c.setattr(&dir, mode(0o1777), None).await.good();
    let plain = s.subdir("plain").await;
    s.c.setattr(&plain, mode(0o777), None).await.good();
    let (a, b) = (alice(&s), bob(&s));
    create(&a, &dir, "hers", 0o666).await;
    mkdir(&a, &dir, "her-dir", 0o777).await;
    create(&b, &dir, "his", 0o666).await;
    let refusals = [ACCES, PERM];
    b.remove(&dir, b"hers").await.fails_with(&refusals);
    b.rmdir(&dir, b"her-dir").await.fails_with(&refusals);
    b.rename((&dir, b"hers"), (&plain, b"taken")).await.fails_with(&refusals);
    b.rename((&dir, b"hers"), (&dir, b"renamed")).await.fails_with(&refusals);
    b.rename((&dir, b"his"), (&dir, b"hers")).await.fails_with(&refusals);
    a.rename((&dir, b"hers"), (&dir, b"still-hers")).await.good();
    a.remove(&dir, b"still-hers").await.good();
    a.rmdir(&dir, b"her-dir").await.good();
    s.c.remove(&dir, b"his").await.good();
    // The directory's owner may.
    let of_alice = mkdir(&a, &s.dir, "alices-tmp", 0o1777).await;
    s.c.setattr(&of_alice, mode(0o1777), None).await.good();
    create(&b, &of_alice, "his", 0o600).await;
    a.remove(&of_alice, b"his").await.good();
}

/// DESIGN §8: before its reply.
async fn set_id_bits_go_with_a_write(s: Stage) {
    for (i, offset) in [0, 100_000].into_iter().enumerate() {
        let file = file_with(&s, &format!("f{i}"), 0o6777).await;
        assert_eq!(s.attr(&file).await.mode, 0o6777);
        let ok = bob(&s).write(&file, offset, b"x", StableHow::Unstable).await.good();
        assert_eq!(ok.wcc.after.unwrap().mode & 0o6000, 0);
        assert_eq!(s.attr(&file).await.mode, 0o777);
        s.c.setattr(&file, mode(0o6777), None).await.good();
        bob(&s).setattr(&file, size(3), None).await.good();
        assert_eq!(s.attr(&file).await.mode & 0o6000, 0, "a truncation is a write");
        s.c.setattr(&file, mode(0o6777), None).await.good();
        s.c.write(&file, offset, b"x", StableHow::FileSync).await.good();
        assert_eq!(s.attr(&file).await.mode, 0o6777, "root's write leaves them");
    }
}

async fn set_id_bits_go_with_a_new_owner(s: Stage) {
    let file = create(&alice(&s), &s.dir, "f", 0o755).await;
    s.c.setattr(&file, mode(0o6755), None).await.good();
    let in_team = s.as_user(ALICE.0, ALICE.1, &[TEAM]);
    in_team.setattr(&file, Sattr3 { gid: Some(TEAM), ..Sattr3::default() }, None).await.good();
    assert_eq!(s.attr(&file).await.mode, 0o755);
}

async fn setgid_needs_the_group(s: Stage) {
    let file = create(&alice(&s), &s.dir, "f", 0o755).await;
    s.c.setattr(&file, owner(ALICE.0, TEAM), None).await.good();
    alice(&s).setattr(&file, mode(0o2755), None).await.good();
    assert_eq!(s.attr(&file).await.mode, 0o755, "the bit falls away (POSIX chmod)");
    s.as_user(ALICE.0, ALICE.1, &[TEAM]).setattr(&file, mode(0o2755), None).await.good();
    assert_eq!(s.attr(&file).await.mode, 0o2755);
}

async fn only_root_makes_devices(s: Stage) {
    let dev = SpecData3 { major: 1, minor: 3 };
    for what in [MknodWhat::Chr(mode(0o666), dev), MknodWhat::Blk(mode(0o666), dev)] {
        alice(&s).mknod(&s.dir, b"dev", what).await.fails_with(&[PERM, ACCES]);
    }
    alice(&s).mknod(&s.dir, b"fifo", MknodWhat::Fifo(mode(0o666))).await.good();
    alice(&s).mknod(&s.dir, b"sock", MknodWhat::Sock(mode(0o666))).await.good();
}

/// Either it is told that this flavor is not enough, or it may what strangers may.
async fn auth_none_is_nobody(s: Stage) {
    use slice_proto::nfs3::{Proc3, ReadArgs, ReadRes};
    use slice_proto::rpc_msg::{OpaqueAuth, ReplyStatus, auth_stat, program};
    let shut = file_with(&s, "shut", 0o600).await;
    let args = ReadArgs { file: shut.as_slice(), offset: 0, count: 10 };
    match s.c.conn().start(program::NFS, 3, Proc3::Read as u32, &OpaqueAuth::NONE, &args).reply().await {
        Ok(reply) => assert_eq!(reply.decode::<ReadRes<'_>>().unwrap().status(), ACCES),
        Err(slice_load::Error::Rpc(status)) => assert_eq!(status, ReplyStatus::AuthError(auth_stat::TOOWEAK)),
        Err(error) => panic!("{error}"),
    }
}
