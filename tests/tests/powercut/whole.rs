//! The power of everything at once: `slice up --separate` with all of its data on one disk, clients at work behind hard mounts. All
//! processes are killed, the disk forgets or tears what was not fsynced, and the ensemble is started on what is left.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slice_tests::ensemble::{Ensemble, Layout, Options, Policy};
use slice_tests::powercut::{Disk, Mounted, obstacle};
use slice_tests::stock::Length;
use slice_tests::torment::work::{LIMIT, TAKE_OVER_AFTER, check, run};
use slice_tests::torment::{Work, disk};

/// As many cuts as the length of the run says.
pub fn play() {
    if let Some(why) = obstacle() {
        println!("no power cuts of a whole ensemble: {why}");
        return;
    }
    let (seed, cuts) = (super::round::seed(), Length::get().pick(2, 4, 40));
    println!("SLICE_POWER_SEED={seed}: {cuts} power cuts of a whole ensemble");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut options = Options::new(Policy::Hash, Layout::Separate);
    options.more = ["--take-over-after", TAKE_OVER_AFTER].map(str::to_owned).into();
    let mut ensemble = Ensemble::start("powercut", options).unwrap();
    ensemble.stop().unwrap();
    let data = ensemble.data().to_owned();
    let mut on = Some(disk::put_on(&data, Disk::new(rng.random())).unwrap());
    ensemble.restart().unwrap();
    run(LIMIT * cuts, async {
        let mut work = Work::begin(&ensemble, seed).await;
        for cut in 1..=cuts {
            work.beside(async |_, progress| {
                progress.further(1).await;
                // Where in their work that is, chance decides: no event is waited for.
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..1500))).await;
                ensemble.kill();
                let left = on.take().unwrap().cut(rng.random());
                on = Some(Mounted::at(&data, left, false).unwrap());
                ensemble.restart().unwrap();
                progress.further(1).await;
            })
            .await;
            work.verify().await;
            println!("cut {cut}: {}", work.figures());
        }
    });
    check(&ensemble);
    ensemble.stop().unwrap();
}
