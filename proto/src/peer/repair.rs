//! `slice admin check --repair` → directory server: what it looks at before it repairs, and what it has changed.
//!
//! Every repair changes one record of one server, and only if that is still what the repairer saw: it compares and sets.
//! So a repair that was overtaken by a client, or that comes twice, is void, and needs no reply that is remembered.

use super::dir::{AttrInfo, Child, MAX_NAME};
use super::xdr_struct;
use crate::ids::{Epoch, FileId, TableEpoch, VolumeId};
use crate::xdr::{Decode, Encode, Put, Reader, Result, XdrError};
use bytes::{BufMut, Bytes, BytesMut};

xdr_struct! {
    /// INSPECT: the attribute record of a file, at its home site. Answered once what is shown is durable; `Retry` while an
    /// operation holds the record.
    pub struct InspectArgs {
        /// The sender's routing table.
        pub table: TableEpoch,
        /// The file.
        pub file: FileId,
    }
}

xdr_struct! {
    /// An attribute record as a repairer saw it: any change of it changes this, because ctime rises with every change.
    pub struct Seen {
        /// What LIST_ATTRS shows of it.
        pub attr: AttrInfo,
        /// Last change of the attributes, ns.
        pub ctime_ns: u64,
        /// The volume it belongs to.
        pub volume: VolumeId,
        /// Its placement policy.
        pub policy: u32,
    }
}

/// Result of INSPECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectRes {
    /// An nfsstat3 or a private status.
    pub status: u32,
    /// The record; `None` if there is none.
    pub seen: Option<Seen>,
}

xdr_struct! {
    /// What the data servers hold of a file. REPAIR of its size is void if they hold anything else.
    #[derive(Copy)]
    pub struct Held {
        /// Size at its small-file server: min(size, 64 KiB).
        pub small: u64,
        /// Whether the small-file server believes that it goes beyond 64 KiB.
        pub beyond: bool,
        /// End of the last byte at any storage node under the reach that is visited, as a file offset.
        pub end: u64,
    }
}

/// A name of a directory, at its entry site: void unless it stands for `from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRepair {
    /// The volume, which says where the name belongs.
    pub volume: VolumeId,
    /// The directory; its record is not looked at.
    pub dir: FileId,
    /// The name. If it stands there twice, it does so once afterwards, or not at all.
    pub name: Bytes,
    /// What it stands for before.
    pub from: Option<FileId>,
    /// What it stands for afterwards.
    pub to: Option<Child>,
}

xdr_struct! {
    /// The counts of a record, at its home site: void unless the record is as it was seen.
    pub struct CountsRepair {
        /// As it was seen.
        pub seen: Seen,
        /// Hard links.
        pub nlink: u32,
        /// A directory's entries, else 0.
        pub entries: u64,
        /// A directory's parent, else 0.
        pub parent: FileId,
    }
}

xdr_struct! {
    /// A record of a directory that names are in, or that is a root, at its home site: void if there is one.
    pub struct MakeRepair {
        /// The directory.
        pub dir: FileId,
        /// Its volume.
        pub volume: VolumeId,
        /// Its placement policy.
        pub policy: u32,
        /// Permission bits.
        pub mode: u32,
        /// Owner.
        pub uid: u32,
        /// Group.
        pub gid: u32,
        /// Hard links.
        pub nlink: u32,
        /// Its parent; a root's is itself.
        pub parent: FileId,
        /// Its entries.
        pub entries: u64,
    }
}

xdr_struct! {
    /// A regular file's bytes, at its home site: all data servers are made to agree with the size in its record, under a new
    /// epoch. Void unless the record is as it was seen, and the data servers, fenced, hold what they did.
    pub struct SizeRepair {
        /// As it was seen.
        pub seen: Seen,
        /// Highest epoch that any data server has of it: the new one is above.
        pub past: Epoch,
        /// Data sites under this are visited: at least those under the record's reach.
        pub reach: u64,
        /// What the data servers hold.
        pub held: Held,
    }
}

/// One repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// A name is changed or removed, or made.
    Name(NameRepair),
    /// A record's counts, or a directory's parent, are set.
    Counts(CountsRepair),
    /// A directory's record is made.
    Make(MakeRepair),
    /// A file's bytes are made to agree with its size.
    Size(SizeRepair),
}

xdr_struct! {
    /// REPAIR. Only from the admin role; answered once it is durable. `Retry` while an operation holds the record.
    pub struct RepairArgs {
        /// The sender's routing table.
        pub table: TableEpoch,
        /// What to do.
        pub repair: Repair,
    }
}

xdr_struct! {
    /// Result of REPAIR.
    pub struct RepairRes {
        /// An nfsstat3 or a private status.
        pub status: u32,
        /// Whether it was done; else it was void.
        pub done: bool,
    }
}

// === XDR ===

impl Encode for NameRepair {
    fn encode(&self, w: &mut BytesMut) {
        self.volume.encode(w);
        self.dir.encode(w);
        w.put_opaque(&self.name);
        self.from.encode(w);
        w.put_option(self.to.as_ref());
    }
}

impl Decode<'_> for NameRepair {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            volume: VolumeId::decode(r)?,
            dir: FileId::decode(r)?,
            name: Bytes::copy_from_slice(r.opaque(MAX_NAME)?),
            from: Decode::decode(r)?,
            to: r.option(Child::decode)?,
        })
    }
}

impl Encode for InspectRes {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(self.status);
        w.put_option(self.seen.as_ref());
    }
}

impl Decode<'_> for InspectRes {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { status: r.u32()?, seen: r.option(Seen::decode)? })
    }
}

const NAME: u32 = 0;
const COUNTS: u32 = 1;
const MAKE: u32 = 2;
const SIZE: u32 = 3;

impl Encode for Repair {
    fn encode(&self, w: &mut BytesMut) {
        let mut tagged = |tag: u32, body: &dyn Fn(&mut BytesMut)| {
            w.put_u32(tag);
            body(w);
        };
        match self {
            Self::Name(r) => tagged(NAME, &|w| r.encode(w)),
            Self::Counts(r) => tagged(COUNTS, &|w| r.encode(w)),
            Self::Make(r) => tagged(MAKE, &|w| r.encode(w)),
            Self::Size(r) => tagged(SIZE, &|w| r.encode(w)),
        }
    }
}

impl Decode<'_> for Repair {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(match r.u32()? {
            NAME => Self::Name(NameRepair::decode(r)?),
            COUNTS => Self::Counts(CountsRepair::decode(r)?),
            MAKE => Self::Make(MakeRepair::decode(r)?),
            SIZE => Self::Size(SizeRepair::decode(r)?),
            got => return Err(XdrError::BadEnum { got }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round<T: Encode + for<'a> Decode<'a> + PartialEq + std::fmt::Debug>(v: &T) {
        let mut w = BytesMut::new();
        v.encode(&mut w);
        let mut r = Reader::new(&w);
        assert_eq!(T::decode(&mut r).as_ref(), Ok(v));
        assert_eq!(r.remaining(), 0);
    }

    #[test]
    fn messages_come_back() {
        let attr = AttrInfo {
            file: FileId(1),
            ftype: 2,
            nlink: 3,
            size: 4,
            reach: 5,
            epoch: Epoch(6),
            parent: FileId(7),
            entries: 8,
        };
        let seen = Seen { attr, ctime_ns: 9, volume: VolumeId(10), policy: 11 };
        round(&InspectArgs { table: TableEpoch(1), file: FileId(2) });
        round(&InspectRes { status: 0, seen: Some(seen.clone()) });
        round(&InspectRes { status: 70, seen: None });
        let child = Child { file: FileId(8), ftype: 1, policy: 2 };
        let name = Bytes::from_static(b"name");
        let (dir, volume) = (FileId(3), VolumeId(0));
        let held = Held { small: 1, beyond: true, end: 2 };
        for repair in [
            Repair::Name(NameRepair { volume, dir, name, from: Some(FileId(4)), to: Some(child) }),
            Repair::Counts(CountsRepair { seen: seen.clone(), nlink: 1, entries: 2, parent: dir }),
            Repair::Make(MakeRepair {
                dir,
                volume,
                policy: 1,
                mode: 2,
                uid: 3,
                gid: 4,
                nlink: 5,
                parent: FileId(6),
                entries: 7,
            }),
            Repair::Size(SizeRepair { seen, past: Epoch(1), reach: 2, held }),
        ] {
            round(&RepairArgs { table: TableEpoch(1), repair });
        }
        round(&RepairRes { status: 0, done: true });
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = RepairArgs::decode(&mut Reader::new(&bytes));
            let _ = InspectArgs::decode(&mut Reader::new(&bytes));
            let _ = InspectRes::decode(&mut Reader::new(&bytes));
        }
    }
}
