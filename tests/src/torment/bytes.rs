//! One client's files: written at random places, committed, cut and replaced, with all their bytes kept beside. What a changed
//! verifier calls lost is sent again, as a kernel does; what is read must be what was written.

use std::cell::Cell;
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slice_load::Client;
use slice_load::client::Fh;
use slice_proto::nfs3::{StableHow, Verifier};

use crate::wire::Expect;
use crate::wire::content::{THRESHOLD, UNIT, pattern, read_all};
use crate::wire::stage::{create, mkdir, size};

/// Files of a client.
const FILES: usize = 3;
/// Where the last writes begin: some files come to lie on several storage nodes.
const FARTHEST: u64 = 2 * UNIT + 70_000;
/// Writes that wait for a COMMIT at most.
const UNCOMMITTED: usize = 6;
/// A client that sends the same bytes so often writes for ever (I7).
const ATTEMPTS: usize = 30;

/// Bytes that a server may lose until a COMMIT answers with the same verifier.
#[derive(Clone, Copy, Debug)]
struct Extent {
    from: usize,
    to: usize,
    verf: Verifier,
}

#[derive(Debug)]
struct File {
    name: String,
    handle: Fh,
    bytes: Vec<u8>,
    uncommitted: Vec<Extent>,
}

/// Who writes.
#[derive(Debug)]
pub struct Bytes {
    c: Client,
    dir: Fh,
    files: Vec<File>,
    rounds: u64,
    rng: StdRng,
    steps: Rc<Cell<u64>>,
    /// Extents that were sent again because a verifier had changed.
    pub lost: u64,
}

impl Bytes {
    /// The client `who`, with its directory under `top`.
    pub async fn new(c: Client, top: &Fh, who: &str, seed: u64, steps: Rc<Cell<u64>>) -> Self {
        let dir = mkdir(&c, top, who, 0o755).await;
        let mut files = Vec::new();
        for n in 0..FILES {
            let name = format!("f{n}");
            let handle = create(&c, &dir, &name, 0o644).await;
            files.push(File { name, handle, bytes: Vec::new(), uncommitted: Vec::new() });
        }
        let rng = StdRng::seed_from_u64(seed);
        Self { c, dir, files, rounds: seed << 32, rng, steps, lost: 0 }
    }

    /// Works until it is told to stop. Every operation must succeed.
    pub async fn work(&mut self, under_way: &Cell<bool>) {
        while under_way.get() {
            let n = self.rng.random_range(0..FILES);
            match self.rng.random_range(0..100) {
                _ if self.files[n].uncommitted.len() >= UNCOMMITTED => self.commit(n).await,
                0..45 => self.write(n, StableHow::Unstable).await,
                45..55 => self.write(n, StableHow::FileSync).await,
                55..60 => self.write(n, StableHow::DataSync).await,
                60..80 => self.commit(n).await,
                80..88 => self.truncate(n).await,
                88..92 => self.replace(n).await,
                _ => self.look(n).await,
            }
            self.steps.set(self.steps.get() + 1);
        }
    }

    async fn write(&mut self, n: usize, how: StableHow) {
        let near = [0, THRESHOLD, UNIT, 2 * UNIT][self.rng.random_range(0..4)];
        let from = match self.rng.random_bool(0.5) {
            // Across the places where a file changes servers.
            true => near.saturating_sub(self.rng.random_range(0..2000)),
            false => self.rng.random_range(0..FARTHEST),
        } as usize;
        let len = match self.rng.random_range(0..3) {
            0 => self.rng.random_range(1..4000),
            1 => self.rng.random_range(1..60_000),
            _ => self.rng.random_range(1..300_000),
        };
        self.rounds += 1;
        let data = pattern(self.rounds, from as u64, len);
        let bytes = &mut self.files[n].bytes;
        bytes.resize(bytes.len().max(from + len), 0);
        bytes[from..from + len].copy_from_slice(&data);
        self.send(n, from, from + len, how).await;
    }

    /// Writes what the file holds there.
    async fn send(&mut self, n: usize, from: usize, to: usize, how: StableHow) {
        let mut at = from;
        while at < to {
            let File { handle, bytes, .. } = &self.files[n];
            let ok = self.c.write(handle, at as u64, &bytes[at..to], how).await.good();
            let count = ok.count as usize;
            assert!(count > 0 && count <= to - at, "{count} bytes of {} written", to - at);
            assert!(ok.committed >= how, "asked for {how:?}, got {:?}", ok.committed);
            if ok.committed == StableHow::Unstable {
                self.files[n].uncommitted.push(Extent { from: at, to: at + count, verf: ok.verf });
            }
            at += count;
        }
    }

    /// Until WRITE and COMMIT agree.
    async fn commit(&mut self, n: usize) {
        for _ in 0..ATTEMPTS {
            let verf = self.c.commit(&self.files[n].handle, 0, 0).await.good().verf;
            let mut lost = std::mem::take(&mut self.files[n].uncommitted);
            lost.retain(|extent| extent.verf != verf);
            if lost.is_empty() {
                return;
            }
            self.lost += lost.len() as u64;
            for extent in lost {
                self.send(n, extent.from, extent.to, StableHow::Unstable).await;
            }
        }
        panic!("WRITE and COMMIT do not agree after {ATTEMPTS} attempts: a client would write for ever");
    }

    async fn truncate(&mut self, n: usize) {
        let to = match self.rng.random_range(0..4) {
            0 => 0,
            1 => self.rng.random_range(0..2 * THRESHOLD),
            _ => self.rng.random_range(0..FARTHEST),
        } as usize;
        let file = &mut self.files[n];
        self.c.setattr(&file.handle, size(to as u64), None).await.good();
        file.bytes.resize(to, 0);
        // What is cut off is not to come back.
        file.uncommitted.iter_mut().for_each(|extent| extent.to = extent.to.min(to));
        file.uncommitted.retain(|extent| extent.from < extent.to);
    }

    /// Removes the file with all that may be on its way to the disk, and begins another under its name.
    async fn replace(&mut self, n: usize) {
        let name = self.files[n].name.clone();
        self.c.remove(&self.dir, name.as_bytes()).await.good();
        let handle = create(&self.c, &self.dir, &name, 0o644).await;
        self.files[n] = File { name, handle, bytes: Vec::new(), uncommitted: Vec::new() };
    }

    /// Reads a part. What is not committed may be gone with a server until it is sent again: a kernel would have it in its cache.
    async fn look(&mut self, n: usize) {
        if !self.files[n].uncommitted.is_empty() {
            self.commit(n).await;
        }
        let end = self.files[n].bytes.len() as u64;
        let from = self.rng.random_range(0..=end);
        let len = self.rng.random_range(0..300_000_u64).min(end - from);
        let got = read_all(&self.c, &self.files[n].handle, from, len).await;
        self.compare(n, from as usize, &got, len as usize);
    }

    fn compare(&self, n: usize, from: usize, got: &[u8], len: usize) {
        let File { name, bytes, .. } = &self.files[n];
        let want = &bytes[from..from + len];
        assert_eq!(got.len(), want.len(), "bytes of {name} from {from}, which has {}", bytes.len());
        if let Some(at) = got.iter().zip(want).position(|(got, want)| got != want) {
            let wrong = got.iter().zip(want).filter(|(got, want)| got != want).count();
            let (first, read) = (from + at, got[at]);
            panic!("{name}: byte {first} is {read}, not {}; {wrong} of {len} are wrong", want[at]);
        }
    }

    /// Every file is there bit for bit, once what the last verifier calls lost was sent again.
    pub async fn verify(&mut self, c: &Client) {
        for n in 0..FILES {
            self.commit(n).await;
            let File { name, handle, bytes, .. } = &self.files[n];
            assert_eq!(c.lookup(&self.dir, name.as_bytes()).await.good().object, *handle, "{name}");
            assert_eq!(c.getattr(handle).await.good().size, bytes.len() as u64, "size of {name}");
            let got = read_all(c, handle, 0, bytes.len() as u64).await;
            self.compare(n, 0, &got, self.files[n].bytes.len());
        }
    }
}
