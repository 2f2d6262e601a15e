//! What is wrong, from the lists of all servers: no I/O, everything in order of file ids.

use super::problem::{Problem, Report};
use slice_proto::ids::{FileId, Role, ServerId};
use slice_proto::nfs3::FType3;
use slice_proto::peer::data::ObjectInfo;
use slice_proto::peer::dir::{AttrInfo, EntryInfo};
use slice_proto::placement::{THRESHOLD, block_sites_under, small_site};
use slice_proto::table::RoutingTable;
use std::collections::BTreeSet;

/// Problems that are kept: more would not be read, and must not fill the memory.
pub(super) const MAX_PROBLEMS: usize = 10_000;
/// Bits of a cookie that tell names of one hash apart (`placement::cookie`).
const TIE_BITS: u32 = 16;

/// A name, as the file that it stands for sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ref {
    child: FileId,
    dir: FileId,
    ftype: u32,
}

/// What a directory's names amount to.
#[derive(Debug, Clone, Copy)]
struct Count {
    dir: FileId,
    entries: u64,
    subdirs: u64,
}

/// Gathers the names of all directories.
#[derive(Debug, Default)]
pub struct Names {
    refs: Vec<Ref>,
    counts: Vec<Count>,
    /// Names of the last entry's directory and hash: those that could be the same.
    alike: Vec<Vec<u8>>,
    last: Option<(FileId, u64)>,
    problems: Problems,
}

/// Problems, up to a number.
#[derive(Debug, Default)]
struct Problems {
    kept: BTreeSet<Problem>,
    more: u64,
}

/// All that is known of one file id.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Its attribute records, with the directory servers that hold them.
    pub attrs: Vec<(ServerId, AttrInfo)>,
    /// Its objects at small-file servers.
    pub small: Vec<(ServerId, ObjectInfo)>,
    /// Its objects at storage nodes.
    pub block: Vec<(ServerId, ObjectInfo)>,
}

/// Judges one file after the other.
#[derive(Debug)]
pub struct Files<'t> {
    table: &'t RoutingTable,
    refs: std::iter::Peekable<std::vec::IntoIter<Ref>>,
    counts: std::iter::Peekable<std::vec::IntoIter<Count>>,
    /// Every directory and its parent.
    parents: Vec<(FileId, FileId)>,
    roots: BTreeSet<FileId>,
    report: Report,
    problems: Problems,
}

impl Problems {
    fn add(&mut self, problem: Problem) {
        if self.kept.len() < MAX_PROBLEMS {
            self.kept.insert(problem);
        } else {
            self.more += 1;
        }
    }
}

// === impl Names ===

impl Names {
    /// The next entry, in order of directory and cookie.
    pub fn entry(&mut self, entry: &EntryInfo) {
        let EntryInfo { dir, cookie, name, child } = entry;
        let place = (*dir, cookie >> TIE_BITS);
        if self.last != Some(place) {
            self.alike.clear();
            self.last = Some(place);
        }
        if self.alike.iter().any(|n| n[..] == name[..]) {
            self.problems.add(Problem::NameTwice { dir: *dir, name: name.to_vec() });
        }
        self.alike.push(name.to_vec());
        if self.counts.last().is_none_or(|c| c.dir != *dir) {
            self.counts.push(Count { dir: *dir, entries: 0, subdirs: 0 });
        }
        if let Some(count) = self.counts.last_mut() {
            count.entries += 1;
            count.subdirs += u64::from(child.ftype == FType3::Dir as u32);
        }
        self.refs.push(Ref { child: child.file, dir: *dir, ftype: child.ftype });
    }

    /// All names are in: goes on to the files.
    #[must_use]
    pub fn files(mut self, table: &RoutingTable) -> Files<'_> {
        self.refs.sort_unstable();
        Files {
            report: Report { entries: self.refs.len() as u64, ..Report::default() },
            table,
            refs: self.refs.into_iter().peekable(),
            counts: self.counts.into_iter().peekable(),
            parents: Vec::new(),
            roots: table.volumes.iter().map(|v| v.root).collect(),
            problems: self.problems,
        }
    }
}

// === impl Files ===

impl Files<'_> {
    /// The next file that any server knows of, in order of file ids.
    pub fn file(&mut self, file: FileId, known: &Known) {
        self.pass(Some(file));
        let refs: Vec<Ref> = std::iter::from_fn(|| self.refs.next_if(|r| r.child == file)).collect();
        let count = self.counts.next_if(|c| c.dir == file);
        self.report.objects += (known.small.len() + known.block.len()) as u64;
        let Some((_, attr)) = known.attrs.first() else {
            refs.iter().for_each(|r| self.nameless(r));
            count.iter().for_each(|c| self.homeless(c));
            self.gone(file, known);
            return;
        };
        self.report.files += 1;
        for (server, _) in &known.attrs {
            if known.attrs.len() > 1 || self.table.owner(Role::Dir, file.home()) != Some(*server) {
                self.misplaced(file, Role::Dir, *server);
            }
        }
        for r in refs.iter().filter(|r| r.ftype != attr.ftype) {
            self.problems.add(Problem::TypeDiffers { file, entry: r.ftype, record: attr.ftype });
        }
        if attr.ftype == FType3::Dir as u32 {
            self.directory(file, attr, &refs, count);
        } else {
            self.plain(file, attr, &refs, count);
        }
        if attr.ftype == FType3::Reg as u32 {
            self.bytes(file, attr, known);
        } else {
            for (server, _) in known.small.iter().chain(&known.block).filter(|(_, o)| !o.tombstone) {
                self.problems.add(Problem::BytesOfNoFile { file, server: *server });
            }
        }
    }

    /// Names of, and counts for, file ids below `to` that nobody has a record of.
    fn pass(&mut self, to: Option<FileId>) {
        while let Some(r) = self.refs.next_if(|r| to.is_none_or(|to| r.child < to)) {
            self.nameless(&r);
        }
        while let Some(c) = self.counts.next_if(|c| to.is_none_or(|to| c.dir < to)) {
            self.homeless(&c);
        }
    }

    fn nameless(&mut self, r: &Ref) {
        self.problems.add(Problem::EntryWithoutAttributes { dir: r.dir, child: r.child });
    }

    fn homeless(&mut self, c: &Count) {
        self.problems.add(Problem::EntriesWithoutDirectory { dir: c.dir, entries: c.entries });
    }

    fn misplaced(&mut self, file: FileId, role: Role, server: ServerId) {
        self.problems.add(Problem::Misplaced { file, role, server });
    }

    fn directory(&mut self, dir: FileId, attr: &AttrInfo, refs: &[Ref], count: Option<Count>) {
        self.report.directories += 1;
        self.parents.push((dir, attr.parent));
        let (entries, subdirs) = count.map_or((0, 0), |c| (c.entries, c.subdirs));
        if attr.entries != entries {
            self.problems.add(Problem::EntryCount { dir, counts: attr.entries, has: entries });
        }
        // `.` and the name in the parent, or a root's `..`; and each subdirectory's `..`.
        let should = 2 + subdirs;
        if u64::from(attr.nlink) != should {
            self.problems.add(Problem::LinkCount { file: dir, nlink: attr.nlink, should });
        }
        let root = self.roots.contains(&dir).then_some(dir);
        let parents: Vec<FileId> = root.into_iter().chain(refs.iter().map(|r| r.dir)).collect();
        match parents.as_slice() {
            [] => self.problems.add(Problem::AttributesWithoutEntry { file: dir }),
            [one] if attr.parent == *one => {}
            [one] => self.problems.add(Problem::Parent { dir, names: attr.parent, should: *one }),
            many => self.problems.add(Problem::DirectoryLinked { dir, names: many.len() as u64 }),
        }
    }

    fn plain(&mut self, file: FileId, attr: &AttrInfo, refs: &[Ref], count: Option<Count>) {
        if let Some(c) = count {
            self.problems.add(Problem::EntriesOfAFile { file, entries: c.entries });
        }
        let should = refs.len() as u64;
        if should == 0 {
            self.problems.add(Problem::AttributesWithoutEntry { file });
        } else if u64::from(attr.nlink) != should {
            self.problems.add(Problem::LinkCount { file, nlink: attr.nlink, should });
        }
    }

    /// The bytes of a living file.
    fn bytes(&mut self, file: FileId, attr: &AttrInfo, known: &Known) {
        for (server, o) in known.small.iter().chain(&known.block) {
            if o.epoch > attr.epoch {
                let (record, object) = (attr.epoch, o.epoch);
                self.problems.add(Problem::EpochAhead { file, record, object, server: *server });
            }
            if o.tombstone {
                self.problems.add(Problem::Buried { file, server: *server });
            }
        }
        let owner = self.table.owner(Role::Small, small_site(file));
        for (server, _) in known.small.iter().filter(|(s, _)| Some(*s) != owner) {
            self.misplaced(file, Role::Small, *server);
        }
        let small = known.small.iter().find(|(s, o)| Some(*s) == owner && !o.tombstone).map(|(_, o)| o);
        // A file without bytes need not be known to its small-file server.
        let (holds, beyond) = small.map_or((0, false), |o| (o.size, o.beyond));
        if holds != attr.size.min(THRESHOLD) {
            self.problems.add(Problem::SmallSize { file, size: attr.size, holds });
        }
        if beyond != (attr.size > THRESHOLD) {
            self.problems.add(Problem::Beyond { file, size: attr.size, beyond });
        }
        for (server, o) in known.block.iter().filter(|(_, o)| !o.tombstone && o.size > 0) {
            let (end, server) = (o.size, *server);
            if end > attr.size {
                self.problems.add(Problem::BytesBeyondSize { file, size: attr.size, end, server });
            }
            if end > attr.reach {
                self.problems.add(Problem::BytesBeyondReach { file, reach: attr.reach, end, server });
            }
            let owns = block_sites_under(file, end).any(|s| self.table.owner(Role::Block, s) == Some(server));
            if !owns && o.used > 0 {
                self.misplaced(file, Role::Block, server);
            }
        }
    }

    /// What is left of a file that is gone.
    fn gone(&mut self, file: FileId, known: &Known) {
        for (server, o) in known.small.iter().filter(|(_, o)| !o.tombstone) {
            self.problems.add(Problem::Orphan { file, server: *server, used: o.used });
        }
        // A storage node remembers the epoch of a TRUNCATE even where the file's reach then fell below it: no bytes,
        // and no PURGE will come.
        for (server, o) in known.block.iter().filter(|(_, o)| !o.tombstone && (o.size > 0 || o.used > 0)) {
            self.problems.add(Problem::Orphan { file, server: *server, used: o.used });
        }
    }

    /// All files are in: what is wrong.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.pass(None);
        for root in &self.roots {
            if self.parents.binary_search_by_key(root, |p| p.0).is_err() {
                self.problems.add(Problem::NoRoot { root: *root });
            }
        }
        for dir in unreachable(&self.parents, &self.roots) {
            self.problems.add(Problem::Unreachable { dir });
        }
        Report { problems: self.problems.kept.into_iter().collect(), more: self.problems.more, ..self.report }
    }
}

/// Directories on or behind a cycle of parents. `parents` is in order of directories. One whose parent is missing is told of
/// elsewhere, and what is below it too.
fn unreachable(parents: &[(FileId, FileId)], roots: &BTreeSet<FileId>) -> Vec<FileId> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Unknown,
        OnTheWay,
        Fine,
        Lost,
    }
    let mut states = vec![State::Unknown; parents.len()];
    let state = |states: &[State], i: usize| states.get(i).copied().unwrap_or(State::Fine);
    let mut lost = Vec::new();
    for start in 0..parents.len() {
        let (mut way, mut at) = (Vec::new(), start);
        let verdict = loop {
            match state(&states, at) {
                State::OnTheWay | State::Lost => break State::Lost,
                State::Fine => break State::Fine,
                State::Unknown => {}
            }
            let Some((dir, parent)) = parents.get(at) else { break State::Fine };
            if let Some(s) = states.get_mut(at) {
                *s = State::OnTheWay;
            }
            way.push(at);
            if roots.contains(dir) {
                break State::Fine;
            }
            match parents.binary_search_by_key(parent, |p| p.0) {
                Ok(up) => at = up,
                Err(_) => break State::Fine,
            }
        };
        for i in way {
            if let Some(s) = states.get_mut(i) {
                *s = verdict;
            }
            if verdict == State::Lost {
                lost.extend(parents.get(i).map(|p| p.0));
            }
        }
    }
    lost
}
