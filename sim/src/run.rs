//! One history, from its seed to its verdict.

use crate::check;
use crate::client::{Client, Handles};
use crate::content::DataFile;
use crate::ensemble::{Ensemble, Size};
use crate::faults::torment;
use crate::judge::judge;
use crate::model::{FIRST_DATA_NAME, Fs};
use crate::ops::{Answer, Entry, How, Kind, Name, Obj, Op};
use crate::world::World;
use futures_util::future::{join, join_all};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use slice_proto::ids::Role;
use slice_proto::table::NamePolicy;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Once;
use std::time::Duration;

/// Names that clients meet at.
const NAMES: Name = 4;
/// Directories, of those made last, that clients work in.
const DIRS: usize = 4;
/// Objects, of those made last, that clients ask for and change.
const FILES: usize = 6;
/// Simulated time after which a client that is not answered never will be.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// What a seed makes of a history.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// The volume's name policy.
    pub policy: NamePolicy,
    size: Size,
    clients: usize,
    steps: usize,
    /// Longest pause of a client between two operations.
    pause_ms: u64,
    /// Faults that strike.
    pub faults: usize,
    /// Time in which they strike.
    within: Duration,
}

/// How a history went.
#[derive(Debug)]
pub struct Verdict {
    /// Its plan.
    pub plan: Plan,
    /// A hash of all that happened.
    pub hash: u64,
    /// Operations judged.
    pub operations: usize,
    /// Simulated time.
    pub simulated: Duration,
    /// What was wrong.
    pub wrong: Option<String>,
    /// Everything that happened.
    pub notes: Vec<String>,
}

impl Plan {
    /// What this seed makes.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed ^ 0x5eed);
        let policy = match seed % 5 {
            0..3 => NamePolicy::Hash,
            3 => NamePolicy::MkdirSwitching { affinity_ppm: 300_000 },
            _ => NamePolicy::Partition,
        };
        let dirs = rng.random_range(1..=3);
        Self {
            seed,
            policy,
            size: Size { dirs, proxies: rng.random_range(1..=3), blocks: rng.random_range(1..=2) },
            clients: rng.random_range(2..=4),
            steps: rng.random_range(8..=30),
            pause_ms: [3, 30, 300][rng.random_range(0..3)],
            faults: rng.random_range(5..=12),
            within: Duration::from_millis(rng.random_range(300..4_000)),
        }
    }
}

/// What clients know of each other's doings: what to work on.
#[derive(Default)]
struct Known {
    kinds: BTreeMap<Obj, Kind>,
    dirs: Vec<Obj>,
    files: Vec<Obj>,
}

impl Known {
    fn learn(&mut self, op: &Op, answer: &Answer) {
        let kind = match op {
            // Data files are their writers' alone.
            Op::Create { name, .. } if *name < FIRST_DATA_NAME => Kind::File,
            Op::Mkdir { .. } => Kind::Dir,
            Op::Symlink { .. } => Kind::Link,
            _ => return,
        };
        if let Ok(seen) = answer
            && let Some(obj) = seen.obj
            && self.kinds.insert(obj, kind).is_none()
        {
            if kind == Kind::Dir { self.dirs.push(obj) } else { self.files.push(obj) }
        }
    }

    fn last(of: &[Obj], n: usize, rng: &mut StdRng) -> Option<Obj> {
        of[of.len().saturating_sub(n)..].choose(rng).copied()
    }

    fn draw(&self, root: Obj, rng: &mut StdRng) -> Op {
        let dir = |rng: &mut StdRng| {
            let other = Self::last(&self.dirs, DIRS, rng).filter(|_| rng.random_bool(0.6));
            other.unwrap_or(root)
        };
        let (at, other) = (dir(rng), dir(rng));
        let (name, to) = (rng.random_range(0..NAMES), rng.random_range(0..NAMES));
        let file = Self::last(&self.files, FILES, rng);
        let any = if rng.random_bool(0.4) { Self::last(&self.dirs, DIRS, rng) } else { file };
        let how = [How::Unchecked, How::Guarded, How::Exclusive][rng.random_range(0..3)];
        let lookup = Op::Lookup { dir: at, name };
        match rng.random_range(0..100) {
            0..16 => Op::Create { dir: at, name, how },
            16..26 => Op::Mkdir { dir: at, name },
            26..29 => Op::Symlink { dir: at, name },
            29..39 => Op::Remove { dir: at, name },
            39..46 => Op::Rmdir { dir: at, name },
            46..62 => Op::Rename { from_dir: at, from: name, to_dir: other, to },
            62..68 => file.map_or(lookup, |file| Op::Link { file, dir: at, name }),
            68..73 => any.map_or(lookup, |obj| {
                let modes =
                    if self.kinds[&obj] == Kind::Dir { [0o700, 0o755, 0o777] } else { [0o600, 0o644, 0o666] };
                Op::Chmod { obj, mode: modes[rng.random_range(0..3)] }
            }),
            73..78 => file.map_or(lookup, |obj| Op::Truncate {
                obj,
                size: [0, 100, 70_000, 3 << 20][rng.random_range(0..4)],
            }),
            78..86 => lookup,
            86..94 => Op::Getattr { obj: any.unwrap_or(root) },
            _ => Op::Readdir { dir: at },
        }
    }
}

/// The operations of all clients, in the order of their answers.
struct Book {
    clock: Cell<u64>,
    entries: RefCell<Vec<Entry>>,
    known: RefCell<Known>,
    world: Rc<World>,
}

impl Book {
    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    async fn run(&self, client: &Client, op: Op) -> Answer {
        let called = self.tick();
        let answer = client.run(&op).await;
        let answered = self.tick();
        self.world.note(|| format!("client {}: {op:x?} -> {answer:x?}", client.index));
        self.known.borrow_mut().learn(&op, &answer);
        let entry = Entry { client: client.index, called, answered, op, answer: answer.clone() };
        self.entries.borrow_mut().push(entry);
        answer
    }
}

/// The data files of those clients that have made theirs.
type Files = Rc<RefCell<BTreeMap<usize, DataFile>>>;

/// A client's life.
async fn work(book: Rc<Book>, client: Rc<Client>, files: Files, root: Obj, plan: Plan, handles: Rc<Handles>) {
    let rng = &mut StdRng::seed_from_u64(plan.seed.wrapping_mul(31).wrapping_add(client.index as u64));
    let name = FIRST_DATA_NAME + client.index as Name;
    let made = book.run(&client, Op::Create { dir: root, name, how: How::Guarded }).await;
    let obj = made.expect("its name is nobody else's").obj.expect("it was made");
    let own = DataFile::new(obj, handles.of(obj));
    files.borrow_mut().insert(client.index, own.clone());
    for _ in 0..plan.steps {
        client.pause(plan.pause_ms).await;
        match rng.random_range(0..100) {
            0..12 => own.write(&client, rng).await,
            12..17 => own.commit(&client).await,
            17..22 => own.truncate(&client, rng).await,
            22..27 => own.read(&client, rng, true).await,
            27..30 => {
                let all: Vec<_> = files.borrow().values().cloned().collect();
                let file = all.choose(rng).expect("one's own is there");
                file.read(&client, rng, file.obj == own.obj).await;
            }
            _ => {
                let op = book.known.borrow().draw(root, rng);
                drop(book.run(&client, op).await);
            }
        }
    }
    own.commit(&client).await;
}

async fn play(plan: Plan, e: Rc<Ensemble>) -> Result<usize, String> {
    let world = Rc::clone(&e.world);
    (0..world.nodes.len()).for_each(|i| e.start(i));
    while world.nodes.iter().any(|n| n.host.borrow().is_none()) {
        if Duration::from_nanos(world.now()) > FOR_EVER / 60 {
            return Err("servers do not open".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let handles = Rc::<Handles>::default();
    let root = handles.learn(&e.root());
    let proxies = e.nodes(Role::Proxy);
    let clients: Vec<_> = (0..plan.clients)
        .map(|i| Rc::new(Client::new(&world, i, proxies[i % proxies.len()], Rc::clone(&handles))))
        .collect();
    let book = Rc::new(Book {
        clock: Cell::new(0),
        entries: RefCell::default(),
        known: RefCell::default(),
        world: Rc::clone(&world),
    });
    let files = Files::default();
    let lives = clients.iter().map(|client| {
        let life =
            work(Rc::clone(&book), Rc::clone(client), Rc::clone(&files), root, plan, Rc::clone(&handles));
        world.clients.borrow().spawn_local(life)
    });
    let lives = join_all(lives.collect::<Vec<_>>());
    let torment = async {
        torment(Rc::clone(&e), plan.clients, plan.faults, plan.within).await;
        // What was begun is undone by itself, within ten seconds.
        tokio::time::sleep(Duration::from_secs(10)).await;
        e.heal();
        world.note(|| "healed".to_owned());
    };
    let both = tokio::time::timeout(FOR_EVER, join(lives, torment)).await;
    let (lives, ()) = both.map_err(|_| format!("clients wait for ever\n{}", tell(&e)))?;
    for life in lives {
        life.map_err(|_| panicked().unwrap_or_else(|| "a client failed".to_owned()))?;
    }
    last_look(&book, &clients, &files, root).await?;
    let entries = book.entries.borrow().clone();
    check::settle(&e).await?;
    check::consistent(&e).await?;
    judge(&Fs::new(root), &entries)?;
    Ok(entries.len())
}

/// When all is done: every file's bytes, and everything that is there, one after the other.
async fn last_look(book: &Book, clients: &[Rc<Client>], files: &Files, root: Obj) -> Result<(), String> {
    let tasks = {
        let (clients, files) = (clients.to_vec(), files.borrow().clone());
        book.world.clients.borrow().spawn_local(async move {
            for (owner, file) in files {
                file.check(&clients[(owner + 1) % clients.len()]).await;
            }
        })
    };
    tokio::time::timeout(FOR_EVER, tasks)
        .await
        .map_err(|_| "the last reads wait for ever".to_owned())?
        .map_err(|_| panicked().unwrap_or_else(|| "the last reads failed".to_owned()))?;
    let known: Vec<Obj> = book.known.borrow().kinds.keys().copied().collect();
    let dirs: Vec<Obj> = std::iter::once(root).chain(book.known.borrow().dirs.clone()).collect();
    for dir in dirs {
        drop(book.run(&clients[0], Op::Readdir { dir }).await);
    }
    for obj in known {
        drop(book.run(&clients[0], Op::Getattr { obj }).await);
    }
    Ok(())
}

fn tell(e: &Ensemble) -> String {
    let up = e.nodes(Role::Dir).into_iter().filter_map(|i| Some(format!("{i}: {}", e.dir(i)?.tell())));
    up.collect::<Vec<_>>().join("\n")
}

thread_local! {
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
    static SIMULATING: Cell<bool> = const { Cell::new(false) };
}

/// What the first panic of this thread's history said.
fn panicked() -> Option<String> {
    SAID.with_borrow(Clone::clone)
}

/// Panics of a simulation, also those that a task swallows, are kept for its verdict.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !SIMULATING.get() {
                return before(info);
            }
            SAID.with_borrow_mut(|said| {
                said.get_or_insert_with(|| info.to_string());
            });
        }));
    });
}

fn on_this_thread(plan: Plan) -> Verdict {
    SIMULATING.set(true);
    let mut verdict =
        Verdict { plan, hash: 0, operations: 0, simulated: Duration::ZERO, wrong: None, notes: Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without threads");
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let e = Ensemble::make(plan.seed, plan.size, plan.policy);
            let world = Rc::clone(&e.world);
            let outcome = world.run(play(plan, Rc::clone(&e))).await;
            verdict.hash = world.noted();
            verdict.simulated = Duration::from_nanos(world.now());
            verdict.notes = world.notes();
            (0..world.nodes.len()).for_each(|i| e.kill(i));
            outcome
        })
    }));
    World::unmake();
    match outcome {
        Ok(Ok(operations)) => verdict.operations = operations,
        Ok(Err(why)) => verdict.wrong = Some(why),
        Err(_) => verdict.wrong = Some("a panic".to_owned()),
    }
    if let Some(said) = panicked() {
        verdict.wrong = Some(verdict.wrong.map_or_else(|| said.clone(), |why| format!("{said}\n{why}")));
    }
    verdict
}

/// Runs a history, on a thread of its own: whatever threads keep for themselves is new.
#[must_use]
pub fn history(plan: Plan) -> Verdict {
    listen();
    let thread = std::thread::Builder::new().stack_size(16 << 20).spawn(move || on_this_thread(plan));
    thread.expect("a thread").join().expect("its panics are caught")
}
