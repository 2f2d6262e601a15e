//! A way in for fuzzing (`fuzz/`): what only this crate decodes. No part of its interface.

use crate::record::Record;
use slice_proto::ids::FileId;

/// An object's record. What is understood reads back as the same.
///
/// # Panics
/// If it does not.
pub fn records(data: &[u8]) {
    if let Ok(record) = Record::decode(FileId(1), data) {
        assert_eq!(Record::decode(FileId(1), &record.encode()).ok(), Some(record));
    }
}
