//! Calls to peers.

use crate::server::Inner;
use bytes::BytesMut;
use slice_proto::ids::{ServerId, Xid};
use slice_proto::peer::{PROGRAM, PeerProc, PrivateStatus, VERSION};
use slice_proto::rpc_msg::{OpaqueAuth, ReplyHeader, ReplyStatus, encode_call};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::CallError;
use slice_rpc::service::Message;
use std::time::Duration;
use thiserror::Error;

/// How long to wait for a newer table before a server that failed a call is asked again.
pub(crate) const RETRY: Duration = Duration::from_millis(200);

/// Why a peer has not done what it was asked.
#[derive(Debug, Error)]
pub(crate) enum Trouble {
    /// No reply.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A reply that is none.
    #[error("the peer answered what is no answer")]
    Nonsense,
}

/// Calls a procedure of the private program.
///
/// # Errors
/// A [`Trouble`].
pub(crate) async fn ask<R: for<'a> Decode<'a>>(
    inner: &Inner,
    server: ServerId,
    proc: PeerProc,
    args: &impl Encode,
) -> Result<R, Trouble> {
    let mut w = BytesMut::new();
    encode_call(&mut w, Xid(0), PROGRAM, VERSION, proc as u32, &OpaqueAuth::NONE);
    args.encode(&mut w);
    let record = inner.directory.channel(server)?.call(Message::from(w)).await?;
    let header = ReplyHeader::decode(&record).map_err(|_| Trouble::Nonsense)?;
    if header.status != ReplyStatus::Success {
        return Err(Trouble::Nonsense);
    }
    R::decode(&mut Reader::at(&record, header.body_at)).map_err(|_| Trouble::Nonsense)
}

/// Whether a status says that the server does not own a site (any more).
pub(crate) const fn wrong_site(status: u32) -> bool {
    status == PrivateStatus::WrongSite as u32
}
