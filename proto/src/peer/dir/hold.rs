//! HOLD: what is locked, and how.

use super::OpId;
use crate::ids::{FileId, Site, TableEpoch};
use crate::peer::xdr_struct;
use crate::xdr::{Decode, Encode, Put, Reader, Result, XdrError};
use bytes::{BufMut, Bytes, BytesMut};

/// Longest stored record that a HOLD returns: far above an attribute record with a symlink target of PATH_MAX, and
/// above a bucket of names with 200 equal hashes.
pub const MAX_RECORD: u32 = 64 << 10;

/// What a HOLD locks. Ordered as holds are asked for: by site, then file or directory, then name hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldKey {
    /// The directory site that it lives at.
    pub site: Site,
    /// The file, or the directory of the names.
    pub file: FileId,
    /// Which of its records.
    pub part: HoldPart,
}

/// Which record of a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HoldPart {
    /// Its attribute record.
    Attr,
    /// The names in it whose hash has these top 47 bits (at their entry site).
    Names(u64),
    /// The rename right of the volume of which it is the root: whoever moves a directory to another directory holds it.
    Right,
}

/// How a HOLD holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum HoldMode {
    /// Lock it; if it is locked, wait: asked for in order.
    Wait = 0,
    /// Lock it; if it is locked, answer `Retry`: asked for out of order.
    Try = 1,
    /// Only show it.
    Peek = 2,
    /// Give a file id of the key's site that was never used, and lock its (absent) attribute record.
    New = 3,
}

xdr_struct! {
    /// HOLD. Asked twice for the same op and key, it is answered twice.
    pub struct HoldArgs {
        /// The sender's routing table.
        pub table: TableEpoch,
        /// The operation.
        pub op: OpId,
        /// All of the sender's operations with smaller numbers are settled: what is remembered of them can go.
        pub settled: u64,
        /// What to hold. With [`HoldMode::New`] the file is ignored.
        pub key: HoldKey,
        /// How.
        pub mode: HoldMode,
        /// Whether others may hold it meanwhile who share it, too. An attribute record only: who shares it changes it only
        /// by counts and times ([`AttrEffect`](super::AttrEffect)), in whatever order.
        pub share: bool,
    }
}

/// Result of HOLD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRes {
    /// An nfsstat3 or a private status.
    pub status: u32,
    /// With [`HoldMode::New`]: the new file's id; else that of the key.
    pub file: FileId,
    /// The record as it is stored; `None` if there is none.
    pub record: Option<Bytes>,
    /// Whether what is shown is durable already.
    pub durable: bool,
    /// The server's routing table.
    pub table: TableEpoch,
    /// Which life of the server says so: what an earlier one held may be lost.
    pub life: u64,
}

// === XDR ===

const PART_ATTR: u32 = 0;
const PART_NAMES: u32 = 1;
const PART_RIGHT: u32 = 2;

impl Encode for HoldKey {
    fn encode(&self, w: &mut BytesMut) {
        self.site.encode(w);
        self.file.encode(w);
        match self.part {
            HoldPart::Attr => w.put_u32(PART_ATTR),
            HoldPart::Names(hash) => {
                w.put_u32(PART_NAMES);
                w.put_u64(hash);
            }
            HoldPart::Right => w.put_u32(PART_RIGHT),
        }
    }
}

impl Decode<'_> for HoldKey {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let (site, file) = (Site::decode(r)?, FileId::decode(r)?);
        let part = match r.u32()? {
            PART_ATTR => HoldPart::Attr,
            PART_NAMES => HoldPart::Names(r.u64()?),
            PART_RIGHT => HoldPart::Right,
            got => return Err(XdrError::BadEnum { got }),
        };
        Ok(Self { site, file, part })
    }
}

impl Encode for HoldMode {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(*self as u32);
    }
}

impl Decode<'_> for HoldMode {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let got = r.u32()?;
        [Self::Wait, Self::Try, Self::Peek, Self::New]
            .into_iter()
            .find(|m| *m as u32 == got)
            .ok_or(XdrError::BadEnum { got })
    }
}

impl Encode for HoldRes {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(self.status);
        self.file.encode(w);
        w.put_bool(self.record.is_some());
        if let Some(record) = &self.record {
            w.put_opaque(record);
        }
        w.put_bool(self.durable);
        self.table.encode(w);
        w.put_u64(self.life);
    }
}

impl Decode<'_> for HoldRes {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            status: r.u32()?,
            file: FileId::decode(r)?,
            record: r.option(|r| r.opaque(MAX_RECORD).map(Bytes::copy_from_slice))?,
            durable: r.bool()?,
            table: TableEpoch::decode(r)?,
            life: r.u64()?,
        })
    }
}
