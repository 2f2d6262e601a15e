//! Our types ⇄ the control plane's messages. What comes in is checked: a table that passes can be looked up without
//! surprises.

use super::pb;
use crate::ids::{FileId, Role, SITES_PER_ROLE, ServerId, Site, TableEpoch, VolumeId};
use crate::stats::ServerStats;
use crate::table::{NamePolicy, Placement, RoutingTable, ServerEntry, Volume};
use std::collections::BTreeMap;
use thiserror::Error;

/// Most servers in a table: four per site of every role is more than any ensemble has.
pub const MAX_SERVERS: usize = 4 * SITES_PER_ROLE;
/// Most volumes in a table: bounds its size; a volume costs about 100 bytes.
pub const MAX_VOLUMES: usize = 4096;
/// Longest address, in bytes: a DNS name of 253, a colon and a port.
const MAX_ADDRESS: usize = 260;
/// Longest export path, in bytes (MNTPATHLEN, RFC 1813 section 5.1.1).
const MAX_PATH: usize = 1024;
/// Most servers of one site: the first serves, one mirrors or backs up, one is being moved to.
const MAX_SERVERS_PER_SITE: usize = 4;
/// Most procedures that a server counts.
const MAX_OPS: usize = 256;

/// Why a message does not stand for what it should.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConvertError {
    /// A role is none, or not allowed here.
    #[error("{0} is no role that stands here")]
    Role(i32),
    /// A site number is out of range.
    #[error("site {0} is out of range")]
    Site(u32),
    /// A role has another number of sites than the format says.
    #[error("{got} sites of role {role}, not {SITES_PER_ROLE}")]
    SiteCount {
        /// The role.
        role: Role,
        /// What stands there.
        got: usize,
    },
    /// A site has no server, too many, or one that is not in the table with this role.
    #[error("{role} site {site} has servers that cannot be: {why}")]
    SiteServers {
        /// The role.
        role: Role,
        /// The site.
        site: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// A server's address is not `host:port`.
    #[error("{0:?} is not a host:port address")]
    Address(String),
    /// A server id occurs twice or is 0.
    #[error("server id {0} is zero or occurs twice")]
    ServerId(ServerId),
    /// A volume cannot be.
    #[error("volume {id}: {why}")]
    Volume {
        /// Its number.
        id: u32,
        /// What is wrong.
        why: &'static str,
    },
    /// A placement policy cannot be.
    #[error("placement policy of {0} copies")]
    Placement(u32),
    /// There are too many of something.
    #[error("{got} {what}, more than {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// A field that must be there is not.
    #[error("the message has no {0}")]
    Absent(&'static str),
}

type Result<T> = std::result::Result<T, ConvertError>;

fn bounded(what: &'static str, got: usize, max: usize) -> Result<()> {
    if got > max { Err(ConvertError::TooMany { what, got, max }) } else { Ok(()) }
}

// === impl Role ===

impl From<Role> for pb::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Proxy => Self::Proxy,
            Role::Dir => Self::Dir,
            Role::Small => Self::Small,
            Role::Block => Self::Block,
            Role::Coordinator => Self::Coordinator,
            Role::Admin => Self::Admin,
        }
    }
}

impl TryFrom<pb::Role> for Role {
    type Error = ConvertError;

    fn try_from(role: pb::Role) -> Result<Self> {
        Ok(match role {
            pb::Role::Proxy => Self::Proxy,
            pb::Role::Dir => Self::Dir,
            pb::Role::Small => Self::Small,
            pb::Role::Block => Self::Block,
            pb::Role::Coordinator => Self::Coordinator,
            pb::Role::Admin => Self::Admin,
            pb::Role::Unspecified => return Err(ConvertError::Role(0)),
        })
    }
}

/// The role with this number in a message.
fn role(number: i32) -> Result<Role> {
    pb::Role::try_from(number).map_err(|_| ConvertError::Role(number))?.try_into()
}

// === impl ServerStats ===

impl From<&ServerStats> for pb::Stats {
    fn from(s: &ServerStats) -> Self {
        let ops = s.ops.iter().map(|(name, count)| pb::OpCount { name: name.clone(), count: *count });
        Self {
            ops: ops.collect(),
            space_total: s.space_total,
            space_free: s.space_free,
            objects: s.objects,
            sites: s.sites,
            unsettled: s.unsettled,
        }
    }
}

impl TryFrom<pb::Stats> for ServerStats {
    type Error = ConvertError;

    fn try_from(s: pb::Stats) -> Result<Self> {
        bounded("procedures", s.ops.len(), MAX_OPS)?;
        Ok(Self {
            ops: s.ops.into_iter().map(|op| (op.name, op.count)).collect(),
            space_total: s.space_total,
            space_free: s.space_free,
            objects: s.objects,
            sites: s.sites,
            unsettled: s.unsettled,
        })
    }
}

// === impl Volume ===

impl From<&Volume> for pb::Volume {
    fn from(v: &Volume) -> Self {
        use pb::name_policy::Policy;
        let policy = match v.policy {
            NamePolicy::Partition => Policy::Partition(pb::Unit {}),
            NamePolicy::MkdirSwitching { affinity_ppm } => Policy::MkdirAffinityPpm(affinity_ppm),
            NamePolicy::Hash => Policy::Hash(pb::Unit {}),
        };
        Self {
            id: v.id.0,
            path: v.path.clone(),
            root: v.root.0,
            policy: Some(pb::NamePolicy { policy: Some(policy) }),
            seed: v.seed,
            placement: v.placement,
            root_uid: v.root_uid,
            root_gid: v.root_gid,
            root_mode: v.root_mode,
        }
    }
}

impl TryFrom<pb::Volume> for Volume {
    type Error = ConvertError;

    fn try_from(v: pb::Volume) -> Result<Self> {
        use pb::name_policy::Policy;
        let wrong = |why| ConvertError::Volume { id: v.id, why };
        let policy = match v.policy.and_then(|p| p.policy).ok_or(wrong("it has no name policy"))? {
            Policy::Partition(_) => NamePolicy::Partition,
            Policy::Hash(_) => NamePolicy::Hash,
            Policy::MkdirAffinityPpm(ppm) if ppm <= 1_000_000 => {
                NamePolicy::MkdirSwitching { affinity_ppm: ppm }
            }
            Policy::MkdirAffinityPpm(_) => return Err(wrong("its affinity is above 1")),
        };
        let root = FileId(v.root);
        if usize::from(root.home().0) >= SITES_PER_ROLE {
            return Err(wrong("its root's home is not a site"));
        }
        if !v.path.starts_with('/') || v.path.len() > MAX_PATH || (v.path.len() > 1 && v.path.ends_with('/'))
        {
            return Err(wrong("its path is not / or /name"));
        }
        if v.root_mode > 0o7777 {
            return Err(wrong("its root's mode has more than permission bits"));
        }
        Ok(Self {
            id: VolumeId(v.id),
            path: v.path,
            root,
            policy,
            seed: v.seed,
            placement: v.placement,
            root_uid: v.root_uid,
            root_gid: v.root_gid,
            root_mode: v.root_mode,
        })
    }
}

// === impl Site ===

/// Sites as a message carries them.
#[must_use]
pub fn sites_to_wire(sites: &[Site]) -> Vec<u32> {
    sites.iter().map(|s| u32::from(s.0)).collect()
}

/// Sites from a message.
///
/// # Errors
/// [`ConvertError::Site`] if one is out of range, [`ConvertError::TooMany`].
pub fn sites_from_wire(sites: &[u32]) -> Result<Vec<Site>> {
    bounded("sites", sites.len(), SITES_PER_ROLE)?;
    let site = |s: &u32| match u16::try_from(*s) {
        Ok(n) if usize::from(n) < SITES_PER_ROLE => Ok(Site(n)),
        _ => Err(ConvertError::Site(*s)),
    };
    sites.iter().map(site).collect()
}

// === impl RoutingTable ===

impl From<&RoutingTable> for pb::RoutingTable {
    fn from(t: &RoutingTable) -> Self {
        let sites = |role| {
            let ids = |s: &Vec<ServerId>| pb::SiteServers { servers: s.iter().map(|id| id.0).collect() };
            t.sites(role).iter().map(ids).collect()
        };
        let servers = t.servers.iter().map(|(id, e)| pb::ServerEntry {
            id: id.0,
            role: pb::Role::from(e.role).into(),
            address: e.address.clone(),
        });
        Self {
            epoch: t.epoch.0,
            dir: sites(Role::Dir),
            small: sites(Role::Small),
            block: sites(Role::Block),
            servers: servers.collect(),
            volumes: t.volumes.iter().map(Into::into).collect(),
            placements: t.placements.iter().map(|p| pb::Placement { copies: p.copies }).collect(),
            key_id: u32::from(t.key_id),
        }
    }
}

impl TryFrom<pb::RoutingTable> for RoutingTable {
    type Error = ConvertError;

    fn try_from(t: pb::RoutingTable) -> Result<Self> {
        let servers = servers(t.servers)?;
        let placements: Vec<_> = t.placements.iter().map(placement).collect::<Result<_>>()?;
        let volumes = volumes(t.volumes, placements.len())?;
        Ok(Self {
            epoch: TableEpoch(t.epoch),
            dir: site_servers(Role::Dir, t.dir, &servers)?,
            small: site_servers(Role::Small, t.small, &servers)?,
            block: site_servers(Role::Block, t.block, &servers)?,
            servers,
            volumes,
            placements,
            key_id: u16::try_from(t.key_id).map_err(|_| ConvertError::Absent("possible key id"))?,
        })
    }
}

impl RoutingTable {
    /// A table of an ensemble whose sites are not dealt yet: as `try_from`, but without sites. Only the coordinator's
    /// own store holds such; none is ever sent.
    ///
    /// # Errors
    /// A [`ConvertError`].
    pub fn undealt(t: pb::RoutingTable) -> Result<Self> {
        let placements: Vec<_> = t.placements.iter().map(placement).collect::<Result<_>>()?;
        let volumes = volumes(t.volumes, placements.len())?;
        Ok(Self { servers: servers(t.servers)?, volumes, placements, ..Self::default() })
    }
}

fn servers(entries: Vec<pb::ServerEntry>) -> Result<BTreeMap<ServerId, ServerEntry>> {
    bounded("servers", entries.len(), MAX_SERVERS)?;
    let mut servers = BTreeMap::new();
    for e in entries {
        let id = ServerId(e.id);
        let entry = ServerEntry { role: role(e.role)?, address: checked_address(e.address)? };
        if id.0 == 0 || servers.insert(id, entry).is_some() {
            return Err(ConvertError::ServerId(id));
        }
    }
    Ok(servers)
}

/// An address that is `host:port` with a port other than 0.
fn checked_address(address: String) -> Result<String> {
    let fine = address.len() <= MAX_ADDRESS
        && address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains(char::is_whitespace)
                && port.parse::<u16>().is_ok_and(|p| p != 0)
        });
    if fine { Ok(address) } else { Err(ConvertError::Address(address)) }
}

impl pb::RegisterRequest {
    /// Who registers: id, role and address, checked.
    ///
    /// # Errors
    /// A [`ConvertError`] if one of them cannot be.
    pub fn entry(&self) -> Result<(ServerId, ServerEntry)> {
        if self.server == 0 {
            return Err(ConvertError::ServerId(ServerId(0)));
        }
        let entry = ServerEntry { role: role(self.role)?, address: checked_address(self.address.clone())? };
        Ok((ServerId(self.server), entry))
    }
}

fn placement(p: &pb::Placement) -> Result<Placement> {
    match p.copies {
        copies @ 1..=2 => Ok(Placement { copies }),
        copies => Err(ConvertError::Placement(copies)),
    }
}

fn volumes(all: Vec<pb::Volume>, placements: usize) -> Result<Vec<Volume>> {
    bounded("volumes", all.len(), MAX_VOLUMES)?;
    let mut volumes: Vec<Volume> = Vec::with_capacity(all.len());
    for v in all {
        let volume = Volume::try_from(v)?;
        let wrong = |why| Err(ConvertError::Volume { id: volume.id.0, why });
        if volume.id.0 as usize != volumes.len() {
            return wrong("its number is not its index");
        }
        if volume.placement as usize >= placements {
            return wrong("its placement policy is unknown");
        }
        if volumes.iter().any(|other| other.path == volume.path) {
            return wrong("its path occurs twice");
        }
        volumes.push(volume);
    }
    Ok(volumes)
}

fn site_servers(
    role: Role,
    sites: Vec<pb::SiteServers>,
    servers: &BTreeMap<ServerId, ServerEntry>,
) -> Result<Vec<Vec<ServerId>>> {
    if sites.len() != SITES_PER_ROLE {
        return Err(ConvertError::SiteCount { role, got: sites.len() });
    }
    let check = |(site, s): (usize, pb::SiteServers)| {
        let wrong = |why| Err(ConvertError::SiteServers { role, site, why });
        if s.servers.is_empty() || s.servers.len() > MAX_SERVERS_PER_SITE {
            return wrong("none, or too many");
        }
        let ids: Vec<_> = s.servers.into_iter().map(ServerId).collect();
        if ids.iter().any(|id| servers.get(id).is_none_or(|e| e.role != role)) {
            return wrong("one is not in the table with this role");
        }
        if ids.iter().enumerate().any(|(i, id)| ids.iter().take(i).any(|before| before == id)) {
            return wrong("one occurs twice");
        }
        Ok(ids)
    };
    sites.into_iter().enumerate().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with two servers of each role.
    fn table() -> RoutingTable {
        let mut servers = BTreeMap::new();
        let mut sites = Vec::new();
        for (r, role) in [(1u64, Role::Dir), (2, Role::Small), (3, Role::Block)] {
            for i in 0..2u64 {
                servers.insert(
                    ServerId(r * 10 + i),
                    ServerEntry { role, address: format!("10.0.0.{r}:{}", 2000 + i) },
                );
            }
            sites
                .push((0..SITES_PER_ROLE as u64).map(|s| vec![ServerId(r * 10 + s % 2)]).collect::<Vec<_>>());
        }
        servers.insert(ServerId(99), ServerEntry { role: Role::Coordinator, address: "[::1]:7".into() });
        let volume = |id: u32, path: &str, policy| Volume {
            id: VolumeId(id),
            path: path.into(),
            root: FileId::new(Site(id as u16), 1),
            policy,
            seed: 5,
            placement: 0,
            root_uid: 1,
            root_gid: 2,
            root_mode: 0o1777,
        };
        RoutingTable {
            epoch: TableEpoch(4),
            block: sites.pop().unwrap(),
            small: sites.pop().unwrap(),
            dir: sites.pop().unwrap(),
            servers,
            volumes: vec![
                volume(0, "/", NamePolicy::Hash),
                volume(1, "/a", NamePolicy::MkdirSwitching { affinity_ppm: 900_000 }),
                volume(2, "/b", NamePolicy::Partition),
            ],
            placements: vec![Placement { copies: 1 }],
            key_id: 0,
        }
    }

    #[test]
    fn a_table_comes_back() {
        assert_eq!(RoutingTable::try_from(pb::RoutingTable::from(&table())), Ok(table()));
    }

    /// Every way to spoil a table is noticed.
    #[test]
    fn tables_that_cannot_be_are_refused() {
        type Spoil = fn(&mut pb::RoutingTable);
        let spoilers: [(&str, Spoil); 13] = [
            ("sites missing", |t| t.dir.truncate(255)),
            ("no server at a site", |t| t.small[3].servers.clear()),
            ("unknown server at a site", |t| t.block[3].servers = vec![1234]),
            ("a server of another role", |t| t.block[3].servers = vec![10]),
            ("a server twice at a site", |t| t.block[3].servers = vec![30, 30]),
            ("a server twice", |t| t.servers[1].id = t.servers[0].id),
            ("a server without role", |t| t.servers[0].role = 0),
            ("an address without port", |t| t.servers[0].address = "host".into()),
            ("a volume out of order", |t| t.volumes.swap(0, 1)),
            ("a volume without policy", |t| t.volumes[0].policy = None),
            ("an affinity above 1", |t| {
                t.volumes[1].policy = Some(pb::NamePolicy {
                    policy: Some(pb::name_policy::Policy::MkdirAffinityPpm(1_000_001)),
                });
            }),
            ("an unknown placement", |t| t.volumes[0].placement = 1),
            ("two volumes at a path", |t| t.volumes[1].path = "/".into()),
        ];
        for (what, spoil) in spoilers {
            let mut wire = pb::RoutingTable::from(&table());
            spoil(&mut wire);
            assert!(RoutingTable::try_from(wire).is_err(), "{what}");
        }
    }

    #[test]
    fn sites_are_checked() {
        assert_eq!(sites_from_wire(&[0, 255]), Ok(vec![Site(0), Site(255)]));
        assert_eq!(sites_from_wire(&[256]), Err(ConvertError::Site(256)));
    }
}
