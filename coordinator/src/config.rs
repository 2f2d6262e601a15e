//! What the coordinator must be told.

use slice_proto::ids::ServerId;
use slice_proto::secret::Identity;
use slice_store::EngineKind;
use std::path::PathBuf;
use std::time::Duration;

/// Version of what lies in the coordinator's directory.
pub(crate) const FORMAT: u32 = 1;

/// How old an intention must be to be taken over, unless the configuration says otherwise: longer than a server takes
/// to restart and drive its own intentions, and short against the patience of whoever waits for the space.
pub const TAKE_OVER_AFTER: Duration = Duration::from_secs(30);

/// What the coordinator must be told.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    /// Its directory: `DIR/store` holds membership and table, `DIR/log` the intentions.
    pub data: PathBuf,
    /// Which engine keeps membership and table.
    pub engine: EngineKind,
    /// The ensemble and its secret.
    pub identity: Identity,
    /// Its own id, drawn when the store was formatted.
    pub server: ServerId,
    /// `host:port` at which the others reach it over ONC RPC.
    pub address: String,
    /// How old an intention must be to be taken over.
    pub take_over_after: Duration,
}
