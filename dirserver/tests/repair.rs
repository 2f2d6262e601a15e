//! INSPECT and REPAIR: a repair compares with what was seen, and sets; or is void.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use bytes::Bytes;
use common::cluster::ME;
use common::fake::{Object, When};
use common::{Client, Cluster, run};
use slice_proto::ids::{Epoch, FileId, ServerId, Site, TableEpoch, VolumeId};
use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::dir::{Child, DropArgs, HoldArgs, HoldKey, HoldMode, HoldPart, HoldRes, OpId};
use slice_proto::peer::repair::{
    CountsRepair, Held, InspectArgs, InspectRes, MakeRepair, NameRepair, Repair, RepairArgs, RepairRes, Seen,
    SizeRepair,
};
use slice_proto::peer::{PeerProc, PrivateStatus};
use slice_proto::placement::{entry_site, name_hash};
use slice_proto::table::NamePolicy;

const TABLE: TableEpoch = TableEpoch(1);
/// Done, void, and refused by a hold.
const DONE: (u32, bool) = (0, true);
const VOID: (u32, bool) = (0, false);
const RETRY: (u32, bool) = (PrivateStatus::Retry as u32, false);

/// Who repairs.
struct Admin(Client);

impl Admin {
    fn of(c: &Cluster) -> Self {
        Self(Client::of(&c.admin(), 0, 0, &[]))
    }

    async fn inspect(&self, file: FileId) -> InspectRes {
        let args = InspectArgs { table: TABLE, file };
        self.0.private(self.0.owner(file.home()), PeerProc::Inspect, &args).await
    }

    /// Once the server, which may have just started, tells.
    async fn seen(&self, file: FileId) -> Seen {
        loop {
            let res = self.inspect(file).await;
            if res.status != PrivateStatus::Retry as u32 {
                return res.seen.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    async fn at(&self, server: ServerId, repair: Repair) -> (u32, bool) {
        let res: RepairRes =
            self.0.private(server, PeerProc::Repair, &RepairArgs { table: TABLE, repair }).await;
        (res.status, res.done)
    }

    async fn counts(&self, seen: &Seen, nlink: u32) -> (u32, bool) {
        let Seen { attr, .. } = seen;
        let counts = CountsRepair { seen: seen.clone(), nlink, entries: attr.entries, parent: attr.parent };
        self.at(self.0.owner(attr.file.home()), Repair::Counts(counts)).await
    }

    async fn name(&self, dir: FileId, name: &str, from: Option<FileId>, to: Option<Child>) -> (u32, bool) {
        let server = self.0.owner(entry_site(self.0.volume(), dir, name.as_bytes()));
        let name = Bytes::copy_from_slice(name.as_bytes());
        self.at(server, Repair::Name(NameRepair { volume: VolumeId(0), dir, name, from, to })).await
    }

    async fn size(&self, seen: &Seen, past: u64, small: u64) -> (u32, bool) {
        let held = Held { small, beyond: false, end: 0 };
        let size = SizeRepair { seen: seen.clone(), past: Epoch(past), reach: 0, held };
        self.at(self.0.owner(seen.attr.file.home()), Repair::Size(size)).await
    }
}

/// A hold of an operation of a server that only this test plays; and its end.
async fn held<T>(client: &Client, key: HoldKey, meanwhile: impl AsyncFnOnce() -> T) -> T {
    let op = OpId { sender: ME, seq: (2 << OpId::COUNT_BITS) + 1 };
    let args = HoldArgs { table: TABLE, op, settled: 0, key, mode: HoldMode::Wait, share: false };
    let server = client.owner(key.site);
    let res: HoldRes = client.private(server, PeerProc::Hold, &args).await;
    assert_eq!(res.status, 0);
    let got = meanwhile().await;
    let _: u32 = client.private(server, PeerProc::Drop, &DropArgs { op, durable: true }).await;
    got
}

#[test]
fn counts_are_set_once_and_only_if_nothing_changed() {
    run(async || {
        let mut c = Cluster::new(2, NamePolicy::Hash).await;
        let (client, admin) = (Client::root(&c), Admin::of(&c));
        let fh = client.file(&client.root_fh(), b"f", 0o644).await.unwrap();
        let file = client.open(&fh).file;
        c.settle().await;
        let seen = admin.seen(file).await;
        assert_eq!((seen.attr.nlink, seen.attr.file), (1, file));
        // Nobody else may, and nobody at another server.
        let mut proxy = Admin::of(&c);
        proxy.0 = Client::root(&c);
        assert_eq!(proxy.counts(&seen, 9).await, (NfsStat3::PERM.0, false));
        let other = ServerId(3 - client.owner(file.home()).0);
        let wrong = CountsRepair { seen: seen.clone(), nlink: 9, entries: 0, parent: FileId(0) };
        let refused = (PrivateStatus::WrongSite as u32, false);
        assert_eq!(admin.at(other, Repair::Counts(wrong)).await, refused);
        assert_eq!(admin.seen(file).await, seen);
        // What an operation holds is about to change.
        let key = HoldKey { site: file.home(), file, part: HoldPart::Attr };
        let while_held =
            held(&client, key, async || (admin.counts(&seen, 9).await, admin.inspect(file).await));
        let (tried, shown) = while_held.await;
        assert_eq!((tried, shown.status, shown.seen), (RETRY, RETRY.0, None));
        // Sent twice, it is done once; and stays.
        assert_eq!(admin.counts(&seen, 9).await, DONE);
        assert_eq!(admin.counts(&seen, 9).await, VOID);
        assert_eq!(client.getattr(&fh).await.unwrap().nlink, 9);
        let seen = admin.seen(file).await;
        client.chmod(&fh, 0o600).await.unwrap();
        assert_eq!(admin.counts(&seen, 1).await, VOID);
        let seen = admin.seen(file).await;
        assert_eq!(admin.counts(&seen, 1).await, DONE);
        c.settle().await;
        c.restart(client.owner(file.home()).0 as usize - 1).await;
        let attr = client.getattr(&fh).await.unwrap();
        assert_eq!((attr.nlink, attr.mode), (1, 0o600));
        assert_eq!(admin.inspect(FileId(file.0 + 1)).await.seen, None);
    });
}

#[test]
fn a_name_is_changed_only_if_it_stands_for_whom_it_stood() {
    run(async || {
        let c = Cluster::new(2, NamePolicy::Hash).await;
        let (client, admin) = (Client::root(&c), Admin::of(&c));
        let top = client.root_fh();
        let dir = client.open(&top).file;
        let fh = client.file(&top, b"f", 0o644).await.unwrap();
        let file = client.open(&fh).file;
        c.settle().await;
        let listed = client.list(&top).await.unwrap();
        assert_eq!(listed.len(), 1);
        let child = Child { file, ftype: 1, policy: 0 };
        assert_eq!(admin.name(dir, "f", Some(FileId(5)), None).await, VOID);
        assert_eq!(admin.name(dir, "f", None, Some(child)).await, VOID);
        let hash47 = name_hash(client.volume().seed, dir, b"f") >> (64 - 47);
        let key = HoldKey {
            site: entry_site(client.volume(), dir, b"f"),
            file: dir,
            part: HoldPart::Names(hash47),
        };
        let tried = held(&client, key, async || admin.name(dir, "f", Some(file), None).await).await;
        assert_eq!(tried, RETRY);
        assert_eq!(client.list(&top).await.unwrap(), listed);
        // It goes, at once for all who look; another comes.
        assert_eq!(admin.name(dir, "f", Some(file), None).await, DONE);
        assert_eq!(admin.name(dir, "f", Some(file), None).await, VOID);
        assert_eq!(client.lookup(&top, b"f").await.unwrap_err(), NfsStat3::NOENT);
        assert!(client.list(&top).await.unwrap().is_empty());
        assert_eq!(admin.name(dir, "g", None, Some(child)).await, DONE);
        assert_eq!(client.lookup(&top, b"g").await.unwrap().0, fh);
        assert_eq!(client.list(&top).await.unwrap().len(), 1);
    });
}

#[test]
fn a_directory_is_made_only_where_none_is() {
    run(async || {
        let mut c = Cluster::new(2, NamePolicy::Hash).await;
        let (client, admin) = (Client::root(&c), Admin::of(&c));
        let (dir, root) = (FileId::new(Site(4), 5_000_000), client.volume().root);
        let make = |dir| MakeRepair {
            dir,
            volume: VolumeId(0),
            policy: 0,
            mode: 0o700,
            uid: 0,
            gid: 0,
            nlink: 3,
            parent: root,
            entries: 2,
        };
        let server = client.owner(dir.home());
        assert_eq!(admin.at(client.owner(root.home()), Repair::Make(make(root))).await, VOID);
        assert_eq!(admin.at(server, Repair::Make(make(dir))).await, DONE);
        assert_eq!(admin.at(server, Repair::Make(make(dir))).await, VOID);
        c.restart(server.0 as usize - 1).await;
        let attr = admin.seen(dir).await.attr;
        assert_eq!((attr.ftype, attr.nlink, attr.parent, attr.entries), (2, 3, root, 2));
    });
}

fn object(c: &Cluster, file: FileId) -> Object {
    c.fake.object(file).unwrap()
}

/// A file of `size` in its record, whose data server holds `holds`.
async fn sized(c: &Cluster, client: &Client, size: u64, holds: u64) -> FileId {
    let fh = client.file(&client.root_fh(), b"f", 0o644).await.unwrap();
    client.truncate(&fh, size).await.unwrap();
    let file = client.open(&fh).file;
    c.fake.objects.lock().entry(file).or_default().size = holds;
    c.settle().await;
    file
}

#[test]
fn bytes_are_cut_only_if_they_are_what_was_seen() {
    run(async || {
        let c = Cluster::new(2, NamePolicy::Hash).await;
        let (client, admin) = (Client::root(&c), Admin::of(&c));
        let file = sized(&c, &client, 100, 500).await;
        let seen = admin.seen(file).await;
        // More has come since: nothing is cut, and writers go on under the epoch that shut them out.
        assert_eq!(admin.size(&seen, 7, 400).await, VOID);
        let now = admin.seen(file).await;
        assert_eq!((now.attr.size, now.attr.epoch), (100, Epoch(8)));
        assert_eq!(object(&c, file), Object { epoch: Epoch(8), size: 500, tombstone: false });
        // The record is another now.
        assert_eq!(admin.size(&seen, 7, 500).await, VOID);
        assert_eq!(object(&c, file).size, 500);
        assert_eq!(admin.size(&now, 8, 500).await, DONE);
        assert_eq!(object(&c, file), Object { epoch: Epoch(10), size: 100, tombstone: false });
        let cut = admin.seen(file).await;
        assert_eq!((cut.attr.size, cut.attr.epoch), (100, Epoch(10)));
        c.settle().await;
    });
}

#[test]
fn a_crash_while_writers_are_shut_out_cuts_nothing() {
    run(async || {
        let mut c = Cluster::new(2, NamePolicy::Hash).await;
        let (client, admin) = (Client::root(&c), Admin::of(&c));
        let file = sized(&c, &client, 100, 500).await;
        let seen = admin.seen(file).await;
        let server = client.owner(file.home()).0 as usize - 1;
        c.fake.stop_at(PeerProc::Stat, When::Before);
        let asked = tokio::task::spawn_local(async move { admin.size(&seen, 0, 500).await });
        c.fake.stands.notified().await;
        c.kill(server).await;
        asked.abort();
        c.fake.open();
        c.start(server).await;
        c.settle().await;
        let admin = Admin::of(&c);
        let now = admin.seen(file).await;
        assert_eq!(now.attr.size, 100);
        assert_eq!(object(&c, file), Object { epoch: now.attr.epoch, size: 500, tombstone: false });
        assert_eq!(admin.size(&now, 0, 500).await, DONE);
    });
}

#[test]
fn a_crash_while_bytes_are_cut_cuts_them() {
    run(async || {
        let mut c = Cluster::new(2, NamePolicy::Hash).await;
        let (client, admin) = (Client::root(&c), Admin::of(&c));
        let file = sized(&c, &client, 100, 500).await;
        let seen = admin.seen(file).await;
        let server = client.owner(file.home()).0 as usize - 1;
        c.fake.stop_at(PeerProc::Truncate, When::After);
        let asked = tokio::task::spawn_local(async move { admin.size(&seen, 0, 500).await });
        c.fake.stands.notified().await;
        c.kill(server).await;
        asked.abort();
        c.fake.open();
        c.start(server).await;
        c.settle().await;
        let now = Admin::of(&c).seen(file).await;
        assert_eq!(now.attr.size, 100);
        assert_eq!(object(&c, file), Object { epoch: now.attr.epoch, size: 100, tombstone: false });
    });
}
