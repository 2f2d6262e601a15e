//! FSINFO, FSSTAT, PATHCONF (RFC 1813 §3.3.18–3.3.20): what they say holds.

use slice_load::client::Fh;
use slice_proto::nfs3::{NfsStat3, StableHow, fsf};
use slice_tests::wire::content::{MOST, pattern, read_all, write_all};
use slice_tests::wire::{Expect, Stage};

crate::claims![
    fsinfo_offers_a_mebibyte,
    what_fsinfo_offers_is_done_in_one_call,
    fsstat_adds_up,
    pathconf_is_truthful,
    a_handle_that_is_none_is_refused,
];

async fn fsinfo_offers_a_mebibyte(s: Stage) {
    let info = s.c.fsinfo(&s.root).await.good();
    assert_eq!((info.rtmax, info.wtmax), (1 << 20, 1 << 20));
    assert!(info.rtpref > 0 && info.rtpref <= info.rtmax && info.wtpref > 0 && info.wtpref <= info.wtmax);
    assert!(info.rtmult > 0 && info.wtmult > 0 && info.dtpref >= 4096);
    assert!(info.maxfilesize >= 1 << 40, "a terabyte is not too much: {}", info.maxfilesize);
    assert!(info.maxfilesize < 1 << 63, "what is past 2^63 no client can ask for");
    assert_eq!(info.time_delta.seconds, 0);
    assert!((1..=1_000_000).contains(&info.time_delta.nseconds));
    assert_eq!(info.properties, fsf::LINK | fsf::SYMLINK | fsf::HOMOGENEOUS | fsf::CANSETTIME);
}

async fn what_fsinfo_offers_is_done_in_one_call(s: Stage) {
    let file = s.file("f").await;
    let data = pattern(1, 0, MOST);
    let written = s.c.write(&file, 0, &data, StableHow::Unstable).await.good();
    assert_eq!(written.count as usize, MOST);
    let read = s.c.read(&file, 0, MOST as u32).await.good();
    assert!(read.data == data && read.eof);
}

async fn fsstat_adds_up(s: Stage) {
    let before = s.c.fsstat(&s.root).await.good();
    println!("{before:?}");
    assert!(before.tbytes > 0 && before.fbytes <= before.tbytes && before.abytes <= before.fbytes);
    assert!(before.abytes > 0, "there is space to work in");
    assert!(before.tfiles > 0 && before.ffiles <= before.tfiles && before.afiles <= before.ffiles);
    let file = s.file("f").await;
    write_all(&s.c, &file, 0, &pattern(1, 0, 100_000), StableHow::FileSync).await;
    s.c.fsstat(&file).await.good();
    assert_eq!(read_all(&s.c, &file, 0, 200_000).await.len(), 100_000);
}

async fn pathconf_is_truthful(s: Stage) {
    let conf = s.c.pathconf(&s.root).await.good();
    assert_eq!(conf.name_max, 255);
    assert!(conf.no_trunc && conf.chown_restricted && !conf.case_insensitive && conf.case_preserving);
    assert!(conf.linkmax > 1);
    assert_eq!(s.c.pathconf(&s.dir).await.good().name_max, 255);
    s.file("Case").await;
    s.c.lookup(&s.dir, b"case").await.fails(NfsStat3::NOENT);
    s.file("case").await;
}

async fn a_handle_that_is_none_is_refused(s: Stage) {
    for bytes in [&[][..], &[0; 8], &[7; 48], &[255; 64]] {
        let none = Fh::new(bytes);
        s.c.fsinfo(&none).await.fails(NfsStat3::BADHANDLE);
        s.c.fsstat(&none).await.fails(NfsStat3::BADHANDLE);
        s.c.pathconf(&none).await.fails(NfsStat3::BADHANDLE);
        s.c.getattr(&none).await.fails(NfsStat3::BADHANDLE);
    }
}
