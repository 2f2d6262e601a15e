//! Every machine's clock leaps by seconds, hours and weeks, back and forth, each for itself, while clients behind two µproxies change the
//! same files and directory, in turn. What must hold: a ctime that strictly advances with every change, as every client sees it; what
//! a writer was shown is what it sees; who opens a file after another has closed it sees that it has changed, and the new bytes; and
//! nothing stays open or owed.
//!
//! `SLICE_CLOCKS_SEED` draws the same leaps and operations again.

use super::client::Client;
use super::ensemble::{BLOCKS, COORDINATOR, DIRS, Ensemble, PROXY, SECOND_PROXY, SMALL, name};
use super::names::Names;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use slice_proto::ids::ServerId;
use slice_proto::nfs3::{Fattr3, NfsTime3, StableHow};
use slice_proto::table::NamePolicy;
use slice_tests::stock::Length;
use slice_tests::wire::content::pattern;
use std::sync::atomic::Ordering;
use std::time::Duration;

const CLIENTS: usize = 4;
const FILES: usize = 6;
/// Some files stay below the threshold, some lie on both storage nodes.
const SIZES: [usize; 3] = [3000, 150_000, 2_500_000];
const HANGS_AFTER: Duration = Duration::from_secs(240);
/// As often as a client that is told to write again may be told so before it would do so for ever.
const TRIES: usize = 8;

const SECOND_NS: i64 = 1_000_000_000;

/// By how much clocks are wrong.
const LEAPS_S: [i64; 6] = [1, 70, 3600, 26 * 3600, 40 * 86_400, 500 * 86_400];

struct File {
    name: String,
    fh: Vec<u8>,
    bytes: Vec<u8>,
    /// The last ctime that anybody saw.
    ctime: NfsTime3,
}

struct World {
    e: Ensemble,
    clients: Vec<Client>,
    dir: Vec<u8>,
    dir_ctime: NfsTime3,
    files: Vec<File>,
    rng: StdRng,
    count: u64,
    leaps: u64,
}

pub fn run() {
    let given = std::env::var("SLICE_CLOCKS_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(rand::random::<u64>);
    println!("SLICE_CLOCKS_SEED={seed}");
    let steps = Length::get().pick(100, 250, 5000);
    for policy in [NamePolicy::Hash, NamePolicy::MkdirSwitching { affinity_ppm: 500_000 }] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let work = play(policy, seed, steps);
            let limit = HANGS_AFTER * (1 + steps / 1000);
            tokio::time::timeout(limit, work).await.expect("clocks leap, and somebody waits for ever");
        });
    }
}

async fn play(policy: NamePolicy, seed: u64, steps: u32) {
    let mut e = Ensemble::new(policy).await;
    e.start(SECOND_PROXY).await;
    let clients: Vec<_> = (0..CLIENTS as u32)
        .map(|n| {
            let through = if n % 2 == 0 { PROXY } else { SECOND_PROXY };
            Client::counting_from(e.front_of(through), n << 24)
        })
        .collect();
    let dir = clients[0].mkdir(&Names::new(&e).root(), b"clocks").await;
    let dir_ctime = clients[0].getattr(&dir).await.unwrap().ctime;
    let rng = StdRng::seed_from_u64(seed);
    let mut w = World { e, clients, dir, dir_ctime, files: Vec::new(), rng, count: 0, leaps: 0 };
    for n in 0..FILES {
        let c = &w.clients[n % CLIENTS];
        let name = format!("f{n}");
        let fh = c.create(&w.dir, name.as_bytes(), 0o644).await;
        let ctime = c.getattr(&fh).await.unwrap().ctime;
        w.files.push(File { name, fh, bytes: Vec::new(), ctime });
        w.names_changed("CREATE").await;
        w.write(n, n % CLIENTS).await;
    }
    for step in 0..steps {
        if w.rng.random_bool(0.3) {
            w.leap();
        }
        if step % 60 == 59 {
            let all: Vec<_> =
                DIRS.into_iter().chain(BLOCKS).chain([SMALL, COORDINATOR, PROXY, SECOND_PROXY]).collect();
            let victim = *all.choose(&mut w.rng).unwrap();
            w.e.restart(victim).await;
        }
        w.step().await;
    }
    println!("{policy:?}: {steps} changes, {} leaps", w.leaps);
    w.e.settle().await;
    w.e.check().await;
}

impl World {
    /// Sets somebody's clock.
    fn leap(&mut self) {
        let all: Vec<ServerId> = self.e.clocks.keys().copied().collect();
        let id = *all.choose(&mut self.rng).unwrap();
        let by = LEAPS_S.choose(&mut self.rng).unwrap() * SECOND_NS;
        let off = [by, -by, 0][self.rng.random_range(0..3)];
        self.e.clocks[&id].0.store(off, Ordering::SeqCst);
        self.leaps += 1;
        // For who looks at the output of a failure.
        println!("{} is off by {} s", name(id), off / SECOND_NS);
    }

    async fn step(&mut self) {
        let (n, who) = (self.rng.random_range(0..FILES), self.rng.random_range(0..CLIENTS));
        match self.rng.random_range(0..100) {
            0..55 => self.write(n, who).await,
            55..65 => self.truncate(n, who).await,
            65..75 => self.chmod(n, who).await,
            75..90 => self.rename(n, who).await,
            _ => self.replace(n, who).await,
        }
    }

    /// Writes over, or on, and closes.
    async fn write(&mut self, n: usize, who: usize) {
        self.count += 1;
        let most = SIZES[n % SIZES.len()];
        let end = self.files[n].bytes.len();
        let from = self.rng.random_range(0..=end.min(most));
        // Mostly within what is there: then only times tell.
        let len = self.rng.random_range(1..=most.min(200_000));
        let len = if end > from && self.rng.random_bool(0.7) { len.min(end - from) } else { len };
        let data = pattern(self.count, from as u64, len);
        let stable = self.rng.random_bool(0.3);
        let how = if stable { StableHow::FileSync } else { StableHow::Unstable };
        let c = &self.clients[who];
        let file = &mut self.files[n];
        let mut shown = None;
        for _ in 0..TRIES {
            let ok = c.write(&file.fh, from as u64, &data, how).await;
            shown = ok.wcc.after;
            if stable {
                break;
            }
            let committed = c.commit(&file.fh).await;
            shown = committed.wcc.after;
            if committed.verf == ok.verf {
                break;
            }
        }
        file.bytes.resize(end.max(from + len), 0);
        file.bytes[from..from + len].copy_from_slice(&data);
        self.changed(n, who, "a write", shown).await;
    }

    async fn truncate(&mut self, n: usize, who: usize) {
        let to = self.rng.random_range(0..=self.files[n].bytes.len());
        self.clients[who].set_size(&self.files[n].fh, to as u64).await;
        self.files[n].bytes.truncate(to);
        self.changed(n, who, "a truncation", None).await;
    }

    async fn chmod(&mut self, n: usize, who: usize) {
        let mode = self.rng.random_range(0o600..=0o777) | 0o600;
        self.clients[who].set_mode(&self.files[n].fh, mode).await;
        self.changed(n, who, "a chmod", None).await;
    }

    async fn rename(&mut self, n: usize, who: usize) {
        self.count += 1;
        let to = format!("r{}", self.count);
        let c = &self.clients[who];
        c.rename(&self.dir, self.files[n].name.as_bytes(), &self.dir, to.as_bytes()).await;
        self.files[n].name = to;
        self.names_changed("RENAME").await;
        self.changed(n, who, "a RENAME", None).await;
    }

    async fn replace(&mut self, n: usize, who: usize) {
        self.count += 1;
        let c = &self.clients[who];
        c.remove(&self.dir, self.files[n].name.as_bytes()).await;
        let name = format!("n{}", self.count);
        let fh = c.create(&self.dir, name.as_bytes(), 0o644).await;
        let ctime = c.getattr(&fh).await.unwrap().ctime;
        self.files[n] = File { name, fh, bytes: Vec::new(), ctime };
        self.names_changed("REMOVE and CREATE").await;
        self.write(n, who).await;
    }

    /// Everyone sees that the directory has changed.
    async fn names_changed(&mut self, what: &str) {
        let before = self.dir_ctime;
        for (who, c) in self.clients.iter().enumerate() {
            let now = c.getattr(&self.dir).await.unwrap().ctime;
            assert!(
                now > before,
                "after {what} client {who} sees the directory's ctime at {now:?}, not past {before:?}"
            );
            self.dir_ctime = now;
        }
    }

    /// Whoever looks sees that the file has changed, how it is now, and what the writer was shown. Not everyone looks every time: a µproxy
    /// that has not seen the last change reckons by its own clock.
    async fn changed(&mut self, n: usize, by: usize, what: &str, shown: Option<Fattr3>) {
        let file = &mut self.files[n];
        let mut first: Option<Fattr3> = None;
        let from = self.rng.random_range(0..CLIENTS);
        let step = [1, 2, CLIENTS][self.rng.random_range(0..3)];
        for who in (from..CLIENTS).step_by(step) {
            let c = &self.clients[who];
            let mut attr = c.getattr(&file.fh).await.unwrap();
            // README, known faults: a writer may be shown an mtime that others do not see.
            attr.mtime = NfsTime3::default();
            let (ctime, before) = (attr.ctime, file.ctime);
            assert!(ctime > before, "after {what} by {by} client {who} sees {ctime:?}, not past {before:?}");
            assert_eq!(attr.size, file.bytes.len() as u64, "after {what} by {by} as client {who} sees it");
            if let Some(first) = &first {
                assert_eq!(
                    *first, attr,
                    "after {what} by {by} clients {from} and {who} see different things"
                );
            }
            first = Some(attr);
        }
        let now = first.unwrap();
        if let Some(shown) = shown {
            assert_eq!(
                (shown.ctime, shown.size),
                (now.ctime, now.size),
                "what the writer was shown does not stay"
            );
        }
        file.ctime = now.ctime;
        let reader = self.rng.random_range(0..CLIENTS);
        let got = self.clients[reader].read_from(&file.fh, 0).await;
        assert!(got == file.bytes, "after {what} by {by} client {reader} reads other bytes");
    }
}
