//! Attributes: as they are shown, as they are set, before and after an operation (RFC 1813 sections 2.5, 2.6).

use super::types::{FType3, NfsTime3, SpecData3};
use crate::ids::FileId;
use crate::xdr::{Decode, Encode, Put, Reader, Result, XdrError};
use bytes::{BufMut, BytesMut};

/// `fattr3`: a file's attributes.
///
/// ```text
///  0 type   4 mode   8 nlink   12 uid   16 gid   20 size (8)   28 used (8)   36 rdev (8)
/// 44 fsid (8)   52 fileid (8)   60 atime (8)   68 mtime (8)   76 ctime (8)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fattr3 {
    /// What kind of object.
    pub ftype: FType3,
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Bytes of disk that it uses.
    pub used: u64,
    /// Device numbers, of a device.
    pub rdev: SpecData3,
    /// The file system.
    pub fsid: u64,
    /// The file within the file system.
    pub fileid: FileId,
    /// Last access.
    pub atime: NfsTime3,
    /// Last change of the data.
    pub mtime: NfsTime3,
    /// Last change of the attributes.
    pub ctime: NfsTime3,
}

/// `post_op_attr`: attributes, if the server has them.
pub type PostOpAttr = Option<Fattr3>;

/// `wcc_attr`: what of a file's attributes tells whether it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WccAttr {
    /// Size in bytes.
    pub size: u64,
    /// Last change of the data.
    pub mtime: NfsTime3,
    /// Last change of the attributes.
    pub ctime: NfsTime3,
}

/// `wcc_data`: attributes right before and right after an operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WccData {
    /// Before. Only where nothing can have come between it and the operation.
    pub before: Option<WccAttr>,
    /// After.
    pub after: PostOpAttr,
}

/// How SETATTR sets a time: `set_atime`, `set_mtime`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimeHow {
    /// Leave it.
    #[default]
    DontChange,
    /// To the server's time.
    ServerTime,
    /// To this time.
    Client(NfsTime3),
}

/// `sattr3`: attributes to be set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sattr3 {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: TimeHow,
    /// Last change of the data.
    pub mtime: TimeHow,
}

// === impl Fattr3 ===

impl Fattr3 {
    /// Bytes of an encoded `fattr3`.
    pub const ENCODED_LEN: usize = 84;
    /// Offset of the size.
    pub const SIZE_AT: usize = 20;
    /// Offset of the fileid.
    pub const FILEID_AT: usize = 52;
    /// Offset of the time of the data's last change.
    pub const MTIME_AT: usize = 68;
    /// Offset of the time of the attributes' last change.
    pub const CTIME_AT: usize = 76;

    /// What of these tells whether the file changed.
    #[must_use]
    pub const fn wcc(&self) -> WccAttr {
        WccAttr { size: self.size, mtime: self.mtime, ctime: self.ctime }
    }

    /// Rewrites size, used, mtime and ctime in an encoded `fattr3` that starts at `encoded[0]`. False, and
    /// nothing is written, if `encoded` is shorter than [`Self::ENCODED_LEN`].
    pub fn patch(encoded: &mut [u8], size: u64, used: u64, mtime: NfsTime3, ctime: NfsTime3) -> bool {
        let Some(attr) = encoded.first_chunk_mut::<{ Self::ENCODED_LEN }>() else { return false };
        let mut sizes = attr.get_mut(Self::SIZE_AT..).unwrap_or_default();
        sizes.put_u64(size);
        sizes.put_u64(used);
        let mut times = attr.get_mut(Self::MTIME_AT..).unwrap_or_default();
        for t in [mtime, ctime] {
            times.put_u32(t.seconds);
            times.put_u32(t.nseconds);
        }
        true
    }

    /// The fileid in an encoded `fattr3` that starts at `encoded[0]`, without decoding the rest.
    ///
    /// # Errors
    /// [`XdrError::Short`].
    pub fn peek_fileid(encoded: &[u8]) -> Result<FileId> {
        FileId::decode(&mut Reader::at(encoded, Self::FILEID_AT))
    }
}

impl Encode for Fattr3 {
    fn encode(&self, w: &mut BytesMut) {
        w.reserve(Self::ENCODED_LEN);
        self.ftype.encode(w);
        for v in [self.mode, self.nlink, self.uid, self.gid] {
            w.put_u32(v);
        }
        w.put_u64(self.size);
        w.put_u64(self.used);
        self.rdev.encode(w);
        w.put_u64(self.fsid);
        self.fileid.encode(w);
        for t in [self.atime, self.mtime, self.ctime] {
            t.encode(w);
        }
    }
}

impl Decode<'_> for Fattr3 {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            ftype: FType3::decode(r)?,
            mode: r.u32()?,
            nlink: r.u32()?,
            uid: r.u32()?,
            gid: r.u32()?,
            size: r.u64()?,
            used: r.u64()?,
            rdev: SpecData3::decode(r)?,
            fsid: r.u64()?,
            fileid: FileId::decode(r)?,
            atime: NfsTime3::decode(r)?,
            mtime: NfsTime3::decode(r)?,
            ctime: NfsTime3::decode(r)?,
        })
    }
}

// === impl PostOpAttr ===

impl Encode for PostOpAttr {
    fn encode(&self, w: &mut BytesMut) {
        w.put_option(self.as_ref());
    }
}

impl Decode<'_> for PostOpAttr {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        r.option(Fattr3::decode)
    }
}

// === impl WccAttr ===

impl WccAttr {
    /// Bytes of an encoded `wcc_attr`.
    pub const ENCODED_LEN: usize = 24;
}

impl Encode for WccAttr {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u64(self.size);
        self.mtime.encode(w);
        self.ctime.encode(w);
    }
}

impl Decode<'_> for WccAttr {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { size: r.u64()?, mtime: NfsTime3::decode(r)?, ctime: NfsTime3::decode(r)? })
    }
}

// === impl WccData ===

impl Encode for WccData {
    fn encode(&self, w: &mut BytesMut) {
        w.put_option(self.before.as_ref());
        w.put_option(self.after.as_ref());
    }
}

impl Decode<'_> for WccData {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { before: r.option(WccAttr::decode)?, after: r.option(Fattr3::decode)? })
    }
}

// === impl TimeHow ===

const DONT_CHANGE: u32 = 0;
const SET_TO_SERVER_TIME: u32 = 1;
const SET_TO_CLIENT_TIME: u32 = 2;

impl Encode for TimeHow {
    fn encode(&self, w: &mut BytesMut) {
        match self {
            Self::DontChange => w.put_u32(DONT_CHANGE),
            Self::ServerTime => w.put_u32(SET_TO_SERVER_TIME),
            Self::Client(time) => {
                w.put_u32(SET_TO_CLIENT_TIME);
                time.encode(w);
            }
        }
    }
}

impl Decode<'_> for TimeHow {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        match r.u32()? {
            DONT_CHANGE => Ok(Self::DontChange),
            SET_TO_SERVER_TIME => Ok(Self::ServerTime),
            SET_TO_CLIENT_TIME => NfsTime3::decode(r).map(Self::Client),
            got => Err(XdrError::BadEnum { got }),
        }
    }
}

// === impl Sattr3 ===

impl Encode for Sattr3 {
    fn encode(&self, w: &mut BytesMut) {
        w.put_option(self.mode.as_ref());
        w.put_option(self.uid.as_ref());
        w.put_option(self.gid.as_ref());
        w.put_option(self.size.as_ref());
        self.atime.encode(w);
        self.mtime.encode(w);
    }
}

impl Decode<'_> for Sattr3 {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            mode: r.option(Reader::u32)?,
            uid: r.option(Reader::u32)?,
            gid: r.option(Reader::u32)?,
            size: r.option(Reader::u64)?,
            atime: TimeHow::decode(r)?,
            mtime: TimeHow::decode(r)?,
        })
    }
}
