//! Replies: a status that a caller is to see, and what every reply ends with.

use crate::error::Error;
use bytes::{BufMut, BytesMut};
use slice_proto::ids::{TableEpoch, Xid};
use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::PrivateStatus;
use slice_proto::rpc_msg::{ReplyStatus, encode_reply, encode_success};
use slice_proto::trailer::ResultTrailer;
use slice_rpc::service::Message;

/// What a caller is told instead of a result: an nfsstat3 or a private status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal(pub u32);

// === impl From ===

impl From<NfsStat3> for Refusal {
    fn from(s: NfsStat3) -> Self {
        Self(s.0)
    }
}

impl From<PrivateStatus> for Refusal {
    fn from(s: PrivateStatus) -> Self {
        Self(s as u32)
    }
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Self {
        let status = e.status();
        if status == NfsStat3::IO {
            tracing::warn!(error = %e, "an operation failed");
        }
        status.into()
    }
}

impl From<slice_store::Error> for Refusal {
    fn from(e: slice_store::Error) -> Self {
        Error::from(e).into()
    }
}

/// Appends what stands behind every NFS result: no attribute is ours to give, and we keep no ensemble time.
pub(crate) fn trailer(w: &mut BytesMut, table: TableEpoch) {
    ResultTrailer::append_parts(w, &[], table, 0);
}

/// Whether a status is private: then nothing but the trailer follows it.
fn is_private(status: u32) -> bool {
    PrivateStatus::from_u32(status).is_some()
}

/// An NFS failure. Each of READ, WRITE and COMMIT carries optional attributes after a failure's status: `absent` of them.
pub(crate) fn refuse(w: &mut BytesMut, xid: Xid, why: Refusal, absent: usize, table: TableEpoch) {
    encode_success(w, xid);
    w.put_u32(why.0);
    if !is_private(why.0) {
        (0..absent).for_each(|_| w.put_u32(0));
    }
    trailer(w, table);
}

/// A whole reply that is an RPC status.
pub(crate) fn rpc_status(xid: Xid, status: ReplyStatus) -> Message {
    let mut w = BytesMut::new();
    encode_reply(&mut w, xid, status);
    w.into()
}
