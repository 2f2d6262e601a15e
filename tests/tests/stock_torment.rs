//! A stock client at work beside raw ones while every role is killed, stopped and cut off: its programs see no error, only a pause, and a
//! fresh mount shows exactly what they were told (`torment` says what is done to the servers).
//!
//! `SLICE_TORMENT_SEED` and `SLICE_TORMENT_ROUNDS` as there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test may stop at the first surprise.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use slice_load::Client;
use slice_tests::ensemble::{Ensemble, Layout, Options, Policy};
use slice_tests::guest::{Guest, Outcome, Spec};
use slice_tests::stock::{Length, reference, run_name};
use slice_tests::stock_suite;
use slice_tests::torment::rival::{Rival, Told};
use slice_tests::torment::work::{TAKE_OVER_AFTER, check, run};
use slice_tests::torment::{HardMount, Tormentor, Work};
use slice_tests::{Error, torment};

/// Each round is half a minute on a busy machine.
const LIMIT: Duration = Duration::from_secs(1800);

/// Steps of each of the guest's programs, at least.
const STEPS: u64 = 30;

stock_suite!(@ torment, partition_separate, Partition, Separate);
stock_suite!(@ torment, mkdir_separate, Mkdir, Separate);
stock_suite!(@ torment, hash_separate, Hash, Separate);

fn torment(policy: Policy, layout: Layout) -> Result<(), Error> {
    if reference() {
        println!("the reference is one process, which nobody starts again: nothing to torment");
        return Ok(());
    }
    let seed = torment::number("SLICE_TORMENT_SEED").unwrap_or_else(rand::random);
    let rounds = torment::number("SLICE_TORMENT_ROUNDS").unwrap_or(Length::get().pick(1, 1, 10));
    println!("SLICE_TORMENT_SEED={seed} SLICE_TORMENT_ROUNDS={rounds}");
    let mut options = Options::new(policy, layout);
    options.more = ["--take-over-after", TAKE_OVER_AFTER].map(str::to_owned).into();
    let name = run_name("torment", policy, layout);
    let ensemble = Ensemble::start(&name, options)?;
    run(LIMIT, async {
        let mut tormentor = Tormentor::new(seed);
        let mut work = Work::begin(&ensemble, seed).await;
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, ensemble.port()));
        let mount = HardMount::new(server, torment::work::CLIENTS + 1).await;
        let top = mount.client.mnt("/").await.unwrap().root;
        let mut rival = Rival::new(mount.client.clone(), &top).await;
        let script = include_str!("guest/torment.sh").replace("@SEED@", &(seed % 32768).to_string());
        let script = script.replace("@STEPS@", &STEPS.to_string());
        // On this thread, with which it ends.
        let guest = Spec::new(&name).mount(ensemble.mount()).limit(LIMIT).boot(&script)?;
        let mut guest = aside(guest, |guest| guest.wait_mark("going").map(|_| ())).await?;
        for round in 0..rounds {
            let under_way = std::cell::Cell::new(true);
            let tormented = work.beside(async |mounts, progress| {
                tormentor.round(&ensemble, mounts).await;
                progress.further(1).await;
            });
            let tormented = async {
                tormented.await;
                under_way.set(false);
            };
            futures_util::join!(tormented, rival.work(&under_way));
            work.verify().await;
            println!("round {round}: {}", work.figures());
        }
        println!("{:?}", tormentor.done);
        guest.say("enough")?;
        let outcome = finish(guest).await?.check()?;
        for (name, text) in outcome.marks.iter().map(|mark| (&mark.name, &mark.text)) {
            if name != "race" && !text.is_empty() {
                println!("{policy}, {layout}: {name} {text}");
            }
        }
        let steps: Vec<u64> = words(&outcome, "steps");
        assert!(
            steps.len() == 3 && steps.iter().all(|steps| *steps >= STEPS),
            "programs that did not get on: {steps:?}"
        );
        let told: Vec<Told> = words(&outcome, "race");
        let c = Client::connect(server).await.unwrap();
        let (raced, guests) = rival.verify(&c, &told).await;
        println!("{raced} races with the stock client, which got {guests} of the locks");
        Ok::<_, Error>(())
    })?;
    check(&ensemble);
    Ok(())
}

/// What a mark says, word by word.
fn words<T: std::str::FromStr<Err: std::fmt::Debug>>(outcome: &Outcome, mark: &str) -> Vec<T> {
    outcome.text(mark).unwrap_or_default().split_whitespace().map(|word| word.parse().unwrap()).collect()
}

/// Waits for something of the guest's on another thread: this one carries the raw clients' calls.
async fn aside(
    mut guest: Guest,
    wait: impl FnOnce(&mut Guest) -> Result<(), Error> + Send + 'static,
) -> Result<Guest, Error> {
    tokio::task::spawn_blocking(move || wait(&mut guest).map(|()| guest)).await.unwrap()
}

async fn finish(guest: Guest) -> Result<Outcome, Error> {
    tokio::task::spawn_blocking(move || guest.finish()).await.unwrap()
}
