//! Writing replies: header, result, result trailer with a stamp for every fattr3.

use crate::records::AttrRec;
use bytes::{BufMut, BytesMut};
use slice_proto::ids::{FileId, TableEpoch, Xid};
use slice_proto::nfs3::{Fattr3, NfsStat3};
use slice_proto::peer::PrivateStatus;
use slice_proto::rpc_msg::encode_success;
use slice_proto::trailer::{RESULT_TRAILER_BASE_LEN, ResultTrailer, STAMP_LEN, Stamp};
use slice_proto::xdr::{Encode, Put};

/// Most attributes of a reply other than READDIRPLUS's: LOOKUP, RENAME and what makes an object show two.
const FEW: usize = 4;

/// Writes one reply.
pub(crate) struct Writer<'a> {
    pub(crate) w: &'a mut BytesMut,
    fsid: u64,
    few: [Stamp; FEW],
    len: usize,
    /// Stamps beyond [`FEW`]: only of READDIRPLUS, which brings the room for them.
    many: Vec<Stamp>,
}

// === impl Writer ===

impl<'a> Writer<'a> {
    /// Begins with the header and the status.
    pub(crate) fn new(w: &'a mut BytesMut, xid: Xid, status: u32, fsid: u64) -> Self {
        encode_success(w, xid);
        w.put_u32(status);
        Self { w, fsid, few: [Stamp::default(); FEW], len: 0, many: Vec::new() }
    }

    fn stamp(&mut self, stamp: Stamp) {
        match self.few.get_mut(self.len) {
            Some(slot) => {
                *slot = stamp;
                self.len += 1;
            }
            None => self.many.push(stamp),
        }
    }

    /// How many attributes were written so far.
    pub(crate) fn stamped(&self) -> usize {
        self.len + self.many.len()
    }

    /// The stamps of the attributes behind the first `n`.
    pub(crate) fn stamps_from(&self, n: usize) -> Vec<Stamp> {
        let few = self.few.get(..self.len).unwrap_or_default();
        few.iter().chain(&self.many).skip(n).copied().collect()
    }

    /// What was written before, with the stamps of the attributes in it.
    pub(crate) fn again(&mut self, bytes: &[u8], stamps: &[Stamp]) {
        self.w.reserve(bytes.len() + RESULT_TRAILER_BASE_LEN + (FEW + stamps.len()) * STAMP_LEN);
        self.w.put_slice(bytes);
        self.many.reserve(stamps.len());
        stamps.iter().for_each(|stamp| self.stamp(*stamp));
    }

    /// `fattr3`.
    pub(crate) fn fattr(&mut self, file: FileId, rec: &AttrRec) {
        rec.fattr(file, self.fsid).encode(self.w);
        self.stamp(rec.stamp(file));
    }

    /// `post_op_attr`.
    pub(crate) fn attr(&mut self, file: FileId, rec: Option<&AttrRec>) {
        self.w.put_bool(rec.is_some());
        if let Some(rec) = rec {
            self.fattr(file, rec);
        }
    }

    /// `post_op_attr`, of a file of a peer's as it has shown it.
    pub(crate) fn shown(&mut self, attr: Option<&(Fattr3, Stamp)>) {
        self.w.put_bool(attr.is_some());
        if let Some((attr, stamp)) = attr {
            attr.encode(self.w);
            self.stamp(*stamp);
        }
    }

    /// `wcc_data`.
    pub(crate) fn wcc(&mut self, file: FileId, before: Option<&AttrRec>, after: Option<&AttrRec>) {
        self.w.put_option(before.map(AttrRec::wcc).as_ref());
        self.attr(file, after);
    }

    /// Ends with the result trailer.
    pub(crate) fn finish(self, table: TableEpoch, now_ns: u64) {
        let few = self.few.get(..self.len).unwrap_or_default();
        if self.many.is_empty() {
            ResultTrailer::append_parts(self.w, few, table, now_ns);
        } else {
            ResultTrailer::append_parts(self.w, &[few, &self.many].concat(), table, now_ns);
        }
    }
}

/// A reply that is a private status and nothing else.
pub(crate) fn private(w: &mut BytesMut, xid: Xid, status: PrivateStatus, table: TableEpoch, now_ns: u64) {
    Writer::new(w, xid, status as u32, 0).finish(table, now_ns);
}

/// A failure of `proc` that shows no attributes.
pub(crate) fn bare(
    w: &mut BytesMut,
    xid: Xid,
    proc: slice_proto::nfs3::Proc3,
    status: NfsStat3,
    table: TableEpoch,
    now_ns: u64,
) {
    use slice_proto::nfs3::Proc3;
    let out = Writer::new(w, xid, status.0, 0);
    // Absent optional items of the failure's shape (RFC 1813 section 3.3).
    let absent = match proc {
        Proc3::Null | Proc3::Getattr => 0,
        Proc3::Lookup | Proc3::Access | Proc3::Readlink | Proc3::Readdir | Proc3::Readdirplus => 1,
        Proc3::Rename => 4,
        Proc3::Link => 3,
        _ => 2,
    };
    (0..absent).for_each(|_| out.w.put_bool(false));
    out.finish(table, now_ns);
}
