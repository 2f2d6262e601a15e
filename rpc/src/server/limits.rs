//! What one peer may ask of us.

use std::time::Duration;

/// Bounds of a listener and of each of its connections. Reached bounds push back through TCP: nothing more is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the listener. A newcomer beyond takes the place of one that has nothing under way: of a host that has more
    /// than its own, or one that has been silent for seconds; where there is none, it is closed as it is accepted.
    pub connections: usize,
    /// Of these, connections of one host on one thread: a newcomer beyond takes the place of a silent one of its own host's, or
    /// none.
    pub per_host: usize,
    /// A connection that was heard within this time is not closed for a newcomer of its own host, or of one that has as many: a
    /// client at work says something in less. Of a host that has more, one may be that pauses for a moment.
    pub silent: Duration,
    /// Requests of one connection that wait for their reply.
    pub pending: u32,
    /// Bytes of these requests, and of what READs and listings among them ask for. One request beyond is possible.
    pub pending_bytes: usize,
    /// Bytes of replies that the peer has not taken. One reply beyond is possible.
    pub unsent_bytes: usize,
    /// A record that has begun, and replies that wait to be taken, must make progress within this time.
    pub stall: Duration,
}

impl Limits {
    /// For NFS clients, which may be anybody. A Linux client has at most a few hundred requests in flight per
    /// connection, and 4 MiB of WRITEs or READs fill any pipe; 16 busy connections then stay below 128 MiB.
    #[must_use]
    pub const fn clients() -> Self {
        Self {
            connections: 1024,
            per_host: 256,
            silent: Duration::from_secs(5),
            pending: 512,
            pending_bytes: 4 << 20,
            unsent_bytes: 2 << 20,
            stall: Duration::from_secs(60),
        }
    }

    /// For peers that have proved themselves. One connection carries what all clients of a µproxy ask, and a request
    /// may wait for one behind it (a hold for its confirmation), so the bound is the caller's own
    /// [`MAX_IN_FLIGHT`](crate::channel::MAX_IN_FLIGHT).
    #[must_use]
    pub const fn peers() -> Self {
        Self {
            connections: 4096,
            per_host: 4096,
            silent: Duration::from_secs(5),
            pending: crate::channel::MAX_IN_FLIGHT as u32,
            pending_bytes: 64 << 20,
            unsent_bytes: 8 << 20,
            stall: Duration::from_secs(60),
        }
    }
}
