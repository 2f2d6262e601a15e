//! Runs simulated histories, for hours if it must be: `cargo run --release -p slice-sim -- --hours 2`.

use clap::Parser;
use slice_sim::run::{Plan, history};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Simulated histories of a whole ensemble, each from a seed of its own.
#[derive(Debug, Parser)]
struct Args {
    /// First seed; the others follow it. With `--count 1` it replays one history.
    #[arg(long, env = "SLICE_SIM_SEED", default_value_t = 1)]
    seed: u64,
    /// Histories to run.
    #[arg(long)]
    count: Option<u64>,
    /// Hours to run, if no count is given.
    #[arg(long, default_value_t = 1.0)]
    hours: f64,
    /// Threads, each with a history of its own.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Prints everything that happened in histories that fail.
    #[arg(long)]
    notes: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let (next, operations, faults) = (AtomicU64::new(args.seed), AtomicU64::new(0), AtomicU64::new(0));
    let failed = AtomicBool::new(false);
    let begin = Instant::now();
    let over = |seed: u64| match args.count {
        Some(count) => seed >= args.seed.saturating_add(count),
        None => begin.elapsed() >= Duration::from_secs_f64(args.hours * 3600.0),
    };
    let one = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if over(seed) {
            return;
        }
        let verdict = history(Plan::of(seed));
        operations.fetch_add(verdict.operations as u64, Ordering::Relaxed);
        faults.fetch_add(verdict.plan.faults as u64, Ordering::Relaxed);
        if let Some(wrong) = verdict.wrong {
            failed.store(true, Ordering::Relaxed);
            if args.notes {
                eprintln!("{}", verdict.notes.join("\n"));
            }
            eprintln!("SLICE_SIM_SEED={seed} {:?}: {wrong}\n", verdict.plan);
        }
    };
    std::thread::scope(|scope| {
        (0..args.threads.max(1)).for_each(|_| drop(scope.spawn(one)));
    });
    let histories = match args.count {
        Some(count) => count,
        None => next.load(Ordering::Relaxed).saturating_sub(args.seed + args.threads.max(1) as u64),
    };
    println!(
        "{histories} histories from seed {}, {} operations judged, {} faults, {:.0} s",
        args.seed,
        operations.load(Ordering::Relaxed),
        faults.load(Ordering::Relaxed),
        begin.elapsed().as_secs_f64()
    );
    if failed.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
