//! READ, WRITE, COMMIT (RFC 1813 sections 3.3.6, 3.3.7, 3.3.21).
//!
//! For bulk data without a copy, [`ReadOkHead`] and [`WriteArgsHead`] encode everything up to the data; the
//! data and [`padding`](crate::xdr::padding) zeros follow from wherever they lie.

use super::attr::{PostOpAttr, WccData};
use super::res::Res3;
use super::types::{StableHow, Verifier};
use crate::xdr::{Encode, Put};
use bytes::{BufMut, BytesMut};

wire! {
    /// Arguments of READ (3.3.6).
    pub struct ReadArgs<'a> {
        /// The file.
        pub file: &'a [u8] => fh,
        /// First byte to read.
        pub offset: u64 => val,
        /// Bytes to read.
        pub count: u32 => val,
    }

    /// Results of READ (3.3.6).
    pub struct ReadOk<'a> {
        /// The file's attributes.
        pub attr: PostOpAttr => val,
        /// Bytes read: the length of `data`.
        pub count: u32 => val,
        /// Whether the read ended at or past the end of the file.
        pub eof: bool => flag,
        /// The bytes.
        pub data: &'a [u8] => data,
    }

    /// Arguments of WRITE (3.3.7). That `count` is the length of `data` is for the server to check.
    pub struct WriteArgs<'a> {
        /// The file.
        pub file: &'a [u8] => fh,
        /// Where the first byte goes.
        pub offset: u64 => val,
        /// Bytes to write.
        pub count: u32 => val,
        /// How durable before the reply.
        pub stable: StableHow => val,
        /// The bytes.
        pub data: &'a [u8] => data,
    }

    /// Results of WRITE (3.3.7).
    pub struct WriteOk {
        /// The file's attributes before and after.
        pub wcc: WccData => val,
        /// Bytes written.
        pub count: u32 => val,
        /// How durable they are.
        pub committed: StableHow => val,
        /// Changes when uncommitted bytes may have been lost.
        pub verf: Verifier => val,
    }

    /// Arguments of COMMIT (3.3.21).
    pub struct CommitArgs<'a> {
        /// The file.
        pub file: &'a [u8] => fh,
        /// First byte to commit.
        pub offset: u64 => val,
        /// Bytes to commit; 0 for all from `offset`.
        pub count: u32 => val,
    }

    /// Results of COMMIT (3.3.21).
    pub struct CommitOk {
        /// The file's attributes before and after.
        pub wcc: WccData => val,
        /// As WRITE's.
        pub verf: Verifier => val,
    }
}

/// Result of READ.
pub type ReadRes<'a> = Res3<ReadOk<'a>, PostOpAttr>;
/// Result of WRITE.
pub type WriteRes = Res3<WriteOk, WccData>;
/// Result of COMMIT.
pub type CommitRes = Res3<CommitOk, WccData>;

/// The results of READ up to the data. After the head come `data_len` bytes and their padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOkHead {
    /// The file's attributes.
    pub attr: PostOpAttr,
    /// Whether the read ended at or past the end of the file.
    pub eof: bool,
    /// Bytes of data: count and length on the wire.
    pub data_len: u32,
}

impl ReadOkHead {
    /// Appends the whole result up to the data, status included.
    pub fn encode_ok(&self, w: &mut BytesMut) {
        Res3::<&Self, ()>::Ok(self).encode(w);
    }
}

impl Encode for ReadOkHead {
    fn encode(&self, w: &mut BytesMut) {
        self.attr.encode(w);
        w.put_u32(self.data_len);
        w.put_bool(self.eof);
        w.put_u32(self.data_len);
    }
}

impl Encode for &ReadOkHead {
    fn encode(&self, w: &mut BytesMut) {
        (*self).encode(w);
    }
}

/// The arguments of WRITE up to the data. After the head come `data_len` bytes and their padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteArgsHead<'a> {
    /// The file.
    pub file: &'a [u8],
    /// Where the first byte goes.
    pub offset: u64,
    /// How durable before the reply.
    pub stable: StableHow,
    /// Bytes of data: count and length on the wire.
    pub data_len: u32,
}

impl Encode for WriteArgsHead<'_> {
    fn encode(&self, w: &mut BytesMut) {
        w.put_opaque(self.file);
        w.put_u64(self.offset);
        w.put_u32(self.data_len);
        self.stable.encode(w);
        w.put_u32(self.data_len);
    }
}
