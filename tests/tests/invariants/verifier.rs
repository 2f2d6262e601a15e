//! I7: what is not committed may be lost with a server; then the verifier tells, and the client sends it again.

use slice_load::Client;
use slice_load::client::Fh;
use slice_proto::nfs3::{StableHow, Verifier};
use slice_tests::ensemble::{Ensemble, Layout, Policy};
use slice_tests::wire::content::{THRESHOLD, UNIT, pattern, read_all, write_all};
use slice_tests::wire::stage::create;
use slice_tests::wire::{self, Expect};

use super::{check, connect, kill_all, root, start};

/// What is written: below the threshold, across it, and over several storage nodes.
const LEN: usize = 3 * UNIT as usize + 4321;

/// The verifiers of all parts: they may differ where a server that was restarted before is met for the first time.
async fn write(c: &Client, file: &Fh, round: u64) -> Vec<Verifier> {
    write_all(c, file, 0, &pattern(round, 0, LEN), StableHow::Unstable).await
}

/// As a client does: until WRITE and COMMIT agree. That it ends is half of the claim.
async fn settle(c: &Client, file: &Fh, round: u64) {
    for attempt in 0..3 {
        let all = write_all(c, file, 0, &pattern(round, 0, LEN), StableHow::Unstable).await;
        let committed = c.commit(file, 0, 0).await.good().verf;
        if all.iter().all(|v| *v == committed) {
            println!("settled after {} attempts", attempt + 1);
            assert!(read_all(c, file, 0, LEN as u64 + 10).await == pattern(round, 0, LEN));
            return;
        }
    }
    panic!("WRITE and COMMIT never agree: a client would write for ever");
}

/// Servers of `role` die between WRITE and COMMIT.
fn killed(name: &str, role: &str) {
    let ensemble = start(name, Policy::Hash, Layout::Separate);
    wire::run(async {
        for round in 1..4 {
            let c = connect(ensemble.port()).await;
            let file = create(&c, &root(&c).await, &format!("f{round}"), 0o644).await;
            let before = write(&c, &file, round).await;
            assert!(kill_all(&ensemble, role) > 0, "no {role} runs");
            // The µproxy's own end breaks the connection; the others are waited for.
            let c = if role == "proxy" { connect(ensemble.port()).await } else { c };
            let committed = c.commit(&file, 0, 0).await.good().verf;
            assert!(
                !before.contains(&committed),
                "round {round}: the {role}s are gone, and the client is not told"
            );
            settle(&c, &file, round + 100).await;
        }
    });
    check(&ensemble);
}

#[test]
fn a_killed_storage_node_changes_it() {
    killed("verifier-block", "blockstore");
}

#[test]
fn a_killed_smallfile_server_changes_it() {
    killed("verifier-small", "smallfile");
}

#[test]
fn a_killed_proxy_changes_it() {
    killed("verifier-proxy", "proxy");
}

/// Writes after the restart must not hide it from the COMMIT that covers those before.
#[test]
fn later_writes_do_not_hide_a_restart() {
    let ensemble = start("verifier-later", Policy::Hash, Layout::Separate);
    wire::run(async {
        let c = connect(ensemble.port()).await;
        let top = root(&c).await;
        for (i, role) in ["blockstore", "smallfile"].into_iter().enumerate() {
            let (file, other) = (
                create(&c, &top, &format!("f{i}"), 0o644).await,
                create(&c, &top, &format!("g{i}"), 0o644).await,
            );
            let before = write(&c, &file, 1).await;
            assert!(kill_all(&ensemble, role) > 0, "no {role} runs");
            // Another file finds the new servers first, and is committed with them.
            settle(&c, &other, 2).await;
            // The same file is written again, in part.
            let at = if role == "blockstore" { UNIT } else { 0 };
            c.write(&file, at, b"again", StableHow::Unstable).await.good();
            let committed = c.commit(&file, 0, 0).await.good().verf;
            assert!(!before.contains(&committed), "the {role}s' restart is hidden");
            settle(&c, &file, 3).await;
        }
    });
    check(&ensemble);
}

/// Directory servers hold no data: their death loses nothing, and asks nobody to write again.
#[test]
fn a_killed_dirserver_does_not_change_it() {
    let ensemble = start("verifier-dir", Policy::Hash, Layout::Separate);
    wire::run(async {
        let c = connect(ensemble.port()).await;
        let file = create(&c, &root(&c).await, "f", 0o644).await;
        let before = write(&c, &file, 1).await;
        assert!(kill_all(&ensemble, "dirserver") > 0, "no dirserver runs");
        let committed = c.commit(&file, 0, 0).await.good().verf;
        assert!(before.iter().all(|v| *v == committed));
        assert!(read_all(&c, &file, 0, LEN as u64).await == pattern(1, 0, LEN));
        assert_eq!(c.getattr(&file).await.good().size, LEN as u64);
    });
    check(&ensemble);
}

/// Everything dies: the same from a client's side.
fn everything(name: &str, layout: Layout) {
    let mut ensemble: Ensemble = start(name, Policy::Mkdir, layout);
    let (file, before) = wire::run(async {
        let c = connect(ensemble.port()).await;
        let file = create(&c, &root(&c).await, "f", 0o644).await;
        c.write(&file, 0, &pattern(9, 0, THRESHOLD as usize), StableHow::FileSync).await.good();
        (file, write(&c, &file, 1).await)
    });
    ensemble.kill();
    ensemble.restart().unwrap();
    wire::run(async {
        let c = connect(ensemble.port()).await;
        assert!(!before.contains(&c.commit(&file, 0, 0).await.good().verf));
        settle(&c, &file, 2).await;
    });
    check(&ensemble);
}

#[test]
fn everything_killed_changes_it_one_process() {
    everything("verifier-all", Layout::OneProcess);
}

#[test]
fn everything_killed_changes_it_separate() {
    everything("verifier-all-separate", Layout::Separate);
}
