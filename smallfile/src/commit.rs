//! COMMIT (RFC 1813 section 3.3.21): of the whole object, whatever range it names.

use crate::error::Error;
use crate::node::{Admission, Node};
use crate::reply::{Refusal, refuse, trailer};
use bytes::BytesMut;
use slice_proto::ids::{FileId, TableEpoch, Xid};
use slice_proto::nfs3::{CommitOk, CommitRes, NfsStat3, WccData};
use slice_proto::placement::small_site;
use slice_proto::rpc_msg::encode_success;
use slice_proto::xdr::Encode;
use slice_rpc::service::{Handled, Message};
use std::sync::Arc;

/// A COMMIT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommitCall {
    pub xid: Xid,
    pub table: TableEpoch,
    pub file: FileId,
}

/// What WCC data without attributes takes on the wire: two words.
pub(crate) const NO_WCC: usize = 2;

fn answer(node: &Node, call: CommitCall, outcome: Result<(), Refusal>, w: &mut BytesMut) {
    let table = node.table().epoch;
    match outcome {
        Ok(()) => {
            encode_success(w, call.xid);
            CommitRes::Ok(CommitOk { wcc: WccData::default(), verf: node.verifier() }).encode(w);
            trailer(w, table);
        }
        Err(why) => refuse(w, call.xid, why, NO_WCC, table),
    }
}

/// Answers at once if there is nothing to wait for.
pub(crate) fn call(node: &Arc<Node>, call: CommitCall, reply: &mut Message) -> Handled {
    let durable = match node.admission(call.table, [small_site(call.file)]) {
        Admission::Yes => node.is_durable(call.file),
        Admission::No(why, _) => Err(why.into()),
        Admission::Wait => Ok(false),
    };
    match durable {
        Ok(true) => {
            answer(node, call, Ok(()), &mut reply.head);
            Handled::Done
        }
        Err(why) => {
            answer(node, call, Err(why), &mut reply.head);
            Handled::Done
        }
        Ok(false) => {
            let node = Arc::clone(node);
            Handled::Later(Box::pin(async move {
                let outcome = async {
                    node.admit(call.table, [small_site(call.file)]).await?;
                    node.make_durable(call.file).await
                };
                let outcome = outcome.await;
                let mut w = BytesMut::new();
                answer(&node, call, outcome, &mut w);
                w.into()
            }))
        }
    }
}

impl Node {
    /// Whether there is nothing of a file to wait for. A log that has failed is said so even then: what was lost with it was
    /// acknowledged under this verifier.
    fn is_durable(&self, file: FileId) -> Result<bool, Refusal> {
        self.queue.progress.health().map_err(Error::from)?;
        let cell = self.cell(file)?;
        let object = cell.object.lock();
        if object.is_tombstone() {
            return Err(NfsStat3::STALE.into());
        }
        Ok(!object.is_dirty() && !object.unlogged && object.ticket <= self.store.durable())
    }

    /// Waits until all that was written of a file so far is durable.
    pub(crate) async fn make_durable(&self, file: FileId) -> Result<(), Refusal> {
        let cell = self.cell(file)?;
        let (version, ticket) = {
            let object = cell.object.lock();
            if object.is_tombstone() {
                return Err(NfsStat3::STALE.into());
            }
            (object.version(), object.ticket)
        };
        let group = self.queue.commit(Arc::clone(&cell));
        let outcome = self.committed(&cell, group, version).await;
        if cell.object.lock().is_tombstone() {
            return Err(NfsStat3::STALE.into());
        }
        outcome?;
        Ok(self.store.wait(ticket).await.map_err(Error::from)?)
    }
}
