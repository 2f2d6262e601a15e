//! CONFIRM, OWE, DROP: what an operation changes elsewhere.

use super::{MAX_NAME, MAX_RECORD, OpId, get_list, put_list};
use crate::ids::{FileId, Site, TableEpoch};
use crate::peer::xdr_struct;
use crate::xdr::{Decode, Encode, Put, Reader, Result, XdrError};
use bytes::{BufMut, Bytes, BytesMut};

/// Most effects of one operation at one server: a RENAME over an existing name has seven in all.
pub const MAX_EFFECTS: u32 = 16;

xdr_struct! {
    /// A change of an attribute record, relative to what it is.
    pub struct AttrEffect {
        /// The file.
        pub file: FileId,
        /// The operation's time, ns: ctime becomes max(this, stored + 1).
        pub now_ns: u64,
        /// The ctime, ns, of the record that was shown when it was held; 0 if it was not. If the record has changed since, by
        /// others who shared it, ctime becomes later than what the operation's reply shows: the client looks again.
        pub base_ns: u64,
        /// Added to the link count. At 0 the record of a file goes, and its bytes are purged.
        pub nlink: i32,
        /// Added to a directory's count of entries.
        pub entries: i32,
        /// Whether mtime becomes what ctime becomes.
        pub mtime: bool,
        /// A directory's new parent.
        pub parent: Option<FileId>,
        /// Whether the record goes (rmdir).
        pub remove: bool,
    }
}

xdr_struct! {
    /// Whom a name stands for.
    #[derive(Copy)]
    pub struct Child {
        /// The file.
        pub file: FileId,
        /// Its ftype3.
        pub ftype: u32,
        /// Its placement policy.
        pub policy: u32,
    }
}

/// A change of a name; void unless the name stands for `from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameEffect {
    /// The entry site.
    pub site: Site,
    /// The directory.
    pub dir: FileId,
    /// The top 47 bits of the name's hash.
    pub hash: u64,
    /// The name.
    pub name: Bytes,
    /// What it stands for before.
    pub from: Option<FileId>,
    /// What it stands for afterwards.
    pub to: Option<Child>,
}

/// What an operation changes at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A change of an attribute record; void if there is none.
    Attr(AttrEffect),
    /// A change of a name.
    Name(NameEffect),
    /// A new attribute record, as it is stored.
    Make {
        /// The file.
        file: FileId,
        /// The record.
        record: Bytes,
    },
}

/// CONFIRM and OWE: an operation's effects at the called server. They are applied once; the op's holds are freed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfirmArgs {
    /// The sender's routing table.
    pub table: TableEpoch,
    /// The operation.
    pub op: OpId,
    /// As in [`HoldArgs::settled`](super::HoldArgs::settled).
    pub settled: u64,
    /// The effects; none if only holds are freed.
    pub effects: Vec<Effect>,
}

xdr_struct! {
    /// DROP: the operation will not happen; its holds are freed, also those that still wait.
    pub struct DropArgs {
        /// The operation.
        pub op: OpId,
        /// Whether to answer only when all that its holds have shown is durable.
        pub durable: bool,
    }
}

xdr_struct! {
    /// Result of CONFIRM, OWE and DROP.
    pub struct DirRes {
        /// An nfsstat3 or a private status.
        pub status: u32,
        /// The server's routing table.
        pub table: TableEpoch,
        /// CONFIRM and OWE: whether the effects are durable here. If not, only the hold is, and the sender keeps them
        /// in its journal until it is told so.
        pub durable: bool,
        /// Which life of the server says so: what an earlier one carried out and did not call durable may be lost.
        pub life: u64,
    }
}

// === XDR ===

impl Encode for NameEffect {
    fn encode(&self, w: &mut BytesMut) {
        self.site.encode(w);
        self.dir.encode(w);
        w.put_u64(self.hash);
        w.put_opaque(&self.name);
        self.from.encode(w);
        w.put_option(self.to.as_ref());
    }
}

impl Decode<'_> for NameEffect {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            site: Site::decode(r)?,
            dir: FileId::decode(r)?,
            hash: r.u64()?,
            name: Bytes::copy_from_slice(r.opaque(MAX_NAME)?),
            from: Decode::decode(r)?,
            to: r.option(Child::decode)?,
        })
    }
}

const EFFECT_ATTR: u32 = 0;
const EFFECT_NAME: u32 = 1;
const EFFECT_MAKE: u32 = 2;

impl Encode for Effect {
    fn encode(&self, w: &mut BytesMut) {
        match self {
            Self::Attr(e) => {
                w.put_u32(EFFECT_ATTR);
                e.encode(w);
            }
            Self::Name(e) => {
                w.put_u32(EFFECT_NAME);
                e.encode(w);
            }
            Self::Make { file, record } => {
                w.put_u32(EFFECT_MAKE);
                file.encode(w);
                w.put_opaque(record);
            }
        }
    }
}

impl Decode<'_> for Effect {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(match r.u32()? {
            EFFECT_ATTR => Self::Attr(AttrEffect::decode(r)?),
            EFFECT_NAME => Self::Name(NameEffect::decode(r)?),
            EFFECT_MAKE => {
                Self::Make { file: FileId::decode(r)?, record: Bytes::copy_from_slice(r.opaque(MAX_RECORD)?) }
            }
            got => return Err(XdrError::BadEnum { got }),
        })
    }
}

impl Encode for ConfirmArgs {
    fn encode(&self, w: &mut BytesMut) {
        self.table.encode(w);
        self.op.encode(w);
        w.put_u64(self.settled);
        put_list(w, &self.effects);
    }
}

impl Decode<'_> for ConfirmArgs {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            table: TableEpoch::decode(r)?,
            op: OpId::decode(r)?,
            settled: r.u64()?,
            effects: get_list(r, MAX_EFFECTS)?,
        })
    }
}
