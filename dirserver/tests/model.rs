//! Random operations against an in-memory file system that says what must come out.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::model::{Model, Names};
use common::rng::Rng;
use common::{Client, Cluster, run};
use slice_proto::table::NamePolicy;
use std::time::Duration;

/// Steps of one run.
const STEPS: usize = 1500;

/// An operation that takes longer has nothing to wait for any more.
const FOR_EVER: Duration = Duration::from_secs(60);

fn seed() -> u64 {
    let given = std::env::var("SLICE_SEED").ok().and_then(|s| s.parse().ok());
    given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into())
}

/// Runs `steps` random operations; every `restart_every` steps a server is killed and started again.
fn play(servers: usize, policy: NamePolicy, steps: usize, restart_every: Option<usize>) {
    let seed = seed();
    println!("SLICE_SEED={seed} {policy:?} on {servers} servers");
    let mut rng = Rng::new(seed);
    run(async || {
        // A cache so small that most records come from the store.
        let mut c = Cluster::with_cache(servers, policy, 32 << 10).await;
        let users = [Client::root(&c), Client::new(&c, 10, 20, &[]), Client::new(&c, 11, 21, &[20])];
        let mut model = Model::new(users[0].root_fh());
        for step in 0..steps {
            let user = &users[[0, 0, 1, 2][rng.index() % 4]];
            let op = model.random(&mut rng, &Names::few());
            let checked = tokio::time::timeout(FOR_EVER, model.check(step, user, op)).await;
            checked.unwrap_or_else(|_| panic!("step {step} waits for ever\n{}", c.tell()));
            if restart_every.is_some_and(|n| step % n == n - 1) {
                let i = rng.index() % c.len();
                c.restart(i).await;
            }
        }
        model.check_all(&users[0]).await;
        c.settle().await;
        common::check::consistent(&c).await;
    });
}

const SWITCHING: NamePolicy = NamePolicy::MkdirSwitching { affinity_ppm: 400_000 };

#[test]
fn partition() {
    play(1, NamePolicy::Partition, STEPS, None);
}

#[test]
fn mkdir_switching_on_one_server() {
    play(1, SWITCHING, STEPS, None);
}

#[test]
fn mkdir_switching_on_three() {
    play(3, SWITCHING, STEPS, None);
}

#[test]
fn hashing_on_one_server() {
    play(1, NamePolicy::Hash, STEPS, None);
}

#[test]
fn hashing_on_two() {
    play(2, NamePolicy::Hash, STEPS, None);
}

#[test]
fn hashing_on_three_with_restarts() {
    play(3, NamePolicy::Hash, STEPS, Some(40));
}

#[test]
fn mkdir_switching_on_two_with_restarts() {
    play(2, SWITCHING, STEPS, Some(40));
}
