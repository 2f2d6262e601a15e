//! What is to be done about a problem: pure.
//!
//! Only what can be told from what is there is repaired, and only if nothing can be lost by it: a name or a record's count is
//! made to agree with the others, never a file's content guessed. What is repaired at one server may show a problem at another
//! (a name that goes leaves a count behind), which the next look finds and repairs.

use super::super::problem::Problem;
use super::facts::{Facts, Name, Record};
use slice_proto::ids::{Epoch, FileId, Role, ServerId, VolumeId};
use slice_proto::nfs3::FType3;
use slice_proto::peer::dir::Child;
use slice_proto::peer::repair::{CountsRepair, MakeRepair, NameRepair, Repair as Home, Seen, SizeRepair};
use slice_proto::placement::small_site;
use std::collections::BTreeSet;

/// Permission bits of a directory that is made again: nobody but root, until root says otherwise.
const MODE: u32 = 0o700;

/// What is to be done about a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// This.
    Do(Vec<Repair>),
    /// Nothing yet: another problem's repair comes first.
    Later(&'static str),
    /// Nothing any more: it is over.
    Over,
    /// Nothing: an operator must decide. What he can do.
    Leave(&'static str),
}

/// A repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// A change of one record of a directory server.
    At(Home),
    /// A file that no name stands for gets one in `/lost+found`.
    Adopt(Seen),
    /// An object of no file goes.
    Purge {
        /// What has it.
        role: Role,
        /// Which.
        server: ServerId,
        /// Whose it is.
        file: FileId,
        /// Above the object's.
        epoch: Epoch,
    },
}

impl Repair {
    /// Whether names, or what they stand for, are changed by it.
    #[must_use]
    pub const fn names(&self) -> bool {
        matches!(self, Self::At(Home::Name(_) | Home::Make(_)) | Self::Adopt(_))
    }

    /// Whether it sets what names amount to.
    #[must_use]
    pub const fn counts(&self) -> bool {
        matches!(self, Self::At(Home::Counts(_)))
    }
}

const MISPLACED: &str = "two servers tell of it, or one that does not own its site: a server runs on another's store, or on one \
    that was restored alone; give each server its own --data, or restore the backup of the whole ensemble";
const RECORD_LOST: &str = "its attribute record was lost, but not its bytes: restore the backup of the whole ensemble; or remove \
    the name, and repair again to free the bytes";
const BURIED: &str = "its bytes are gone: remove the file, and bring it back from a backup";
const MISFILED: &str = "the name stands where no look-up finds it: restore the backup of the whole ensemble";
const WHOSE: &str = "it cannot be told to which volume it belongs: restore the backup of the whole ensemble";
const UNSURE: &str = "its name and its record differ about what it is, and it has bytes: restore the backup of the whole \
    ensemble; or remove the name, and repair again to free the bytes";
const ROOT: &str =
    "the record of the root says that it is no directory: restore the backup of the whole ensemble";
const BUSY: &str = "it is about to change";

/// What is to be done about a problem. Exhaustive: a new kind of problem needs a decision here.
#[must_use]
pub fn plan(problem: &Problem, facts: &Facts<'_>) -> Plan {
    // Of two records, or of bytes at two places, it is not known which is true.
    let misplaced = |p: &Problem| match p {
        Problem::Misplaced { file, .. } => problem.files().contains(file),
        _ => false,
    };
    if facts.any(misplaced) {
        return Plan::Leave(MISPLACED);
    }
    match problem {
        Problem::EntryWithoutAttributes { dir, child } => dangling(facts, *dir, *child),
        Problem::AttributesWithoutEntry { file } => nameless(facts, *file),
        Problem::EntriesWithoutDirectory { dir, .. } => no_directory(facts, *dir),
        Problem::EntriesOfAFile { file, .. } => names_of_a_file(facts, *file),
        Problem::NameTwice { dir, name } => twice(facts.twice(*dir, name)),
        Problem::TypeDiffers { file, .. } => types(facts, *file),
        Problem::LinkCount { file, .. }
        | Problem::EntryCount { dir: file, .. }
        | Problem::Parent { dir: file, .. } => counts(facts, *file),
        Problem::DirectoryLinked { dir, .. } => linked(facts, *dir),
        Problem::Unreachable { dir } => unreachable(facts, *dir),
        Problem::Misplaced { .. } => Plan::Leave(MISPLACED),
        Problem::NoRoot { root } => no_root(facts, *root),
        Problem::SmallSize { file, .. }
        | Problem::Beyond { file, .. }
        | Problem::BytesBeyondSize { file, .. }
        | Problem::BytesBeyondReach { file, .. }
        | Problem::EpochAhead { file, .. } => sizes(facts, *file),
        Problem::Buried { .. } => Plan::Leave(BURIED),
        Problem::BytesOfNoFile { file, server } => no_file(facts, *file, *server),
        Problem::Orphan { file, server, .. } => orphan(facts, *file, *server),
    }
}

/// These repairs; if there are none, the problem is over.
fn all(repairs: Vec<Repair>) -> Plan {
    if repairs.is_empty() { Plan::Over } else { Plan::Do(repairs) }
}

/// Has names stand for something else; `None` if one stands where no look-up finds it.
fn change<'a>(names: impl IntoIterator<Item = &'a Name>, to: impl Fn(&Name) -> Option<Child>) -> Plan {
    let repair = |n: &'a Name| {
        let name = n.name.clone();
        let r = NameRepair { volume: n.volume?, dir: n.dir, name, from: Some(n.child.file), to: to(n) };
        Some(Repair::At(Home::Name(r)))
    };
    match names.into_iter().map(repair).collect::<Option<Vec<_>>>() {
        Some(repairs) => all(repairs),
        None => Plan::Leave(MISFILED),
    }
}

fn dangling(facts: &Facts<'_>, dir: FileId, child: FileId) -> Plan {
    match facts.of_record(child) {
        Record::Gone => {}
        Record::Is(_) => return Plan::Over,
        Record::Busy => return Plan::Later(BUSY),
    }
    if facts.names_in(child).count > 0 {
        return Plan::Later("the directory that it stands for is made again first");
    }
    if facts.any(|p| matches!(p, Problem::Orphan { file, .. } if *file == child)) {
        return Plan::Leave(RECORD_LOST);
    }
    change(facts.names_of(child).kept.iter().filter(|n| n.dir == dir), |_| None)
}

fn nameless(facts: &Facts<'_>, file: FileId) -> Plan {
    let seen = match facts.of_record(file) {
        Record::Gone => return Plan::Over,
        Record::Is(seen) => seen,
        Record::Busy => return Plan::Later(BUSY),
    };
    if facts.root(file).is_some() {
        return Plan::Leave(ROOT);
    }
    if facts.names_of(file).count > 0 {
        return Plan::Over;
    }
    match facts.table.volume(seen.volume) {
        None => Plan::Leave(WHOSE),
        Some(v) if facts.any(|p| *p == Problem::NoRoot { root: v.root }) => {
            Plan::Later("the root directory is made again first")
        }
        Some(_) => Plan::Do(vec![Repair::Adopt(seen.clone())]),
    }
}

/// The counts of a directory, from its names: links, entries.
fn of_directory(facts: &Facts<'_>, dir: FileId) -> Option<(u32, u64)> {
    let inside = facts.names_in(dir);
    // `.` and its name (or a root's `..`), and each subdirectory's `..`.
    Some((u32::try_from(2 + inside.subdirs).ok()?, inside.count))
}

fn made(
    facts: &Facts<'_>,
    dir: FileId,
    volume: VolumeId,
    policy: u32,
    parent: FileId,
    (mode, uid, gid): (u32, u32, u32),
) -> Plan {
    match (facts.of_record(dir), of_directory(facts, dir)) {
        (Record::Is(_), _) => Plan::Over,
        (Record::Gone, Some((nlink, entries))) => {
            let make = MakeRepair { dir, volume, policy, mode, uid, gid, nlink, parent, entries };
            Plan::Do(vec![Repair::At(Home::Make(make))])
        }
        (Record::Busy, _) | (_, None) => Plan::Later(BUSY),
    }
}

fn no_directory(facts: &Facts<'_>, dir: FileId) -> Plan {
    if facts.root(dir).is_some() {
        return Plan::Later("the root directory is made again first");
    }
    let name = facts.names_of(dir).kept.first();
    let inside = facts.names_in(dir).kept.first();
    let Some(inside) = inside else { return Plan::Over };
    let Some(volume) = inside.volume.and_then(|v| facts.table.volume(v)) else {
        return Plan::Leave(WHOSE);
    };
    let policy = name.map_or(volume.placement, |n| n.child.policy);
    let parent = name.map_or(volume.root, |n| n.dir);
    made(facts, dir, volume.id, policy, parent, (MODE, 0, 0))
}

fn no_root(facts: &Facts<'_>, root: FileId) -> Plan {
    let Some(v) = facts.root(root) else { return Plan::Over };
    if let Record::Is(seen) = facts.of_record(root)
        && seen.attr.ftype != FType3::Dir as u32
    {
        return Plan::Leave(ROOT);
    }
    made(facts, root, v.id, v.placement, root, (v.root_mode, v.root_uid, v.root_gid))
}

fn names_of_a_file(facts: &Facts<'_>, file: FileId) -> Plan {
    if facts.root(file).is_some() {
        return Plan::Leave(ROOT);
    }
    match facts.of_record(file) {
        // Nothing is lost but the names, of which the report tells: files that have no other get one in lost+found.
        Record::Is(seen) if seen.attr.ftype != FType3::Dir as u32 => {
            change(&facts.names_in(file).kept, |_| None)
        }
        Record::Is(_) | Record::Gone => Plan::Over,
        Record::Busy => Plan::Later(BUSY),
    }
}

fn twice(names: &[Name]) -> Plan {
    match names {
        // The first is the one that is found. The other's file, if it has no other name, gets one in lost+found.
        [first, more @ ..] if !more.is_empty() => {
            if more.iter().any(|n| n.server != first.server) {
                return Plan::Leave(MISPLACED);
            }
            change([first], |n| Some(n.child))
        }
        _ => Plan::Over,
    }
}

fn types(facts: &Facts<'_>, file: FileId) -> Plan {
    if facts.any(|p| matches!(p, Problem::BytesOfNoFile { file: f, .. } if *f == file)) {
        return Plan::Leave(UNSURE);
    }
    match facts.of_record(file) {
        Record::Is(seen) => {
            let child = Child { file, ftype: seen.attr.ftype, policy: seen.policy };
            change(facts.names_of(file).kept.iter().filter(|n| n.child != child), |_| Some(child))
        }
        Record::Gone => Plan::Over,
        Record::Busy => Plan::Later(BUSY),
    }
}

fn counts(facts: &Facts<'_>, file: FileId) -> Plan {
    let seen = match facts.of_record(file) {
        Record::Is(seen) => seen,
        Record::Gone => return Plan::Over,
        Record::Busy => return Plan::Later(BUSY),
    };
    let names = facts.names_of(file);
    let directory = seen.attr.ftype == FType3::Dir as u32;
    let counted = if directory {
        of_directory(facts, file)
    } else {
        u32::try_from(names.count).ok().map(|nlink| (nlink, 0))
    };
    let Some((nlink, entries)) = counted else { return Plan::Later(BUSY) };
    let parent = match (directory, facts.root(file), names.kept.as_slice()) {
        (false, ..) => FileId(0),
        (true, Some(_), _) => file,
        (true, None, [one]) if names.count == 1 => one.dir,
        // Which of several, or of none, is another problem's.
        (true, None, _) => seen.attr.parent,
    };
    let is = (seen.attr.nlink, seen.attr.entries, seen.attr.parent);
    if is == (nlink, entries, parent) || (!directory && nlink == 0) {
        return Plan::Over;
    }
    let counts = CountsRepair { seen: seen.clone(), nlink, entries, parent };
    Plan::Do(vec![Repair::At(Home::Counts(counts))])
}

/// A directory keeps one name: where its record says that it is, else the first.
fn linked(facts: &Facts<'_>, dir: FileId) -> Plan {
    let seen = match facts.of_record(dir) {
        Record::Is(seen) => seen,
        Record::Gone => return Plan::Over,
        Record::Busy => return Plan::Later(BUSY),
    };
    let names = &facts.names_of(dir).kept;
    let keep = if facts.root(dir).is_some() {
        None
    } else {
        // Not one within itself.
        let fine = |n: &&Name| n.dir != dir;
        let parent = names.iter().filter(fine).find(|n| n.dir == seen.attr.parent);
        parent.or_else(|| names.iter().find(fine)).or_else(|| names.first())
    };
    change(names.iter().filter(|n| Some(*n) != keep), |_| None)
}

/// A directory of a circle loses its name there, and so gets one in lost+found; those behind it come with it.
fn unreachable(facts: &Facts<'_>, dir: FileId) -> Plan {
    let lost: BTreeSet<FileId> = facts
        .problems
        .iter()
        .filter_map(|p| match p {
            Problem::Unreachable { dir } => Some(*dir),
            _ => None,
        })
        .collect();
    let explained = facts.any(|p| match p {
        Problem::Parent { dir, .. } | Problem::DirectoryLinked { dir, .. } => lost.contains(dir),
        Problem::AttributesWithoutEntry { file } => lost.contains(file),
        _ => false,
    });
    if explained {
        return Plan::Later("names and parents are made to agree first");
    }
    let up = |dir: FileId| match facts.of_record(dir) {
        Record::Is(seen) => Some(seen.attr.parent),
        Record::Gone | Record::Busy => None,
    };
    // Round once: back here if it is on the circle.
    let round = std::iter::successors(up(dir), |at| up(*at)).take(lost.len());
    let mut lowest = dir;
    for at in round {
        if at == dir {
            return match lowest == dir {
                true => change(&facts.names_of(dir).kept, |_| None),
                false => Plan::Later("another directory of the circle is cut out first"),
            };
        }
        lowest = lowest.min(at);
    }
    Plan::Later("the circle that it hangs on is cut first")
}

/// The file's home site has all data servers agree with the size in its record.
fn sizes(facts: &Facts<'_>, file: FileId) -> Plan {
    if facts.any(|p| matches!(p, Problem::Buried { file: f, .. } if *f == file)) {
        return Plan::Leave(BURIED);
    }
    match facts.of_record(file) {
        Record::Is(seen) if seen.attr.ftype == FType3::Reg as u32 => {
            let Some(reach) = facts.reach_over(file, seen.attr.reach) else {
                return Plan::Leave(MISPLACED);
            };
            let (past, held) = (facts.past(file), facts.held(file, reach));
            let size = SizeRepair { seen: seen.clone(), past, reach, held };
            Plan::Do(vec![Repair::At(Home::Size(size))])
        }
        Record::Is(_) | Record::Gone => Plan::Over,
        Record::Busy => Plan::Later(BUSY),
    }
}

fn purge(facts: &Facts<'_>, file: FileId, server: ServerId) -> Plan {
    let Some(role) = facts.table.servers.get(&server).map(|e| e.role) else {
        return Plan::Leave(MISPLACED);
    };
    // A server takes nothing for a site that is not its own (I4).
    if role == Role::Small && facts.table.owner(Role::Small, small_site(file)) != Some(server) {
        return Plan::Leave(MISPLACED);
    }
    match facts.object_at(file, server) {
        Some(o) if !o.tombstone => {
            Plan::Do(vec![Repair::Purge { role, server, file, epoch: Epoch(o.epoch.0 + 1) }])
        }
        _ => Plan::Over,
    }
}

fn no_file(facts: &Facts<'_>, file: FileId, server: ServerId) -> Plan {
    if facts.any(|p| matches!(p, Problem::TypeDiffers { file: f, .. } if *f == file)) {
        return Plan::Leave(UNSURE);
    }
    match facts.of_record(file) {
        Record::Is(seen) if seen.attr.ftype != FType3::Reg as u32 => purge(facts, file, server),
        Record::Is(_) | Record::Gone => Plan::Over,
        Record::Busy => Plan::Later(BUSY),
    }
}

fn orphan(facts: &Facts<'_>, file: FileId, server: ServerId) -> Plan {
    match facts.of_record(file) {
        Record::Gone if facts.names_of(file).count > 0 => Plan::Leave(RECORD_LOST),
        Record::Gone => purge(facts, file, server),
        Record::Is(_) => Plan::Over,
        Record::Busy => Plan::Later(BUSY),
    }
}
