//! Whether there is an order of all operations, each at some moment between its call and its answer, in which the model
//! gives the same answers (linearizability; the search is Wing and Gong's, with Lowe's memory of what was tried).
//!
//! Scans are judged by such an order, and if they do not fit by the next one: a name that nobody touched meanwhile is in the scan
//! exactly if it was there (I2).

use crate::model::Fs;
use crate::ops::{Entry, Op};
use slice_proto::nfs3::NfsStat3;
use std::collections::HashSet;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Orders tried before the search gives up: far more than any history of these has needed.
const MAX_TRIED: usize = 2_000_000;

struct Step {
    fs: Fs,
    /// The operation that led here; none for the first.
    took: Option<usize>,
    /// Which to try next.
    next: Vec<(usize, Fs)>,
}

struct Search<'a> {
    entries: &'a [Entry],
    done: Vec<bool>,
    order: Vec<usize>,
    seen: HashSet<(u64, u64)>,
    tried: usize,
    deepest: (usize, String),
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

impl Search<'_> {
    /// Operations that may come next: called before any that is left was answered.
    fn candidates(&self) -> Vec<usize> {
        let left = || (0..self.entries.len()).filter(|i| !self.done[*i]);
        let first = left().map(|i| self.entries[i].answered).min().unwrap_or(u64::MAX);
        left().filter(|i| self.entries[*i].called < first).collect()
    }

    fn take(&mut self, i: usize) {
        self.done[i] = true;
        self.order.push(i);
    }

    /// Takes all that change nothing anywhere and are answered as here: no other moment is better for them. Then what
    /// may be tried.
    fn settle(&mut self, fs: &Fs) -> Vec<(usize, Fs)> {
        loop {
            let mut next = Vec::new();
            let mut wrong = String::new();
            let mut idle = false;
            for i in self.candidates() {
                let Entry { op, answer, .. } = &self.entries[i];
                match fs.apply(op, answer) {
                    Ok(None) if answer.is_err() || op.reads() => {
                        self.take(i);
                        idle = true;
                    }
                    // A success that changes nothing here may change something elsewhere.
                    Ok(None) => next.push((i, fs.clone())),
                    Ok(Some(fs)) => next.push((i, fs)),
                    Err(want) => {
                        let _ = write!(wrong, "\n  {:?}\n    here it would be {want:?}", self.entries[i]);
                    }
                }
            }
            if !idle {
                if self.order.len() >= self.deepest.0 && next.is_empty() {
                    self.deepest = (self.order.len(), wrong);
                }
                // Tried from the end: that which was answered first.
                next.sort_by_key(|(i, _)| std::cmp::Reverse(self.entries[*i].answered));
                return next;
            }
        }
    }

    fn fresh(&mut self, fs: &Fs) -> bool {
        self.tried += 1;
        self.seen.insert((hash(&self.done), hash(fs)))
    }
}

/// The order found, and the file system at its end.
pub struct Found {
    /// Indexes of entries.
    pub order: Vec<usize>,
    /// What there is after all of them.
    pub end: Fs,
}

/// Finds an order.
///
/// # Errors
/// A sentence that tells how far the search came.
pub fn judge(start: &Fs, entries: &[Entry]) -> Result<Found, String> {
    let mut search = Search {
        entries,
        done: vec![false; entries.len()],
        order: Vec::new(),
        seen: HashSet::new(),
        tried: 0,
        deepest: (0, String::new()),
    };
    let next = search.settle(start);
    let mut lengths = vec![0];
    let mut scanned = None;
    let mut steps = vec![Step { fs: start.clone(), took: None, next }];
    while let Some(step) = steps.last_mut() {
        if search.order.len() == entries.len() {
            match scans(start, entries, &search.order) {
                Ok(()) => return Ok(Found { order: search.order, end: step.fs.clone() }),
                // Another order may explain them, too.
                Err(why) => drop(scanned.get_or_insert(why)),
            }
        }
        assert!(search.tried < MAX_TRIED, "the search for an order takes too long");
        match step.next.pop() {
            Some((i, fs)) => {
                lengths.push(search.order.len());
                search.take(i);
                let next = if search.fresh(&fs) { search.settle(&fs) } else { Vec::new() };
                steps.push(Step { fs, took: Some(i), next });
            }
            None => {
                let length = lengths.pop().unwrap_or_default();
                if step.took.is_some() {
                    for i in search.order.drain(length..) {
                        search.done[i] = false;
                    }
                }
                steps.pop();
            }
        }
    }
    if let Some(why) = scanned {
        return Err(why);
    }
    let (len, why) = search.deepest;
    Err(format!(
        "no order of these operations explains their answers; {len} of {} fit, then:{why}",
        entries.len()
    ))
}

/// Judges the scans.
fn scans(start: &Fs, entries: &[Entry], order: &[usize]) -> Result<(), String> {
    for scan in entries {
        let Op::Readdir { dir } = scan.op else { continue };
        // The state before it: all that was answered before its call, and what the order puts before any of these.
        let before = order.iter().rposition(|i| entries[*i].answered < scan.called).map_or(0, |at| at + 1);
        let mut fs = start.clone();
        for i in order.iter().take(before) {
            let Entry { op, answer, .. } = &entries[*i];
            if let Ok(Some(next)) = fs.apply(op, answer) {
                fs = next;
            }
        }
        let beside = |e: &&Entry| e.called < scan.answered && e.answered > scan.called;
        let touched: HashSet<_> = entries.iter().filter(beside).flat_map(|e| e.op.names()).collect();
        let seen = match &scan.answer {
            Ok(seen) => seen.names.clone().unwrap_or_default(),
            // It may have gone before or meanwhile.
            Err(status) if *status == NfsStat3::STALE.0 => {
                let removed = entries.iter().filter(|e| beside(e)).any(|e| !e.op.names().is_empty());
                if fs.names(dir).is_none() || removed {
                    continue;
                }
                return Err(format!("{scan:?}: the directory is there"));
            }
            Err(_) => return Err(format!("{scan:?} fails")),
        };
        let names = fs.names(dir).cloned().unwrap_or_default();
        for name in names.keys().chain(seen.keys()) {
            if !touched.contains(&(dir, *name)) && names.get(name) != seen.get(name) {
                return Err(format!(
                    "{scan:?}: name {name} was {:?} all the time, and is shown as {:?}",
                    names.get(name),
                    seen.get(name)
                ));
            }
        }
    }
    Ok(())
}
