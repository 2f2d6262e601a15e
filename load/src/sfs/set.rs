//! The files on the server, and what is known of each that is accessed.

use super::files::{DIRS_PER_GROUP, Files, Planned};
use crate::client::{Fh, must};
use crate::site::{self, Site};
use crate::{Error, Stop, content};
use indicatif::ProgressBar;
use slice_proto::ids::FileId;
use slice_proto::nfs3::{Proc3, Sattr3, Verifier};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::RwLock;

/// One file of this many has a symbolic link beside it.
const FILES_PER_LINK: u64 = 100;
/// One file of this many has another beside it that may be removed.
const FILES_PER_SPARE: u64 = 100;

/// A file that is accessed. Who reads holds it shared, who changes it alone, so its content and size are known exactly.
#[derive(Debug)]
pub struct File {
    /// Its handle.
    pub fh: Fh,
    /// Its number on the server.
    pub fileid: FileId,
    /// Its number in the set.
    pub index: u64,
    /// What tells its content from others'.
    pub key: u64,
    /// Size with which it began, in KiB.
    pub began_kib: u32,
    /// For each KiB, the number of the write that wrote it last.
    pub generations: Vec<u32>,
    /// Writes so far.
    pub writes: u32,
    /// Verifier of the writes since the last COMMIT.
    pub unstable: Option<Verifier>,
    /// Whether a change failed, so that neither content nor size is known any more.
    pub unsure: bool,
}

/// A symbolic link.
#[derive(Debug)]
pub struct Link {
    /// Its handle.
    pub fh: Fh,
    /// What it points to.
    pub target: String,
}

/// All of it.
#[derive(Debug)]
pub struct Set {
    /// Connections, and the directory in which all is.
    pub site: Rc<Site>,
    seed: u64,
    /// Directories, in order.
    pub dirs: RefCell<Vec<Fh>>,
    groups: RefCell<Vec<Fh>>,
    /// Files that are accessed.
    pub files: RefCell<Vec<Arc<RwLock<File>>>>,
    /// Symbolic links.
    pub links: RefCell<Vec<Rc<Link>>>,
    /// Files that may be removed: directory and name.
    pub spare: RefCell<Vec<(usize, String)>>,
    /// Spare files that there were when it was made.
    pub spares_made: Cell<usize>,
    /// Files that have writes without a COMMIT, by their place in [`Self::files`].
    pub dirty: RefCell<Vec<usize>>,
    /// Numbers the names of new files.
    pub named: Cell<u64>,
    /// Files there are.
    pub count: Cell<u64>,
    /// KiB with which they began.
    pub kib: Cell<u64>,
    left: RefCell<std::iter::Peekable<Files>>,
}

// === impl File ===

impl File {
    /// Its size, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        (self.generations.len() * content::KIB) as u64
    }
}

// === impl Set ===

impl Set {
    /// An empty one.
    #[must_use]
    pub fn new(site: Rc<Site>, seed: u64) -> Self {
        Self {
            site,
            seed,
            dirs: RefCell::default(),
            groups: RefCell::default(),
            files: RefCell::default(),
            links: RefCell::default(),
            spare: RefCell::default(),
            spares_made: Cell::new(0),
            dirty: RefCell::default(),
            named: Cell::new(0),
            count: Cell::new(0),
            kib: Cell::new(0),
            left: RefCell::new(Files::new(seed).peekable()),
        }
    }

    /// A name that no file has had.
    pub fn new_name(&self) -> String {
        let n = self.named.get();
        self.named.set(n + 1);
        format!("n{n}")
    }

    /// Makes files until they have `kib`; says whether it came to the end, or was stopped.
    ///
    /// # Errors
    /// Those of the calls.
    pub async fn extend(self: &Rc<Self>, kib: u64, stop: &Stop, bar: &ProgressBar) -> Result<bool, Error> {
        bar.set_length(kib);
        bar.set_position(self.kib.get());
        let mut planned = Vec::new();
        while self.kib.get() < kib || self.count.get() == 0 {
            let Some(file) = self.left.borrow_mut().next() else { break };
            self.kib.set(self.kib.get() + u64::from(file.kib));
            self.count.set(file.index + 1);
            planned.push(file);
        }
        self.make_dirs(planned.last().map_or(0, |f| f.dir() + 1)).await?;
        let steps = planned.into_iter().map(|file| {
            let (set, bar) = (Rc::clone(self), bar.clone());
            async move {
                set.make(file).await?;
                bar.inc(file.kib.into());
                Ok(())
            }
        });
        let whole = site::pipelined(steps, stop).await?;
        // The order in which they were made is luck; requests are drawn by number.
        let mut files = self.files.take();
        files.sort_by_key(|f| f.try_read().map_or(0, |f| f.index));
        self.files.replace(files);
        self.spares_made.set(self.spares_made.get().max(self.spare.borrow().len()));
        Ok(whole)
    }

    async fn make_dirs(&self, until: u64) -> Result<(), Error> {
        let have = || self.dirs.borrow().len() as u64;
        while have() < until {
            let n = have();
            let group = (n / DIRS_PER_GROUP) as usize;
            if self.groups.borrow().len() <= group {
                let made =
                    site::make_dir(self.site.client()?, &self.site.dir, &format!("g{group:05}")).await?;
                self.groups.borrow_mut().push(made);
            }
            let parent = self.groups.borrow().get(group).copied();
            let parent = parent.ok_or(Error::Protocol("a group of directories was not made"))?;
            let dir = site::make_dir(self.site.client()?, &parent, &format!("d{n:07}")).await?;
            self.dirs.borrow_mut().push(dir);
        }
        Ok(())
    }

    /// Makes one file, and the link and the spare file that go with it.
    async fn make(&self, file: Planned) -> Result<(), Error> {
        let client = self.site.client()?;
        let number = file.dir() as usize;
        let dir = self.dirs.borrow().get(number).copied();
        let dir = dir.ok_or(Error::Protocol("a directory was not made"))?;
        let (key, generations) = (content::key(self.seed, file.index), vec![0; file.kib as usize]);
        let fh = site::make_file(client, &dir, &file.name(), &content::bytes(key, 0, &generations)).await?;
        if file.accessed() {
            let attr = must(Proc3::Getattr, client.getattr(&fh).await?)?;
            let known = File {
                fh,
                fileid: attr.fileid,
                index: file.index,
                key,
                began_kib: file.kib,
                generations,
                writes: 0,
                unstable: None,
                unsure: false,
            };
            self.files.borrow_mut().push(Arc::new(RwLock::new(known)));
        }
        if file.index.is_multiple_of(FILES_PER_LINK) {
            let target = format!("../somewhere/{}", file.name());
            let name = format!("l{}", file.index);
            let made = client.symlink(&dir, name.as_bytes(), Sattr3::default(), target.as_bytes()).await?;
            let fh = match must(Proc3::Symlink, made)?.object {
                Some(fh) => fh,
                None => must(Proc3::Lookup, client.lookup(&dir, name.as_bytes()).await?)?.object,
            };
            self.links.borrow_mut().push(Rc::new(Link { fh, target }));
        }
        if file.index.is_multiple_of(FILES_PER_SPARE) {
            let name = self.new_name();
            site::make_file(client, &dir, &name, &[]).await?;
            self.spare.borrow_mut().push((number, name));
        }
        Ok(())
    }
}
