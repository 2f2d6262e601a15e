//! Where records stand in the store.
//!
//! | key | value |
//! | --- | --- |
//! | `A` file id | [`crate::records::AttrRec`] |
//! | `E` directory id ‖ top 47 bits of the name hash, 6 bytes | [`crate::bucket::Bucket`]: the names with that hash |
//! | `R` client (16) ‖ slot (2) | [`crate::replies`]: the ring of a client's replies |
//! | `J` sequence | [`crate::tx::journal`]: what an operation of ours owes to peers |
//! | `M` sender ‖ sequence | empty: a peer's operation whose effects have been applied |
//! | `H` sender ‖ sequence ‖ site, file, part, hash | empty: a record held for a peer's operation |
//! | `T` file id | [`crate::records::Resize`]: a change of size under way |
//! | `P` file id | [`crate::records::Purge`]: bytes of a removed file to be purged |
//! | `S` site | [`crate::records::SiteStamp`]: the site is ours (I4) |
//! | `Q` site | sequence numbers below this may be in use |
//! | `B` | life of this server |
//!
//! All numbers are big-endian, so that keys order as numbers do: one range scan over `E` ‖ directory meets the names
//! in cookie order whatever sites they belong to.
//! Names with equal 47 bits share one key, so that a lookup, also of a name that is not there, is one point read.

use slice_proto::ids::{FileId, ServerId, Site};
use slice_proto::peer::dir::{HoldKey, HoldPart, OpId};
use slice_proto::trailer::ClientId;
use slice_proto::xdr::Reader;

/// Prefix of attribute records.
pub(crate) const ATTR: u8 = b'A';
/// Prefix of entries.
pub(crate) const ENTRY: u8 = b'E';
/// Prefix of replies.
pub(crate) const REPLY: u8 = b'R';
/// Prefix of the journal.
pub(crate) const JOURNAL: u8 = b'J';
/// Prefix of marks of applied operations.
pub(crate) const MARK: u8 = b'M';
/// Prefix of holds.
pub(crate) const HOLD: u8 = b'H';
/// Prefix of resizes under way.
pub(crate) const RESIZE: u8 = b'T';
/// Prefix of purges.
pub(crate) const PURGE: u8 = b'P';
/// Prefix of site stamps.
pub(crate) const STAMP: u8 = b'S';
/// Prefix of sequence counters.
pub(crate) const SEQUENCE: u8 = b'Q';
/// The life of this server.
pub(crate) const BOOT: [u8; 1] = [b'B'];

/// Bits of the name hash in an entry's key; the cookie has the same ones above its tie-breaker.
const HASH47_SHIFT: u32 = 64 - 47;

/// The bits of a name hash that key and cookie carry.
pub(crate) const fn hash47(hash: u64) -> u64 {
    hash >> HASH47_SHIFT
}

/// The 47 bits of a cookie.
pub(crate) const fn hash47_of_cookie(cookie: u64) -> u64 {
    cookie >> 16
}

/// Joins parts of known lengths into one key.
fn join<const N: usize>(prefix: u8, parts: &[&[u8]]) -> [u8; N] {
    let mut key = [0; N];
    let bytes = [prefix].into_iter().chain(parts.iter().flat_map(|p| p.iter().copied()));
    key.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    key
}

pub(crate) fn attr(file: FileId) -> [u8; 9] {
    join(ATTR, &[&file.0.to_be_bytes()])
}

pub(crate) fn entry(dir: FileId, hash47: u64) -> [u8; 15] {
    let [_, _, low @ ..] = hash47.to_be_bytes();
    join(ENTRY, &[&dir.0.to_be_bytes(), &low])
}

pub(crate) fn entries_of(dir: FileId) -> [u8; 9] {
    join(ENTRY, &[&dir.0.to_be_bytes()])
}

pub(crate) fn reply(client: &ClientId, slot: u16) -> [u8; 19] {
    join(REPLY, &[&client.0, &slot.to_be_bytes()])
}

pub(crate) fn journal(seq: u64) -> [u8; 9] {
    join(JOURNAL, &[&seq.to_be_bytes()])
}

pub(crate) fn mark(op: OpId) -> [u8; 17] {
    join(MARK, &[&op.sender.0.to_be_bytes(), &op.seq.to_be_bytes()])
}

pub(crate) fn marks_of(sender: ServerId) -> [u8; 9] {
    join(MARK, &[&sender.0.to_be_bytes()])
}

pub(crate) fn hold(op: OpId, key: &HoldKey) -> [u8; 36] {
    let (part, hash) = match key.part {
        HoldPart::Attr => (0, 0),
        HoldPart::Names(hash) => (1, hash),
        HoldPart::Right => (2, 0),
    };
    join(
        HOLD,
        &[
            &op.sender.0.to_be_bytes(),
            &op.seq.to_be_bytes(),
            &key.site.0.to_be_bytes(),
            &key.file.0.to_be_bytes(),
            &[part],
            &u64::to_be_bytes(hash),
        ],
    )
}

/// Reads a key made by [`hold`].
pub(crate) fn parse_hold(key: &[u8]) -> Option<(OpId, HoldKey)> {
    let [_, rest @ ..] = key else { return None };
    let (ids, tail) = rest.split_at_checked(16)?;
    let mut r = Reader::new(ids);
    let op = OpId { sender: ServerId(r.u64().ok()?), seq: r.u64().ok()? };
    let (site, tail) = tail.split_first_chunk::<2>()?;
    let (file, tail) = tail.split_first_chunk::<8>()?;
    let ([part], hash) = tail.split_first_chunk::<1>()?;
    let hash = u64::from_be_bytes(hash.try_into().ok()?);
    let part = match part {
        0 => HoldPart::Attr,
        1 => HoldPart::Names(hash),
        2 => HoldPart::Right,
        _ => return None,
    };
    let key =
        HoldKey { site: Site(u16::from_be_bytes(*site)), file: FileId(u64::from_be_bytes(*file)), part };
    Some((op, key))
}

pub(crate) fn resize(file: FileId) -> [u8; 9] {
    join(RESIZE, &[&file.0.to_be_bytes()])
}

pub(crate) fn purge(file: FileId) -> [u8; 9] {
    join(PURGE, &[&file.0.to_be_bytes()])
}

pub(crate) fn stamp(site: Site) -> [u8; 3] {
    join(STAMP, &[&site.0.to_be_bytes()])
}

pub(crate) fn sequence(site: Site) -> [u8; 3] {
    join(SEQUENCE, &[&site.0.to_be_bytes()])
}

/// The number behind the prefix of a key of 9 bytes.
pub(crate) fn number(key: &[u8]) -> Option<u64> {
    let (_, rest) = key.split_first()?;
    rest.try_into().ok().map(u64::from_be_bytes)
}

/// The directory and 47 hash bits of an entry's key.
pub(crate) fn parse_entry(key: &[u8]) -> Option<(FileId, u64)> {
    let (_, rest) = key.split_first()?;
    let (dir, low) = rest.split_first_chunk::<8>()?;
    let [a, b, c, d, e, f] = low.try_into().ok()?;
    Some((FileId(u64::from_be_bytes(*dir)), u64::from_be_bytes([0, 0, a, b, c, d, e, f])))
}

/// The site behind a key's prefix.
pub(crate) fn parse_site(key: &[u8]) -> Option<Site> {
    let (_, rest) = key.split_first()?;
    rest.try_into().ok().map(u16::from_be_bytes).map(Site)
}

/// The client and slot of a reply's key.
pub(crate) fn parse_reply(key: &[u8]) -> Option<(ClientId, u16)> {
    let (_, rest) = key.split_first()?;
    let (client, slot) = rest.split_first_chunk::<16>()?;
    Some((ClientId(*client), u16::from_be_bytes(slot.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        let op = OpId { sender: ServerId(1 << 60), seq: 77 };
        for part in [HoldPart::Attr, HoldPart::Names((1 << 47) - 1), HoldPart::Right] {
            let key = HoldKey { site: Site(255), file: FileId(u64::MAX), part };
            assert_eq!(parse_hold(&hold(op, &key)), Some((op, key)));
        }
        assert_eq!(parse_entry(&entry(FileId(9), (1 << 47) - 1)), Some((FileId(9), (1 << 47) - 1)));
        assert_eq!(number(&purge(FileId(3))), Some(3));
        assert_eq!(parse_site(&stamp(Site(258))), Some(Site(258)));
        let client = ClientId([7; 16]);
        assert_eq!(parse_reply(&reply(&client, 500)), Some((client, 500)));
    }
}
