//! Anyone → coordinator: intentions (DESIGN §9), pipelined and group-committed.

use super::xdr_struct;
use crate::ids::{Epoch, FileId, IntentionId, ServerId};
use crate::xdr::{Decode, Encode, Reader, Result, XdrError};
use bytes::{BufMut, BytesMut};

/// Most intentions that one COMPLETE names.
pub const MAX_COMPLETED: u32 = 1024;

/// What is intended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum IntentKind {
    /// The bytes of a file whose last link is gone are purged everywhere under its reach. Rolls forward.
    Remove = 1,
    /// A file is cut to a size everywhere under its reach. Rolls forward.
    Truncate = 2,
    /// A burst of writes to a mirrored file. Compared and made equal.
    MirroredWrite = 3,
    /// A site moves. Rolls back or on.
    MoveSite = 4,
}

impl Encode for IntentKind {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(*self as u32);
    }
}

impl Decode<'_> for IntentKind {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let got = r.u32()?;
        [Self::Remove, Self::Truncate, Self::MirroredWrite, Self::MoveSite]
            .into_iter()
            .find(|k| *k as u32 == got)
            .ok_or(XdrError::BadEnum { got })
    }
}

xdr_struct! {
    /// An operation under way at several data sites, with all that taking it over needs.
    pub struct Intent {
        /// What is intended.
        pub kind: IntentKind,
        /// The file.
        pub file: FileId,
        /// The epoch that the operation hands out.
        pub epoch: Epoch,
        /// TRUNCATE: the size.
        pub size: u64,
        /// The reach as the operation began: the sites to visit.
        pub reach: u64,
        /// Who drives it.
        pub owner: ServerId,
    }
}

xdr_struct! {
    /// INTENT_LOG: answered once the intention is durable. Logging the same (kind, file, epoch) again returns the same id.
    pub struct LogArgs {
        /// The intention.
        pub intent: Intent,
    }
}

xdr_struct! {
    /// Result of INTENT_LOG.
    pub struct LogRes {
        /// An nfsstat3 or a private status.
        pub status: u32,
        /// The intention's id.
        pub id: IntentionId,
    }
}

/// INTENT_COMPLETE: the operations are done everywhere; lazy and batched. The result is an nfsstat3.
/// An id that is unknown (completed already, taken over) is ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompleteArgs {
    /// The intentions.
    pub ids: Vec<IntentionId>,
}

impl Encode for CompleteArgs {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(self.ids.len() as u32);
        self.ids.iter().for_each(|i| i.encode(w));
    }
}

impl Decode<'_> for CompleteArgs {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let n = r.len(MAX_COMPLETED)?;
        (0..n).map(|_| IntentionId::decode(r)).collect::<Result<_>>().map(|ids| Self { ids })
    }
}
