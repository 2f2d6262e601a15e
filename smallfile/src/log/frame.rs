//! A frame: what one flush writes of one object, in one piece.
//!
//! | bytes | what | why there |
//! | --- | --- | --- |
//! | 0..4 | `SLf1` | where no frame begins, the segment's chain ends |
//! | 4 | blocks, *n* | says how long the header is |
//! | 5..8 | 0 | |
//! | 8..12 | CRC-32 of the header with these bytes 0 | |
//! | 12..16 | length in bytes, padding included | leads to the next frame |
//! | 16..24 | file id | so that the cleaner finds who points here |
//! | 8 each | block (1), 0 (1), bytes (2), CRC-32 (4) | |
//! | then | the blocks' bytes one behind the other, exact | a file of up to 64 KiB is read in one piece |
//! | then | zeros up to a multiple of 64 | |
//!
//! Integers are big-endian. The map points to the bytes, not to the frame.

use crate::core::{BLOCK, BLOCKS, Extent, LIMIT};
use bytes::{BufMut, Bytes, BytesMut};
use slice_proto::ids::FileId;
use slice_proto::xdr::Reader;

const MAGIC: &[u8; 4] = b"SLf1";
const FIXED: usize = 24;
const ENTRY: usize = 8;
/// Frames begin at multiples of this: small enough to waste little on small tails, and a header rarely crosses a page.
const ALIGN: usize = 64;

/// Bytes of a frame's header at most.
pub(crate) const HEADER_MAX: usize = FIXED + ENTRY * BLOCKS;
/// Bytes of a frame at most.
pub(crate) const FRAME_MAX: usize = LIMIT as usize + HEADER_MAX + ALIGN;

/// Bytes of a frame with these blocks.
pub(crate) fn len(blocks: &[(usize, Bytes)]) -> usize {
    let data: usize = blocks.iter().map(|(_, b)| b.len()).sum();
    (FIXED + ENTRY * blocks.len() + data).next_multiple_of(ALIGN)
}

/// Appends a frame that will stand at byte `at` of `segment`; says where its blocks are.
pub(crate) fn encode(
    w: &mut BytesMut,
    segment: u32,
    at: u32,
    file: FileId,
    blocks: &[(usize, Bytes)],
) -> Vec<(usize, Extent)> {
    let (start, total) = (w.len(), len(blocks));
    let mut offset = at + (FIXED + ENTRY * blocks.len()) as u32;
    let extents: Vec<(usize, Extent)> = blocks
        .iter()
        .map(|(block, bytes)| {
            let stored = bytes.len() as u16;
            let extent = Extent { segment, offset, stored, valid: stored, crc: crc32fast::hash(bytes) };
            offset += u32::from(stored);
            (*block, extent)
        })
        .collect();
    w.put_slice(MAGIC);
    w.put_u8(blocks.len() as u8);
    w.put_bytes(0, 3 + 4);
    w.put_u32(total as u32);
    w.put_u64(file.0);
    for (block, e) in &extents {
        w.put_u8(*block as u8);
        w.put_u8(0);
        w.put_u16(e.stored);
        w.put_u32(e.crc);
    }
    let crc = crc32fast::hash(w.get(start..).unwrap_or_default()).to_be_bytes();
    if let Some(place) = w.get_mut(start + 8..start + 12) {
        place.copy_from_slice(&crc);
    }
    for (_, bytes) in blocks {
        w.put_slice(bytes);
    }
    w.put_bytes(0, (start + total).saturating_sub(w.len()));
    extents
}

/// A frame's header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Whose blocks it has.
    pub file: FileId,
    /// Bytes to the next frame.
    pub len: u32,
    /// Its blocks, and where they are.
    pub blocks: Vec<(usize, Extent)>,
}

/// Reads the header of the frame at byte `at` of `segment`, of which `bytes` are the first.
pub(crate) fn decode(segment: u32, at: u32, bytes: &[u8]) -> Option<Header> {
    let [a, b, c, d, n, ..] = *bytes else { return None };
    let n = usize::from(n);
    if &[a, b, c, d] != MAGIC || n > BLOCKS {
        return None;
    }
    let size = FIXED + ENTRY * n;
    let mut header = bytes.get(..size)?.to_vec();
    let crc: [u8; 4] = header.get(8..12)?.try_into().ok()?;
    header.get_mut(8..12)?.fill(0);
    if u32::from_be_bytes(crc) != crc32fast::hash(&header) {
        return None;
    }
    let mut r = Reader::at(bytes, 12);
    let (len, file) = (r.u32().ok()?, FileId(r.u64().ok()?));
    let mut offset = at.checked_add(size as u32)?;
    let mut blocks = Vec::with_capacity(n);
    for _ in 0..n {
        let (word, crc) = (r.u32().ok()?, r.u32().ok()?);
        let (block, stored) = ((word >> 24) as usize, word as u16);
        if block >= BLOCKS || usize::from(stored) > BLOCK {
            return None;
        }
        blocks.push((block, Extent { segment, offset, stored, valid: stored, crc }));
        offset = offset.checked_add(u32::from(stored))?;
    }
    Some(Header { file, len, blocks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frame_reads_back(
            file: u64, at in (0u32..1 << 20).prop_map(|n| n * 64),
            blocks in proptest::collection::btree_map(0..BLOCKS, proptest::collection::vec(any::<u8>(), 1..300), 1..=BLOCKS),
            flip: usize,
        ) {
            let blocks: Vec<_> = blocks.into_iter().map(|(b, v)| (b, Bytes::from(v))).collect();
            let mut w = BytesMut::from(&b"before"[..]);
            let extents = encode(&mut w, 9, at, FileId(file), &blocks);
            let frame = &w[6..];
            prop_assert_eq!(frame.len(), len(&blocks));
            prop_assert_eq!(frame.len() % ALIGN, 0);
            for ((_, e), (_, bytes)) in extents.iter().zip(&blocks) {
                let from = (e.offset - at) as usize;
                prop_assert_eq!(&frame[from..from + usize::from(e.stored)], &bytes[..]);
            }
            let header = Header { file: FileId(file), len: frame.len() as u32, blocks: extents };
            prop_assert_eq!(decode(9, at, frame), Some(header));
            let mut bad = frame[..FIXED + ENTRY * blocks.len()].to_vec();
            let at_bit = flip % (bad.len() * 8);
            bad[at_bit / 8] ^= 1 << (at_bit % 8);
            prop_assert_eq!(decode(9, at, &bad), None);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(0, u32::MAX, &bytes);
            let _ = decode(0, u32::MAX, &[&MAGIC[..], &bytes].concat());
        }
    }

    #[test]
    fn memory_is_counted_no_lower_than_disk() {
        for n in 1..=BLOCKS {
            let blocks: Vec<_> = (0..n).map(|b| (b, Bytes::from_static(b"x"))).collect();
            assert!(len(&blocks) <= n * (1 + 128), "see BLOCK_OVERHEAD");
        }
        let full: Vec<_> = (0..BLOCKS).map(|b| (b, Bytes::from(vec![0; BLOCK]))).collect();
        assert!(len(&full) <= FRAME_MAX);
    }
}
