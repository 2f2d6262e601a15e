//! Record marking (RFC 5531 section 11): a TCP stream as a sequence of records.
//!
//! ```text
//!  stream:   mark ‖ fragment ‖ mark ‖ fragment ‖ …
//!  mark:     bit 31: last fragment of its record; bits 30..0: length of the fragment in bytes, big-endian
//! ```
//!
//! [`Framer`] is a pure state machine over whatever bytes have come so far: it never reads, and it never
//! allocates by a length that the peer merely claims.

use bytes::{Buf, BytesMut};
use slice_proto::rpc_msg::{FRAGMENT_LENGTH, LAST_FRAGMENT, RECORD_MARK_LEN as MARK_LEN};
use thiserror::Error;

/// Longest record in bytes: 1 MiB of data (our rtmax and wtmax) and headroom for headers, names and trailers.
pub const MAX_RECORD: usize = (1 << 20) + (64 << 10);

/// Most fragments of one record: Sun's xdrrec cuts a 1 MiB record into about 260; more is an attack by empty fragments.
pub const MAX_FRAGMENTS: u32 = 1024;

/// Why a stream of bytes is not a stream of records that we accept. The connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The record is, or claims to be, longer than allowed.
    #[error("a record of at least {got} bytes exceeds the bound of {max}")]
    TooLong {
        /// Bytes of the record so far, the claimed fragment included.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// The record comes in too many fragments.
    #[error("a record in more than {MAX_FRAGMENTS} fragments")]
    TooManyFragments,
}

/// Takes records off the front of a stream.
#[derive(Debug)]
pub struct Framer {
    /// Fragments of the current record that have been taken off the stream, joined.
    joined: BytesMut,
    fragments: u32,
    max: usize,
}

impl Framer {
    /// A framer at the start of a stream that accepts records of at most `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { joined: BytesMut::new(), fragments: 0, max: max.min(MAX_RECORD) }
    }

    /// Changes the bound, from the next record mark on.
    pub fn set_max(&mut self, max: usize) {
        self.max = max.min(MAX_RECORD);
    }

    /// The next complete record in `input`, without its marks; `None` if it has not come in full. A record of one
    /// fragment is split off `input` without a copy.
    ///
    /// # Errors
    /// [`FrameError`], as soon as the offending mark is there; nothing can be read from the stream any more.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, FrameError> {
        loop {
            let Some((len, last)) = self.peek(input)? else { return Ok(None) };
            if input.len() < MARK_LEN + len {
                return Ok(None);
            }
            input.advance(MARK_LEN);
            let fragment = input.split_to(len);
            self.fragments += 1;
            match (last, self.fragments) {
                (true, 1) => {
                    self.fragments = 0;
                    return Ok(Some(fragment));
                }
                (true, _) => {
                    self.joined.extend_from_slice(&fragment);
                    self.fragments = 0;
                    return Ok(Some(std::mem::take(&mut self.joined)));
                }
                (false, _) => self.joined.extend_from_slice(&fragment),
            }
        }
    }

    /// Bytes of the current fragment, mark included, that are missing from `input`: 0 where its mark has not come
    /// in full, or nothing is missing.
    ///
    /// # Errors
    /// As [`Framer::next`].
    pub fn missing(&self, input: &BytesMut) -> Result<usize, FrameError> {
        Ok(self.peek(input)?.map_or(0, |(len, _)| (MARK_LEN + len).saturating_sub(input.len())))
    }

    /// Whether a record has begun and not ended.
    #[must_use]
    pub fn mid_record(&self, input: &BytesMut) -> bool {
        self.fragments > 0 || !input.is_empty()
    }

    /// Length of the fragment at the front of `input` and whether it is its record's last.
    fn peek(&self, input: &BytesMut) -> Result<Option<(usize, bool)>, FrameError> {
        let Some(mark) = input.first_chunk::<MARK_LEN>().map(|m| u32::from_be_bytes(*m)) else {
            return Ok(None);
        };
        let len = (mark & FRAGMENT_LENGTH) as usize;
        let got = self.joined.len() + len;
        if got > self.max {
            return Err(FrameError::TooLong { got, max: self.max });
        }
        if self.fragments >= MAX_FRAGMENTS {
            return Err(FrameError::TooManyFragments);
        }
        Ok(Some((len, mark & LAST_FRAGMENT != 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Records cut into fragments, as bytes of a stream.
    fn stream(records: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let mut out = Vec::new();
        for fragments in records {
            for (i, f) in fragments.iter().enumerate() {
                let last = if i + 1 == fragments.len() { LAST_FRAGMENT } else { 0 };
                out.extend_from_slice(&(last | f.len() as u32).to_be_bytes());
                out.extend_from_slice(f);
            }
        }
        out
    }

    fn drain(framer: &mut Framer, input: &mut BytesMut) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut got = Vec::new();
        while let Some(record) = framer.next(input)? {
            got.push(record.to_vec());
        }
        Ok(got)
    }

    proptest! {
        /// However the network cuts the stream, the same records come out.
        #[test]
        fn any_split_gives_the_same_records(
            records in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..5), 0..12),
            cuts in prop::collection::vec(1usize..40, 1..64),
        ) {
            let bytes = stream(&records);
            let want: Vec<Vec<u8>> = records.iter().map(|r| r.concat()).collect();
            let (mut framer, mut input, mut got) = (Framer::new(MAX_RECORD), BytesMut::new(), Vec::new());
            let (mut at, mut cut) = (0, cuts.iter().cycle());
            while at < bytes.len() {
                let end = (at + cut.next().unwrap()).min(bytes.len());
                input.extend_from_slice(&bytes[at..end]);
                at = end;
                got.extend(drain(&mut framer, &mut input).unwrap());
                // What is said to be missing completes the fragment at the front, no more.
                let missing = framer.missing(&input).unwrap();
                prop_assert!(missing == 0 || input.len() >= MARK_LEN);
            }
            prop_assert_eq!(got, want);
            prop_assert!(!framer.mid_record(&input));
        }

        /// Garbage either parses as records within the bound or is an error: never a panic, never a long record.
        #[test]
        fn garbage_is_bounded(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let (mut framer, mut input) = (Framer::new(64), BytesMut::from(&bytes[..]));
            if let Ok(records) = drain(&mut framer, &mut input) {
                prop_assert!(records.iter().all(|r| r.len() <= 64));
            }
        }
    }

    #[test]
    fn a_record_of_the_bound_passes_and_one_byte_more_does_not() {
        let mut framer = Framer::new(100);
        let mut input = BytesMut::from(&stream(&[vec![vec![7; 100]]])[..]);
        assert_eq!(framer.next(&mut input).unwrap().unwrap().len(), 100);
        let mut input = BytesMut::from(&slice_proto::rpc_msg::record_mark(101)[..]);
        assert_eq!(framer.next(&mut input), Err(FrameError::TooLong { got: 101, max: 100 }));
    }

    #[test]
    fn fragments_add_up_to_the_bound() {
        let mut framer = Framer::new(100);
        let mut input = BytesMut::from(&stream(&[vec![vec![0; 60], vec![0; 41]]])[..]);
        assert_eq!(framer.next(&mut input), Err(FrameError::TooLong { got: 101, max: 100 }));
    }

    #[test]
    fn endless_empty_fragments_are_refused() {
        let mut framer = Framer::new(MAX_RECORD);
        let mut input = BytesMut::from(&vec![0u8; MARK_LEN * (MAX_FRAGMENTS as usize + 1)][..]);
        assert_eq!(framer.next(&mut input), Err(FrameError::TooManyFragments));
    }
}
