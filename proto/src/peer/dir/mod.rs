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
//!
//! | file | what |
//! | --- | --- |
//! | `hold` | HOLD: what is locked, and how |
//! | `effect` | CONFIRM, OWE, DROP: what an operation changes elsewhere |
//! | `reconcile` | RECONCILE: what a server that has started asks the others |
//! | `list` | LIST_ATTRS, LIST_ENTRIES, SETTLED: what the checker asks |

mod effect;
mod hold;
mod list;
mod reconcile;

pub use effect::{AttrEffect, Child, ConfirmArgs, DirRes, DropArgs, Effect, MAX_EFFECTS, NameEffect};
pub use hold::{HoldArgs, HoldKey, HoldMode, HoldPart, HoldRes, MAX_RECORD};
pub use list::{
    AttrInfo, EntryInfo, ListAttrsArgs, ListAttrsRes, ListEntriesArgs, ListEntriesRes, MAX_LISTED, SettledRes,
};
pub use reconcile::{MAX_RECONCILED, Named, ReconcileArgs, ReconcileRes};

use super::xdr_struct;
use crate::ids::{FileId, ServerId};
use crate::xdr::{Decode, Encode, Put, Reader, Result};
use bytes::{BufMut, BytesMut};

/// Longest name in bytes.
pub const MAX_NAME: u32 = 255;

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

/// Appends a list with its length.
pub fn put_list<T: Encode>(w: &mut BytesMut, items: &[T]) {
    w.put_u32(items.len() as u32);
    items.iter().for_each(|i| i.encode(w));
}

/// Reads a list of at most `max` items.
///
/// # Errors
/// An [`XdrError`](crate::xdr::XdrError) of the length or of an item.
pub fn get_list<'a, T: Decode<'a>>(r: &mut Reader<'a>, max: u32) -> Result<Vec<T>> {
    let n = r.len(max)?;
    (0..n).map(|_| T::decode(r)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Site, TableEpoch};
    use bytes::Bytes;
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
