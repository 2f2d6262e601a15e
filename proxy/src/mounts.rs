//! MOUNT versions 1 and 3 (RFC 1813 appendix I): paths of exports, who mounted what. Pure but for the book of mounts;
//! the walk into a volume's subdirectories is `front`'s.

use crate::config::Exports;
use slice_proto::mount::{ExportEntry, ExportList, MountEntry, MountList};
use slice_proto::table::{RoutingTable, Volume};
use std::collections::VecDeque;
use std::net::IpAddr;

/// Entries of the book of mounts; the oldest gives way. Only `showmount` reads it.
const MAX_MOUNTS: usize = 1024;

/// Most components of a path that MNT walks.
pub const MAX_COMPONENTS: usize = 64;

/// A path of MNT, resolved as far as the routing table goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved<'t, 'p> {
    /// The volume.
    pub volume: &'t Volume,
    /// Names to be looked up from its root.
    pub rest: Vec<&'p [u8]>,
}

/// Finds the volume that `path` lies in: the one mounted by its first component, else the one mounted by `/`.
/// `None` if there is none, or the path is relative or has `..` or too many components.
#[must_use]
pub fn resolve<'t, 'p>(table: &'t RoutingTable, path: &'p [u8]) -> Option<Resolved<'t, 'p>> {
    if path.first() != Some(&b'/') {
        return None;
    }
    let mut names: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|n| !n.is_empty() && *n != b".").collect();
    if names.len() > MAX_COMPONENTS || names.contains(&&b".."[..]) {
        return None;
    }
    let named = names.first().and_then(|first| {
        table
            .volumes
            .iter()
            .find(|v| v.path.strip_prefix('/').is_some_and(|p| !p.is_empty() && p.as_bytes() == *first))
    });
    let volume = match named {
        Some(volume) => {
            names.remove(0);
            volume
        }
        None => table.volume_at("/")?,
    };
    Some(Resolved { volume, rest: names })
}

/// Who mounted what, as far as it was not forgotten.
#[derive(Debug, Default)]
pub struct Mounts(VecDeque<(String, Vec<u8>)>);

impl Mounts {
    /// Notes a mount.
    pub fn add(&mut self, client: IpAddr, path: &[u8]) {
        let entry = (client.to_canonical().to_string(), path.to_vec());
        if !self.0.contains(&entry) {
            if self.0.len() >= MAX_MOUNTS {
                self.0.pop_front();
            }
            self.0.push_back(entry);
        }
    }

    /// UMNT, or UMNTALL with `None`.
    pub fn remove(&mut self, client: IpAddr, path: Option<&[u8]>) {
        let client = client.to_canonical().to_string();
        self.0.retain(|(c, p)| *c != client || path.is_some_and(|path| path != p));
    }

    /// DUMP.
    #[must_use]
    pub fn list(&self) -> MountList<'_> {
        MountList(self.0.iter().map(|(host, path)| MountEntry { host: host.as_bytes(), path }).collect())
    }
}

/// Client networks of every volume, as text; empty means everyone. A volume that nobody may mount is left out.
#[must_use]
pub fn exported<'t>(exports: &Exports, table: &'t RoutingTable) -> Vec<(&'t str, Vec<String>)> {
    let rules_of = |path: &str| {
        let rules: Vec<_> = exports.0.iter().filter(|e| e.path == "*" || e.path == path).cloned().collect();
        let everyone = rules.iter().any(|e| e.clients.is_empty());
        let networks = rules.iter().flat_map(|e| &e.clients).map(ToString::to_string);
        (!rules.is_empty()).then(|| if everyone { Vec::new() } else { networks.collect() })
    };
    table.volumes.iter().filter_map(|v| Some((v.path.as_str(), rules_of(&v.path)?))).collect()
}

/// EXPORT.
#[must_use]
pub fn export_list<'a>(exported: &'a [(&str, Vec<String>)]) -> ExportList<'a> {
    let entry = |(path, groups): &'a (&str, Vec<String>)| ExportEntry {
        path: path.as_bytes(),
        groups: groups.iter().map(String::as_bytes).collect(),
    };
    ExportList(exported.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Export, Network};
    use slice_proto::ids::{FileId, VolumeId};
    use slice_proto::table::NamePolicy;

    fn table(paths: &[&str]) -> RoutingTable {
        let volumes = (0..).zip(paths).map(|(i, path)| Volume {
            id: VolumeId(i),
            path: (*path).to_owned(),
            root: FileId(u64::from(i)),
            policy: NamePolicy::Partition,
            seed: 0,
            placement: 0,
            root_uid: 0,
            root_gid: 0,
            root_mode: 0o755,
        });
        RoutingTable { volumes: volumes.collect(), ..RoutingTable::default() }
    }

    #[test]
    fn a_path_finds_its_volume_and_what_is_left_to_walk() {
        let t = table(&["/", "/big"]);
        let found = |path: &'static str| {
            resolve(&t, path.as_bytes())
                .map(|r| (r.volume.path.clone(), r.rest.iter().map(|n| n.to_vec()).collect::<Vec<_>>()))
        };
        assert_eq!(found("/"), Some(("/".into(), vec![])));
        assert_eq!(found("/big/"), Some(("/big".into(), vec![])));
        assert_eq!(found("//big/a/./b"), Some(("/big".into(), vec![b"a".to_vec(), b"b".to_vec()])));
        assert_eq!(found("/bigger"), Some(("/".into(), vec![b"bigger".to_vec()])));
        for wrong in ["", "big", "/a/../b"] {
            assert_eq!(found(wrong), None, "{wrong}");
        }
        assert!(resolve(&table(&["/only"]), b"/").is_none());
    }

    #[test]
    fn the_book_of_mounts_is_bounded_and_forgets_on_request() {
        let mut m = Mounts::default();
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        m.add(a, b"/x");
        m.add(a, b"/x");
        m.add(a, b"/y");
        m.add(b, b"/x");
        assert_eq!(m.list().0.len(), 3);
        m.remove(a, Some(b"/x"));
        assert_eq!(m.list().0.len(), 2);
        m.remove(a, None);
        assert_eq!(m.list().0, vec![MountEntry { host: b"10.0.0.2", path: b"/x" }]);
        for i in 0..3000 {
            m.add(a, i.to_string().as_bytes());
        }
        assert_eq!(m.list().0.len(), MAX_MOUNTS);
    }

    #[test]
    fn exports_name_their_networks() {
        let t = table(&["/", "/a"]);
        let net = Network::parse("10.0.0.0/8").unwrap();
        let exports = Exports(vec![Export { path: "/a".into(), clients: vec![net], ..Export::default() }]);
        assert_eq!(exported(&exports, &t), vec![("/a", vec!["10.0.0.0/8".to_owned()])]);
        assert_eq!(exported(&Exports::default(), &t), vec![("/", vec![]), ("/a", vec![])]);
    }
}
