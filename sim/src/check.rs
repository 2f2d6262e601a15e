//! What must be true when all is quiet: nothing is owed or intended any more, names and records agree, and no byte is
//! left of a file that is gone. As `slice admin check` asks, over the servers' own lists.

use crate::ensemble::Ensemble;
use bytes::BytesMut;
use slice_proto::ids::{FileId, Role, Xid};
use slice_proto::nfs3::FType3;
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

/// Waits until nothing is owed, held or under way.
///
/// # Errors
/// What is, for ever.
pub async fn settle(e: &Ensemble) -> Result<(), String> {
    let start = tokio::time::Instant::now();
    loop {
        let dirs = e.nodes(Role::Dir);
        let up: Vec<_> = dirs.iter().filter_map(|i| e.dir(*i)).collect();
        let intents: usize =
            e.nodes(Role::Coordinator).iter().filter_map(|i| e.shelf(*i)).map(|s| s.open_intents()).sum();
        if up.len() == dirs.len() && up.iter().all(|d| d.stats().unsettled == 0) && intents == 0 {
            return Ok(());
        }
        if start.elapsed() > REST {
            let tell: Vec<_> = up.iter().map(|d| d.tell()).collect();
            return Err(format!(
                "not at rest: {intents} intentions, {} of {} directory servers up:\n{}",
                up.len(),
                dirs.len(),
                tell.join("\n")
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn ask<R: for<'a> Decode<'a>>(server: &dyn Service, proc: PeerProc, args: &impl Encode) -> R {
    let mut w = BytesMut::new();
    encode_call(&mut w, Xid(0), PROGRAM, VERSION, proc as u32, &OpaqueAuth::NONE);
    args.encode(&mut w);
    let peer = Peer { addr: SocketAddr::from(([10, 2, 0, 1], 1)), proved: None };
    let mut reply = Message::default();
    assert!(matches!(server.call(&peer, w, &mut reply), Handled::Done), "lists are answered at once");
    let reply = reply.into_record();
    let at = ReplyHeader::decode(&reply).expect("a reply").body_at;
    R::decode(&mut Reader::at(&reply, at)).expect("a list")
}

fn lists(e: &Ensemble) -> (BTreeMap<FileId, AttrInfo>, Vec<EntryInfo>) {
    let (mut attrs, mut entries) = (BTreeMap::new(), Vec::new());
    for server in e.nodes(Role::Dir).iter().filter_map(|i| e.dir(*i)) {
        let mut after = FileId(0);
        loop {
            let args = ListAttrsArgs { after, limit: PAGE };
            let res: ListAttrsRes = ask(&*server, PeerProc::ListAttrs, &args);
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
            let res: ListEntriesRes = ask(&*server, PeerProc::ListEntries, &args);
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

/// Every entry has a record, every record an entry, links and counts are right, and so are the data servers' objects.
///
/// # Errors
/// All that is wrong.
pub fn consistent(e: &Ensemble) -> Result<(), String> {
    let (attrs, entries) = lists(e);
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
    for i in e.nodes(Role::Small).into_iter().chain(e.nodes(Role::Block)) {
        let objects = e.shelf(i).map(|s| s.objects()).unwrap_or_default();
        let left = objects.iter().filter(|(f, o)| !attrs.contains_key(f) && !o.tombstone && !o.is_empty());
        wrong.extend(left.map(|(f, _)| format!("node {i} has bytes of {f:?}, which is gone")));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}
