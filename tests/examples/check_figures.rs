//! How long `slice admin check` takes for many files, what memory it uses, and how long `--repair` takes for some that are
//! damaged: the figures of docs/operations.md. `SLICE_BIN=target/release/slice cargo run -p slice-tests --example check_figures --
//! [FILES [DAMAGED]]`. Needs `/usr/bin/time` (GNU).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement may stop at the first surprise"
)]

#[path = "../tests/repair/damage.rs"]
#[allow(dead_code, reason = "not every damage is measured")]
mod damage;

use damage::Stores;
use futures_util::stream::{self, StreamExt};
use slice_load::Client;
use slice_load::client::Fh;
use slice_proto::ids::FileId;
use slice_proto::nfs3::{CreateHow, Sattr3, StableHow};
use slice_tests::ensemble::{Ensemble, Layout, Options, Policy};
use slice_tests::wire::Expect;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Instant;

/// Files of a directory.
const IN_DIR: usize = 1000;
/// One file of so many has bytes, and one of so many of them goes beyond its small-file server.
const BYTES_EVERY: usize = 2;
const LARGE_EVERY: usize = 64;
/// Calls at once.
const AT_ONCE: usize = 64;

/// Makes `IN_DIR` files in a directory of their own; their ids.
async fn fill(c: &Client, root: &Fh, nth: usize) -> (FileId, Vec<FileId>) {
    let dir = c.mkdir(root, format!("d{nth}").as_bytes(), Sattr3::default()).await.good().object.unwrap();
    let id = c.getattr(&dir).await.good().fileid;
    let make = async |i: usize| {
        let made = c.create(&dir, format!("f{i}").as_bytes(), CreateHow::Unchecked(Sattr3::default())).await;
        let made = made.good();
        let fh = made.object.unwrap();
        if i.is_multiple_of(BYTES_EVERY) {
            let len = if i.is_multiple_of(BYTES_EVERY * LARGE_EVERY) { 100 << 10 } else { 1000 };
            c.write(&fh, 0, &vec![7; len], StableHow::FileSync).await.good();
        }
        match made.attr {
            Some(attr) => attr.fileid,
            None => c.getattr(&fh).await.good().fileid,
        }
    };
    let files = stream::iter((0..IN_DIR).map(make)).buffered(AT_ONCE).collect().await;
    (id, files)
}

/// Runs the check, and says how long it took and what memory it used.
fn timed(ensemble: &Ensemble, what: &str, args: &[&str]) {
    let begun = Instant::now();
    let mut command = Command::new("/usr/bin/time");
    command.args(["-f", "%M KiB resident at most, %U s user"]).arg(ensemble.binary());
    let said = command.args(["admin", "check", "--data"]).arg(ensemble.data()).args(args).output().unwrap();
    let wall = begun.elapsed();
    let out = String::from_utf8_lossy(&said.stdout);
    let last: Vec<&str> = out.lines().rev().take(2).collect();
    let err = String::from_utf8_lossy(&said.stderr);
    println!("{what}: {:.1} s wall; {}; {}", wall.as_secs_f64(), err.replace('\n', " "), last.join("; "));
}

fn main() {
    let number = |n, or| std::env::args().nth(n).map_or(or, |a| a.parse().expect("a number"));
    let (files, damaged) = (number(1, 300_000), number(2, 300));
    let mut options = Options::new(Policy::Hash, Layout::OneProcess);
    options.dirservers = 2;
    let mut ensemble = Ensemble::start("check-figures", options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let begun = Instant::now();
    let dirs = tokio::task::LocalSet::new().block_on(&runtime, async {
        let c = Client::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, ensemble.port()))).await.unwrap();
        let root = c.mnt("/").await.unwrap().root;
        let mut dirs = Vec::new();
        for nth in 0..files / IN_DIR {
            dirs.push(fill(&c, &root, nth).await);
        }
        dirs
    });
    println!("{} files made in {:.0} s", dirs.len() * IN_DIR, begun.elapsed().as_secs_f64());
    timed(&ensemble, "check, clean", &[]);
    ensemble.stop().unwrap();
    let stores = Stores::open(ensemble.data());
    for nth in 0..damaged {
        let (dir, files) = &dirs[nth % dirs.len()];
        // Each damage takes another file of its directory: one with bytes, then one without.
        let at = nth / dirs.len() * 4;
        match nth % 4 {
            0 => stores.set_size(files[at + 2], 500),
            1 => stores.set_nlink(files[at + 1], 7),
            2 => stores.rename_away(*dir, &format!("f{}", at + 3)),
            _ => stores.delete_attr(files[at + 3]),
        }
    }
    stores.close();
    ensemble.restart().unwrap();
    timed(&ensemble, "check, damaged", &[]);
    timed(&ensemble, "check --repair", &["--repair"]);
    timed(&ensemble, "check, again", &[]);
}
