//! Where the bytes of a logical block lie.

use slice_proto::placement::THRESHOLD;

/// Bytes of a logical block.
pub(crate) const BLOCK: usize = 8 << 10;
/// Logical blocks of an object.
pub(crate) const BLOCKS: usize = THRESHOLD as usize / BLOCK;
/// Bytes of an object at most.
pub(crate) const LIMIT: u32 = THRESHOLD as u32;

/// The bytes of one logical block, on disk. What the block has behind them reads as zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// In which segment.
    pub segment: u32,
    /// Byte offset in the segment.
    pub offset: u32,
    /// Bytes written there, 1 to [`BLOCK`].
    pub stored: u16,
    /// Bytes of these that still count: a truncate cuts without writing anew.
    pub valid: u16,
    /// CRC-32 of the bytes stored.
    pub crc: u32,
}

/// The parts of `offset..end` in the blocks that it touches: block, first byte, end.
pub(crate) fn parts(offset: u32, end: u32) -> impl Iterator<Item = (usize, usize, usize)> {
    let (mut at, end) = (offset as usize, end as usize);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (block, from) = (at / BLOCK, at % BLOCK);
        let to = (end - block * BLOCK).min(BLOCK);
        at = (block + 1) * BLOCK;
        Some((block, from, to))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_range() {
        assert_eq!(parts(0, 0).count(), 0);
        assert_eq!(parts(5, 6).collect::<Vec<_>>(), [(0, 5, 6)]);
        assert_eq!(parts(8191, 16_385).collect::<Vec<_>>(), [(0, 8191, 8192), (1, 0, 8192), (2, 0, 1)]);
        assert_eq!(parts(0, LIMIT).count(), BLOCKS);
    }
}
