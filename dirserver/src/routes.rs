//! The routing table as this server needs it: what is its own, and the keys of handles.

use slice_proto::handle::KeyRing;
use slice_proto::ids::{FileId, Role, SITES_PER_ROLE, ServerId, Site, TableEpoch, VolumeId};
use slice_proto::secret::Identity;
use slice_proto::table::{RoutingTable, Volume};
use std::sync::Arc;

/// One routing table, made ready.
pub(crate) struct Routes {
    pub(crate) table: Arc<RoutingTable>,
    pub(crate) keys: KeyRing,
    mine: Vec<bool>,
    /// Whether every directory site is this server's: then nobody else need ever be asked.
    pub(crate) alone: bool,
}

// === impl Routes ===

impl Routes {
    pub(crate) fn new(table: Arc<RoutingTable>, identity: &Identity, me: ServerId) -> Self {
        let owner = |i| u16::try_from(i).ok().and_then(|s| table.owner(Role::Dir, Site(s)));
        let mine: Vec<bool> = (0..SITES_PER_ROLE).map(|i| owner(i) == Some(me)).collect();
        let alone = mine.iter().all(|m| *m);
        Self { keys: KeyRing::new(identity, table.key_id), mine, alone, table }
    }

    pub(crate) fn epoch(&self) -> TableEpoch {
        self.table.epoch
    }

    pub(crate) fn mine(&self, site: Site) -> bool {
        self.mine.get(usize::from(site.0)).copied().unwrap_or(false)
    }

    pub(crate) fn my_sites(&self) -> u32 {
        self.mine.iter().map(|m| u32::from(*m)).sum()
    }

    pub(crate) fn volume(&self, id: VolumeId) -> Option<&Volume> {
        self.table.volume(id)
    }

    /// The directory server of a site.
    pub(crate) fn owner(&self, site: Site) -> Option<ServerId> {
        self.table.owner(Role::Dir, site)
    }

    /// Whether a file's attribute record is here.
    pub(crate) fn home_is_mine(&self, file: FileId) -> bool {
        self.mine(file.home())
    }
}
