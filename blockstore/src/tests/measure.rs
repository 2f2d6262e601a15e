//! Figures behind decisions; run by hand: `cargo test --release -p slice-blockstore measure -- --ignored --nocapture`.

use super::harness::*;
use slice_proto::ids::{Epoch, FileId};
use slice_proto::nfs3::{Proc3, ReadArgs, StableHow, WriteArgs};
use std::time::Instant;

const F: FileId = FileId(3);
const MIB: u64 = 1 << 20;

#[test]
#[ignore = "a measurement, not a check"]
fn a_call() {
    run(async || {
        let h = Harness::new(|_| true).await;
        let fh = h.handle(F);
        for len in [4096usize, 16 << 10, 64 << 10, 256 << 10, 1 << 20] {
            let n = ((64 << 20) / len).min(4096) as u64;
            let data = vec![1; len];
            let args = |i: u64| WriteArgs {
                file: &fh,
                offset: MIB + (i * len as u64) % (64 * MIB),
                count: len as u32,
                stable: StableHow::Unstable,
                data: &data,
            };
            for what in ["fresh", "again"] {
                let records: Vec<_> =
                    (0..n).map(|i| h.nfs_record(Proc3::Write, &args(i), Epoch(1))).collect();
                let start = Instant::now();
                for record in records {
                    send(h.node(), record).await.unwrap();
                }
                println!("WRITE {len:>8} {what}: {:8.1} us", start.elapsed().as_secs_f64() * 1e6 / n as f64);
            }
            let args = |i: u64| ReadArgs {
                file: &fh,
                offset: MIB + (i * len as u64) % (64 * MIB),
                count: len as u32,
            };
            let peer = slice_rpc::service::Peer { addr: ([0, 0, 0, 0], 0).into(), proved: None };
            let records: Vec<_> = (0..n).map(|i| h.nfs_record(Proc3::Read, &args(i), Epoch(1))).collect();
            let start = Instant::now();
            for record in records {
                let mut reply = slice_rpc::service::Message::default();
                use slice_rpc::service::Service;
                assert!(matches!(
                    h.node().call(&peer, record, &mut reply),
                    slice_rpc::service::Handled::Done
                ));
            }
            println!("READ  {len:>8}      : {:8.1} us", start.elapsed().as_secs_f64() * 1e6 / n as f64);
            let start = Instant::now();
            for _ in 0..1000 {
                tokio::task::spawn_blocking(|| ()).await.unwrap();
            }
            println!("pool hop            : {:8.1} us", start.elapsed().as_secs_f64() * 1e6 / 1000.0);
        }
        let start = Instant::now();
        h.commit(F).await.unwrap();
        println!("COMMIT: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
        for n in [1u64, 8] {
            let start = Instant::now();
            for i in 0..200 / n {
                let mut all = Vec::new();
                for j in 0..n {
                    let data = [1; 4096];
                    let args = WriteArgs {
                        file: &fh,
                        offset: MIB + (i * n + j) * 4096,
                        count: 4096,
                        stable: StableHow::FileSync,
                        data: &data,
                    };
                    let (record, node) = (h.nfs_record(Proc3::Write, &args, Epoch(1)), h.node().clone());
                    all.push(tokio::task::spawn_local(async move { send(&node, record).await.unwrap() }));
                }
                for one in all {
                    one.await.unwrap();
                }
            }
            println!("stable 4 KiB, {n} at once: {:.0} us each", start.elapsed().as_secs_f64() * 1e6 / 200.0);
        }
        let start = Instant::now();
        for i in 0..500u64 {
            h.write(FileId(100 + i), 1, MIB, &[1; 4096], StableHow::Unstable).await.unwrap();
        }
        println!("first write of an object: {:.0} us", start.elapsed().as_secs_f64() * 1e6 / 500.0);
    });
}
