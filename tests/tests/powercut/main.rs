//! Power cuts: every durable store on a disk that forgets or tears what was not fsynced (`slice_tests::powercut` says how),
//! cut at random changes of the disk, while it is opened and under load. After each cut the server is opened again on what
//! survived, and everything that it had acknowledged must be there.
//!
//! | store | what must hold |
//! | --- | --- |
//! | directory servers (two, hashing) | every acknowledged CREATE, MKDIR, SYMLINK, REMOVE, RMDIR, RENAME, LINK, SETATTR; the operation under way at the cut happened once or not at all; a retransmission gets the first answer; records and entries agree |
//! | small-file server, block storage node | acknowledged stable writes and COMMITs, truncations, purges; other bytes are old or were written; a purged file stays so; the verifier changes |
//! | coordinator | logged intentions have their ids, and are rolled forward at every site; nothing else is; the routing table's epoch goes up |
//! | all of them at once, as processes | what clients behind hard mounts were told; `slice admin check` is clean |
//! | the key-value store below them | batches are whole, and all up to the last one that was said to be durable; with journals and tables that fill up |
//!
//! `SLICE_POWER_SEED` draws the same operations, cuts and losses again; threads and disks may still come in another order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod data;
mod dirs;
mod intents;
mod kind;
mod names;
mod pairs;
mod refsync;
mod round;
mod whole;
mod wire;

#[test]
#[ignore = "power cuts: for root, minutes: cargo xtask test powercut"]
fn dirserver() {
    round::play::<names::Names>();
}

#[test]
#[ignore = "power cuts: for root, minutes: cargo xtask test powercut"]
fn smallfile() {
    round::play::<data::Data<kind::Small>>();
}

#[test]
#[ignore = "power cuts: for root, minutes: cargo xtask test powercut"]
fn blockstore() {
    round::play::<data::Data<kind::Block>>();
}

#[test]
#[ignore = "power cuts: for root, minutes: cargo xtask test powercut"]
fn coordinator() {
    round::play::<intents::Intents>();
}

#[test]
#[ignore = "power cuts: for root, minutes: cargo xtask test powercut"]
fn store() {
    round::play::<pairs::Pairs>();
}

#[test]
#[ignore = "power cuts: for root, minutes: cargo xtask test powercut"]
fn ensemble() {
    whole::play();
}

#[test]
#[ignore = "power cuts: for root, minutes: cargo xtask test powercut"]
fn store_after_a_failed_fsync() {
    refsync::play();
}
