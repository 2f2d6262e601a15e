//! Entries of the intention log as bytes.

use crate::error::{Error, Result};
use crate::intents::Entry;
use bytes::{BufMut, BytesMut};
use slice_proto::ids::IntentionId;
use slice_proto::peer::intent::{CompleteArgs, Intent};
use slice_proto::xdr::{Decode, Encode, Reader, XdrError};

/// Version of the entries.
const VERSION: u32 = 1;
const LOGGED: u32 = 1;
const COMPLETED: u32 = 2;

impl Entry {
    /// XDR: version, kind, then `id, logged_ns, Intent` or [`CompleteArgs`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = BytesMut::new();
        w.put_u32(VERSION);
        match self {
            Self::Logged { id, logged_ns, intent } => {
                w.put_u32(LOGGED);
                id.encode(&mut w);
                w.put_u64(*logged_ns);
                intent.encode(&mut w);
            }
            Self::Completed(ids) => {
                w.put_u32(COMPLETED);
                CompleteArgs { ids: ids.clone() }.encode(&mut w);
            }
        }
        w.to_vec()
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// [`Error::NewerFormat`], [`Error::BadRecord`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = |_: XdrError| Error::BadRecord { what: "a record", whose: "intention log" };
        let mut r = Reader::new(bytes);
        let version = r.u32().map_err(bad)?;
        if version > VERSION {
            return Err(Error::NewerFormat { what: "the intention log", found: version, known: VERSION });
        }
        let entry = match r.u32().map_err(bad)? {
            LOGGED => Self::Logged {
                id: IntentionId::decode(&mut r).map_err(bad)?,
                logged_ns: r.u64().map_err(bad)?,
                intent: Intent::decode(&mut r).map_err(bad)?,
            },
            COMPLETED => Self::Completed(CompleteArgs::decode(&mut r).map_err(bad)?.ids),
            got => return Err(bad(XdrError::BadEnum { got })),
        };
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use slice_proto::ids::{Epoch, FileId, ServerId};
    use slice_proto::peer::intent::IntentKind;

    #[test]
    fn entries_come_back() {
        let intent = Intent {
            kind: IntentKind::Truncate,
            file: FileId(1),
            epoch: Epoch(2),
            size: 3,
            reach: 4,
            owner: ServerId(5),
        };
        for entry in [
            Entry::Logged { id: IntentionId(6), logged_ns: 7, intent },
            Entry::Completed(vec![IntentionId(8), IntentionId(9)]),
        ] {
            assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
        }
    }

    #[test]
    fn a_newer_version_is_refused() {
        let mut bytes = Entry::Completed(vec![]).encode();
        bytes[3] = 2;
        assert!(matches!(Entry::decode(&bytes), Err(Error::NewerFormat { found: 2, .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Entry::decode(&bytes);
        }
    }
}
