//! Directory server ↔ directory server: operations that touch sites of several servers (DESIGN §6; docs/wire.md), and
//! what the checker asks of a directory server.
//!
//! The server that runs an operation **holds** the records that it reads elsewhere, decides alone, makes its decision
//! durable, and has the others carry out their part of it:
//!
//! ```text
//! E (entry site)                                       H (another site)
//!   HOLD  op, key                    ──▶  locks the record for op; makes the hold durable meanwhile
//!         ◀──  the record as it is stored
//!   decides; one batch: own changes, the client's whole reply, the journal of what H owes   ── refused: DROP op ──▶
//!   CONFIRM  op, effects             ──▶  applies the effects, frees op's holds
//!         ◀──  once hold or effects are durable
//! ```
//!
//! OWE is a CONFIRM of an op that holds nothing at H: what cannot be refused.
//! An op's effects at one server come in one message and are applied once, by (sender, sequence).

use super::xdr_struct;
use crate::ids::{Epoch, FileId, ServerId, Site, TableEpoch};
use crate::xdr::{Decode, Encode, Put, Reader, Result, XdrError};
use bytes::{BufMut, Bytes, BytesMut};

/// Longest stored record that a HOLD returns: far above an attribute record with a symlink target of PATH_MAX, and
/// above a bucket of names with 200 equal hashes.
pub const MAX_RECORD: u32 = 64 << 10;
/// Most effects of one operation at one server: a RENAME over an existing name has seven in all.
pub const MAX_EFFECTS: u32 = 16;
/// Longest name in bytes.
pub const MAX_NAME: u32 = 255;
/// Most operations that one RECONCILE names in either direction: bounds it at 1 MiB.
pub const MAX_RECONCILED: u32 = 32 << 10;
/// Most records of one LIST_ATTRS or LIST_ENTRIES result: bounds it at about 5 MiB of longest names.
pub const MAX_LISTED: u32 = 16 << 10;

xdr_struct! {
    /// An operation: who runs it, and its number there. Numbers rise; the upper bits count the sender's lives
    /// ([`OpId::boot`]), so that none is used twice.
    #[derive(Copy, Hash, PartialOrd, Ord)]
    pub struct OpId {
        /// The server that runs it.
        pub sender: ServerId,
        /// Its number: life ‖ count.
        pub seq: u64,
    }
}

impl OpId {
    /// Bits of `seq` that count within one life of the sender.
    pub const COUNT_BITS: u32 = 40;

    /// Which life of the sender it belongs to.
    #[must_use]
    pub const fn boot(&self) -> u64 {
        self.seq >> Self::COUNT_BITS
    }
}

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
        /// by counts and times ([`AttrEffect`]), in whatever order.
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
    /// As in [`HoldArgs::settled`].
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

/// RECONCILE: a directory server that has started tells each other one what its earlier lives still owe it; holds of its
/// earlier lives that it does not name are dropped. It learns which operations of the called server hold records of
/// its own, so that it holds them again, and which of its stored holds are over. What its earlier lives carried out for the
/// called server and did not call durable is owed anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReconcileArgs {
    /// The sender.
    pub sender: ServerId,
    /// Its present life.
    pub boot: u64,
    /// Operations of its earlier lives whose effects at the called server are still to come.
    pub owed: Vec<u64>,
}

xdr_struct! {
    /// A record that an operation was told to hold.
    #[derive(Copy)]
    pub struct Named {
        /// The operation's number at its sender.
        pub seq: u64,
        /// The record.
        pub key: HoldKey,
        /// Whether it shares it.
        pub share: bool,
    }
}

/// Result of RECONCILE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReconcileRes {
    /// An nfsstat3 or a private status.
    pub status: u32,
    /// What operations of the called server under way hold at the caller.
    pub holds: Vec<Named>,
    /// Operations of the called server whose effects at the caller are still to come.
    pub owed: Vec<u64>,
    /// Which life of the called server says so.
    pub life: u64,
}

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

impl Encode for i32 {
    fn encode(&self, w: &mut BytesMut) {
        w.put_i32(*self);
    }
}

impl Decode<'_> for i32 {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        // RFC 4506 section 4.1: two's complement.
        Ok(r.u32()? as Self)
    }
}

impl Encode for Option<FileId> {
    fn encode(&self, w: &mut BytesMut) {
        w.put_option(self.as_ref());
    }
}

impl Decode<'_> for Option<FileId> {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        r.option(FileId::decode)
    }
}

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

/// Appends a list with its length.
pub fn put_list<T: Encode>(w: &mut BytesMut, items: &[T]) {
    w.put_u32(items.len() as u32);
    items.iter().for_each(|i| i.encode(w));
}

/// Reads a list of at most `max` items.
///
/// # Errors
/// An [`XdrError`] of the length or of an item.
pub fn get_list<'a, T: Decode<'a>>(r: &mut Reader<'a>, max: u32) -> Result<Vec<T>> {
    let n = r.len(max)?;
    (0..n).map(|_| T::decode(r)).collect()
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

impl Encode for ReconcileArgs {
    fn encode(&self, w: &mut BytesMut) {
        self.sender.encode(w);
        w.put_u64(self.boot);
        put_list(w, &self.owed);
    }
}

impl Decode<'_> for ReconcileArgs {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { sender: ServerId::decode(r)?, boot: r.u64()?, owed: get_list(r, MAX_RECONCILED)? })
    }
}

impl Encode for ReconcileRes {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(self.status);
        put_list(w, &self.holds);
        put_list(w, &self.owed);
        w.put_u64(self.life);
    }
}

impl Decode<'_> for ReconcileRes {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            status: r.u32()?,
            holds: get_list(r, MAX_RECONCILED)?,
            owed: get_list(r, MAX_RECONCILED)?,
            life: r.u64()?,
        })
    }
}

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
        let op = OpId { sender: ServerId(7), seq: (3 << OpId::COUNT_BITS) | 9 };
        assert_eq!(op.boot(), 3);
        let names = HoldKey { site: Site(4), file: FileId(9), part: HoldPart::Names(77) };
        for mode in [HoldMode::Wait, HoldMode::Try, HoldMode::Peek, HoldMode::New] {
            round(&HoldArgs { table: TableEpoch(1), op, settled: 2, key: names, mode, share: true });
        }
        round(&HoldRes {
            status: 0,
            file: FileId(3),
            record: Some(Bytes::from_static(b"abcde")),
            durable: true,
            table: TableEpoch(2),
            life: 3,
        });
        let child = Child { file: FileId(8), ftype: 1, policy: 2 };
        let effects = vec![
            Effect::Attr(AttrEffect {
                file: FileId(1),
                now_ns: 5,
                base_ns: 4,
                nlink: -1,
                entries: 1,
                mtime: true,
                parent: Some(FileId(4)),
                remove: false,
            }),
            Effect::Name(NameEffect {
                site: Site(2),
                dir: FileId(3),
                hash: 4,
                name: Bytes::from_static(b"name"),
                from: None,
                to: Some(child),
            }),
            Effect::Make { file: FileId(5), record: Bytes::from_static(b"xyz") },
        ];
        round(&ConfirmArgs { table: TableEpoch(1), op, settled: 0, effects });
        round(&DropArgs { op, durable: true });
        round(&DirRes { status: 0, table: TableEpoch(2), durable: false, life: 3 });
        round(&ReconcileArgs { sender: ServerId(1), boot: 2, owed: vec![3, 4] });
        let right = HoldKey { site: Site(0), file: FileId(1), part: HoldPart::Right };
        let named = |(seq, key)| Named { seq, key, share: seq == 1 };
        round(&ReconcileRes {
            status: 0,
            holds: [(1, names), (2, right)].map(named).into(),
            owed: vec![5],
            life: 3,
        });
        round(&ListEntriesRes {
            status: 0,
            entries: vec![EntryInfo { dir: FileId(1), cookie: 3, name: Bytes::from_static(b"n"), child }],
        });
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = HoldArgs::decode(&mut Reader::new(&bytes));
            let _ = HoldRes::decode(&mut Reader::new(&bytes));
            let _ = ConfirmArgs::decode(&mut Reader::new(&bytes));
            let _ = ReconcileArgs::decode(&mut Reader::new(&bytes));
            let _ = ReconcileRes::decode(&mut Reader::new(&bytes));
            let _ = ListEntriesRes::decode(&mut Reader::new(&bytes));
        }
    }
}
