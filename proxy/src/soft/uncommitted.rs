//! Which data sites hold bytes of a file that no COMMIT has made durable yet: pure.

use slice_proto::ids::{SITES_PER_ROLE, Site};
use slice_proto::placement::DataSite;

const WORDS: usize = SITES_PER_ROLE / u64::BITS as usize;

/// A set of data sites of one file: it has one small-file site and any of the storage sites.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DataSites {
    small: bool,
    block: [u64; WORDS],
}

/// What a µproxy remembers of one file's uncommitted bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uncommitted {
    /// Written since the last COMMIT began.
    since: DataSites,
    /// Of COMMITs that are under way: not durable yet.
    committing: DataSites,
    /// How many COMMITs are under way.
    commits: u32,
}

// === impl DataSites ===

impl DataSites {
    /// Adds a site.
    pub fn insert(&mut self, site: DataSite) {
        match site {
            DataSite::Small(_) => self.small = true,
            DataSite::Block(Site(n)) => {
                if let Some(word) = self.block.get_mut(usize::from(n) / 64) {
                    *word |= 1 << (n % 64);
                }
            }
        }
    }

    /// Adds all sites of another set.
    pub fn union(&mut self, other: &Self) {
        self.small |= other.small;
        self.block.iter_mut().zip(other.block).for_each(|(a, b)| *a |= b);
    }

    /// Whether no site is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the small-file site is in it.
    #[must_use]
    pub const fn small(&self) -> bool {
        self.small
    }

    /// The storage sites in it, in order.
    pub fn block(&self) -> impl Iterator<Item = Site> + '_ {
        (0u16..).zip(self.block).flat_map(|(word, bits)| {
            (0..64u16).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| Site(word * 64 + bit))
        })
    }
}

// === impl Uncommitted ===

impl Uncommitted {
    /// A WRITE to `site` was answered.
    pub fn wrote(&mut self, site: DataSite) {
        self.since.insert(site);
    }

    /// A COMMIT begins; returns the sites that it must go to. Those of COMMITs still under way are among them: this
    /// one's answer promises for all bytes written before it.
    #[must_use]
    pub fn begin(&mut self) -> DataSites {
        let since = std::mem::take(&mut self.since);
        self.committing.union(&since);
        self.commits += 1;
        self.committing
    }

    /// A COMMIT of `sites` has ended, well or not.
    pub fn end(&mut self, sites: &DataSites, durable: bool) {
        if !durable {
            self.since.union(sites);
        }
        self.commits = self.commits.saturating_sub(1);
        if self.commits == 0 {
            self.committing = DataSites::default();
        }
    }

    /// Whether everything is durable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.since.is_empty() && self.committing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: DataSite = DataSite::Block(Site(3));
    const B: DataSite = DataSite::Block(Site(255));
    const S: DataSite = DataSite::Small(Site(9));

    fn sites(set: &DataSites) -> (bool, Vec<u16>) {
        (set.small(), set.block().map(|s| s.0).collect())
    }

    #[test]
    fn a_commit_takes_what_was_written_and_a_failed_one_gives_it_back() {
        let mut u = Uncommitted::default();
        u.wrote(A);
        u.wrote(S);
        let first = u.begin();
        assert_eq!(sites(&first), (true, vec![3]));
        u.end(&first, false);
        u.wrote(B);
        let second = u.begin();
        assert_eq!(sites(&second), (true, vec![3, 255]));
        u.end(&second, true);
        assert!(u.is_empty());
    }

    #[test]
    fn a_commit_beside_another_promises_for_its_bytes_too() {
        let mut u = Uncommitted::default();
        u.wrote(A);
        let first = u.begin();
        let second = u.begin();
        assert_eq!(first, second);
        u.wrote(B);
        u.end(&second, true);
        u.end(&first, true);
        assert_eq!(sites(&u.begin()), (false, vec![255]));
    }

    proptest! {
        // Against the plain rule: a COMMIT that succeeds makes durable what was written before it began, and nothing else does.
        #[test]
        fn no_written_site_is_forgotten(steps in prop::collection::vec((0u8..3, 0u16..8, any::<bool>()), 1..60)) {
            let mut u = Uncommitted::default();
            let mut writes: Vec<(usize, u16)> = Vec::new();
            let mut open: Vec<(usize, DataSites)> = Vec::new();
            for (now, (step, n, durable)) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        u.wrote(DataSite::Block(Site(n * 30)));
                        writes.push((now, n * 30));
                    }
                    1 => {
                        let sites = u.begin();
                        let missing = writes.iter().find(|(_, site)| !sites.block().any(|s| s.0 == *site));
                        prop_assert_eq!(missing, None);
                        open.push((now, sites));
                    }
                    _ if !open.is_empty() => {
                        let (began, sites) = open.remove(usize::from(n) % open.len());
                        u.end(&sites, durable);
                        if durable {
                            writes.retain(|(at, _)| *at > began);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}
