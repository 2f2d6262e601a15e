//! The routing table: site → servers, per role, with an epoch; and the volumes.
//!
//! Looked up per request, never hashed per request. Made at format; changed only by an explicit move that the
//! old owner has durably acknowledged (I4).

use crate::handle::{Handle, HandleBytes, KeyRing};
use crate::ids::{FileId, Role, ServerId, Site, TableEpoch, VolumeId};
use std::collections::BTreeMap;

/// How a volume's names are spread over directory sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamePolicy {
    /// The whole volume at one site.
    Partition,
    /// A directory's entries at its home site; a new directory stays there with probability `affinity`.
    MkdirSwitching {
        /// Probability that a new directory stays at its parent's home, in millionths.
        affinity_ppm: u32,
    },
    /// Every entry where the top bits of its name's hash say.
    Hash,
}

/// An export: its own root, name policy and striping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its number: stands in every handle.
    pub id: VolumeId,
    /// The path that it is mounted by: `/` or `/name`.
    pub path: String,
    /// Its root directory.
    pub root: FileId,
    /// Spreads its names.
    pub policy: NamePolicy,
    /// Seed of its name hash.
    pub seed: u64,
    /// Placement policy id that new files get in their handles.
    pub placement: u32,
    /// Owner of the root directory when it is made.
    pub root_uid: u32,
    /// Group of the root directory when it is made.
    pub root_gid: u32,
    /// Mode of the root directory when it is made (permission bits, sticky bit).
    pub root_mode: u32,
}

/// How a placement policy lays bytes out. Immutable once it has an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Servers that hold each storage site's bytes: 1, or 2 when mirrored.
    pub copies: u32,
}

/// A server as the table knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerEntry {
    /// What it does.
    pub role: Role,
    /// `host:port` of its ONC RPC socket.
    pub address: String,
}

/// The routing table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutingTable {
    /// Raised by every change.
    pub epoch: TableEpoch,
    /// Directory sites: index is the site, the first server serves, others are backups.
    pub dir: Vec<Vec<ServerId>>,
    /// Small-file sites.
    pub small: Vec<Vec<ServerId>>,
    /// Storage sites.
    pub block: Vec<Vec<ServerId>>,
    /// Every server by id, coordinator included.
    pub servers: BTreeMap<ServerId, ServerEntry>,
    /// Every volume; the index is the volume's number.
    pub volumes: Vec<Volume>,
    /// Every placement policy; the index is the policy id.
    pub placements: Vec<Placement>,
    /// Key id with which new handles are made.
    pub key_id: u16,
}

impl RoutingTable {
    /// The sites of a role; empty for roles without sites.
    #[must_use]
    pub fn sites(&self, role: Role) -> &[Vec<ServerId>] {
        match role {
            Role::Dir => &self.dir,
            Role::Small => &self.small,
            Role::Block => &self.block,
            Role::Proxy | Role::Coordinator | Role::Admin => &[],
        }
    }

    /// The server that serves a site.
    #[must_use]
    pub fn owner(&self, role: Role, site: Site) -> Option<ServerId> {
        self.sites(role).get(usize::from(site.0)).and_then(|servers| servers.first()).copied()
    }

    /// Every site of a role that a server serves, in order.
    pub fn owned(&self, role: Role, server: ServerId) -> impl Iterator<Item = Site> + '_ {
        // There are at most 2^16 sites per role: the index fits.
        (0u16..).zip(self.sites(role)).filter(move |(_, s)| s.first() == Some(&server)).map(|(i, _)| Site(i))
    }

    /// Every server of a role.
    pub fn servers_of(&self, role: Role) -> impl Iterator<Item = ServerId> + '_ {
        self.servers.iter().filter(move |(_, e)| e.role == role).map(|(id, _)| *id)
    }

    /// The coordinator.
    #[must_use]
    pub fn coordinator(&self) -> Option<ServerId> {
        self.servers_of(Role::Coordinator).next()
    }

    /// A volume by its number.
    #[must_use]
    pub fn volume(&self, id: VolumeId) -> Option<&Volume> {
        self.volumes.get(id.0 as usize)
    }

    /// A volume by its export path.
    #[must_use]
    pub fn volume_at(&self, path: &str) -> Option<&Volume> {
        self.volumes.iter().find(|v| v.path == path)
    }
}

impl Volume {
    /// The fields of the root directory's handle.
    #[must_use]
    pub const fn root_handle(&self) -> Handle {
        Handle { ftype: 2, volume: self.id, policy: self.placement, file: self.root, snapshot: 0 }
    }

    /// The root directory's handle.
    #[must_use]
    pub fn sealed_root(&self, keys: &KeyRing) -> HandleBytes {
        keys.seal(&self.root_handle())
    }
}
