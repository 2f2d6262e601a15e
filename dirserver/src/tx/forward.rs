//! A CREATE that finds its file there and sets its size (open with O_CREAT and O_TRUNC), where the file's home is a
//! peer's: the home executes a SETATTR in the client's name. It keeps the reply by the client's own xid, so that a
//! retransmission of the CREATE truncates nothing a second time; and the CREATE's own reply is kept here, so that one that
//! comes after the name has gone makes no new file.

use super::talk::RETRY;
use super::{durable, fail};
use crate::call::Call;
use crate::decide::{Op, Reply};
use crate::error::Error;
use crate::replies::Running;
use crate::reply::Writer;
use crate::resize::Wanted;
use crate::routes::Routes;
use crate::server::Inner;
use crate::state::status_of;
use bytes::BytesMut;
use slice_proto::handle::Handle;
use slice_proto::ids::{ServerId, Xid};
use slice_proto::nfs3::{Fattr3, NfsStat3, Proc3, Res3, Sattr3, SetattrArgs, SetattrRes};
use slice_proto::peer::PrivateStatus;
use slice_proto::rpc_msg::{AuthSys, ReplyHeader, ReplyStatus, encode_call, program, version};
use slice_proto::trailer::{CallTrailer, ResultTrailer, Stamp};
use slice_proto::xdr::{Decode, Encode, Put, Reader};
use slice_rpc::service::Message;
use slice_store::{Batch, Ticket};
use std::sync::Arc;

/// Has the file's home set the size, and answers the CREATE; `None` if the file has gone meanwhile.
pub(crate) async fn create_with_size(
    inner: &Arc<Inner>,
    routes: &Routes,
    call: &Call,
    op: &Op<'_>,
    running: &Running,
    wanted: &Wanted,
) -> Option<BytesMut> {
    let mut out = BytesMut::new();
    let (Reply::Made { object, dir }, Some(volume)) = (wanted.reply, routes.volume(op.handle().volume))
    else {
        fail(inner, call, NfsStat3::SERVERFAULT, &mut out);
        return Some(out);
    };
    let (status, attr) = loop {
        let routes = inner.routes();
        if let Some(server) = routes.owner(wanted.file.home())
            && let Some(set) = setattr(inner, &routes, server, call, &object, wanted.size).await
        {
            break set;
        }
        inner.table_after(&routes, RETRY).await;
    };
    if status == NfsStat3::STALE {
        return None;
    }
    let dir_cell = if routes.home_is_mine(dir) { inner.state.attr(dir).ok().flatten() } else { None };
    let dir_rec = dir_cell.as_ref().map(|c| &c.rec);
    let mut w = Writer::new(&mut out, call.head.xid, status.0, inner.fsid(op.handle().volume));
    if status == NfsStat3::OK {
        w.w.put_bool(true);
        w.w.put_opaque(&routes.keys.seal(&object));
        // As its home has shown them: who reads them must learn that the file was cut.
        w.shown(attr.as_ref());
    }
    w.wcc(dir, dir_rec, dir_rec);
    w.finish(routes.epoch(), inner.now_ns());
    if status != NfsStat3::OK {
        running.refused(&out, dir_cell.map_or(Ticket::default(), |c| c.ticket));
        return Some(out);
    }
    let mut batch = Batch::new();
    let place = running.record(&mut batch, op.site(volume), 0, &out);
    // Durable after everything that the reply shows of the directory.
    match inner.state.store.submit(batch) {
        Ok(ticket) => {
            running.committed(place, ticket);
            Some(durable(inner, call, ticket, out).await)
        }
        Err(error) => {
            out.clear();
            fail(inner, call, status_of(&Error::Store(error)), &mut out);
            Some(out)
        }
    }
}

/// The status of the SETATTR and the attributes after it; `None` if it must be asked again.
async fn setattr(
    inner: &Inner,
    routes: &Routes,
    server: ServerId,
    call: &Call,
    object: &Handle,
    size: u64,
) -> Option<(NfsStat3, Option<(Fattr3, Stamp)>)> {
    let mut w = BytesMut::new();
    let cred = AuthSys { stamp: 0, machine: b"", cred: call.head.cred };
    encode_call(&mut w, Xid(0), program::NFS, version::NFS3, Proc3::Setattr as u32, &cred);
    let attr = Sattr3 { size: Some(size), ..Sattr3::default() };
    SetattrArgs { object: &routes.keys.seal(object), attr, guard: None }.encode(&mut w);
    CallTrailer { table: routes.epoch(), ..call.head.trailer }.append(&mut w);
    let reply = inner.directory.channel(server).ok()?.call(Message::from(w)).await.ok()?;
    let header = ReplyHeader::decode(&reply).ok()?;
    if header.status != ReplyStatus::Success {
        return None;
    }
    let status = Reader::at(&reply, header.body_at).u32().ok()?;
    if PrivateStatus::from_u32(status).is_some() {
        // The table has changed.
        return None;
    }
    let (_, trailer) = ResultTrailer::split(&reply).ok()?;
    let res = SetattrRes::decode(&mut Reader::at(&reply, header.body_at)).ok()?;
    let (Res3::Ok(wcc) | Res3::Err(_, wcc)) = res;
    Some((NfsStat3(status), wcc.after.zip(trailer.stamps().next())))
}
