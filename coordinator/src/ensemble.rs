//! Format and membership as pure functions `(state, event) -> new state`, or a refusal. The shell makes a new state
//! durable before anybody is told of it.
//!
//! ```text
//!  Gathering ──all have registered: sites are dealt──▶ Adopting ──all have stamped theirs──▶ Serving
//!                                                                     (table epoch 1)         a new address: epoch + 1
//! ```
//!
//! Membership is closed once sites are dealt: a server that is not in the table has nothing to serve, and a server whose
//! store does not hold the stamps of its sites must not serve them (I4). Joins and moves come with a later issue.

use crate::deal::deal;
use crate::error::{Error, Result};
use slice_proto::ids::{Role, SITES_PER_ROLE, ServerId, Site, TableEpoch};
use slice_proto::peer::hello::{MAX_WIRE_VERSION, MIN_WIRE_VERSION};
use slice_proto::table::{Placement, RoutingTable, ServerEntry, Volume};
use std::collections::BTreeMap;
use thiserror::Error;

/// Roles that own sites.
pub const SITE_ROLES: [Role; 3] = [Role::Dir, Role::Small, Role::Block];

/// How many servers of each role must register before sites are dealt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Directory servers.
    pub dir: usize,
    /// Small-file servers.
    pub small: usize,
    /// Block storage nodes.
    pub block: usize,
}

/// What is decided at format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How many servers.
    pub expected: Expected,
    /// Every volume; the index is its number.
    pub volumes: Vec<Volume>,
    /// Every placement policy.
    pub placements: Vec<Placement>,
}

/// How far the ensemble is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all servers have registered.
    Gathering,
    /// Sites are dealt, not all servers have stamped theirs.
    Adopting,
    /// The routing table is published.
    Serving,
}

/// A server that owns sites, or is to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it does and where it is reached.
    pub entry: ServerEntry,
    /// Whether the stamps of its sites are durable.
    pub adopted: bool,
}

/// Everything that the coordinator knows for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensemble {
    /// How far it is.
    pub phase: Phase,
    /// How many servers were asked for.
    pub expected: Expected,
    /// Servers with sites, or to have some.
    pub members: BTreeMap<ServerId, Member>,
    /// The routing table: epoch 0 and not to be published before [`Phase::Serving`], without sites before
    /// [`Phase::Adopting`].
    pub table: RoutingTable,
}

/// A server that comes up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its id.
    pub server: ServerId,
    /// What it does and where it is reached.
    pub entry: ServerEntry,
    /// Wire versions that it speaks, lowest and highest.
    pub wire: (u32, u32),
    /// Whether its store was made just now.
    pub fresh: bool,
    /// Sites whose stamps its store holds.
    pub stamped: Vec<Site>,
}

/// Why a server is not let in. The text goes to its operator.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[allow(missing_docs)] // each sentence says what it is
pub enum Refusal {
    #[error(
        "{role} {server} speaks versions {min} to {max} of the wire between servers, this coordinator {MIN_WIRE_VERSION} to {MAX_WIRE_VERSION}: run programs of neighbouring releases"
    )]
    Wire { role: Role, server: ServerId, min: u32, max: u32 },
    #[error(
        "server {server} is a {known} in this ensemble and comes as a {role}: give it the --data directory of a {role}"
    )]
    Role { server: ServerId, known: Role, role: Role },
    #[error(
        "this ensemble has its {expected} {role}s already, and {server} is not one of them: a formatted ensemble takes no more servers in this version (if a store was lost, restore it from its backup)"
    )]
    Full { server: ServerId, role: Role, expected: usize },
    #[error(
        "{role} {server} is not a member of this formatted ensemble: a formatted ensemble takes no more servers in this version (if the store of one of its {role}s was lost, restore it from its backup)"
    )]
    Unknown { server: ServerId, role: Role },
    #[error(
        "{role} {server} owns {owned} sites, but its store is new and empty: its files were lost; restore the store from its backup, nothing is served from an empty one"
    )]
    Emptied { server: ServerId, role: Role, owned: usize },
    #[error(
        "{role} {server} owns {owned} sites, but its store holds no stamps for {missing} of them: it is not the store that this ensemble wrote; restore the right one"
    )]
    Unstamped { server: ServerId, role: Role, owned: usize, missing: usize },
    #[error(
        "the store of {role} {server} holds stamps of sites, but this coordinator's ensemble is not formatted yet: give the coordinator the --data directory that belongs to these servers"
    )]
    Stamped { server: ServerId, role: Role },
    #[error("server {server} was not asked to adopt {what}")]
    NotAsked { server: ServerId, what: &'static str },
}

impl Expected {
    /// Servers wanted of a role; 0 for roles without sites.
    #[must_use]
    pub const fn of(&self, role: Role) -> usize {
        match role {
            Role::Dir => self.dir,
            Role::Small => self.small,
            Role::Block => self.block,
            Role::Proxy | Role::Coordinator | Role::Admin => 0,
        }
    }
}

impl Ensemble {
    /// A new ensemble that waits for its servers.
    ///
    /// # Errors
    /// [`Error::Expected`] if a role is to have no server, or more than sites.
    pub fn new(plan: Plan, coordinator: ServerId, address: String) -> Result<Self> {
        for role in SITE_ROLES {
            let n = plan.expected.of(role);
            if !(1..=SITES_PER_ROLE).contains(&n) {
                return Err(Error::Expected { role, n, max: SITES_PER_ROLE });
            }
        }
        let entry = ServerEntry { role: Role::Coordinator, address };
        let table = RoutingTable {
            volumes: plan.volumes,
            placements: plan.placements,
            servers: BTreeMap::from([(coordinator, entry)]),
            ..RoutingTable::default()
        };
        Ok(Self { phase: Phase::Gathering, expected: plan.expected, members: BTreeMap::new(), table })
    }

    /// The sites that a member is to own, by the deal.
    #[must_use]
    pub fn sites_of(&self, server: ServerId) -> Vec<Site> {
        let role = self.members.get(&server).map(|m| m.entry.role);
        role.map(|role| self.table.owned(role, server).collect()).unwrap_or_default()
    }

    /// What a server must adopt now, if anything.
    #[must_use]
    pub fn to_adopt(&self, server: ServerId) -> Option<Vec<Site>> {
        let wanted = self.phase == Phase::Adopting && self.members.get(&server).is_some_and(|m| !m.adopted);
        wanted.then(|| self.sites_of(server))
    }

    /// The published table, if there is one.
    #[must_use]
    pub fn published(&self) -> Option<&RoutingTable> {
        (self.phase == Phase::Serving).then_some(&self.table)
    }

    /// The coordinator itself comes up, at an address. `None` if nothing changes.
    #[must_use]
    pub fn moved(&self, coordinator: ServerId, address: &str) -> Option<Self> {
        let mut next = self.clone();
        next.readdress(coordinator, address).then_some(next)
    }

    /// A server comes up. `None` if nothing changes.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn register(&self, r: &Registration) -> std::result::Result<Option<Self>, Refusal> {
        let (server, role) = (r.server, r.entry.role);
        let (min, max) = r.wire;
        if min > MAX_WIRE_VERSION || max < MIN_WIRE_VERSION {
            return Err(Refusal::Wire { role, server, min, max });
        }
        if !SITE_ROLES.contains(&role) {
            // µproxies come and go; nothing depends on which there are.
            return Ok(None);
        }
        match self.members.get(&server) {
            Some(member) if member.entry.role != role => {
                Err(Refusal::Role { server, known: member.entry.role, role })
            }
            Some(member) => {
                self.check_stamps(r, member)?;
                let mut next = self.clone();
                Ok(next.readdress(server, &r.entry.address).then_some(next))
            }
            None if self.phase == Phase::Gathering => self.gather(r).map(Some),
            None => Err(Refusal::Unknown { server, role }),
        }
    }

    /// I4: a store without the stamps serves nothing.
    fn check_stamps(&self, r: &Registration, member: &Member) -> std::result::Result<(), Refusal> {
        if !member.adopted {
            return Ok(());
        }
        let (server, role, owned) = (r.server, r.entry.role, self.sites_of(r.server));
        let missing = owned.iter().filter(|s| !r.stamped.contains(s)).count();
        match missing {
            0 => Ok(()),
            _ if r.fresh => Err(Refusal::Emptied { server, role, owned: owned.len() }),
            _ => Err(Refusal::Unstamped { server, role, owned: owned.len(), missing }),
        }
    }

    fn gather(&self, r: &Registration) -> std::result::Result<Self, Refusal> {
        let (server, role) = (r.server, r.entry.role);
        if !r.stamped.is_empty() {
            return Err(Refusal::Stamped { server, role });
        }
        let mut next = self.clone();
        // A store that was made anew before it got any site: the earlier life of this address is gone.
        next.members.retain(|_, m| m.entry != r.entry);
        let expected = self.expected.of(role);
        if next.members.values().filter(|m| m.entry.role == role).count() >= expected {
            return Err(Refusal::Full { server, role, expected });
        }
        next.members.insert(server, Member { entry: r.entry.clone(), adopted: false });
        next.deal_if_complete();
        Ok(next)
    }

    fn deal_if_complete(&mut self) {
        let of = |role| -> Vec<ServerId> {
            self.members.iter().filter(|(_, m)| m.entry.role == role).map(|(id, _)| *id).collect()
        };
        let dealt = |role| {
            let servers = of(role);
            let complete = servers.len() == self.expected.of(role);
            let deal = if complete { deal(role, &servers) } else { None };
            deal.map(|d| d.into_iter().map(|s| vec![s]).collect::<Vec<_>>())
        };
        let (Some(dir), Some(small), Some(block)) =
            (dealt(Role::Dir), dealt(Role::Small), dealt(Role::Block))
        else {
            return;
        };
        self.table.servers.extend(self.members.iter().map(|(id, m)| (*id, m.entry.clone())));
        (self.table.dir, self.table.small, self.table.block) = (dir, small, block);
        self.phase = Phase::Adopting;
    }

    /// Puts a server at an address; whether that is news.
    fn readdress(&mut self, server: ServerId, address: &str) -> bool {
        let mut news = false;
        let member = self.members.get_mut(&server).map(|m| &mut m.entry);
        let entry = self.table.servers.get_mut(&server);
        for e in member.into_iter().chain(entry).filter(|e| e.address != address) {
            address.clone_into(&mut e.address);
            news = true;
        }
        if news && self.phase == Phase::Serving {
            self.table.epoch = TableEpoch(self.table.epoch.0 + 1);
        }
        news
    }

    /// A server has stamped its sites. `None` if nothing changes.
    ///
    /// # Errors
    /// [`Refusal::NotAsked`].
    pub fn adopted(&self, server: ServerId, sites: &[Site]) -> std::result::Result<Option<Self>, Refusal> {
        let member = self
            .members
            .get(&server)
            .ok_or(Refusal::NotAsked { server, what: "anything: it is not a member" })?;
        if member.adopted {
            return Ok(None);
        }
        let mut got = sites.to_vec();
        got.sort_unstable();
        if self.phase != Phase::Adopting || got != self.sites_of(server) {
            return Err(Refusal::NotAsked { server, what: "these sites" });
        }
        let mut next = self.clone();
        if let Some(m) = next.members.get_mut(&server) {
            m.adopted = true;
        }
        if next.members.values().all(|m| m.adopted) {
            next.phase = Phase::Serving;
            next.table.epoch = TableEpoch(1);
        }
        Ok(Some(next))
    }
}

#[cfg(test)]
mod tests;
