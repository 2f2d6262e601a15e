//! Several clients at work on one ensemble, each through a hard mount of its own, and what is found when they rest.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use slice_load::Client;
use tokio::time::sleep;

use super::LOOK;
use super::bytes::Bytes;
use super::hard::HardMount;
use super::names::Names;
use super::race::Race;
use crate::ensemble::Ensemble;

/// Machines that mount. Each has one program for names and one for bytes, and takes part in the race.
pub const CLIENTS: u8 = 4;

/// Seconds in which an ensemble comes to rest: intentions are taken over after as many as [`TAKE_OVER_AFTER`], on a busy
/// machine later.
const SETTLES: &str = "90";
/// Seconds after which an intention is taken over.
pub const TAKE_OVER_AFTER: &str = "5";

/// What all clients know.
#[derive(Debug)]
pub struct Work {
    server: SocketAddr,
    pub mounts: Vec<HardMount>,
    names: Vec<Names>,
    bytes: Vec<Bytes>,
    race: Race,
    steps: Vec<Rc<Cell<u64>>>,
}

impl Work {
    /// Mounts a fresh ensemble. Must run within a `LocalSet`, as must all that follows.
    pub async fn begin(ensemble: &Ensemble, seed: u64) -> Self {
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, ensemble.port()));
        let mounts = mount(server).await;
        let top = mounts[0].client.mnt("/").await.unwrap().root;
        let (mut names, mut bytes, mut steps) = (Vec::new(), Vec::new(), Vec::new());
        let mut counter = || {
            let counter = Rc::<Cell<u64>>::default();
            steps.push(Rc::clone(&counter));
            counter
        };
        for (who, mount) in (0_u64..).zip(&mounts) {
            let c = || mount.client.clone();
            names.push(Names::new(c(), &top, &format!("names-{who}"), seed ^ who, counter()).await);
            bytes.push(Bytes::new(c(), &top, &format!("bytes-{who}"), seed ^ (who + 100), counter()).await);
        }
        let race = Race::new(clients(&mounts), &top, counter()).await;
        Self { server, mounts, names, bytes, race, steps }
    }

    /// All work while `torment` runs, and rest when it has ended. Everyone must have got on.
    pub async fn beside(&mut self, torment: impl AsyncFnOnce(&[HardMount], &Progress)) {
        let under_way = Cell::new(true);
        let progress = Progress(self.steps.clone());
        let before = progress.now();
        let Self { mounts, names, bytes, race, .. } = self;
        let torment = async {
            torment(mounts, &progress).await;
            under_way.set(false);
        };
        let names = join_all(names.iter_mut().map(|names| names.work(&under_way)));
        let bytes = join_all(bytes.iter_mut().map(|bytes| bytes.work(&under_way)));
        futures_util::join!(torment, names, bytes, race.work(&under_way));
        let after = progress.now();
        assert!(
            after.iter().zip(&before).all(|(after, before)| after > before),
            "somebody did not get on: {before:?}, {after:?}"
        );
    }

    /// All that was acknowledged is there. Reads past the hard mounts: nothing is killed now.
    pub async fn verify(&mut self) {
        let c = Client::connect(self.server).await.unwrap();
        for names in &self.names {
            names.verify(&c).await;
        }
        for bytes in &mut self.bytes {
            bytes.verify(&c).await;
        }
        self.race.verify(&c).await;
    }

    /// What was done and endured, in a line.
    #[must_use]
    pub fn figures(&self) -> String {
        let sum = |of: fn(&HardMount) -> u64| self.mounts.iter().map(of).sum::<u64>();
        let longest = self.mounts.iter().map(|m| m.endured.longest.get()).max().unwrap_or_default();
        format!(
            "{} calls over {} connections, {} sent again, {} told to wait, the longest took {longest:?}; {} extents written again",
            sum(|m| m.endured.calls.get()),
            sum(|m| m.endured.connections.get()),
            sum(|m| m.endured.sent_again.get()),
            sum(|m| m.endured.jukebox.get()),
            self.bytes.iter().map(|b| b.lost).sum::<u64>(),
        )
    }

    /// Calls that were sent more than once.
    #[must_use]
    pub fn sent_again(&self) -> u64 {
        self.mounts.iter().map(|m| m.endured.sent_again.get()).sum()
    }
}

/// How far everyone is.
#[derive(Debug)]
pub struct Progress(Vec<Rc<Cell<u64>>>);

impl Progress {
    fn now(&self) -> Vec<u64> {
        self.0.iter().map(|steps| steps.get()).collect()
    }

    /// Returns once everyone is so many steps further.
    pub async fn further(&self, steps: u64) {
        let from = self.now();
        while self.now().iter().zip(&from).any(|(now, from)| *now < from + steps) {
            sleep(LOOK).await;
        }
    }
}

async fn mount(server: SocketAddr) -> Vec<HardMount> {
    let mut mounts = Vec::new();
    for nth in 1..=CLIENTS {
        mounts.push(HardMount::new(server, nth).await);
    }
    mounts
}

fn clients(mounts: &[HardMount]) -> Vec<Client> {
    mounts.iter().map(|mount| mount.client.clone()).collect()
}

/// `slice admin check`: names, links, sizes and bytes tell the same story, nothing is orphaned.
pub fn check(ensemble: &Ensemble) {
    let said = Command::new(ensemble.binary())
        .args(["admin", "check", "--settle", SETTLES, "--data"])
        .arg(ensemble.data())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    println!("{}", text.lines().last().unwrap_or_default());
    assert!(said.status.success(), "slice admin check: {}\n{text}", said.status);
}

/// Longer than any test here takes, so that one that hangs fails.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Runs a test's future on a thread of its own making, as the clients' connections want it.
pub fn run<T>(limit: Duration, future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all = tokio::task::LocalSet::new();
    all.block_on(&runtime, async {
        tokio::time::timeout(limit, future).await.expect("the test does not end")
    })
}
