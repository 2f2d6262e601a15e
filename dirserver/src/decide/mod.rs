//! What each operation does: pure functions from the operation and the records it reads to changes and a reply.
//!
//! ```text
//! decide(op, caller, view) ──▶ Outcome { status, changes, reply }      all that it needs is at hand
//!                          └─▶ Missing                                 a record must be loaded, locked or held first;
//!                                                                      then the caller asks again from the start
//! ```
//!
//! A decision has no side effects but a file id taken from the view, so asking again is harmless. Who decides does not
//! know whether a record is here or at a peer: [`crate::tx`] sees to that, and carries the changes to where they belong.
//!
//! Checks come in the order in which a Linux server's VFS makes them, because that is what clients' users know.

pub(crate) mod access;
pub(crate) mod create;
pub(crate) mod effect;
pub(crate) mod link;
pub(crate) mod make;
pub(crate) mod mkdir;
pub(crate) mod mknod;
pub(crate) mod names;
pub(crate) mod perm;
pub(crate) mod push;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod rmdir;
pub(crate) mod setattr;
pub(crate) mod symlink;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use crate::error::Error;
use crate::records::AttrRec;
use crate::state::cache::{AttrCell, NamesKey};
use slice_proto::handle::Handle;
use slice_proto::ids::{FileId, Site};
use slice_proto::nfs3::{CreateHow, MknodWhat, NfsStat3, NfsTime3, Sattr3};
use slice_proto::peer::dir::{AttrEffect, Child, HoldKey, NameEffect};
use slice_proto::placement::name_hash;
use slice_proto::rpc_msg::Cred;
use slice_proto::table::Volume;
use std::sync::Arc;

/// Most hard links of a file: what the µproxy tells clients by PATHCONF.
pub const LINK_MAX: u32 = 65_000;
/// Most subdirectories of a directory, which link to it by their `..`: far more than of hard links, because a user runs
/// into it, and within 31 bits, because clients count them so.
pub const SUBDIR_MAX: u32 = 1 << 30;

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) dir: Handle,
    pub(crate) name: &'a [u8],
}

/// An operation that changes something, decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op<'a> {
    Setattr { file: Handle, attr: Sattr3, guard: Option<NfsTime3> },
    Create { at: At<'a>, how: CreateHow },
    Mkdir { at: At<'a>, attr: Sattr3 },
    Symlink { at: At<'a>, attr: Sattr3, target: &'a [u8] },
    Mknod { at: At<'a>, what: MknodWhat },
    Remove { at: At<'a> },
    Rmdir { at: At<'a> },
    Rename { from: At<'a>, to: At<'a> },
    Link { file: Handle, to: At<'a> },
}

/// Who asks, when, and of which volume.
pub(crate) struct Caller<'a> {
    pub(crate) cred: Cred,
    pub(crate) now_ns: u64,
    pub(crate) volume: &'a Volume,
}

/// Why a decision cannot be made yet.
#[derive(Debug)]
pub(crate) enum Missing {
    /// An attribute record is not in memory.
    Attr(FileId),
    /// Names are not in memory.
    Names(Site, NamesKey),
    /// A site that is ours must be locked too.
    Site(Site),
    /// An operation under way holds the record.
    Busy(HoldKey),
    /// A record must be held, shared or not.
    Hold(HoldKey, bool),
    /// A record of a peer's must be looked at.
    Peek(FileId),
    /// Something is to be changed at a peer: that takes an operation with a number.
    Peer,
    /// A peer must give a file id of this site.
    New(Site),
    /// The store failed.
    Fail(Error),
}

/// The records that a decision reads.
pub(crate) trait View {
    /// The attribute record of a file; `None` if there is none.
    fn attr(&mut self, file: FileId) -> Result<Option<Arc<AttrCell>>, Missing>;
    /// As [`View::attr`], of a directory that is changed by counts and times at most: others may do so, too, meanwhile.
    fn dir(&mut self, dir: FileId) -> Result<Option<Arc<AttrCell>>, Missing>;
    /// As [`View::attr`], not protected from change.
    fn peek(&mut self, file: FileId) -> Result<Option<Arc<AttrCell>>, Missing>;
    /// Whom a name stands for.
    fn child(&mut self, key: NameKey<'_>) -> Result<Option<Child>, Missing>;
    /// A file id of a site that was never used; the same one if the decision is made again.
    fn fresh(&mut self, site: Site) -> Result<FileId, Missing>;
    /// Whether the view has the volume's rename right.
    fn right(&mut self, root: FileId) -> Result<(), Missing>;
}

/// A name and where it is found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NameKey<'a> {
    pub(crate) site: Site,
    pub(crate) dir: FileId,
    pub(crate) hash47: u64,
    pub(crate) name: &'a [u8],
}

/// One change.
#[derive(Debug)]
pub(crate) enum Change {
    /// A new record.
    Make(FileId, Box<AttrRec>),
    /// A record that is ours, replaced.
    Set(FileId, Box<AttrRec>),
    Attr(AttrEffect),
    Name(NameEffect),
}

/// Which attributes a reply shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Before and after of one object: SETATTR, REMOVE, RMDIR, and failures of what makes something.
    Wcc(FileId),
    /// A new (or found) object, and its directory.
    Made { object: Handle, dir: FileId },
    /// RENAME's two directories.
    Two { from: FileId, to: FileId },
    /// LINK's file and directory.
    Link { file: FileId, dir: FileId },
}

/// What follows from an operation.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: NfsStat3,
    /// In the order in which readers may see them: what is referred to before what refers to it.
    pub(crate) changes: Vec<Change>,
    pub(crate) reply: Reply,
    /// A regular file gets a size, which takes its data servers. If it is there, the changes wait for them; if it is made by
    /// these changes, it has its size in them, and the small-file site is told of it after.
    pub(crate) resize: Option<(FileId, u64)>,
}

/// Why an operation does not get to its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It fails.
    Status(NfsStat3),
    /// It cannot be decided yet.
    Missing(Missing),
}

impl From<NfsStat3> for Stop {
    fn from(status: NfsStat3) -> Self {
        Self::Status(status)
    }
}

impl From<Missing> for Stop {
    fn from(missing: Missing) -> Self {
        Self::Missing(missing)
    }
}

/// Decides an operation.
pub(crate) fn decide(op: &Op<'_>, who: &Caller<'_>, view: &mut dyn View) -> Result<Outcome, Missing> {
    let done = match *op {
        Op::Setattr { file, attr, guard } => setattr::setattr(file, &attr, guard, who, view),
        Op::Create { at, how } => create::create(at, how, who, view),
        Op::Mkdir { at, attr } => mkdir::mkdir(at, &attr, who, view),
        Op::Symlink { at, attr, target } => symlink::symlink(at, &attr, target, who, view),
        Op::Mknod { at, what } => mknod::mknod(at, what, who, view),
        Op::Remove { at } => remove::remove(at, who, view),
        Op::Rmdir { at } => rmdir::rmdir(at, who, view),
        Op::Rename { from, to } => rename::rename(from, to, who, view),
        Op::Link { file, to } => link::link(file, to, who, view),
    };
    match done {
        Ok(outcome) => Ok(outcome),
        Err(Stop::Missing(missing)) => Err(missing),
        Err(Stop::Status(status)) => {
            Ok(Outcome { status, changes: Vec::new(), reply: op.failure(), resize: None })
        }
    }
}

// === impl Op ===

impl Op<'_> {
    /// What a failure shows.
    pub(crate) fn failure(&self) -> Reply {
        match self {
            Self::Setattr { file, .. } => Reply::Wcc(file.file),
            Self::Create { at, .. }
            | Self::Mkdir { at, .. }
            | Self::Symlink { at, .. }
            | Self::Mknod { at, .. }
            | Self::Remove { at }
            | Self::Rmdir { at } => Reply::Wcc(at.dir.file),
            Self::Rename { from, to } => Reply::Two { from: from.dir.file, to: to.dir.file },
            Self::Link { file, to } => Reply::Link { file: file.file, dir: to.dir.file },
        }
    }

    /// The handle that says which volume it is about.
    pub(crate) fn handle(&self) -> &Handle {
        match self {
            Self::Setattr { file, .. } => file,
            Self::Create { at, .. }
            | Self::Mkdir { at, .. }
            | Self::Symlink { at, .. }
            | Self::Mknod { at, .. }
            | Self::Remove { at }
            | Self::Rmdir { at } => &at.dir,
            Self::Rename { to, .. } | Self::Link { to, .. } => &to.dir,
        }
    }

    /// Whether a hold that was lost with an earlier life could have refused it: it takes a name or a record away.
    pub(crate) const fn takes_away(&self) -> bool {
        matches!(self, Self::Remove { .. } | Self::Rmdir { .. } | Self::Rename { .. })
    }

    /// The site that executes it.
    pub(crate) fn site(&self, volume: &Volume) -> Site {
        match self {
            Self::Setattr { file, .. } => file.file.home(),
            Self::Create { at, .. }
            | Self::Mkdir { at, .. }
            | Self::Symlink { at, .. }
            | Self::Mknod { at, .. }
            | Self::Remove { at }
            | Self::Rmdir { at } => at.key(volume).site,
            Self::Rename { to, .. } | Self::Link { to, .. } => to.key(volume).site,
        }
    }
}

// === impl At ===

impl<'a> At<'a> {
    /// Where the name is found.
    pub(crate) fn key(&self, volume: &Volume) -> NameKey<'a> {
        let hash = name_hash(volume.seed, self.dir.file, self.name);
        NameKey {
            site: slice_proto::placement::entry_site(volume, self.dir.file, self.name),
            dir: self.dir.file,
            hash47: crate::keys::hash47(hash),
            name: self.name,
        }
    }
}

// === impl NameKey ===

impl NameKey<'_> {
    /// The change of this name from `from` to `to`.
    pub(crate) fn change(&self, from: Option<FileId>, to: Option<Child>) -> Change {
        Change::Name(NameEffect {
            site: self.site,
            dir: self.dir,
            hash: self.hash47,
            name: bytes::Bytes::copy_from_slice(self.name),
            from,
            to,
        })
    }
}

// === impl Outcome ===

impl Outcome {
    pub(crate) const fn ok(changes: Vec<Change>, reply: Reply) -> Self {
        Self { status: NfsStat3::OK, changes, reply, resize: None }
    }
}

/// An effect on an attribute record that changes nothing yet but its ctime.
pub(crate) const fn touch(file: FileId, now_ns: u64) -> AttrEffect {
    AttrEffect { file, now_ns, base_ns: 0, nlink: 0, entries: 0, mtime: false, parent: None, remove: false }
}

/// The record of a directory that a name is to be looked up or changed in.
pub(crate) fn directory(view: &mut dyn View, dir: FileId) -> Result<Arc<AttrCell>, Stop> {
    let cell = view.dir(dir)?.ok_or(NfsStat3::STALE)?;
    if cell.rec.is_dir() { Ok(cell) } else { Err(NfsStat3::NOTDIR.into()) }
}
