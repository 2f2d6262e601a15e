//! Two mounts through two µproxies: what one closes, the other sees when it opens (I5).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test may stop at the first surprise.

use slice_tests::ensemble::{Layout, Policy};
use slice_tests::guest::Spec;
use slice_tests::stock::{Length, Server, run_name};
use slice_tests::{Error, stock_suite};

stock_suite!(run);

fn run(policy: Policy, layout: Layout) -> Result<(), Error> {
    let server = Server::start("two_mounts", policy, layout)?;
    let second = server.second()?;
    let rounds = Length::get().pick(1, 3, 20);
    let script = include_str!("guest/two_mounts.sh").replace("@ROUNDS@", &rounds.to_string());
    let spec = Spec::new(&run_name("two_mounts", policy, layout)).mount(server.mount()).mount(second.mount());
    spec.run(&script)?;
    server.stop()
}
