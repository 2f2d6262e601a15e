//! LIST_ATTRS, LIST_ENTRIES, SETTLED: what the checker asks of a directory server.

use super::{Child, MAX_NAME, get_list, put_list};
use crate::ids::{Epoch, FileId};
use crate::peer::xdr_struct;
use crate::xdr::{Decode, Encode, Put, Reader, Result};
use bytes::{BufMut, Bytes, BytesMut};

/// Most records of one LIST_ATTRS or LIST_ENTRIES result: bounds it at about 5 MiB of longest names.
pub const MAX_LISTED: u32 = 16 << 10;

xdr_struct! {
    /// LIST_ATTRS: attribute records with file ids above `after`, in order, at most `limit` (≤ [`MAX_LISTED`]).
    pub struct ListAttrsArgs {
        /// Exclusive start.
        pub after: FileId,
        /// Most records wanted.
        pub limit: u32,
    }
}

xdr_struct! {
    /// An attribute record as LIST_ATTRS shows it.
    pub struct AttrInfo {
        /// The file.
        pub file: FileId,
        /// ftype3.
        pub ftype: u32,
        /// Link count.
        pub nlink: u32,
        /// Size in bytes.
        pub size: u64,
        /// Reach in bytes.
        pub reach: u64,
        /// File epoch.
        pub epoch: Epoch,
        /// A directory's parent, else 0.
        pub parent: FileId,
        /// A directory's count of entries, else 0.
        pub entries: u64,
    }
}

/// Result of LIST_ATTRS; the last page is shorter than the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListAttrsRes {
    /// An nfsstat3 or a private status.
    pub status: u32,
    /// The records.
    pub attrs: Vec<AttrInfo>,
}

xdr_struct! {
    /// LIST_ENTRIES: entries behind (`dir`, `cookie`), in order, at most `limit` (≤ [`MAX_LISTED`]).
    pub struct ListEntriesArgs {
        /// Directory of the last entry seen; 0 at first.
        pub dir: FileId,
        /// Cookie of the last entry seen; 0 at first.
        pub cookie: u64,
        /// Most entries wanted.
        pub limit: u32,
    }
}

/// An entry as LIST_ENTRIES shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryInfo {
    /// The directory.
    pub dir: FileId,
    /// The entry's cookie.
    pub cookie: u64,
    /// The name.
    pub name: Bytes,
    /// Whom it stands for.
    pub child: Child,
}

/// Result of LIST_ENTRIES; the last page is shorter than the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntriesRes {
    /// An nfsstat3 or a private status.
    pub status: u32,
    /// The entries.
    pub entries: Vec<EntryInfo>,
}

xdr_struct! {
    /// Result of SETTLED (which has no arguments), of every server.
    pub struct SettledRes {
        /// An nfsstat3 or a private status.
        pub status: u32,
        /// Effects owed, holds, operations and intentions under way; 0 when settled.
        pub unsettled: u64,
    }
}

// === XDR ===

impl Encode for ListAttrsRes {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(self.status);
        put_list(w, &self.attrs);
    }
}

impl Decode<'_> for ListAttrsRes {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { status: r.u32()?, attrs: get_list(r, MAX_LISTED)? })
    }
}

impl Encode for EntryInfo {
    fn encode(&self, w: &mut BytesMut) {
        self.dir.encode(w);
        w.put_u64(self.cookie);
        w.put_opaque(&self.name);
        self.child.encode(w);
    }
}

impl Decode<'_> for EntryInfo {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            dir: FileId::decode(r)?,
            cookie: r.u64()?,
            name: Bytes::copy_from_slice(r.opaque(MAX_NAME)?),
            child: Child::decode(r)?,
        })
    }
}

impl Encode for ListEntriesRes {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(self.status);
        put_list(w, &self.entries);
    }
}

impl Decode<'_> for ListEntriesRes {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { status: r.u32()?, entries: get_list(r, MAX_LISTED)? })
    }
}
