//! A disk that fails under one server of a whole ensemble, while clients work: fsync, writes or reads that end in EIO, a file system that
//! turns read-only. Whoever is concerned is told, at the call that it concerns; nothing that failed is taken for done, nothing is read
//! that nobody wrote; the others are served; and when the disk works again and the server was restarted, nothing that was
//! acknowledged is missing, not after a power cut either.
//!
//! `SLICE_TORMENT_SEED` draws the clients' work again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop at the first surprise"
)]

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use slice_load::Client;
use slice_proto::nfs3::NfsStat3;
use slice_tests::ensemble::{Ensemble, Layout, Options, Policy};
use slice_tests::powercut::{Disk, Fault, Mounted, obstacle};
use slice_tests::torment::doubt::Doubt;
use slice_tests::torment::work::{LIMIT, TAKE_OVER_AFTER, check, run};
use slice_tests::torment::{HardMount, LOOK, number};
use tokio::time::{sleep, timeout};

/// Clients at work.
const CLIENTS: u8 = 8;
/// Until somebody is told, or served: no claim on speed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a disk fails at least: some fsyncs, some reads.
const FAILS_FOR: u64 = 30;

/// What clients see of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Some calls end in an error; others do not.
    Errors,
    /// Nothing but a pause, of whoever needs that server to come up.
    Pause,
    /// The same, and sooner or later everyone needs it.
    Silence,
}

/// A server, and what each fault of its disk looks like from outside.
struct Case {
    name: &'static str,
    role: &'static str,
    seen: [(Fault, Seen); 4],
}

#[test]
#[ignore = "failing disk: for root, minutes: cargo xtask test failing_disk"]
fn blockstore() {
    play(&Case {
        name: "blockstore-0",
        role: "blockstore",
        seen: [
            (Fault::Sync, Seen::Errors),
            (Fault::Write, Seen::Errors),
            (Fault::Read, Seen::Errors),
            (Fault::ReadOnly, Seen::Errors),
        ],
    });
}

#[test]
#[ignore = "failing disk: for root, minutes: cargo xtask test failing_disk"]
fn smallfile() {
    play(&Case {
        name: "smallfile-0",
        role: "smallfile",
        seen: [
            (Fault::Sync, Seen::Errors),
            (Fault::Write, Seen::Errors),
            (Fault::Read, Seen::Errors),
            (Fault::ReadOnly, Seen::Errors),
        ],
    });
}

#[test]
#[ignore = "failing disk: for root, minutes: cargo xtask test failing_disk"]
fn dirserver() {
    play(&Case {
        name: "dirserver-0",
        role: "dirserver",
        seen: [
            (Fault::Sync, Seen::Errors),
            (Fault::Write, Seen::Errors),
            // All that it serves is in its memory.
            (Fault::Read, Seen::Silence),
            (Fault::ReadOnly, Seen::Errors),
        ],
    });
}

#[test]
#[ignore = "failing disk: for root, minutes: cargo xtask test failing_disk"]
fn coordinator() {
    play(&Case {
        name: "coordinator",
        role: "coordinator",
        // Only truncations of long files need it; they wait for an intention log that works.
        seen: [Fault::Sync, Fault::Write, Fault::Read, Fault::ReadOnly].map(|fault| (fault, Seen::Pause)),
    });
}

fn play(case: &Case) {
    if let Some(why) = obstacle() {
        println!("no disk fails under the {}: {why}", case.role);
        return;
    }
    let seed = number("SLICE_TORMENT_SEED").unwrap_or_else(rand::random);
    println!("SLICE_TORMENT_SEED={seed}");
    let mut options = Options::new(Policy::Hash, Layout::Separate);
    options.more = ["--take-over-after", TAKE_OVER_AFTER].map(str::to_owned).into();
    let mut ensemble = Ensemble::start(&format!("failing-{}", case.role), options).unwrap();
    ensemble.stop().unwrap();
    let under = ensemble.data().join(case.name);
    let mut disk = slice_tests::torment::disk::put_on(&under, Disk::new(seed)).unwrap();
    ensemble.restart().unwrap();
    run(LIMIT * 2, async {
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, ensemble.port()));
        let mut all = Vec::new();
        for nth in 1..=CLIENTS {
            let c = HardMount::new(server, nth).await.client;
            let top = c.mnt("/").await.unwrap().root;
            let mut doubt = Doubt::new(c, &top, nth.into(), seed ^ u64::from(nth)).await;
            doubt.truncates = nth == 1;
            doubt.bytes_fail = matches!(case.role, "blockstore" | "smallfile");
            all.push(doubt);
        }
        for (fault, seen) in case.seen {
            beside(&mut all, &[], async |p| p.further(20).await).await;
            beside(&mut all, &[NfsStat3::IO, NfsStat3::ROFS], async |p| {
                let before = p.now();
                disk.power().fail(Some(fault));
                match seen {
                    Seen::Errors => p.until("nobody is told", |now| now.bad > before.bad).await,
                    // It comes up no more than it works.
                    Seen::Pause | Seen::Silence => kill(&ensemble, case).await,
                }
                p.until("the disk is not asked", |_| disk.power().faults() > 0).await;
                if seen != Seen::Silence {
                    p.further(FAILS_FOR).await;
                }
                let now = p.now();
                println!(
                    "{fault:?} at {}: {} operations of the disk failed, {} steps went well, {} were told",
                    case.name,
                    disk.power().faults(),
                    now.good - before.good,
                    now.bad - before.bad
                );
                disk.power().fail(None);
                kill(&ensemble, case).await;
            })
            .await;
            let c = Client::connect(server).await.unwrap();
            for doubt in &mut all {
                doubt.verify(&c).await;
            }
            beside(&mut all, &[], async |p| p.further(20).await).await;
            if fault == Fault::Sync {
                // What was not written then was not written since, unless somebody wrote it again.
                ensemble.kill();
                disk = Mounted::at(&under, disk.cut(seed), false).unwrap();
                ensemble.restart().unwrap();
            }
            let c = Client::connect(server).await.unwrap();
            for doubt in &mut all {
                doubt.verify(&c).await;
            }
        }
        for doubt in &all {
            println!("{:?}", doubt.told);
        }
    });
    check(&ensemble);
    ensemble.stop().unwrap();
}

/// Kills the server, and waits until it is another's turn to be it. It may not come up for long.
async fn kill(ensemble: &Ensemble, case: &Case) {
    let victim = ensemble.server(case.role, 0).unwrap();
    if ensemble.lives(&victim) {
        // It may end by itself meanwhile.
        let _ = ensemble.signal(&victim, Signal::KILL);
    }
    while ensemble.servers().unwrap().iter().any(|now| now.pid == victim.pid) {
        sleep(LOOK).await;
    }
}

/// Steps so far.
#[derive(Clone, Copy, Debug)]
struct Steps {
    good: u64,
    bad: u64,
}

/// How far a client is.
struct Counted {
    good: Rc<Cell<u64>>,
    bad: Rc<Cell<u64>>,
}

/// How far all clients are together.
struct Progress(Vec<Counted>);

impl Progress {
    fn now(&self) -> Steps {
        let good = self.0.iter().map(|c| c.good.get()).sum();
        Steps { good, bad: self.0.iter().map(|c| c.bad.get()).sum() }
    }

    async fn until(&self, or: &str, done: impl Fn(Steps) -> bool) {
        let waits = async {
            while !done(self.now()) {
                sleep(LOOK).await;
            }
        };
        assert!(timeout(PATIENCE, waits).await.is_ok(), "{or}: {:?}", self.now());
    }

    /// So many more steps that go well.
    async fn further(&self, steps: u64) {
        let from = self.now().good;
        self.until("nobody is served", |now| now.good >= from + steps).await;
    }
}

/// All clients at work while something happens.
async fn beside(all: &mut [Doubt], allowed: &[NfsStat3], happens: impl AsyncFnOnce(&Progress)) {
    let under_way = Cell::new(true);
    let progress =
        Progress(all.iter().map(|d| Counted { good: d.good.clone(), bad: d.bad.clone() }).collect());
    let happens = async {
        happens(&progress).await;
        under_way.set(false);
    };
    let work = join_all(all.iter_mut().map(|doubt| doubt.work(&under_way, allowed)));
    futures_util::join!(happens, work);
}
