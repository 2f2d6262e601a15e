//! STAT and LIST_OBJECTS (`peer::data`): what the checker and an operator see.

use crate::error::Result;
use crate::node::Node;
use crate::record::Record;
use slice_proto::ids::FileId;
use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::data::{ListArgs, MAX_LISTED, ObjectInfo, ObjectsRes, StatArgs};
use slice_store::data_keys::{OBJECTS, object_key, object_of};
use slice_store::{Direction, KeyRange};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What store and disk say of an object; `None` if neither knows it. Blocks.
fn info(node: &Node, file: FileId) -> Result<Option<ObjectInfo>> {
    let record = match node.store.get(&object_key(file))? {
        Some(bytes) => Some(Record::decode(file, &bytes)?),
        None => None,
    };
    let tombstone = record.is_some_and(|r| r.purged_ns.is_some());
    let size = if tombstone { None } else { node.layout.size(file)? };
    if record.is_none() && size.is_none() {
        return Ok(None);
    }
    Ok(Some(ObjectInfo {
        file,
        epoch: record.unwrap_or_default().epoch,
        size: size.map_or(0, |s| s.len),
        used: size.map_or(0, |s| s.used),
        beyond: false,
        tombstone,
    }))
}

/// The objects above `after`: those that have a file and those that have a record, merged. Blocks.
fn page(node: &Node, after: FileId, limit: usize) -> Result<Vec<ObjectInfo>> {
    let mut ids: BTreeSet<FileId> = node.layout.list(after, limit)?.into_iter().collect();
    let records = KeyRange::prefix_after(OBJECTS, object_key(after));
    for pair in node.store.iter(records, Direction::Forward).take(limit) {
        ids.extend(object_of(&pair?.0));
    }
    let mut found = Vec::with_capacity(limit.min(ids.len()));
    for file in ids.into_iter().take(limit) {
        // One that has just gone is still listed, so that a page is short only if it is the last.
        let gone =
            ObjectInfo { file, epoch: Default::default(), size: 0, used: 0, beyond: false, tombstone: true };
        found.push(info(node, file)?.unwrap_or(gone));
    }
    Ok(found)
}

fn answer(found: Result<Vec<ObjectInfo>>) -> ObjectsRes {
    match found {
        Ok(objects) => ObjectsRes { status: NfsStat3::OK.0, objects },
        Err(e) => ObjectsRes { status: crate::reply::Refusal::from(e).0, objects: Vec::new() },
    }
}

/// Serves a STAT.
pub(crate) async fn stat(node: Arc<Node>, args: StatArgs) -> ObjectsRes {
    if let Err(why) = node.admit(args.table, []).await {
        return ObjectsRes { status: why.0, objects: Vec::new() };
    }
    let here = Arc::clone(&node);
    let work = move || info(&here, args.file).map(Vec::from_iter);
    answer(node.blocking(work).await.and_then(|r| r))
}

/// Serves a LIST_OBJECTS.
pub(crate) async fn list(node: Arc<Node>, args: ListArgs) -> ObjectsRes {
    let limit = args.limit.clamp(1, MAX_LISTED) as usize;
    let here = Arc::clone(&node);
    answer(node.blocking(move || page(&here, args.after, limit)).await.and_then(|r| r))
}
