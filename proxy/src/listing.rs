//! One listing of a directory whose entries are spread over several servers (I2): pure.
//!
//! Every server answers with its own entries in cookie order. Up to the lowest last cookie of those that are not at
//! their end, nothing is missing; so far they are merged. What lies beyond is asked for again by the client's next
//! call, from the cookie where this one ended: no entry is skipped, none repeated.

use slice_proto::nfs3::readdir::END_LEN;
use slice_proto::nfs3::{Entry, EntryPlus};

/// An entry of either procedure.
pub trait Listed {
    /// Where the next entry begins.
    fn cookie(&self) -> u64;
    /// Bytes on the wire.
    fn wire_len(&self) -> usize;
    /// Bytes of fileid, name and cookie.
    fn dir_len(&self) -> usize;
}

impl Listed for Entry<'_> {
    fn cookie(&self) -> u64 {
        self.cookie
    }

    fn wire_len(&self) -> usize {
        self.encoded_len()
    }

    fn dir_len(&self) -> usize {
        self.dircount_len()
    }
}

impl Listed for EntryPlus<'_> {
    fn cookie(&self) -> u64 {
        self.entry.cookie
    }

    fn wire_len(&self) -> usize {
        self.encoded_len()
    }

    fn dir_len(&self) -> usize {
        self.entry.dircount_len()
    }
}

/// How much a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Most bytes of the result (READDIR's count, READDIRPLUS's maxcount).
    pub total: usize,
    /// Most bytes of fileids, names and cookies (READDIRPLUS's dircount); 0 means no bound.
    pub dir: usize,
}

/// One server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<E> {
    /// Its entries, in cookie order.
    pub entries: Vec<E>,
    /// Whether it has no more.
    pub eof: bool,
}

/// What the merge came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged<E> {
    /// The client's page.
    Page(Page<E>),
    /// Not one entry fits into the budget, or not even a page without any.
    TooSmall,
    /// A server that is not at its end gave nothing: it must be asked with a larger budget.
    Stuck,
}

/// Merges pages into one. `head` is the length of what stands before the entries.
#[must_use]
pub fn merge<E: Listed>(pages: Vec<Page<E>>, head: usize, budget: Budget) -> Merged<E> {
    // Up to here no page has a gap.
    let mut safe = u64::MAX;
    for page in &pages {
        match page.entries.last() {
            _ if page.eof => {}
            Some(last) => safe = safe.min(last.cookie()),
            None => return Merged::Stuck,
        }
    }
    let mut eof = pages.iter().all(|p| p.eof);
    let mut all: Vec<E> = pages.into_iter().flat_map(|p| p.entries).collect();
    all.sort_by_key(Listed::cookie);
    let (mut total, mut dir) = (head + END_LEN, 0);
    let mut fits = 0;
    for entry in &all {
        total += entry.wire_len();
        dir += entry.dir_len();
        // dircount is a hint (RFC 1813 section 3.3.17): the first entry may exceed it.
        if entry.cookie() > safe || total > budget.total || (budget.dir != 0 && dir > budget.dir && fits > 0)
        {
            break;
        }
        fits += 1;
    }
    if (fits == 0 && !all.is_empty()) || head + END_LEN > budget.total {
        return Merged::TooSmall;
    }
    eof &= fits == all.len();
    all.truncate(fits);
    Merged::Page(Page { entries: all, eof })
}

/// The share of a budget that each of `servers` is asked with: together they give about what the client wants.
#[must_use]
pub fn share(budget: u32, servers: usize, floor: u32) -> u32 {
    // There are at most 256 directory servers.
    let share = budget / u32::try_from(servers.max(1)).unwrap_or(u32::MAX);
    share.max(floor).min(budget)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use slice_proto::ids::FileId;
    use std::collections::BTreeMap;

    const NAME: &[u8] = b"a name of some length";

    /// The answer of a server that holds these cookies.
    fn serve(held: &[u64], after: u64, bytes: usize) -> Page<Entry<'static>> {
        let mut entries = Vec::new();
        let mut total = END_LEN;
        for &cookie in held.iter().filter(|c| **c > after) {
            let entry = Entry { fileid: FileId(cookie), name: &NAME[..(cookie % 20) as usize + 1], cookie };
            total += entry.encoded_len();
            if total > bytes {
                return Page { entries, eof: false };
            }
            entries.push(entry);
        }
        Page { entries, eof: true }
    }

    proptest! {
        // I2: a scan in steps meets each entry that is there throughout exactly once, whatever comes and goes between.
        #[test]
        fn a_scan_skips_nothing_and_repeats_nothing(
            stays in prop::collection::btree_map(3u64..10_000, 0usize..4, 0..120),
            comes in prop::collection::vec((3u64..10_000, 0usize..4), 0..40),
            count in 400u32..2000, servers in 1usize..5,
        ) {
            let mut held: Vec<BTreeMap<u64, ()>> = vec![BTreeMap::new(); servers];
            for (cookie, at) in &stays { held[at % servers].insert(*cookie, ()); }
            let mut comes = comes.into_iter().filter(|(c, _)| !stays.contains_key(c));
            let (mut after, mut seen) = (0, Vec::new());
            loop {
                let bytes = share(count, servers, 64) as usize;
                let pages = held.iter().map(|h| serve(&h.keys().copied().collect::<Vec<_>>(), after, bytes)).collect();
                let Merged::Page(page) = merge(pages, 0, Budget { total: count as usize, dir: 0 }) else {
                    panic!("nothing fits")
                };
                seen.extend(page.entries.iter().map(|e| e.cookie));
                if page.eof { break; }
                prop_assert!(!page.entries.is_empty());
                after = page.entries.last().unwrap().cookie;
                // Between two calls, something comes or goes anywhere.
                if let Some((cookie, at)) = comes.next()
                    && held[at % servers].remove(&cookie).is_none()
                    && !held.iter().any(|h| h.contains_key(&cookie))
                {
                    held[at % servers].insert(cookie, ());
                }
            }
            prop_assert!(seen.windows(2).all(|w| w[0] < w[1]), "in order, none twice");
            for cookie in stays.keys() { prop_assert!(seen.contains(cookie), "{cookie} was skipped"); }
        }
    }

    #[test]
    fn a_budget_for_no_entry_is_too_small_and_an_empty_directory_is_at_its_end() {
        let tiny = Budget { total: 10, dir: 0 };
        assert_eq!(merge(vec![serve(&[5], 0, 1000)], 0, tiny), Merged::TooSmall);
        assert_eq!(
            merge(vec![serve(&[], 0, 1000)], 0, tiny),
            Merged::Page(Page { entries: vec![], eof: true })
        );
        assert_eq!(merge(vec![serve(&[], 0, 1000)], 88, tiny), Merged::TooSmall, "not even without entries");
        assert_eq!(merge(vec![serve(&[5], 0, 9), serve(&[], 0, 9)], 0, tiny), Merged::Stuck);
    }

    #[test]
    fn dircount_bounds_names_but_lets_one_through() {
        let pages = || vec![serve(&[5, 6, 7], 0, 1000)];
        let page = |dir| match merge(pages(), 0, Budget { total: 1000, dir }) {
            Merged::Page(p) => p.entries.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!((page(1), page(0), page(60)), (1, 3, 2));
    }
}
