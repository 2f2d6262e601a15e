//! `slice admin check --repair`: mends what a check found, and checks again.
//!
//! ```text
//!  ┌─▶ check ── clean ─▶ done
//!  │     │ problems
//!  │   gather      looks closer at what they are about        I/O
//!  │   plan        what is to be done about each              pure
//!  └── act         each compares with what was seen, and sets
//! ```
//! A round mends at most `judge::MAX_PROBLEMS` problems, which bounds its memory; there are as many rounds as it takes.

mod act;
mod facts;
mod gather;
mod plan;
mod text;

#[cfg(test)]
mod tests;

pub use plan::Plan;

use super::ask::Servers;
use super::collect::{Options, check};
use super::error::Error;
use super::problem::{Problem, Report};
use act::{Actor, Outcome};
use plan::{Repair, plan};
use slice_proto::handle::KeyRing;
use slice_proto::secret::Identity;
use slice_proto::table::RoutingTable;
use slice_proto::trailer::ClientId;
use slice_rpc::Directory;
use std::collections::BTreeSet;

/// Rounds that may go by without a repair, because clients change what was seen.
const IDLE_ROUNDS: u32 = 3;
/// Rounds in all: ends also what would never be clean.
const MAX_ROUNDS: u32 = 1000;

/// A problem, and what is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// What is wrong.
    pub problem: Problem,
    /// What is to be done.
    pub plan: Plan,
}

/// What was mended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mended {
    /// Problems that the first look found.
    pub found: u64,
    /// Repairs done.
    pub repaired: u64,
    /// Repairs that were void when they came to be done.
    pub void: u64,
    /// Rounds of repairs.
    pub rounds: u32,
    /// The last look.
    pub report: Report,
    /// What it found, and why it is left.
    pub left: Vec<Proposal>,
}

/// What is said on the way: one line each.
pub type Say<'a> = &'a mut dyn FnMut(String);

/// Says what [`mend`] would do about the problems of a report, and changes nothing.
///
/// # Errors
/// An [`Error`] if a server could not be asked.
pub async fn propose(
    directory: &Directory,
    table: &RoutingTable,
    options: &Options,
    report: &Report,
) -> Result<Vec<Proposal>, Error> {
    let servers = Servers::new(directory, table, options)?;
    let facts = gather::gather(&servers, table, options, &report.problems).await?;
    Ok(proposals(report, &facts))
}

fn proposals(report: &Report, facts: &facts::Facts<'_>) -> Vec<Proposal> {
    let propose = |p: &Problem| Proposal { problem: p.clone(), plan: plan(p, facts) };
    report.problems.iter().map(propose).collect()
}

/// Checks the ensemble, mends what can be, and checks again, until it is clean or nothing more can be done. Calls as
/// [`Role::Admin`](slice_proto::ids::Role::Admin), over channels of `directory`; `client` is a number drawn at random. Inside a
/// `LocalSet`.
///
/// # Errors
/// An [`Error`] if it could not be found out what is wrong. What is left is no error, but in [`Mended`].
pub async fn mend(
    directory: &Directory,
    table: &RoutingTable,
    identity: &Identity,
    client: [u8; 16],
    options: &Options,
    say: Say<'_>,
) -> Result<Mended, Error> {
    let servers = Servers::new(directory, table, options)?;
    let keys = KeyRing::new(identity, table.key_id);
    let mut mended = Mended::default();
    let mut idle = 0;
    // Across rounds, so that no xid is used twice: a directory server answers those as it did before.
    let mut actor = Actor::new(&servers, table, keys, ClientId(client));
    loop {
        let report = check(&servers, table, options).await?;
        if mended.rounds == 0 {
            mended.found = report.problems.len() as u64 + report.more;
        }
        if report.clean() {
            return Ok(Mended { report, ..mended });
        }
        let facts = gather::gather(&servers, table, options, &report.problems).await?;
        let left = proposals(&report, &facts);
        let repairs = left.iter().flat_map(|p| match &p.plan {
            Plan::Do(repairs) => repairs.as_slice(),
            Plan::Later(_) | Plan::Over | Plan::Leave(_) => &[],
        });
        // Several problems of one record have the same repair.
        let mut seen = BTreeSet::new();
        let mut repairs: Vec<Repair> = repairs.filter(|r| seen.insert(r.to_string())).cloned().collect();
        // What names amount to is counted when they are as they shall be, unless they do not become so.
        if idle == 0 && repairs.iter().any(Repair::names) {
            repairs.retain(|r| !r.counts());
        }
        let waits = left.iter().any(|p| matches!(p.plan, Plan::Over | Plan::Later(_)));
        if idle == IDLE_ROUNDS || mended.rounds == MAX_ROUNDS || (repairs.is_empty() && !waits) {
            return Ok(Mended { report, left, ..mended });
        }
        actor.forget();
        idle += 1;
        mended.rounds += 1;
        for repair in &repairs {
            match actor.act(repair, &facts).await? {
                Outcome::Done => {
                    say(format!("repaired: {repair}"));
                    mended.repaired += 1;
                    idle = 0;
                }
                Outcome::Void => mended.void += 1,
                Outcome::Refused(status) => say(format!("not repaired, {status}: {repair}")),
            }
        }
    }
}
