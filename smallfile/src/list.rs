//! STAT and LIST_OBJECTS (`peer::data`): what the checker and an operator see, unstable writes included.

use crate::core::Object;
use crate::core::record::Record;
use crate::error::Result;
use crate::node::Node;
use crate::reply::Refusal;
use slice_proto::ids::FileId;
use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::data::{ListArgs, MAX_LISTED, ObjectInfo, ObjectsRes, StatArgs};
use slice_proto::placement::small_site;
use slice_store::data_keys::{OBJECTS, object_key, object_of};
use slice_store::{Direction, KeyRange};
use std::collections::BTreeMap;
use std::sync::Arc;

fn info(file: FileId, o: &Object) -> ObjectInfo {
    ObjectInfo {
        file,
        epoch: o.epoch,
        size: o.size.into(),
        used: o.used(),
        beyond: o.beyond,
        tombstone: o.is_tombstone(),
    }
}

/// The objects above `after`. Blocks.
fn page(node: &Node, after: FileId, limit: usize) -> Result<Vec<ObjectInfo>> {
    let mut found = BTreeMap::new();
    let records = KeyRange::prefix_after(OBJECTS, object_key(after));
    for pair in node.store.iter(records, Direction::Forward).take(limit) {
        let (key, value) = pair?;
        if let Some(file) = object_of(&key) {
            found.insert(file, info(file, &Object::from_record(&Record::decode(file, &value)?)));
        }
    }
    // What is in memory is newer, or not in the store at all yet.
    for cell in node.cache.all() {
        let object = cell.object.lock();
        if cell.file > after && !object.is_blank() {
            found.insert(cell.file, info(cell.file, &object));
        }
    }
    Ok(found.into_values().take(limit).collect())
}

fn answer(found: Result<Vec<ObjectInfo>>) -> ObjectsRes {
    match found {
        Ok(objects) => ObjectsRes { status: NfsStat3::OK.0, objects },
        Err(e) => ObjectsRes { status: Refusal::from(e).0, objects: Vec::new() },
    }
}

/// Serves a STAT.
pub(crate) async fn stat(node: Arc<Node>, args: StatArgs) -> ObjectsRes {
    if let Err(why) = node.admit(args.table, [small_site(args.file)]).await {
        return ObjectsRes { status: why.0, objects: Vec::new() };
    }
    answer(node.cell(args.file).map(|cell| {
        let object = cell.object.lock();
        if object.is_blank() { Vec::new() } else { vec![info(args.file, &object)] }
    }))
}

/// Serves a LIST_OBJECTS.
pub(crate) async fn list(node: Arc<Node>, args: ListArgs) -> ObjectsRes {
    let limit = args.limit.clamp(1, MAX_LISTED) as usize;
    let here = Arc::clone(&node);
    answer(node.blocking(move || page(&here, args.after, limit)).await.and_then(|r| r))
}
