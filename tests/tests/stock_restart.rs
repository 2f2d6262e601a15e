//! The server is killed under a running `cp`: it waits, goes on when the server is back, and the data is right (I7, I10).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test may stop at the first surprise.

use std::time::Duration;

use slice_tests::ensemble::{Layout, Policy};
use slice_tests::guest::Spec;
use slice_tests::stock::{Length, Server, run_name};
use slice_tests::{Error, stock_suite};

/// Several reconnections, each of which the client delays by seconds.
const LIMIT: Duration = Duration::from_secs(600);

/// The copy is in the guest's memory twice: its source and the client's unwritten pages.
const MEMORY_MIB: u32 = 1024;

/// With a process a server, each role in turn; the program starts it again.
const ROLES: [&str; 5] = ["proxy", "dirserver", "smallfile", "blockstore", "coordinator"];

stock_suite!(run);

fn run(policy: Policy, layout: Layout) -> Result<(), Error> {
    let mut server = Server::start("restart", policy, layout)?;
    let mut spec = Spec::new(&run_name("restart", policy, layout)).mount(server.mount());
    spec = spec.limit(LIMIT).memory_mib(MEMORY_MIB);
    let roles = if layout == Layout::Separate { &ROLES[..] } else { &[] };
    let whole = Length::get().pick(1, 1, 3);
    let rounds = whole + roles.len();
    let script = include_str!("guest/restart.sh").replace("@ROUNDS@", &rounds.to_string());
    let mut guest = spec.boot(&script)?;
    for round in 1..=rounds {
        guest.wait_mark(&format!("going-{round}"))?;
        if round <= whole {
            // All of it, and it stays away until the copy has been seen to wait.
            server.kill();
            guest.say("killed")?;
            guest.wait_mark(&format!("waits-{round}"))?;
            server.restart()?;
        } else {
            let killed = server.kill_role(roles[round - whole - 1])?;
            guest.say(if killed { "one killed" } else { "nothing killed" })?;
        }
    }
    let outcome = guest.finish()?.check()?;
    for mark in outcome.marks.iter().filter(|mark| !mark.text.is_empty()) {
        println!("{policy}, {layout}: {} {}", mark.name, mark.text);
    }
    server.stop()
}
