//! A record of the log, and where a run of them ends.

use slice_proto::xdr::Reader;

/// Bytes before the payload.
pub const HEADER: usize = 32;
/// Records begin at multiples of this, so that a search for whole records behind a damaged one is cheap.
pub const ALIGN: usize = 8;
/// Longest payload: the longest is a COMPLETE of [`slice_proto::peer::intent::MAX_COMPLETED`] ids, 8 KiB.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// What has never been written, by the block: no record begins in it. A multiple of [`ALIGN`].
const ZEROS: [u8; 4096] = [0; 4096];
/// Version of the record's layout.
const VERSION: u32 = 1;

/// A record of the log.
///
/// | bytes | what | why there |
/// | --- | --- | --- |
/// | 0..4 | length of the payload | never 0, so that zeros are no record |
/// | 4..8 | CRC-32 of salt ‖ bytes 0..4 ‖ bytes 8..end of payload | the salt is the segment's, so that what an earlier life of the file left is no record |
/// | 8..12 | version | |
/// | 12..16 | 0 | |
/// | 16..24 | sequence | one more than the record before |
/// | 24..32 | durable | every record up to this was durable before this one was written: tells damage from a torn tail |
/// | 32.. | payload, zero-padded to a multiple of 8 | |
///
/// All integers big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place in the log.
    pub sequence: u64,
    /// Every record up to this was durable before this one was written.
    pub durable: u64,
    /// What it says.
    pub payload: &'a [u8],
}

/// Bytes that a record with this much payload takes.
pub const fn room(payload: usize) -> usize {
    HEADER + payload.next_multiple_of(ALIGN)
}

fn checksum(salt: u64, len: &[u8], rest: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_be_bytes());
    crc.update(len);
    crc.update(rest);
    crc.finalize()
}

impl<'a> Record<'a> {
    /// Appends the record to `out`.
    pub fn encode(&self, salt: u64, out: &mut Vec<u8>) {
        // A payload is at most MAX_PAYLOAD.
        let len = (self.payload.len() as u32).to_be_bytes();
        let mut rest = Vec::with_capacity(HEADER - 8 + self.payload.len());
        rest.extend_from_slice(&VERSION.to_be_bytes());
        rest.extend_from_slice(&[0; 4]);
        rest.extend_from_slice(&self.sequence.to_be_bytes());
        rest.extend_from_slice(&self.durable.to_be_bytes());
        rest.extend_from_slice(self.payload);
        out.extend_from_slice(&len);
        out.extend_from_slice(&checksum(salt, &len, &rest).to_be_bytes());
        out.extend_from_slice(&rest);
        out.resize(out.len().next_multiple_of(ALIGN), 0);
    }

    /// The record at the start of `bytes`, if a whole one stands there.
    pub fn decode(salt: u64, bytes: &'a [u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let (len, crc) = (r.u32().ok()?, r.u32().ok()?);
        if len == 0 || len as usize > MAX_PAYLOAD || r.u32().ok()? != VERSION {
            return None;
        }
        r.u32().ok()?;
        let (sequence, durable) = (r.u64().ok()?, r.u64().ok()?);
        let payload = r.take(len as usize).ok()?;
        let rest = bytes.get(8..HEADER + len as usize)?;
        (checksum(salt, &len.to_be_bytes(), rest) == crc).then_some(Self { sequence, durable, payload })
    }
}

/// How a run of records ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing durable follows: zeros, or what a crash tore. The next sequence.
    Clean(u64),
    /// The record at this offset was durable and is damaged.
    Damaged(usize),
}

/// Reads the run of records that begins with sequence `first` at the start of `bytes`, handing each to `each`.
pub fn read_run<'a>(salt: u64, first: u64, bytes: &'a [u8], mut each: impl FnMut(Record<'a>)) -> End {
    let mut at = 0;
    let mut next = first;
    while let Some(record) = bytes.get(at..).and_then(|b| Record::decode(salt, b)) {
        if record.sequence != next {
            break;
        }
        at += room(record.payload.len());
        next += 1;
        each(record);
    }
    // A record further on that was written when `next` was durable already shows that `next` is damaged, not torn.
    let mut later = at + ALIGN;
    while let Some(rest) = bytes.get(later..).filter(|b| b.len() >= HEADER) {
        // Most of a segment, usually: one look at a block, not one at each of its words.
        if rest.starts_with(&ZEROS) {
            later += ZEROS.len();
            continue;
        }
        if Record::decode(salt, rest).is_some_and(|r| r.sequence > next && r.durable >= next) {
            return End::Damaged(at);
        }
        later += ALIGN;
    }
    End::Clean(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SALT: u64 = 77;

    /// `groups` of records, each group made durable before the next, from sequence 1 on.
    fn run(groups: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts, mut sequence) = (Vec::new(), Vec::new(), 0u64);
        for size in groups {
            let durable = sequence;
            for _ in 0..*size {
                sequence += 1;
                starts.push(bytes.len());
                let payload = vec![sequence as u8; 5 + sequence as usize];
                Record { sequence, durable, payload: &payload }.encode(SALT, &mut bytes);
            }
        }
        (bytes, starts)
    }

    fn read(bytes: &[u8]) -> (Vec<u64>, End) {
        let mut seen = Vec::new();
        let end = read_run(SALT, 1, bytes, |r| seen.push(r.sequence));
        (seen, end)
    }

    #[test]
    fn a_run_comes_back() {
        let (mut bytes, _) = run(&[1, 3, 2]);
        bytes.resize(bytes.len() + 100, 0);
        assert_eq!(read(&bytes), ((1..=6).collect(), End::Clean(7)));
        assert_eq!(read(&[]), (vec![], End::Clean(1)));
    }

    #[test]
    fn another_lifes_records_are_none() {
        let (bytes, _) = run(&[2]);
        let mut seen = 0;
        assert_eq!(read_run(SALT + 1, 1, &bytes, |_| seen += 1), End::Clean(1));
        assert_eq!(seen, 0);
    }

    /// Every byte of the last group may be lost or wrong: the whole records before it stand, none is made up.
    #[test]
    fn a_torn_last_group_is_cut() {
        let (bytes, starts) = run(&[2, 3]);
        for at in starts[2]..bytes.len() {
            let record = starts.iter().rposition(|s| *s <= at).unwrap();
            // Padding is not checked and holds nothing.
            let whole = |at: usize| record + usize::from(at > starts[record] + HEADER + 5 + record);
            let (seen, end) = read(&bytes[..at]);
            assert_eq!(seen, (1..=whole(at) as u64).collect::<Vec<_>>(), "cut at {at}");
            assert_eq!(end, End::Clean(whole(at) as u64 + 1));
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            let (seen, end) = read(&bad);
            let stand = if whole(at) > record { 5 } else { record };
            assert_eq!((seen.len(), end), (stand, End::Clean(stand as u64 + 1)), "garbled at {at}");
        }
    }

    /// A damaged record of a group that later groups vouch for is told, not cut.
    #[test]
    fn damage_before_the_last_group_is_told() {
        let (bytes, starts) = run(&[1, 1, 1]);
        for (record, start) in starts[..2].iter().enumerate() {
            for at in *start..*start + HEADER + 6 + record {
                let mut bad = bytes.clone();
                bad[at] ^= 1;
                assert_eq!(read(&bad).1, End::Damaged(*start), "garbled at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            read(&bytes);
        }
    }
}
