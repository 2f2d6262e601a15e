//! COMMIT (RFC 1813 section 3.3.21).

use crate::node::{Admission, Node};
use crate::reply::{Refusal, refuse, trailer};
use bytes::BytesMut;
use slice_proto::ids::{FileId, TableEpoch, Xid};
use slice_proto::nfs3::{CommitOk, CommitRes, WccData};
use slice_proto::rpc_msg::encode_success;
use slice_proto::xdr::Encode;
use slice_rpc::service::{Handled, Message};
use std::sync::Arc;

/// A COMMIT: of the whole object, whatever range it names.
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
            // Read when all is durable: a verifier that changed meanwhile tells the client to send again (I7).
            CommitRes::Ok(CommitOk { wcc: WccData::default(), verf: node.verifier() }).encode(w);
            trailer(w, table);
        }
        Err(why) => refuse(w, call.xid, why, NO_WCC, table),
    }
}

/// Answers at once if there is nothing to wait for. An object that is not in memory has nothing uncommitted: only
/// clean ones are forgotten, and what an earlier life of the process held had another verifier.
pub(crate) fn call(node: &Arc<Node>, call: CommitCall, reply: &mut Message) -> Handled {
    let ready = matches!(node.admission(call.table, []), Admission::Yes(_));
    if ready && node.cache.get(call.file).is_none_or(|o| node.is_clean(&o)) {
        answer(node, call, Ok(()), &mut reply.head);
        return Handled::Done;
    }
    let node = Arc::clone(node);
    Handled::Later(Box::pin(async move {
        let outcome = async {
            node.admit(call.table, []).await?;
            match node.cache.get(call.file) {
                Some(object) => Ok(node.durable(&object).await?),
                None => Ok(()),
            }
        };
        let outcome = outcome.await;
        let mut w = BytesMut::new();
        answer(&node, call, outcome, &mut w);
        w.into()
    }))
}
