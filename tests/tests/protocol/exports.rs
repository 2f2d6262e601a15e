//! Exports that are not as by default: read-only, and everyone anonymous (DESIGN §12).

use slice_proto::nfs3::{CookieVerf, CreateHow, FType3, MknodWhat, NfsStat3, StableHow, access};
use slice_tests::wire::stage::{create, owner, size};
use slice_tests::wire::{Expect, Stage, mode};

crate::claims![READ_ONLY: nothing_is_changed, what_only_reads_works];
crate::claims![ANONYMOUS: everyone_is_the_anonymous_user];

async fn nothing_is_changed(s: Stage) {
    const ROFS: NfsStat3 = NfsStat3::ROFS;
    let before = s.attr(&s.root).await;
    for how in [CreateHow::Guarded(mode(0o644)), CreateHow::Unchecked(size(0)), CreateHow::Exclusive([1; 8])]
    {
        s.c.create(&s.root, b"f", how).await.fails(ROFS);
    }
    s.c.mkdir(&s.root, b"d", mode(0o755)).await.fails(ROFS);
    s.c.symlink(&s.root, b"l", mode(0o777), b"t").await.fails(ROFS);
    s.c.mknod(&s.root, b"p", MknodWhat::Fifo(mode(0o644))).await.fails(ROFS);
    s.c.setattr(&s.root, mode(0o700), None).await.fails(ROFS);
    s.c.remove(&s.root, b"f").await.fails(ROFS);
    s.c.rmdir(&s.root, b"d").await.fails(ROFS);
    s.c.rename((&s.root, b"a"), (&s.root, b"b")).await.fails(ROFS);
    s.c.link(&s.root, &s.root, b"b").await.fails(ROFS);
    // There is no file here to write to: the export's rule comes first, or the type of what is written to.
    let refusals = [ROFS, NfsStat3::ISDIR, NfsStat3::INVAL];
    s.c.write(&s.root, 0, b"x", StableHow::FileSync).await.fails_with(&refusals);
    assert_eq!(s.attr(&s.root).await, before);
}

async fn what_only_reads_works(s: Stage) {
    assert_eq!(s.attr(&s.root).await.ftype, FType3::Dir);
    s.c.lookup(&s.root, b"missing").await.fails(NfsStat3::NOENT);
    assert!(s.c.readdir(&s.root, 0, CookieVerf::default(), 4096).await.good().eof);
    assert_ne!(s.access(&s.c, &s.root).await & access::READ, 0);
    assert_eq!(s.access(&s.c, &s.root).await & (access::MODIFY | access::EXTEND | access::DELETE), 0);
    s.c.fsinfo(&s.root).await.good();
    s.c.fsstat(&s.root).await.good();
    s.c.pathconf(&s.root).await.good();
}

async fn everyone_is_the_anonymous_user(s: Stage) {
    for (i, who) in [s.c.clone(), s.as_user(1000, 1000, &[5]), s.as_user(77, 78, &[])].into_iter().enumerate()
    {
        let file = create(&who, &s.dir, &format!("f{i}"), 0o600).await;
        let attr = s.attr(&file).await;
        assert_eq!((attr.uid, attr.gid), (77, 78));
        // All are one, and none is root.
        s.c.write(&file, 0, b"x", StableHow::FileSync).await.good();
        s.as_user(2000, 2000, &[]).read(&file, 0, 10).await.good();
        s.c.setattr(&file, owner(1000, 1000), None).await.fails(NfsStat3::PERM);
    }
}
