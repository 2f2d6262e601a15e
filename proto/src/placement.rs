//! Where names and bytes live: pure functions of ids, hashes and the volume's policy.
//!
//! ```text
//! file offset   0        64 KiB              1 MiB              2 MiB              3 MiB
//!               |  small  |  unit 0 (short)    |  unit 1            |  unit 2            | …
//! site          small(f)    (h(f)+0) mod n       (h(f)+1) mod n       (h(f)+2) mod n
//! ```

use crate::ids::{FileId, SITES_PER_ROLE, Site, VolumeId};
use crate::table::{NamePolicy, Volume};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bytes below this offset live at the file's small-file site, for every file, for ever.
pub const THRESHOLD: u64 = 64 << 10;
/// Stripe unit: 1 MiB, aligned in file offsets.
pub const STRIPE_UNIT: u64 = 1 << 20;
/// Largest file: 8 TiB. Storage nodes keep a file's bytes in one file at the file's own offsets, and ext4's files end
/// just before 16 TiB.
pub const MAX_FILE_SIZE: u64 = 1 << 43;

/// Bits of the name hash that a directory cookie carries.
const COOKIE_HASH_BITS: u32 = 47;
/// Bits of a cookie's tie-breaker.
const COOKIE_TIE_BITS: u32 = 16;
/// Cookies that are not entries: 0 start, 1 after `.`, 2 after `..`.
pub const FIRST_ENTRY_COOKIE: u64 = 3;

/// Hash of a name within a directory: xxh3-64 seeded per volume over (parent file id, name bytes).
#[must_use]
pub fn name_hash(seed: u64, dir: FileId, name: &[u8]) -> u64 {
    // Fixed buffer: names are at most 255 bytes, so no allocation; longer input is hashed all the same.
    let mut buf = [0; 8 + 255];
    let (id, rest) = buf.split_at_mut(8);
    id.copy_from_slice(&dir.0.to_be_bytes());
    match rest.get_mut(..name.len()) {
        Some(to) => {
            to.copy_from_slice(name);
            xxh3_64_with_seed(buf.get(..8 + name.len()).unwrap_or_default(), seed)
        }
        None => xxh3_64_with_seed(&[&dir.0.to_be_bytes(), name].concat(), seed),
    }
}

/// The site named by the top bits of a name hash.
#[must_use]
pub const fn site_of_hash(hash: u64) -> Site {
    Site((hash >> (64 - SITES_PER_ROLE.trailing_zeros())) as u16)
}

/// A directory entry's cookie: the top 47 bits of its name hash ‖ its tie-breaker; below 2^63, so that
/// signed cookies work, and in hash order, so that a scan meets the sites in their order (I2).
/// Tie-breakers start at [`first_tie`].
#[must_use]
pub const fn cookie(hash: u64, tie: u16) -> u64 {
    ((hash >> (64 - COOKIE_HASH_BITS)) << COOKIE_TIE_BITS) | tie as u64
}

/// Lowest tie-breaker that an entry of this hash may have: 3 where the cookie would else be a reserved one.
#[must_use]
pub const fn first_tie(hash: u64) -> u16 {
    if hash >> (64 - COOKIE_HASH_BITS) == 0 { FIRST_ENTRY_COOKIE as u16 } else { 0 }
}

/// The entry site that a cookie belongs to under name hashing.
#[must_use]
pub const fn site_of_cookie(cookie: u64) -> Site {
    Site((cookie >> (COOKIE_HASH_BITS + COOKIE_TIE_BITS - SITES_PER_ROLE.trailing_zeros())) as u16)
}

/// The site that holds the entry (dir, name).
#[must_use]
pub fn entry_site(volume: &Volume, dir: FileId, name: &[u8]) -> Site {
    match volume.policy {
        NamePolicy::Partition => volume.root.home(),
        NamePolicy::MkdirSwitching { .. } => dir.home(),
        NamePolicy::Hash => site_of_hash(name_hash(volume.seed, dir, name)),
    }
}

/// The home site of a new directory (dir, name). Under mkdir switching a coin decides whether it is
/// redirected; the coin is a hash of (dir, name), so that a retransmission falls the same way.
#[must_use]
pub fn new_directory_home(volume: &Volume, dir: FileId, name: &[u8]) -> Site {
    match volume.policy {
        NamePolicy::Partition | NamePolicy::Hash => entry_site(volume, dir, name),
        NamePolicy::MkdirSwitching { affinity_ppm } => {
            let hash = name_hash(volume.seed, dir, name);
            // The low half is the coin, the top bits the site: independent bits of one hash.
            let coin = ((hash & 0xffff_ffff) * 1_000_000) >> 32;
            if coin < u64::from(affinity_ppm) { dir.home() } else { site_of_hash(hash) }
        }
    }
}

/// The home site of a new file, symlink or special file (dir, name): its entry's site under every policy.
#[must_use]
pub fn new_file_home(volume: &Volume, dir: FileId, name: &[u8]) -> Site {
    entry_site(volume, dir, name)
}

/// The home site of a volume's root directory.
#[must_use]
pub fn root_home(volume: VolumeId) -> Site {
    site_of_hash(xxh3_64_with_seed(&volume.0.to_be_bytes(), 0x726f_6f74))
}

fn data_hash(file: FileId) -> u64 {
    xxh3_64(&file.0.to_be_bytes())
}

/// The small-file site of a file: it holds bytes 0..[`THRESHOLD`].
#[must_use]
pub fn small_site(file: FileId) -> Site {
    site_of_hash(data_hash(file))
}

/// The storage site of the stripe unit that holds byte `offset` (at or past [`THRESHOLD`]).
#[must_use]
pub fn block_site(file: FileId, offset: u64) -> Site {
    let n = SITES_PER_ROLE as u64;
    // Bits below those that small_site() uses, so that the two placements are independent.
    Site(((data_hash(file) % n + (offset / STRIPE_UNIT) % n) % n) as u16)
}

/// The storage sites that may hold bytes of a file whose reach is `reach` (exclusive end); each once.
pub fn block_sites_under(file: FileId, reach: u64) -> impl Iterator<Item = Site> {
    let units = if reach <= THRESHOLD { 0 } else { reach.div_ceil(STRIPE_UNIT) };
    (0..units.min(SITES_PER_ROLE as u64)).map(move |unit| block_site(file, unit * STRIPE_UNIT))
}

/// Who holds a part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DataSite {
    /// Bytes below the threshold.
    Small(Site),
    /// A stripe unit.
    Block(Site),
}

/// A part of a byte range, wholly at one data site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it lives.
    pub site: DataSite,
    /// First byte, as an offset in the file.
    pub offset: u64,
    /// Length in bytes, at least 1.
    pub len: u32,
}

/// Splits `offset..offset+len` at the threshold and at stripe units, in order. A request of at most 1 MiB
/// has at most three parts.
pub fn split(file: FileId, offset: u64, len: u32) -> impl Iterator<Item = Part> {
    let end = offset.saturating_add(u64::from(len));
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (site, limit) = if at < THRESHOLD {
            (DataSite::Small(small_site(file)), THRESHOLD)
        } else {
            (DataSite::Block(block_site(file, at)), (at / STRIPE_UNIT + 1).saturating_mul(STRIPE_UNIT))
        };
        let stop = limit.min(end);
        // stop - at is at most len, which is a u32.
        let part = Part { site, offset: at, len: (stop - at) as u32 };
        at = stop;
        Some(part)
    })
}

/// The reach to ask for so that a WRITE ending at `end` is covered: 64 KiB first, then doubling.
#[must_use]
pub fn reach_for(end: u64) -> u64 {
    if end <= THRESHOLD { THRESHOLD } else { end.checked_next_power_of_two().unwrap_or(MAX_FILE_SIZE) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_cover_the_range_once_and_never_cross_a_boundary(offset in 0u64..1 << 40, len in 0u32..3 << 20) {
            let f = FileId(42);
            let mut at = offset;
            for p in split(f, offset, len) {
                prop_assert_eq!(p.offset, at);
                prop_assert!(p.len > 0);
                let last = at + u64::from(p.len) - 1;
                match p.site {
                    DataSite::Small(s) => { prop_assert!(last < THRESHOLD); prop_assert_eq!(s, small_site(f)); }
                    DataSite::Block(s) => {
                        prop_assert!(at >= THRESHOLD);
                        prop_assert_eq!(at / STRIPE_UNIT, last / STRIPE_UNIT);
                        prop_assert_eq!(s, block_site(f, at));
                        prop_assert!(block_sites_under(f, last + 1).any(|x| x == s));
                    }
                }
                at = last + 1;
            }
            prop_assert_eq!(at, offset + u64::from(len));
        }

        #[test]
        fn cookies_keep_hash_order_and_name_their_site(a: u64, b: u64, tie: u16) {
            prop_assert!(cookie(a, tie) < 1 << 63);
            prop_assert_eq!(site_of_cookie(cookie(a, tie)), site_of_hash(a));
            if a >> 17 < b >> 17 { prop_assert!(cookie(a, u16::MAX) < cookie(b, 0)); }
            prop_assert!(cookie(a, first_tie(a)) >= FIRST_ENTRY_COOKIE || a >> 17 != 0);
        }
    }

    #[test]
    fn reach_doubles_from_64_kib() {
        assert_eq!(reach_for(1), THRESHOLD);
        assert_eq!(reach_for(THRESHOLD + 1), 2 * THRESHOLD);
        assert_eq!(reach_for(5 << 20), 8 << 20);
    }
}
