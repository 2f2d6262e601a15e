//! NFSv3 as RFC 1813 has it and a stock client expects it (DESIGN §12): every claim against every kind of ensemble.
//!
//! A test is named `ENSEMBLE::FILE::CLAIM`. Written from the RFC and DESIGN, not from the code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop at the first surprise"
)]

mod attributes;
mod create;
mod data;
mod directories;
mod exports;
mod fs;
mod links;
mod lookup;
mod mount;
mod races;
mod remove;
mod rename;
mod rpc;
mod squash;
mod users;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use slice_tests::ensemble::{Layout, Policy};
use slice_tests::wire::hosted::{Hosted, Plan};
use slice_tests::wire::{self, Stage};

/// Something that must be so, tried on a directory of its own.
pub struct Claim {
    /// `FILE::CLAIM`.
    pub name: &'static str,
    /// Fails by a panic.
    pub run: fn(Stage) -> Pin<Box<dyn Future<Output = ()>>>,
}

/// The claims of a file: the functions `async fn(Stage)` that it names.
#[macro_export]
macro_rules! claims {
    ($($claim:ident),* $(,)?) => { $crate::claims!(CLAIMS: $($claim),*); };
    ($list:ident: $($claim:ident),* $(,)?) => {
        pub const $list: &[$crate::Claim] = &[$($crate::Claim {
            name: concat!(module_path!(), "::", stringify!($claim)),
            run: |stage| Box::pin($claim(stage)),
        }),*];
    };
}

const ALL: &[&[Claim]] = &[
    rpc::CLAIMS,
    mount::CLAIMS,
    fs::CLAIMS,
    lookup::CLAIMS,
    create::CLAIMS,
    remove::CLAIMS,
    rename::CLAIMS,
    links::CLAIMS,
    attributes::CLAIMS,
    data::CLAIMS,
    directories::CLAIMS,
    users::CLAIMS,
    races::CLAIMS,
];

/// A plan without squashing.
const fn plan(name: &'static str, policy: Policy, layout: Layout, several: bool) -> Plan {
    Plan { name, policy, layout, several, root_squash: false, flags: &[] }
}

const PLANS: [Plan; 6] = [
    plan("partition_1", Policy::Partition, Layout::OneProcess, false),
    plan("mkdir_3", Policy::Mkdir, Layout::OneProcess, true),
    plan("hash_3", Policy::Hash, Layout::OneProcess, true),
    plan("hash_1", Policy::Hash, Layout::OneProcess, false),
    plan("mkdir_3_separate", Policy::Mkdir, Layout::Separate, true),
    plan("hash_3_separate", Policy::Hash, Layout::Separate, true),
];

/// Exports as they are by default.
const SQUASHED: Plan = Plan { root_squash: true, ..plan("squashed", Policy::Hash, Layout::OneProcess, true) };

const READ_ONLY: Plan =
    Plan { flags: &["--read-only"], ..plan("read_only", Policy::Hash, Layout::OneProcess, true) };

const ANONYMOUS: Plan = Plan {
    flags: &["--all-squash", "--anon-uid", "77", "--anon-gid", "78", "--root-mode", "777"],
    root_squash: true,
    ..plan("anonymous", Policy::Mkdir, Layout::OneProcess, true)
};

fn trials(plan: Plan, claims: &[&'static [Claim]]) -> Vec<Trial> {
    let hosted = Hosted::new(plan);
    let trial = |claim: &'static Claim| {
        let hosted = Arc::clone(&hosted);
        let short = claim.name.trim_start_matches("protocol::");
        Trial::test(format!("{}::{short}", plan.name), move || {
            let at = hosted.at()?;
            let directory = short.replace("::", "-");
            let test = async {
                let stage = Stage::set(at.nfs, Some(at.portmap), plan, &directory).await;
                (claim.run)(stage).await;
            };
            Ok(wire::caught(|| wire::run(test))?)
        })
    };
    claims.iter().flat_map(|file| file.iter()).map(trial).collect()
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let mut all: Vec<_> = PLANS.iter().flat_map(|plan| trials(*plan, ALL)).collect();
    all.extend(trials(SQUASHED, &[squash::CLAIMS]));
    all.extend(trials(READ_ONLY, &[exports::READ_ONLY]));
    all.extend(trials(ANONYMOUS, &[exports::ANONYMOUS]));
    libtest_mimic::run(&arguments, all).exit_code()
}
