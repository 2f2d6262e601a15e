//! µproxy → home site: what a writer has done to a file's size and times, and the reach of a file.

use super::xdr_struct;
use crate::ids::{AttrSeq, Epoch, FileId, TableEpoch};
use crate::trailer::Stamp;
use crate::xdr::{Decode, Encode, Reader, Result};
use bytes::{BufMut, BytesMut};

xdr_struct! {
    /// PUSH: size and times that a µproxy has shown its client for a file it wrote (DESIGN §8, I5, I6).
    /// Judged per field: `end` counts if `epoch` is the file's, times if `seq` is the file's; a late push never undoes
    /// a truncate or a utimes. Idempotent: the home site stores maxima.
    pub struct PushArgs {
        /// The sender's routing table.
        pub table: TableEpoch,
        /// The file.
        pub file: FileId,
        /// The epoch under which the bytes were written.
        pub epoch: Epoch,
        /// The set-attribute sequence last seen when the times were taken.
        pub seq: AttrSeq,
        /// Highest end offset written, exclusive; 0 if none.
        pub end: u64,
        /// Modification time shown, ns of ensemble time; 0 if none.
        pub mtime_ns: u64,
        /// Change time shown, ns of ensemble time; 0 if none. The home site stores max(this, stored + 1).
        pub ctime_ns: u64,
        /// Whether the write clears set-user-id and set-group-id bits (written by another than root).
        pub clear_set_ids: bool,
    }
}

xdr_struct! {
    /// RAISE_REACH: asks that bytes up to `reach` may be written under `epoch`. Durable before it is answered.
    pub struct RaiseArgs {
        /// The sender's routing table.
        pub table: TableEpoch,
        /// The file.
        pub file: FileId,
        /// The epoch that the sender believes in; an older one is answered with the current stamp, not raised.
        pub epoch: Epoch,
        /// The reach wanted, in bytes ([`crate::placement::reach_for`]).
        pub reach: u64,
    }
}

/// Result of PUSH and RAISE_REACH: the file's current attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttrRes {
    /// An nfsstat3 or a private status; STALE if the file is gone.
    pub status: u32,
    /// With status 0: the file's current fattr3, as encoded (84 bytes), and its stamp.
    pub current: Option<([u8; FATTR_LEN], Stamp)>,
    /// The server's routing table.
    pub table: TableEpoch,
    /// Ensemble time of the server, ns.
    pub now_ns: u64,
}

/// Length of an encoded fattr3 (RFC 1813 section 2.3.5), in bytes.
pub const FATTR_LEN: usize = 84;

impl Encode for Stamp {
    fn encode(&self, w: &mut BytesMut) {
        self.file.encode(w);
        self.epoch.encode(w);
        self.seq.encode(w);
        self.reach.encode(w);
    }
}

impl Decode<'_> for Stamp {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            file: FileId::decode(r)?,
            epoch: Epoch::decode(r)?,
            seq: AttrSeq::decode(r)?,
            reach: r.u64()?,
        })
    }
}

impl Encode for bool {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(u32::from(*self));
    }
}

impl Decode<'_> for bool {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        r.bool()
    }
}

impl Encode for AttrRes {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(self.status);
        w.put_u32(u32::from(self.current.is_some()));
        if let Some((attr, stamp)) = &self.current {
            w.put_slice(attr);
            stamp.encode(w);
        }
        self.table.encode(w);
        w.put_u64(self.now_ns);
    }
}

impl<'a> Decode<'a> for AttrRes {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(Self {
            status: r.u32()?,
            current: r.option(|r| Ok((r.fixed()?, Stamp::decode(r)?)))?,
            table: TableEpoch::decode(r)?,
            now_ns: r.u64()?,
        })
    }
}
