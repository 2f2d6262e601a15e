//! One TCP connection with many calls in flight.
//!
//! ```text
//! caller ──start()──▶ out ─┐                     ┌─▶ pending[xid] ──wakes──▶ caller
//! caller ──start()──▶ out ─┤ one task a connection │
//! caller ──start()──▶ out ─┘ one write a wake-up    └── every record that one read brought
//! ```
//!
//! Nothing here is `Send`: connection and callers share a thread, so a call costs no lock and no hop.

use crate::Error;
use crate::frame::{self, Deframer, Frame};
use bytes::{Bytes, BytesMut};
use slice_proto::ids::Xid;
use slice_proto::rpc_msg::{ReplyHeader, ReplyStatus, encode_call, peek_xid};
use slice_proto::xdr::{Decode, Encode, Reader};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Room that every read is given, in bytes.
const READ_CHUNK: usize = 256 << 10;
/// Reads in one turn before callers get theirs.
const READS_PER_TURN: usize = 4;

/// A connection. Clones share it; it closes when the last clone and the last outstanding call are gone.
#[derive(Debug, Clone)]
pub struct Conn {
    shared: Rc<RefCell<Shared>>,
    peer: SocketAddr,
}

#[derive(Debug, Default)]
struct Shared {
    out: BytesMut,
    pending: HashMap<Xid, Slot>,
    driver: Option<Waker>,
    broken: Option<Error>,
    next_xid: u32,
}

#[derive(Debug)]
enum Slot {
    Waiting(Option<Waker>),
    Done(Bytes),
}

/// A call that was started: resolves to its reply. Dropped, its reply is ignored.
#[derive(Debug)]
#[must_use = "a call does not report its failure if nobody waits for its reply"]
pub struct Pending {
    shared: Rc<RefCell<Shared>>,
    xid: Xid,
}

/// A successful reply.
#[derive(Debug, Clone)]
pub struct Reply {
    record: Bytes,
    body_at: usize,
}

// === impl Conn ===

impl Conn {
    /// Connects. Must run within a `LocalSet`, where the connection's task lives.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn connect(peer: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect(peer).await.map_err(Error::io(format!("connect to {peer}")))?;
        stream.set_nodelay(true).map_err(Error::io("set TCP_NODELAY"))?;
        let shared = Rc::new(RefCell::new(Shared { next_xid: rand::random(), ..Shared::default() }));
        tokio::task::spawn_local(Driver {
            stream,
            shared: Rc::clone(&shared),
            out: BytesMut::new(),
            buf: BytesMut::new(),
            deframer: Deframer::default(),
        });
        Ok(Self { shared, peer })
    }

    /// Whom it is connected to.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// A transaction id that no call of this connection has used lately.
    pub fn next_xid(&self) -> Xid {
        let mut shared = self.shared.borrow_mut();
        shared.next_xid = shared.next_xid.wrapping_add(1);
        Xid(shared.next_xid)
    }

    /// Starts a call. It is sent when the connection's task runs, with all others started until then.
    pub fn start(&self, prog: u32, vers: u32, proc: u32, cred: &impl Encode, args: &impl Encode) -> Pending {
        let xid = self.next_xid();
        self.enqueue(xid, |w| {
            encode_call(w, xid, prog, vers, proc, cred);
            args.encode(w);
        })
    }

    /// Starts a call whose whole record, xid included, the caller wrote: a retransmission, or a hostile one.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the record has no xid to know its reply by.
    pub fn start_record(&self, record: &[u8]) -> Result<Pending, Error> {
        let xid = peek_xid(record).ok_or(Error::Protocol("a record shorter than an xid has no reply"))?;
        Ok(self.enqueue(xid, |w| w.extend_from_slice(record)))
    }

    fn enqueue(&self, xid: Xid, message: impl FnOnce(&mut BytesMut)) -> Pending {
        let mut shared = self.shared.borrow_mut();
        if shared.broken.is_none() {
            frame::append(&mut shared.out, message);
            shared.pending.insert(xid, Slot::Waiting(None));
            wake(&mut shared.driver);
        }
        Pending { shared: Rc::clone(&self.shared), xid }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

// === impl Pending ===

impl Future for Pending {
    type Output = Result<Bytes, Error>;

    /// Resolves to the whole reply record.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut shared = self.shared.borrow_mut();
        match shared.pending.get_mut(&self.xid) {
            Some(Slot::Done(_)) => match shared.pending.remove(&self.xid) {
                Some(Slot::Done(record)) => Poll::Ready(Ok(record)),
                _ => Poll::Ready(Err(Error::Closed)),
            },
            Some(Slot::Waiting(waker)) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(Err(shared.broken.clone().unwrap_or(Error::Closed))),
        }
    }
}

impl Pending {
    /// The reply to a call that was executed.
    ///
    /// # Errors
    /// What broke the connection, or [`Error::Rpc`] if the call was not executed.
    pub async fn reply(self) -> Result<Reply, Error> {
        Reply::new(self.await?)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut shared = self.shared.borrow_mut();
        shared.pending.remove(&self.xid);
        // The last caller may just have gone: the connection's task looks whether it is still wanted.
        if Rc::strong_count(&self.shared) <= 2 {
            wake(&mut shared.driver);
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if Rc::strong_count(&self.shared) <= 2 {
            wake(&mut self.shared.borrow_mut().driver);
        }
    }
}

// === impl Reply ===

impl Reply {
    /// Takes the header off a reply record.
    ///
    /// # Errors
    /// [`Error::Xdr`] if it is no reply, [`Error::Rpc`] if the call was not executed.
    pub fn new(record: Bytes) -> Result<Self, Error> {
        let header = ReplyHeader::decode(&record)?;
        match header.status {
            ReplyStatus::Success => Ok(Self { record, body_at: header.body_at }),
            status => Err(Error::Rpc(status)),
        }
    }

    /// The results. Bytes behind them are an error: a server's private trailer must not reach a client.
    ///
    /// # Errors
    /// [`Error::Xdr`], [`Error::Trailing`].
    pub fn decode<'a, T: Decode<'a>>(&'a self) -> Result<T, Error> {
        let mut r = Reader::at(&self.record, self.body_at);
        let results = T::decode(&mut r)?;
        match r.remaining() {
            0 => Ok(results),
            left => Err(Error::Trailing(left)),
        }
    }

    /// The results, not decoded.
    #[must_use]
    pub fn results(&self) -> Bytes {
        self.record.slice(self.body_at.min(self.record.len())..)
    }

    /// The bytes of the whole record that `part` borrows, shared instead of copied.
    #[must_use]
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.record.slice_ref(part)
    }
}

/// The connection's task.
struct Driver {
    stream: TcpStream,
    shared: Rc<RefCell<Shared>>,
    /// What is being written, taken from [`Shared::out`] when the last of it was.
    out: BytesMut,
    buf: BytesMut,
    deframer: Deframer,
}

// === impl Driver ===

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let unwanted = Rc::strong_count(&this.shared) == 1;
        if unwanted {
            return Poll::Ready(());
        }
        this.shared.borrow_mut().driver = Some(cx.waker().clone());
        let outcome = match this.write(cx) {
            Ok(()) => this.read(cx),
            Err(error) => Poll::Ready(error),
        };
        outcome.map(|error| this.fail(error))
    }
}

impl Driver {
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        loop {
            if self.out.is_empty() {
                std::mem::swap(&mut self.out, &mut self.shared.borrow_mut().out);
            }
            if self.out.is_empty() {
                return Ok(());
            }
            match pin!(self.stream.write_buf(&mut self.out)).poll(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(Error::io("write")(error)),
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Reads what there is; resolves to why the connection is over.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        for _ in 0..READS_PER_TURN {
            self.buf.reserve(READ_CHUNK);
            match ready!(pin!(self.stream.read_buf(&mut self.buf)).poll(cx)) {
                Ok(0) => return Poll::Ready(Error::Closed),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Error::io("read")(error)),
            }
            if let Err(error) = self.deliver() {
                return Poll::Ready(error);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn deliver(&mut self) -> Result<(), Error> {
        loop {
            match self.deframer.next(&mut self.buf)? {
                Frame::Record(record) => {
                    let xid = peek_xid(&record).ok_or(Error::Protocol("a reply without an xid"))?;
                    // A reply that nobody waits for any more is ignored.
                    if let Some(slot) = self.shared.borrow_mut().pending.get_mut(&xid) {
                        let waiting = std::mem::replace(slot, Slot::Done(record));
                        if let Slot::Waiting(mut waker) = waiting {
                            wake(&mut waker);
                        }
                    }
                }
                Frame::Need(more) => {
                    // A large record is read into one piece of memory.
                    self.buf.reserve(more);
                    return Ok(());
                }
            }
        }
    }

    fn fail(&self, error: Error) {
        let mut shared = self.shared.borrow_mut();
        shared.broken = Some(error);
        shared.out.clear();
        // Replies that are there stay there; who waits for others is told.
        let waiting = shared.pending.extract_if(|_, slot| matches!(slot, Slot::Waiting(_)));
        let wakers: Vec<_> = waiting.collect();
        drop(shared);
        for (_, slot) in wakers {
            if let Slot::Waiting(mut waker) = slot {
                wake(&mut waker);
            }
        }
    }
}
