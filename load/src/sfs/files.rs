//! Which files there are, how large they begin, and which of them are accessed. Pure: numbers, not servers.

use super::mix::{FILE_KIB, FILES_PER_DIR, ONE_ACCESSED_OF};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Directories of one group: the directories themselves are spread over directories.
pub const DIRS_PER_GROUP: u64 = 64;

/// A file that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// Its number.
    pub index: u64,
    /// Size at the beginning, in KiB.
    pub kib: u32,
}

impl Planned {
    /// The directory in which it is.
    #[must_use]
    pub const fn dir(&self) -> u64 {
        self.index / FILES_PER_DIR
    }

    /// Whether requests go to it.
    #[must_use]
    pub const fn accessed(&self) -> bool {
        self.index.is_multiple_of(ONE_ACCESSED_OF)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        name(self.index)
    }
}

/// The name of file number `index`.
#[must_use]
pub fn name(index: u64) -> String {
    format!("f{index:07}")
}

/// All files in order, without end. Every hundred has the sizes of the table in the table's numbers, in an order of its own.
#[derive(Debug)]
pub struct Files {
    seed: u64,
    index: u64,
    deck: Vec<u32>,
}

impl Files {
    /// From the first on.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, index: 0, deck: Vec::new() }
    }
}

impl Iterator for Files {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        if self.deck.is_empty() {
            let all = FILE_KIB.iter().flat_map(|(kib, percent)| (0..*percent).map(|_| *kib));
            self.deck = all.collect();
            self.deck.shuffle(&mut StdRng::seed_from_u64(self.seed ^ (self.index << 8)));
        }
        let planned = Planned { index: self.index, kib: self.deck.pop()? };
        self.index += 1;
        Some(planned)
    }
}

/// KiB of files for an offered load: `mib_per_op` for each operation a second.
#[must_use]
pub fn dataset_kib(offered: f64, mib_per_op: f64) -> u64 {
    // A float to integer cast saturates.
    (offered * mib_per_op * 1024.0).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn every_hundred_has_the_tables_sizes(seed: u64, hundreds in 1usize..5) {
            let mut counts = BTreeMap::new();
            for file in Files::new(seed).take(hundreds * 100) {
                *counts.entry(file.kib).or_insert(0) += 1;
            }
            let expected = FILE_KIB.iter().map(|(kib, n)| (*kib, *n as usize * hundreds)).collect();
            prop_assert_eq!(counts, expected);
        }

        #[test]
        fn a_tenth_is_accessed_with_all_sizes(seed: u64) {
            let accessed: Vec<_> = Files::new(seed).take(20_000).filter(Planned::accessed).collect();
            prop_assert_eq!(accessed.len(), 2_000);
            let small = accessed.iter().filter(|f| f.kib == 1).count();
            // 33 % of 2,000, within six standard deviations.
            prop_assert!((534..=786).contains(&small), "{small}");
        }

        #[test]
        fn a_larger_set_begins_with_the_smaller(seed: u64, n in 1usize..500) {
            let (a, b): (Vec<_>, Vec<_>) = (Files::new(seed).take(n).collect(), Files::new(seed).take(2 * n).collect());
            prop_assert_eq!(&a[..], &b[..n]);
            prop_assert!(b.iter().all(|f| f.dir() == f.index / 30));
        }
    }

    #[test]
    fn the_standards_set() {
        assert_eq!(dataset_kib(100.0, 10.0), 1_024_000);
    }
}
