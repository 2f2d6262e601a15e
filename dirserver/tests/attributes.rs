//! Times, pushes, sizes and epochs (DESIGN §7, §8), and who may set what.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Client, Cluster, run};
use slice_proto::ids::{Epoch, TableEpoch};
use slice_proto::nfs3::{CreateHow, Fattr3, NfsStat3, NfsTime3, Sattr3, TimeHow};
use slice_proto::peer::PeerProc;
use slice_proto::peer::attrs::PushArgs;
use slice_proto::placement::THRESHOLD;
use slice_proto::table::NamePolicy;
use slice_proto::trailer::Stamp;
use slice_proto::xdr::{Decode, Reader};

fn times(atime: TimeHow, mtime: TimeHow) -> Sattr3 {
    Sattr3 { atime, mtime, ..Sattr3::default() }
}

fn at(seconds: u32) -> TimeHow {
    TimeHow::Client(NfsTime3 { seconds, nseconds: 5 })
}

fn push(stamp: Stamp, end: u64, ns: u64) -> PushArgs {
    PushArgs {
        table: TableEpoch(1),
        file: stamp.file,
        epoch: stamp.epoch,
        seq: stamp.seq,
        end,
        mtime_ns: ns,
        ctime_ns: ns,
        clear_set_ids: false,
    }
}

fn decoded(res: &slice_proto::peer::attrs::AttrRes) -> (Fattr3, Stamp) {
    let (bytes, stamp) = res.current.as_ref().unwrap();
    (Fattr3::decode(&mut Reader::new(bytes)).unwrap(), *stamp)
}

#[test]
fn every_change_moves_the_times_that_it_must() {
    for policy in [NamePolicy::Partition, NamePolicy::Hash] {
        run(async || {
            let c = Cluster::new(2, policy).await;
            let root = Client::root(&c);
            let top = root.root_fh();
            let mut dir = root.getattr(&top).await.unwrap();
            let f = root.file(&top, b"f", 0o644).await.unwrap();
            let mut moved = async |what: &str| {
                let now = root.getattr(&top).await.unwrap();
                assert!(now.mtime > dir.mtime && now.ctime > dir.ctime, "{what}");
                dir = now;
            };
            moved("create").await;
            root.link(&f, &top, b"g").await.unwrap();
            moved("link").await;
            root.rename(&top, b"g", &top, b"h").await.unwrap();
            moved("rename").await;
            root.remove(&top, b"h").await.unwrap();
            moved("remove").await;
            root.mkdir(&top, b"d", 0o755).await.unwrap();
            moved("mkdir").await;
            root.symlink(&top, b"l", b"t").await.unwrap();
            moved("symlink").await;
            root.rmdir(&top, b"d").await.unwrap();
            moved("rmdir").await;
            let before = root.getattr(&f).await.unwrap();
            root.link(&f, &top, b"i").await.unwrap();
            let linked = root.getattr(&f).await.unwrap();
            assert!(linked.ctime > before.ctime && linked.mtime == before.mtime);
            root.remove(&top, b"i").await.unwrap();
            let unlinked = root.getattr(&f).await.unwrap();
            assert!(unlinked.ctime > linked.ctime);
            root.rename(&top, b"f", &top, b"j").await.unwrap();
            let renamed = root.getattr(&f).await.unwrap();
            assert!(renamed.ctime > unlinked.ctime);
            root.chmod(&f, 0o600).await.unwrap();
            let changed = root.getattr(&f).await.unwrap();
            assert!(changed.ctime > renamed.ctime && changed.mtime == renamed.mtime);
            root.truncate(&f, 0).await.unwrap();
            let cut = root.getattr(&f).await.unwrap();
            assert!(cut.ctime > changed.ctime && cut.mtime > changed.mtime);
            c.settle().await;
        });
    }
}

#[test]
fn times_are_set_by_whom_they_may() {
    run(async || {
        let c = Cluster::new(1, NamePolicy::Partition).await;
        let (root, owner, other) =
            (Client::root(&c), Client::new(&c, 10, 10, &[]), Client::new(&c, 11, 11, &[]));
        let top = root.root_fh();
        let f = owner.file(&top, b"f", 0o666).await.unwrap();
        owner.setattr(&f, times(at(7), at(9)), None).await.unwrap();
        let a = owner.getattr(&f).await.unwrap();
        assert_eq!((a.atime.seconds, a.mtime.seconds, a.mtime.nseconds), (7, 9, 5));
        let refused = async |who: &Client, sattr| who.setattr(&f, sattr, None).await.map(|_| ());
        assert_eq!(refused(&other, times(at(1), at(1))).await, Err(NfsStat3::PERM));
        assert_eq!(refused(&other, times(TimeHow::ServerTime, TimeHow::ServerTime)).await, Ok(()));
        let one = times(TimeHow::ServerTime, TimeHow::DontChange);
        assert_eq!(refused(&other, one).await, Err(NfsStat3::PERM));
        owner.chmod(&f, 0o644).await.unwrap();
        let now = times(TimeHow::ServerTime, TimeHow::ServerTime);
        assert_eq!(refused(&other, now).await, Err(NfsStat3::ACCES));
        assert_eq!(
            refused(&other, Sattr3 { size: Some(1), ..Sattr3::default() }).await,
            Err(NfsStat3::ACCES)
        );
        assert_eq!(refused(&other, Sattr3 { mode: Some(0), ..Sattr3::default() }).await, Err(NfsStat3::PERM));
        let a = owner.getattr(&f).await.unwrap();
        let mode = Sattr3 { mode: Some(0o600), ..Sattr3::default() };
        let stale = NfsTime3 { seconds: a.ctime.seconds - 1, ..a.ctime };
        assert_eq!(owner.setattr(&f, mode, Some(stale)).await.map(|_| ()), Err(NfsStat3::NOT_SYNC));
        owner.setattr(&f, mode, Some(a.ctime)).await.unwrap();
    });
}

#[test]
fn set_ids_and_groups() {
    run(async || {
        let c = Cluster::new(1, NamePolicy::Partition).await;
        let (root, owner) = (Client::root(&c), Client::new(&c, 10, 20, &[30]));
        let top = root.root_fh();
        let mode = async |fh: &[u8]| root.getattr(fh).await.unwrap().mode;
        let f = owner.file(&top, b"f", 0o6755).await.unwrap();
        assert_eq!(mode(&f).await, 0o6755);
        let gid = |g| Sattr3 { gid: Some(g), ..Sattr3::default() };
        assert_eq!(owner.setattr(&f, gid(40), None).await.map(|_| ()), Err(NfsStat3::PERM));
        owner.setattr(&f, gid(30), None).await.unwrap();
        assert_eq!(mode(&f).await, 0o755, "a chown clears them");
        owner.chmod(&f, 0o6755).await.unwrap();
        root.setattr(&f, gid(40), None).await.unwrap();
        owner.chmod(&f, 0o6755).await.unwrap();
        assert_eq!(mode(&f).await, 0o4755, "set-group-id takes membership");
        let d = root.mkdir(&top, b"d", 0o2777).await.unwrap();
        root.setattr(&d, gid(50), None).await.unwrap();
        let made = owner.file(&d, b"f", 0o644).await.unwrap();
        assert_eq!(root.getattr(&made).await.unwrap().gid, 50);
        let sub = owner.mkdir(&d, b"d", 0o755).await.unwrap();
        let attr = root.getattr(&sub).await.unwrap();
        assert_eq!((attr.gid, attr.mode), (50, 0o2755));
        // A write by another than root clears them before its reply.
        let g = owner.file(&top, b"g", 0o6755).await.unwrap();
        let stamp = root.stamp(&g).await;
        let res = root.push(&PushArgs { clear_set_ids: true, ..push(stamp, 0, 0) }).await;
        assert_eq!(decoded(&res).0.mode, 0o755);
    });
}

#[test]
fn pushes_grow_files_and_late_ones_undo_nothing() {
    run(async || {
        let mut c = Cluster::new(1, NamePolicy::Partition).await;
        let root = Client::root(&c);
        let top = root.root_fh();
        let f = root.file(&top, b"f", 0o644).await.unwrap();
        let first = root.stamp(&f).await;
        assert_eq!((first.reach, first.epoch), (THRESHOLD, Epoch(1)));
        let now = root.getattr(&f).await.unwrap().ctime.as_ns() + 1_000_000;
        let (attr, _) = decoded(&root.push(&push(first, 4000, now)).await);
        assert_eq!((attr.size, attr.mtime.as_ns(), attr.ctime.as_ns()), (4000, now, now), "as it was shown");
        let (again, _) = decoded(&root.push(&push(first, 4000, now)).await);
        assert_eq!(again.ctime.as_ns(), now + 1, "it may be another's, stamped alike");
        assert_eq!(Fattr3 { ctime: attr.ctime, ..again }, attr, "but it moves nothing else");
        // utimes, then the late push of a write before it.
        root.setattr(&f, times(at(7), at(9)), None).await.unwrap();
        let (late, stamp) = decoded(&root.push(&push(first, 5000, now + 5)).await);
        assert_eq!((late.size, late.mtime.seconds), (5000, 9), "growth counts, the time does not");
        // A write after utimes.
        let (late, _) = decoded(&root.push(&push(stamp, 0, now + 10)).await);
        assert_eq!(late.mtime.as_ns(), now + 10);
        // A truncate, then the late push of a write before it.
        root.truncate(&f, 100).await.unwrap();
        let (late, cut) = decoded(&root.push(&push(first, 9000, 0)).await);
        assert_eq!((late.size, cut.epoch), (100, Epoch(2)));
        assert_eq!(c.fake.object(first.file).unwrap().epoch, Epoch(2));
        // Reach only rises, durably, and in its epoch.
        let (_, s) = decoded(&root.raise(&f, Epoch(1), 1 << 20).await);
        assert_eq!(s.reach, THRESHOLD);
        let (_, s) = decoded(&root.raise(&f, Epoch(2), 1 << 20).await);
        assert_eq!(s.reach, 1 << 20);
        c.restart(0).await;
        assert_eq!(root.stamp(&f).await, s);
        root.remove(&top, b"f").await.unwrap();
        let gone = root.push(&push(first, 9000, 0)).await;
        assert_eq!((gone.status, gone.current), (NfsStat3::STALE.0, None));
        c.settle().await;
        let o = c.fake.object(first.file).unwrap();
        assert!(o.tombstone && o.epoch == Epoch(3));
        assert!(c.fake.intents.lock().is_empty(), "completed");
        let calls = c.fake.calls.lock();
        assert!(calls.contains(&PeerProc::IntentLog), "beyond 64 KiB it takes an intention");
    });
}

#[test]
fn a_truncate_that_a_crash_interrupts_rolls_forward() {
    for (size, reach) in [(10, 0), (10, 4 << 20), (90_000, 0)] {
        run(async || {
            let mut c = Cluster::new(1, NamePolicy::Partition).await;
            let root = Client::root(&c);
            let top = root.root_fh();
            let f = root.file(&top, b"f", 0o644).await.unwrap();
            root.truncate(&f, 50_000).await.unwrap();
            if reach > 0 {
                root.raise(&f, Epoch(1), reach).await;
            }
            let id = root.open(&f).file;
            // The small-file server goes away for the while of a call.
            c.hide_data();
            let attr = Sattr3 { size: Some(size), ..Sattr3::default() };
            let args = slice_proto::nfs3::SetattrArgs { object: &f, attr, guard: None };
            let record = root.record(slice_proto::nfs3::Proc3::Setattr, &args);
            let server = root.servers_of(&top)[0];
            let reply = c.directory.channel(server).unwrap().call(record.into());
            tokio::pin!(reply);
            let early = tokio::time::timeout(std::time::Duration::from_millis(100), &mut reply).await;
            assert!(early.is_err(), "not before the data servers have done it");
            // Meanwhile a push waits.
            c.kill(0).await;
            c.show_data();
            c.start(0).await;
            assert_eq!(reply.await.unwrap()[24..28], [0; 4]);
            assert_eq!(root.getattr(&f).await.unwrap().size, size);
            let (object, stamp) = (c.fake.object(id).unwrap(), root.stamp(&f).await);
            assert_eq!((object.epoch, object.size), (stamp.epoch, size));
            c.settle().await;
            assert!(c.fake.intents.lock().is_empty());
        });
    }
}

#[test]
fn purges_survive_a_crash() {
    run(async || {
        let mut c = Cluster::new(1, NamePolicy::Partition).await;
        let root = Client::root(&c);
        let top = root.root_fh();
        let f = root.file(&top, b"f", 0o644).await.unwrap();
        let id = root.open(&f).file;
        c.hide_data();
        root.remove(&top, b"f").await.unwrap();
        c.restart(0).await;
        assert!(c.server(0).stats().unsettled > 0);
        c.show_data();
        c.settle().await;
        assert!(c.fake.object(id).unwrap().tombstone);
    });
}

#[test]
fn a_file_id_is_never_given_twice() {
    run(async || {
        let mut c = Cluster::new(2, NamePolicy::Hash).await;
        let root = Client::root(&c);
        let top = root.root_fh();
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..4 {
            for i in 0..10 {
                let name = format!("r{round}f{i}").into_bytes();
                let (fh, _) = root.create(&top, &name, CreateHow::Guarded(Sattr3::default())).await.unwrap();
                assert!(seen.insert(root.open(&fh).file));
                root.remove(&top, &name).await.unwrap();
            }
            c.restart(round % 2).await;
        }
    });
}
