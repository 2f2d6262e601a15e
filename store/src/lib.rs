//! Durable ordered key-value store behind one small trait.
//!
//! ```text
//!   submit(batch) ──▶ pending ──▶ writing ──▶ engine.write ──▶ engine.persist ──▶ durable() = ticket ──▶ wakers
//!        │               │           │             │            (one for all that gathered meanwhile)
//!        ▼               └─────┬─────┴─────────────┘
//!      Ticket            get, iter and scan see all three at once
//! ```
//!
//! * [`Store::submit`] never blocks: it makes the whole batch visible to every reader of this store at once and
//!   returns a [`Ticket`]. One background thread writes and fsyncs what has gathered (group commit).
//! * A batch is **durable** when its ticket is at most [`Store::durable`]. [`Store::wait`] is the future for that;
//!   [`Store::commit`] does both. Reply to nobody before (I3, I8).
//! * Batches are atomic and become durable in the order of their tickets: after a crash the store holds all batches
//!   up to some ticket, which is at least the last one that was said to be durable, and none after it.
//! * The first write or fsync error is the store's last word: every later submit and wait fails with it (I8).
//!
//! Directory layout: `DIR/lock` (flock of the process that has it open), `DIR/store/stamp` ([`StoreStamp`]),
//! `DIR/store/db/` (the engine's files). Users may put other things beside them.
#![forbid(unsafe_code)]

mod batch;
pub mod data_keys;
pub mod engine;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod overlay;
mod stamp;
mod store;
mod wait;

pub use batch::{Batch, Op};
pub use engine::{Direction, Engine, EngineKind, KeyRange};
pub use error::{Error, Result};
pub use stamp::{StoreStamp, read_stamp};
pub use store::{Iter, Store};
pub use wait::{Durable, Progress, Ticket};
