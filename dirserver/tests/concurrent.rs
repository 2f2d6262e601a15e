//! Many clients at once in few directories, whose names and homes lie at several servers: whatever waits for whatever, all
//! are answered, and names, attributes, counts and links agree afterwards.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::client::Fh;
use common::rng::Rng;
use common::{Client, Cluster, run};
use futures_util::future::join_all;
use slice_proto::nfs3::{CreateHow, NfsStat3, Sattr3};
use slice_proto::table::NamePolicy;
use slice_proto::trailer::ClientId;

/// Clients at once.
const CLIENTS: u8 = 24;
/// Operations of each.
const STEPS: usize = 150;
/// Longer than any wait that ends.
const STUCK: std::time::Duration = std::time::Duration::from_secs(120);

fn seed() -> u64 {
    let given = std::env::var("SLICE_SEED").ok().and_then(|s| s.parse().ok());
    given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into())
}

/// One client's operations. Directories are found by name, as another may have moved or removed them.
async fn work(client: &Client, mut rng: Rng) {
    let root = client.root_fh();
    // What this client has ever seen: handles that may be stale by now, of files and directories alike.
    let mut seen: Vec<Fh> = vec![root.clone()];
    for _ in 0..STEPS {
        let pick = |rng: &mut Rng, seen: &[Fh]| seen[rng.index() % seen.len()].clone();
        let name = |rng: &mut Rng| format!("n{}", rng.next() % 3).into_bytes();
        let (dir, other, at, to) =
            (pick(&mut rng, &seen), pick(&mut rng, &seen), name(&mut rng), name(&mut rng));
        let done = match rng.next() % 16 {
            0..3 => {
                let how = CreateHow::Unchecked(Sattr3 { mode: Some(0o644), ..Sattr3::default() });
                client.create(&dir, &at, how).await.map(|(fh, _)| seen.push(fh))
            }
            3..5 => client.mkdir(&dir, &at, 0o777).await.map(|fh| seen.push(fh)),
            5..7 => client.remove(&dir, &at).await,
            7 => client.rmdir(&dir, &at).await,
            8..11 => client.rename(&dir, &at, &other, &to).await,
            11..13 => client.link(&other, &dir, &at).await,
            13 => client.chmod(&other, 0o777).await,
            14 => client.truncate(&other, 100_000).await,
            _ => client.lookup(&dir, &at).await.map(|(fh, _)| seen.push(fh)),
        };
        let status = done.err().unwrap_or(NfsStat3::OK);
        let broken = [NfsStat3::IO, NfsStat3::SERVERFAULT, NfsStat3::BADHANDLE, NfsStat3::JUKEBOX];
        assert!(!broken.contains(&status), "{status:?}");
        if seen.len() > 12 {
            seen.remove(1 + rng.index() % 11);
        }
    }
}

fn play(servers: usize, policy: NamePolicy) {
    let seed = seed();
    println!("SLICE_SEED={seed} {policy:?} on {servers} servers");
    run(async || {
        let c = Cluster::with_cache(servers, policy, 64 << 10).await;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|i| {
                let mut client = Client::root(&c);
                client.client = ClientId([i + 1; 16]);
                client
            })
            .collect();
        let all = clients.iter().zip(0..).map(|(client, i)| work(client, Rng::new(seed ^ (i << 32))));
        if tokio::time::timeout(STUCK, join_all(all)).await.is_err() {
            let open: Vec<_> = (0..c.len()).map(|i| c.server(i).stats().unsettled).collect();
            panic!("operations wait for each other for ever; unsettled: {open:?}");
        }
        c.settle().await;
        common::check::consistent(&c).await;
    });
}

#[test]
fn hashing_on_three() {
    play(3, NamePolicy::Hash);
}

#[test]
fn mkdir_switching_on_two() {
    play(2, NamePolicy::MkdirSwitching { affinity_ppm: 300_000 });
}

#[test]
fn partition() {
    play(1, NamePolicy::Partition);
}
