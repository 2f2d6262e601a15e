//! What every role counts of its own work. No I/O, no text: who shows the figures asks for [`Samples`].
//!
//! ```text
//!  thread ──▶ its own Calls, Phases (one writer, no locked instruction) ──┐
//!  thread ──▶ its own                                                     ├─▶ Samples ─▶ /metrics, heartbeats
//!  commit thread ──▶ Counter, Histogram (shared, rare)                  ──┘
//! ```
//!
//! | file | idea |
//! | --- | --- |
//! | [`clock`] | time read once a wake-up |
//! | [`count`] | counters, gauges and histograms |
//! | [`calls`] | calls, errors and latencies by procedure, a set for each thread |
//! | [`commits`] | group commits |
//! | [`phases`] | where a request's CPU time goes, by sampling |
//! | [`samples`] | figures with names and labels, as they are shown |
//!
//! Nothing on a request's way meets another thread's cache line (DESIGN §13): a thread writes only what is its own, with plain
//! loads and stores, and a reader adds up.
#![forbid(unsafe_code)]

pub mod calls;
pub mod clock;
pub mod commits;
pub mod count;
pub mod phases;
pub mod samples;

pub use calls::{Calls, CallsOf, Timing};
pub use commits::Commits;
pub use count::{BOUNDS_NS, Counter, Histogram, SIZES, Snapshot};
pub use phases::{Phase, Phases, PhasesOf, Trace};
pub use samples::{Sample, Samples, Value};
