//! Trailers: what Slice says behind a forwarded NFS call and behind its result, where NFSv3 has no room.
//!
//! Both stand at the very end of the record, so that they are found without parsing it, and end in the same
//! two words, so that a missing or foreign trailer is recognised:
//!
//! ```text
//! call trailer, version 1 (48 bytes)            result trailer, version 1 (28 + 32·n bytes)
//!      0  16 client address (IPv6, v4-mapped)        0 32·n per attribute, in the order of the reply:
//!     16   4 original xid                                   file id, file epoch, set-attribute sequence, reach
//!     20   4 flags                                  +0   8 table epoch of the server
//!     24   8 table epoch of the sender              +8   8 ensemble time, ns since 1970
//!     32   8 file epoch (data servers)             +16   4 n
//!     40   4 version << 16 | length in bytes       +20   4 version << 16
//!     44   4 magic "SLc1"                          +24   4 magic "SLr1"
//! ```

use crate::ids::{AttrSeq, Epoch, FileId, TableEpoch, Xid};
use crate::xdr::{Reader, Result, XdrError};
use bytes::{BufMut, BytesMut};
use std::net::IpAddr;

const VERSION: u32 = 1;
const CALL_MAGIC: u32 = u32::from_be_bytes(*b"SLc1");
const RESULT_MAGIC: u32 = u32::from_be_bytes(*b"SLr1");
/// Length of a call trailer, in bytes.
pub const CALL_TRAILER_LEN: usize = 48;
/// Length of a result trailer without its attribute stamps, in bytes.
pub const RESULT_TRAILER_BASE_LEN: usize = 28;
/// Length of one attribute stamp, in bytes.
pub const STAMP_LEN: usize = 32;
/// Most attributes that one reply may carry: a READDIRPLUS of 1 MiB has fewer entries.
const MAX_STAMPS: u32 = 16 << 10;

/// A client: its address without the port, IPv4 mapped into IPv6. Survives reconnects and µproxy restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub [u8; 16]);

impl From<IpAddr> for ClientId {
    fn from(ip: IpAddr) -> Self {
        Self(match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        })
    }
}

impl std::fmt::Display for ClientId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::net::Ipv6Addr::from(self.0).to_canonical().fmt(f)
    }
}

/// Behind a forwarded call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallTrailer {
    /// Whose call it is: with `xid`, the key of the reply cache (I10).
    pub client: ClientId,
    /// The xid that the client gave it.
    pub xid: Xid,
    /// Reserved, 0.
    pub flags: u32,
    /// Epoch of the routing table that the sender routed by (I4).
    pub table: TableEpoch,
    /// File epoch that the sender believes in; data servers refuse a lower one than theirs (I9).
    pub epoch: Epoch,
}

impl CallTrailer {
    /// Appends the trailer to a record.
    pub fn append(&self, w: &mut BytesMut) {
        w.put_slice(&self.client.0);
        w.put_u32(self.xid.0);
        w.put_u32(self.flags);
        w.put_u64(self.table.0);
        w.put_u64(self.epoch.0);
        w.put_u32(VERSION << 16 | CALL_TRAILER_LEN as u32);
        w.put_u32(CALL_MAGIC);
    }

    /// Splits a record into the client's own record and the trailer.
    ///
    /// # Errors
    /// An [`XdrError`] if the record does not end in a call trailer of a known version.
    pub fn split(record: &[u8]) -> Result<(&[u8], Self)> {
        let (front, at) = split_tail(record, CALL_MAGIC)?;
        if record.len() - front.len() != CALL_TRAILER_LEN {
            return Err(XdrError::TooLong {
                got: (record.len() - front.len()) as u32,
                max: CALL_TRAILER_LEN as u32,
            });
        }
        let mut r = Reader::at(record, at);
        let client = ClientId(r.fixed()?);
        Ok((
            front,
            Self {
                client,
                xid: Xid(r.u32()?),
                flags: r.u32()?,
                table: TableEpoch(r.u64()?),
                epoch: Epoch(r.u64()?),
            },
        ))
    }
}

/// What the µproxy must know of a file beside its NFS attributes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The file.
    pub file: FileId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its set-attribute sequence.
    pub seq: AttrSeq,
    /// Its reach, in bytes.
    pub reach: u64,
}

/// Behind a result. `stamps` has one entry for every attribute (fattr3) in the result, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultTrailer {
    /// One for every fattr3 in the result, in order of appearance.
    pub stamps: Vec<Stamp>,
    /// Epoch of the server's routing table.
    pub table: TableEpoch,
    /// The server's ensemble time, in ns since 1970; 0 where the server keeps none (data servers).
    pub now_ns: u64,
}

impl ResultTrailer {
    /// Appends the trailer to a reply.
    pub fn append(&self, w: &mut BytesMut) {
        Self::append_parts(w, &self.stamps, self.table, self.now_ns);
    }

    /// Appends a trailer without making one first.
    pub fn append_parts(w: &mut BytesMut, stamps: &[Stamp], table: TableEpoch, now_ns: u64) {
        for s in stamps {
            w.put_u64(s.file.0);
            w.put_u64(s.epoch.0);
            w.put_u64(s.seq.0);
            w.put_u64(s.reach);
        }
        w.put_u64(table.0);
        w.put_u64(now_ns);
        w.put_u32(stamps.len() as u32);
        w.put_u32(VERSION << 16);
        w.put_u32(RESULT_MAGIC);
    }

    /// Splits a reply record into the reply proper and the trailer, which is read in place.
    ///
    /// # Errors
    /// An [`XdrError`] if the record does not end in a result trailer of a known version.
    pub fn split(record: &[u8]) -> Result<(&[u8], ResultTrailerRef<'_>)> {
        let base = record
            .len()
            .checked_sub(RESULT_TRAILER_BASE_LEN)
            .ok_or(XdrError::Short { missing: RESULT_TRAILER_BASE_LEN })?;
        let mut r = Reader::at(record, base);
        let (table, now_ns, n, version, magic) =
            (TableEpoch(r.u64()?), r.u64()?, r.u32()?, r.u32()?, r.u32()?);
        if magic != RESULT_MAGIC || version != VERSION << 16 {
            return Err(XdrError::BadEnum { got: magic });
        }
        if n > MAX_STAMPS {
            return Err(XdrError::TooLong { got: n, max: MAX_STAMPS });
        }
        let start = base
            .checked_sub(n as usize * STAMP_LEN)
            .ok_or(XdrError::Short { missing: n as usize * STAMP_LEN })?;
        let front = record.get(..start).unwrap_or_default();
        let stamps = record.get(start..base).unwrap_or_default();
        Ok((front, ResultTrailerRef { stamps, table, now_ns }))
    }
}

/// A result trailer, read in place.
#[derive(Debug, Clone, Copy)]
pub struct ResultTrailerRef<'a> {
    stamps: &'a [u8],
    /// Epoch of the server's routing table.
    pub table: TableEpoch,
    /// The server's ensemble time, in ns since 1970; 0 where the server keeps none.
    pub now_ns: u64,
}

impl<'a> ResultTrailerRef<'a> {
    /// The stamps, in order of the reply's attributes.
    pub fn stamps(&self) -> impl Iterator<Item = Stamp> + 'a {
        let bytes = self.stamps;
        bytes.chunks_exact(STAMP_LEN).map_while(|chunk| {
            let mut r = Reader::new(chunk);
            Some(Stamp {
                file: FileId(r.u64().ok()?),
                epoch: Epoch(r.u64().ok()?),
                seq: AttrSeq(r.u64().ok()?),
                reach: r.u64().ok()?,
            })
        })
    }

    /// The first stamp, if the reply carries an attribute at all.
    #[must_use]
    pub fn first(&self) -> Option<Stamp> {
        self.stamps().next()
    }
}

/// Finds a trailer whose last words are `version << 16 | length` and `magic`; returns what stands before it
/// and its offset.
fn split_tail(record: &[u8], magic: u32) -> Result<(&[u8], usize)> {
    let words = record.len().checked_sub(8).ok_or(XdrError::Short { missing: 8 })?;
    let mut r = Reader::at(record, words);
    let (word, got) = (r.u32()?, r.u32()?);
    if got != magic || word >> 16 != VERSION {
        return Err(XdrError::BadEnum { got });
    }
    let len = (word & 0xffff) as usize;
    let at = record.len().checked_sub(len).ok_or(XdrError::Short { missing: len })?;
    Ok((record.get(..at).unwrap_or_default(), at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_call_trailer_comes_back_with_the_record_before_it() {
        let t = CallTrailer {
            client: IpAddr::from([10, 0, 2, 15]).into(),
            xid: Xid(7),
            flags: 0,
            table: TableEpoch(3),
            epoch: Epoch(9),
        };
        let mut w = BytesMut::from(&b"record"[..]);
        t.append(&mut w);
        assert_eq!(w.len(), 6 + CALL_TRAILER_LEN);
        assert_eq!(CallTrailer::split(&w), Ok((&b"record"[..], t)));
    }

    proptest! {
        #[test]
        fn a_result_trailer_comes_back(ids in proptest::collection::vec(any::<u64>(), 0..40), now: u64) {
            let stamps: Vec<Stamp> = ids.iter().map(|&i| Stamp {
                file: FileId(i), epoch: Epoch(i ^ 1), seq: AttrSeq(i ^ 2), reach: i ^ 3 }).collect();
            let t = ResultTrailer { stamps: stamps.clone(), table: TableEpoch(5), now_ns: now };
            let mut w = BytesMut::from(&b"reply"[..]);
            t.append(&mut w);
            let (front, got) = ResultTrailer::split(&w).unwrap();
            prop_assert_eq!(front, b"reply");
            prop_assert_eq!(got.stamps().collect::<Vec<_>>(), stamps);
            prop_assert_eq!((got.table, got.now_ns), (TableEpoch(5), now));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = CallTrailer::split(&bytes);
            let _ = ResultTrailer::split(&bytes);
        }
    }
}
