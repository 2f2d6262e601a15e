//! What the checker asks: every attribute record, every entry, whether all is settled.

use crate::bucket::Bucket;
use crate::error::Result;
use crate::keys;
use crate::records::AttrRec;
use crate::server::Inner;
use crate::state::status_of;
use bytes::Bytes;
use slice_proto::ids::FileId;
use slice_proto::peer::dir::{
    AttrInfo, EntryInfo, ListAttrsArgs, ListAttrsRes, ListEntriesArgs, ListEntriesRes, MAX_LISTED, SettledRes,
};
use slice_store::{Direction, KeyRange};
use std::ops::Bound;

/// LIST_ATTRS.
pub(crate) fn attrs(inner: &Inner, args: &ListAttrsArgs) -> ListAttrsRes {
    match list_attrs(inner, args) {
        Ok(attrs) => ListAttrsRes { status: 0, attrs },
        Err(error) => ListAttrsRes { status: status_of(&error).0, attrs: Vec::new() },
    }
}

fn list_attrs(inner: &Inner, args: &ListAttrsArgs) -> Result<Vec<AttrInfo>> {
    let range = KeyRange::prefix_after([keys::ATTR], keys::attr(args.after));
    let limit = args.limit.min(MAX_LISTED) as usize;
    let pairs = inner.state.store.scan(range, Direction::Forward, limit)?;
    let info = |(key, value): &(Bytes, Bytes)| {
        let rec = AttrRec::decode(key, value)?;
        Ok(attr_info(FileId(keys::number(key).unwrap_or_default()), &rec))
    };
    pairs.iter().map(info).collect()
}

/// What the checker is shown of a record.
pub(crate) fn attr_info(file: FileId, rec: &AttrRec) -> AttrInfo {
    let dir = rec.is_dir();
    AttrInfo {
        file,
        ftype: rec.ftype as u32,
        nlink: rec.nlink,
        size: rec.size,
        reach: rec.reach,
        epoch: rec.epoch,
        parent: if dir { rec.parent } else { FileId(0) },
        entries: if dir { rec.entries } else { 0 },
    }
}

/// LIST_ENTRIES.
pub(crate) fn entries(inner: &Inner, args: &ListEntriesArgs) -> ListEntriesRes {
    match list_entries(inner, args) {
        Ok(entries) => ListEntriesRes { status: 0, entries },
        Err(error) => ListEntriesRes { status: status_of(&error).0, entries: Vec::new() },
    }
}

fn list_entries(inner: &Inner, args: &ListEntriesArgs) -> Result<Vec<EntryInfo>> {
    let limit = args.limit.min(MAX_LISTED) as usize;
    let mut range = KeyRange::prefix([keys::ENTRY]);
    let first = keys::entry(args.dir, keys::hash47_of_cookie(args.cookie));
    range.start = Bound::Included(Bytes::copy_from_slice(&first));
    let mut all = Vec::new();
    for pair in inner.state.store.iter(range, Direction::Forward) {
        let (key, value) = pair?;
        let Some((dir, hash47)) = keys::parse_entry(&key) else { continue };
        let bucket = Bucket::decode(&key, value)?;
        for e in bucket.iter() {
            let cookie = (hash47 << 16) | u64::from(e.tie);
            if (dir, cookie) <= (args.dir, args.cookie) {
                continue;
            }
            if all.len() >= limit {
                return Ok(all);
            }
            all.push(EntryInfo { dir, cookie, name: Bytes::copy_from_slice(e.name), child: e.child });
        }
    }
    Ok(all)
}

/// SETTLED.
pub(crate) fn settled(inner: &Inner) -> SettledRes {
    let unsettled = inner.unsettled();
    if unsettled > 0 {
        tracing::debug!(unsettled, "not at rest: {}", inner.tell());
    }
    SettledRes { status: 0, unsettled }
}
