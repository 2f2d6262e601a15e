//! What must be true when all is quiet: nothing is owed or intended any more, names and records agree, and no byte is
//! left of a file that is gone. As `slice admin check` asks, over the servers' own lists.

use crate::ensemble::Ensemble;
use bytes::BytesMut;
use slice_proto::ids::{FileId, Role, Xid};
use slice_proto::nfs3::FType3;
use slice_proto::peer::data::{ListArgs, ObjectInfo, ObjectsRes};
use slice_proto::peer::dir::{
    AttrInfo, EntryInfo, ListAttrsArgs, ListAttrsRes, ListEntriesArgs, ListEntriesRes,
};
use slice_proto::peer::{PROGRAM, PeerProc, VERSION};
use slice_proto::rpc_msg::{OpaqueAuth, ReplyHeader, encode_call};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::{Handled, Message, Peer, Service};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Simulated time in which everything must have come to rest: far more than an intention's age and all pauses.
const REST: Duration = Duration::from_secs(600);
const PAGE: u32 = 50;

fn data_nodes(e: &Ensemble) -> Vec<usize> {
    [Role::Small, Role::Block].into_iter().flat_map(|role| e.nodes(role)).collect()
}

/// Waits until nothing is owed, held or under way.
///
/// # Errors
/// What is, for ever.
pub async fn settle(e: &Ensemble) -> Result<(), String> {
    let start = tokio::time::Instant::now();
    loop {
        let dirs = e.nodes(Role::Dir);
        let up: Vec<_> = dirs.iter().filter_map(|i| e.dir(*i)).collect();
        let coordinators = e.nodes(Role::Coordinator);
        let intents: Option<u64> =
            coordinators.iter().map(|i| e.coordinator(*i).map(|c| c.stats().unsettled)).sum();
        let data = data_nodes(e).into_iter().all(|i| e.data(i).is_some());
        if up.len() == dirs.len() && up.iter().all(|d| d.stats().unsettled == 0) && intents == Some(0) && data
        {
            return Ok(());
        }
        if start.elapsed() > REST {
            let tell: Vec<_> = up.iter().map(|d| d.tell()).collect();
            return Err(format!(
                "not at rest: {intents:?} intentions, {} of {} directory servers up, all data servers {data}:\n{}",
                up.len(),
                dirs.len(),
                tell.join("\n")
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn ask<R: for<'a> Decode<'a>>(server: &dyn Service, proc: PeerProc, args: &impl Encode) -> R {
    let mut w = BytesMut::new();
    encode_call(&mut w, Xid(0), PROGRAM, VERSION, proc as u32, &OpaqueAuth::NONE);
    args.encode(&mut w);
    let peer = Peer { addr: SocketAddr::from(([10, 2, 0, 1], 1)), proved: None };
    let mut reply = Message::default();
    let reply = match server.call(&peer, w, &mut reply) {
        Handled::Done => reply,
        Handled::Later(later) => later.await,
        Handled::Detached | Handled::Close => panic!("no answer to {proc:?}"),
    };
    let reply = reply.into_record();
    let at = ReplyHeader::decode(&reply).expect("a reply").body_at;
    R::decode(&mut Reader::at(&reply, at)).expect("a list")
}

async fn lists(e: &Ensemble) -> (BTreeMap<FileId, AttrInfo>, Vec<EntryInfo>) {
    let (mut attrs, mut entries) = (BTreeMap::new(), Vec::new());
    for server in e.nodes(Role::Dir).iter().filter_map(|i| e.dir(*i)) {
        let mut after = FileId(0);
        loop {
            let args = ListAttrsArgs { after, limit: PAGE };
            let res: ListAttrsRes = ask(&*server, PeerProc::ListAttrs, &args).await;
            let n = res.attrs.len();
            for a in res.attrs {
                after = a.file;
                assert!(attrs.insert(a.file, a).is_none(), "two servers have a record of one file");
            }
            if n < PAGE as usize {
                break;
            }
        }
        let (mut dir, mut cookie) = (FileId(0), 0);
        loop {
            let args = ListEntriesArgs { dir, cookie, limit: PAGE };
            let res: ListEntriesRes = ask(&*server, PeerProc::ListEntries, &args).await;
            let n = res.entries.len();
            for e in res.entries {
                (dir, cookie) = (e.dir, e.cookie);
                entries.push(e);
            }
            if n < PAGE as usize {
                break;
            }
        }
    }
    (attrs, entries)
}

/// What a data server has of files.
async fn objects(server: &dyn Service) -> Vec<ObjectInfo> {
    let (mut all, mut after) = (Vec::new(), FileId(0));
    loop {
        let res: ObjectsRes = ask(server, PeerProc::ListObjects, &ListArgs { after, limit: PAGE }).await;
        assert_eq!(res.status, 0, "LIST_OBJECTS");
        let n = res.objects.len();
        after = res.objects.last().map_or(after, |o| o.file);
        all.extend(res.objects);
        if n < PAGE as usize {
            return all;
        }
    }
}

/// Every entry has a record, every record an entry, links and counts are right, and so are the data servers' objects.
///
/// # Errors
/// All that is wrong.
pub async fn consistent(e: &Ensemble) -> Result<(), String> {
    let (attrs, entries) = lists(e).await;
    let mut wrong = Vec::new();
    let mut links: BTreeMap<FileId, u32> = BTreeMap::new();
    let mut counts: BTreeMap<FileId, (u64, u32)> = BTreeMap::new();
    for entry in &entries {
        let Some(child) = attrs.get(&entry.child.file) else {
            wrong.push(format!("{entry:?} has no record"));
            continue;
        };
        *links.entry(child.file).or_default() += 1;
        let (n, dirs) = counts.entry(entry.dir).or_default();
        *n += 1;
        if child.ftype == FType3::Dir as u32 {
            *dirs += 1;
            if child.parent != entry.dir {
                wrong.push(format!("{child:?} stands in {:?}", entry.dir));
            }
        }
    }
    let root = e.table.volumes[0].root;
    for a in attrs.values() {
        let names = links.get(&a.file).copied().unwrap_or_default();
        let right = if a.ftype == FType3::Dir as u32 {
            let (n, dirs) = counts.get(&a.file).copied().unwrap_or_default();
            names == u32::from(a.file != root) && (a.entries, a.nlink) == (n, 2 + dirs)
        } else {
            names == a.nlink
        };
        if !right {
            wrong.push(format!(
                "{a:?} has {names} names, and {:?} entries and directories",
                counts.get(&a.file)
            ));
        }
    }
    wrong.extend(
        counts.keys().filter(|d| !attrs.contains_key(d)).map(|d| format!("{d:?} has entries, and no record")),
    );
    for i in data_nodes(e) {
        let server = e.data(i).ok_or_else(|| format!("node {i} does not serve"))?;
        let left = objects(&*server).await.into_iter();
        let left = left.filter(|o| !attrs.contains_key(&o.file) && !o.tombstone && o.size > 0);
        wrong.extend(left.map(|o| format!("node {i} has bytes of {:?}, which is gone", o.file)));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}
