//! The ONC RPC engine: record framing, server and client connections, the in-process channel.
//! The only crate that opens data sockets.
//!
//! Who queues to whom, on one worker thread; nothing here crosses threads but an accepted connection, once:
//!
//! ```text
//!             server side                                                client side
//!
//!  client ──▶ Intake ──records──▶ Service::call ──Message──▶ Channel::{call, forward}
//!    │        (one read)           │  │  │                     │ slots: who waits for which xid
//!    │                        Done │  │  │ Detached            │ OutBuf ──(one write a wake-up)──▶ server
//!    │                             │  │ Later                  │                                      │
//!    │                             │  ▼                        │                                      │
//!    │                             │ FuturesUnordered          ▼                                      │
//!    │                             │  │               ReplySink / Call future ◀── Intake ◀────────────┘
//!    │                             ▼  ▼                        │                (one read)
//!    └◀──(one write a wake-up)── OutBuf ◀── Connection::reply ─┘
//! ```
//!
//! A wake-up of a connection reads all that the socket has, has every complete record handled, and sends all replies in
//! one write; a wake-up of a channel does the same in the other direction. Neither spawns a task nor allocates for a
//! request: buffers are the thread's (`buffers.rs`), bookkeeping is in slabs. A server in this process
//! ([`directory::Target::InProcess`]) is called on the caller's thread, and its reply is there when the call returns.
//!
//! Everything is bounded: records by [`framing::MAX_RECORD`], requests and replies of a connection by
//! [`server::Limits`], calls of a channel by [`channel::MAX_IN_FLIGHT`]; a bound that is reached stops reading, so that
//! TCP pushes back to where the load comes from.
#![forbid(unsafe_code)]

mod buffers;
pub mod channel;
pub mod clock;
pub mod directory;
pub mod error;
pub mod framing;
pub mod hello;
mod intake;
pub mod metered;
pub mod names;
mod nudge;
pub mod outbuf;
pub mod server;
pub mod service;
mod socket;
pub mod tables;
pub mod worker;

pub use channel::{Call, Channel, ReplySink, SplitCall};
pub use clock::{Clock, SharedClock, SystemClock};
pub use directory::{Channels, Directory, Target};
pub use error::{CallError, Error};
pub use hello::Me;
pub use metered::{Metered, Targets};
pub use server::{
    Connection, Gate, Limits, Listener, Options, Placement, serve, serve_local, serve_stream, serve_udp,
};
pub use service::{Handled, LocalService, Message, Peer, Service};
pub use tables::{Tables, TablesSender};
pub use worker::Workers;
