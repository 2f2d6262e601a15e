//! READ (RFC 1813 section 3.3.6). Not fenced: a late READ harms nothing.
//!
//! Answered on the spot if the bytes are in memory or in the page cache.

use crate::cache::Cell;
use crate::core::LIMIT;
use crate::error::Result;
use crate::log::segment::{Miss, Patience};
use crate::node::{Admission, Node};
use crate::reply::{Refusal, refuse, trailer};
use bytes::{BufMut, BytesMut};
use slice_proto::ids::{FileId, TableEpoch, Xid};
use slice_proto::nfs3::{NfsStat3, ReadOkHead};
use slice_proto::placement::small_site;
use slice_proto::rpc_msg::encode_success;
use slice_proto::xdr::padding;
use slice_rpc::service::{Handled, Message};
use std::sync::Arc;

/// A READ whose range has been checked: it begins below 64 KiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadCall {
    pub xid: Xid,
    pub table: TableEpoch,
    pub file: FileId,
    pub offset: u32,
    pub count: u32,
}

/// Data up to this length goes into the reply's head: cheaper than a buffer and a vectored write.
const INLINE_BYTES: u32 = 16 << 10;
/// Post-operation attributes that a failure carries: one word that says none.
pub(crate) const NO_ATTR: usize = 1;

/// Answers at once if it can.
pub(crate) fn call(node: &Arc<Node>, call: ReadCall, reply: &mut Message) -> Handled {
    match node.admission(call.table, [small_site(call.file)]) {
        Admission::Yes => {}
        Admission::No(why, table) => {
            refuse(&mut reply.head, call.xid, why.into(), NO_ATTR, table);
            return Handled::Done;
        }
        Admission::Wait => return later(node, call),
    }
    let outcome = node.cell(call.file).map_err(Miss::Failed).and_then(|cell| {
        let object = cell.object.lock();
        answer(node, call, &object, Patience::None, reply)
    });
    match outcome {
        Ok(()) => Handled::Done,
        Err(Miss::NotCached) => {
            *reply = Message::default();
            later(node, call)
        }
        Err(Miss::Failed(e)) => {
            *reply = refused(node, call, e.into());
            Handled::Done
        }
    }
}

fn refused(node: &Node, call: ReadCall, why: Refusal) -> Message {
    let mut w = BytesMut::new();
    refuse(&mut w, call.xid, why, NO_ATTR, node.table().epoch);
    w.into()
}

fn later(node: &Arc<Node>, call: ReadCall) -> Handled {
    let node = Arc::clone(node);
    Handled::Later(Box::pin(async move {
        let outcome = async {
            node.admit(call.table, [small_site(call.file)]).await?;
            let cell = node.cell(call.file)?;
            Ok(patient(&node, call, &cell).await?)
        };
        outcome.await.unwrap_or_else(|why: Refusal| refused(&node, call, why))
    }))
}

async fn patient(node: &Arc<Node>, call: ReadCall, cell: &Arc<Cell>) -> Result<Message> {
    node.patiently(cell, |patience| {
        let mut reply = Message::default();
        answer(node, call, &cell.object.lock(), patience, &mut reply).map(|()| reply)
    })
    .await
}

/// Writes the reply; after a failure it is to be thrown away.
fn answer(
    node: &Node,
    call: ReadCall,
    object: &crate::core::Object,
    patience: Patience,
    reply: &mut Message,
) -> std::result::Result<(), Miss> {
    let table = node.table().epoch;
    if object.is_tombstone() {
        refuse(&mut reply.head, call.xid, NfsStat3::STALE.into(), NO_ATTR, table);
        return Ok(());
    }
    let (len, eof) = object.readable(call.offset, call.count.min(LIMIT));
    encode_success(&mut reply.head, call.xid);
    ReadOkHead { attr: None, eof, data_len: len }.encode_ok(&mut reply.head);
    let pad = padding(len as usize);
    if len <= INLINE_BYTES {
        let at = reply.head.len();
        reply.head.put_bytes(0, len as usize + pad);
        let out = reply.head.get_mut(at..at + len as usize).unwrap_or_default();
        node.read_into(call.file, object, call.offset, out, patience)?;
        trailer(&mut reply.head, table);
    } else {
        let mut body = BytesMut::zeroed(len as usize);
        node.read_into(call.file, object, call.offset, &mut body, patience)?;
        reply.body = body.freeze();
        reply.tail.put_bytes(0, pad);
        trailer(&mut reply.tail, table);
    }
    Ok(())
}
