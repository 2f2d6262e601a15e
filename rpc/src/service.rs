//! What a server is to the engine: something that answers call records.

use crate::server::Connection;
use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use slice_metrics::Phases;
use slice_proto::ids::{Role, ServerId};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

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

    /// The message as one record: `head` itself where there is nothing more, else everything copied together.
    #[must_use]
    pub fn into_record(mut self) -> BytesMut {
        if !self.body.is_empty() || !self.tail.is_empty() {
            self.head.reserve(self.body.len() + self.tail.len());
            self.head.extend_from_slice(&self.body);
            self.head.extend_from_slice(&self.tail);
        }
        self.head
    }
}

/// The second word of a call or reply record (RFC 5531 section 9: `msg_type`).
pub(crate) fn message_type(record: &[u8]) -> Option<u32> {
    record.get(4..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

impl From<BytesMut> for Message {
    fn from(head: BytesMut) -> Self {
        Self { head, ..Self::default() }
    }
}

/// What a service makes of one call.
pub enum Handled {
    /// The reply stands in the caller's `reply` message: the common case, answered on this very thread.
    /// An empty reply is none: the call is dropped without a word.
    Done,
    /// The reply comes later: it waits for a disk or a peer. Polled on the thread that made the call.
    Later(LocalBoxFuture<'static, Message>),
    /// No reply, and the connection is closed: the peer does not speak our protocol.
    Close,
    /// Only from a [`LocalService`]: the reply is given, now or later, to the [`Connection`] by exactly one
    /// [`Connection::reply`] or [`Connection::forget`], so that forwarding a request needs no future.
    Detached,
}

/// A server's handler, shared by all threads. A call must not block: what waits goes into [`Handled::Later`].
pub trait Service: Send + Sync + 'static {
    /// Handles one complete call record (no record mark). `reply` is empty and may be reused between calls.
    fn call(&self, peer: &Peer, record: BytesMut, reply: &mut Message) -> Handled;

    /// Handles a call that comes in parts through the in-process channel. A server of bulk data overrides this to
    /// take a WRITE's bytes from `call.body` without a copy; all others get the parts copied together.
    fn call_message(&self, peer: &Peer, call: Message, reply: &mut Message) -> Handled {
        self.call(peer, call.into_record(), reply)
    }
}

/// A handler that lives on one thread, with that thread's own state: the µproxy.
pub trait LocalService: 'static {
    /// Handles one complete call record that came in on `connection`. `reply` is empty.
    fn call(&self, connection: &Connection, record: BytesMut, reply: &mut Message) -> Handled;

    /// A connection was accepted (and its hello, where one is asked for, is done).
    fn opened(&self, _connection: &Connection) {}

    /// A connection is gone: replies to it are thrown away from now on.
    fn closed(&self, _connection: &Connection) {}

    /// Where the time that its connections take to receive and to send is counted, if anywhere.
    fn phases(&self) -> Option<Rc<Phases>> {
        None
    }
}

impl LocalService for Arc<dyn Service> {
    fn call(&self, connection: &Connection, record: BytesMut, reply: &mut Message) -> Handled {
        Service::call(&**self, connection.peer(), record, reply)
    }
}
