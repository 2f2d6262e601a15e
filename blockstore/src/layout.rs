//! Where objects lie on disk.
//!
//! ```text
//! DIR/objects/STAMP                            whose objects these are (a disk that is not mounted has none)
//! DIR/objects/00c8/000000012/00c8000000012abc  home site / upper 36 bits of the sequence / file id, in hex
//! ```
//! The names sort as the file ids do, so that a listing goes on where it stopped; a directory holds at most 4096 objects.
//! An object's bytes lie at their offsets in the NFS file; what this server does not hold are holes.

use crate::error::{Error, Result};
use parking_lot::Mutex;
use slice_proto::ids::{FileId, ServerId};
use slice_proto::secret::Identity;
use slice_system::{Directory, File, Files, Open, Stat};
use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bits of the sequence that number the objects of one directory: 4096 names, a directory of 100 to 300 KiB at most.
const LEAF_BITS: u32 = 12;
/// Directories known to be durable that are remembered; beyond, one is fsynced once more than needed.
const MAX_KNOWN: usize = 64 << 10;
/// Times that a directory may be collected between making it and making a file in it.
const MAX_TRIES: usize = 16;
const STAMP: &str = "STAMP";

/// A directory of objects: the file ids' upper bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Leaf(u64);

/// Where objects lie.
#[derive(Debug)]
pub(crate) struct Layout {
    files: Arc<dyn Files>,
    root: PathBuf,
    known: Mutex<Known>,
}

/// Leaves whose own entries are durable.
#[derive(Debug, Default)]
struct Known {
    leaves: HashSet<Leaf>,
    /// Counts removals of leaves: an fsync that began before one proves nothing.
    removals: u64,
}

impl Leaf {
    pub(crate) const fn of(file: FileId) -> Self {
        Self(file.0 >> LEAF_BITS)
    }

    const fn site(self) -> u64 {
        self.0 >> (48 - LEAF_BITS)
    }

    const fn upper(self) -> u64 {
        self.0 & ((1 << (48 - LEAF_BITS)) - 1)
    }
}

fn stamp_text(identity: &Identity, server: ServerId) -> String {
    format!("slice block objects, version 1\nensemble {:016x}\nserver {server}\n", identity.ensemble.0)
}

/// fsyncs a directory: its entries are durable.
fn sync_dir(files: &dyn Files, path: &Path) -> Result<()> {
    files.sync_dir(path).map_err(Error::io("fsync", path))
}

/// A number in hex, `None` if the name is not one of `digits` digits.
fn hex(name: &std::ffi::OsStr, digits: usize) -> Option<u64> {
    let name = name.to_str().filter(|n| n.len() == digits)?;
    u64::from_str_radix(name, 16).ok()
}

/// The hex names of `digits` digits in a directory from `first` on, in order; empty if there is no directory.
fn names(files: &dyn Files, path: &Path, digits: usize, first: u64) -> Result<Vec<u64>> {
    let names = match files.names(path) {
        Ok(names) => names,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", path)(e)),
    };
    let mut all: Vec<u64> =
        names.iter().filter_map(|name| hex(name, digits)).filter(|n| *n >= first).collect();
    all.sort_unstable();
    Ok(all)
}

impl Layout {
    /// Makes an empty `DIR/objects`.
    pub(crate) fn format(
        files: &dyn Files,
        data: &Path,
        identity: &Identity,
        server: ServerId,
    ) -> Result<()> {
        let root = data.join("objects");
        files.make_dirs(&root).map_err(Error::io("make", &root))?;
        // A stamp alone is a format that did not come to its end.
        if files.names(&root).map_err(Error::io("list", &root))?.iter().any(|name| name != STAMP) {
            return Err(Error::NotEmpty { path: root });
        }
        let path = root.join(STAMP);
        let write = || {
            let f = files.open(&path, Open::Empty)?;
            f.write_all_at(stamp_text(identity, server).as_bytes(), 0)?;
            f.sync_all()
        };
        write().map_err(Error::io("write", &path))?;
        sync_dir(files, &root)?;
        sync_dir(files, data)
    }

    /// Opens `DIR/objects`, if it is the server's. Makes durable whatever an earlier life left in the page cache, so that
    /// every object that is found is durably there, where the file system has a syncfs (FUSE has none: see `Object::wrote`).
    pub(crate) fn open(
        files: Arc<dyn Files>,
        data: &Path,
        identity: &Identity,
        server: ServerId,
    ) -> Result<Self> {
        let root = data.join("objects");
        match files.read(&root.join(STAMP)) {
            Ok(found) if found == stamp_text(identity, server).as_bytes() => {}
            Ok(_) => return Err(Error::NotOurObjects { path: root, server }),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(Error::NotOurObjects { path: root, server });
            }
            Err(e) => return Err(Error::io("read", root.join(STAMP))(e)),
        }
        let dir = files.open_dir(&root).map_err(Error::io("open", &root))?;
        dir.sync_file_system().map_err(Error::io("sync", &root))?;
        Ok(Self { files, root, known: Mutex::default() })
    }

    /// The objects' directory, open.
    pub(crate) fn open_root(&self) -> Result<Arc<dyn Directory>> {
        self.files.open_dir(&self.root).map_err(Error::io("open", &self.root))
    }

    fn leaf_dir(&self, leaf: Leaf) -> PathBuf {
        self.root.join(format!("{:04x}", leaf.site())).join(format!("{:09x}", leaf.upper()))
    }

    /// Where an object's file is.
    pub(crate) fn path(&self, file: FileId) -> PathBuf {
        self.leaf_dir(Leaf::of(file)).join(format!("{:016x}", file.0))
    }

    /// Opens an object's file, `None` if there is none.
    pub(crate) fn open_object(&self, file: FileId) -> Result<Option<Arc<dyn File>>> {
        let path = self.path(file);
        match self.files.open(&path, Open::Existing) {
            Ok(object) => Ok(Some(object)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("open", path)(e)),
        }
    }

    /// Makes an object's file, and the directories above it. Durable after [`sync_entry`](Self::sync_entry).
    pub(crate) fn create_object(&self, file: FileId) -> Result<Arc<dyn File>> {
        let path = self.path(file);
        for _ in 0..MAX_TRIES {
            match self.files.open(&path, Open::Create) {
                Ok(object) => return Ok(object),
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    let dir = self.leaf_dir(Leaf::of(file));
                    self.files.make_dirs(&dir).map_err(Error::io("make", dir))?;
                }
                Err(e) => return Err(Error::io("make", path)(e)),
            }
        }
        Err(Error::io("make", path)(ErrorKind::NotFound.into()))
    }

    /// Makes an object's entry durable, and those of the directories above it.
    pub(crate) fn sync_entry(&self, file: FileId) -> Result<()> {
        let leaf = Leaf::of(file);
        let dir = self.leaf_dir(leaf);
        let removals = {
            let known = self.known.lock();
            if known.leaves.contains(&leaf) { None } else { Some(known.removals) }
        };
        sync_dir(&*self.files, &dir)?;
        let Some(removals) = removals else { return Ok(()) };
        if let Some(site) = dir.parent() {
            sync_dir(&*self.files, site)?;
        }
        sync_dir(&*self.files, &self.root)?;
        let mut known = self.known.lock();
        if known.removals == removals {
            if known.leaves.len() >= MAX_KNOWN {
                known.leaves.clear();
            }
            known.leaves.insert(leaf);
        }
        Ok(())
    }

    /// Whether the entries that were in this object's directory when the server started are durable for sure: it, and those above it,
    /// have been fsynced since.
    pub(crate) fn knows(&self, file: FileId) -> bool {
        self.known.lock().leaves.contains(&Leaf::of(file))
    }

    /// Removes an object's file. Durable after [`sync_leaf`](Self::sync_leaf), which need not be soon: the tombstone says that
    /// it is gone.
    pub(crate) fn remove_object(&self, file: FileId) -> Result<()> {
        let path = self.path(file);
        match self.files.remove(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::io("remove", path)(e)),
        }
    }

    /// Makes removals from a leaf durable, and removes the leaf if nothing is left in it.
    pub(crate) fn sync_leaf(&self, leaf: Leaf) -> Result<()> {
        let dir = self.leaf_dir(leaf);
        match sync_dir(&*self.files, &dir) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        // Under the lock, so that no fsync of entries ends in between and takes the leaf for durable.
        let mut known = self.known.lock();
        match self.files.remove_dir(&dir) {
            Ok(()) => {
                known.leaves.remove(&leaf);
                known.removals += 1;
                Ok(())
            }
            Err(e) => match e.kind() {
                ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotFound => Ok(()),
                _ => Err(Error::io("remove", dir)(e)),
            },
        }
    }

    /// Up to `limit` objects' ids above `after`, in order.
    pub(crate) fn list(&self, after: FileId, limit: usize) -> Result<Vec<FileId>> {
        let Some(first) = after.0.checked_add(1).map(FileId) else { return Ok(Vec::new()) };
        let start = Leaf::of(first);
        let mut found = Vec::new();
        for site in names(&*self.files, &self.root, 4, start.site())? {
            let from = if site == start.site() { start.upper() } else { 0 };
            let dir = self.root.join(format!("{site:04x}"));
            for upper in names(&*self.files, &dir, 9, from)? {
                let leaf = Leaf(site << (48 - LEAF_BITS) | upper);
                let room = limit - found.len();
                let ids = names(&*self.files, &self.leaf_dir(leaf), 16, first.0)?;
                found.extend(ids.into_iter().take(room).map(FileId));
                if found.len() >= limit {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// Size of an object's file, whose length is an offset in the NFS file; `None` if there is none.
    pub(crate) fn size(&self, file: FileId) -> Result<Option<Stat>> {
        let path = self.path(file);
        match self.files.stat(&path) {
            Ok(stat) => Ok(Some(stat)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("stat", path)(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_proto::ids::{EnsembleId, Site};
    use slice_system::Kernel;

    fn identity() -> Identity {
        Identity { ensemble: EnsembleId(1), secret: [2; 32] }
    }

    fn format(dir: &Path) -> Result<()> {
        Layout::format(&Kernel, dir, &identity(), ServerId(3))
    }

    fn open(dir: &Path, server: u64) -> Result<Layout> {
        Layout::open(Arc::new(Kernel), dir, &identity(), ServerId(server))
    }

    #[test]
    fn lists_in_order_and_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        format(dir.path()).unwrap();
        let layout = open(dir.path(), 3).unwrap();
        let mut all: Vec<_> = [(0, 1), (0, 4095), (0, 4096), (7, 0), (7, 1 << 40), (255, (1 << 48) - 1)]
            .map(|(site, seq)| FileId::new(Site(site), seq))
            .into();
        for file in all.iter().rev() {
            drop(layout.create_object(*file).unwrap());
            layout.sync_entry(*file).unwrap();
        }
        all.sort_unstable();
        for limit in 1..8 {
            let (mut got, mut after) = (Vec::new(), FileId(0));
            loop {
                let page = layout.list(after, limit).unwrap();
                got.extend_from_slice(&page);
                let Some(last) = page.last().filter(|_| page.len() == limit) else { break };
                after = *last;
            }
            assert_eq!(got, all, "limit {limit}");
        }
        assert_eq!(layout.list(FileId(u64::MAX), 9).unwrap(), []);
    }

    #[test]
    fn an_empty_leaf_is_removed_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        format(dir.path()).unwrap();
        let layout = open(dir.path(), 3).unwrap();
        let (a, b) = (FileId(5), FileId(6));
        layout.create_object(a).unwrap();
        layout.sync_entry(a).unwrap();
        layout.create_object(b).unwrap();
        layout.remove_object(a).unwrap();
        layout.sync_leaf(Leaf::of(a)).unwrap();
        assert!(layout.size(b).unwrap().is_some(), "a leaf with an object in it stays");
        layout.remove_object(b).unwrap();
        layout.sync_leaf(Leaf::of(a)).unwrap();
        assert!(!layout.path(a).parent().unwrap().exists());
        layout.sync_leaf(Leaf::of(a)).unwrap();
        layout.create_object(a).unwrap();
        layout.sync_entry(a).unwrap();
        assert_eq!(layout.size(a).unwrap(), Some(Stat { len: 0, used: 0 }));
    }

    #[test]
    fn no_directory_but_ours_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let open = |server| open(dir.path(), server).map(drop);
        assert!(matches!(open(3), Err(Error::NotOurObjects { .. })), "absent");
        std::fs::create_dir(dir.path().join("objects")).unwrap();
        assert!(matches!(open(3), Err(Error::NotOurObjects { .. })), "empty");
        format(dir.path()).unwrap();
        assert!(matches!(open(4), Err(Error::NotOurObjects { .. })), "another server's");
        open(3).unwrap();
        std::fs::create_dir(dir.path().join("objects/0000")).unwrap();
        assert!(matches!(format(dir.path()), Err(Error::NotEmpty { .. })));
    }
}
