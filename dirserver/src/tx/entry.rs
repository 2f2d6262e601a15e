//! What stands in the store of an operation with parts at peers (`J` ‖ sequence): what it owes them, and what it has changed here.
//!
//! ```text
//! offset length field
//!      0      1 version, 2
//!      1      4 n, then n effects (XDR, `proto::peer::dir::Effect`)
//!             4 n, then n records of ours that it changes: 8 file, 8 hash of names, all ones for the attributes
//! ```
//! Version 1 had no such records.

use super::unfinished::Changed;
use bytes::{BufMut, Bytes, BytesMut};
use slice_proto::ids::{FileId, ServerId};
use slice_proto::peer::dir::{Effect, MAX_EFFECTS, get_list, put_list};
use slice_proto::xdr::{Reader, XdrError};

const VERSION: u8 = 2;
/// What earlier programs wrote: without what it changes here.
const WITHOUT_CHANGED: u8 = 1;
/// Stands for a file's attributes, where others have a hash of names (of 47 bits).
const ATTRIBUTES: u64 = u64::MAX;

/// An entry.
pub(crate) fn encode(parts: &[(ServerId, Vec<Effect>)], changed: &[Changed]) -> Bytes {
    let mut w = BytesMut::new();
    w.put_u8(VERSION);
    let all: Vec<Effect> = parts.iter().flat_map(|(_, effects)| effects.iter().cloned()).collect();
    put_list(&mut w, &all);
    // At most two names and four files.
    w.put_u32(changed.len() as u32);
    for record in changed {
        w.put_u64(record.file.0);
        w.put_u64(record.names.unwrap_or(ATTRIBUTES));
    }
    w.freeze()
}

/// Effects at peers, and what it has changed here.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn decode(value: &[u8]) -> Result<(Vec<Effect>, Vec<Changed>), &'static str> {
    let version = value.first().copied();
    if version != Some(VERSION) && version != Some(WITHOUT_CHANGED) {
        return Err("unknown version");
    }
    let mut r = Reader::at(value, 1);
    let read = |r: &mut Reader<'_>| -> Result<_, XdrError> {
        let effects = get_list(r, MAX_EFFECTS)?;
        let mut changed = Vec::new();
        for _ in 0..if version == Some(VERSION) { r.u32()? } else { 0 } {
            let (file, names) = (FileId(r.u64()?), r.u64()?);
            changed.push(Changed { file, names: (names != ATTRIBUTES).then_some(names) });
        }
        Ok((effects, changed))
    };
    read(&mut r).map_err(|_| "not readable")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::touch;
    use slice_proto::ids::Site;

    #[test]
    fn an_entry_reads_back_and_so_does_an_older_one() {
        let effect = |home| Effect::Attr(touch(FileId::new(Site(home), 1), 5));
        let parts = [(ServerId(7), vec![effect(1), effect(2)]), (ServerId(8), vec![effect(3)])];
        let file = FileId(9);
        let changed = [Changed { file, names: None }, Changed { file, names: Some(3) }];
        let new = encode(&parts, &changed);
        assert_eq!(decode(&new), Ok(((1..4).map(effect).collect(), changed.to_vec())));
        let mut old = new.slice(..new.len() - 4 - 32).to_vec();
        *old.first_mut().unwrap() = WITHOUT_CHANGED;
        assert_eq!(decode(&old), Ok(((1..4).map(effect).collect(), Vec::new())));
        assert!((0..new.len()).all(|end| decode(&new[..end]).is_err()));
        assert_eq!(decode(&[VERSION + 1]), Err("unknown version"));
    }
}
