//! A CREATE that finds its file there and sets its size (open with O_CREAT and O_TRUNC), where the file's home is a
//! peer's: the home executes a SETATTR in the client's name. It keeps the reply by the client's own xid, so that a
//! retransmission of the CREATE truncates nothing a second time.

use super::fail;
use super::talk::RETRY;
use crate::call::Call;
use crate::decide::{Op, Reply};
use crate::reply::Writer;
use crate::resize::Wanted;
use crate::routes::Routes;
use crate::server::Inner;
use bytes::BytesMut;
use slice_proto::handle::Handle;
use slice_proto::ids::{ServerId, Xid};
use slice_proto::nfs3::{NfsStat3, Proc3, Sattr3, SetattrArgs};
use slice_proto::rpc_msg::{AuthSys, ReplyHeader, ReplyStatus, encode_call, program, version};
use slice_proto::trailer::CallTrailer;
use slice_proto::xdr::{Encode, Put, Reader};
use slice_rpc::service::Message;
use std::sync::Arc;

/// Has the file's home set the size, and answers the CREATE.
pub(crate) async fn create_with_size(
    inner: &Arc<Inner>,
    routes: &Routes,
    call: &Call,
    op: &Op<'_>,
    wanted: &Wanted,
) -> BytesMut {
    let mut out = BytesMut::new();
    let Reply::Made { object, dir } = wanted.reply else {
        fail(inner, call, NfsStat3::SERVERFAULT, &mut out);
        return out;
    };
    let status = loop {
        let routes = inner.routes();
        if let Some(server) = routes.owner(wanted.file.home())
            && let Some(status) = setattr(inner, &routes, server, call, &object, wanted.size).await
        {
            break status;
        }
        inner.table_after(&routes, RETRY).await;
    };
    let dir_rec = if routes.home_is_mine(dir) { inner.state.attr(dir).ok().flatten() } else { None };
    let dir_rec = dir_rec.as_ref().map(|c| &c.rec);
    let mut w = Writer::new(&mut out, call.head.xid, status.0, inner.fsid(op.handle().volume));
    if status == NfsStat3::OK {
        w.w.put_bool(true);
        w.w.put_opaque(&routes.keys.seal(&object));
        // Its attributes are its home's to show.
        w.attr(object.file, None);
    }
    w.wcc(dir, dir_rec, dir_rec);
    w.finish(routes.epoch(), inner.now_ns());
    out
}

/// The status of the SETATTR; `None` if it must be asked again.
async fn setattr(
    inner: &Inner,
    routes: &Routes,
    server: ServerId,
    call: &Call,
    object: &Handle,
    size: u64,
) -> Option<NfsStat3> {
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
    // A private status: the table has changed.
    slice_proto::peer::PrivateStatus::from_u32(status).is_none().then_some(NfsStat3(status))
}
