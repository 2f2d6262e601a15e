//! An object's metadata record; its key, and the others of the store, are in [`slice_store::data_keys`].

use crate::error::{Error, Result};
use bytes::{BufMut, Bytes, BytesMut};
use slice_proto::ids::{Epoch, FileId};
use slice_proto::xdr::Reader;

/// Tells records of this layout from later ones.
const VERSION: u8 = 1;
/// Only a tombstone is left.
const TOMBSTONE: u8 = 1;

/// What is remembered of an object beside its bytes. Written only when it differs from what every object is by default
/// (epochs up to [`UNRECORDED`](crate::fence::UNRECORDED), alive), so that a plain file costs the store nothing.
///
/// | bytes | what | why there |
/// | --- | --- | --- |
/// | 0 | version, 1 | decides how to read the rest |
/// | 1 | flags: 1 tombstone | |
/// | 2..4 | 0: the kind of checksums, when there are any | |
/// | 4..12 | epoch | |
/// | 12..20 | when the tombstone was made, ns since 1970, else 0 | leads to its `t` key |
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Highest epoch seen.
    pub epoch: Epoch,
    /// When the object was purged, ns since 1970; `None` if it lives.
    pub purged_ns: Option<u64>,
}

impl Record {
    pub(crate) fn encode(&self) -> Bytes {
        let mut b = BytesMut::with_capacity(20);
        b.put_u8(VERSION);
        b.put_u8(if self.purged_ns.is_some() { TOMBSTONE } else { 0 });
        b.put_u16(0);
        b.put_u64(self.epoch.0);
        b.put_u64(self.purged_ns.unwrap_or(0));
        b.freeze()
    }

    pub(crate) fn decode(file: FileId, bytes: &[u8]) -> Result<Self> {
        let bad = |why| Error::BadRecord { file: file.0, why };
        let mut r = Reader::new(bytes);
        let [version, flags, _, _] = r.fixed().map_err(|_| bad("too short"))?;
        if version != VERSION || flags & !TOMBSTONE != 0 {
            return Err(bad("of another version"));
        }
        let epoch = Epoch(r.u64().map_err(|_| bad("too short"))?);
        let at = r.u64().map_err(|_| bad("too short"))?;
        Ok(Self { epoch, purged_ns: (flags & TOMBSTONE != 0).then_some(at) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_read_back(epoch: u64, at: Option<u64>, file: u64) {
            let r = Record { epoch: Epoch(epoch), purged_ns: at };
            prop_assert_eq!(Record::decode(FileId(file), &r.encode()).unwrap(), r);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            let _ = Record::decode(FileId(1), &bytes);
        }
    }
}
