//! The step table: every kind of operation that spans servers, killed at every step of its protocol.
//!
//! A whole ensemble runs in this process, every server on a thread of its own, all calls over sockets; before every server
//! stands a [`wire::Guarded`] that sees each message as it arrives. An operation is first run without faults and its messages
//! are written down; then it is run again for each message, for each of the sender, the receiver, the coordinator and the
//! µproxy as the victim, once killed right before the message is delivered and once right after it was executed, before the
//! answer is. The victim is started again, the client sends the same record again, everything settles, and then
//!
//! * the operation has happened, once, as its reply says, and the retransmission gets the same reply;
//! * no intention is open, nothing is held or owed;
//! * `slice admin check` finds nothing wrong: no name without a file, no bytes without a file.
//!
//! | file | idea |
//! | --- | --- |
//! | `ensemble` | servers that are killed and started again |
//! | `wire` | who said what to whom, and stops at a message |
//! | `client` | a client that sends the same record until it is answered |
//! | `clocks` | no fault but clocks: each server's leaps by hours and days under the work of several clients |
//! | `names` | names and directories whose servers are known beforehand |
//! | `play` | the operations: what they need, their record, what must be true afterwards |
//! | `table` | records the messages, runs the steps, prints the table |
//!
//! `SLICE_STEPS=hash/RenameOver` runs only operations whose line begins so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop at the first surprise"
)]

mod client;
mod clocks;
mod ensemble;
mod names;
mod play;
mod table;
mod verify;
mod wire;

/// Clients through two µproxies notice each other's changes, whatever clocks say.
#[test]
fn clocks_leap_and_nobody_notices() {
    clocks::run();
}

/// No step is left out.
#[test]
fn every_step_of_every_operation() {
    table::run();
}
