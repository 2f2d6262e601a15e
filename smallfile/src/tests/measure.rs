//! What a call costs, without a network: `cargo test --release -p slice-smallfile measure -- --ignored --nocapture`.

use super::harness::{Rig, file, handle_bytes, run};
use crate::config::Tuning;
use slice_proto::ids::Epoch;
use slice_proto::nfs3::{CommitArgs, Proc3, ReadArgs, StableHow, WriteArgs};
use slice_rpc::service::{Handled, Message, Peer, Service};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// User and system time of this process, all threads.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let ticks = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
    Duration::from_millis(ticks.map(|f| f.parse::<u64>().unwrap()).sum::<u64>() * 10)
}

fn say(what: &str, n: u64, start: Instant, before: Duration) {
    let each = |d: Duration| d.as_secs_f64() * 1e6 / n as f64;
    println!("{what:<50} {:>8.2} µs  {:>7.2} µs cpu", each(start.elapsed()), each(cpu() - before));
}

/// One call, which most often is answered on the spot.
async fn one(rig: &mut Rig, peer: &Peer, proc: Proc3, args: &impl slice_proto::xdr::Encode) {
    let record = rig.nfs_record(proc, args, Epoch(1));
    let mut reply = Message::default();
    match rig.server().call(peer, record, &mut reply) {
        Handled::Done => {}
        Handled::Later(later) => reply = later.await,
        _ => panic!("{proc:?}"),
    }
    assert!(!reply.is_empty());
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    run(async {
        let mut rig = Rig::new(Tuning::default()).await;
        let peer = Peer { addr: ([127, 0, 0, 1], 1).into(), proved: None };
        let data = vec![7; 65_536];
        const FILES: u64 = 2_000;
        let (start, c) = (Instant::now(), cpu());
        for n in 0..FILES {
            rig.write(file(n), 1, 0, &data[..4_096], StableHow::Unstable).await.unwrap();
        }
        say("4 KiB WRITE, unstable, new files", FILES, start, c);
        let (start, c) = (Instant::now(), cpu());
        for n in 0..FILES {
            rig.commit(file(n)).await.unwrap();
        }
        say("COMMIT one after the other", FILES, start, c);
        let files: Vec<_> = (0..FILES).map(|n| handle_bytes(file(n))).collect();
        let handle = |n: usize| &files[n % files.len()][..];
        for (what, count) in [("4 KiB READ", 4_096), ("1 byte READ", 1)] {
            let (start, c) = (Instant::now(), cpu());
            for n in 0..100_000 {
                one(&mut rig, &peer, Proc3::Read, &ReadArgs { file: handle(n), offset: 0, count }).await;
            }
            say(what, 100_000, start, c);
        }
        let (start, c) = (Instant::now(), cpu());
        for n in 0..20_000 {
            let args = WriteArgs {
                file: handle(n),
                offset: 0,
                count: 4_096,
                stable: StableHow::Unstable,
                data: &data[..4_096],
            };
            one(&mut rig, &peer, Proc3::Write, &args).await;
        }
        say("4 KiB WRITE, unstable, again", 20_000, start, c);
        rig.write(file(9_000), 1, 0, &data, StableHow::FileSync).await.unwrap();
        let big = handle_bytes(file(9_000));
        let (start, c) = (Instant::now(), cpu());
        for _ in 0..10_000 {
            one(&mut rig, &peer, Proc3::Read, &ReadArgs { file: &big, offset: 0, count: 65_536 }).await;
        }
        say("64 KiB READ", 10_000, start, c);
        for (what, stable, unstable_first) in [
            ("4 KiB WRITE, FILE_SYNC, 64 in flight", StableHow::FileSync, false),
            ("4 KiB WRITE + COMMIT, 64 in flight", StableHow::Unstable, true),
        ] {
            let shared = Rc::new(std::cell::RefCell::new(rig.twin()));
            let (start, c) = (Instant::now(), cpu());
            let tasks: Vec<_> = (0..64u64)
                .map(|t| {
                    let mut rig = shared.borrow().twin();
                    let data = data[..4_096].to_vec();
                    tokio::task::spawn_local(async move {
                        for n in 0..200 {
                            let f = file(t * 20 + n % 20);
                            rig.write(f, 1, 0, &data, stable).await.unwrap();
                            if unstable_first {
                                let handle = handle_bytes(f);
                                let record = rig.nfs_record(
                                    Proc3::Commit,
                                    &CommitArgs { file: &handle, offset: 0, count: 0 },
                                    Epoch(1),
                                );
                                rig.record(record).await.unwrap();
                            }
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            say(what, 64 * 200, start, c);
        }
    });
}
