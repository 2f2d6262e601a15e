//! One file's bytes: as they read, as they are durable, and what lies between.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;

/// What reaches the disk or does not.
pub const PAGE: usize = 4096;

/// What is never torn.
pub const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE]>;

/// Bytes of a file at one moment. Pages that are not there are zeros, and none is there behind the end.
#[derive(Clone, Debug, Default)]
struct Image {
    pages: BTreeMap<u64, Page>,
    size: u64,
}

/// What was done since the last fsync, up to the next change of the size that is not a write's.
#[derive(Clone, Debug)]
struct Stage {
    /// It begins with this size.
    resized: Option<u64>,
    /// Pages as they are after it; none: zeros.
    pages: BTreeMap<u64, Option<Page>>,
    /// Its end's size.
    size: u64,
}

/// A file.
#[derive(Clone, Debug, Default)]
pub struct File {
    now: Image,
    disk: Image,
    stages: Vec<Stage>,
}

/// How likely it is that a change which nobody fsynced has reached the disk.
#[derive(Clone, Copy, Debug)]
pub struct Odds(f64);

impl Odds {
    /// Every cut has its own: nothing survives, all does, and what lies between.
    pub fn draw(rng: &mut StdRng) -> Self {
        Self([0.0, 0.1, 0.5, 0.5, 0.9, 1.0][rng.random_range(0..6)])
    }

    /// Whether one change has.
    pub fn kept(self, rng: &mut StdRng) -> bool {
        rng.random_bool(self.0)
    }
}

/// The page that holds a byte, and where in it.
fn place(at: u64) -> (u64, usize) {
    (at / PAGE as u64, (at % PAGE as u64) as usize)
}

impl Image {
    fn set(&mut self, number: u64, page: Option<Page>) {
        match page {
            Some(page) => self.pages.insert(number, page),
            None => self.pages.remove(&number),
        };
    }

    fn bytes(&self, number: u64) -> [u8; PAGE] {
        self.pages.get(&number).map_or([0; PAGE], |page| **page)
    }

    fn resize(&mut self, size: u64) {
        self.size = size;
        let (last, used) = place(size);
        drop(self.pages.split_off(&(last + u64::from(used > 0))));
        if let Some(page) = self.pages.get_mut(&last) {
            Arc::make_mut(page)[used..].fill(0);
        }
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let len = len.min(usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut out = vec![0; len];
        let (first, _) = place(offset);
        for (number, page) in self.pages.range(first..(offset + len as u64).div_ceil(PAGE as u64).max(first))
        {
            let start = number * PAGE as u64;
            let from = offset.max(start);
            let to = (offset + len as u64).min(start + PAGE as u64);
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&page[(from - start) as usize..(to - start) as usize]);
        }
        out
    }
}

/// A page that is none if it is zeros: so a file that is allocated ahead takes no memory.
fn page(bytes: [u8; PAGE]) -> Option<Page> {
    (bytes != [0; PAGE]).then(|| Arc::new(bytes))
}

impl File {
    /// Its size, as it reads.
    pub fn size(&self) -> u64 {
        self.now.size
    }

    /// Pages that hold something.
    pub fn pages(&self) -> u64 {
        self.now.pages.len() as u64
    }

    /// The first page at or behind `offset` that holds something (`data`), or does not.
    pub fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        if offset >= self.now.size {
            return None;
        }
        let (mut number, _) = place(offset);
        let found = if data {
            self.now.pages.range(number..).next().map(|(number, _)| number * PAGE as u64)
        } else {
            while self.now.pages.contains_key(&number) {
                number += 1;
            }
            Some((number * PAGE as u64).min(self.now.size))
        };
        found.map(|at| at.max(offset))
    }

    /// Up to `len` bytes from `offset` on.
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        self.now.read(offset, len)
    }

    fn stage(&mut self) -> &mut Stage {
        if self.stages.is_empty() {
            self.stages.push(Stage { resized: None, pages: BTreeMap::new(), size: self.now.size });
        }
        self.stages.last_mut().unwrap()
    }

    /// Writes. Some pages that are written over have been written back by the kernel before.
    pub fn write(&mut self, offset: u64, data: &[u8], rng: &mut StdRng) {
        let mut rest = data;
        let mut at = offset;
        while !rest.is_empty() {
            let (number, from) = place(at);
            let (part, behind) = rest.split_at(rest.len().min(PAGE - from));
            let mut bytes = self.now.bytes(number);
            bytes[from..from + part.len()].copy_from_slice(part);
            self.put(number, page(bytes), rng);
            rest = behind;
            at += part.len() as u64;
        }
        self.now.size = self.now.size.max(at);
        let size = self.now.size;
        self.stage().size = size;
    }

    fn put(&mut self, number: u64, page: Option<Page>, rng: &mut StdRng) {
        self.now.set(number, page.clone());
        let before = self.stage().pages.insert(number, page);
        // Under a change of the size that is not durable, nothing behind it is.
        let alone = self.stages.len() == 1 && self.stages[0].resized.is_none();
        if let Some(before) = before.filter(|_| alone && rng.random_ratio(1, 8)) {
            self.disk.set(number, before);
        }
    }

    /// Changes the size, as ftruncate and fallocate do.
    pub fn resize(&mut self, size: u64) {
        if size != self.now.size {
            self.now.resize(size);
            self.stages.push(Stage { resized: Some(size), pages: BTreeMap::new(), size });
        }
    }

    /// Makes a range zeros; the size stays.
    pub fn punch(&mut self, offset: u64, len: u64, rng: &mut StdRng) {
        let end = offset.saturating_add(len).min(self.now.size);
        // A hole is a change of metadata: what follows it does not pass it.
        self.stages.push(Stage { resized: Some(self.now.size), pages: BTreeMap::new(), size: self.now.size });
        let mut at = offset;
        while at < end {
            let (number, from) = place(at);
            let to = PAGE.min(from + (end - at) as usize);
            let mut bytes = self.now.bytes(number);
            bytes[from..to].fill(0);
            self.put(number, page(bytes), rng);
            at += (to - from) as u64;
        }
    }

    /// fsync, fdatasync.
    pub fn sync(&mut self) {
        for stage in self.stages.drain(..) {
            if let Some(size) = stage.resized {
                self.disk.resize(size);
            }
            stage.pages.into_iter().for_each(|(number, page)| self.disk.set(number, page));
            self.disk.size = stage.size;
        }
    }

    /// An fsync that failed: what was done since the last one is clean, and not on the disk.
    pub fn forsake(&mut self) {
        self.stages.clear();
    }

    /// What a power cut leaves.
    pub fn cut(self, odds: Odds, rng: &mut StdRng) -> Self {
        let mut left = self.disk;
        for stage in self.stages {
            if let Some(size) = stage.resized {
                if !odds.kept(rng) {
                    break;
                }
                left.resize(size);
            }
            for (number, new) in stage.pages {
                // One page of eight is caught while it is written.
                if rng.random_ratio(1, 8) {
                    let mixed = torn(left.bytes(number), new.map_or([0; PAGE], |page| *page), rng);
                    left.set(number, page(mixed));
                } else if odds.kept(rng) {
                    left.set(number, new);
                }
            }
            if stage.size > left.size {
                left.size = match rng.random_range(0..4) {
                    0 => left.size,
                    1 => rng.random_range(left.size..=stage.size),
                    _ if odds.kept(rng) => stage.size,
                    _ => left.size,
                };
            }
        }
        // Pages that were written behind an end which is not there.
        left.resize(left.size);
        Self { now: left.clone(), disk: left, stages: Vec::new() }
    }
}

/// Some sectors of the one, some of the other.
fn torn(old: [u8; PAGE], new: [u8; PAGE], rng: &mut StdRng) -> [u8; PAGE] {
    let mut mixed = old;
    for (to, from) in mixed.chunks_mut(SECTOR).zip(new.chunks(SECTOR)) {
        if rng.random() {
            to.copy_from_slice(from);
        }
    }
    mixed
}
