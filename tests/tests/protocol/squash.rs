//! Exports as they are by default: root is nobody (DESIGN §12).

use slice_proto::nfs3::{CreateHow, MknodWhat, NfsStat3, Sattr3, SpecData3, StableHow};
use slice_tests::wire::stage::{create, owner, size};
use slice_tests::wire::{Expect, Stage, mode};

crate::claims![
    root_becomes_nobody,
    nobody_reads_no_others_secrets,
    nobody_is_no_superuser,
    others_stay_who_they_are,
    the_group_of_root_is_squashed_too,
];

const NOBODY: u32 = 65_534;

async fn root_becomes_nobody(s: Stage) {
    let file = s.file("f").await;
    let dir = s.subdir("d").await;
    for object in [file, dir, s.dir] {
        let attr = s.attr(&object).await;
        assert_eq!((attr.uid, attr.gid), (NOBODY, NOBODY));
    }
}

async fn nobody_reads_no_others_secrets(s: Stage) {
    let alice = s.as_user(1000, 1000, &[]);
    let secret = create(&alice, &s.dir, "secret", 0o600).await;
    alice.write(&secret, 0, b"secret", StableHow::FileSync).await.good();
    s.c.read(&secret, 0, 10).await.fails(NfsStat3::ACCES);
    s.c.write(&secret, 0, b"x", StableHow::FileSync).await.fails(NfsStat3::ACCES);
    s.c.setattr(&secret, size(0), None).await.fails(NfsStat3::ACCES);
    s.c.setattr(&secret, mode(0o666), None).await.fails(NfsStat3::PERM);
    assert_eq!(s.access(&s.c, &secret).await & 0x0d, 0);
    assert_eq!(alice.read(&secret, 0, 10).await.good().data, b"secret"[..]);
}

async fn nobody_is_no_superuser(s: Stage) {
    let file = s.file("f").await;
    s.c.setattr(&file, owner(0, 0), None).await.fails(NfsStat3::PERM);
    s.c.setattr(&file, owner(1000, 1000), None).await.fails(NfsStat3::PERM);
    let dev = MknodWhat::Chr(mode(0o666), SpecData3 { major: 1, minor: 3 });
    s.c.mknod(&s.dir, b"null", dev).await.fails_with(&[NfsStat3::PERM, NfsStat3::ACCES]);
    let alice = s.as_user(1000, 1000, &[]);
    let hers = alice.mkdir(&s.dir, b"hers", mode(0o700)).await.good().object.unwrap();
    s.c.create(&hers, b"x", CreateHow::Guarded(mode(0o644))).await.fails(NfsStat3::ACCES);
    s.c.lookup(&hers, b"x").await.fails(NfsStat3::ACCES);
}

async fn others_stay_who_they_are(s: Stage) {
    for uid in [1, 1000, 65_533, 4_000_000_000] {
        let who = s.as_user(uid, uid, &[]);
        let file = create(&who, &s.dir, &format!("f{uid}"), 0o600).await;
        assert_eq!((s.attr(&file).await.uid, s.attr(&file).await.gid), (uid, uid));
    }
}

async fn the_group_of_root_is_squashed_too(s: Stage) {
    let alice = s.as_user(1000, 0, &[]);
    let file = create(&alice, &s.dir, "f", 0o600).await;
    let attr = s.attr(&file).await;
    assert_eq!(attr.uid, 1000, "only root is another");
    let set = Sattr3 { gid: Some(0), ..Sattr3::default() };
    // Being in group 0 gives nothing to one whose root group is squashed; where it is not, it is his group.
    let member = s.as_user(1001, 1001, &[0]);
    let other = create(&member, &s.dir, "g", 0o600).await;
    let outcome = member.setattr(&other, set, None).await.stat();
    assert!([NfsStat3::OK, NfsStat3::PERM].contains(&outcome), "{outcome}");
}
