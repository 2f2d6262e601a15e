//! A way in for fuzzing (`fuzz/`): what only this crate decodes. No part of its interface.

use crate::record::{self, Record};
use slice_proto::ids::FileId;

/// An object's record, or a key. What is understood reads back as the same.
///
/// # Panics
/// If it does not.
pub fn records(data: &[u8]) {
    if let Ok(record) = Record::decode(FileId(1), data) {
        assert_eq!(Record::decode(FileId(1), &record.encode()).ok(), Some(record));
    }
    if let Some(file) = record::object_of(data) {
        assert_eq!(record::object_key(file), data);
    }
    if let Some((at_ns, file)) = record::grave_of(data) {
        assert_eq!(record::grave_key(at_ns, file), data);
    }
    if let Some(site) = record::site_of(data) {
        assert_eq!(record::site_key(site), data);
    }
}
