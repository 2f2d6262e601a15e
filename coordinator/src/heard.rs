//! Who was heard of lately, and what all told together. Soft: a restart hears of everybody again.

use slice_proto::ids::{Role, ServerId, TableEpoch};
use slice_proto::stats::ServerStats;
use slice_proto::table::ServerEntry;
use std::collections::BTreeMap;
use std::path::Path;

/// Most servers and µproxies that are remembered.
const MAX_HEARD: usize = 8192;
/// A µproxy that was silent for so long is forgotten: it has gone. In nanoseconds, ten minutes.
const FORGET_NS: u64 = 600 * 1_000_000_000;

/// Who was heard of since the coordinator started.
#[derive(Debug, Default)]
pub struct Heard(BTreeMap<ServerId, Voice>);

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voice {
    /// What it does and where.
    pub entry: ServerEntry,
    /// Its process id, 0 if unknown.
    pub pid: u32,
    /// The file system that its store lies on, so that one shared by several servers counts once; 0 if unknown.
    pub filesystem: u64,
    /// When it was heard last, ns since 1970.
    pub at_ns: u64,
    /// Its figures, from the first heartbeat on.
    pub stats: Option<ServerStats>,
    /// Its routing table's epoch.
    pub table: TableEpoch,
}

/// What FSSTAT answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes of all file systems under data servers.
    pub total: u64,
    /// Bytes free on them.
    pub free: u64,
    /// Bytes that can still be written before the fullest server is full.
    pub available: u64,
    /// Files and directories.
    pub files: u64,
}

impl Heard {
    /// A server has registered.
    pub fn register(&mut self, server: ServerId, voice: Voice) {
        let horizon = voice.at_ns.saturating_sub(FORGET_NS);
        self.0.retain(|_, v| v.entry.role != Role::Proxy || v.at_ns >= horizon);
        if self.0.len() < MAX_HEARD || self.0.contains_key(&server) {
            self.0.insert(server, voice);
        }
    }

    /// A heartbeat. False if the server has not registered since the coordinator started.
    pub fn beat(&mut self, server: ServerId, stats: ServerStats, table: TableEpoch, now_ns: u64) -> bool {
        let Some(voice) = self.0.get_mut(&server) else { return false };
        (voice.stats, voice.table, voice.at_ns) = (Some(stats), table, now_ns);
        true
    }

    /// Everybody.
    pub fn all(&self) -> impl Iterator<Item = (ServerId, &Voice)> {
        self.0.iter().map(|(id, v)| (*id, v))
    }

    /// One server.
    #[must_use]
    pub fn get(&self, server: ServerId) -> Option<&Voice> {
        self.0.get(&server)
    }

    /// What all told together. Bytes are striped evenly over the storage servers, so a server that serves a share s of
    /// them is full when free/s bytes more have been written; the fullest decides.
    #[must_use]
    pub fn space(&self) -> Space {
        let voices: Vec<_> = self.all().filter_map(|(id, v)| Some((id, v, v.stats.as_ref()?))).collect();
        let mut systems: BTreeMap<(u64, u64), System> = BTreeMap::new();
        let mut nodes = 0;
        for (id, v, stats) in &voices {
            if !matches!(v.entry.role, Role::Small | Role::Block) {
                continue;
            }
            // A file system that is not known is its server's own.
            let key = if v.filesystem == 0 { (0, id.0) } else { (v.filesystem, 0) };
            let system = systems.entry(key).or_default();
            system.total = system.total.max(stats.space_total);
            system.free = system.free.map_or(stats.space_free, |f| f.min(stats.space_free)).into();
            let node = u64::from(v.entry.role == Role::Block);
            system.nodes += node;
            nodes += node;
        }
        let total = systems.values().fold(0u64, |sum, s| sum.saturating_add(s.total));
        let free = systems.values().fold(0u64, |sum, s| sum.saturating_add(s.free.unwrap_or(0)));
        let until_full = |s: &System| {
            let free = s.free.unwrap_or(0);
            // Without storage nodes it holds the starts of files only: it matters when nothing is left.
            if s.nodes > 0 {
                mul_div(free, nodes, s.nodes)
            } else if free == 0 {
                0
            } else {
                u64::MAX
            }
        };
        let available = systems.values().map(until_full).min().unwrap_or(0).min(free);
        let files = voices.iter().filter(|(_, v, _)| v.entry.role == Role::Dir);
        let files = files.fold(0u64, |sum, (_, _, s)| sum.saturating_add(s.objects));
        Space { total, free, available, files }
    }
}

/// A file system and who shares it.
#[derive(Default)]
struct System {
    total: u64,
    free: Option<u64>,
    nodes: u64,
}

fn mul_div(a: u64, b: u64, c: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b) / u128::from(c.max(1));
    u64::try_from(wide).unwrap_or(u64::MAX)
}

/// Total and free bytes of the file system that a path lies on.
pub(crate) fn file_system(path: &Path) -> Option<(u64, u64)> {
    let s = rustix::fs::statvfs(path).ok()?;
    Some((s.f_blocks.saturating_mul(s.f_frsize), s.f_bavail.saturating_mul(s.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voice(role: Role, filesystem: u64, at_ns: u64) -> Voice {
        let entry = ServerEntry { role, address: "x:1".into() };
        Voice { entry, pid: 0, filesystem, at_ns, stats: None, table: TableEpoch(1) }
    }

    fn heard(servers: &[(Role, u64, u64, u64)]) -> Heard {
        let mut heard = Heard::default();
        for (id, (role, filesystem, total, free)) in (1..).zip(servers) {
            heard.register(ServerId(id), voice(*role, *filesystem, 0));
            let stats =
                ServerStats { space_total: *total, space_free: *free, objects: 10, ..ServerStats::default() };
            assert!(heard.beat(ServerId(id), stats, TableEpoch(1), 1));
        }
        heard
    }

    #[test]
    fn a_file_system_shared_by_all_counts_once() {
        let h = heard(&[
            (Role::Dir, 5, 100, 40),
            (Role::Small, 5, 100, 40),
            (Role::Block, 5, 100, 40),
            (Role::Block, 5, 100, 39),
        ]);
        assert_eq!(h.space(), Space { total: 100, free: 39, available: 39, files: 10 });
    }

    #[test]
    fn the_fullest_server_decides_what_is_available() {
        let h = heard(&[(Role::Block, 1, 100, 50), (Role::Block, 2, 100, 10), (Role::Small, 3, 100, 70)]);
        assert_eq!(h.space(), Space { total: 300, free: 130, available: 20, files: 0 });
        let h = heard(&[(Role::Block, 0, 100, 50), (Role::Block, 0, 100, 50), (Role::Small, 3, 100, 0)]);
        assert_eq!(h.space(), Space { total: 300, free: 100, available: 0, files: 0 });
        assert_eq!(Heard::default().space(), Space::default());
    }

    #[test]
    fn an_unknown_server_is_told_so_and_gone_proxies_are_forgotten() {
        let mut h = Heard::default();
        assert!(!h.beat(ServerId(1), ServerStats::default(), TableEpoch(1), 1));
        h.register(ServerId(1), voice(Role::Proxy, 0, 0));
        h.register(ServerId(2), voice(Role::Dir, 0, 0));
        h.register(ServerId(3), voice(Role::Proxy, 0, FORGET_NS + 1));
        assert_eq!(h.all().map(|(id, _)| id.0).collect::<Vec<_>>(), [2, 3]);
    }
}
