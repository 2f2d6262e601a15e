//! What `slice admin check` will ask, here of the servers' lists: entries and records agree.

use super::client::Client;
use super::cluster::Cluster;
use slice_proto::ids::{FileId, Role};
use slice_proto::nfs3::FType3;
use slice_proto::peer::PeerProc;
use slice_proto::peer::dir::{
    AttrInfo, EntryInfo, ListAttrsArgs, ListAttrsRes, ListEntriesArgs, ListEntriesRes, SettledRes,
};
use std::collections::BTreeMap;

const PAGE: u32 = 7;

pub async fn attrs(c: &Cluster) -> BTreeMap<FileId, AttrInfo> {
    let client = Client::root(c);
    let mut all = BTreeMap::new();
    for server in c.table.servers_of(Role::Dir) {
        let mut after = FileId(0);
        loop {
            let args = ListAttrsArgs { after, limit: PAGE };
            let res: ListAttrsRes = client.private(server, PeerProc::ListAttrs, &args).await;
            assert_eq!(res.status, 0);
            let n = res.attrs.len();
            for a in res.attrs {
                after = a.file;
                assert!(all.insert(a.file, a).is_none());
            }
            if n < PAGE as usize {
                break;
            }
        }
    }
    all
}

pub async fn entries(c: &Cluster) -> Vec<EntryInfo> {
    let client = Client::root(c);
    let mut all = Vec::new();
    for server in c.table.servers_of(Role::Dir) {
        let (mut dir, mut cookie) = (FileId(0), 0);
        loop {
            let args = ListEntriesArgs { dir, cookie, limit: PAGE };
            let res: ListEntriesRes = client.private(server, PeerProc::ListEntries, &args).await;
            assert_eq!(res.status, 0);
            let n = res.entries.len();
            for e in res.entries {
                assert!((e.dir, e.cookie) > (dir, cookie));
                (dir, cookie) = (e.dir, e.cookie);
                all.push(e);
            }
            if n < PAGE as usize {
                break;
            }
        }
    }
    all
}

/// Every entry has a record, every record an entry, links and counts are right, nothing is unsettled.
pub async fn consistent(c: &Cluster) {
    let (attrs, entries) = (attrs(c).await, entries(c).await);
    let mut links: BTreeMap<FileId, u32> = BTreeMap::new();
    let mut counts: BTreeMap<FileId, (u64, u32)> = BTreeMap::new();
    for e in &entries {
        let child = attrs.get(&e.child.file).unwrap_or_else(|| panic!("{e:?} has no record"));
        assert_eq!(child.ftype, e.child.ftype, "{e:?}");
        *links.entry(e.child.file).or_default() += 1;
        let (n, dirs) = counts.entry(e.dir).or_default();
        *n += 1;
        if child.ftype == FType3::Dir as u32 {
            *dirs += 1;
            assert_eq!(child.parent, e.dir, "{e:?}");
        }
    }
    let root = c.volume().root;
    let mut wrong = Vec::new();
    for a in attrs.values() {
        let names = links.get(&a.file).copied().unwrap_or_default();
        let right = if a.ftype == FType3::Dir as u32 {
            let (n, dirs) = counts.get(&a.file).copied().unwrap_or_default();
            names == u32::from(a.file != root) && (a.entries, a.nlink) == (n, 2 + dirs)
        } else {
            names == a.nlink
        };
        if !right {
            let here: Vec<_> = entries.iter().filter(|e| e.dir == a.file || e.child.file == a.file).collect();
            wrong.push(format!("{a:?} has {names} names; entries in or of it: {here:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(counts.keys().all(|d| attrs.contains_key(d)));
    let client = Client::root(c);
    for server in c.table.servers_of(Role::Dir) {
        let res: SettledRes = client.private(server, PeerProc::Settled, &()).await;
        assert_eq!(res, SettledRes { status: 0, unsettled: 0 });
    }
}
