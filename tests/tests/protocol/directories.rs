//! READDIR and READDIRPLUS (RFC 1813 §3.3.16, §3.3.17; DESIGN §6, I2).

use std::collections::{HashMap, HashSet};

use futures_util::future::join_all;
use slice_load::client::{Fh, Listed};
use slice_proto::nfs3::{CookieVerf, FType3, NfsStat3, Proc3, ReaddirArgs, ReaddirplusArgs};
use slice_proto::rpc_msg::ReplyHeader;
use slice_tests::wire::stage::{create, list, list_plus, mkdir};
use slice_tests::wire::{Expect, Stage, mode};

crate::claims![
    an_empty_directory_has_dot_and_dotdot,
    every_entry_is_listed_once,
    every_count_lists_the_same,
    no_page_is_larger_than_asked,
    too_small_a_count_says_so,
    cookies_are_unique_and_small,
    cookies_stay_while_others_come_and_go,
    a_cookie_outlives_its_entry,
    a_scan_under_change_misses_nothing_that_stays,
    listing_on_from_the_end_is_the_end,
    readdirplus_shows_what_getattr_shows,
    readdirplus_honours_dircount,
    of_a_file_there_is_no_listing,
    of_a_removed_directory_there_is_no_listing,
    a_thousand_entries_are_listed,
];

const NO_VERF: CookieVerf = CookieVerf([0; 8]);
/// Bytes in which every entry of these tests fits.
const SMALL: u32 = 600;

/// Makes this many files, a few directories among them, and gives their names.
async fn filled(s: &Stage, count: usize) -> Vec<String> {
    let all: Vec<String> = (0..count).map(|i| format!("entry-{i}-{}", "x".repeat(i % 40))).collect();
    for chunk in all.chunks(32) {
        join_all(chunk.iter().map(async |name| {
            if name.len() % 7 == 0 {
                mkdir(&s.c, &s.dir, name, 0o755).await;
            } else {
                create(&s.c, &s.dir, name, 0o644).await;
            }
        }))
        .await;
    }
    all
}

fn sorted_names(listed: &[Listed]) -> Vec<String> {
    let text = |e: &Listed| String::from_utf8(e.name.clone()).unwrap();
    let mut all: Vec<_> = listed.iter().map(text).collect();
    all.sort();
    all
}

fn with_dots(mut names: Vec<String>) -> Vec<String> {
    names.extend([".".to_owned(), "..".to_owned()]);
    names.sort();
    names
}

async fn an_empty_directory_has_dot_and_dotdot(s: Stage) {
    let sub = s.subdir("d").await;
    let page = s.c.readdir(&sub, 0, NO_VERF, 4096).await.good();
    assert!(page.eof);
    assert_eq!(page.dir_attr, Some(s.attr(&sub).await));
    let found: Vec<_> = page.entries.iter().map(|e| (e.name.as_slice(), e.fileid)).collect();
    let (dot, dotdot) = (s.attr(&sub).await.fileid, s.attr(&s.dir).await.fileid);
    assert_eq!(found, [(&b"."[..], dot), (&b".."[..], dotdot)]);
    let plus = list_plus(&s.c, &sub, 8192).await;
    assert_eq!(sorted_names(&plus), [".", ".."]);
    let root = list(&s.c, &s.root, 4096).await;
    let id = s.attr(&s.root).await.fileid;
    for dot in root.iter().filter(|e| e.name == b"." || e.name == b"..") {
        assert_eq!(dot.fileid, id, "the root's parent is the root");
    }
}

async fn every_entry_is_listed_once(s: Stage) {
    let names = filled(&s, 150).await;
    let listed = list(&s.c, &s.dir, 4096).await;
    assert_eq!(sorted_names(&listed), with_dots(names));
    for entry in &listed {
        if entry.name != b"." && entry.name != b".." {
            let found = s.c.lookup(&s.dir, &entry.name).await.good();
            assert_eq!(s.attr(&found.object).await.fileid, entry.fileid);
        }
    }
}

async fn every_count_lists_the_same(s: Stage) {
    let want = with_dots(filled(&s, 70).await);
    for count in [SMALL, SMALL + 4, 1000, 2000, 8192, 65_536, 1 << 20] {
        assert_eq!(sorted_names(&list(&s.c, &s.dir, count).await), want, "READDIR by {count}");
        assert_eq!(sorted_names(&list_plus(&s.c, &s.dir, count).await), want, "READDIRPLUS by {count}");
    }
}

/// §3.3.16: count is the most bytes of READDIR3resok, all XDR overhead included.
async fn no_page_is_larger_than_asked(s: Stage) {
    filled(&s, 60).await;
    for count in [SMALL, 700, 1024, 2048] {
        let (mut cookie, mut plus_cookie) = (0, 0);
        for _ in 0..2 {
            let args = ReaddirArgs { dir: s.dir.as_slice(), cookie, verf: NO_VERF, count };
            let record = s.c.start(Proc3::Readdir, &args).await.unwrap();
            let resok = record.len() - ReplyHeader::decode(&record).unwrap().body_at - 4;
            assert!(resok <= count as usize, "READDIR of {count}: {resok} bytes");
            let args = ReaddirplusArgs {
                dir: s.dir.as_slice(),
                cookie: plus_cookie,
                verf: NO_VERF,
                dircount: count,
                maxcount: count,
            };
            let record = s.c.start(Proc3::Readdirplus, &args).await.unwrap();
            let resok = record.len() - ReplyHeader::decode(&record).unwrap().body_at - 4;
            assert!(resok <= count as usize, "READDIRPLUS of {count}: {resok} bytes");
            cookie = s.c.readdir(&s.dir, cookie, NO_VERF, count).await.good().entries.last().unwrap().cookie;
            let page = s.c.readdirplus(&s.dir, plus_cookie, NO_VERF, count, count).await.good();
            plus_cookie = page.entries.last().unwrap().cookie;
        }
    }
}

async fn too_small_a_count_says_so(s: Stage) {
    let long = "n".repeat(255);
    s.file(&long).await;
    let id = s.attr(&s.dir).await.fileid;
    for count in [0, 1, 8, 100] {
        let attr = s.c.readdir(&s.dir, 0, NO_VERF, count).await.fails(NfsStat3::TOOSMALL);
        assert!(attr.is_none_or(|attr| attr.fileid == id));
        s.c.readdirplus(&s.dir, 0, NO_VERF, count, count).await.fails(NfsStat3::TOOSMALL);
    }
    // `.` and `..` fit, the long name does not: never a page without entries that is not the last.
    let mut cookie = 0;
    let refused = loop {
        match s.c.readdir(&s.dir, cookie, NO_VERF, 200).await.unwrap() {
            slice_proto::nfs3::Res3::Ok(page) => {
                assert!(!page.eof && !page.entries.is_empty(), "{page:?}");
                cookie = page.entries.last().unwrap().cookie;
            }
            slice_proto::nfs3::Res3::Err(status, _) => break status,
        }
    };
    assert_eq!(refused, NfsStat3::TOOSMALL);
    assert_eq!(list(&s.c, &s.dir, SMALL).await.len(), 3);
}

/// DESIGN §6: below 2^63, never that of the start.
async fn cookies_are_unique_and_small(s: Stage) {
    filled(&s, 120).await;
    let listed = list(&s.c, &s.dir, 2000).await;
    let cookies: HashSet<u64> = listed.iter().map(|e| e.cookie).collect();
    assert_eq!(cookies.len(), listed.len());
    assert!(cookies.iter().all(|c| *c != 0 && *c < 1 << 63));
    let again: Vec<_> =
        list_plus(&s.c, &s.dir, 5000).await.iter().map(|e| (e.name.clone(), e.cookie)).collect();
    let first: Vec<_> = listed.iter().map(|e| (e.name.clone(), e.cookie)).collect();
    assert_eq!(again, first, "READDIR and READDIRPLUS agree");
}

async fn cookies_stay_while_others_come_and_go(s: Stage) {
    let names = filled(&s, 80).await;
    let cookies =
        |listed: Vec<Listed>| listed.into_iter().map(|e| (e.name, e.cookie)).collect::<HashMap<_, _>>();
    let before = cookies(list(&s.c, &s.dir, 4096).await);
    for name in names.iter().step_by(2).filter(|name| name.len() % 7 != 0) {
        s.c.remove(&s.dir, name.as_bytes()).await.good();
    }
    for i in 0..60 {
        s.file(&format!("another-{i}")).await;
    }
    let after = cookies(list(&s.c, &s.dir, 4096).await);
    for (name, cookie) in &before {
        if let Some(now) = after.get(name) {
            assert_eq!(now, cookie, "{:?}", String::from_utf8_lossy(name));
        }
    }
    // A name that is made again may stand elsewhere; the others may not move for it.
    s.c.remove(&s.dir, b"another-0").await.good();
    s.file("another-0").await;
    let again = cookies(list(&s.c, &s.dir, 4096).await);
    assert!(after.iter().filter(|(name, _)| *name != b"another-0").all(|(name, c)| again[name] == *c));
}

/// `rm -r` removes what it has listed and goes on from the last cookie.
async fn a_cookie_outlives_its_entry(s: Stage) {
    let names = filled(&s, 60).await;
    let (mut cookie, mut seen) = (0, Vec::new());
    loop {
        let page = s.c.readdir(&s.dir, cookie, NO_VERF, 900).await.good();
        for entry in &page.entries {
            if entry.name == b"." || entry.name == b".." {
                continue;
            }
            seen.push(String::from_utf8(entry.name.clone()).unwrap());
            if entry.name.len() % 7 == 0 {
                s.c.rmdir(&s.dir, &entry.name).await.good();
            } else {
                s.c.remove(&s.dir, &entry.name).await.good();
            }
        }
        if page.eof {
            break;
        }
        cookie = page.entries.last().unwrap().cookie;
    }
    seen.sort();
    let mut want = names;
    want.sort();
    assert_eq!(seen, want);
    assert_eq!(list(&s.c, &s.dir, 4096).await.len(), 2);
}

/// I2, with others changing the directory between every two pages.
async fn a_scan_under_change_misses_nothing_that_stays(s: Stage) {
    let stays = filled(&s, 100).await;
    for plus in [false, true] {
        let (mut cookie, mut seen, mut round) = (0, Vec::new(), 0);
        loop {
            let page = if plus {
                s.c.readdirplus(&s.dir, cookie, NO_VERF, 1500, 1500).await.good()
            } else {
                s.c.readdir(&s.dir, cookie, NO_VERF, 1500).await.good()
            };
            seen.extend(page.entries.iter().map(|e| String::from_utf8(e.name.clone()).unwrap()));
            if page.eof {
                break;
            }
            cookie = page.entries.last().unwrap().cookie;
            for i in 0..8 {
                let name = format!("passing-{plus}-{round}-{i}");
                s.file(&name).await;
                if i % 2 == 0 {
                    s.c.remove(&s.dir, name.as_bytes()).await.good();
                } else {
                    s.c.rename((&s.dir, name.as_bytes()), (&s.dir, format!("{name}-moved").as_bytes()))
                        .await
                        .good();
                }
            }
            round += 1;
            assert!(round < 1000, "the scan does not end");
        }
        let unique: HashSet<&String> = seen.iter().collect();
        assert_eq!(unique.len(), seen.len(), "something was listed twice");
        for name in &stays {
            assert!(unique.contains(name), "{name} was there all the time and was not listed");
        }
    }
}

async fn listing_on_from_the_end_is_the_end(s: Stage) {
    filled(&s, 20).await;
    let last = list(&s.c, &s.dir, 4096).await.last().unwrap().cookie;
    let page = s.c.readdir(&s.dir, last, NO_VERF, 4096).await.good();
    assert!(page.eof && page.entries.is_empty());
    let page = s.c.readdirplus(&s.dir, last, NO_VERF, 4096, 4096).await.good();
    assert!(page.eof && page.entries.is_empty());
    // A cookie of nobody's: an empty end, entries behind it, or a refusal; never a crash.
    for cookie in [3, 1 << 62, u64::MAX, 1 << 63] {
        match s.c.readdir(&s.dir, cookie, NO_VERF, 4096).await.unwrap() {
            slice_proto::nfs3::Res3::Ok(page) => assert!(page.entries.iter().all(|e| e.cookie > cookie)),
            slice_proto::nfs3::Res3::Err(status, _) => assert_eq!(status, NfsStat3::BAD_COOKIE),
        }
    }
}

async fn readdirplus_shows_what_getattr_shows(s: Stage) {
    filled(&s, 40).await;
    s.c.symlink(&s.dir, b"a-link", mode(0o777), b"somewhere").await.good();
    let listed = list_plus(&s.c, &s.dir, 4096).await;
    assert_eq!(listed.len(), 43);
    let mut with_attr = 0;
    for entry in &listed {
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        let handle: Fh = match (entry.handle, name.as_str()) {
            (Some(handle), _) => handle,
            (None, "." | "..") => continue,
            (None, _) => panic!("{name} without a handle"),
        };
        let attr = s.attr(&handle).await;
        assert_eq!(attr.fileid, entry.fileid, "{name}");
        if let Some(shown) = entry.attr {
            assert_eq!(shown, attr, "{name}");
            with_attr += 1;
        }
        if name != "." && name != ".." {
            assert_eq!(s.c.lookup(&s.dir, &entry.name).await.good().object, handle);
        }
    }
    // Attributes may be missing where another server has them, not everywhere.
    assert!(with_attr > 0);
    assert!(listed.iter().any(|e| e.attr.is_some_and(|a| a.ftype == FType3::Dir)));
}

/// §3.3.17: dircount bounds names and cookies. It is a hint to many servers: what must not happen is a scan that never ends.
async fn readdirplus_honours_dircount(s: Stage) {
    filled(&s, 30).await;
    for dircount in [1, 40, 100, 1000] {
        let (mut cookie, mut seen) = (0, 0);
        loop {
            match s.c.readdirplus(&s.dir, cookie, NO_VERF, dircount, 32_768).await.unwrap() {
                slice_proto::nfs3::Res3::Ok(page) => {
                    seen += page.entries.len();
                    if page.eof {
                        assert_eq!(seen, 32);
                        break;
                    }
                    cookie = page.entries.last().expect("an entry, or TOOSMALL").cookie;
                }
                slice_proto::nfs3::Res3::Err(status, _) => {
                    assert_eq!(status, NfsStat3::TOOSMALL);
                    assert!(dircount < 100, "every entry of these has room in {dircount}");
                    break;
                }
            }
        }
    }
}

async fn of_a_file_there_is_no_listing(s: Stage) {
    let file = s.file("f").await;
    s.c.readdir(&file, 0, NO_VERF, 4096).await.fails(NfsStat3::NOTDIR);
    s.c.readdirplus(&file, 0, NO_VERF, 4096, 4096).await.fails(NfsStat3::NOTDIR);
}

async fn of_a_removed_directory_there_is_no_listing(s: Stage) {
    let dir = s.subdir("d").await;
    s.c.rmdir(&s.dir, b"d").await.good();
    s.c.readdir(&dir, 0, NO_VERF, 4096).await.fails(NfsStat3::STALE);
    s.c.readdirplus(&dir, 0, NO_VERF, 4096, 4096).await.fails(NfsStat3::STALE);
}

async fn a_thousand_entries_are_listed(s: Stage) {
    let want = with_dots(filled(&s, 1000).await);
    assert_eq!(sorted_names(&list(&s.c, &s.dir, 32_768).await), want);
    assert_eq!(sorted_names(&list_plus(&s.c, &s.dir, 1 << 20).await), want);
    assert_eq!(sorted_names(&list_plus(&s.c, &s.dir, 8192).await), want);
}
