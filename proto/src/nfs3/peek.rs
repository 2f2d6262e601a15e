//! Where the routing fields of a call's arguments stand, without decoding the call.
//!
//! Every function takes the record and the offset of the arguments
//! ([`CallHeader::args_at`](crate::rpc_msg::CallHeader::args_at)) and answers with offsets in the record, so that a
//! proxy can read and rewrite in place. Nothing is allocated.

use super::types::StableHow;
use super::{MAX_DATA, MAX_NAME_WIRE, NFS3_FHSIZE};
use crate::xdr::{Decode, Reader, Result};
use std::ops::Range;

/// A name in a directory, as it stands in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirOpAt {
    /// The directory's handle, without length and padding.
    pub dir: Range<usize>,
    /// The name, without length and padding.
    pub name: Range<usize>,
    /// First byte behind: where the procedure's next argument begins.
    pub end: usize,
}

/// The extent that a READ or COMMIT names, as it stands in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtentAt {
    /// The file's handle, without length and padding.
    pub file: Range<usize>,
    /// Offset in the record of `offset` (8 bytes); `count` (4 bytes) follows it at once.
    pub offset_at: usize,
    /// First byte of the file.
    pub offset: u64,
    /// Bytes.
    pub count: u32,
}

/// The arguments of a WRITE, as they stand in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteAt {
    /// File, offset and count.
    pub extent: ExtentAt,
    /// How durable before the reply.
    pub stable: StableHow,
    /// The data, without length and padding.
    pub data: Range<usize>,
}

fn opaque_at(r: &mut Reader<'_>, max: u32) -> Result<Range<usize>> {
    // An opaque's bytes begin right behind its 4-byte length.
    let start = r.position() + 4;
    let len = r.opaque(max)?.len();
    Ok(start..start + len)
}

/// The file handle that begins at `at`: for all procedures but NULL the first argument.
///
/// # Errors
/// An [`XdrError`](crate::xdr::XdrError) if there is none.
pub fn fh_at(record: &[u8], at: usize) -> Result<Range<usize>> {
    opaque_at(&mut Reader::at(record, at), NFS3_FHSIZE)
}

/// The first byte behind the opaque whose bytes are `range`, padding skipped.
#[must_use]
pub const fn end_of(range: &Range<usize>) -> usize {
    range.end + crate::xdr::padding(range.end.saturating_sub(range.start))
}

/// The `diropargs3` that begins at `at`: for LOOKUP, CREATE, MKDIR, SYMLINK, MKNOD, REMOVE, RMDIR and RENAME the first
/// argument. RENAME's second begins at the first's [`DirOpAt::end`], LINK's at [`end_of`] its handle.
///
/// # Errors
/// An [`XdrError`](crate::xdr::XdrError) if there is none.
pub fn dirop_at(record: &[u8], at: usize) -> Result<DirOpAt> {
    let mut r = Reader::at(record, at);
    Ok(DirOpAt {
        dir: opaque_at(&mut r, NFS3_FHSIZE)?,
        name: opaque_at(&mut r, MAX_NAME_WIRE)?,
        end: r.position(),
    })
}

fn extent(r: &mut Reader<'_>) -> Result<ExtentAt> {
    let file = opaque_at(r, NFS3_FHSIZE)?;
    Ok(ExtentAt { file, offset_at: r.position(), offset: r.u64()?, count: r.u32()? })
}

/// The handle, offset and count of a READ, WRITE or COMMIT whose arguments begin at `at`.
///
/// # Errors
/// An [`XdrError`](crate::xdr::XdrError) if the record ends before.
pub fn extent_at(record: &[u8], at: usize) -> Result<ExtentAt> {
    extent(&mut Reader::at(record, at))
}

/// The arguments of a WRITE that begin at `at`.
///
/// # Errors
/// An [`XdrError`](crate::xdr::XdrError) if they cannot be decoded.
pub fn write_at(record: &[u8], at: usize) -> Result<WriteAt> {
    let mut r = Reader::at(record, at);
    Ok(WriteAt {
        extent: extent(&mut r)?,
        stable: StableHow::decode(&mut r)?,
        data: opaque_at(&mut r, MAX_DATA)?,
    })
}
