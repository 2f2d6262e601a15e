//! Every target on what is right, on what is kept in `corpus/`, and on random mutations of both.
//!
//! `SLICE_FUZZ_SEED` draws the same mutations again, `SLICE_FUZZ_SECONDS` says for how long each target runs. An input that fails
//! is printed in hexadecimal: kept as a file under `corpus/TARGET/` it is run for ever.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop at the first surprise"
)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use slice_fuzz::whole::ask_proxy;
use slice_fuzz::{TARGETS, seeds};

/// Longest input that is made: longer ones only repeat.
const LONGEST: usize = 4096;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

/// What is right for a target, and what is kept of findings.
fn inputs(target: &str) -> Vec<Vec<u8>> {
    let mut all = seeds::of(target);
    assert!(!all.is_empty(), "nothing to begin with");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut kept: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().path()).collect();
    kept.sort();
    all.extend(kept.into_iter().map(|path| std::fs::read(path).unwrap()));
    all
}

/// Another input, made of those there are.
fn mutated(rng: &mut StdRng, all: &[Vec<u8>]) -> Vec<u8> {
    let mut data = all.choose(rng).unwrap().clone();
    for _ in 0..rng.random_range(1..5) {
        let at = rng.random_range(0..=data.len());
        match rng.random_range(0..8) {
            // XDR is made of words: lengths, kinds, flags.
            0 | 1 if data.len() >= 4 => {
                let at = 4 * rng.random_range(0..data.len() / 4) + usize::from(rng.random_bool(0.5));
                let words = [0, 1, 2, 3, 4, 63, 64, 65, 255, 0xffff, 0x7fff_ffff, 0x8000_0000, u32::MAX];
                let word = words.choose(rng).unwrap().to_be_bytes();
                data.iter_mut().skip(at).zip(word).for_each(|(to, from)| *to = from);
            }
            2 if at < data.len() => data[at] ^= 1 << rng.random_range(0..8),
            3 if at < data.len() => data[at] = rng.random(),
            4 => data.truncate(at),
            5 => {
                let mut more = vec![0; rng.random_range(0..40)];
                rng.fill_bytes(&mut more);
                data.splice(at..at, more);
            }
            6 => {
                let to = rng.random_range(at..=data.len());
                data.drain(at..to);
            }
            _ => {
                let other = all.choose(rng).unwrap();
                let from = rng.random_range(0..=other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
        }
        data.truncate(LONGEST);
    }
    data
}

fn run(target: &str) {
    let (_, function) = TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
    let seed = number("SLICE_FUZZ_SEED").unwrap_or_else(rand::random);
    println!("{target}: SLICE_FUZZ_SEED={seed}");
    let all = inputs(target);
    let try_it = |data: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| function(data))) {
            let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
            println!("{target} fails on {hex}");
            resume_unwind(panic);
        }
    };
    all.iter().for_each(|data| try_it(data));
    let (mut rng, mut tries) = (StdRng::seed_from_u64(seed), 0_u64);
    let (began, length) = (Instant::now(), Duration::from_secs(number("SLICE_FUZZ_SECONDS").unwrap_or(2)));
    while began.elapsed() < length {
        try_it(&mutated(&mut rng, &all));
        tries += 1;
    }
    println!("{target}: {} inputs kept, {tries} made in {length:?}", all.len());
}

/// Else mutation would begin with what is refused at the door.
#[test]
fn what_the_whole_ensemble_begins_with_is_executed() {
    let seeds = seeds::of("proxy");
    let records = seeds.iter().filter(|seed| seed[0] == 1).map(|seed| ask_proxy(&seed[1..]));
    let answers: Vec<_> = records.map(|answer| answer.expect("a right call is not answered")).collect();
    // The exclusive CREATE's name is still there when READDIR is asked.
    let listed = answers.iter().any(|answer| answer.windows(8).any(|bytes| bytes == b"\0\0\0\x01g\0\0\0"));
    assert!(listed, "no listing has the name that was made");
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_tested() {
            assert_eq!(TARGETS.map(|(name, _)| name), [$(stringify!($name)),*]);
        }
    };
}

targets! {
    rpc_message framing nfs_args nfs_results mount portmap handle trailer peer table records intent_log configuration files proxy
    dirserver
}
