//! The file system in memory: what there is, and what of it was seen.

use super::scan::Scan;
use super::{Result, differs};
use slice_load::client::Fh;
use slice_proto::nfs3::{FType3, Fattr3, NfsTime3, SpecData3, Verifier};
use slice_proto::rpc_msg::Cred;
use std::collections::{BTreeMap, HashSet};

/// A node's number: in the order in which they were made, never used twice. 0 is the root.
pub type Id = usize;

/// Set-user-id.
pub const S_ISUID: u32 = 0o4000;
/// Set-group-id.
pub const S_ISGID: u32 = 0o2000;
/// Sticky.
pub const S_ISVTX: u32 = 0o1000;
/// Execute by the group.
pub const S_IXGRP: u32 = 0o0010;
/// All that a mode can have.
pub const MODE_BITS: u32 = 0o7777;

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file: its bytes.
    File(Vec<u8>),
    /// A directory: its names.
    Dir(BTreeMap<Vec<u8>, Id>),
    /// A symbolic link: its target.
    Link(Vec<u8>),
    /// A device, socket or FIFO.
    Special(FType3, SpecData3),
}

/// What may have become of a time since it was last seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Time {
    /// Nothing.
    #[default]
    Same,
    /// It has advanced.
    Later,
    /// It may have advanced.
    NotEarlier,
    /// It was set to this.
    Exactly(NfsTime3),
    /// Anything.
    Any,
}

/// What may have become of a node's times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// atime.
    pub atime: Time,
    /// mtime.
    pub mtime: Time,
    /// ctime.
    pub ctime: Time,
}

/// Bytes that were written UNSTABLE and not committed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uncommitted {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// What the WRITE's reply said.
    pub verf: Verifier,
}

/// A file, directory, link or special file.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Mode bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Links; 0 when it is gone.
    pub nlink: u32,
    /// A directory's parent.
    pub parent: Id,
    /// Its handle.
    pub fh: Fh,
    /// Its attributes as last seen: they must stay so but for what `moved` tells.
    pub seen: Option<Fattr3>,
    /// What has changed since.
    pub moved: Moved,
    /// Mode bits that the protocol leaves to the server; learned from the next attributes.
    pub loose: u32,
    /// Verifier of the exclusive CREATE that made it, until something else happens to it.
    pub verf: Option<[u8; 8]>,
    /// What must be written again if a verifier changes.
    pub uncommitted: Vec<Uncommitted>,
    /// It was written, and its home may not have been told yet.
    pub unpushed: bool,
    /// Something else than a write has changed it while it was so: when its home is told, ctime advances once more.
    pub crossed: bool,
}

/// The file system in memory.
#[derive(Debug)]
pub struct Fs {
    nodes: Vec<Node>,
    /// Listings under way.
    pub scans: Vec<Scan>,
    fileids: HashSet<u64>,
    fsid: Option<u64>,
    /// The server is not ours: times may stand still for a clock tick, and READ updates atime.
    pub reference: bool,
}

// === impl Node ===

impl Node {
    /// A new node.
    pub fn new(kind: Kind, mode: u32, uid: u32, gid: u32, parent: Id, fh: Fh) -> Self {
        let nlink = if matches!(kind, Kind::Dir(_)) { 2 } else { 1 };
        Self {
            kind,
            mode,
            uid,
            gid,
            nlink,
            parent,
            fh,
            seen: None,
            moved: Moved::default(),
            loose: 0,
            verf: None,
            uncommitted: Vec::new(),
            unpushed: false,
            crossed: false,
        }
    }

    /// Its ftype3.
    pub fn ftype(&self) -> FType3 {
        match &self.kind {
            Kind::File(_) => FType3::Reg,
            Kind::Dir(_) => FType3::Dir,
            Kind::Link(_) => FType3::Lnk,
            Kind::Special(ftype, _) => *ftype,
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir(_))
    }

    /// A directory's names; none for anything else.
    pub fn names(&self) -> Option<&BTreeMap<Vec<u8>, Id>> {
        if let Kind::Dir(names) = &self.kind { Some(names) } else { None }
    }

    /// A regular file's bytes.
    pub fn bytes(&self) -> Option<&Vec<u8>> {
        if let Kind::File(bytes) = &self.kind { Some(bytes) } else { None }
    }

    /// Whether there is still a name for it.
    pub fn alive(&self) -> bool {
        self.nlink > 0
    }

    /// Whether `cred` has all of `bits` (4 read, 2 write, 1 execute or search) by mode.
    pub fn may(&self, cred: &Cred, bits: u32) -> bool {
        if cred.uid == 0 {
            return self.is_dir() || bits & 1 == 0 || self.mode & 0o111 != 0;
        }
        let class = if cred.uid == self.uid {
            self.mode >> 6
        } else if cred.in_group(self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        class & bits == bits
    }

    /// Whether `cred` owns it, or is root.
    pub fn owned(&self, cred: &Cred) -> bool {
        cred.uid == 0 || cred.uid == self.uid
    }

    /// Its bytes or names have changed.
    pub fn changed(&mut self) {
        self.moved.mtime = Time::Later;
        self.attr_changed();
    }

    /// Its attributes have changed.
    pub fn attr_changed(&mut self) {
        self.moved.ctime = Time::Later;
        self.verf = None;
        self.crossed |= self.unpushed;
    }

    /// Its home has been told of all that was written.
    pub fn pushed(&mut self) {
        if std::mem::take(&mut self.crossed) && self.moved.ctime == Time::Same {
            self.moved.ctime = Time::NotEarlier;
        }
        self.unpushed = false;
    }

    /// Another than root has written it: set-id bits go.
    pub fn written_by(&mut self, cred: &Cred) {
        if cred.uid != 0 {
            self.mode &= !S_ISUID;
            if self.mode & S_IXGRP != 0 {
                self.mode &= !S_ISGID;
            } else {
                // Without execute by the group it meant mandatory locking once; servers differ.
                self.loose |= S_ISGID;
            }
        }
    }
}

// === impl Fs ===

impl Fs {
    /// A file system with nothing but its root.
    pub fn new(root: Fh, attr: Fattr3, reference: bool) -> Self {
        let mut node = Node::new(Kind::Dir(BTreeMap::new()), attr.mode, attr.uid, attr.gid, 0, root);
        node.nlink = attr.nlink;
        node.seen = Some(attr);
        let fileids = [attr.fileid.0].into();
        Self { nodes: vec![node], scans: Vec::new(), fileids, fsid: Some(attr.fsid), reference }
    }

    /// A node.
    pub fn node(&self, id: Id) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// A node, to be changed.
    pub fn node_mut(&mut self, id: Id) -> Option<&mut Node> {
        self.nodes.get_mut(id)
    }

    /// Every node there ever was.
    pub fn nodes(&self) -> impl Iterator<Item = (Id, &Node)> {
        self.nodes.iter().enumerate()
    }

    /// A node's handle.
    pub fn fh(&self, id: Id) -> &[u8] {
        self.nodes.get(id).map_or(&[], |n| n.fh.as_slice())
    }

    /// Whom a name stands for, `.` and `..` included.
    pub fn child(&self, dir: Id, name: &[u8]) -> Option<Id> {
        let node = self.node(dir)?;
        match name {
            b"." => Some(dir),
            b".." => Some(node.parent),
            _ => node.names()?.get(name).copied(),
        }
    }

    /// Whether `below` is `dir` or below it.
    pub fn is_below(&self, mut below: Id, dir: Id) -> bool {
        for _ in 0..=self.nodes.len() {
            if below == dir {
                return true;
            }
            match self.node(below) {
                Some(n) if below != 0 => below = n.parent,
                _ => return false,
            }
        }
        false
    }

    /// Bytes of all living files.
    pub fn total_bytes(&self) -> usize {
        self.nodes.iter().filter(|n| n.alive()).filter_map(Node::bytes).map(Vec::len).sum()
    }

    /// A new node with a name.
    pub fn add(&mut self, dir: Id, name: &[u8], node: Node) -> Id {
        let id = self.nodes.len();
        let subdir = node.is_dir();
        self.nodes.push(node);
        self.put_name(dir, name, id);
        if let Some(d) = self.node_mut(dir) {
            d.nlink += u32::from(subdir);
        }
        id
    }

    /// A name for a node; what the name stood for must be gone.
    pub fn put_name(&mut self, dir: Id, name: &[u8], id: Id) {
        if let Some(Node { kind: Kind::Dir(names), .. }) = self.nodes.get_mut(dir) {
            names.insert(name.to_vec(), id);
        }
        self.scans.iter_mut().filter(|s| s.dir == dir).for_each(|s| s.appeared(name, id));
        if let Some(d) = self.node_mut(dir) {
            d.changed();
        }
    }

    /// Takes a name away.
    pub fn take_name(&mut self, dir: Id, name: &[u8]) -> Option<Id> {
        let Some(Node { kind: Kind::Dir(names), .. }) = self.nodes.get_mut(dir) else { return None };
        let id = names.remove(name)?;
        self.scans.iter_mut().filter(|s| s.dir == dir).for_each(|s| s.vanished(name));
        if let Some(d) = self.node_mut(dir) {
            d.changed();
        }
        Some(id)
    }

    /// A node has lost a name, and may be gone with it. `dir` had the name.
    pub fn drop_link(&mut self, id: Id, dir: Id) {
        let mut subdir = false;
        if let Some(n) = self.node_mut(id) {
            subdir = n.is_dir();
            n.nlink = if subdir { 0 } else { n.nlink.saturating_sub(1) };
            n.attr_changed();
            if n.nlink == 0
                && let Kind::File(bytes) = &mut n.kind
            {
                *bytes = Vec::new();
                n.uncommitted.clear();
            }
        }
        if subdir && let Some(d) = self.node_mut(dir) {
            d.nlink = d.nlink.saturating_sub(1);
        }
    }

    /// Attributes of a node as a reply shows them: they must be what the model says, and then are what was seen.
    pub fn see(&mut self, id: Id, attr: &Fattr3) -> Result<()> {
        let reference = self.reference;
        if *self.fsid.get_or_insert(attr.fsid) != attr.fsid {
            return differs(format!("fsid {} is new", attr.fsid));
        }
        let Some(node) = self.nodes.get_mut(id) else { return differs("no such node") };
        if node.seen.is_none() && !self.fileids.insert(attr.fileid.0) && !reference {
            return differs(format!("file id {} was another's", attr.fileid));
        }
        node.see(attr, reference).or_else(|why| differs(format!("attributes of #{id}: {why}")))
    }
}

/// Checks one time.
fn time(what: &str, moved: Time, old: NfsTime3, new: NfsTime3) -> std::result::Result<(), String> {
    let fine = match moved {
        Time::Same => new == old,
        Time::Later => new > old,
        Time::NotEarlier => new >= old,
        Time::Exactly(t) => new == t,
        Time::Any => true,
    };
    if fine { Ok(()) } else { Err(format!("{what} was {old:?}, is {new:?}, should be {moved:?}")) }
}

impl Node {
    /// Attributes are seen.
    fn see(&mut self, attr: &Fattr3, reference: bool) -> std::result::Result<(), String> {
        let equal = |what: &str, is: u64, should: u64| {
            if is == should { Ok(()) } else { Err(format!("{what} is {is:#o}, should be {should:#o}")) }
        };
        equal("type", attr.ftype as u64, self.ftype() as u64)?;
        equal("mode", (attr.mode & !self.loose).into(), (self.mode & !self.loose).into())?;
        equal("nlink", attr.nlink.into(), self.nlink.into())?;
        equal("uid", attr.uid.into(), self.uid.into())?;
        equal("gid", attr.gid.into(), self.gid.into())?;
        match &self.kind {
            Kind::File(bytes) if attr.size != bytes.len() as u64 => {
                return Err(format!("size is {}, should be {}", attr.size, bytes.len()));
            }
            Kind::Link(target) if attr.size != target.len() as u64 => {
                return Err(format!("size is {}, should be {}", attr.size, target.len()));
            }
            Kind::Special(FType3::Chr | FType3::Blk, rdev) if attr.rdev != *rdev => {
                return Err(format!("rdev is {:?}, should be {rdev:?}", attr.rdev));
            }
            _ => {}
        }
        if let Some(old) = self.seen {
            if attr.fileid != old.fileid {
                return Err(format!("file id was {}, is {}", old.fileid, attr.fileid));
            }
            if reference {
                // It updates atime, and does not set every time that it is asked to.
                self.moved = Moved { atime: Time::Any, mtime: Time::Any, ctime: Time::Any };
            }
            time("atime", self.moved.atime, old.atime, attr.atime)?;
            match self.moved.mtime {
                // One that was set into the future goes back to now.
                Time::Later if old.mtime > old.ctime => {
                    if attr.mtime == old.mtime || attr.mtime > attr.ctime {
                        return Err(format!("mtime was {:?}, is {:?}, should be now", old.mtime, attr.mtime));
                    }
                }
                moved => time("mtime", moved, old.mtime, attr.mtime)?,
            }
            match self.moved.ctime {
                Time::Same if self.crossed && attr.ctime > old.ctime => {
                    // Its home has just been told.
                    (self.unpushed, self.crossed) = (false, false);
                }
                moved => time("ctime", moved, old.ctime, attr.ctime)?,
            }
        } else if let Time::Exactly(t) = self.moved.mtime
            && attr.mtime != t
            && !reference
        {
            return Err(format!("mtime is {:?}, should be {t:?}", attr.mtime));
        }
        self.mode = attr.mode & MODE_BITS;
        self.loose = 0;
        self.moved = Moved::default();
        self.seen = Some(*attr);
        Ok(())
    }
}
