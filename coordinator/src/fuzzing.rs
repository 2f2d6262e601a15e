//! A way in for fuzzing (`fuzz/`): what only this crate decodes. No part of its interface.

use crate::intents::Entry;
use crate::log::record::{End, Record, read_run};
use crate::stored;

/// The ensemble's record. What is understood reads back as the same.
///
/// # Panics
/// If it does not.
pub fn records(data: &[u8]) {
    if let Ok(ensemble) = stored::decode(data) {
        assert_eq!(stored::decode(&stored::encode(&ensemble)).ok(), Some(ensemble));
    }
}

/// A run of the intention log, an entry of it, and a run that is whole but for its end.
///
/// # Panics
/// If a record is made up, or one that was written is not found.
pub fn log(data: &[u8]) {
    const SALT: u64 = 0;
    read_run(SALT, 1, data, |record| assert!(record.payload.len() <= data.len()));
    if let Ok(entry) = Entry::decode(data) {
        assert_eq!(Entry::decode(&entry.encode()).ok(), Some(entry));
    }
    // Records of the data's parts, torn where the data says.
    let Some((cut, data)) = data.split_first() else { return };
    let mut bytes = Vec::new();
    let payloads: Vec<&[u8]> = data.chunks(usize::from(*cut % 32) + 1).take(8).collect();
    let mut ends = Vec::new();
    for (sequence, payload) in (1..).zip(&payloads) {
        Record { sequence, durable: 0, payload }.encode(SALT, &mut bytes);
        ends.push(bytes.len());
    }
    let torn = usize::from(*cut) * bytes.len() / 255;
    let mut read: Vec<&[u8]> = Vec::new();
    let end = read_run(SALT, 1, bytes.get(..torn).unwrap_or_default(), |record| read.push(record.payload));
    // A record's padding may be torn off.
    let whole = ends
        .iter()
        .zip(&payloads)
        .filter(|(end, payload)| **end - (8 - payload.len() % 8) % 8 <= torn)
        .count();
    assert_eq!(read.as_slice(), payloads.get(..whole).unwrap_or_default());
    assert_eq!(end, End::Clean(whole as u64 + 1));
}
