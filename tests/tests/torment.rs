//! The real thing: an ensemble of many processes, clients at work through the µproxy, and servers, coordinator and µproxy killed,
//! stopped and cut off at random. No client sees an error, only a pause; afterwards nothing acknowledged is missing, nothing
//! happened twice, and `slice admin check` is clean.
//!
//! `SLICE_TORMENT_SEED` plays a torment again, as far as processes and a kernel allow; `SLICE_TORMENT_ROUNDS` says how many.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop at the first surprise"
)]

use rustix::process::Signal;
use slice_tests::ensemble::{Ensemble, Layout, Options, Policy};
use slice_tests::stock::Length;
use slice_tests::torment::work::{LIMIT, TAKE_OVER_AFTER, check, run};
use slice_tests::torment::{LOOK, Tormentor, Work};

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

fn start(name: &str, policy: Policy) -> Ensemble {
    let mut options = Options::new(policy, Layout::Separate);
    options.more = ["--take-over-after", TAKE_OVER_AFTER].map(str::to_owned).into();
    Ensemble::start(&format!("torment-{name}"), options).unwrap()
}

/// Every round torments the clients for about ten seconds, lets them rest, and looks at everything that they know.
fn tormented(name: &str, policy: Policy) {
    let seed = number("SLICE_TORMENT_SEED").unwrap_or_else(rand::random);
    let rounds = number("SLICE_TORMENT_ROUNDS").unwrap_or(Length::get().pick(1, 2, 30));
    println!("SLICE_TORMENT_SEED={seed} SLICE_TORMENT_ROUNDS={rounds}");
    let ensemble = start(name, policy);
    run(LIMIT * u32::try_from(rounds).unwrap(), async {
        let mut tormentor = Tormentor::new(seed);
        let mut work = Work::begin(&ensemble, seed).await;
        for round in 0..rounds {
            work.beside(async |mounts, progress| {
                tormentor.round(&ensemble, mounts).await;
                // Whoever was away is back, and everyone is served.
                progress.further(1).await;
            })
            .await;
            work.verify().await;
            println!("round {round}: {}", work.figures());
        }
        println!("{:?}", tormentor.done);
        assert!(work.sent_again() > 0, "nothing of this was felt by anyone");
    });
    check(&ensemble);
}

#[test]
fn clients_of_a_tormented_ensemble_see_a_pause_hash() {
    tormented("hash", Policy::Hash);
}

#[test]
fn clients_of_a_tormented_ensemble_see_a_pause_mkdir() {
    if Length::get() == Length::Full {
        tormented("mkdir", Policy::Mkdir);
    }
}

#[test]
fn clients_of_a_tormented_ensemble_see_a_pause_partition() {
    if Length::get() == Length::Full {
        tormented("partition", Policy::Partition);
    }
}

/// A rolling upgrade, and a bad one: each server in turn is told to stop, or killed, under load; the next when everyone has got on.
#[test]
fn servers_restarted_one_after_another_lose_no_operation() {
    let seed = number("SLICE_TORMENT_SEED").unwrap_or_else(rand::random);
    println!("SLICE_TORMENT_SEED={seed}");
    let ensemble = start("rolling", Policy::Mkdir);
    run(LIMIT, async {
        let mut work = Work::begin(&ensemble, seed).await;
        for signal in [Signal::TERM, Signal::KILL] {
            work.beside(async |_, progress| {
                let all = ensemble.servers().unwrap();
                assert!(all.len() >= 10, "{all:?}");
                for server in all {
                    progress.further(2).await;
                    ensemble.signal(&server, signal).unwrap();
                    // `ensemble.json` names another process when it is back.
                    while ensemble.servers().unwrap().iter().any(|now| now.pid == server.pid) {
                        tokio::time::sleep(LOOK).await;
                    }
                }
                progress.further(2).await;
            })
            .await;
            work.verify().await;
            println!("{signal:?}: {}", work.figures());
        }
    });
    check(&ensemble);
}
