//! What is known of the files that problems are about: looked at again, closer than a check does. No I/O.

use super::super::judge::MAX_PROBLEMS;
use super::super::problem::Problem;
use bytes::Bytes;
use slice_proto::ids::{Epoch, FileId, Role, ServerId, VolumeId};
use slice_proto::nfs3::FType3;
use slice_proto::peer::data::ObjectInfo;
use slice_proto::peer::dir::{Child, EntryInfo};
use slice_proto::peer::repair::{Held, Seen};
use slice_proto::placement::{STRIPE_UNIT, THRESHOLD, block_sites_under, cookie, name_hash, small_site};
use slice_proto::table::{RoutingTable, Volume};
use std::collections::{BTreeMap, BTreeSet};

/// Names that are kept of each file that several stand for, and of each directory that they stand in: what is more is the next
/// pass's.
const NAMES_KEPT: usize = 16;
/// Names that are kept in all.
const ALL_NAMES_KEPT: usize = 8 * MAX_PROBLEMS;
/// Bits of a cookie below the hash (`placement::cookie`).
const TIE_BITS: u32 = 16;

/// An attribute record, as its home site tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// There is none.
    Gone,
    /// As it was seen.
    Is(Seen),
    /// It is about to change.
    Busy,
}

/// A name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The server that has it.
    pub server: ServerId,
    /// The volume in which it would be found there; `None` if in none.
    pub volume: Option<VolumeId>,
    /// The directory.
    pub dir: FileId,
    /// The name.
    pub name: Bytes,
    /// Whom it stands for.
    pub child: Child,
}

/// Some names, of which not all are kept.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// How many there are.
    pub count: u64,
    /// How many of them are directories'.
    pub subdirs: u64,
    /// The first ones.
    pub kept: Vec<Name>,
}

/// All of it.
#[derive(Debug)]
pub struct Facts<'t> {
    /// The routing table.
    pub table: &'t RoutingTable,
    /// What is wrong.
    pub problems: BTreeSet<Problem>,
    records: BTreeMap<FileId, Record>,
    of: BTreeMap<FileId, Names>,
    inside: BTreeMap<FileId, Names>,
    twice: BTreeMap<(FileId, Vec<u8>), Vec<Name>>,
    objects: BTreeMap<FileId, Vec<(Role, ServerId, ObjectInfo)>>,
    kept: usize,
}

// === impl Facts ===

impl<'t> Facts<'t> {
    /// Nothing is known yet but what is wrong.
    #[must_use]
    pub fn new(table: &'t RoutingTable, problems: impl IntoIterator<Item = Problem>) -> Self {
        let problems: BTreeSet<Problem> = problems.into_iter().collect();
        let ids: BTreeSet<FileId> = problems.iter().flat_map(Problem::files).collect();
        let none = || ids.iter().map(|id| (*id, Names::default())).collect();
        let twice = problems.iter().filter_map(|p| match p {
            Problem::NameTwice { dir, name } => Some(((*dir, name.clone()), Vec::new())),
            _ => None,
        });
        Self {
            table,
            records: ids.iter().map(|id| (*id, Record::Busy)).collect(),
            of: none(),
            inside: none(),
            twice: twice.collect(),
            objects: BTreeMap::new(),
            kept: 0,
            problems,
        }
    }

    /// The files whose records are to be looked at.
    pub fn files(&self) -> Vec<FileId> {
        self.records.keys().copied().collect()
    }

    /// A record was looked at.
    pub fn record(&mut self, file: FileId, record: Record) {
        self.records.insert(file, record);
    }

    /// The next name of all, in order of directory and cookie.
    pub fn entry(&mut self, server: ServerId, e: &EntryInfo) {
        let (subdir, twice) = (e.child.ftype == FType3::Dir as u32, !self.twice.is_empty());
        let lists = [self.of.get_mut(&e.child.file), self.inside.get_mut(&e.dir)];
        if lists.iter().all(Option::is_none) && !twice {
            return;
        }
        for list in lists.into_iter().flatten() {
            list.count += 1;
            list.subdirs += u64::from(subdir);
            if list.kept.len() < NAMES_KEPT && self.kept < ALL_NAMES_KEPT {
                list.kept.push(name(self.table, server, e));
                self.kept += 1;
            }
        }
        if twice && let Some(both) = self.twice.get_mut(&(e.dir, e.name.to_vec())) {
            both.push(name(self.table, server, e));
        }
    }

    /// An object of a data server was looked at.
    pub fn object(&mut self, role: Role, server: ServerId, info: ObjectInfo) {
        self.objects.entry(info.file).or_default().push((role, server, info));
    }

    /// Whether a file's record was looked at.
    #[must_use]
    pub fn looked_at(&self, file: FileId) -> bool {
        self.records.contains_key(&file)
    }

    /// A file's record; what was not looked at may be anything.
    #[must_use]
    pub fn of_record(&self, file: FileId) -> &Record {
        self.records.get(&file).unwrap_or(&Record::Busy)
    }

    /// The names that stand for a file.
    #[must_use]
    pub fn names_of(&self, file: FileId) -> &Names {
        const NONE: &Names = &Names { count: 0, subdirs: 0, kept: Vec::new() };
        self.of.get(&file).unwrap_or(NONE)
    }

    /// The names that stand in a directory.
    #[must_use]
    pub fn names_in(&self, dir: FileId) -> &Names {
        const NONE: &Names = &Names { count: 0, subdirs: 0, kept: Vec::new() };
        self.inside.get(&dir).unwrap_or(NONE)
    }

    /// All that have one name.
    #[must_use]
    pub fn twice(&self, dir: FileId, name: &[u8]) -> &[Name] {
        self.twice.get(&(dir, name.to_vec())).map_or(&[], Vec::as_slice)
    }

    /// A server's object.
    #[must_use]
    pub fn object_at(&self, file: FileId, server: ServerId) -> Option<&ObjectInfo> {
        self.objects_of(file).find(|(_, s, _)| *s == server).map(|(_, _, o)| o)
    }

    /// A file's objects that were looked at.
    pub fn objects_of(&self, file: FileId) -> impl Iterator<Item = &(Role, ServerId, ObjectInfo)> {
        self.objects.get(&file).into_iter().flatten()
    }

    /// Whether any problem is like this.
    #[must_use]
    pub fn any(&self, like: impl Fn(&Problem) -> bool) -> bool {
        self.problems.iter().any(like)
    }

    /// The volume whose root a directory is.
    #[must_use]
    pub fn root(&self, dir: FileId) -> Option<&'t Volume> {
        self.table.volumes.iter().find(|v| v.root == dir)
    }

    /// What the data servers hold of a file below `reach`, as its home site would find it.
    #[must_use]
    pub fn held(&self, file: FileId, reach: u64) -> Held {
        let mut held = Held { small: 0, beyond: false, end: 0 };
        let visited: BTreeSet<ServerId> =
            block_sites_under(file, reach).filter_map(|s| self.table.owner(Role::Block, s)).collect();
        for (role, server, o) in self.objects_of(file) {
            match role {
                Role::Small if self.table.owner(Role::Small, small_site(file)) == Some(*server) => {
                    (held.small, held.beyond) = (o.size, o.beyond);
                }
                Role::Block if visited.contains(server) => held.end = held.end.max(o.size),
                _ => {}
            }
        }
        held
    }

    /// The highest epoch that a data server has of a file.
    #[must_use]
    pub fn past(&self, file: FileId) -> Epoch {
        self.objects_of(file).map(|(_, _, o)| o.epoch).max().unwrap_or_default()
    }

    /// The lowest reach, at least `reach`, under which every storage node that has an object of the file owns a site;
    /// `None` if one owns none at all.
    #[must_use]
    pub fn reach_over(&self, file: FileId, reach: u64) -> Option<u64> {
        let mut over = reach;
        for (_, server, _) in self.objects_of(file).filter(|(role, ..)| *role == Role::Block) {
            // Sites of a file come in order of its stripe units, and then again.
            let mut units = block_sites_under(file, u64::MAX).zip(0u64..);
            let mine = |site| self.table.owner(Role::Block, site) == Some(*server);
            let (_, unit) = units.find(|(site, _)| mine(*site))?;
            over = over.max(if unit == 0 { THRESHOLD + 1 } else { unit * STRIPE_UNIT + 1 });
        }
        Some(over)
    }
}

fn name(table: &RoutingTable, server: ServerId, e: &EntryInfo) -> Name {
    let volume = table.volumes.iter().find(|v| {
        let hash = name_hash(v.seed, e.dir, &e.name);
        cookie(hash, 0) >> TIE_BITS == e.cookie >> TIE_BITS
    });
    Name { server, volume: volume.map(|v| v.id), dir: e.dir, name: e.name.clone(), child: e.child }
}
