//! What a server tells of itself: carried by heartbeats, shown by `slice status`, summed for FSSTAT.

/// A server's figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Calls answered since start, by procedure name (`LOOKUP`, `PUSH`, …).
    pub ops: Vec<(String, u64)>,
    /// Bytes of the file system that the store lies on.
    pub space_total: u64,
    /// Bytes still available to files (the reserve already taken off).
    pub space_free: u64,
    /// Files, entries or objects held.
    pub objects: u64,
    /// Sites owned.
    pub sites: u32,
    /// Effects owed to others, holds, intentions: 0 when settled.
    pub unsettled: u64,
}
