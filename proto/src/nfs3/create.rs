//! CREATE, MKDIR, SYMLINK, MKNOD (RFC 1813 sections 3.3.8 to 3.3.11).

use super::attr::{PostOpAttr, Sattr3, WccData};
use super::res::Res3;
use super::types::{DirOp, FType3, SpecData3};
use crate::xdr::{Decode, Encode, Put, Reader, Result, XdrError};
use bytes::{BufMut, BytesMut};

/// `createhow3`: what if the name is there already (3.3.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateHow {
    /// Take what is there.
    Unchecked(Sattr3),
    /// Fail with EXIST.
    Guarded(Sattr3),
    /// Fail with EXIST, unless it was created with this very verifier.
    Exclusive([u8; super::NFS3_CREATEVERFSIZE]),
}

/// `mknoddata3`: which special file (3.3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MknodWhat {
    /// A character device.
    Chr(Sattr3, SpecData3),
    /// A block device.
    Blk(Sattr3, SpecData3),
    /// A socket.
    Sock(Sattr3),
    /// A FIFO.
    Fifo(Sattr3),
    /// Not a special file: BADTYPE is the answer. Never one of the types above.
    Other(FType3),
}

wire! {
    /// Arguments of CREATE (3.3.8).
    pub struct CreateArgs<'a> {
        /// The new name and its directory.
        pub at: DirOp<'a> => val,
        /// What if it is there already.
        pub how: CreateHow => val,
    }

    /// Arguments of MKDIR (3.3.9).
    pub struct MkdirArgs<'a> {
        /// The new name and its directory.
        pub at: DirOp<'a> => val,
        /// The new directory's attributes.
        pub attr: Sattr3 => val,
    }

    /// Arguments of SYMLINK (3.3.10).
    pub struct SymlinkArgs<'a> {
        /// The new name and its directory.
        pub at: DirOp<'a> => val,
        /// The new link's attributes.
        pub attr: Sattr3 => val,
        /// What it points to.
        pub target: &'a [u8] => path,
    }

    /// Arguments of MKNOD (3.3.11).
    pub struct MknodArgs<'a> {
        /// The new name and its directory.
        pub at: DirOp<'a> => val,
        /// Which special file.
        pub what: MknodWhat => val,
    }

    /// Results of CREATE, MKDIR, SYMLINK and MKNOD.
    pub struct CreateOk<'a> {
        /// Handle of the new object.
        pub object: Option<&'a [u8]> => post_fh,
        /// The new object's attributes.
        pub attr: PostOpAttr => val,
        /// The directory's attributes before and after.
        pub dir_wcc: WccData => val,
    }
}

/// Result of CREATE; a failure carries the directory's attributes.
pub type CreateRes<'a> = Res3<CreateOk<'a>, WccData>;
/// Result of MKDIR.
pub type MkdirRes<'a> = CreateRes<'a>;
/// Result of SYMLINK.
pub type SymlinkRes<'a> = CreateRes<'a>;
/// Result of MKNOD.
pub type MknodRes<'a> = CreateRes<'a>;

// === impl CreateHow ===

const UNCHECKED: u32 = 0;
const GUARDED: u32 = 1;
const EXCLUSIVE: u32 = 2;

impl Encode for CreateHow {
    fn encode(&self, w: &mut BytesMut) {
        match self {
            Self::Unchecked(attr) => {
                w.put_u32(UNCHECKED);
                attr.encode(w);
            }
            Self::Guarded(attr) => {
                w.put_u32(GUARDED);
                attr.encode(w);
            }
            Self::Exclusive(verf) => {
                w.put_u32(EXCLUSIVE);
                w.put_fixed(verf);
            }
        }
    }
}

impl Decode<'_> for CreateHow {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        match r.u32()? {
            UNCHECKED => Sattr3::decode(r).map(Self::Unchecked),
            GUARDED => Sattr3::decode(r).map(Self::Guarded),
            EXCLUSIVE => r.fixed().map(Self::Exclusive),
            got => Err(XdrError::BadEnum { got }),
        }
    }
}

// === impl MknodWhat ===

impl MknodWhat {
    /// The type of the object to be made.
    #[must_use]
    pub const fn ftype(&self) -> FType3 {
        match self {
            Self::Chr(..) => FType3::Chr,
            Self::Blk(..) => FType3::Blk,
            Self::Sock(_) => FType3::Sock,
            Self::Fifo(_) => FType3::Fifo,
            Self::Other(ftype) => *ftype,
        }
    }
}

impl Encode for MknodWhat {
    fn encode(&self, w: &mut BytesMut) {
        self.ftype().encode(w);
        match self {
            Self::Chr(attr, spec) | Self::Blk(attr, spec) => {
                attr.encode(w);
                spec.encode(w);
            }
            Self::Sock(attr) | Self::Fifo(attr) => attr.encode(w),
            Self::Other(_) => {}
        }
    }
}

impl Decode<'_> for MknodWhat {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(match FType3::decode(r)? {
            FType3::Chr => Self::Chr(Sattr3::decode(r)?, SpecData3::decode(r)?),
            FType3::Blk => Self::Blk(Sattr3::decode(r)?, SpecData3::decode(r)?),
            FType3::Sock => Self::Sock(Sattr3::decode(r)?),
            FType3::Fifo => Self::Fifo(Sattr3::decode(r)?),
            other => Self::Other(other),
        })
    }
}
