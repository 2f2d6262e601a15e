//! What a directory server is told when it starts.

use slice_proto::ids::ServerId;
use slice_proto::secret::Identity;
use slice_store::EngineKind;
use std::path::PathBuf;

/// Bytes of hot records kept in memory unless told otherwise: half a million files with their names.
pub const DEFAULT_CACHE_BYTES: u64 = 256 << 20;

/// Configuration of a directory server.
#[derive(Debug, Clone)]
pub struct DirConfig {
    /// Directory of the store. It is formatted if there is none in it.
    pub data: PathBuf,
    /// Which engine keeps the store.
    pub engine: EngineKind,
    /// The ensemble and its secret.
    pub identity: Identity,
    /// This server's id.
    pub server: ServerId,
    /// Bytes of hot records kept in memory.
    pub cache_bytes: u64,
}

impl DirConfig {
    /// A configuration with defaults for everything that has one.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>, identity: Identity, server: ServerId) -> Self {
        Self {
            data: data.into(),
            engine: EngineKind::default(),
            identity,
            server,
            cache_bytes: DEFAULT_CACHE_BYTES,
        }
    }
}
