//! Many callers on several threads at once, with short memory and a busy cleaner.

use super::harness::{Rig, SMALL, file, run};
use rand::{Rng as _, SeedableRng, rngs::StdRng};
use slice_proto::nfs3::StableHow;
use slice_proto::peer::PrivateStatus;

const THREADS: u64 = 4;
const FILES: u64 = 8;
const STEPS: u32 = 400;

/// Each thread writes files of its own, and checks them; and all of them the one shared file, blocks of one value each, so
/// that a block of two values is one that was torn.
async fn work(mut rig: Rig, thread: u64, mut rng: StdRng) -> Vec<(u64, Vec<u8>)> {
    let shared = file(0);
    let mut mine: Vec<(u64, u64, Vec<u8>)> =
        (0..FILES).map(|n| (1 + thread * 1_000 + n, 1, Vec::new())).collect();
    let mut next = 1 + thread * 1_000 + FILES;
    for _ in 0..STEPS {
        let (n, epoch, bytes) = &mut mine[rng.random_range(0..FILES as usize)];
        match rng.random_range(0..12) {
            0..6 => {
                let (offset, len) = (rng.random_range(0..30_000), rng.random_range(1..20_000));
                let data = vec![rng.random(); len];
                let how = if rng.random_bool(0.1) { StableHow::FileSync } else { StableHow::Unstable };
                rig.write(file(*n), *epoch, offset as u64, &data, how).await.unwrap();
                bytes.resize(bytes.len().max(offset + len), 0);
                bytes[offset..offset + len].copy_from_slice(&data);
            }
            6 => {
                rig.commit(file(*n)).await.unwrap();
            }
            7 => {
                *epoch += 1;
                let size = rng.random_range(0..40_000);
                assert_eq!(rig.truncate(file(*n), *epoch, size as u64).await, (0, *epoch));
                bytes.resize(size, 0);
            }
            8 => {
                assert_eq!(rig.purge(file(*n), *epoch + 1).await.0, 0);
                (*n, *epoch) = (next, 1);
                bytes.clear();
                next += 1;
            }
            9 => {
                let block = rng.random_range(0..8u64);
                let value = vec![rng.random(); 8_192];
                match rig.write(shared, 1, block * 8_192, &value, StableHow::Unstable).await {
                    Ok(_) => {}
                    Err(why) => assert_eq!(why, PrivateStatus::Fenced as u32),
                }
                rig.commit(shared).await.unwrap();
            }
            10 => {
                let got = rig.read(shared, 0, 65_536).await.unwrap().0;
                for block in got.chunks(8_192) {
                    assert!(block.iter().all(|b| *b == block[0]), "torn");
                }
            }
            _ => {
                let got = rig.read(file(*n), 0, 65_536).await.unwrap();
                assert!(got == (bytes.clone(), true), "file {n}");
            }
        }
    }
    for (n, _, _) in &mine {
        rig.commit(file(*n)).await.unwrap();
    }
    mine.into_iter().map(|(n, _, bytes)| (n, bytes)).collect()
}

#[test]
fn threads_do_not_harm_each_other() {
    let seed: u64 = u64::from(rand::random::<u32>());
    println!("SEED={seed}");
    run(async {
        let mut rig = Rig::new(SMALL).await;
        let threads: Vec<_> = (0..THREADS)
            .map(|t| {
                let twin = rig.twin();
                std::thread::spawn(move || run(work(twin, t, StdRng::seed_from_u64(seed + t))))
            })
            .collect();
        let files: Vec<_> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
        rig.crash();
        rig.start();
        for (n, bytes) in files {
            assert!(rig.read(file(n), 0, 65_536).await.unwrap() == (bytes, true), "file {n} after a crash");
        }
    });
}
