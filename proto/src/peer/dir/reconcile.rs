//! RECONCILE: what a directory server that has started asks the others.

use super::{HoldKey, get_list, put_list};
use crate::ids::ServerId;
use crate::peer::xdr_struct;
use crate::xdr::{Decode, Encode, Reader, Result};
use bytes::{BufMut, BytesMut};

/// Most operations that one RECONCILE names in either direction: bounds it at 1 MiB.
pub const MAX_RECONCILED: u32 = 32 << 10;

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

// === XDR ===

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
