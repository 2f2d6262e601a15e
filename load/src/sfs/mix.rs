//! What the SFS 3.0 NFSv3 mix asks for, as tables, and the drawing of one request from them. Pure.

use rand::Rng;
use slice_proto::nfs3::Proc3;

/// One block of reads and of whole writes, in KiB.
pub const BLOCK_KIB: u32 = 8;
/// Files that a directory begins with.
pub const FILES_PER_DIR: u64 = 30;
/// One file of this many is accessed.
pub const ONE_ACCESSED_OF: u64 = 10;
/// MiB of files per operation a second offered, by the standard.
pub const MIB_PER_OP: f64 = 10.0;
/// Percentage of writes that append.
pub const APPEND_PERCENT: u32 = 70;
/// Percentage of lookups whose name is not there.
pub const MISS_PERCENT: u32 = 35;

/// Percentage of each procedure.
pub const OPS: [(Proc3, u32); 14] = [
    (Proc3::Lookup, 27),
    (Proc3::Read, 18),
    (Proc3::Getattr, 11),
    (Proc3::Write, 9),
    (Proc3::Readdirplus, 9),
    (Proc3::Readlink, 7),
    (Proc3::Access, 7),
    (Proc3::Commit, 5),
    (Proc3::Readdir, 2),
    (Proc3::Create, 1),
    (Proc3::Remove, 1),
    (Proc3::Fsstat, 1),
    (Proc3::Setattr, 1),
    (Proc3::Fsinfo, 1),
];

/// Percentage of each file size, in KiB.
pub const FILE_KIB: [(u32, u32); 10] =
    [(1, 33), (2, 21), (4, 13), (8, 10), (16, 8), (32, 5), (64, 4), (128, 3), (256, 2), (1024, 1)];

/// Percentage of reads by their blocks.
pub const READ_BLOCKS: [(u32, u32); 5] = [(1, 85), (2, 8), (4, 4), (8, 2), (16, 1)];

/// Percentage of writes by their whole blocks; a fragment of a block comes on top.
pub const WRITE_BLOCKS: [(u32, u32); 6] = [(0, 49), (1, 36), (2, 8), (4, 4), (8, 2), (16, 1)];

/// One request, drawn. What it is about is still numbers: the executor takes them modulo what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The procedure.
    pub proc: Proc3,
    /// Chooses file, directory or link.
    pub object: u64,
    /// Chooses the place within the file.
    pub place: u64,
    /// KiB to read or write; 0 for other procedures.
    pub kib: u32,
    /// Whether a write appends.
    pub append: bool,
    /// Whether a lookup is of a name that is not there.
    pub miss: bool,
}

/// The row of a table of percentages in which `ticket`, below 100, falls; `otherwise` if the table ends before.
pub fn pick<T: Copy>(table: &[(T, u32)], ticket: u32, otherwise: T) -> T {
    let mut below = 0;
    let row = table.iter().find(|(_, percent)| {
        below += percent;
        ticket < below
    });
    row.map_or(otherwise, |(value, _)| *value)
}

/// KiB that a write of this many whole blocks has: a block and a fragment is never a whole number of blocks, and
/// a write of no whole block is never empty; with two blocks and more the fragment may be none.
fn write_kib(blocks: u32, rng: &mut impl Rng) -> u32 {
    let least = u32::from(blocks < 2);
    blocks * BLOCK_KIB + rng.random_range(least..BLOCK_KIB)
}

impl Request {
    /// Draws one.
    pub fn draw(rng: &mut impl Rng) -> Self {
        let proc = pick(&OPS, rng.random_range(0..100), Proc3::Null);
        let kib = match proc {
            Proc3::Read => pick(&READ_BLOCKS, rng.random_range(0..100), 1) * BLOCK_KIB,
            Proc3::Write => write_kib(pick(&WRITE_BLOCKS, rng.random_range(0..100), 0), rng),
            _ => 0,
        };
        Self {
            proc,
            object: rng.random(),
            place: rng.random(),
            kib,
            append: proc == Proc3::Write && rng.random_range(0..100) < APPEND_PERCENT,
            miss: proc == Proc3::Lookup && rng.random_range(0..100) < MISS_PERCENT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    /// Chi-square values that a fair draw exceeds once in 10,000 times, for 1 to 15 degrees of freedom.
    const CHI_SQUARE: [f64; 15] =
        [15.1, 18.4, 21.1, 23.5, 25.7, 27.9, 29.9, 31.8, 33.7, 35.6, 37.4, 39.1, 40.9, 42.6, 44.3];

    fn fair<T: Ord + Copy + Debug>(what: &str, table: &[(T, u32)], drawn: impl Iterator<Item = T>) {
        let mut counts: BTreeMap<T, f64> = table.iter().map(|(value, _)| (*value, 0.0)).collect();
        let mut total = 0.0;
        for value in drawn {
            *counts.get_mut(&value).unwrap_or_else(|| panic!("{what}: {value:?} is in no row")) += 1.0;
            total += 1.0;
        }
        let chi: f64 = table
            .iter()
            .map(|(value, percent)| {
                let expected = total * f64::from(*percent) / 100.0;
                (counts[value] - expected).powi(2) / expected
            })
            .sum();
        let limit = CHI_SQUARE[table.len() - 2];
        assert!(chi < limit, "{what}: chi-square {chi:.1} ≥ {limit}: {counts:?}");
    }

    fn draws(seed: u64) -> Vec<Request> {
        let mut rng = StdRng::seed_from_u64(seed);
        (0..200_000).map(|_| Request::draw(&mut rng)).collect()
    }

    #[test]
    fn tables_are_whole() {
        assert_eq!(OPS.iter().map(|r| r.1).sum::<u32>(), 100);
        assert_eq!(FILE_KIB.iter().map(|r| r.1).sum::<u32>(), 100);
        assert_eq!(READ_BLOCKS.iter().map(|r| r.1).sum::<u32>(), 100);
        assert_eq!(WRITE_BLOCKS.iter().map(|r| r.1).sum::<u32>(), 100);
    }

    #[test]
    fn drawn_as_the_tables_say() {
        for seed in 0..5 {
            let all = draws(seed);
            let of = |proc| all.iter().filter(move |r| r.proc == proc);
            fair("procedures", &OPS, all.iter().map(|r| r.proc));
            fair("reads", &READ_BLOCKS, of(Proc3::Read).map(|r| r.kib / BLOCK_KIB));
            fair("writes", &WRITE_BLOCKS, of(Proc3::Write).map(|r| r.kib / BLOCK_KIB));
            fair("appends", &[(false, 30), (true, 70)], of(Proc3::Write).map(|r| r.append));
            fair("misses", &[(false, 65), (true, 35)], of(Proc3::Lookup).map(|r| r.miss));
            let thirds = [(0, 33), (1, 33), (2, 34)];
            fair("objects", &thirds, all.iter().map(|r| (r.object % 100 / 33).min(2) as u32));
        }
    }

    #[test]
    fn a_skewed_draw_is_seen() {
        let skewed = |ticket: u32| pick(&OPS, ticket / 2, Proc3::Null);
        let mut rng = StdRng::seed_from_u64(1);
        let drawn: Vec<_> = (0..20_000).map(|_| skewed(rng.random_range(0..100))).collect();
        assert!(std::panic::catch_unwind(|| fair("skewed", &OPS, drawn.into_iter())).is_err());
    }

    proptest! {
        #[test]
        fn sizes_are_within_their_rows(seed in any::<u64>()) {
            let mut rng = StdRng::seed_from_u64(seed);
            for _ in 0..200 {
                let r = Request::draw(&mut rng);
                match r.proc {
                    Proc3::Read => prop_assert!(r.kib.is_multiple_of(BLOCK_KIB) && (8..=128).contains(&r.kib)),
                    Proc3::Write => prop_assert!((1..=135).contains(&r.kib) && r.kib != 8),
                    _ => prop_assert_eq!(r.kib, 0),
                }
            }
        }

        #[test]
        fn same_seed_same_requests(seed in any::<u64>()) {
            let (mut a, mut b) = (StdRng::seed_from_u64(seed), StdRng::seed_from_u64(seed));
            prop_assert!((0..50).all(|_| Request::draw(&mut a) == Request::draw(&mut b)));
        }
    }
}
