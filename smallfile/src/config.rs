//! What a small-file server must be told.

use slice_proto::ids::ServerId;
use slice_proto::secret::Identity;
use slice_store::EngineKind;
use std::path::PathBuf;

/// Version of what lies in a server's directory: segments, frames and map records.
pub(crate) const FORMAT: u32 = 1;

/// What a small-file server must be told.
#[derive(Debug, Clone)]
pub struct SmallConfig {
    /// Its directory. `DIR/segments` holds the bytes, `DIR/store` the map.
    pub data: PathBuf,
    /// Which engine keeps the map.
    pub engine: EngineKind,
    /// The ensemble and its secret.
    pub identity: Identity,
    /// Its own id, drawn when the store was formatted.
    pub server: ServerId,
}

/// Sizes and bounds; tests make them small.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    /// Bytes of a segment: large enough that an fsync of a full one is sequential, small enough that two are no burden on
    /// a small disk, and that one is copied in a moment when it is cleaned.
    pub segment_bytes: u32,
    /// Bytes of unstable writes held in memory from which on they are flushed before anybody asks.
    pub flush_at: u64,
    /// Bytes of unstable writes held in memory from which on a WRITE is answered only when it is durable.
    pub held_max: u64,
    /// Objects in memory: about 400 bytes each. More only while more are dirty.
    pub objects: usize,
}

impl Tuning {
    /// Bounds that a test reaches: segments fill, memory is short and objects are forgotten.
    pub(crate) const SMALL: Self =
        Self { segment_bytes: 512 << 10, flush_at: 64 << 10, held_max: 200 << 10, objects: 64 };
}

impl Default for Tuning {
    fn default() -> Self {
        Self { segment_bytes: 32 << 20, flush_at: 16 << 20, held_max: 40 << 20, objects: 64 << 10 }
    }
}
