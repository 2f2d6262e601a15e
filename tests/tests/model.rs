//! Random sequences of every procedure, every reply compared with a file system in memory; with servers killed between and
//! during operations; afterwards `slice admin check` must find nothing.
//!
//! `SLICE_MODEL_SEED` runs a sequence again, `SLICE_MODEL_STEPS` says how long one is. With `SLICE_TEST_SERVER=ganesha` the model
//! itself is under test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop at the first surprise"
)]

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rustix::process::Signal;
use slice_load::client;
use slice_tests::ensemble::{Ensemble, Layout, Options, Policy, Server};
use slice_tests::ganesha::Ganesha;
use slice_tests::model::run::Figures;
use slice_tests::model::{Faults, Settings, run};
use slice_tests::stock::{Length, reference, run_name};
use slice_tests::{Error, paths};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

/// Sequences that found something once, and one that did not. New ones are drawn in full runs, and with `SLICE_MODEL_SEED`.
const SEEDS: [u64; 8] = [
    7,
    1,
    2380153886088786734,
    2795148271996256545,
    3904795749140257563,
    9850280328424761574,
    12680274342573958821,
    18418773184625128064,
];

/// The sequences of a run without faults.
fn seeds() -> Vec<u64> {
    match (number("SLICE_MODEL_SEED"), Length::get()) {
        (Some(seed), _) => vec![seed],
        (None, Length::Quick) => SEEDS[..2].to_vec(),
        (None, Length::Normal) => SEEDS.to_vec(),
        (None, Length::Full) => SEEDS.into_iter().chain([rand::random()]).collect(),
    }
}

fn settings(seed: u64, steps: usize) -> Settings {
    let steps = number("SLICE_MODEL_STEPS").map_or(steps, |s| s as usize);
    // Replays need it, whatever happens.
    println!("SLICE_MODEL_SEED={seed} SLICE_MODEL_STEPS={steps}");
    Settings { seed, steps, fault_every: 25, reference: reference() }
}

/// Runs a sequence against a port.
fn sequence(
    nfs: u16,
    mount: u16,
    export: &str,
    settings: &Settings,
    faults: Option<&mut dyn Faults>,
) -> Figures {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let figures = tokio::task::LocalSet::new().block_on(&runtime, async {
        let root = client::mount(at(mount), export).await.expect("MOUNT");
        run(at(nfs), root, settings, faults).await
    });
    match figures {
        Ok(figures) => {
            println!("{figures:?}");
            figures
        }
        Err(error) => panic!("{error}"),
    }
}

/// `slice admin check` on a running ensemble: clean, or the test fails with what it says.
fn checked(ensemble: &Ensemble) {
    let said = Command::new(ensemble.binary())
        .args(["admin", "check", "--data"])
        .arg(ensemble.data())
        .output()
        .expect("slice admin check");
    let text = String::from_utf8_lossy(&said.stdout);
    let errors = String::from_utf8_lossy(&said.stderr);
    println!("{}", text.lines().last().unwrap_or_default());
    assert!(said.status.success(), "slice admin check: {}\n{text}{errors}", said.status);
}

fn peaceful(policy: Policy, layout: Layout) {
    seeds().into_iter().for_each(|seed| in_peace(seed, policy, layout));
}

fn in_peace(seed: u64, policy: Policy, layout: Layout) {
    let settings = settings(seed, Length::get().pick(400, 2000, 20_000));
    if reference() {
        let ganesha = Ganesha::start().unwrap();
        let (nfs, mount, export) = ganesha.raw();
        sequence(nfs, mount, &export, &settings, None);
        return;
    }
    let mut ensemble =
        Ensemble::start(&run_name("model", policy, layout), Options::new(policy, layout)).unwrap();
    let port = ensemble.port();
    sequence(port, port, "/", &settings, None);
    checked(&ensemble);
    // A second life finds the same.
    ensemble.stop().unwrap();
    ensemble.restart().unwrap();
    checked(&ensemble);
    ensemble.stop().unwrap();
}

/// Kills servers of an ensemble in which each is a process.
struct Killer<'e> {
    ensemble: &'e Ensemble,
    /// Processes that were killed, and when.
    killed: HashMap<u32, Instant>,
}

/// The program starts a dead server again at once; opening its store takes a moment.
const BACK_LIMIT: Duration = Duration::from_secs(60);

impl Killer<'_> {
    /// Waits until at most `most` of those killed are still away.
    fn wait(&mut self, most: usize) -> Result<Vec<Server>, Error> {
        loop {
            let servers = self.ensemble.servers()?;
            // `ensemble.json` names another process when a server is back.
            self.killed.retain(|pid, _| servers.iter().any(|s| s.pid == *pid));
            if self.killed.len() <= most {
                return Ok(servers);
            }
            let longest = self.killed.values().map(Instant::elapsed).max().unwrap_or_default();
            assert!(longest < BACK_LIMIT, "killed servers do not come back: {:?}", self.killed);
            // The file is written by another process: there is nothing to wait for but time.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Faults for Killer<'_> {
    fn kill(&mut self, rng: &mut StdRng) -> Result<String, Error> {
        let servers = self.wait(1)?;
        let alive: Vec<_> = servers.iter().filter(|s| !self.killed.contains_key(&s.pid)).collect();
        let victim = alive.choose(rng).copied().expect("a server that lives");
        self.ensemble.signal(victim, Signal::KILL)?;
        self.killed.insert(victim.pid, Instant::now());
        Ok(format!("{} {}", victim.role, victim.pid))
    }
}

fn faulty(policy: Policy) {
    if reference() {
        return;
    }
    let seed = number("SLICE_MODEL_SEED");
    let drawn = if Length::get() == Length::Full { rand::random() } else { SEEDS[0] };
    let settings = settings(seed.unwrap_or(drawn), Length::get().pick(150, 500, 5000));
    let name = format!("{}-killed", run_name("model", policy, Layout::Separate));
    let mut ensemble = Ensemble::start(&name, Options::new(policy, Layout::Separate)).unwrap();
    let port = ensemble.port();
    let mut killer = Killer { ensemble: &ensemble, killed: HashMap::new() };
    let figures = sequence(port, port, "/", &settings, Some(&mut killer));
    assert!(figures.killed > 0, "nothing was killed");
    killer.wait(0).unwrap();
    checked(&ensemble);
    ensemble.stop().unwrap();
}

macro_rules! tests {
    ($($name:ident: $run:expr;)*) => { $(
        #[test]
        #[ignore = "whole ensembles: run by cargo xtask test"]
        fn $name() {
            println!("logs: {}", paths::target().join("ensemble").display());
            $run;
        }
    )* };
}

tests! {
    partition_one_process: peaceful(Policy::Partition, Layout::OneProcess);
    mkdir_one_process: peaceful(Policy::Mkdir, Layout::OneProcess);
    hash_one_process: peaceful(Policy::Hash, Layout::OneProcess);
    partition_separate: peaceful(Policy::Partition, Layout::Separate);
    mkdir_separate: peaceful(Policy::Mkdir, Layout::Separate);
    hash_separate: peaceful(Policy::Hash, Layout::Separate);
    partition_killed: faulty(Policy::Partition);
    mkdir_killed: faulty(Policy::Mkdir);
    hash_killed: faulty(Policy::Hash);
}
