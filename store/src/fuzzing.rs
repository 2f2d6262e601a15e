//! A way in for fuzzing (`fuzz/`): what only this crate decodes. No part of its interface.

use crate::stamp::StoreStamp;

/// The stamp of a store. What is understood reads back as the same.
///
/// # Panics
/// If it does not.
pub fn records(data: &[u8]) {
    if let Ok((stamp, kind)) = StoreStamp::decode(data) {
        assert_eq!(StoreStamp::decode(&stamp.encode(kind)), Ok((stamp, kind)));
    }
}
