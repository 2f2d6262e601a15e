//! From a record to the procedure that answers it.

use crate::call::{Bad, Call, Head, credential};
use crate::push::{self, Told};
use crate::read::{self, Read};
use crate::server::{DirServer, Inner};
use crate::tx::{peer, recover};
use crate::{lists, readdir, repair, tx};
use bytes::BytesMut;
use slice_proto::ids::{Role, Xid};
use slice_proto::nfs3::{NfsStat3, Proc3};
use slice_proto::peer::PeerProc;
use slice_proto::peer::attrs::{PushArgs, RaiseArgs};
use slice_proto::peer::dir::{
    ConfirmArgs, DropArgs, HoldArgs, ListAttrsArgs, ListEntriesArgs, ReconcileArgs,
};
use slice_proto::peer::repair::{InspectArgs, RepairArgs, RepairRes};
use slice_proto::rpc_msg::{
    CallHeader, ReplyStatus, RpcError, encode_reply, encode_success, program, version,
};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::service::{Handled, Message, Peer, Service};
use std::sync::Arc;

impl Service for DirServer {
    fn call(&self, from: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let header = match CallHeader::decode(&record) {
            Ok(header) => header,
            Err(RpcError::Version { xid, .. }) => {
                encode_reply(&mut reply.head, xid, ReplyStatus::RPC_MISMATCH);
                return Handled::Done;
            }
            Err(RpcError::NotACall(_)) => return Handled::Close,
        };
        let xid = header.xid;
        if (header.prog, header.vers, header.proc) == (program::NFS, version::NFS3, Proc3::Null as u32) {
            // Who only asks whether we are here need not be a µproxy.
            self.inner.counters.nfs(Proc3::Null);
            encode_success(&mut reply.head, xid);
            return Handled::Done;
        }
        let refused = match (header.prog, header.vers) {
            (program::NFS, version::NFS3) => match nfs_head(&header, &record) {
                Ok(head) => return nfs(&self.inner, record, head, reply),
                Err(refused) => refused,
            },
            (slice_proto::peer::PROGRAM, slice_proto::peer::VERSION) => {
                let proc = header.proc;
                let admin = matches!(from.proved, Some((Role::Admin, _)));
                let args = Reader::at(&record, header.args_at);
                match private(&self.inner, admin, xid, proc, args, reply) {
                    Ok(handled) => return handled,
                    Err(refused) => refused,
                }
            }
            (program::NFS, _) => ReplyStatus::ProgMismatch { low: version::NFS3, high: version::NFS3 },
            (slice_proto::peer::PROGRAM, _) => {
                let only = slice_proto::peer::VERSION;
                ReplyStatus::ProgMismatch { low: only, high: only }
            }
            _ => ReplyStatus::ProgUnavail,
        };
        reply.head.clear();
        encode_reply(&mut reply.head, xid, refused);
        Handled::Done
    }
}

fn nfs_head(header: &CallHeader<'_>, record: &[u8]) -> Result<Head, ReplyStatus> {
    let proc = Proc3::from_u32(header.proc).ok_or(ReplyStatus::ProcUnavail)?;
    let cred = credential(header).map_err(ReplyStatus::AuthError)?;
    Head::new(header, proc, cred, record).map_err(|_| ReplyStatus::GarbageArgs)
}

/// An NFS procedure.
fn nfs(inner: &Arc<Inner>, record: BytesMut, head: Head, out: &mut Message) -> Handled {
    inner.counters.nfs(head.proc);
    match head.proc {
        Proc3::Getattr | Proc3::Lookup | Proc3::Access | Proc3::Readlink => {
            reading(inner, record, head, out, read::read)
        }
        Proc3::Readdir | Proc3::Readdirplus => reading(inner, record, head, out, readdir::readdir),
        Proc3::Setattr
        | Proc3::Create
        | Proc3::Mkdir
        | Proc3::Symlink
        | Proc3::Mknod
        | Proc3::Remove
        | Proc3::Rmdir
        | Proc3::Rename
        | Proc3::Link => tx::mutate(inner, Call::new(record, head), out),
        // Answered above; data; and what the µproxy answers itself.
        Proc3::Null
        | Proc3::Read
        | Proc3::Write
        | Proc3::Commit
        | Proc3::Fsstat
        | Proc3::Fsinfo
        | Proc3::Pathconf => {
            encode_reply(&mut out.head, head.xid, ReplyStatus::ProcUnavail);
            Handled::Done
        }
    }
}

type Reads = fn(&Inner, &Head, &[u8], &mut BytesMut) -> Result<Read, Bad>;

/// A procedure that changes nothing.
fn reading(inner: &Arc<Inner>, record: BytesMut, head: Head, out: &mut Message, read: Reads) -> Handled {
    match read(inner, &head, head.args(&record), &mut out.head) {
        Ok(Read::Done(due)) if inner.is_due(&due) => Handled::Done,
        Err(_) => {
            out.head.clear();
            encode_reply(&mut out.head, head.xid, ReplyStatus::GarbageArgs);
            Handled::Done
        }
        Ok(first) => {
            let (inner, reply) = (Arc::clone(inner), std::mem::take(&mut out.head));
            let call = Call::new(record, head);
            Handled::Later(Box::pin(
                async move { read_later(&inner, &call, first, reply, read).await.into() },
            ))
        }
    }
}

async fn read_later(
    inner: &Arc<Inner>,
    call: &Call,
    mut at: Read,
    mut reply: BytesMut,
    read: Reads,
) -> BytesMut {
    loop {
        match at {
            Read::Done(due) => return tx::when_due(inner, call, due, reply).await,
            // An error is as good: who held it has gone away.
            Read::Held(turn) => drop(turn.await),
            Read::Table => inner.table_at_least(call.head.trailer.table).await,
        }
        reply.clear();
        at = match read(inner, &call.head, call.args(), &mut reply) {
            Ok(next) => next,
            Err(bad) => {
                reply.clear();
                tx::refuse(inner, call, bad, &mut reply);
                return reply;
            }
        };
    }
}

/// Writes a result at once.
fn answer(out: &mut Message, xid: Xid, res: &impl Encode) -> Handled {
    encode_success(&mut out.head, xid);
    res.encode(&mut out.head);
    Handled::Done
}

/// Writes a result when it comes.
fn later<R: Encode>(xid: Xid, res: impl Future<Output = R> + 'static) -> Handled {
    Handled::Later(Box::pin(async move {
        let res = res.await;
        let mut w = BytesMut::new();
        encode_success(&mut w, xid);
        res.encode(&mut w);
        w.into()
    }))
}

/// A procedure of the private program; `admin`: whether the caller is one.
fn private(
    inner: &Arc<Inner>,
    admin: bool,
    xid: Xid,
    proc: u32,
    mut r: Reader<'_>,
    out: &mut Message,
) -> Result<Handled, ReplyStatus> {
    inner.counters.peer(proc);
    let r = &mut r;
    let garbage = |_| ReplyStatus::GarbageArgs;
    let shared = || Arc::clone(inner);
    Ok(match PeerProc::from_u32(proc).ok_or(ReplyStatus::ProcUnavail)? {
        PeerProc::Null => {
            encode_success(&mut out.head, xid);
            Handled::Done
        }
        PeerProc::Push => {
            let args = PushArgs::decode(r).map_err(garbage)?;
            push::handle(inner, xid, Told::Push(args), out)
        }
        PeerProc::RaiseReach => {
            let args = RaiseArgs::decode(r).map_err(garbage)?;
            push::handle(inner, xid, Told::Raise(args), out)
        }
        PeerProc::Hold => {
            let args = HoldArgs::decode(r).map_err(garbage)?;
            later(xid, peer::hold(shared(), args))
        }
        PeerProc::Confirm | PeerProc::Owe => {
            let args = ConfirmArgs::decode(r).map_err(garbage)?;
            later(xid, peer::confirm(shared(), args))
        }
        PeerProc::Drop => {
            let args = DropArgs::decode(r).map_err(garbage)?;
            later(xid, peer::drop_op(shared(), args))
        }
        PeerProc::Reconcile => {
            let args = ReconcileArgs::decode(r).map_err(garbage)?;
            answer(out, xid, &recover::reconcile(inner, &args))
        }
        PeerProc::ListAttrs => {
            let args = ListAttrsArgs::decode(r).map_err(garbage)?;
            answer(out, xid, &lists::attrs(inner, &args))
        }
        PeerProc::ListEntries => {
            let args = ListEntriesArgs::decode(r).map_err(garbage)?;
            answer(out, xid, &lists::entries(inner, &args))
        }
        PeerProc::Settled => answer(out, xid, &lists::settled(inner)),
        PeerProc::Inspect => {
            let args = InspectArgs::decode(r).map_err(garbage)?;
            later(xid, repair::inspect(shared(), args))
        }
        // Servers and µproxies have no business with it, whatever they believe.
        PeerProc::Repair if !admin => answer(out, xid, &RepairRes { status: NfsStat3::PERM.0, done: false }),
        PeerProc::Repair => {
            let args = RepairArgs::decode(r).map_err(garbage)?;
            later(xid, repair::repair(shared(), args))
        }
        _ => return Err(ReplyStatus::ProcUnavail),
    })
}
