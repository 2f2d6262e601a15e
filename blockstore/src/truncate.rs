//! TRUNCATE (`peer::data::TruncateArgs`): cuts an object and raises its epoch.

use crate::error::Error;
use crate::fence::ChangeVerdict;
use crate::node::Node;
use crate::object::Object;
use crate::record::Record;
use crate::reply::Refusal;
use slice_proto::ids::{Epoch, FileId, SITES_PER_ROLE};
use slice_proto::peer::PrivateStatus;
use slice_proto::peer::data::TruncateArgs;
use slice_proto::placement::{STRIPE_UNIT, THRESHOLD, block_site};
use slice_store::data_keys::object_key;
use slice_store::{Batch, Ticket};
use std::sync::Arc;

/// Where the last byte below `size` ends that this server can hold: what lies between stripe units of its own is other
/// servers', and must not count as held.
fn held_end(node: &Node, file: FileId, size: u64) -> u64 {
    if size <= THRESHOLD {
        return 0;
    }
    let table = node.table();
    // Sites repeat after that many units.
    let mut units = (0..=(size - 1) / STRIPE_UNIT).rev().take(SITES_PER_ROLE);
    let held = units.find(|unit| node.owns(&table, block_site(file, unit * STRIPE_UNIT)));
    held.map_or(0, |unit| size.min((unit + 1) * STRIPE_UNIT))
}

/// Cuts the object and makes that durable, then its record: in this order, because a durable record says that it was
/// done. Answers with what the caller must wait for. Blocks.
fn cut(node: &Node, object: &Object, epoch: Epoch, size: u64) -> Result<Ticket, Refusal> {
    let end = held_end(node, object.file, size);
    let bytes = {
        let mut state = object.state.write();
        match state.fence.change(epoch) {
            ChangeVerdict::Fenced => return Err(PrivateStatus::Fenced.into()),
            ChangeVerdict::Done => return Ok(state.record),
            ChangeVerdict::Act => {}
        }
        // From here on, late WRITEs are refused. Should the rest fail, it is done again under the same epoch.
        state.fence.epoch = epoch;
        let bytes = state.bytes.clone();
        if let Some(file) = bytes.as_ref().filter(|_| end < object.end()) {
            file.set_len(end).map_err(|e| Error::io("truncate", node.layout.path(object.file))(e))?;
            object.cut(end);
            object.wrote();
        }
        bytes
    };
    if bytes.is_some() && !object.committer.clean() {
        node.sync_here(object)?;
    }
    let mut state = object.state.write();
    if end == 0 {
        object.committer.heal();
    }
    // A later one has overtaken us meanwhile: its record says more.
    if state.fence.epoch == epoch && state.fence.applied < epoch {
        let mut batch = Batch::new();
        batch.put(object_key(object.file), Record { epoch, purged_ns: state.purged_ns }.encode());
        state.record = node.store.submit(batch)?;
        state.fence.applied = epoch;
    }
    Ok(state.record)
}

/// Serves a TRUNCATE; answers with the object's epoch.
pub(crate) async fn serve(node: Arc<Node>, args: TruncateArgs) -> (Result<(), Refusal>, Epoch) {
    if let Err(why) = node.admit(args.table, args.sites.0.iter().copied()).await {
        return (Err(why), Epoch::default());
    }
    let object = match node.object(args.file).await {
        Ok(object) => object,
        Err(e) => return (Err(e.into()), Epoch::default()),
    };
    let (here, to) = (Arc::clone(&node), Arc::clone(&object));
    let outcome = async {
        let record = node.blocking(move || cut(&here, &to, args.epoch, args.size)).await??;
        Ok(node.store.wait(record).await?)
    };
    let outcome = outcome.await;
    let epoch = object.state.read().fence.epoch;
    (outcome, epoch)
}
