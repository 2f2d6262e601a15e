//! The file system in maps: what one server would answer that does one operation after the other.

use crate::ops::{Answer, Attr, How, Kind, Name, Obj, Op, Seen, Status};
use slice_proto::nfs3::NfsStat3;
use std::collections::BTreeMap;

/// Names from here on are the clients' data files, whose sizes are not judged here.
pub const FIRST_DATA_NAME: Name = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Dir {
    parent: Obj,
    names: BTreeMap<Name, Obj>,
    mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct File {
    link: bool,
    nlink: u32,
    mode: u32,
    /// `None` where it is not judged.
    size: Option<u64>,
}

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fs {
    root: Obj,
    dirs: BTreeMap<Obj, Dir>,
    files: BTreeMap<Obj, File>,
}

/// What an operation makes of a file system: nothing, or this.
type Next = Option<Fs>;

/// Mode of a new file, and of a new directory.
pub const FILE_MODE: u32 = 0o644;
/// See [`FILE_MODE`].
pub const DIR_MODE: u32 = 0o755;
/// Mode of a file made exclusively, until its creator sets another.
const EXCLUSIVE_MODE: u32 = 0o600;
/// Length of a symbolic link's target.
pub const TARGET: &[u8] = b"target";

impl Fs {
    /// Nothing but a root.
    #[must_use]
    pub fn new(root: Obj) -> Self {
        let dir = Dir { parent: root, names: BTreeMap::new(), mode: 0o777 };
        Self { root, dirs: [(root, dir)].into(), files: BTreeMap::new() }
    }

    /// The names of a directory, if it is there.
    #[must_use]
    pub fn names(&self, dir: Obj) -> Option<&BTreeMap<Name, Obj>> {
        self.dirs.get(&dir).map(|d| &d.names)
    }

    /// Every directory.
    #[must_use]
    pub fn dirs(&self) -> Vec<Obj> {
        self.dirs.keys().copied().collect()
    }

    /// Everything else.
    #[must_use]
    pub fn files(&self) -> Vec<Obj> {
        self.files.keys().copied().collect()
    }

    fn dir(&self, dir: Obj) -> Result<&Dir, Status> {
        let missing = if self.files.contains_key(&dir) { NfsStat3::NOTDIR } else { NfsStat3::STALE };
        self.dirs.get(&dir).ok_or(missing.0)
    }

    fn child(&self, dir: Obj, name: Name) -> Result<Obj, Status> {
        self.dir(dir)?.names.get(&name).copied().ok_or(NfsStat3::NOENT.0)
    }

    fn attr(&self, obj: Obj) -> Result<Attr, Status> {
        if let Some(d) = self.dirs.get(&obj) {
            let subdirs = d.names.values().filter(|c| self.dirs.contains_key(c)).count() as u32;
            return Ok(Attr { kind: Kind::Dir, mode: d.mode, nlink: 2 + subdirs, size: 0 });
        }
        let f = self.files.get(&obj).ok_or(NfsStat3::STALE.0)?;
        let kind = if f.link { Kind::Link } else { Kind::File };
        Ok(Attr { kind, mode: f.mode, nlink: f.nlink, size: f.size.unwrap_or(u64::MAX) })
    }

    fn unlink(&mut self, obj: Obj) {
        if self.dirs.remove(&obj).is_some() {
            return;
        }
        if let Some(f) = self.files.get_mut(&obj) {
            f.nlink -= 1;
            if f.nlink == 0 {
                self.files.remove(&obj);
            }
        }
    }

    fn name(&mut self, dir: Obj, name: Name, obj: Option<Obj>) {
        let names = &mut self.dirs.get_mut(&dir).expect("it was looked up").names;
        match obj {
            Some(obj) => drop(names.insert(name, obj)),
            None => drop(names.remove(&name)),
        }
    }

    fn made(&self, dir: Obj, name: Name, obj: Obj, kind: Kind, mode: u32) -> Self {
        let mut next = self.clone();
        next.name(dir, name, Some(obj));
        if kind == Kind::Dir {
            next.dirs.insert(obj, Dir { parent: dir, names: BTreeMap::new(), mode });
        } else {
            let link = kind == Kind::Link;
            let size = if link { TARGET.len() as u64 } else { 0 };
            let size = (name < FIRST_DATA_NAME).then_some(size);
            next.files.insert(obj, File { link, nlink: 1, mode, size });
        }
        next
    }

    /// Makes something new, whose number only the answer tells.
    fn make(
        &self,
        dir: Obj,
        name: Name,
        (kind, mode): (Kind, u32),
        answer: &Answer,
    ) -> Result<(Seen, Next), Status> {
        if self.dir(dir)?.names.contains_key(&name) {
            return Err(NfsStat3::EXIST.0);
        }
        let obj = answer.as_ref().ok().and_then(|seen| seen.obj).unwrap_or_default();
        let seen = Seen { obj: Some(obj), ..Seen::default() };
        if self.dirs.contains_key(&obj) || self.files.contains_key(&obj) {
            // Its number is another's: no answer of ours looks like this.
            return Ok((Seen::default(), None));
        }
        Ok((seen, Some(self.made(dir, name, obj, kind, mode))))
    }

    fn rename(&self, from_dir: Obj, from: Name, to_dir: Obj, to: Name) -> Result<(Seen, Next), Status> {
        let (from_names, to_names) = (&self.dir(from_dir)?.names, &self.dir(to_dir)?.names);
        let moved = *from_names.get(&from).ok_or(NfsStat3::NOENT.0)?;
        let replaced = to_names.get(&to).copied();
        if replaced == Some(moved) {
            return Ok((Seen::default(), None));
        }
        let is_dir = self.dirs.contains_key(&moved);
        if is_dir && from_dir != to_dir {
            let mut at = to_dir;
            while at != self.root {
                if at == moved {
                    return Err(NfsStat3::INVAL.0);
                }
                at = self.dirs[&at].parent;
            }
        }
        if let Some(replaced) = replaced {
            match (is_dir, self.dirs.get(&replaced)) {
                (true, None) => return Err(NfsStat3::NOTDIR.0),
                (false, Some(_)) => return Err(NfsStat3::ISDIR.0),
                (true, Some(d)) if !d.names.is_empty() => return Err(NfsStat3::NOTEMPTY.0),
                _ => {}
            }
        }
        let mut next = self.clone();
        next.name(from_dir, from, None);
        next.name(to_dir, to, Some(moved));
        if let Some(replaced) = replaced {
            next.unlink(replaced);
        }
        if let Some(d) = next.dirs.get_mut(&moved) {
            d.parent = to_dir;
        }
        Ok((Seen::default(), Some(next)))
    }

    fn take(&self, dir: Obj, name: Name, want_dir: bool) -> Result<(Seen, Next), Status> {
        let obj = self.child(dir, name)?;
        match (want_dir, self.dirs.get(&obj)) {
            (true, None) => return Err(NfsStat3::NOTDIR.0),
            (false, Some(_)) => return Err(NfsStat3::ISDIR.0),
            (true, Some(d)) if !d.names.is_empty() => return Err(NfsStat3::NOTEMPTY.0),
            _ => {}
        }
        let mut next = self.clone();
        next.name(dir, name, None);
        next.unlink(obj);
        Ok((Seen::default(), Some(next)))
    }

    fn expect(&self, op: &Op, answer: &Answer) -> Result<(Seen, Next), Status> {
        match *op {
            Op::Create { dir, name, how } => {
                if let Ok(found) = self.child(dir, name)
                    && how == How::Unchecked
                {
                    if self.dirs.contains_key(&found) {
                        return Err(NfsStat3::ISDIR.0);
                    }
                    return Ok((Seen { obj: Some(found), ..Seen::default() }, None));
                }
                let mode = if how == How::Exclusive { EXCLUSIVE_MODE } else { FILE_MODE };
                self.make(dir, name, (Kind::File, mode), answer)
            }
            Op::Mkdir { dir, name } => self.make(dir, name, (Kind::Dir, DIR_MODE), answer),
            Op::Symlink { dir, name } => self.make(dir, name, (Kind::Link, 0o777), answer),
            Op::Remove { dir, name } => self.take(dir, name, false),
            Op::Rmdir { dir, name } => self.take(dir, name, true),
            Op::Rename { from_dir, from, to_dir, to } => self.rename(from_dir, from, to_dir, to),
            Op::Link { file, dir, name } => {
                let names = &self.dir(dir)?.names;
                self.attr(file)?;
                if names.contains_key(&name) {
                    return Err(NfsStat3::EXIST.0);
                }
                if self.dirs.contains_key(&file) {
                    return Err(NfsStat3::PERM.0);
                }
                let mut next = self.clone();
                next.name(dir, name, Some(file));
                if let Some(f) = next.files.get_mut(&file) {
                    f.nlink += 1;
                }
                Ok((Seen::default(), Some(next)))
            }
            Op::Chmod { obj, mode } => {
                self.attr(obj)?;
                let mut next = self.clone();
                match next.dirs.get_mut(&obj) {
                    Some(d) => d.mode = mode,
                    None => next.files.get_mut(&obj).expect("it is there").mode = mode,
                }
                Ok((Seen::default(), Some(next)))
            }
            Op::Truncate { obj, size } => {
                match self.attr(obj)?.kind {
                    Kind::Dir => return Err(NfsStat3::ISDIR.0),
                    Kind::Link => return Err(NfsStat3::INVAL.0),
                    Kind::File => {}
                }
                let mut next = self.clone();
                let file = next.files.get_mut(&obj).expect("it is there");
                file.size = file.size.map(|_| size);
                Ok((Seen::default(), Some(next)))
            }
            Op::Lookup { dir, name } => {
                Ok((Seen { obj: Some(self.child(dir, name)?), ..Seen::default() }, None))
            }
            Op::Getattr { obj } => Ok((Seen { attr: Some(self.attr(obj)?), ..Seen::default() }, None)),
            // Judged apart: a scan takes many calls.
            Op::Readdir { .. } => Ok((answer.clone().unwrap_or_default(), None)),
        }
    }

    /// Whether the operation may be answered so here, and what it makes of the file system; `None`: nothing.
    ///
    /// # Errors
    /// How it should have been answered.
    pub fn apply(&self, op: &Op, answer: &Answer) -> Result<Next, Answer> {
        if let Op::Readdir { .. } = op {
            return Ok(None);
        }
        let expected = self.expect(op, answer);
        let same = match (&expected, answer) {
            (Ok((seen, _)), Ok(got)) => {
                let attr = match (seen.attr, got.attr) {
                    (Some(want), Some(got)) if want.size == u64::MAX || want.kind == Kind::Dir => {
                        Attr { size: want.size, ..got } == want
                    }
                    (want, got) => want == got,
                };
                attr && seen.obj == got.obj
            }
            // A directory that is gone has no names: its entries' servers may say so before its home is asked (attributes
            // that permit a search may be a second old).
            (Err(want), Err(got)) if matches!(op, Op::Lookup { .. }) && *want == NfsStat3::STALE.0 => {
                [*want, NfsStat3::NOENT.0].contains(got)
            }
            (Err(want), Err(got)) => want == got,
            _ => false,
        };
        match expected {
            Ok((_, next)) if same => Ok(next),
            Err(_) if same => Ok(None),
            Ok((seen, _)) => Err(Ok(seen)),
            Err(status) => Err(Err(status)),
        }
    }
}
