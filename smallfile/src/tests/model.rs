//! Random sequences of everything, with crashes, against an image in memory.

use super::harness::{Rig, SMALL, file, run};
use proptest::prelude::*;
use slice_proto::ids::FileId;
use slice_proto::nfs3::{NfsStat3, StableHow, Verifier};
use slice_proto::peer::PrivateStatus;
use slice_proto::placement::THRESHOLD;
use std::collections::BTreeSet;

const LIMIT: usize = THRESHOLD as usize;

#[derive(Debug, Clone)]
enum Step {
    Write { offset: usize, len: usize, fill: u8, stable: bool },
    Late { offset: usize, len: usize },
    Commit,
    Truncate { size: u64 },
    Extend { size: u64, durable: bool },
    Read { offset: usize, count: usize },
    Purge,
    Crash,
    Restart,
}

fn place() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => 0..LIMIT,
        1 => (0..8usize).prop_map(|b| b * 8_192),
        1 => (1..8usize).prop_map(|b| b * 8_192 - 1),
        1 => 0..200usize,
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![2 => 0..300usize, 2 => 0..10_000usize, 1 => 0..LIMIT, 1 => Just(8_192usize)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (place(), length(), 1u8.., prop::bool::weighted(0.2))
            .prop_map(|(offset, len, fill, stable)| Step::Write { offset, len, fill, stable }),
        1 => (place(), length()).prop_map(|(offset, len)| Step::Late { offset, len }),
        5 => Just(Step::Commit),
        3 => prop_oneof![place().prop_map(|p| p as u64), Just(THRESHOLD), Just(THRESHOLD + 9)]
            .prop_map(|size| Step::Truncate { size }),
        2 => (prop_oneof![place().prop_map(|p| p as u64), Just(THRESHOLD + 9)], any::<bool>())
            .prop_map(|(size, durable)| Step::Extend { size, durable }),
        6 => (place(), length()).prop_map(|(offset, count)| Step::Read { offset, count }),
        1 => Just(Step::Purge),
        2 => Just(Step::Crash),
        1 => Just(Step::Restart),
    ]
}

/// A file as its caller may expect it.
struct Model {
    file: FileId,
    epoch: u64,
    /// As it reads now; zeros behind the size.
    live: Vec<u8>,
    size: usize,
    beyond: bool,
    /// As it certainly reads after a crash.
    durable: Vec<u8>,
    durable_size: usize,
    durable_beyond: bool,
    /// Per byte, what uncommitted writes have put there since it was last durable.
    maybe: Vec<BTreeSet<u8>>,
}

impl Model {
    fn new(n: u64) -> Self {
        Self {
            file: file(n),
            epoch: 1,
            live: vec![0; LIMIT],
            size: 0,
            beyond: false,
            durable: vec![0; LIMIT],
            durable_size: 0,
            durable_beyond: false,
            maybe: vec![BTreeSet::new(); LIMIT],
        }
    }

    fn committed(&mut self) {
        self.durable.clone_from(&self.live);
        (self.durable_size, self.durable_beyond) = (self.size, self.beyond);
        self.maybe.iter_mut().for_each(BTreeSet::clear);
    }

    fn write(&mut self, offset: usize, len: usize, fill: u8) {
        let place = |v: &mut Vec<u8>| v[offset..offset + len].fill(fill);
        place(&mut self.live);
        self.maybe[offset..offset + len].iter_mut().for_each(|m| {
            m.insert(fill);
        });
        if len > 0 {
            self.size = self.size.max(offset + len);
        }
    }

    fn truncate(&mut self, size: u64) {
        let cut = (size as usize).min(LIMIT);
        self.live[cut..].fill(0);
        self.durable[cut..].fill(0);
        self.maybe[cut..].iter_mut().for_each(BTreeSet::clear);
        (self.size, self.durable_size) = (cut, cut);
        (self.beyond, self.durable_beyond) = (size > THRESHOLD, size > THRESHOLD);
        self.epoch += 1;
    }

    fn extend(&mut self, size: u64, durable: bool) {
        let at_least = (size as usize).min(LIMIT);
        self.size = self.size.max(at_least);
        self.beyond |= size > THRESHOLD;
        if durable {
            self.durable_size = self.durable_size.max(at_least);
            self.durable_beyond |= size > THRESHOLD;
        }
    }

    fn want(&self, offset: usize, count: usize) -> (Vec<u8>, bool) {
        let size = if self.beyond { LIMIT } else { self.size };
        let end = (offset + count).min(size).max(offset);
        (self.live[offset..end].to_vec(), !self.beyond && offset + count >= size)
    }

    /// The server has crashed: what it shows now must be durable, or have been written since; it is the truth from now on.
    fn after_crash(&mut self, got: &[u8], size: usize, beyond: bool) {
        assert!(
            (self.durable_size..=self.size).contains(&size),
            "{size} {} {}",
            self.durable_size,
            self.size
        );
        assert!(beyond == self.durable_beyond || beyond == self.beyond);
        for (i, byte) in got.iter().enumerate() {
            let fine = *byte == self.durable[i] || self.maybe[i].contains(byte);
            assert!(fine, "byte {i} is {byte}: not {} and never written since", self.durable[i]);
        }
        self.live.fill(0);
        self.live[..got.len()].copy_from_slice(got);
        (self.size, self.beyond) = (size, beyond);
        self.committed();
    }
}

async fn look(rig: &mut Rig, m: &mut Model) {
    let info = rig.stat(m.file).await;
    let (size, beyond) = info.map_or((0, false), |i| (i.size as usize, i.beyond));
    let got = rig.read(m.file, 0, LIMIT as u32).await.unwrap().0;
    m.after_crash(&got, size, beyond);
}

async fn play(steps: Vec<(usize, Step)>) {
    let mut rig = Rig::new(SMALL).await;
    let mut models: Vec<Model> = (0..4).map(Model::new).collect();
    let mut gone = Vec::new();
    let mut next = 4;
    let mut verifier: Option<Verifier> = None;
    for (which, step) in steps {
        let m = &mut models[which];
        let mut seen = None;
        match step {
            Step::Write { offset, len, fill, stable } => {
                let len = len.min(LIMIT - offset);
                let how = if stable { StableHow::FileSync } else { StableHow::Unstable };
                let data = vec![fill; len];
                let (committed, verf) = rig.write(m.file, m.epoch, offset as u64, &data, how).await.unwrap();
                m.write(offset, len, fill);
                if committed == StableHow::FileSync {
                    // Nothing of the object is left out.
                    m.committed();
                }
                seen = Some(verf);
            }
            Step::Late { offset, len } => {
                let len = len.min(LIMIT - offset);
                let late =
                    rig.write(m.file, m.epoch - 1, offset as u64, &vec![255; len], StableHow::FileSync).await;
                let info = rig.stat(m.file).await;
                if info.is_some_and(|i| i.epoch.0 == m.epoch) {
                    assert_eq!(late, Err(PrivateStatus::Fenced as u32));
                } else {
                    // Nothing of this epoch was seen here yet, or it was lost with the crash: then it is not late.
                    late.unwrap();
                    m.write(offset, len, 255);
                    m.committed();
                }
            }
            Step::Commit => {
                seen = Some(rig.commit(m.file).await.unwrap());
                m.committed();
            }
            Step::Truncate { size } => {
                assert_eq!(rig.truncate(m.file, m.epoch + 1, size).await, (0, m.epoch + 1));
                m.truncate(size);
            }
            Step::Extend { size, durable } => {
                assert_eq!(rig.extend(m.file, m.epoch, size, durable).await.0, 0);
                m.extend(size, durable);
            }
            Step::Read { offset, count } => {
                let got = rig.read(m.file, offset as u64, count as u32).await.unwrap();
                assert!(got == m.want(offset, count), "READ {offset} {count}");
            }
            Step::Purge => {
                assert_eq!(rig.purge(m.file, m.epoch + 1).await, (0, m.epoch + 1));
                gone.push(m.file);
                *m = Model::new(next);
                next += 1;
            }
            Step::Crash => {
                rig.crash();
                rig.start();
                verifier = None;
                for m in &mut models {
                    look(&mut rig, m).await;
                }
            }
            Step::Restart => {
                rig.shutdown().await;
                rig.start();
                verifier = None;
                for m in &mut models {
                    assert_eq!(rig.read(m.file, 0, LIMIT as u32).await.unwrap(), m.want(0, LIMIT));
                    m.committed();
                }
            }
        }
        if let Some(seen) = seen {
            assert_eq!(*verifier.get_or_insert(seen), seen, "the verifier changes with a new life only");
        }
    }
    for m in &models {
        assert_eq!(rig.read(m.file, 0, LIMIT as u32).await.unwrap(), m.want(0, LIMIT));
    }
    for f in gone {
        assert_eq!(rig.read(f, 0, 1).await, Err(NfsStat3::STALE.0));
    }
    // What the segments count as in use is what the map points to.
    rig.shutdown().await;
    rig.start();
    for tries in 0.. {
        let used: u64 = rig.list(FileId(0), 1_000).await.iter().map(|o| o.used).sum();
        let counted: u64 = rig.server().node().segments.live().values().sum();
        if counted == used {
            break;
        }
        // The cleaner is at work: what it copies counts twice until that is durable.
        assert!(tries < 100, "{counted} bytes counted, {used} in use");
        rig.write(file(999), 1, 0, b"x", StableHow::FileSync).await.unwrap();
    }
}

/// Each takes a good part of a second, most of it in opening stores; `PROPTEST_CASES` asks for more.
const CASES: u32 = 24;

fn proptest_config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES);
    ProptestConfig { cases, max_shrink_iters: 200, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(proptest_config())]

    #[test]
    fn committed_bytes_survive_everything(steps in prop::collection::vec((0usize..4, step()), 1..120)) {
        run(play(steps));
    }
}
