//! READ (RFC 1813 section 3.3.6). Not fenced: a late READ harms nothing.
//!
//! Answered on the spot if the bytes are in the page cache, else from a thread that may wait for the disk.

use crate::buffer::Buffer;
use crate::error::Error;
use crate::node::{Admission, Node};
use crate::object::Object;
use crate::reply::{Refusal, refuse, trailer};
use bytes::{BufMut, BytesMut};
use slice_proto::ids::{FileId, TableEpoch, Xid};
use slice_proto::nfs3::ReadOkHead;
use slice_proto::rpc_msg::encode_success;
use slice_proto::xdr::padding;
use slice_rpc::service::{Handled, Message};
use slice_system::File;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// A READ whose range has been checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadCall {
    pub xid: Xid,
    pub table: TableEpoch,
    pub file: FileId,
    pub offset: u64,
    pub count: u32,
}

/// Data up to this length is copied into the reply's head: cheaper than a buffer and a vectored write.
const INLINE_BYTES: usize = 16 << 10;
/// Post-operation attributes that a failure carries: one word that says none.
pub(crate) const NO_ATTR: usize = 1;

/// Whether a read may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Never,
    Disk,
}

/// Fills `to` from `offset` on; fewer bytes only at the end of the file. `None` rather than wait for the disk.
fn fill(file: &dyn File, offset: u64, to: &mut [u8], wait: Wait) -> io::Result<Option<usize>> {
    let mut got = 0;
    while let Some(rest) = to.get_mut(got..).filter(|r| !r.is_empty()) {
        let at = offset + got as u64;
        let n = match wait {
            Wait::Disk => file.read_at(rest, at),
            Wait::Never => file.read_cached_at(rest, at),
        };
        match n {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) => match e.kind() {
                ErrorKind::Interrupted => {}
                // Where a file system cannot tell, all reads may wait.
                ErrorKind::WouldBlock | ErrorKind::Unsupported if wait == Wait::Never => return Ok(None),
                _ => return Err(e),
            },
        }
    }
    Ok(Some(got))
}

/// Reads what the object has and writes the reply; false rather than wait, if `wait` says so.
fn read(
    node: &Node,
    object: &Object,
    call: ReadCall,
    table: TableEpoch,
    reply: &mut Message,
    wait: Wait,
) -> Result<bool, Refusal> {
    let Some(state) = object.shared(wait == Wait::Disk) else { return Ok(false) };
    let have = object.end().saturating_sub(call.offset).min(u64::from(call.count)) as usize;
    let head = ReadOkHead { attr: None, eof: false, data_len: 0 };
    // "I have no more", not "the file ends here": the µproxy knows the rest (docs/wire.md).
    let finish = |w: &mut BytesMut, got: usize| {
        encode_success(w, call.xid);
        ReadOkHead { eof: got < call.count as usize, data_len: got as u32, ..head }.encode_ok(w);
    };
    let Some(file) = state.bytes.as_deref().filter(|_| have > 0) else {
        finish(&mut reply.head, 0);
        trailer(&mut reply.head, table);
        return Ok(true);
    };
    let failed = |e: io::Error| Error::io("read", node.layout.path(call.file))(e);
    if have <= INLINE_BYTES {
        // The head's lengths are put right when it is known how much was read: their place does not move.
        finish(&mut reply.head, have);
        let at = reply.head.len();
        reply.head.resize(at + have, 0);
        let to = reply.head.get_mut(at..).unwrap_or_default();
        let Some(got) = fill(file, call.offset, to, wait).map_err(failed)? else {
            reply.head.clear();
            return Ok(false);
        };
        if got < have {
            // The file is shorter than we believe: somebody cuts it, or it was damaged.
            let data = reply.head.split_off(at);
            reply.head.clear();
            finish(&mut reply.head, got);
            reply.head.put_slice(data.get(..got).unwrap_or_default());
        }
        reply.head.put_bytes(0, padding(got));
        trailer(&mut reply.head, table);
        return Ok(true);
    }
    let mut buffer = Buffer::take(have);
    let Some(got) = fill(file, call.offset, buffer.front(have), wait).map_err(failed)? else {
        return Ok(false);
    };
    finish(&mut reply.head, got);
    reply.body = buffer.send(got);
    reply.tail.put_bytes(0, padding(got));
    trailer(&mut reply.tail, table);
    Ok(true)
}

/// Answers a READ of `sites`.
pub(crate) fn call(node: &Arc<Node>, call: ReadCall, reply: &mut Message) -> Handled {
    let sites = crate::service::sites(call.file, call.offset, call.count);
    match node.admission(call.table, sites.clone()) {
        Admission::No(why, table) => {
            refuse(&mut reply.head, call.xid, why.into(), NO_ATTR, table);
            return Handled::Done;
        }
        Admission::Yes(table) => {
            if let Some(object) = node.cache.get(call.file) {
                match read(node, &object, call, table, reply, Wait::Never) {
                    Ok(true) => return Handled::Done,
                    Ok(false) => {}
                    Err(why) => {
                        reply.head.clear();
                        refuse(&mut reply.head, call.xid, why, NO_ATTR, table);
                        return Handled::Done;
                    }
                }
            }
        }
        Admission::Wait => {}
    }
    let node = Arc::clone(node);
    Handled::Later(Box::pin(async move {
        let outcome = async {
            node.admit(call.table, sites).await?;
            let object = node.object(call.file).await?;
            let here = Arc::clone(&node);
            let work = move || {
                let mut reply = Message::default();
                let table = here.table().epoch;
                read(&here, &object, call, table, &mut reply, Wait::Disk).map(|_| reply)
            };
            node.blocking(work).await?
        };
        outcome.await.unwrap_or_else(|why| {
            let mut w = BytesMut::new();
            refuse(&mut w, call.xid, why, NO_ATTR, node.table().epoch);
            w.into()
        })
    }))
}
