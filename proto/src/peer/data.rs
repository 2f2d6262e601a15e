//! Home site or µproxy → data server: what NFSv3's READ, WRITE and COMMIT cannot say. All idempotent.

use super::xdr_struct;
use crate::ids::{Epoch, FileId, SITES_PER_ROLE, Site, TableEpoch};
use crate::xdr::{Decode, Encode, Reader, Result};
use bytes::{BufMut, BytesMut};

/// Most objects that one LIST result carries: bounds the result at about 1 MiB.
pub const MAX_LISTED: u32 = 16 << 10;

/// Sites of the called server's role that a call is about: all must be owned by the called server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sites(pub Vec<Site>);

impl Encode for Sites {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(self.0.len() as u32);
        self.0.iter().for_each(|s| s.encode(w));
    }
}

impl Decode<'_> for Sites {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let n = r.len(SITES_PER_ROLE as u32)?;
        (0..n).map(|_| Site::decode(r)).collect::<Result<_>>().map(Self)
    }
}

xdr_struct! {
    /// TRUNCATE: cuts the object at `size` (file offset) and raises its epoch. Acts only if `epoch` is newer than the
    /// object's; with the same epoch it was done already and answers Ok; older: Fenced. Durable when answered.
    /// At a small-file server the object's size becomes min(size, 64 KiB) exactly and "beyond" = size > 64 KiB;
    /// bytes that a later extension uncovers read as zeros.
    pub struct TruncateArgs {
        /// The sender's routing table.
        pub table: TableEpoch,
        /// Sites of the called server that are under the file's reach.
        pub sites: Sites,
        /// The file.
        pub file: FileId,
        /// The new epoch.
        pub epoch: Epoch,
        /// The file's new size in bytes.
        pub size: u64,
    }
}

xdr_struct! {
    /// PURGE: removes the object and leaves a tombstone with `epoch`. Acts only if `epoch` is newer; with the same
    /// epoch Ok; older: Fenced. Durable when answered.
    pub struct PurgeArgs {
        /// The sender's routing table.
        pub table: TableEpoch,
        /// Sites of the called server that are under the file's reach.
        pub sites: Sites,
        /// The file.
        pub file: FileId,
        /// The epoch of the last link's removal.
        pub epoch: Epoch,
    }
}

xdr_struct! {
    /// EXTEND (small-file servers): the file's size is at least `size`: stored size = max(stored, min(size, 64 KiB)), and
    /// "beyond" is set if size > 64 KiB. Refused as Fenced if `epoch` is older than the object's. Durable when answered if
    /// `durable`, else with the next COMMIT.
    pub struct ExtendArgs {
        /// The sender's routing table.
        pub table: TableEpoch,
        /// The file.
        pub file: FileId,
        /// The epoch that the sender believes in.
        pub epoch: Epoch,
        /// The file's size is at least this.
        pub size: u64,
        /// Whether to answer only once it is durable.
        pub durable: bool,
    }
}

xdr_struct! {
    /// STAT of one object.
    pub struct StatArgs {
        /// The sender's routing table.
        pub table: TableEpoch,
        /// The file.
        pub file: FileId,
    }
}

xdr_struct! {
    /// Result of TRUNCATE, PURGE and EXTEND.
    pub struct DataRes {
        /// An nfsstat3 or a private status.
        pub status: u32,
        /// The object's epoch after the call.
        pub epoch: Epoch,
        /// The server's routing table.
        pub table: TableEpoch,
    }
}

xdr_struct! {
    /// An object as STAT and LIST show it.
    pub struct ObjectInfo {
        /// The file.
        pub file: FileId,
        /// Highest epoch seen.
        pub epoch: Epoch,
        /// Small-file servers: min(size, 64 KiB). Block storage nodes: end of the last byte held, as a file offset.
        pub size: u64,
        /// Bytes of storage used.
        pub used: u64,
        /// Small-file servers: whether the file goes beyond 64 KiB.
        pub beyond: bool,
        /// Whether only a tombstone is left.
        pub tombstone: bool,
    }
}

xdr_struct! {
    /// LIST_OBJECTS: objects with file ids above `after`, in order, at most `limit` (≤ [`MAX_LISTED`]).
    pub struct ListArgs {
        /// Exclusive start.
        pub after: FileId,
        /// Most objects wanted.
        pub limit: u32,
    }
}

/// Result of STAT (at most one object) and of LIST_OBJECTS (the last page is shorter than the limit).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectsRes {
    /// An nfsstat3 or a private status.
    pub status: u32,
    /// The objects.
    pub objects: Vec<ObjectInfo>,
}

impl Encode for ObjectsRes {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(self.status);
        w.put_u32(self.objects.len() as u32);
        self.objects.iter().for_each(|o| o.encode(w));
    }
}

impl Decode<'_> for ObjectsRes {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let status = r.u32()?;
        let n = r.len(MAX_LISTED)?;
        let objects = (0..n).map(|_| ObjectInfo::decode(r)).collect::<Result<_>>()?;
        Ok(Self { status, objects })
    }
}
