//! What a server on a machine of ours stands on: files on a disk in memory, threads for what blocks, and randomness.
//!
//! A job that would block a thread is done later, at a moment drawn from the seed, and all at once. A kill finds it not begun,
//! or, if its seed says so, in its midst: then the power goes at one of its next changes of the disk.

use crate::world::{MS, Ns, World, world};
use rand::Rng;
use slice_system::disk::{Disk, Memory, Power};
use slice_system::{Job, Pool, Random, System};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Changes of the disk that are still made after a kill, at most.
const LAST_CHANGES: u64 = 6;
/// A job of a server that is stopped is looked at again after so long.
const STOPPED: Ns = 10 * MS;

/// What of a machine outlives its server, and what does not.
#[derive(Default)]
pub struct Machine {
    /// The disk, while the server is down.
    disk: RefCell<Option<Disk>>,
    /// The disk, while it is up.
    power: RefCell<Option<Arc<Power>>>,
    /// What blocks and is not done yet.
    jobs: RefCell<BTreeMap<u64, Job>>,
    next: Cell<u64>,
    /// Takes a turn of the server's log, while it is up.
    pub turn: RefCell<Option<Rc<dyn Fn()>>>,
}

/// What a server's log is to tell when it has work: it gets its turn as any job.
pub fn log_turns(i: usize, life: u64) -> impl Fn() + Send + Sync + 'static {
    move || {
        let turn = move || {
            let turn = world().nodes[i].machine.turn.borrow().clone();
            if let Some(turn) = turn {
                turn();
            }
        };
        world().block(i, life, Box::new(turn));
    }
}

impl World {
    /// What a new life of node `i` stands on.
    #[must_use]
    pub fn system(&self, i: usize, life: u64) -> (System, Arc<Power>) {
        let machine = &self.nodes[i].machine;
        let disk = machine.disk.take().unwrap_or_else(|| Disk::new(self.draw(|rng| rng.random())));
        let power = Arc::new(Power::new(disk));
        *machine.power.borrow_mut() = Some(Arc::clone(&power));
        let system = System {
            files: Arc::new(Memory(Arc::clone(&power))),
            pool: Pool::of(move |job| world().block(i, life, job)),
            random: Random::of(|| world().draw(|rng| rng.random())),
        };
        (system, power)
    }

    /// Something that blocks is to be done on node `i`.
    fn block(self: &Rc<Self>, i: usize, life: u64, job: Job) {
        let node = &self.nodes[i];
        if node.life.get() != life {
            return;
        }
        let number = node.machine.next.get();
        node.machine.next.set(number + 1);
        node.machine.jobs.borrow_mut().insert(number, job);
        self.after(self.disk_takes(), move |w| w.unblock(i, number));
    }

    fn unblock(self: &Rc<Self>, i: usize, number: u64) {
        let node = &self.nodes[i];
        if node.stopped.get() && node.machine.jobs.borrow().contains_key(&number) {
            return self.after(STOPPED, move |w| w.unblock(i, number));
        }
        let job = node.machine.jobs.borrow_mut().remove(&number);
        if let Some(job) = job {
            job();
        }
    }

    /// How long the disk takes for something.
    #[must_use]
    pub fn disk_takes(&self) -> Ns {
        self.draw(|rng| match rng.random_range(0..20) {
            0 => rng.random_range(0..200 * MS),
            1..6 => rng.random_range(0..10 * MS),
            _ => rng.random_range(0..MS),
        })
    }

    /// The server of node `i` is gone, and with it the power, or not. `last` is what it would have done next.
    pub fn crash(&self, i: usize, power_is_lost: bool, last: impl FnOnce()) {
        let machine = &self.nodes[i].machine;
        let jobs = machine.jobs.take();
        let Some(power) = machine.power.take() else { return };
        if power_is_lost && self.draw(|rng| rng.random()) {
            let (changes, made) = self.draw(|rng| (rng.random_range(0..LAST_CHANGES), rng.random()));
            power.cut_after(changes, made);
            jobs.into_values().for_each(|job| job());
            last();
        } else {
            drop(jobs);
        }
        machine.turn.take();
        let disk = power
            .take()
            .map(|disk| if power_is_lost { disk.cut(self.draw(|rng| rng.random())) } else { disk });
        *machine.disk.borrow_mut() = disk;
    }

    /// Does something to the disk of a machine whose server is down.
    pub fn prepare<T>(&self, i: usize, what: impl FnOnce(&System) -> T) -> T {
        let (system, power) = self.system(i, 0);
        let done = what(&system);
        let machine = &self.nodes[i].machine;
        machine.power.take();
        *machine.disk.borrow_mut() = power.take();
        done
    }
}
