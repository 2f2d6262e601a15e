//! What a connection has still to send: small messages side by side in one buffer, bulk data where it lies, and all
//! of it in one system call.

use crate::buffers;
use crate::framing::{FrameError, MAX_RECORD};
use crate::service::Message;
use bytes::{Buf, Bytes, BytesMut};
use slice_proto::rpc_msg::{RECORD_MARK_LEN as MARK_LEN, record_mark};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Parts up to this many bytes are copied next to each other: cheaper than a segment of their own.
const COPY_MAX: usize = 8 << 10;

/// Most segments of one write. Bulk messages take two each; the kernel takes up to 1024.
const SLICES: usize = 64;

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct OutBuf {
    /// Segments before `tail`, first to be sent first.
    segments: VecDeque<Bytes>,
    /// Where small messages are put together; lent by the thread's stock while it is not empty.
    tail: BytesMut,
    len: usize,
    sent: u64,
}

impl OutBuf {
    /// An empty queue, which owns no memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Bytes sent since the beginning.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Queues a message behind its record mark and leaves it empty, to be used again.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] for a message beyond [`MAX_RECORD`]; nothing is queued.
    pub fn push(&mut self, message: &mut Message) -> Result<(), FrameError> {
        self.begin(message.len())?;
        self.own(&mut message.head);
        let body = std::mem::take(&mut message.body);
        self.share(&body);
        self.own(&mut message.tail);
        Ok(())
    }

    /// Queues a message that its owner keeps (to send it again if the connection breaks).
    ///
    /// # Errors
    /// As [`OutBuf::push`].
    pub fn push_shared(&mut self, parts: &[Bytes; 3]) -> Result<(), FrameError> {
        self.begin(parts.iter().map(Bytes::len).sum())?;
        parts.iter().for_each(|part| self.share(part));
        Ok(())
    }

    fn begin(&mut self, len: usize) -> Result<(), FrameError> {
        if len > MAX_RECORD {
            return Err(FrameError::TooLong { got: len, max: MAX_RECORD });
        }
        if self.tail.capacity() == 0 {
            self.tail = buffers::take_write();
        }
        self.tail.extend_from_slice(&record_mark(len));
        self.len += MARK_LEN + len;
        Ok(())
    }

    /// Takes all bytes out of `part`; a long one changes owners.
    fn own(&mut self, part: &mut BytesMut) {
        if part.len() > COPY_MAX {
            self.segment(part.split().freeze());
        } else {
            self.tail.extend_from_slice(part);
            part.clear();
        }
    }

    fn share(&mut self, part: &Bytes) {
        if part.len() > COPY_MAX {
            self.segment(part.clone());
        } else {
            self.tail.extend_from_slice(part);
        }
    }

    fn segment(&mut self, part: Bytes) {
        if !self.tail.is_empty() {
            self.segments.push_back(self.tail.split().freeze());
        }
        self.segments.push_back(part);
    }

    /// Fills `slices` with what is to be sent first; returns how many are filled.
    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let parts = self.segments.iter().map(|s| &s[..]).chain(std::iter::once(&self.tail[..]));
        slices.iter_mut().zip(parts.filter(|p| !p.is_empty())).map(|(s, p)| *s = IoSlice::new(p)).count()
    }

    /// Forgets the first `n` bytes: they are sent.
    fn advance(&mut self, mut n: usize) {
        self.len = self.len.saturating_sub(n);
        self.sent += n as u64;
        while let Some(front) = self.segments.front_mut() {
            if front.len() > n {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.segments.pop_front();
        }
        if n < self.tail.len() {
            self.tail.advance(n);
        } else {
            // Everything is sent: the connection owns no buffer until it has something to say again.
            buffers::give_write(std::mem::take(&mut self.tail));
        }
    }

    /// Forgets everything: the connection is gone.
    pub fn clear(&mut self) {
        self.segments = VecDeque::new();
        self.len = 0;
        buffers::give_write(std::mem::take(&mut self.tail));
    }

    /// Writes as much as the socket takes. Ready once nothing waits.
    ///
    /// # Errors
    /// What the socket fails with; a socket that takes nothing is `WriteZero`.
    pub fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.len > 0 {
            let sent = if self.segments.is_empty() {
                ready!(Pin::new(&mut *socket).poll_write(cx, &self.tail))?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let filled = self.slices(&mut slices);
                let slices = slices.get(..filled).unwrap_or_default();
                ready!(Pin::new(&mut *socket).poll_write_vectored(cx, slices))?
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::Framer;
    use proptest::prelude::*;
    use std::task::Waker;

    /// A socket that takes so many bytes at a time, and blocks where the script says 0.
    struct Slow {
        script: Vec<usize>,
        at: usize,
        got: Vec<u8>,
    }

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let n = self.script[self.at % self.script.len()].min(buf.len());
            self.at += 1;
            self.got.extend_from_slice(&buf[..n]);
            if n == 0 { Poll::Pending } else { Poll::Ready(Ok(n)) }
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let most = self.script[self.at % self.script.len()];
            self.at += 1;
            let before = self.got.len();
            for buf in bufs {
                let n = (most + before - self.got.len()).min(buf.len());
                self.got.extend_from_slice(&buf[..n]);
            }
            let n = self.got.len() - before;
            if n == 0 { Poll::Pending } else { Poll::Ready(Ok(n)) }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn part() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            3 => prop::collection::vec(any::<u8>(), 0..200),
            1 => (COPY_MAX - 2..COPY_MAX * 3).prop_map(|n| vec![n as u8; n]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever is queued and however slowly the socket takes it, the same records arrive in order.
        #[test]
        fn what_is_queued_arrives(
            messages in prop::collection::vec((part(), part(), part(), any::<bool>()), 1..20),
            mut script in prop::collection::vec(prop_oneof![Just(0usize), 1usize..50, 1usize..40_000], 1..20),
        ) {
            script.push(7); // something is taken in the end
            let mut slow = Slow { script, at: 0, got: Vec::new() };
            let mut out = OutBuf::new();
            let mut cx = Context::from_waker(Waker::noop());
            let mut want = Vec::new();
            for (head, body, tail, shared) in &messages {
                want.push([&head[..], body, tail].concat());
                if *shared {
                    let parts = [head, body, tail].map(|p| Bytes::copy_from_slice(p));
                    out.push_shared(&parts).unwrap();
                } else {
                    let mut message =
                        Message { head: head[..].into(), body: body.clone().into(), tail: tail[..].into() };
                    out.push(&mut message).unwrap();
                    prop_assert!(message.is_empty());
                }
                let _ = out.poll_flush(&mut slow, &mut cx);
            }
            while out.poll_flush(&mut slow, &mut cx).is_pending() {}
            prop_assert_eq!((out.len(), out.sent() as usize), (0, slow.got.len()));
            let (mut framer, mut stream, mut got) = (Framer::new(MAX_RECORD), BytesMut::from(&slow.got[..]), Vec::new());
            while let Some(record) = framer.next(&mut stream).unwrap() {
                got.push(record.to_vec());
            }
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn a_message_longer_than_a_record_is_refused_and_nothing_is_queued() {
        let mut out = OutBuf::new();
        let mut message = Message { body: Bytes::from(vec![0; MAX_RECORD + 1]), ..Message::default() };
        assert!(out.push(&mut message).is_err());
        assert!(out.is_empty());
    }

    #[test]
    fn an_empty_queue_owns_no_buffer() {
        let mut out = OutBuf::new();
        let mut slow = Slow { script: vec![usize::MAX], at: 0, got: Vec::new() };
        out.push(&mut Message::from(BytesMut::from(&[1; 100][..]))).unwrap();
        assert!(out.poll_flush(&mut slow, &mut Context::from_waker(Waker::noop())).is_ready());
        assert_eq!(out.tail.capacity(), 0);
    }
}
