//! What a server is to the engine: something that answers call records.

use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use slice_proto::ids::{Role, ServerId};
use std::net::SocketAddr;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address; unspecified for the in-process channel.
    pub addr: SocketAddr,
    /// Its role and id, proved by the hello; `None` before the hello, and for NFS clients.
    pub proved: Option<(Role, ServerId)>,
}

/// One whole RPC message, without record marks. `head` always holds the RPC header and all fixed fields;
/// bulk data may follow in `body` so that it is written to the socket from where it lies.
/// On the wire the message is `head ‖ body ‖ tail`.
#[derive(Debug, Default)]
pub struct Message {
    /// Header, fixed fields, and everything of a small message.
    pub head: BytesMut,
    /// Bulk data, empty for small messages.
    pub body: Bytes,
    /// What follows the bulk data: padding, trailer.
    pub tail: BytesMut,
}

impl Message {
    /// Total length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len() + self.tail.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<BytesMut> for Message {
    fn from(head: BytesMut) -> Self {
        Self { head, ..Self::default() }
    }
}

/// What a service makes of one call.
pub enum Handled {
    /// The reply stands in the caller's `reply` message: the common case, answered on this very thread.
    Done,
    /// The reply comes later: it waits for a disk or a peer. Polled on the thread that made the call.
    Later(LocalBoxFuture<'static, Message>),
    /// No reply, and the connection is closed: the peer does not speak our protocol.
    Close,
}

/// A server's handler, shared by all threads. A call must not block: what waits goes into [`Handled::Later`].
pub trait Service: Send + Sync + 'static {
    /// Handles one complete call record (no record mark). `reply` is empty and may be reused between calls.
    fn call(&self, peer: &Peer, record: BytesMut, reply: &mut Message) -> Handled;
}
