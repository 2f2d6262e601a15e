//! Record marking (RFC 5531 section 11), apart from I/O.

use crate::Error;
use bytes::{Buf, Bytes, BytesMut};
use slice_proto::rpc_msg::{FRAGMENT_LENGTH, LAST_FRAGMENT, RECORD_MARK_LEN, record_mark};

/// Longest record that is accepted, in bytes: the largest READ, and room for generous READDIRPLUS replies.
pub const MAX_RECORD: usize = 4 << 20;

/// Appends one record to `w`: `message` writes it, and its mark goes before.
pub fn append(w: &mut BytesMut, message: impl FnOnce(&mut BytesMut)) {
    let at = w.len();
    w.extend_from_slice(&[0; RECORD_MARK_LEN]);
    message(w);
    let mark = record_mark(w.len() - at - RECORD_MARK_LEN);
    if let Some(place) = w.get_mut(at..at + RECORD_MARK_LEN) {
        place.copy_from_slice(&mark);
    }
}

/// Puts fragments together again.
#[derive(Debug, Default)]
pub struct Deframer {
    /// Fragments of a record whose last one is still to come. Empty for all servers that send whole records.
    parts: BytesMut,
}

/// What the bytes read so far hold.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole record.
    Record(Bytes),
    /// Not yet a whole one; this many bytes more are known to be needed.
    Need(usize),
}

impl Deframer {
    /// Takes the next record out of `buf`.
    ///
    /// # Errors
    /// [`Error::RecordTooLong`]: the stream cannot be followed further.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Frame, Error> {
        loop {
            let Some(mark) = buf.first_chunk::<RECORD_MARK_LEN>().map(|b| u32::from_be_bytes(*b)) else {
                return Ok(Frame::Need(RECORD_MARK_LEN - buf.len()));
            };
            let len = (mark & FRAGMENT_LENGTH) as usize;
            let whole = self.parts.len() + len;
            if whole > MAX_RECORD {
                return Err(Error::RecordTooLong(whole));
            }
            let end = RECORD_MARK_LEN + len;
            if buf.len() < end {
                return Ok(Frame::Need(end - buf.len()));
            }
            let mut fragment = buf.split_to(end);
            fragment.advance(RECORD_MARK_LEN);
            if mark & LAST_FRAGMENT == 0 {
                self.parts.unsplit(fragment);
            } else if self.parts.is_empty() {
                return Ok(Frame::Record(fragment.freeze()));
            } else {
                self.parts.extend_from_slice(&fragment);
                return Ok(Frame::Record(self.parts.split().freeze()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(d: &mut Deframer, buf: &mut BytesMut) -> Vec<Bytes> {
        let mut all = Vec::new();
        while let Frame::Record(r) = d.next(buf).unwrap() {
            all.push(r);
        }
        all
    }

    #[test]
    fn records_come_out_however_they_arrive() {
        let mut sent = BytesMut::new();
        append(&mut sent, |w| w.extend_from_slice(b"first"));
        append(&mut sent, |_| {});
        // One record in three fragments, the middle one empty.
        sent.extend_from_slice(&[0, 0, 0, 2, b's', b'e', 0, 0, 0, 0, 0x80, 0, 0, 4, b'c', b'o', b'n', b'd']);
        append(&mut sent, |w| w.extend_from_slice(b"last"));
        for step in 1..=sent.len() {
            let (mut d, mut buf, mut got) = (Deframer::default(), BytesMut::new(), Vec::new());
            for piece in sent.chunks(step) {
                buf.extend_from_slice(piece);
                got.extend(records(&mut d, &mut buf));
            }
            assert_eq!(got, [&b"first"[..], b"", b"second", b"last"], "in steps of {step}");
        }
    }

    #[test]
    fn what_is_missing_is_known() {
        let (mut d, mut buf) = (Deframer::default(), BytesMut::from(&[0x80, 0, 0, 10, 1][..]));
        assert_eq!(d.next(&mut buf).unwrap(), Frame::Need(9));
    }

    #[test]
    fn an_endless_record_is_refused() {
        let mut d = Deframer::default();
        assert!(d.next(&mut BytesMut::from(&[0xff; 4][..])).is_err());
        let (mut d, mut buf) = (Deframer::default(), BytesMut::new());
        let megabyte = 1 << 20;
        let outcome = (0..=MAX_RECORD / megabyte).try_for_each(|_| {
            buf.extend_from_slice(&(megabyte as u32).to_be_bytes());
            buf.extend_from_slice(&vec![0; megabyte]);
            d.next(&mut buf).map(|_| ())
        });
        assert!(matches!(outcome, Err(Error::RecordTooLong(_))));
    }
}
