//! What every engine must do, asked of both through the same `Store`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{Rng, open, stamp};
use slice_proto::ids::{EnsembleId, Role, ServerId};
use slice_store::{Batch, Direction, EngineKind, Error, KeyRange, Store, StoreStamp, read_stamp};
use std::collections::BTreeMap;
use std::ops::Bound;

fn both(test: impl Fn(EngineKind)) {
    for kind in EngineKind::ALL {
        println!("engine {kind}");
        test(kind);
    }
}

fn put(store: &Store, k: &[u8], v: &[u8]) {
    let mut b = Batch::new();
    b.put(k, v.to_vec());
    store.commit(b).unwrap().wait_blocking().unwrap();
}

fn keys(store: &Store, range: KeyRange, direction: Direction) -> Vec<Vec<u8>> {
    store.scan(range, direction, usize::MAX).unwrap().into_iter().map(|(k, _)| k.to_vec()).collect()
}

#[test]
fn what_is_submitted_shows_at_once_and_stays() {
    both(|kind| {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), kind);
        assert_eq!(store.get(b"a").unwrap(), None);
        let mut b = Batch::new();
        b.put(b"a", "1").put(b"b", "2").put(b"a", "3").delete(b"b");
        let ticket = store.submit(b).unwrap();
        assert_eq!(store.get(b"a").unwrap().unwrap(), "3");
        assert_eq!(store.get(b"b").unwrap(), None);
        assert_eq!(keys(&store, KeyRange::all(), Direction::Forward), [b"a"]);
        store.wait(ticket).wait_blocking().unwrap();
        assert!(store.durable() >= ticket);
        assert_eq!(store.get(b"a").unwrap().unwrap(), "3");
        drop(store);
        let store = open(dir.path(), kind);
        assert_eq!(store.get(b"a").unwrap().unwrap(), "3");
        assert_eq!(store.get(b"b").unwrap(), None);
        for bad in [vec![], vec![b'k'; 65_536]] {
            let mut b = Batch::new();
            b.put(b"fits", "x").put(bad, "x");
            assert!(matches!(store.submit(b), Err(Error::BadSize { .. })));
            assert_eq!(store.get(b"fits").unwrap(), None, "nothing of a refused batch");
        }
        assert_eq!(store.durable().0, 0, "tickets count from the opening");
        assert!(store.space().unwrap() > 0);
    });
}

#[test]
fn what_was_pending_is_durable_after_a_clean_close() {
    both(|kind| {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), kind);
        for i in 0..100u32 {
            let mut b = Batch::new();
            b.put(i.to_be_bytes(), "x");
            store.submit(b).unwrap();
        }
        drop(store);
        assert_eq!(keys(&open(dir.path(), kind), KeyRange::all(), Direction::Forward).len(), 100);
    });
}

#[test]
fn scans_are_ordered_and_bounded() {
    both(|kind| {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), kind);
        for k in [&b"a"[..], b"a\x00", b"a\xff", b"a\xff\xff", b"b", b"\xff", b"\xff\xff"] {
            put(&store, k, k);
        }
        let forward = |r| keys(&store, r, Direction::Forward);
        let backward = |r| keys(&store, r, Direction::Backward);
        assert_eq!(
            forward(KeyRange::all()),
            [&b"a"[..], b"a\x00", b"a\xff", b"a\xff\xff", b"b", b"\xff", b"\xff\xff"]
        );
        assert_eq!(forward(KeyRange::prefix(b"a")), [&b"a"[..], b"a\x00", b"a\xff", b"a\xff\xff"]);
        assert_eq!(backward(KeyRange::prefix(b"\xff")), [&b"\xff\xff"[..], b"\xff"]);
        assert_eq!(forward(KeyRange::prefix(b"c")), Vec::<Vec<u8>>::new());
        assert_eq!(forward(KeyRange::prefix_after(b"a", b"a\x00")), [&b"a\xff"[..], b"a\xff\xff"]);
        assert_eq!(forward(KeyRange::of::<[u8; 1]>((Bound::Excluded(b"a"), Bound::Included(b"b")))).len(), 4);
        assert_eq!(forward(KeyRange::of(b"b".as_slice()..b"a".as_slice())), Vec::<Vec<u8>>::new());
        let page = store.scan(KeyRange::prefix(b"a"), Direction::Backward, 2).unwrap();
        assert_eq!(page.iter().map(|(k, _)| &k[..]).collect::<Vec<_>>(), [&b"a\xff\xff"[..], b"a\xff"]);
        assert!(store.scan(KeyRange::all(), Direction::Forward, 0).unwrap().is_empty());
    });
}

/// Random batches, reads and scans against a map, with reopenings; scans run while batches are under way.
#[test]
fn it_is_an_ordered_map() {
    both(|kind| {
        let mut rng = Rng::new();
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path(), kind);
        let mut model = BTreeMap::<Vec<u8>, Vec<u8>>::new();
        for step in 0..2_000u32 {
            let mut b = Batch::new();
            for _ in 0..rng.below(5) {
                let k = rng.key();
                if rng.below(3) == 0 {
                    b.delete(&k);
                    model.remove(&k);
                } else {
                    let v = [&step.to_be_bytes()[..], &vec![7; rng.below(300)]].concat();
                    b.put(&k, v.clone());
                    model.insert(k, v);
                }
            }
            store.submit(b).unwrap();
            let k = rng.key();
            assert_eq!(store.get(&k).unwrap().as_deref(), model.get(&k).map(Vec::as_slice));
            if step % 10 == 0 {
                let (from, limit) = (rng.key(), rng.below(50));
                let direction = if rng.below(2) == 0 { Direction::Forward } else { Direction::Backward };
                let got = store.scan(KeyRange::of(from.as_slice()..), direction, limit).unwrap();
                let range = model.range(from..).map(|(k, v)| (k.clone(), v.clone()));
                let want: Vec<_> = match direction {
                    Direction::Forward => range.take(limit).collect(),
                    Direction::Backward => range.rev().take(limit).collect(),
                };
                assert!(got.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).eq(want));
            }
            if step % 500 == 499 {
                drop(store);
                store = open(dir.path(), kind);
            }
        }
    });
}

#[test]
fn many_threads_commit_together() {
    both(|kind| {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), kind);
        let threads: Vec<_> = (0..4u8)
            .map(|t| {
                let store = store.clone();
                std::thread::spawn(move || {
                    let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    let local = tokio::task::LocalSet::new();
                    local.block_on(&rt, async {
                        let tasks: Vec<_> = (0..64u8)
                            .map(|i| {
                                let store = store.clone();
                                tokio::task::spawn_local(async move {
                                    for n in 0..4u8 {
                                        let mut b = Batch::new();
                                        b.put([t, i, n, 0], "x").put([t, i, n, 1], "y");
                                        let done = store.commit(b).unwrap();
                                        let ticket = done.ticket();
                                        // Some give up waiting: the others must still be woken.
                                        if (i + n) % 7 == 0 {
                                            tokio::select! { biased; r = done => r.unwrap(), () = tokio::task::yield_now() => {} }
                                        } else {
                                            done.await.unwrap();
                                            assert!(store.durable() >= ticket);
                                        }
                                    }
                                })
                            })
                            .collect();
                        for task in tasks {
                            task.await.unwrap();
                        }
                    });
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(keys(&store, KeyRange::all(), Direction::Forward).len(), 4 * 64 * 4 * 2);
    });
}

#[test]
fn a_foreign_store_is_refused_with_a_sentence() {
    both(|kind| {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        assert!(matches!(Store::open(at, kind, stamp()), Err(Error::Absent { .. })));
        assert!(std::fs::read_dir(at).unwrap().next().is_none(), "a refused directory is left as it was");
        Store::format(at, kind, stamp()).unwrap();
        assert_eq!(read_stamp(at).unwrap(), (stamp(), kind));
        assert!(matches!(Store::format(at, kind, stamp()), Err(Error::Exists { .. })));
        let refused = |s: StoreStamp| Store::open(at, kind, s).map(|_| ()).unwrap_err();
        assert!(matches!(
            refused(StoreStamp { ensemble: EnsembleId(9), ..stamp() }),
            Error::OtherEnsemble { .. }
        ));
        assert!(matches!(refused(StoreStamp { server: ServerId(9), ..stamp() }), Error::OtherServer { .. }));
        assert!(matches!(refused(StoreStamp { role: Role::Block, ..stamp() }), Error::OtherRole { .. }));
        assert!(matches!(refused(StoreStamp { format: 0, ..stamp() }), Error::NewerFormat { .. }));
        let other = EngineKind::ALL.into_iter().find(|k| *k != kind).unwrap();
        assert!(matches!(Store::open(at, other, stamp()), Err(Error::OtherEngine { .. })));
        // A newer program opens it and learns that it is old.
        assert_eq!(Store::open(at, kind, StoreStamp { format: 5, ..stamp() }).unwrap().stamp().format, 1);
        // The data was taken away, or another server's was put there.
        let db = at.join("store/db");
        std::fs::rename(&db, at.join("away")).unwrap();
        assert!(matches!(Store::open(at, kind, stamp()), Err(Error::Absent { .. })));
        std::fs::create_dir(&db).unwrap();
        assert!(matches!(Store::open(at, kind, stamp()), Err(Error::Mixed { .. })));
        std::fs::remove_dir_all(&db).unwrap();
        let stranger = tempfile::tempdir().unwrap();
        Store::format(stranger.path(), kind, StoreStamp { server: ServerId(7), ..stamp() }).unwrap();
        std::fs::rename(stranger.path().join("store/db"), &db).unwrap();
        assert!(matches!(Store::open(at, kind, stamp()), Err(Error::Mixed { .. })));
        std::fs::write(at.join("store/stamp"), b"SLICEST1 and nonsense").unwrap();
        let sentence = Store::open(at, kind, stamp()).map(|_| ()).unwrap_err().to_string();
        assert!(sentence.contains("damaged"), "{sentence}");
    });
}

#[test]
fn one_process_has_it_open() {
    both(|kind| {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), kind);
        let refused = Store::open(dir.path(), kind, stamp()).map(|_| ()).unwrap_err();
        assert!(matches!(refused, Error::Locked { .. }), "{refused}");
        drop(store);
        Store::open(dir.path(), kind, stamp()).unwrap();
    });
}
