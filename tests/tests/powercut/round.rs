//! Life after life of one server on one disk, each ended by a power cut.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slice_tests::powercut::{Disk, Mounted, Power, obstacle};
use slice_tests::stock::Length;
use tokio::sync::watch;

/// Cuts of one disk, before a new one is formatted: so that what recovery leaves is recovered from again.
const LIVES: usize = 15;

/// Changes of the disk that making a store takes, for the most part.
const MAKING: u64 = 120;

/// A server that does not end is a fault; no claim on speed.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// A server under test, and what its clients know.
pub trait Role: Send {
    const NAME: &'static str;
    /// Most changes of the disk that a life under load makes before it is cut.
    const CHANGES: u64;
    /// Cuts of a quick, a normal and a full run.
    const CUTS: [usize; 3] = [15, 90, 300];

    fn new(rng: StdRng) -> Self;

    /// Makes its store where there is none: in an empty directory, or where the power went while one was made.
    fn format(data: &Path) -> Result<(), String>;

    /// Opens the new store, and does what the server does once.
    async fn make(&mut self, data: &Path);

    /// Opens it, looks whether everything is there that must be, calls [`Life::load`], and works until there is no more power.
    /// In the last life of a disk there is no cut and no load. [`Dark`] ends a life wherever it is.
    async fn live(&mut self, life: &Life) -> Result<(), Dark>;

    /// Acknowledged operations so far.
    fn acknowledged(&self) -> u64;
}

/// Where the server's data lies: its own directory, and one above it, are made by its format.
fn data(on: &Mounted) -> std::path::PathBuf {
    on.path().join("ensemble/server")
}

/// There is no more power.
#[derive(Debug)]
pub struct Dark;

/// A server's life.
pub struct Life {
    power: Arc<Power>,
    dark: watch::Receiver<bool>,
    data: std::path::PathBuf,
    /// Changes under load until the cut.
    changes: u64,
    last_is_made: bool,
    pub last: bool,
}

impl Life {
    /// A life that nobody cuts: in which a store is made.
    pub fn whole(data: &Path) -> Self {
        let disk = Arc::new(Power::new(Disk::new(0)));
        Self {
            dark: disk.dark(),
            power: disk,
            data: data.to_owned(),
            changes: 0,
            last_is_made: false,
            last: true,
        }
    }

    /// Where the store is.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The load begins: from here on changes count to the cut.
    pub fn load(&self) {
        self.power.cut_after(self.changes, self.last_is_made);
    }

    /// Whether there is no more power.
    pub fn is_dark(&self) -> bool {
        *self.dark.borrow()
    }

    /// What comes before the power goes.
    pub async fn lit<T>(&self, future: impl Future<Output = T>) -> Result<T, Dark> {
        let mut dark = self.dark.clone();
        tokio::select! {
            biased;
            done = future => Ok(done),
            _ = dark.wait_for(|dark| *dark) => Err(Dark),
        }
    }

    /// An outcome that may be bad only in the dark.
    pub fn good<T, E: std::fmt::Debug>(&self, what: &str, outcome: Result<T, E>) -> Result<T, Dark> {
        outcome.map_err(|why| {
            assert!(self.is_dark(), "{what}: {why:?}");
            Dark
        })
    }
}

pub fn seed() -> u64 {
    let given = std::env::var("SLICE_POWER_SEED").ok().map(|seed| seed.parse().expect("SLICE_POWER_SEED"));
    given.unwrap_or_else(rand::random)
}

/// Runs on a thread and a runtime of their own, which take everything of a life with them: as a process does.
fn alone<T: Send>(work: impl AsyncFnOnce() -> T + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let tasks = tokio::task::LocalSet::new();
        let out = tasks.block_on(&runtime, async {
            tokio::time::timeout(HANGS_AFTER, work()).await.expect("a life without an end")
        });
        drop(tasks);
        out
    };
    std::thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Says which cut it was if a promise is broken.
struct Told(&'static str, u64, usize);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SLICE_POWER_SEED={}: {}, after {} power cuts", self.1, self.0, self.2);
        }
    }
}

/// As many cuts as the length of the run says.
pub fn play<R: Role>() {
    if let Some(why) = obstacle() {
        println!("no power cuts of the {}: {why}", R::NAME);
        return;
    }
    let [quick, normal, full] = R::CUTS;
    let cuts = Length::get().pick(quick, normal, full);
    let seed = seed();
    println!("SLICE_POWER_SEED={seed}: {cuts} power cuts of the {}", R::NAME);
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut told, mut acknowledged, mut changes, mut format_cuts) = (Told(R::NAME, seed, 0), 0, 0, 0);
    while told.2 < cuts {
        let mut role = R::new(StdRng::seed_from_u64(rng.random()));
        let on = Mounted::new(formatted::<R>(&mut rng, &mut format_cuts)).unwrap();
        alone(async || role.make(&data(&on)).await);
        // What making it says is durable must be.
        let mut disk = on.cut(rng.random());
        for _ in 0..LIVES.min(cuts - told.2) {
            let on = Mounted::new(disk).unwrap();
            if rng.random_ratio(1, 4) {
                // While it is opened, or soon after.
                on.power().cut_after(rng.random_range(0..60), rng.random());
            }
            live(&mut role, &on, &mut rng, false);
            assert!(*on.power().dark().borrow(), "a life ended without a cut");
            changes += on.power().done();
            disk = on.cut(rng.random());
            told.2 += 1;
        }
        let on = Mounted::new(disk).unwrap();
        live(&mut role, &on, &mut rng, true);
        acknowledged += role.acknowledged();
    }
    println!(
        "{}: {cuts} power cuts in {changes} changes of the disk, {acknowledged} acknowledged operations held; {format_cuts} \
         while a store was made",
        R::NAME
    );
}

/// A disk with a new store: made at once, or at the second or third attempt, when the power went in the others.
fn formatted<R: Role>(rng: &mut StdRng, cuts: &mut usize) -> Disk {
    let mut disk = Disk::new(rng.random());
    let mut interrupted = rng.random_range(0..3);
    loop {
        let on = Mounted::new(disk).unwrap();
        if interrupted > 0 {
            on.power().cut_after(rng.random_range(0..MAKING), rng.random());
            interrupted -= 1;
        }
        let made = R::format(&data(&on));
        let dark = *on.power().dark().borrow();
        assert!(dark || made.is_ok(), "a store cannot be made: {made:?}");
        *cuts += usize::from(dark);
        disk = on.cut(rng.random());
        if made.is_ok() {
            return disk;
        }
    }
}

fn live<R: Role>(role: &mut R, on: &Mounted, rng: &mut StdRng, last: bool) {
    let (power, dark) = (Arc::clone(on.power()), on.power().dark());
    // Often soon after the load begins, where little has been written yet.
    let most = [R::CHANGES / 8, R::CHANGES][rng.random_range(0..2)];
    let changes = rng.random_range(0..most.max(1));
    let life = Life { power, dark, data: data(on), changes, last_is_made: rng.random(), last };
    let ended = alone(async || role.live(&life).await);
    assert!(ended.is_err() || last, "a life ended before its cut");
    assert!(ended.is_ok() || !last, "a last life was cut");
}
