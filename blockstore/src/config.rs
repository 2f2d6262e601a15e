//! What a block storage node must be told.

use slice_proto::ids::ServerId;
use slice_proto::secret::Identity;
use slice_store::EngineKind;
use std::path::PathBuf;

/// Version of what lies in a node's directory: object layout and metadata records.
pub(crate) const FORMAT: u32 = 1;

/// What a block storage node must be told.
#[derive(Debug, Clone)]
pub struct BlockConfig {
    /// Its directory. `DIR/objects` holds the bytes, `DIR/store` the metadata.
    pub data: PathBuf,
    /// Which engine keeps the metadata.
    pub engine: EngineKind,
    /// The ensemble and its secret.
    pub identity: Identity,
    /// Its own id, drawn when the store was formatted.
    pub server: ServerId,
}
