//! Reading one socket: through the thread's shared read chunk where records are small, into a buffer of its own size
//! where one is large.
//!
//! ```text
//!              ┌ small records ──▶ the thread's chunk ── split off, no copy ──▶ record
//!  socket ─────┤
//!              └ rest of a large one ──▶ its own buffer, read exactly to the record's end ──▶ record
//! ```
//! Between wake-ups a connection keeps only the part of a record that has come.

use crate::buffers::{self, READ_AT_ONCE};
use crate::framing::{FrameError, Framer};
use bytes::{BufMut, BytesMut};
use std::io;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Records longer than this get a buffer of their own as soon as their mark is seen.
const LARGE: usize = 16 << 10;

/// A record's own buffer has at most this size until so many bytes of it have really come: who claims a megabyte has
/// to send some of it first.
const CLAIM_MAX: usize = 64 << 10;

/// What is read after a large record: enough for the next one's mark and header, so that its data is not copied.
const AFTER_LARGE: usize = 4 << 10;

/// The reading half of a connection.
#[derive(Debug)]
pub(crate) struct Intake {
    framer: Framer,
    input: BytesMut,
    /// `input` is the thread's chunk.
    lent: bool,
    /// `input` is a large buffer of the thread's stock.
    large: bool,
    /// The last record was large: so is the next, presumably.
    after_large: bool,
}

impl Intake {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            framer: Framer::new(max),
            input: BytesMut::new(),
            lent: false,
            large: false,
            after_large: false,
        }
    }

    pub(crate) fn set_max(&mut self, max: usize) {
        self.framer.set_max(max);
    }

    /// The next record that has come in full.
    pub(crate) fn next(&mut self) -> Result<Option<BytesMut>, FrameError> {
        let record = self.framer.next(&mut self.input)?;
        if let Some(record) = &record {
            self.after_large = record.len() > LARGE;
        }
        Ok(record)
    }

    pub(crate) fn mid_record(&self) -> bool {
        self.framer.mid_record(&self.input)
    }

    /// One read. Ready with the number of bytes, 0 at the end of the stream.
    pub(crate) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let missing = self.framer.missing(&self.input).map_err(io::Error::other)?;
        let limit = if self.input.len() + missing > LARGE && missing > 0 {
            self.own(missing)
        } else {
            self.lend();
            if self.after_large && self.input.len() < AFTER_LARGE { AFTER_LARGE } else { READ_AT_ONCE }
        };
        let mut target = (&mut self.input).limit(limit);
        let read = std::pin::pin!(socket.read_buf(&mut target));
        let n = ready!(std::future::Future::poll(read, cx))?;
        Poll::Ready(Ok(n))
    }

    /// To be called when the wake-up is over: returns what is lent and keeps what has come of a record.
    pub(crate) fn settle(&mut self) {
        if self.lent {
            self.lent = false;
            let rest = match self.input.len() {
                0 => BytesMut::new(),
                // A short rest must not pin the chunk; a long one is worth pinning it.
                1..=READ_AT_ONCE => BytesMut::from(&self.input[..]),
                _ => self.input.split(),
            };
            buffers::give_chunk(std::mem::replace(&mut self.input, rest));
        } else if self.input.is_empty() {
            self.leave_own();
        }
    }

    /// Sees to it that `input` is the thread's chunk with room for a read.
    fn lend(&mut self) {
        if self.lent {
            self.input = buffers::fit_chunk(std::mem::take(&mut self.input));
            return;
        }
        let mut chunk = buffers::take_chunk();
        chunk.extend_from_slice(&self.input);
        self.leave_own();
        self.input = chunk;
        self.lent = true;
    }

    /// Sees to it that `input` is the record's own buffer; returns how much to read into it.
    fn own(&mut self, missing: usize) -> usize {
        let total = self.input.len() + missing;
        let room = self.input.capacity() - self.input.len();
        if !self.lent && (room >= missing || (room > 0 && self.input.len() < CLAIM_MAX && !self.after_large))
        {
            return room.min(missing);
        }
        let claim =
            if self.after_large || self.input.len() >= CLAIM_MAX { total } else { total.min(CLAIM_MAX) };
        let mut own = buffers::take_large(claim);
        own.extend_from_slice(&self.input);
        if self.lent {
            self.lent = false;
            buffers::give_chunk(std::mem::take(&mut self.input));
        } else {
            self.leave_own();
        }
        self.input = own;
        self.large = true;
        missing.min(claim - self.input.len())
    }

    fn leave_own(&mut self) {
        let handle = std::mem::take(&mut self.input);
        if std::mem::take(&mut self.large) {
            buffers::give_large(handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::MAX_RECORD;
    use proptest::prelude::*;
    use slice_proto::rpc_msg::record_mark;
    use std::pin::Pin;
    use std::task::Waker;
    use tokio::io::ReadBuf;

    /// A socket whose bytes come in pieces of these lengths; 0 is a pause.
    struct Pieces {
        bytes: Vec<u8>,
        at: usize,
        pieces: Vec<usize>,
        next: usize,
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let piece = self.pieces[self.next % self.pieces.len()];
            self.next += 1;
            if piece == 0 {
                return Poll::Pending;
            }
            let n = piece.min(buf.remaining()).min(self.bytes.len() - self.at);
            buf.put_slice(&self.bytes[self.at..self.at + n]);
            self.at += n;
            Poll::Ready(Ok(()))
        }
    }

    /// Reads everything, record by record, as a connection's task does; keeps some records alive for a while.
    fn read_all(pieces: &mut Pieces, kept: usize) -> Vec<Vec<u8>> {
        let (mut intake, mut got, mut held) = (Intake::new(MAX_RECORD), Vec::new(), Vec::new());
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let over = loop {
                while let Some(record) = intake.next().unwrap() {
                    got.push(record.to_vec());
                    held.push(record);
                    if held.len() > kept {
                        held.remove(0);
                    }
                }
                match intake.poll_fill(pieces, &mut cx) {
                    Poll::Pending => break false,
                    Poll::Ready(n) if n.as_ref().unwrap() == &0 => break true,
                    Poll::Ready(_) => {}
                }
            };
            intake.settle();
            assert!(!intake.lent);
            if over {
                assert!(!intake.mid_record());
                return got;
            }
        }
    }

    fn record() -> impl Strategy<Value = usize> {
        prop_oneof![6 => 0usize..300, 2 => LARGE - 8..LARGE + 8, 1 => CLAIM_MAX - 9..CLAIM_MAX * 3, 1 => Just(MAX_RECORD)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Small and large records in any order and however they are cut come out whole, whether or not the
        /// service keeps them.
        #[test]
        fn records_come_out_whole(
            lens in prop::collection::vec(record(), 1..24),
            mut pieces in prop::collection::vec(prop_oneof![Just(0usize), 1usize..2000, 1usize..200_000], 1..16),
            kept in 0usize..12,
        ) {
            pieces.push(4096); // it goes on in the end
            let want: Vec<Vec<u8>> = lens.iter().enumerate().map(|(i, n)| vec![i as u8; *n]).collect();
            let bytes = want.iter().flat_map(|r| [&record_mark(r.len())[..], r].concat()).collect();
            let mut pieces = Pieces { bytes, at: 0, pieces, next: 0 };
            prop_assert_eq!(read_all(&mut pieces, kept), want);
        }
    }

    #[test]
    fn who_claims_a_long_record_and_sends_little_gets_little_memory() {
        let bytes = [&record_mark(MAX_RECORD)[..], &[0; 100]].concat();
        let mut pieces = Pieces { bytes, at: 0, pieces: vec![50, 0], next: 0 };
        let (mut intake, mut cx) = (Intake::new(MAX_RECORD), Context::from_waker(Waker::noop()));
        for _ in 0..6 {
            let _ = intake.poll_fill(&mut pieces, &mut cx);
            assert_eq!(intake.next(), Ok(None));
            intake.settle();
        }
        assert!(intake.input.capacity() <= CLAIM_MAX, "{}", intake.input.capacity());
    }

    #[test]
    fn an_idle_connection_owns_no_buffer() {
        let bytes = [&record_mark(100)[..], &[0; 100]].concat();
        let mut pieces = Pieces { bytes, at: 0, pieces: vec![1000, 0], next: 0 };
        let (mut intake, mut cx) = (Intake::new(MAX_RECORD), Context::from_waker(Waker::noop()));
        let _ = intake.poll_fill(&mut pieces, &mut cx);
        assert!(intake.next().unwrap().is_some());
        intake.settle();
        assert_eq!(intake.input.capacity(), 0);
    }
}
