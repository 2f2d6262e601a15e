//! A client whose servers may fail: it takes an error for an answer, and knows what that leaves in doubt. What was acknowledged, and
//! never in doubt since, must be there; what is in doubt must be one of what it can be; nothing is ever read that nobody wrote.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slice_load::Client;
use slice_load::client::{Answer, Fh};
use slice_proto::nfs3::{CreateHow, NfsStat3, Res3, StableHow, Verifier};

use crate::wire::content::{MOST, THRESHOLD, UNIT, pattern};
use crate::wire::stage::{mkdir, size};
use crate::wire::{Expect, mode};

/// Directories of a client: at homes of their own.
const DIRS: usize = 6;
/// Files that a client keeps.
const FILES: usize = 12;
/// COMMITs alone, after one has failed.
const COMMITS: usize = 3;
/// A client that sends the same bytes so often writes for ever (I7).
const ATTEMPTS: usize = 30;

/// What a name is known to be.
#[derive(Debug)]
struct File {
    /// Where it is; two places if it was moved and nobody knows.
    places: Vec<(usize, String)>,
    handle: Fh,
    /// All that its bytes may be: each byte is that of one of these.
    may_be: Vec<Vec<u8>>,
}

/// What failed, and with what.
type Failed = NfsStat3;

/// Who doubts.
#[derive(Debug)]
pub struct Doubt {
    c: Client,
    dirs: Vec<Fh>,
    files: Vec<File>,
    /// Names that were removed for sure.
    gone: Vec<(usize, String)>,
    /// Files that could not be written: removed when that is possible.
    failed: Vec<(usize, String)>,
    made: u64,
    rng: StdRng,
    /// Steps that went well, and those that did not.
    pub good: Rc<Cell<u64>>,
    pub bad: Rc<Cell<u64>>,
    /// Whether it cuts files. A truncation that has begun is carried out whatever fails: who asked for it waits for that.
    pub truncates: bool,
    /// Whether it is a data server whose disk fails.
    pub bytes_fail: bool,
    /// Errors by operation.
    pub told: BTreeMap<(&'static str, u32), u64>,
}

fn outcome<O, F>(answer: Answer<O, F>) -> Result<O, Failed> {
    match answer.expect("a hard mount answers") {
        Res3::Ok(ok) => Ok(ok),
        Res3::Err(status, _) => Err(status),
    }
}

impl Doubt {
    /// The client `who`, with its directories under `top`.
    pub async fn new(c: Client, top: &Fh, who: usize, seed: u64) -> Self {
        let mut dirs = Vec::new();
        for n in 0..DIRS {
            dirs.push(mkdir(&c, top, &format!("doubt-{who}-{n}"), 0o755).await);
        }
        Self {
            c,
            dirs,
            files: Vec::new(),
            gone: Vec::new(),
            failed: Vec::new(),
            made: 0,
            rng: StdRng::seed_from_u64(seed),
            good: Rc::default(),
            bad: Rc::default(),
            truncates: false,
            bytes_fail: false,
            told: BTreeMap::new(),
        }
    }

    /// Works until it is told to stop. `allowed`: the errors that may be answered now.
    pub async fn work(&mut self, under_way: &Cell<bool>, allowed: &[NfsStat3]) {
        while under_way.get() {
            let (what, done) = self.step().await;
            match done {
                Ok(()) => self.good.set(self.good.get() + 1),
                Err(status) => {
                    assert!(allowed.contains(&status), "{what} is answered with {status:?}");
                    *self.told.entry((what, status.0)).or_default() += 1;
                    self.bad.set(self.bad.get() + 1);
                }
            }
        }
    }

    async fn step(&mut self) -> (&'static str, Result<(), Failed>) {
        if self.files.is_empty() {
            return ("a new file", self.make().await);
        }
        let n = self.rng.random_range(0..self.files.len());
        match self.rng.random_range(0..100) {
            _ if self.files.len() > FILES => ("REMOVE", self.remove(n).await),
            0..25 => ("a new file", self.make().await),
            25..50 => ("an overwrite", self.overwrite(n).await),
            50..70 => ("READ", self.look(n).await),
            70..85 => ("RENAME", self.rename(n).await),
            85..93 if self.truncates => ("SETATTR", self.truncate(n).await),
            _ => ("REMOVE", self.remove(n).await),
        }
    }

    fn place(&mut self) -> (usize, String) {
        self.made += 1;
        (self.rng.random_range(0..DIRS), format!("n{}", self.made))
    }

    async fn make(&mut self) -> Result<(), Failed> {
        let (dir, name) = self.place();
        let how = CreateHow::Guarded(mode(0o644));
        // Nobody ever asks for it if this fails.
        let handle = outcome(self.c.create(&self.dirs[dir], name.as_bytes(), how).await)?.object.unwrap();
        self.files.push(File { places: vec![(dir, name)], handle, may_be: vec![Vec::new()] });
        let n = self.files.len() - 1;
        let len = match self.rng.random_range(0..4) {
            0 | 1 => self.rng.random_range(1..9000),
            2 => self.rng.random_range(1..3 * THRESHOLD as usize),
            _ => self.rng.random_range(UNIT as usize..UNIT as usize + 300_000),
        };
        let written = self.write(n, 0, len).await;
        if written.is_err() {
            // How much of it there is, is anybody's guess. A program that is told so removes it.
            self.failed.extend(self.files.remove(n).places);
        }
        written
    }

    async fn overwrite(&mut self, n: usize) -> Result<(), Failed> {
        let end = self.files[n].may_be[0].len();
        if end == 0 {
            return Ok(());
        }
        let from = self.rng.random_range(0..end);
        let len = self.rng.random_range(1..=(end - from).min(100_000));
        self.write(n, from, len).await
    }

    /// Writes and commits, as a kernel does. What fails leaves every byte as it was or as it was to be.
    async fn write(&mut self, n: usize, from: usize, len: usize) -> Result<(), Failed> {
        self.made += 1;
        let data = pattern(self.made, from as u64, len);
        let done = self.send(n, from, &data).await;
        let File { may_be, .. } = &mut self.files[n];
        let put = |bytes: &mut Vec<u8>| {
            bytes.resize(bytes.len().max(from + len), 0);
            bytes[from..from + len].copy_from_slice(&data);
        };
        if done.is_ok() {
            may_be.iter_mut().for_each(put);
        } else {
            let mut other = may_be[0].clone();
            put(&mut other);
            may_be.push(other);
        }
        may_be.dedup();
        done
    }

    async fn send(&mut self, n: usize, from: usize, data: &[u8]) -> Result<(), Failed> {
        let handle = self.files[n].handle;
        for _ in 0..ATTEMPTS {
            let mut verifiers: Vec<Verifier> = Vec::new();
            let mut at = 0;
            while at < data.len() {
                let part = &data[at..data.len().min(at + MOST)];
                let ok = outcome(self.c.write(&handle, (from + at) as u64, part, StableHow::Unstable).await)?;
                assert!(ok.count > 0, "nothing written");
                at += ok.count as usize;
                if ok.committed == StableHow::Unstable {
                    verifiers.push(ok.verf);
                }
            }
            match outcome(self.c.commit(&handle, 0, 0).await) {
                Ok(ok) if verifiers.iter().all(|verf| *verf == ok.verf) => return Ok(()),
                Ok(_) => {} // Again, all of it.
                Err(status) => {
                    self.is_not_swallowed(&handle, &verifiers).await;
                    return Err(status);
                }
            }
        }
        panic!("WRITE and COMMIT do not agree after {ATTEMPTS} attempts: a client would write for ever");
    }

    /// I8: after a COMMIT that failed none says that the same bytes are durable, unless they are written again.
    async fn is_not_swallowed(&self, handle: &Fh, verifiers: &[Verifier]) {
        // All of it went to disk with the WRITEs, or it is no data server whose disk fails: then the bytes may be durable.
        if verifiers.is_empty() || !self.bytes_fail {
            return;
        }
        for _ in 0..COMMITS {
            if let Ok(ok) = outcome(self.c.commit(handle, 0, 0).await) {
                let kept = verifiers.iter().all(|verf| *verf == ok.verf);
                assert!(!kept, "a COMMIT has failed, and the next one says that all is well");
            }
        }
    }

    /// Reads all of it. What cannot be read is an error, never zeros.
    async fn look(&mut self, n: usize) -> Result<(), Failed> {
        let file = &self.files[n];
        let end = file.may_be[0].len();
        let mut at = 0;
        while at < end {
            let ok = outcome(self.c.read(&file.handle, at as u64, MOST as u32).await)?;
            assert!(!ok.data.is_empty(), "{:?} ends at {at}, not at {end}", file.places);
            file.compare(at, &ok.data);
            at += ok.data.len();
        }
        Ok(())
    }

    async fn rename(&mut self, n: usize) -> Result<(), Failed> {
        let to = self.place();
        let [from] = self.files[n].places.as_slice() else { return Ok(()) };
        let (from_dir, to_dir) = (&self.dirs[from.0], &self.dirs[to.0]);
        let done = outcome(self.c.rename((from_dir, from.1.as_bytes()), (to_dir, to.1.as_bytes())).await);
        let places = &mut self.files[n].places;
        places.push(to);
        if done.is_ok() {
            self.gone.push(places.remove(0));
        }
        done.map(drop)
    }

    async fn truncate(&mut self, n: usize) -> Result<(), Failed> {
        let end = self.files[n].may_be[0].len();
        let to = self.rng.random_range(0..=end);
        let done = outcome(self.c.setattr(&self.files[n].handle, size(to as u64), None).await);
        if done.is_ok() {
            self.files[n].may_be.iter_mut().for_each(|bytes| bytes.truncate(to));
            self.files[n].may_be.dedup();
        } else {
            // It may still be cut, at any time.
            self.files.remove(n);
        }
        done.map(drop)
    }

    async fn remove(&mut self, n: usize) -> Result<(), Failed> {
        let file = self.files.remove(n);
        let [(dir, name)] = file.places.as_slice() else { return Ok(()) };
        outcome(self.c.remove(&self.dirs[*dir], name.as_bytes()).await)?;
        self.gone.extend(file.places);
        Ok(())
    }

    /// Everything is as it was acknowledged, or in doubt. Which of two names a file has is settled now; bytes that were never
    /// acknowledged may still be lost.
    pub async fn verify(&mut self, c: &Client) {
        for (dir, name) in self.failed.drain(..) {
            c.remove(&self.dirs[dir], name.as_bytes()).await.good();
            self.gone.push((dir, name));
        }
        for (dir, name) in &self.gone {
            c.lookup(&self.dirs[*dir], name.as_bytes()).await.fails(NfsStat3::NOENT);
        }
        for n in 0..self.files.len() {
            let File { places, handle, may_be } = &self.files[n];
            let mut there = Vec::new();
            for place in places {
                let found = c.lookup(&self.dirs[place.0], place.1.as_bytes()).await;
                if found.stat() == NfsStat3::OK {
                    assert_eq!(found.good().object, *handle, "{place:?}");
                    there.push(place.clone());
                }
            }
            assert_eq!(there.len(), 1, "of {places:?} there are {there:?}");
            let end = may_be[0].len();
            assert_eq!(c.getattr(handle).await.good().size, end as u64, "size of {there:?}");
            let got = crate::wire::content::read_all(c, handle, 0, end as u64).await;
            self.files[n].compare(0, &got);
            assert_eq!(got.len(), end, "bytes of {there:?}");
            self.files[n].places = there;
        }
    }
}

impl File {
    fn compare(&self, from: usize, got: &[u8]) {
        for (at, byte) in (from..).zip(got) {
            let ok = self.may_be.iter().any(|bytes| bytes.get(at) == Some(byte));
            assert!(
                ok,
                "{:?}: byte {at} of {} is {byte}, which nobody wrote there",
                self.places,
                self.may_be[0].len()
            );
        }
    }
}
