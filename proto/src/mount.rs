//! MOUNT version 3 (RFC 1813 appendix I), and version 1 (RFC 1094 appendix A), which `showmount` asks with.
//!
//! Version 1 differs only in MNT's result: a handle of exactly 32 bytes, and no flavors.

use crate::nfs3::NFS3_FHSIZE;
use crate::xdr::{Decode, Encode, Put, Reader, Result, XdrError};
use bytes::{BufMut, BytesMut};
use std::fmt;

/// Longest path of an export, in bytes (MNTPATHLEN).
pub const MAX_PATH: u32 = 1024;
/// Longest name of a host or group, in bytes (MNTNAMLEN).
pub const MAX_NAME: u32 = 255;
/// Bytes of a version 1 handle (FHSIZE).
pub const V1_FHSIZE: usize = 32;
/// Most flavors that are decoded: a server offers a handful.
pub const MAX_FLAVORS: u32 = 64;
/// Most entries of DUMP and EXPORT, and groups of one export, that are decoded: a bound on memory.
pub const MAX_ENTRIES: usize = 65_536;

/// A procedure of MOUNT, in versions 1 and 3 alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MountProc {
    /// Do nothing.
    Null = 0,
    /// The handle of an export. Argument: [`DirPath`].
    Mnt = 1,
    /// Who mounted what. Result: [`MountList`].
    Dump = 2,
    /// Forget a mount. Argument: [`DirPath`].
    Umnt = 3,
    /// Forget all mounts of the caller.
    UmntAll = 4,
    /// What can be mounted. Result: [`ExportList`].
    Export = 5,
}

/// `mountstat3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct MountStat(pub u32);

/// `dirpath`: the argument of MNT and UMNT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirPath<'a>(pub &'a [u8]);

/// Result of MNT in version 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MntRes<'a> {
    /// Mounted.
    Ok {
        /// Handle of the export's root.
        handle: &'a [u8],
        /// Flavors that the export accepts, best first: [`auth_flavor`](crate::rpc_msg::auth_flavor).
        flavors: Vec<u32>,
    },
    /// Refused.
    Err(MountStat),
}

/// Result of MNT in version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MntResV1 {
    /// Mounted.
    Ok([u8; V1_FHSIZE]),
    /// Refused.
    Err(MountStat),
}

/// An entry of DUMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountEntry<'a> {
    /// The client.
    pub host: &'a [u8],
    /// What it mounted.
    pub path: &'a [u8],
}

/// Result of DUMP: `mountlist`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountList<'a>(pub Vec<MountEntry<'a>>);

/// An entry of EXPORT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExportEntry<'a> {
    /// What can be mounted.
    pub path: &'a [u8],
    /// Who may mount it; empty for everyone.
    pub groups: Vec<&'a [u8]>,
}

/// Result of EXPORT: `exports`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExportList<'a>(pub Vec<ExportEntry<'a>>);

// === impl MountProc ===

impl MountProc {
    /// Every procedure, in order of its number.
    pub const ALL: [Self; 6] = [Self::Null, Self::Mnt, Self::Dump, Self::Umnt, Self::UmntAll, Self::Export];

    /// The procedure with this number.
    #[must_use]
    pub fn from_u32(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|p| *p as u32 == number)
    }

    /// The name that the RFC gives it, without prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Mnt => "MNT",
            Self::Dump => "DUMP",
            Self::Umnt => "UMNT",
            Self::UmntAll => "UMNTALL",
            Self::Export => "EXPORT",
        }
    }
}

// === impl MountStat ===

impl MountStat {
    /// Success.
    pub const OK: Self = Self(0);
    /// Not owner.
    pub const PERM: Self = Self(1);
    /// No such export.
    pub const NOENT: Self = Self(2);
    /// I/O error.
    pub const IO: Self = Self(5);
    /// This client may not.
    pub const ACCES: Self = Self(13);
    /// Not a directory.
    pub const NOTDIR: Self = Self(20);
    /// Invalid argument.
    pub const INVAL: Self = Self(22);
    /// Path too long.
    pub const NAMETOOLONG: Self = Self(63);
    /// Not supported.
    pub const NOTSUPP: Self = Self(10004);
    /// An error that has no other name.
    pub const SERVERFAULT: Self = Self(10006);
}

impl fmt::Display for MountStat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The numbers are those of nfsstat3.
        crate::nfs3::NfsStat3(self.0).fmt(f)
    }
}

// === impl DirPath ===

impl Encode for DirPath<'_> {
    fn encode(&self, w: &mut BytesMut) {
        w.put_opaque(self.0);
    }
}

impl<'a> Decode<'a> for DirPath<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        r.opaque(MAX_PATH).map(Self)
    }
}

// === impl MntRes ===

impl Encode for MntRes<'_> {
    fn encode(&self, w: &mut BytesMut) {
        match self {
            Self::Ok { handle, flavors } => {
                w.put_u32(MountStat::OK.0);
                w.put_opaque(handle);
                w.put_u32(flavors.len() as u32);
                flavors.iter().for_each(|f| w.put_u32(*f));
            }
            Self::Err(status) => w.put_u32(status.0),
        }
    }
}

impl<'a> Decode<'a> for MntRes<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let status = MountStat(r.u32()?);
        if status != MountStat::OK {
            return Ok(Self::Err(status));
        }
        let handle = r.opaque(NFS3_FHSIZE)?;
        let flavors = (0..r.len(MAX_FLAVORS)?).map(|_| r.u32()).collect::<Result<_>>()?;
        Ok(Self::Ok { handle, flavors })
    }
}

// === impl MntResV1 ===

impl Encode for MntResV1 {
    fn encode(&self, w: &mut BytesMut) {
        match self {
            Self::Ok(handle) => {
                w.put_u32(MountStat::OK.0);
                w.put_fixed(handle);
            }
            Self::Err(status) => w.put_u32(status.0),
        }
    }
}

impl Decode<'_> for MntResV1 {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        match MountStat(r.u32()?) {
            MountStat::OK => r.fixed().map(Self::Ok),
            status => Ok(Self::Err(status)),
        }
    }
}

/// Reads a list as XDR's linked lists are written: each element behind a true, a false behind the last.
pub(crate) fn list<'a, T>(
    r: &mut Reader<'a>,
    mut item: impl FnMut(&mut Reader<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut all = Vec::new();
    while let Some(next) = r.option(&mut item)? {
        if all.len() >= MAX_ENTRIES {
            return Err(XdrError::TooLong { got: all.len() as u32 + 1, max: MAX_ENTRIES as u32 });
        }
        all.push(next);
    }
    Ok(all)
}

// === impl MountList ===

impl Encode for MountList<'_> {
    fn encode(&self, w: &mut BytesMut) {
        for entry in &self.0 {
            w.put_bool(true);
            w.put_opaque(entry.host);
            w.put_opaque(entry.path);
        }
        w.put_bool(false);
    }
}

impl<'a> Decode<'a> for MountList<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        list(r, |r| Ok(MountEntry { host: r.opaque(MAX_NAME)?, path: r.opaque(MAX_PATH)? })).map(Self)
    }
}

// === impl ExportList ===

impl Encode for ExportList<'_> {
    fn encode(&self, w: &mut BytesMut) {
        for entry in &self.0 {
            w.put_bool(true);
            w.put_opaque(entry.path);
            for group in &entry.groups {
                w.put_bool(true);
                w.put_opaque(group);
            }
            w.put_bool(false);
        }
        w.put_bool(false);
    }
}

impl<'a> Decode<'a> for ExportList<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        list(r, |r| {
            let path = r.opaque(MAX_PATH)?;
            let groups = list(r, |r| r.opaque(MAX_NAME))?;
            Ok(ExportEntry { path, groups })
        })
        .map(Self)
    }
}
