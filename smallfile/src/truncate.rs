//! TRUNCATE, PURGE and EXTEND (`peer::data`): what the home site, and for EXTEND the µproxy, changes of an object.

use crate::cache::Cell;
use crate::core::Object;
use crate::core::fence::{self, ChangeVerdict, WriteVerdict};
use crate::core::object::Freed;
use crate::error::Error;
use crate::node::Node;
use crate::reply::Refusal;
use slice_proto::ids::{Epoch, FileId, Site, TableEpoch};
use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::PrivateStatus;
use slice_proto::peer::data::{ExtendArgs, PurgeArgs, TruncateArgs};
use slice_proto::placement::small_site;
use slice_rpc::clock::Clock;
use slice_store::Ticket;
use std::sync::Arc;

/// What a call makes of an object: an outcome, and the object's epoch after it.
pub(crate) type Outcome = (Result<(), Refusal>, Epoch);

/// Serves a TRUNCATE.
pub(crate) async fn truncate(node: Arc<Node>, args: TruncateArgs) -> Outcome {
    let TruncateArgs { table, sites, file, epoch, size } = args;
    change(&node, table, &sites.0, file, epoch, |o| o.truncate(epoch, size)).await
}

/// Serves a PURGE.
pub(crate) async fn purge(node: Arc<Node>, args: PurgeArgs) -> Outcome {
    let PurgeArgs { table, sites, file, epoch } = args;
    let now = node.steady.now_ns();
    change(&node, table, &sites.0, file, epoch, |o| o.purge(epoch, now)).await
}

/// Changes the object if `epoch` is newer, and waits until that is durable.
async fn change(
    node: &Arc<Node>,
    table: TableEpoch,
    sites: &[Site],
    file: FileId,
    epoch: Epoch,
    act: impl FnOnce(&mut Object) -> Freed,
) -> Outcome {
    // The file has one site of this role, whether the caller names it or not.
    let all: Vec<Site> = sites.iter().copied().chain([small_site(file)]).collect();
    if let Err(why) = node.admit(table, all).await {
        return (Err(why), Epoch::default());
    }
    let cell = match node.cell(file) {
        Ok(cell) => cell,
        Err(e) => return (Err(e.into()), Epoch::default()),
    };
    let judged = node.change(&cell, |o| {
        let freed = match fence::change(o.epoch, o.is_tombstone(), epoch) {
            ChangeVerdict::Fenced => return Err(PrivateStatus::Fenced.into()),
            ChangeVerdict::Done if !o.unlogged => return Ok(o.ticket),
            ChangeVerdict::Done => Freed::new(),
            ChangeVerdict::Act => act(o),
        };
        let ticket = node.log_record(&cell, o);
        // Should the record not be taken in, its extents stay counted until the next start.
        if let Ok(ticket) = &ticket {
            node.free_at(*ticket, freed);
        }
        ticket.map_err(Refusal::from)
    });
    let outcome = match judged {
        Ok(ticket) => durable(node, ticket).await,
        Err(why) => Err(why),
    };
    (outcome, epoch_of(&cell))
}

/// Serves an EXTEND.
pub(crate) async fn extend(node: Arc<Node>, args: ExtendArgs) -> Outcome {
    let ExtendArgs { table, file, epoch, size, durable: now } = args;
    if let Err(why) = node.admit(table, [small_site(file)]).await {
        return (Err(why), Epoch::default());
    }
    let cell = match node.cell(file) {
        Ok(cell) => cell,
        Err(e) => return (Err(e.into()), Epoch::default()),
    };
    let judged = node.change(&cell, |o| {
        match fence::write(o.epoch, o.is_tombstone(), epoch) {
            WriteVerdict::Go => {}
            WriteVerdict::Fenced => return Err(PrivateStatus::Fenced.into()),
            WriteVerdict::Gone => return Err(NfsStat3::STALE.into()),
        }
        // An epoch that shuts others out must do so after a crash, too.
        let raised = epoch > o.epoch;
        o.raise(epoch);
        let news = o.extend(size, now) || raised;
        if now && (news || o.unlogged) {
            return Ok(node.log_record(&cell, o)?);
        }
        Ok(o.ticket)
    });
    let outcome = match judged {
        Ok(ticket) if now => durable(&node, ticket).await,
        Ok(_) => Ok(()),
        Err(why) => Err(why),
    };
    (outcome, epoch_of(&cell))
}

async fn durable(node: &Node, ticket: Ticket) -> Result<(), Refusal> {
    node.store.wait(ticket).await.map_err(Error::from)?;
    node.settle_frees();
    Ok(())
}

fn epoch_of(cell: &Cell) -> Epoch {
    cell.object.lock().epoch
}
