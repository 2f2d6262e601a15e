//! Where a call goes: a pure function of the call, the routing table and the export rule (docs/wire.md, "What goes
//! where").

use crate::classify::{Target, mutates};
use crate::config::Rule;
use slice_proto::handle::Handle;
use slice_proto::ids::{Role, Site};
use slice_proto::nfs3::{NfsStat3, Proc3};
use slice_proto::placement;
use slice_proto::table::{NamePolicy, RoutingTable, Volume};

/// `ftype3` of a directory, as it stands in handles.
const DIRECTORY: u8 = 2;

/// What is to be done with an NFSv3 call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// The µproxy answers by itself: NULL, FSINFO, PATHCONF, FSSTAT.
    Local,
    /// The procedure fails with this status.
    Refuse(NfsStat3),
    /// The client's own record goes to the directory server of this site.
    Forward(Site),
    /// LOOKUP where the entry is at another server than the directory: that server cannot tell whether the caller may
    /// search the directory, so the µproxy does (DESIGN §8); then as [`Plan::Forward`].
    Search(Site),
    /// As [`Plan::Forward`] to the file's home site, but what this µproxy has not pushed of the file goes first.
    Setattr(Site),
    /// READDIR or READDIRPLUS of a directory whose entries are spread over several servers; the home site's decides.
    ReaddirMerge(Site),
    /// READ, split by [`placement::split`].
    Read,
    /// WRITE, split by [`placement::split`].
    Write,
    /// COMMIT to every data server with uncommitted bytes.
    Commit,
}

/// Decides. `record` is the call's, `rule` the client's for the volume (`None`: no access).
#[must_use]
pub fn route(
    proc: Proc3,
    target: &Target,
    record: &[u8],
    table: &RoutingTable,
    rule: impl FnOnce(&Volume) -> Option<Rule>,
) -> Plan {
    let handle = match target {
        Target::Nothing => return Plan::Local,
        Target::Bad(status) => return Plan::Refuse(*status),
        Target::Object(handle) => handle,
        Target::Entry { dir, .. } => dir,
        Target::Extent { file, .. } | Target::Write { file, .. } => file,
    };
    // A handle that we made names a volume that we had: it is gone.
    let Some(volume) = table.volume(handle.volume) else { return Plan::Refuse(NfsStat3::STALE) };
    let Some(rule) = rule(volume) else { return Plan::Refuse(NfsStat3::ACCES) };
    if mutates(proc) && (rule.read_only || handle.snapshot != 0) {
        return Plan::Refuse(NfsStat3::ROFS);
    }
    match (proc, target) {
        (Proc3::Fsstat | Proc3::Fsinfo | Proc3::Pathconf, _) => Plan::Local,
        (Proc3::Read, _) => Plan::Read,
        (Proc3::Write, _) => Plan::Write,
        (Proc3::Commit, _) => Plan::Commit,
        (Proc3::Setattr, _) => Plan::Setattr(handle.file.home()),
        (Proc3::Readdir | Proc3::Readdirplus, _) => {
            let site = handle.file.home();
            if spread(volume, table) { Plan::ReaddirMerge(site) } else { Plan::Forward(site) }
        }
        (_, Target::Entry { other: Some(other), .. }) if other.volume != handle.volume => {
            Plan::Refuse(NfsStat3::XDEV)
        }
        (_, Target::Entry { dir, name, .. }) => {
            let site = entry(proc, volume, dir, record.get(name.clone()).unwrap_or_default());
            let owner = |site| table.owner(Role::Dir, site);
            let apart = || matches!(volume.policy, NamePolicy::Hash) && owner(site) != owner(dir.file.home());
            match proc {
                Proc3::Lookup if dir.ftype != DIRECTORY => Plan::Refuse(NfsStat3::NOTDIR),
                Proc3::Lookup if apart() => Plan::Search(site),
                _ => Plan::Forward(site),
            }
        }
        _ => Plan::Forward(handle.file.home()),
    }
}

fn entry(proc: Proc3, volume: &Volume, dir: &Handle, name: &[u8]) -> Site {
    match (proc, name) {
        // `.` and `..` are not entries: the directory itself knows.
        (Proc3::Lookup, b"." | b"..") => dir.file.home(),
        _ => placement::entry_site(volume, dir.file, name),
    }
}

/// Whether the entries of one directory are at more than one server.
fn spread(volume: &Volume, table: &RoutingTable) -> bool {
    let mut owners = table.sites(Role::Dir).iter().filter_map(|servers| servers.first());
    let first = owners.next();
    matches!(volume.policy, NamePolicy::Hash) && owners.any(|owner| Some(owner) != first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Export, Exports};
    use proptest::prelude::*;
    use slice_proto::ids::{FileId, SITES_PER_ROLE, ServerId, TableEpoch, VolumeId};

    fn table(policy: NamePolicy, servers: u64) -> RoutingTable {
        let volume = Volume {
            id: VolumeId(0),
            path: "/".into(),
            root: FileId::new(Site(9), 1),
            policy,
            seed: 5,
            placement: 0,
            root_uid: 0,
            root_gid: 0,
            root_mode: 0o755,
        };
        let dir = (0..SITES_PER_ROLE as u64).map(|i| vec![ServerId(1 + i % servers)]).collect();
        RoutingTable { epoch: TableEpoch(1), dir, volumes: vec![volume], ..RoutingTable::default() }
    }

    fn handle(site: u16) -> Handle {
        Handle { ftype: 2, volume: VolumeId(0), policy: 0, file: FileId::new(Site(site), 3), snapshot: 0 }
    }

    fn rule(_: &Volume) -> Option<Rule> {
        Exports::default().rule("/", [127, 0, 0, 1].into())
    }

    fn read_only(_: &Volume) -> Option<Rule> {
        Exports(vec![Export { read_only: true, ..Export::default() }]).rule("/", [127, 0, 0, 1].into())
    }

    const MKDIR: NamePolicy = NamePolicy::MkdirSwitching { affinity_ppm: 500_000 };

    fn entry_of(name: &[u8], other: Option<Handle>) -> Target {
        Target::Entry { dir: handle(40), name: 0..name.len(), other }
    }

    #[test]
    fn objects_go_to_their_home_and_bytes_to_the_data_path() {
        let t = table(MKDIR, 4);
        let object = Target::Object(handle(200));
        for proc in [Proc3::Getattr, Proc3::Access, Proc3::Readlink, Proc3::Readdir, Proc3::Readdirplus] {
            assert_eq!(route(proc, &object, &[], &t, rule), Plan::Forward(Site(200)), "{proc:?}");
        }
        assert_eq!(route(Proc3::Setattr, &object, &[], &t, rule), Plan::Setattr(Site(200)));
        for proc in [Proc3::Fsinfo, Proc3::Pathconf, Proc3::Fsstat] {
            assert_eq!(route(proc, &object, &[], &t, rule), Plan::Local);
        }
        let extent = Target::Extent { file: handle(1), handle: 0..0, offset: 0, count: 0 };
        assert_eq!(route(Proc3::Read, &extent, &[], &t, rule), Plan::Read);
        assert_eq!(route(Proc3::Commit, &extent, &[], &t, rule), Plan::Commit);
    }

    #[test]
    fn names_go_to_their_entry_site_under_each_policy() {
        let name = b"name";
        let lookup =
            |policy, name: &[u8]| route(Proc3::Lookup, &entry_of(name, None), name, &table(policy, 4), rule);
        assert_eq!(lookup(NamePolicy::Partition, name), Plan::Forward(Site(9)));
        assert_eq!(lookup(MKDIR, name), Plan::Forward(Site(40)));
        let hashed = |name: &[u8]| placement::site_of_hash(placement::name_hash(5, handle(40).file, name));
        assert_eq!(lookup(NamePolicy::Hash, b".."), Plan::Forward(Site(40)));
        for name in [&b"a"[..], b"b", b"c", b"d", b"e", b"f"] {
            // Site 40 is the first of four servers'.
            let here = hashed(name).0 % 4 == 0;
            let plan = if here { Plan::Forward(hashed(name)) } else { Plan::Search(hashed(name)) };
            assert_eq!(lookup(NamePolicy::Hash, name), plan);
        }
        let file = Target::Entry { dir: Handle { ftype: 1, ..handle(40) }, name: 0..4, other: None };
        let got = route(Proc3::Lookup, &file, name, &table(NamePolicy::Hash, 4), rule);
        assert_eq!(got, Plan::Refuse(NfsStat3::NOTDIR));
    }

    #[test]
    fn a_listing_is_merged_only_where_entries_are_spread() {
        let object = Target::Object(handle(200));
        let readdir = |policy, servers| route(Proc3::Readdir, &object, &[], &table(policy, servers), rule);
        assert_eq!(readdir(NamePolicy::Hash, 2), Plan::ReaddirMerge(Site(200)));
        assert_eq!(readdir(NamePolicy::Hash, 1), Plan::Forward(Site(200)));
        assert_eq!(readdir(NamePolicy::Partition, 2), Plan::Forward(Site(200)));
    }

    #[test]
    fn what_may_not_be_is_refused() {
        let t = table(MKDIR, 4);
        let stale = Target::Object(Handle { volume: VolumeId(3), ..handle(1) });
        assert_eq!(route(Proc3::Getattr, &stale, &[], &t, rule), Plan::Refuse(NfsStat3::STALE));
        let object = Target::Object(handle(1));
        assert_eq!(route(Proc3::Getattr, &object, &[], &t, |_| None), Plan::Refuse(NfsStat3::ACCES));
        assert_eq!(route(Proc3::Setattr, &object, &[], &t, read_only), Plan::Refuse(NfsStat3::ROFS));
        assert_eq!(route(Proc3::Getattr, &object, &[], &t, read_only), Plan::Forward(Site(1)));
        let other = Handle { volume: VolumeId(1), ..handle(1) };
        let got = route(Proc3::Rename, &entry_of(b"x", Some(other)), b"x", &t, rule);
        assert_eq!(got, Plan::Refuse(NfsStat3::XDEV));
    }

    proptest! {
        // The site that a forward names exists in every table of full size.
        #[test]
        fn every_forward_has_an_owner(proc in 0u32..22, site in 0u16..256, name in proptest::collection::vec(any::<u8>(), 1..40)) {
            let proc = Proc3::from_u32(proc).unwrap();
            let target = Target::Entry { dir: handle(site), name: 0..name.len(), other: None };
            for policy in [NamePolicy::Partition, MKDIR, NamePolicy::Hash] {
                let t = table(policy, 3);
                if let Plan::Forward(s) | Plan::Setattr(s) | Plan::Search(s) = route(proc, &target, &name, &t, rule) {
                    prop_assert!(t.owner(Role::Dir, s).is_some());
                }
            }
        }
    }
}
