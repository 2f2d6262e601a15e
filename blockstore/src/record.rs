//! An object's metadata record, and the other keys of the store.
//!
//! | key | value |
//! | --- | --- |
//! | `o` ‖ file id (8) | [`Record`] of an object that is not as objects are by default |
//! | `t` ‖ time in ns (8) ‖ file id (8) | empty: a tombstone, in the order in which they were made |
//! | `s` ‖ site (2) | version of the stamp: this store holds the site (I4) |

use crate::error::{Error, Result};
use bytes::{BufMut, Bytes, BytesMut};
use slice_proto::ids::{Epoch, FileId, Site};
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

const OBJECT: u8 = b'o';
const GRAVE: u8 = b't';
const SITE: u8 = b's';

/// Prefix of all object records.
pub(crate) const OBJECTS: [u8; 1] = [OBJECT];
/// Prefix of all tombstones.
pub(crate) const GRAVES: [u8; 1] = [GRAVE];
/// Prefix of all site stamps.
pub(crate) const SITES: [u8; 1] = [SITE];
/// Value of a site stamp: its version.
pub(crate) const SITE_STAMP: &[u8] = &[1];

/// Where an object's record stands.
pub(crate) fn object_key(file: FileId) -> [u8; 9] {
    let mut key = [OBJECT; 9];
    key.iter_mut().skip(1).zip(file.0.to_be_bytes()).for_each(|(k, b)| *k = b);
    key
}

/// The file whose record stands at `key`.
pub(crate) fn object_of(key: &[u8]) -> Option<FileId> {
    let (&OBJECT, id) = key.split_first()? else { return None };
    id.try_into().ok().map(|b| FileId(u64::from_be_bytes(b)))
}

/// Where a tombstone's time stands.
pub(crate) fn grave_key(at_ns: u64, file: FileId) -> [u8; 17] {
    let mut key = [GRAVE; 17];
    let rest = at_ns.to_be_bytes().into_iter().chain(file.0.to_be_bytes());
    key.iter_mut().skip(1).zip(rest).for_each(|(k, b)| *k = b);
    key
}

/// The time and file of the tombstone at `key`.
pub(crate) fn grave_of(key: &[u8]) -> Option<(u64, FileId)> {
    let (&GRAVE, rest) = key.split_first()? else { return None };
    let (at, file) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*at), FileId(u64::from_be_bytes(file.try_into().ok()?))))
}

/// Where a site's stamp stands.
pub(crate) fn site_key(site: Site) -> [u8; 3] {
    let [a, b] = site.0.to_be_bytes();
    [SITE, a, b]
}

/// The site whose stamp stands at `key`.
pub(crate) fn site_of(key: &[u8]) -> Option<Site> {
    match key {
        [SITE, a, b] => Some(Site(u16::from_be_bytes([*a, *b]))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_and_keys_read_back(epoch: u64, at: Option<u64>, file: u64, time: u64, site: u16) {
            let r = Record { epoch: Epoch(epoch), purged_ns: at };
            prop_assert_eq!(Record::decode(FileId(file), &r.encode()).unwrap(), r);
            prop_assert_eq!(object_of(&object_key(FileId(file))), Some(FileId(file)));
            prop_assert_eq!(grave_of(&grave_key(time, FileId(file))), Some((time, FileId(file))));
            prop_assert_eq!(site_of(&site_key(Site(site))), Some(Site(site)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            let _ = Record::decode(FileId(1), &bytes);
            let _ = (object_of(&bytes), grave_of(&bytes), site_of(&bytes));
        }
    }
}
