//! Keys of what a small-file server and a storage node both keep in their stores.
//!
//! | key | value |
//! | --- | --- |
//! | `o` ‖ file id (8) | the object's record, which each has of its own |
//! | `t` ‖ time in ns (8) ‖ file id (8) | empty: a tombstone, in the order in which they were made |
//! | `s` ‖ site (2) | version of the stamp: this store holds the site (I4) |

use crate::engine::{Direction, KeyRange};
use crate::error::Result;
use crate::store::Store;
use slice_proto::ids::{FileId, Site};
use std::time::Duration;

/// How long a tombstone is kept: TCP gives a connection up after 15 minutes of silence or less; 1 hour is well beyond.
pub const TOMBSTONE_KEPT: Duration = Duration::from_secs(3600);

const OBJECT: u8 = b'o';
const GRAVE: u8 = b't';
const SITE: u8 = b's';

/// Prefix of all object records.
pub const OBJECTS: [u8; 1] = [OBJECT];
/// Prefix of all tombstones.
pub const GRAVES: [u8; 1] = [GRAVE];
/// Prefix of all site stamps.
pub const SITES: [u8; 1] = [SITE];
/// Value of a site stamp: its version.
pub const SITE_STAMP: &[u8] = &[1];

/// Where an object's record stands.
#[must_use]
pub fn object_key(file: FileId) -> [u8; 9] {
    let mut key = [OBJECT; 9];
    key.iter_mut().skip(1).zip(file.0.to_be_bytes()).for_each(|(k, b)| *k = b);
    key
}

/// The file whose record stands at `key`.
#[must_use]
pub fn object_of(key: &[u8]) -> Option<FileId> {
    let (&OBJECT, file) = key.split_first()? else { return None };
    Some(FileId(u64::from_be_bytes(file.try_into().ok()?)))
}

/// Where a tombstone's time stands.
#[must_use]
pub fn grave_key(at_ns: u64, file: FileId) -> [u8; 17] {
    let mut key = [GRAVE; 17];
    let rest = at_ns.to_be_bytes().into_iter().chain(file.0.to_be_bytes());
    key.iter_mut().skip(1).zip(rest).for_each(|(k, b)| *k = b);
    key
}

/// The time and file of the tombstone at `key`.
#[must_use]
pub fn grave_of(key: &[u8]) -> Option<(u64, FileId)> {
    let (&GRAVE, rest) = key.split_first()? else { return None };
    let (at, file) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*at), FileId(u64::from_be_bytes(file.try_into().ok()?))))
}

/// Where a site's stamp stands.
#[must_use]
pub fn site_key(site: Site) -> [u8; 3] {
    let [a, b] = site.0.to_be_bytes();
    [SITE, a, b]
}

/// The site whose stamp stands at `key`.
#[must_use]
pub const fn site_of(key: &[u8]) -> Option<Site> {
    match key {
        [SITE, a, b] => Some(Site(u16::from_be_bytes([*a, *b]))),
        _ => None,
    }
}

/// Tombstones of up to `before`, and those of a clock that was ahead of `now`: at most `most`.
///
/// # Errors
/// The store's.
pub fn old_graves(store: &Store, before: u64, now: u64, most: usize) -> Result<Vec<(u64, FileId)>> {
    let mut old = Vec::new();
    for (from, is_old) in [
        (Direction::Forward, &(|at| at <= before) as &dyn Fn(u64) -> bool),
        (Direction::Backward, &|at| at > now),
    ] {
        let room = most.saturating_sub(old.len());
        for pair in store.iter(KeyRange::prefix(GRAVES), from).take(room) {
            match grave_of(&pair?.0) {
                Some((at, file)) if is_old(at) => old.push((at, file)),
                _ => break,
            }
        }
    }
    Ok(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_read_back(file: u64, time: u64, site: u16) {
            let (file, site) = (FileId(file), Site(site));
            prop_assert_eq!(object_of(&object_key(file)), Some(file));
            prop_assert_eq!(grave_of(&grave_key(time, file)), Some((time, file)));
            prop_assert_eq!(site_of(&site_key(site)), Some(site));
        }

        #[test]
        fn what_is_understood_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            prop_assert!(object_of(&bytes).is_none_or(|file| object_key(file) == bytes[..]));
            prop_assert!(grave_of(&bytes).is_none_or(|(at, file)| grave_key(at, file) == bytes[..]));
            prop_assert!(site_of(&bytes).is_none_or(|site| site_key(site) == bytes[..]));
        }
    }
}
