//! Records in, records out.

use crate::commit::{self, CommitCall, NO_WCC};
use crate::core::LIMIT;
use crate::node::Node;
use crate::read::{self, NO_ATTR, ReadCall};
use crate::reply::{Refusal, refuse, rpc_status, trailer};
use crate::server::SmallFileStore;
use crate::write::{self, WriteCall};
use crate::{list, truncate};
use bytes::BytesMut;
use slice_proto::ids::Xid;
use slice_proto::nfs3::peek::{extent_at, write_at};
use slice_proto::nfs3::{NfsStat3, Proc3};
use slice_proto::peer::data::DataRes;
use slice_proto::peer::{self, PeerProc};
use slice_proto::rpc_msg::{CallHeader, ReplyStatus, RpcError, encode_success, program, version};
use slice_proto::trailer::CallTrailer;
use slice_proto::xdr::{Decode, Encode, Reader, XdrError};
use slice_rpc::service::{Handled, Message, Peer, Service};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The offset of a range, if bytes there can be ours at all.
fn first(offset: u64) -> Result<u32, Refusal> {
    u32::try_from(offset).ok().filter(|o| *o < LIMIT).ok_or(NfsStat3::INVAL.into())
}

fn count(calls: &AtomicU64) {
    calls.fetch_add(1, Ordering::Relaxed);
}

// === impl Service ===

impl Service for SmallFileStore {
    fn call(&self, _peer: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let (xid, prog, vers, proc, args_at) = match CallHeader::decode(&record) {
            Ok(h) => (h.xid, h.prog, h.vers, h.proc, h.args_at),
            Err(RpcError::NotACall(_)) => return Handled::Close,
            Err(RpcError::Version { xid, .. }) => return done(reply, xid, ReplyStatus::RPC_MISMATCH),
        };
        match (prog, vers) {
            (program::NFS, version::NFS3) => nfs(self.node(), xid, proc, args_at, record, reply),
            (program::NFS, _) => {
                done(reply, xid, ReplyStatus::ProgMismatch { low: version::NFS3, high: version::NFS3 })
            }
            (peer::PROGRAM, peer::VERSION) => private(self.node(), xid, proc, args_at, &record, reply),
            (peer::PROGRAM, _) => {
                done(reply, xid, ReplyStatus::ProgMismatch { low: peer::VERSION, high: peer::VERSION })
            }
            _ => done(reply, xid, ReplyStatus::ProgUnavail),
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
            let checked = first(at.offset)
                .and_then(|o| Ok((o, node.open_handle(front.get(at.file).unwrap_or_default())?.file)));
            match checked {
                Ok((offset, file)) => {
                    let call = ReadCall { xid, table: behind.table, file, offset, count: at.count };
                    read::call(node, call, reply)
                }
                Err(why) => refused(node, xid, why, NO_ATTR, reply),
            }
        }
        Some(Proc3::Write) => {
            count(&node.calls.write);
            let Ok(at) = write_at(front, args_at) else { return done(reply, xid, ReplyStatus::GarbageArgs) };
            let checked = first(at.extent.offset).and_then(|o| {
                if at.extent.count as usize != at.data.len() || at.data.len() > (LIMIT - o) as usize {
                    return Err(NfsStat3::INVAL.into());
                }
                Ok((o, node.open_handle(front.get(at.extent.file).unwrap_or_default())?.file))
            });
            match checked {
                Ok((offset, file)) => {
                    let (table, epoch) = (behind.table, behind.epoch);
                    let (stable, data) = (at.stable, at.data);
                    let call = WriteCall { xid, table, epoch, file, offset, stable, data };
                    write::call(node, call, record, reply)
                }
                Err(why) => refused(node, xid, why, NO_WCC, reply),
            }
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
            data_later(xid, Arc::clone(node), truncate::truncate(here, a))
        }),
        Some(PeerProc::Purge) => args(record, args_at).map(|a| {
            count(&node.calls.purge);
            data_later(xid, Arc::clone(node), truncate::purge(here, a))
        }),
        Some(PeerProc::Extend) => args(record, args_at).map(|a| {
            count(&node.calls.extend);
            data_later(xid, Arc::clone(node), truncate::extend(here, a))
        }),
        Some(PeerProc::Stat) => args(record, args_at).map(|a| {
            count(&node.calls.stat);
            later(xid, list::stat(here, a))
        }),
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

/// The reply of TRUNCATE, PURGE and EXTEND.
fn data_later(
    xid: Xid,
    node: Arc<Node>,
    result: impl Future<Output = truncate::Outcome> + 'static,
) -> Handled {
    later(xid, async move {
        let (outcome, epoch) = result.await;
        let status = outcome.err().map_or(NfsStat3::OK.0, |why| why.0);
        DataRes { status, epoch, table: node.table().epoch }
    })
}
