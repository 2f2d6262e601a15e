//! The map record of a file; its key, and the others of the store, are in [`slice_store::data_keys`].
//!
//! The site is not in the key: it is a hash of the file id, so that whoever moves a site can tell, and a listing in the order of
//! file ids, which the checker asks for, is one scan.

use super::extent::{BLOCK, BLOCKS, Extent, LIMIT};
use crate::error::{Error, Result};
use bytes::{BufMut, Bytes, BytesMut};
use slice_proto::ids::{Epoch, FileId};
use slice_proto::xdr::{Reader, XdrError};

/// Tells records of this layout from later ones.
const VERSION: u8 = 1;
/// Only a tombstone is left.
const TOMBSTONE: u8 = 1;
/// The file goes beyond what is held here.
const BEYOND: u8 = 2;

/// The map record of a file.
///
/// | bytes | what | why there |
/// | --- | --- | --- |
/// | 0 | version, 1 | decides how to read the rest |
/// | 1 | flags: 1 tombstone, 2 beyond 64 KiB | |
/// | 2 | bit *i*: block *i* has an extent | says how long the record is |
/// | 3 | 0 | |
/// | 4..8 | size: min(file size, 64 KiB) | |
/// | 8..16 | epoch | |
/// | 16..24 | only of a tombstone: when it was made, ns since 1970 | leads to its `t` key |
/// | 16 each | an extent: segment (4), offset (4), stored (2), valid (2), CRC-32 (4) | a file of one block has 32 bytes |
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub epoch: Epoch,
    pub size: u32,
    pub beyond: bool,
    pub purged_ns: Option<u64>,
    pub extents: [Option<Extent>; BLOCKS],
}

impl Record {
    pub(crate) fn encode(&self) -> Bytes {
        let mut b = BytesMut::with_capacity(24 + 16 * BLOCKS);
        let mask = self.extents.iter().rev().fold(0u8, |mask, e| mask << 1 | u8::from(e.is_some()));
        b.put_u8(VERSION);
        b.put_u8(if self.purged_ns.is_some() { TOMBSTONE } else { 0 } | if self.beyond { BEYOND } else { 0 });
        b.put_u8(mask);
        b.put_u8(0);
        b.put_u32(self.size);
        b.put_u64(self.epoch.0);
        if let Some(ns) = self.purged_ns {
            b.put_u64(ns);
        }
        for e in self.extents.iter().flatten() {
            b.put_u32(e.segment);
            b.put_u32(e.offset);
            b.put_u16(e.stored);
            b.put_u16(e.valid);
            b.put_u32(e.crc);
        }
        b.freeze()
    }

    pub(crate) fn decode(file: FileId, bytes: &[u8]) -> Result<Self> {
        Self::parse(bytes)
            .map_err(|_| "too short")
            .and_then(|r| r.ok_or("of another version, or no possible object"))
            .map_err(|why| Error::BadRecord { file, why })
    }

    fn parse(bytes: &[u8]) -> std::result::Result<Option<Self>, XdrError> {
        let mut r = Reader::new(bytes);
        let [version, flags, mask, _] = r.fixed()?;
        if version != VERSION || flags & !(TOMBSTONE | BEYOND) != 0 {
            return Ok(None);
        }
        let (size, epoch) = (r.u32()?, Epoch(r.u64()?));
        let purged_ns = (flags & TOMBSTONE != 0).then(|| r.u64()).transpose()?;
        let mut record = Self { epoch, size, beyond: flags & BEYOND != 0, purged_ns, ..Self::default() };
        for (i, place) in record.extents.iter_mut().enumerate() {
            if mask >> i & 1 == 1 {
                let (segment, offset, lengths, crc) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
                let [a, b, c, d] = lengths.to_be_bytes();
                let (stored, valid) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                if usize::from(stored) > BLOCK || valid > stored || valid == 0 {
                    return Ok(None);
                }
                *place = Some(Extent { segment, offset, stored, valid, crc });
            }
        }
        let ends = record.extents.iter().enumerate();
        let end =
            ends.filter_map(|(i, e)| Some(i * BLOCK + usize::from(e.as_ref()?.valid))).max().unwrap_or(0);
        Ok((r.remaining() == 0 && size <= LIMIT && end <= size as usize).then_some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn extent()(segment: u32, offset: u32, stored in 1..=BLOCK as u16, cut: u16, crc: u32) -> Extent {
            Extent { segment, offset, stored, valid: 1 + cut % stored, crc }
        }
    }

    proptest! {
        #[test]
        fn records_read_back(
            epoch: u64, beyond: bool, purged_ns: Option<u64>, file: u64,
            extents in proptest::array::uniform8(proptest::option::of(extent())),
        ) {
            let r = Record { epoch: Epoch(epoch), size: LIMIT, beyond, purged_ns, extents };
            prop_assert_eq!(Record::decode(FileId(file), &r.encode()).unwrap(), r);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Record::decode(FileId(1), &bytes);
        }
    }

    #[test]
    fn impossible_objects_are_refused() {
        let e = Extent { segment: 0, offset: 0, stored: 10, valid: 10, crc: 0 };
        let mut r = Record { size: 9, ..Record::default() };
        r.extents[0] = Some(e);
        assert!(Record::decode(FileId(1), &r.encode()).is_err(), "bytes past the size");
        r.size = LIMIT + 1;
        assert!(Record::decode(FileId(1), &r.encode()).is_err(), "larger than can be");
        assert!(Record::decode(FileId(1), &[r.encode(), Bytes::from_static(b"x")].concat()).is_err());
    }
}
