//! Records in, records out.

use crate::commit::{self, CommitCall, NO_WCC};
use crate::node::{BlockStore, Node};
use crate::read::{self, NO_ATTR, ReadCall};
use crate::reply::{Refusal, refuse, rpc_status, trailer};
use crate::write::{self, WriteCall};
use crate::{list, purge, truncate};
use bytes::{Bytes, BytesMut};
use slice_proto::ids::{Epoch, FileId, Site, Xid};
use slice_proto::nfs3::peek::{ExtentAt, extent_at, write_at};
use slice_proto::nfs3::{MAX_DATA, NfsStat3, Proc3, StableHow};
use slice_proto::peer::data::DataRes;
use slice_proto::peer::dir::SettledRes;
use slice_proto::peer::{self, PeerProc};
use slice_proto::placement::{MAX_FILE_SIZE, STRIPE_UNIT, THRESHOLD, block_site};
use slice_proto::rpc_msg::{CallHeader, ReplyStatus, RpcError, encode_success, program, version};
use slice_proto::trailer::CallTrailer;
use slice_proto::xdr::{Decode, Encode, Reader, XdrError, padding};
use slice_rpc::service::{Handled, Message, Peer, Service};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The storage sites of a byte range; one for an empty range.
pub(crate) fn sites(file: FileId, offset: u64, len: u32) -> impl Iterator<Item = Site> + Clone + use<> {
    let last = offset.saturating_add(u64::from(len).saturating_sub(1));
    (offset / STRIPE_UNIT..=last / STRIPE_UNIT).map(move |unit| block_site(file, unit * STRIPE_UNIT))
}

/// Whether bytes in this range can be ours at all.
fn check_range(offset: u64, len: u32) -> Result<(), Refusal> {
    if offset < THRESHOLD {
        return Err(NfsStat3::INVAL.into());
    }
    match offset.checked_add(u64::from(len)) {
        Some(end) if end <= MAX_FILE_SIZE => Ok(()),
        _ => Err(NfsStat3::FBIG.into()),
    }
}

fn count(calls: &AtomicU64) {
    calls.fetch_add(1, Ordering::Relaxed);
}

// === impl Service ===

impl Service for BlockStore {
    fn call(&self, _peer: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let (xid, prog, vers, proc, args_at) = match CallHeader::decode(&record) {
            Ok(h) => (h.xid, h.prog, h.vers, h.proc, h.args_at),
            Err(RpcError::NotACall(_)) => return Handled::Close,
            Err(RpcError::Version { xid, .. }) => return done(reply, xid, ReplyStatus::RPC_MISMATCH),
        };
        match (prog, vers) {
            (program::NFS, version::NFS3) => nfs(&self.node, xid, proc, args_at, record, reply),
            (program::NFS, _) => {
                done(reply, xid, ReplyStatus::ProgMismatch { low: version::NFS3, high: version::NFS3 })
            }
            (peer::PROGRAM, peer::VERSION) => private(&self.node, xid, proc, args_at, &record, reply),
            (peer::PROGRAM, _) => {
                done(reply, xid, ReplyStatus::ProgMismatch { low: peer::VERSION, high: peer::VERSION })
            }
            _ => done(reply, xid, ReplyStatus::ProgUnavail),
        }
    }

    fn call_message(&self, peer: &Peer, call: Message, reply: &mut Message) -> Handled {
        match write_parts(&call) {
            Some((xid, extent, stable, behind)) => {
                write(&self.node, xid, &call.head, &extent, stable, call.body, &behind, reply)
            }
            None => self.call(peer, call.into_record(), reply),
        }
    }
}

fn done(reply: &mut Message, xid: Xid, status: ReplyStatus) -> Handled {
    *reply = rpc_status(xid, status);
    Handled::Done
}

/// An NFS call with its trailer.
fn nfs(
    node: &Arc<Node>,
    xid: Xid,
    proc: u32,
    args_at: usize,
    record: BytesMut,
    reply: &mut Message,
) -> Handled {
    // Without a trailer it is none of our µproxies.
    let Ok((front, behind)) = CallTrailer::split(&record) else { return Handled::Close };
    match Proc3::from_u32(proc) {
        Some(Proc3::Null) => {
            encode_success(&mut reply.head, xid);
            trailer(&mut reply.head, node.table().epoch);
            Handled::Done
        }
        Some(Proc3::Read) => {
            count(&node.calls.read);
            let Ok(at) = extent_at(front, args_at) else { return done(reply, xid, ReplyStatus::GarbageArgs) };
            let length = at.count.min(MAX_DATA);
            let checked = check_range(at.offset, length)
                .and_then(|()| node.open_handle(front.get(at.file).unwrap_or_default()));
            match checked {
                Ok(h) => {
                    let (table, file, offset) = (behind.table, h.file, at.offset);
                    read::call(node, ReadCall { xid, table, file, offset, count: length }, reply)
                }
                Err(why) => refused(node, xid, why, NO_ATTR, reply),
            }
        }
        Some(Proc3::Write) => {
            let Ok(at) = write_at(front, args_at) else { return done(reply, xid, ReplyStatus::GarbageArgs) };
            let record = record.freeze();
            write(node, xid, &record, &at.extent, at.stable, record.slice(at.data), &behind, reply)
        }
        Some(Proc3::Commit) => {
            count(&node.calls.commit);
            let Ok(at) = extent_at(front, args_at) else { return done(reply, xid, ReplyStatus::GarbageArgs) };
            match node.open_handle(front.get(at.file).unwrap_or_default()) {
                Ok(h) => commit::call(node, CommitCall { xid, table: behind.table, file: h.file }, reply),
                Err(why) => refused(node, xid, why, NO_WCC, reply),
            }
        }
        _ => done(reply, xid, ReplyStatus::ProcUnavail),
    }
}

/// A WRITE, whose bytes stand in the record or came beside it.
#[allow(clippy::too_many_arguments)] // a call taken apart, by two ways
fn write(
    node: &Arc<Node>,
    xid: Xid,
    record: &[u8],
    extent: &ExtentAt,
    stable: StableHow,
    data: Bytes,
    behind: &CallTrailer,
    reply: &mut Message,
) -> Handled {
    count(&node.calls.write);
    let checked = check_range(extent.offset, data.len() as u32).and_then(|()| {
        if extent.count as usize != data.len() {
            return Err(NfsStat3::INVAL.into());
        }
        node.open_handle(record.get(extent.file.clone()).unwrap_or_default())
    });
    match checked {
        Ok(h) => {
            let (table, epoch, file, offset) = (behind.table, behind.epoch, h.file, extent.offset);
            write::call(node, WriteCall { xid, table, epoch, file, offset, stable, data }, reply)
        }
        Err(why) => refused(node, xid, why, NO_WCC, reply),
    }
}

/// A WRITE that came in parts: the head ends with the data's length, the body is the data, padding and trailer
/// are the tail.
fn write_parts(call: &Message) -> Option<(Xid, ExtentAt, StableHow, CallTrailer)> {
    let header = CallHeader::decode(&call.head).ok()?;
    let is_write =
        (header.prog, header.vers, header.proc) == (program::NFS, version::NFS3, Proc3::Write as u32);
    let extent = extent_at(&call.head, header.args_at).ok().filter(|_| is_write)?;
    // Behind the offset and the count.
    let mut r = Reader::at(&call.head, extent.offset_at + 12);
    let stable = StableHow::decode(&mut r).ok()?;
    let len = r.len(MAX_DATA).ok()? as usize;
    let (pad, behind) = CallTrailer::split(&call.tail).ok()?;
    let whole = r.remaining() == 0 && len == call.body.len() && pad.len() == padding(len);
    whole.then_some((header.xid, extent, stable, behind))
}

fn refused(node: &Node, xid: Xid, why: Refusal, absent: usize, reply: &mut Message) -> Handled {
    refuse(&mut reply.head, xid, why, absent, node.table().epoch);
    Handled::Done
}

/// Decodes the arguments of a private call: all of the record.
fn args<'a, T: Decode<'a>>(record: &'a [u8], at: usize) -> Result<T, XdrError> {
    let mut r = Reader::at(record, at);
    let args = T::decode(&mut r)?;
    match r.remaining() {
        0 => Ok(args),
        left => Err(XdrError::TooLong { got: record.len() as u32, max: (record.len() - left) as u32 }),
    }
}

/// A private call.
fn private(
    node: &Arc<Node>,
    xid: Xid,
    proc: u32,
    args_at: usize,
    record: &[u8],
    reply: &mut Message,
) -> Handled {
    let here = Arc::clone(node);
    let later = match PeerProc::from_u32(proc) {
        Some(PeerProc::Null) => {
            encode_success(&mut reply.head, xid);
            return Handled::Done;
        }
        Some(PeerProc::Truncate) => args(record, args_at).map(|a| {
            count(&node.calls.truncate);
            data_later(xid, Arc::clone(node), truncate::serve(here, a))
        }),
        Some(PeerProc::Purge) => args(record, args_at).map(|a| {
            count(&node.calls.purge);
            data_later(xid, Arc::clone(node), purge::serve(here, a))
        }),
        Some(PeerProc::Stat) => args(record, args_at).map(|a| {
            count(&node.calls.stat);
            later(xid, list::stat(here, a))
        }),
        Some(PeerProc::Settled) => {
            // Nothing here is owed to anybody: every call is done when it is answered.
            encode_success(&mut reply.head, xid);
            SettledRes { status: NfsStat3::OK.0, unsettled: 0 }.encode(&mut reply.head);
            return Handled::Done;
        }
        Some(PeerProc::ListObjects) => args(record, args_at).map(|a| {
            count(&node.calls.list);
            later(xid, list::list(here, a))
        }),
        _ => return done(reply, xid, ReplyStatus::ProcUnavail),
    };
    later.unwrap_or_else(|_| done(reply, xid, ReplyStatus::GarbageArgs))
}

/// A reply that is a structure of its own.
fn later<T: Encode>(xid: Xid, result: impl Future<Output = T> + 'static) -> Handled {
    Handled::Later(Box::pin(async move {
        let result = result.await;
        let mut w = BytesMut::new();
        encode_success(&mut w, xid);
        result.encode(&mut w);
        w.into()
    }))
}

/// The reply of TRUNCATE and PURGE.
fn data_later(
    xid: Xid,
    node: Arc<Node>,
    result: impl Future<Output = (Result<(), Refusal>, Epoch)> + 'static,
) -> Handled {
    later(xid, async move {
        let (outcome, epoch) = result.await;
        let status = outcome.err().map_or(NfsStat3::OK.0, |why| why.0);
        DataRes { status, epoch, table: node.table().epoch }
    })
}
