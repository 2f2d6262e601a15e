//! The promises of DESIGN §5–§10 over the real wire, with servers killed under them. After every test `slice admin check`
//! finds all servers telling the same story.
//!
//! | file | invariants |
//! | --- | --- |
//! | `handles` | I1: a handle survives restart, and rename |
//! | `survive` | I3, I8: what was acknowledged as durable is there after SIGKILL of every process |
//! | `proxies` | I5, I6, I9: two µproxies on one file |
//! | `verifier` | I7: what may be lost is sent again, and no one writes for ever |
//! | `once` | I10: a retransmission gets the first answer |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop at the first surprise"
)]

mod handles;
mod once;
mod proxies;
mod survive;
mod verifier;

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use slice_load::Client;
use slice_load::client::Fh;
use slice_tests::ensemble::{Ensemble, Layout, Options, Policy, Server};
use slice_tests::wire::Expect;

/// Between two looks at something that tells nobody when it happens: a port that opens, a file that is rewritten.
const LOOK: Duration = Duration::from_millis(20);

/// Seconds in which an ensemble comes to rest after kills: intentions are taken over after 30, on a busy machine later.
const SETTLES: &str = "90";

fn start(name: &str, policy: Policy, layout: Layout) -> Ensemble {
    Ensemble::start(&format!("invariants-{name}"), Options::new(policy, layout)).unwrap()
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Connects as soon as somebody answers, as a client does whose server is restarted.
async fn connect(port: u16) -> Client {
    loop {
        if let Ok(c) = Client::connect(loopback(port)).await
            && c.null().await.is_ok()
        {
            return c;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn root(c: &Client) -> Fh {
    let root = c.mnt("/").await.unwrap().root;
    c.getattr(&root).await.good();
    root
}

/// SIGKILL to every server of a role that runs now; how many that were.
fn kill_all(ensemble: &Ensemble, role: &str) -> usize {
    let servers = ensemble.servers().unwrap();
    servers.iter().filter(|s| s.role == role && kill(ensemble, s)).count()
}

/// SIGKILL to one server of a role, unless it is down just now.
fn kill_one(ensemble: &Ensemble, role: &str, nth: usize) {
    let servers: Vec<_> = ensemble.servers().unwrap().into_iter().filter(|s| s.role == role).collect();
    kill(ensemble, &servers[nth % servers.len()]);
}

/// SIGKILL, if the process is our program and runs: another may have got the id.
fn kill(ensemble: &Ensemble, server: &Server) -> bool {
    let program = fs::read_link(format!("/proc/{}/exe", server.pid)).unwrap_or_default();
    // A rebuild meanwhile makes it "PATH (deleted)". A process that is ending has none.
    let ours =
        program.to_string_lossy().trim_end_matches(" (deleted)") == ensemble.binary().to_string_lossy();
    ours && ensemble.signal(server, Signal::KILL).is_ok()
}

/// Judges the whole ensemble.
fn check(ensemble: &Ensemble) {
    let said = Command::new(ensemble.binary())
        .args(["admin", "check", "--settle", SETTLES, "--data"])
        .arg(ensemble.data())
        .output();
    let said = said.unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "slice admin check: {}\n{text}\n{}", said.status, logs(ensemble));
}

/// The last words of every server: they go with the ensemble's directory.
fn logs(ensemble: &Ensemble) -> String {
    const LAST: usize = 4000;
    let files = fs::read_dir(ensemble.data().join("log")).into_iter().flatten().flatten();
    let mut all = fs::read_to_string(ensemble.log()).unwrap_or_default();
    for file in files {
        let text = fs::read_to_string(file.path()).unwrap_or_default();
        let from = text.char_indices().rev().nth(LAST).map_or(0, |(at, _)| at);
        all += &format!("--- {}\n{}", file.path().display(), &text[from..]);
    }
    all
}
