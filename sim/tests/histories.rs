//! Simulated histories: random operations of several clients through several µproxies, with servers killed, stopped and cut
//! off meanwhile. A failure names its seed: `SLICE_SIM_SEED=N cargo test -p slice-sim --test histories` runs that one alone.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use slice_sim::run::{Plan, Verdict, history};
use std::sync::atomic::{AtomicU64, Ordering};

/// Histories, by SLICE_TEST_LENGTH.
fn count() -> u64 {
    match std::env::var("SLICE_TEST_LENGTH").as_deref() {
        Ok("quick") => 100,
        Ok("full") => 20_000,
        _ => 1_000,
    }
}

fn alone() -> Option<u64> {
    std::env::var("SLICE_SIM_SEED").ok().map(|seed| seed.parse().unwrap())
}

fn must_be_right(verdict: &Verdict) {
    if let Some(wrong) = &verdict.wrong {
        panic!("SLICE_SIM_SEED={} ({:?})\n{wrong}", verdict.plan.seed, verdict.plan);
    }
}

#[test]
fn every_history_has_an_order() {
    if let Some(seed) = alone() {
        return must_be_right(&history(Plan::of(seed)));
    }
    let (next, operations, faults) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count() {
                        return;
                    }
                    let verdict = history(Plan::of(seed));
                    must_be_right(&verdict);
                    operations.fetch_add(verdict.operations as u64, Ordering::Relaxed);
                    faults.fetch_add(verdict.plan.faults as u64, Ordering::Relaxed);
                }
            });
        }
    });
    println!("{} histories, {operations:?} operations judged, {faults:?} faults", count());
}

/// A seed is worth something only if it brings the same history back.
#[test]
fn a_seed_replays_exactly() {
    let seeds = alone().map_or(2_000..2_010, |seed| seed..seed + 1);
    for seed in seeds {
        let (first, second) = (history(Plan::of(seed)), history(Plan::of(seed)));
        if first.hash != second.hash {
            let differs = first.notes.iter().zip(&second.notes).position(|(a, b)| a != b);
            let at = differs.unwrap_or(first.notes.len().min(second.notes.len()));
            panic!("seed {seed} differs at {at}:\n{:?}\n{:?}", first.notes.get(at), second.notes.get(at));
        }
        must_be_right(&first);
    }
}

/// Found and mended, each with the seeds that showed it: what a client has sent twice is carried out once, however late the
/// second copy comes.
fn of_seeds(seeds: &[u64]) {
    seeds.iter().for_each(|seed| must_be_right(&history(Plan::of(*seed))));
}

/// I9: it was fenced by the truncation that its client had gone on to, and went again under the new epoch.
#[test]
fn a_late_copy_of_a_write_brings_nothing_back() {
    of_seeds(&[108]);
}

/// I10: its directory server had restarted, and judged it anew.
#[test]
fn a_late_copy_of_a_refused_call_is_refused() {
    of_seeds(&[25, 289, 1134]);
}

/// I3: a REMOVE was refused because its directory was gone, by an RMDIR that was not durable and was lost.
#[test]
fn a_refusal_that_shows_a_removal_waits_for_it() {
    of_seeds(&[1050]);
}

/// What an operation had done at the server that runs it was seen there, and not yet at the others.
#[test]
fn what_is_seen_at_one_server_is_done_at_the_others() {
    of_seeds(&[1171]);
}
