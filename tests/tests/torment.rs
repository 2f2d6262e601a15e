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

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::process::Signal;
use slice_load::Client;
use slice_load::client::Fh;
use slice_proto::nfs3::{NfsStat3, Res3, Sattr3, StableHow};
use slice_tests::ensemble::{Ensemble, Layout, Options, Policy};
use slice_tests::stock::Length;
use slice_tests::torment::work::{LIMIT, TAKE_OVER_AFTER, check, run};
use slice_tests::torment::{LOOK, SmallDisk, Tormentor, Work, number};
use slice_tests::wire::Expect;
use slice_tests::wire::content::{MOST, pattern, read_all};
use slice_tests::wire::stage::create;

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

/// Longer than a server is heard of before it is called silent (5 s), than a coordinator is asked (10 s); in a full run than a
/// connection may be silent (60 s).
fn long_stop() -> Duration {
    Duration::from_secs(Length::get().pick(12, 25, 75))
}

/// A machine that stands still for long is no dead one, and none that comes back with old beliefs does harm: of each role one server is
/// stopped, all at once, until everyone has given them up; then the µproxy.
#[test]
fn servers_that_stand_still_for_long_go_on() {
    let seed = number("SLICE_TORMENT_SEED").unwrap_or_else(rand::random);
    println!("SLICE_TORMENT_SEED={seed}");
    let ensemble = start("standing", Policy::Hash);
    run(LIMIT, async {
        let mut work = Work::begin(&ensemble, seed).await;
        for roles in [&["dirserver", "smallfile", "blockstore", "coordinator"][..], &["proxy"]] {
            work.beside(async |_, progress| {
                progress.further(2).await;
                let all: Vec<_> = roles.iter().map(|role| ensemble.server(role, 0).unwrap()).collect();
                all.iter().for_each(|server| ensemble.signal(server, Signal::STOP).unwrap());
                tokio::time::sleep(long_stop()).await; // How long they stand still is what is tested.
                all.iter().for_each(|server| ensemble.signal(server, Signal::CONT).unwrap());
                progress.further(2).await;
                // They are the same as before: nobody was put in their place.
                let now = ensemble.servers().unwrap();
                assert!(all.iter().all(|server| now.contains(server)), "{all:?} are not among {now:?}");
            })
            .await;
            work.verify().await;
            println!("{roles:?}: {}", work.figures());
        }
    });
    check(&ensemble);
}

/// DESIGN §11: a disk that fills up is told by the WRITE, never by the COMMIT; nothing acknowledged is lost; who removes files
/// can write again. One storage node's disk is full: that is enough for every long file.
#[test]
fn a_full_disk_is_told_by_the_write_and_space_comes_back() {
    let mut ensemble = start("full", Policy::Hash);
    ensemble.stop().unwrap();
    // The node keeps 32 MiB of it for truncations and removals.
    let Some(disk) = SmallDisk::under(&ensemble.data().join("blockstore-0"), 50 << 20) else { return };
    ensemble.restart().unwrap();
    run(LIMIT, async {
        let c = Client::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, ensemble.port()))).await.unwrap();
        let top = c.mnt("/").await.unwrap().root;
        let mut files = Vec::new();
        while !fill(&c, &top, &mut files).await {
            assert!(files.len() < 100, "18 MiB for a third of the bytes take {} files of 4 MiB", files.len());
        }
        assert!(files.len() > 4, "full after {} files", files.len());
        println!("full within file {}", files.len());
        for file in &files {
            file.verify(&c).await;
        }
        // What is short still fits, names do, and so do removals.
        let short = create(&c, &top, "short", 0o644).await;
        c.write(&short, 0, b"short", StableHow::FileSync).await.good();
        let kept = files.split_off(files.len() / 2);
        for (n, file) in files.iter().enumerate() {
            c.remove(&top, format!("f{n}").as_bytes()).await.good();
            c.getattr(&file.handle).await.fails(NfsStat3::STALE);
        }
        let again = create(&c, &top, "again", 0o644).await;
        let data = pattern(1, 0, FILE);
        // Bytes of what was removed go in the background: no event tells when.
        let mut at = 0;
        while at < FILE {
            match c.write(&again, at as u64, &data[at..FILE.min(at + MOST)], StableHow::Unstable).await {
                Ok(Res3::Ok(ok)) => at += ok.count as usize,
                Ok(Res3::Err(NfsStat3::NOSPC, _)) => tokio::time::sleep(LOOK).await,
                other => panic!("{other:?}"),
            }
        }
        c.commit(&again, 0, 0).await.good();
        assert!(read_all(&c, &again, 0, FILE as u64).await == data);
        // The later part of a WRITE that found no space may stand at another node, beyond the size (README). Cutting the file takes it.
        if let Some(last) = kept.last() {
            let size = Sattr3 { size: Some(last.len as u64), ..Sattr3::default() };
            c.setattr(&last.handle, size, None).await.good();
        }
        for file in &kept {
            file.verify(&c).await;
        }
    });
    check(&ensemble);
    ensemble.stop().unwrap();
    drop(disk);
}

/// Bytes of a file that crosses every storage node.
const FILE: usize = 4 << 20;

/// A file, and how much of it was acknowledged.
struct Filled {
    handle: Fh,
    round: u64,
    len: usize,
}

impl Filled {
    async fn verify(&self, c: &Client) {
        let got = read_all(c, &self.handle, 0, self.len as u64).await;
        assert!(got == pattern(self.round, 0, self.len), "{self:?} has lost bytes");
    }
}

impl std::fmt::Debug for Filled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "file {} of {} bytes", self.round, self.len)
    }
}

/// Writes one more file. True if the disk is full: that is told by a WRITE, and the COMMIT of what was written before is good.
async fn fill(c: &Client, top: &Fh, files: &mut Vec<Filled>) -> bool {
    let round = files.len() as u64;
    let handle = create(c, top, &format!("f{round}"), 0o644).await;
    let data = pattern(round, 0, FILE);
    let (mut len, mut full) = (0, false);
    while len < FILE && !full {
        match c.write(&handle, len as u64, &data[len..FILE.min(len + MOST)], StableHow::Unstable).await {
            Ok(Res3::Ok(ok)) => len += ok.count as usize,
            Ok(Res3::Err(NfsStat3::NOSPC, _)) => full = true,
            other => panic!("{other:?}"),
        }
    }
    c.commit(&handle, 0, 0).await.good();
    files.push(Filled { handle, round, len });
    full
}
