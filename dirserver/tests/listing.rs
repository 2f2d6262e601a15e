//! READDIR and READDIRPLUS: counts, cookies, and scans while names come and go (I2).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::client::Listed;
use common::rng::Rng;
use common::{Client, Cluster, run};
use slice_proto::ids::FileId;
use slice_proto::nfs3::NfsStat3;
use slice_proto::table::NamePolicy;
use std::collections::{BTreeMap, BTreeSet};

const POLICIES: [NamePolicy; 3] =
    [NamePolicy::Partition, NamePolicy::MkdirSwitching { affinity_ppm: 500_000 }, NamePolicy::Hash];

/// Everything that the servers have of a directory, read page by page, `.` and `..` included.
async fn scan(client: &Client, dir: &[u8], plus: bool, count: u32) -> Vec<Listed> {
    let mut all = Vec::new();
    for server in client.servers_of(dir) {
        let mut cookie = 0;
        loop {
            let page = if plus {
                client.page(server, dir, cookie, count).await
            } else {
                client.plain_page(server, dir, cookie, count).await
            };
            let (entries, eof) = page.unwrap();
            assert!(!entries.is_empty() || eof);
            let cookies: Vec<_> = entries.iter().map(|e| e.cookie).collect();
            assert!(cookies.windows(2).all(|w| w[0] < w[1]) && cookies.first().is_none_or(|c| *c > cookie));
            cookie = cookies.last().copied().unwrap_or(cookie);
            all.extend(entries);
            if eof {
                break;
            }
        }
    }
    all
}

#[test]
fn every_count_lists_everything_once() {
    for policy in POLICIES {
        for servers in [1, 2] {
            run(async || {
                let c = Cluster::new(servers, policy).await;
                let root = Client::root(&c);
                let top = root.root_fh();
                let dir = root.mkdir(&top, b"dir", 0o755).await.unwrap();
                let mut want = BTreeMap::new();
                for i in 0..60 {
                    let name = format!("{i:0width$}", width = 1 + i * 4).into_bytes();
                    let fh = root.file(&dir, &name, 0o644).await.unwrap();
                    want.insert(name, root.open(&fh).file);
                }
                want.insert(b".".to_vec(), root.open(&dir).file);
                want.insert(b"..".to_vec(), root.open(&top).file);
                for count in [800, 1000, 4096, 1 << 20, u32::MAX] {
                    for plus in [false, true] {
                        let got = scan(&root, &dir, plus, count).await;
                        assert_eq!(got.len(), want.len());
                        let names: BTreeMap<Vec<u8>, FileId> =
                            got.iter().map(|e| (e.name.clone(), e.fileid)).collect();
                        assert_eq!(names, want);
                        for e in got.iter().filter(|e| e.attr.is_some()) {
                            assert_eq!(e.attr.unwrap().fileid, e.fileid);
                        }
                        if plus && servers == 1 {
                            assert!(got.iter().all(|e| e.attr.is_some()));
                        }
                        assert!(got.iter().all(|e| e.cookie < 1 << 63));
                    }
                }
            });
        }
    }
}

#[test]
fn what_fits_not_even_one_entry_is_too_small() {
    run(async || {
        let c = Cluster::new(1, NamePolicy::Partition).await;
        let root = Client::root(&c);
        let top = root.root_fh();
        let server = root.servers_of(&top)[0];
        let listed = root.plain_page(server, &top, 0, 100).await.map(|(e, _)| e.len());
        assert_eq!(listed, Err(NfsStat3::TOOSMALL));
        assert_eq!(root.page(server, &top, 0, 120).await.map(|_| ()), Err(NfsStat3::TOOSMALL));
        // Nothing is left: that fits anywhere.
        assert_eq!(root.plain_page(server, &top, u64::MAX >> 1, 120).await, Ok((vec![], true)));
    });
}

#[test]
fn a_scan_skips_and_repeats_nothing_that_is_there_throughout() {
    for policy in POLICIES {
        run(async || {
            let mut c = Cluster::new(2, policy).await;
            let root = Client::root(&c);
            let top = root.root_fh();
            let dir = root.mkdir(&top, b"dir", 0o755).await.unwrap();
            let seed = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
            println!("seed {seed}");
            let mut rng = Rng::new(u64::from(seed));
            let stays: BTreeSet<Vec<u8>> = (0..80).map(|i| format!("stays{i}").into_bytes()).collect();
            for name in &stays {
                root.file(&dir, name, 0o644).await.unwrap();
            }
            let mut goes: Vec<Vec<u8>> = Vec::new();
            let mut seen: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
            for server in root.servers_of(&dir) {
                let mut cookie = 0;
                for page in 0.. {
                    let (entries, eof) = root.page(server, &dir, cookie, 900).await.unwrap();
                    cookie = entries.last().map_or(cookie, |e| e.cookie);
                    for e in entries {
                        *seen.entry(e.name).or_default() += 1;
                    }
                    if eof {
                        break;
                    }
                    for _ in 0..4 {
                        let name = format!("goes{}", rng.next()).into_bytes();
                        root.file(&dir, &name, 0o644).await.unwrap();
                        goes.push(name);
                        if rng.next().is_multiple_of(2) {
                            let gone = goes.swap_remove(rng.index() % goes.len());
                            root.remove(&dir, &gone).await.unwrap();
                        }
                    }
                    if page == 7 {
                        c.restart(0).await;
                    }
                }
            }
            for name in &stays {
                assert_eq!(seen.get(name), Some(&1), "{}", String::from_utf8_lossy(name));
            }
            assert!(seen.values().all(|n| *n == 1));
        });
    }
}

#[test]
fn a_directory_that_may_not_be_read_is_not_listed() {
    run(async || {
        let c = Cluster::new(1, NamePolicy::Partition).await;
        let (root, user) = (Client::root(&c), Client::new(&c, 10, 20, &[]));
        let top = root.root_fh();
        let dir = root.mkdir(&top, b"dir", 0o711).await.unwrap();
        let file = root.file(&top, b"file", 0o644).await.unwrap();
        assert_eq!(user.list(&dir).await, Err(NfsStat3::ACCES));
        assert_eq!(user.list(&file).await, Err(NfsStat3::NOTDIR));
        root.rmdir(&top, b"dir").await.unwrap();
        assert_eq!(root.list(&dir).await, Err(NfsStat3::STALE));
    });
}

/// Pages are kept: what is listed is what is there all the same, at once and after every kind of change.
#[test]
fn what_was_listed_before_a_change_is_not_listed_after_it() {
    for policy in POLICIES {
        for servers in [1, 2] {
            run(async || {
                let c = Cluster::new(servers, policy).await;
                let root = Client::root(&c);
                let top = root.root_fh();
                let dir = root.mkdir(&top, b"dir", 0o755).await.unwrap();
                let other = root.mkdir(&top, b"other", 0o755).await.unwrap();
                let mut want = BTreeMap::new();
                for i in 0..40 {
                    let name = format!("file{i}").into_bytes();
                    let fh = root.file(&dir, &name, 0o600).await.unwrap();
                    want.insert(name, fh);
                }
                let seed = u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos());
                println!("seed {seed}");
                let mut rng = Rng::new(seed);
                let mut parent = top.clone();
                for step in 0..60 {
                    let name = want.keys().nth(rng.index() % want.len()).unwrap().clone();
                    let fh = want[&name].clone();
                    let fresh = format!("new{step}").into_bytes();
                    match step % 6 {
                        0 => root.chmod(&fh, 0o600 + step % 64).await.unwrap(),
                        1 => {
                            root.remove(&dir, &name).await.unwrap();
                            want.remove(&name);
                        }
                        2 => {
                            let made = root.file(&dir, &fresh, 0o600).await.unwrap();
                            want.insert(fresh, made);
                        }
                        3 => {
                            root.rename(&dir, &name, &dir, &fresh).await.unwrap();
                            want.remove(&name);
                            want.insert(fresh, fh);
                        }
                        4 => {
                            root.link(&fh, &dir, &fresh).await.unwrap();
                            want.insert(fresh, fh);
                        }
                        _ => {
                            let to = if parent == top { other.clone() } else { top.clone() };
                            root.rename(&parent, b"dir", &to, b"dir").await.unwrap();
                            parent = to;
                        }
                    }
                    // Twice: the second time as it was kept.
                    for plus in [true, true, false, false] {
                        let got = scan(&root, &dir, plus, 2000).await;
                        assert_eq!(got.len(), want.len() + 2, "step {step}");
                        for e in got {
                            let fh = match &e.name[..] {
                                b"." => &dir,
                                b".." => &parent,
                                name => &want[name],
                            };
                            assert_eq!(e.fileid, root.open(fh).file, "step {step}");
                            if let Some(attr) = e.attr {
                                assert_eq!(Ok(attr), root.getattr(fh).await, "step {step}");
                            }
                        }
                    }
                }
            });
        }
    }
}
