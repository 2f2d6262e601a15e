//! Names, and all files: what programs see, what is durable, and which changes lie between.

use std::collections::{BTreeMap, HashMap, HashSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::io::Errno;

use super::bytes::{File, Odds};

/// A file's or a directory's number; never used twice.
pub type Ino = u64;

/// The root's.
pub const ROOT: Ino = 1;

/// What an operation comes to.
pub type Outcome<T> = Result<T, Errno>;

/// A name in its directory.
type Place = (Ino, Vec<u8>);

/// Names of a directory.
type Names = BTreeMap<Vec<u8>, Ino>;

/// A directory.
#[derive(Debug, Default)]
struct Dir {
    now: Names,
    disk: Names,
}

#[derive(Debug)]
enum Body {
    Dir(Dir),
    File(File),
}

#[derive(Debug)]
struct Inode {
    mode: u32,
    body: Body,
}

/// A change of names that nobody has fsynced: whole or not at all.
#[derive(Debug)]
struct Change(Vec<(Place, Option<Ino>)>);

/// What `stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Which.
    pub ino: Ino,
    /// Whether it is a directory.
    pub dir: bool,
    /// Permission bits.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Pages in use.
    pub pages: u64,
}

/// A name in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: Vec<u8>,
    /// Whose.
    pub ino: Ino,
    /// Whether it is a directory.
    pub dir: bool,
}

/// The disk.
#[derive(Debug)]
pub struct Disk {
    inodes: HashMap<Ino, Inode>,
    changes: Vec<Change>,
    next: Ino,
    rng: StdRng,
}

impl Disk {
    /// An empty one. `seed` decides which pages the kernel writes back early.
    pub fn new(seed: u64) -> Self {
        let root = Inode { mode: 0o755, body: Body::Dir(Dir::default()) };
        Self {
            inodes: [(ROOT, root)].into(),
            changes: Vec::new(),
            next: ROOT + 1,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    fn dir(&mut self, ino: Ino) -> Outcome<&mut Dir> {
        match self.inodes.get_mut(&ino).map(|inode| &mut inode.body) {
            Some(Body::Dir(dir)) => Ok(dir),
            Some(Body::File(_)) => Err(Errno::NOTDIR),
            None => Err(Errno::NOENT),
        }
    }

    fn file(&mut self, ino: Ino) -> Outcome<(&mut File, &mut StdRng)> {
        match self.inodes.get_mut(&ino).map(|inode| &mut inode.body) {
            Some(Body::File(file)) => Ok((file, &mut self.rng)),
            Some(Body::Dir(_)) => Err(Errno::ISDIR),
            None => Err(Errno::NOENT),
        }
    }

    /// Whose name this is.
    pub fn lookup(&mut self, dir: Ino, name: &[u8]) -> Outcome<Ino> {
        self.dir(dir)?.now.get(name).copied().ok_or(Errno::NOENT)
    }

    /// What `stat` says.
    pub fn attr(&self, ino: Ino) -> Outcome<Attr> {
        let inode = self.inodes.get(&ino).ok_or(Errno::NOENT)?;
        let (dir, size, pages) = match &inode.body {
            Body::Dir(_) => (true, 4096, 1),
            Body::File(file) => (false, file.size(), file.pages()),
        };
        Ok(Attr { ino, dir, mode: inode.mode, size, pages })
    }

    /// Names in order.
    pub fn list(&mut self, dir: Ino) -> Outcome<Vec<Listed>> {
        let names = self.dir(dir)?.now.clone();
        let listed = |(name, ino): (Vec<u8>, Ino)| {
            let dir = matches!(self.inodes.get(&ino), Some(Inode { body: Body::Dir(_), .. }));
            Listed { name, ino, dir }
        };
        Ok(names.into_iter().map(listed).collect())
    }

    fn change(&mut self, sets: Vec<(Place, Option<Ino>)>) -> Outcome<()> {
        for ((dir, name), ino) in &sets {
            let names = &mut self.dir(*dir)?.now;
            match ino {
                Some(ino) => names.insert(name.clone(), *ino),
                None => names.remove(name),
            };
        }
        self.changes.push(Change(sets));
        Ok(())
    }

    /// Makes a file or a directory.
    pub fn make(&mut self, dir: Ino, name: &[u8], mode: u32, is_dir: bool) -> Outcome<Ino> {
        if self.dir(dir)?.now.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let ino = self.next;
        self.next += 1;
        let body = if is_dir { Body::Dir(Dir::default()) } else { Body::File(File::default()) };
        self.inodes.insert(ino, Inode { mode: mode & 0o7777, body });
        self.change(vec![((dir, name.to_vec()), Some(ino))])?;
        Ok(ino)
    }

    fn removable(&mut self, dir: Ino, name: &[u8], is_dir: bool) -> Outcome<()> {
        let ino = self.lookup(dir, name)?;
        match (self.dir(ino), is_dir) {
            (Ok(found), true) if !found.now.is_empty() => Err(Errno::NOTEMPTY),
            (Ok(_), false) => Err(Errno::ISDIR),
            (Err(_), true) => Err(Errno::NOTDIR),
            _ => Ok(()),
        }
    }

    /// Removes a name. Who has the file open still reads and writes it.
    pub fn remove(&mut self, dir: Ino, name: &[u8], is_dir: bool) -> Outcome<()> {
        self.removable(dir, name, is_dir)?;
        self.change(vec![((dir, name.to_vec()), None)])
    }

    /// Gives a file another name, in place of what has it.
    pub fn rename(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8]), replace: bool) -> Outcome<()> {
        let ino = self.lookup(from.0, from.1)?;
        let is_dir = self.dir(ino).is_ok();
        match self.lookup(to.0, to.1) {
            Ok(_) if !replace => return Err(Errno::EXIST),
            Ok(there) if there == ino => return Ok(()),
            Ok(_) => self.removable(to.0, to.1, is_dir)?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        self.change(vec![((from.0, from.1.to_vec()), None), ((to.0, to.1.to_vec()), Some(ino))])
    }

    /// Gives a file one more name.
    pub fn link(&mut self, ino: Ino, dir: Ino, name: &[u8]) -> Outcome<()> {
        self.file(ino)?;
        if self.dir(dir)?.now.contains_key(name) {
            return Err(Errno::EXIST);
        }
        self.change(vec![((dir, name.to_vec()), Some(ino))])
    }

    /// chmod.
    pub fn chmod(&mut self, ino: Ino, mode: u32) -> Outcome<()> {
        self.inodes.get_mut(&ino).ok_or(Errno::NOENT)?.mode = mode & 0o7777;
        Ok(())
    }

    /// Up to `len` bytes.
    pub fn read(&mut self, ino: Ino, offset: u64, len: usize) -> Outcome<Vec<u8>> {
        Ok(self.file(ino)?.0.read(offset, len))
    }

    /// Writes.
    pub fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Outcome<()> {
        let (file, rng) = self.file(ino)?;
        file.write(offset, data, rng);
        Ok(())
    }

    /// ftruncate.
    pub fn resize(&mut self, ino: Ino, size: u64) -> Outcome<()> {
        self.file(ino)?.0.resize(size);
        Ok(())
    }

    /// Makes a range zeros.
    pub fn punch(&mut self, ino: Ino, offset: u64, len: u64) -> Outcome<()> {
        let (file, rng) = self.file(ino)?;
        file.punch(offset, len, rng);
        Ok(())
    }

    /// SEEK_DATA and SEEK_HOLE.
    pub fn seek(&mut self, ino: Ino, offset: u64, data: bool) -> Outcome<u64> {
        self.file(ino)?.0.seek(offset, data).ok_or(Errno::NXIO)
    }

    /// fsync of a file or a directory.
    pub fn sync(&mut self, ino: Ino) -> Outcome<()> {
        match self.inodes.get_mut(&ino).map(|inode| &mut inode.body) {
            Some(Body::File(file)) => file.sync(),
            Some(Body::Dir(_)) => self.sync_names(ino),
            None => return Err(Errno::NOENT),
        }
        Ok(())
    }

    /// An fsync that failed: what it should have written still reads so, but nothing will write it any more.
    pub fn forsake(&mut self, ino: Ino) -> Outcome<()> {
        match self.inodes.get_mut(&ino).map(|inode| &mut inode.body) {
            Some(Body::File(file)) => file.forsake(),
            // Names stand in the file system's journal: they are written with it, or lost with a cut.
            Some(Body::Dir(_)) => {}
            None => return Err(Errno::NOENT),
        }
        Ok(())
    }

    /// Makes the changes of a directory durable, and the earlier ones of the names that they touch elsewhere.
    fn sync_names(&mut self, dir: Ino) {
        let mut touched = HashSet::new();
        let mut durable = Vec::new();
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            if change.0.iter().any(|(place, _)| place.0 == dir || touched.contains(place)) {
                touched.extend(change.0.iter().map(|(place, _)| place.clone()));
                durable.push(change);
            } else {
                self.changes.push(change);
            }
        }
        self.changes.reverse();
        durable.into_iter().rev().for_each(|change| self.keep(change));
    }

    /// syncfs: everything is durable.
    pub fn sync_everything(&mut self) -> Outcome<()> {
        for change in std::mem::take(&mut self.changes) {
            self.keep(change);
        }
        let files = self.inodes.values_mut().filter_map(|inode| match &mut inode.body {
            Body::File(file) => Some(file),
            Body::Dir(_) => None,
        });
        files.for_each(File::sync);
        Ok(())
    }

    /// Whether a read finds its bytes in the page cache: most do.
    pub fn is_cached(&mut self) -> bool {
        !self.rng.random_ratio(1, 8)
    }

    fn keep(&mut self, change: Change) {
        for ((dir, name), ino) in change.0 {
            let Ok(dir) = self.dir(dir) else { continue };
            match ino {
                Some(ino) => dir.disk.insert(name, ino),
                None => dir.disk.remove(&name),
            };
        }
    }

    /// What a power cut leaves: `seed` decides what that is.
    #[must_use]
    pub fn cut(mut self, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let odds = Odds::draw(&mut rng);
        let mut lost: HashSet<Place> = HashSet::new();
        for change in std::mem::take(&mut self.changes) {
            let behind_lost = change.0.iter().any(|(place, _)| lost.contains(place));
            if !behind_lost && odds.kept(&mut rng) {
                self.keep(change);
            } else {
                lost.extend(change.0.into_iter().map(|(place, _)| place));
            }
        }
        let mut left = Self { next: self.next, ..Self::new(rng.random()) };
        left.inodes.clear();
        let mut reached = vec![ROOT];
        while let Some(ino) = reached.pop() {
            let Some(Inode { mode, body }) = self.inodes.remove(&ino) else { continue };
            let body = match body {
                Body::File(file) => Body::File(file.cut(odds, &mut rng)),
                Body::Dir(Dir { disk, .. }) => {
                    reached.extend(disk.values());
                    Body::Dir(Dir { now: disk.clone(), disk })
                }
            };
            left.inodes.insert(ino, Inode { mode, body });
        }
        left
    }
}
