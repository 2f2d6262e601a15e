//! PURGE (`peer::data::PurgeArgs`): removes an object and leaves a tombstone.

use crate::fence::ChangeVerdict;
use crate::node::Node;
use crate::object::Object;
use crate::record::Record;
use crate::reply::Refusal;
use bytes::Bytes;
use slice_proto::ids::Epoch;
use slice_proto::peer::PrivateStatus;
use slice_proto::peer::data::PurgeArgs;
use slice_rpc::clock::Clock;
use slice_store::data_keys::{grave_key, object_key};
use slice_store::{Batch, Ticket};
use std::sync::Arc;

/// Removes the object's file and submits the tombstone. The removal need not be durable: whoever finds both removes the
/// file again. Answers with what the caller must wait for. Blocks.
fn bury(node: &Node, object: &Object, epoch: Epoch) -> Result<Ticket, Refusal> {
    let mut state = object.state.write();
    match state.fence.change(epoch) {
        ChangeVerdict::Fenced => return Err(PrivateStatus::Fenced.into()),
        ChangeVerdict::Done => return Ok(state.record),
        ChangeVerdict::Act => {}
    }
    state.fence.epoch = epoch;
    state.fence.tombstone = true;
    let file = state.bytes.take();
    object.cut(0);
    node.layout.remove_object(object.file)?;
    object.committer.heal();
    let mut batch = Batch::new();
    if let Some(old) = state.purged_ns {
        batch.delete(grave_key(old, object.file));
    }
    let now = node.steady.now_ns();
    state.purged_ns = Some(now);
    batch.put(object_key(object.file), Record { epoch, purged_ns: Some(now) }.encode());
    batch.put(grave_key(now, object.file), Bytes::new());
    state.record = node.store.submit(batch)?;
    state.fence.applied = epoch;
    let record = state.record;
    drop(state);
    // The last close frees the blocks, which takes long for a large file: not under the lock.
    drop(file);
    Ok(record)
}

/// Serves a PURGE; answers with the object's epoch.
pub(crate) async fn serve(node: Arc<Node>, args: PurgeArgs) -> (Result<(), Refusal>, Epoch) {
    if let Err(why) = node.admit(args.table, args.sites.0.iter().copied()).await {
        return (Err(why), Epoch::default());
    }
    let object = match node.object(args.file).await {
        Ok(object) => object,
        Err(e) => return (Err(e.into()), Epoch::default()),
    };
    let (here, to) = (Arc::clone(&node), Arc::clone(&object));
    let outcome = async {
        let record = node.blocking(move || bury(&here, &to, args.epoch)).await??;
        Ok(node.store.wait(record).await?)
    };
    let outcome = outcome.await;
    let epoch = object.state.read().fence.epoch;
    (outcome, epoch)
}
