//! Which errors apply to an operation, by the rules of a Linux server's VFS. A reply must be one of them if there are any.

use super::fs::{Fs, Id, Kind, Node, S_ISVTX};
use super::op::{At, Guard, Op};
use slice_proto::nfs3::{CreateHow, FType3, MknodWhat, NfsStat3, Sattr3, TimeHow};
use slice_proto::rpc_msg::Cred;

/// Longest name.
const NAME_MAX: usize = 255;
/// Longest target of a symbolic link.
const TARGET_MAX: usize = 4095;

/// What an operation can come to.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Errors that apply; if none, it must succeed.
    pub errors: Vec<NfsStat3>,
    /// Whether it may also succeed.
    pub or_ok: bool,
}

/// Which permissions a directory must give.
const SEARCH: u32 = 1;
const WRITE: u32 = 2;

impl Judgement {
    fn add(&mut self, errors: &[NfsStat3]) {
        self.errors.extend_from_slice(errors);
    }

    fn add_if(&mut self, applies: bool, errors: &[NfsStat3]) {
        if applies {
            self.add(errors);
        }
    }

    /// Whether this status fits.
    pub fn fits(&self, status: NfsStat3) -> bool {
        if status == NfsStat3::OK {
            self.errors.is_empty() || self.or_ok
        } else {
            self.errors.contains(&status)
        }
    }

    /// A directory that is searched, and written if `bits` say so; a name in it.
    fn dir<'a>(&mut self, fs: &'a Fs, cred: &Cred, at: &At, bits: u32) -> Option<&'a Node> {
        self.add_if(at.name.len() > NAME_MAX, &[NfsStat3::NAMETOOLONG]);
        let bad = at.name.is_empty() || at.name.contains(&b'/') || at.name.contains(&0);
        self.add_if(bad, &[NfsStat3::INVAL, NfsStat3::ACCES, NfsStat3::NOENT]);
        let node = fs.node(at.dir)?;
        if !node.alive() {
            self.add(&[NfsStat3::STALE]);
            // The handle still tells the type.
            self.add_if(!node.is_dir(), &[NfsStat3::NOTDIR]);
            return None;
        }
        if !node.is_dir() {
            self.add(&[NfsStat3::NOTDIR]);
            return None;
        }
        self.add_if(!node.may(cred, bits | SEARCH), &[NfsStat3::ACCES]);
        Some(node)
    }

    /// A node that must be there.
    fn node<'a>(&mut self, fs: &'a Fs, id: Id) -> Option<&'a Node> {
        let node = fs.node(id).filter(|n| n.alive());
        self.add_if(node.is_none(), &[NfsStat3::STALE]);
        node
    }

    /// A node that must be a regular file.
    fn file<'a>(&mut self, fs: &'a Fs, id: Id) -> Option<&'a Node> {
        // Of one that is gone the handle still tells the type.
        let gone = fs.node(id)?;
        self.add_if(gone.is_dir(), &[NfsStat3::ISDIR]);
        self.add_if(!matches!(gone.kind, Kind::File(_)), &[NfsStat3::INVAL]);
        self.node(fs, id)
    }

    /// A place where nothing may be.
    fn free<'a>(&mut self, fs: &'a Fs, cred: &Cred, at: &At) -> Option<&'a Node> {
        self.add_if(fs.child(at.dir, &at.name).is_some(), &[NfsStat3::EXIST]);
        self.dir(fs, cred, at, WRITE)
    }

    /// The sticky bit: only the owner of the directory or of what is in it takes a name away.
    fn sticky(&mut self, cred: &Cred, dir: &Node, child: &Node) {
        let stuck = dir.mode & S_ISVTX != 0 && !dir.owned(cred) && !child.owned(cred);
        self.add_if(stuck, &[NfsStat3::ACCES, NfsStat3::PERM]);
    }

    /// A name that is to be taken away.
    fn victim<'a>(&mut self, fs: &'a Fs, cred: &Cred, at: &At) -> Option<&'a Node> {
        let dir = self.dir(fs, cred, at, WRITE)?;
        if at.name == b"." || at.name == b".." {
            let all = [NfsStat3::INVAL, NfsStat3::NOTEMPTY, NfsStat3::EXIST, NfsStat3::ISDIR, NfsStat3::PERM];
            self.add(&all);
            return None;
        }
        let child = fs.child(at.dir, &at.name).and_then(|id| fs.node(id));
        self.add_if(child.is_none(), &[NfsStat3::NOENT]);
        if let Some(child) = child {
            self.sticky(cred, dir, child);
        }
        child
    }
}

/// Judges an operation.
pub fn judge(fs: &Fs, cred: &Cred, op: &Op) -> Judgement {
    let mut j = Judgement::default();
    match op {
        Op::Null => {}
        Op::Getattr(node) | Op::Access { node, .. } => {
            j.node(fs, *node);
        }
        Op::Fsstat(node) | Op::Fsinfo(node) | Op::Pathconf(node) => {
            j.node(fs, *node);
            // Nothing of the object is in the answer.
            j.or_ok = true;
        }
        Op::Setattr { node, attr, guard } => setattr(&mut j, fs, cred, *node, attr, *guard),
        Op::Lookup(at) => {
            j.dir(fs, cred, at, SEARCH);
            j.add_if(fs.child(at.dir, &at.name).is_none(), &[NfsStat3::NOENT]);
        }
        Op::Readlink(node) => {
            let node = j.node(fs, *node);
            j.add_if(node.is_some_and(|n| n.ftype() != FType3::Lnk), &[NfsStat3::INVAL]);
        }
        Op::Read { node, .. } => {
            j.file(fs, *node);
            // Attributes of one that is gone may still be known for a second, and its bytes be there until they are purged.
            let node = fs.node(*node);
            j.or_ok = node.is_some_and(|n| !n.alive() && n.bytes().is_some());
            let may = |n: &Node| n.owned(cred) || n.may(cred, 4) || n.may(cred, 1);
            j.add_if(node.is_some_and(|n| !may(n)), &[NfsStat3::ACCES]);
        }
        Op::Write { node, .. } => {
            j.file(fs, *node);
            let node = fs.node(*node);
            j.or_ok = node.is_some_and(|n| !n.alive() && n.bytes().is_some());
            j.add_if(node.is_some_and(|n| !n.owned(cred) && !n.may(cred, 2)), &[NfsStat3::ACCES]);
        }
        Op::Commit(node) => {
            j.file(fs, *node);
            // With nothing to commit there is nobody to be asked whether the file is still there.
            j.or_ok = fs.node(*node).is_some_and(|n| !n.alive() && n.bytes().is_some());
            if fs.node(*node).is_some_and(|n| !n.owned(cred) && !n.may(cred, 2)) {
                // Whether a COMMIT takes permission is the server's choice.
                j.or_ok |= j.errors.is_empty();
                j.add(&[NfsStat3::ACCES]);
            }
        }
        Op::Create { at, how } => create(&mut j, fs, cred, at, how),
        Op::Mkdir { at, .. } => {
            j.free(fs, cred, at);
        }
        Op::Symlink { at, target, .. } => {
            j.free(fs, cred, at);
            j.add_if(target.is_empty(), &[NfsStat3::INVAL, NfsStat3::NOENT]);
            j.add_if(target.len() > TARGET_MAX, &[NfsStat3::NAMETOOLONG]);
        }
        Op::Mknod { at, what } => {
            j.free(fs, cred, at);
            let device = matches!(what, MknodWhat::Chr(..) | MknodWhat::Blk(..));
            j.add_if(device && cred.uid != 0, &[NfsStat3::PERM]);
            j.add_if(matches!(what, MknodWhat::Other(_)), &[NfsStat3::BADTYPE, NfsStat3::INVAL]);
        }
        Op::Remove(at) => {
            let child = j.victim(fs, cred, at);
            j.add_if(child.is_some_and(Node::is_dir), &[NfsStat3::ISDIR, NfsStat3::PERM]);
        }
        Op::Rmdir(at) => {
            let child = j.victim(fs, cred, at);
            j.add_if(child.is_some_and(|c| !c.is_dir()), &[NfsStat3::NOTDIR]);
            j.add_if(child.is_some_and(not_empty), &[NfsStat3::NOTEMPTY, NfsStat3::EXIST]);
        }
        Op::Rename { from, to } => rename(&mut j, fs, cred, from, to),
        Op::Link { node, at } => {
            j.free(fs, cred, at);
            let node = j.node(fs, *node);
            let of_dir = [NfsStat3::PERM, NfsStat3::ISDIR, NfsStat3::INVAL];
            j.add_if(node.is_some_and(Node::is_dir), &of_dir);
        }
        Op::Readdir { scan, .. } | Op::Readdirplus { scan, .. } => {
            let Some(dir) = fs.scans.get(*scan).map(|s| s.dir) else { return j };
            j.add_if(fs.node(dir).is_some_and(|n| !n.is_dir()), &[NfsStat3::NOTDIR]);
            let Some(node) = j.node(fs, dir) else { return j };
            j.add_if(!node.may(cred, 4), &[NfsStat3::ACCES]);
            if j.errors.is_empty() && matches!(op, Op::Readdirplus { .. }) && !node.may(cred, 1) {
                // Looking into what is listed takes the right to search; whether listing it does is the server's choice.
                j.add(&[NfsStat3::ACCES]);
                j.or_ok = true;
            }
        }
    }
    j
}

fn not_empty(node: &Node) -> bool {
    node.names().is_some_and(|n| !n.is_empty())
}

fn setattr(j: &mut Judgement, fs: &Fs, cred: &Cred, node: Id, attr: &Sattr3, guard: Guard) {
    let Some(node) = j.node(fs, node) else { return };
    j.add_if(guard == Guard::Wrong, &[NfsStat3::NOT_SYNC]);
    let owned = node.owned(cred);
    if attr.size.is_some() {
        j.add_if(node.is_dir(), &[NfsStat3::ISDIR]);
        j.add_if(!matches!(node.kind, Kind::File(_)), &[NfsStat3::INVAL]);
        j.add_if(!owned && !node.may(cred, 2), &[NfsStat3::ACCES]);
    }
    j.add_if(attr.mode.is_some() && !owned, &[NfsStat3::PERM]);
    let uid = attr.uid.is_some_and(|uid| cred.uid != 0 && (uid != node.uid || !owned));
    let group = |gid| owned && (gid == node.gid || cred.in_group(gid));
    let gid = attr.gid.is_some_and(|gid| cred.uid != 0 && !group(gid));
    j.add_if(uid || gid, &[NfsStat3::PERM]);
    let times = [attr.atime, attr.mtime];
    let given = times.iter().any(|t| matches!(t, TimeHow::Client(_)));
    let now = times.contains(&TimeHow::ServerTime);
    let errors = [NfsStat3::ACCES, NfsStat3::PERM];
    j.add_if(given && !owned, &errors);
    if now && !owned {
        if !node.may(cred, 2) {
            j.add(&errors);
        } else if attr.atime != attr.mtime && j.errors.is_empty() {
            // Only one of them to now: utimensat has no such right; a truncate sets mtime alone.
            j.add(&errors);
            j.or_ok = true;
        }
    }
}

fn create(j: &mut Judgement, fs: &Fs, cred: &Cred, at: &At, how: &CreateHow) {
    let there = fs.child(at.dir, &at.name).and_then(|id| fs.node(id));
    let Some(there) = there else {
        j.dir(fs, cred, at, WRITE);
        return;
    };
    j.dir(fs, cred, at, SEARCH);
    match how {
        CreateHow::Guarded(_) => j.add(&[NfsStat3::EXIST]),
        CreateHow::Exclusive(verf) => {
            if there.verf != Some(*verf) {
                j.add(&[NfsStat3::EXIST]);
            }
        }
        CreateHow::Unchecked(attr) => match &there.kind {
            Kind::File(_) => {
                let cuts = attr.size.is_some() && !there.owned(cred) && !there.may(cred, 2);
                j.add_if(cuts, &[NfsStat3::ACCES]);
            }
            Kind::Dir(_) => j.add(&[NfsStat3::EXIST, NfsStat3::ISDIR, NfsStat3::INVAL]),
            _ => {
                // Open with O_CREAT of a link or a FIFO: nothing is made, and some servers say so.
                j.or_ok = j.errors.is_empty();
                j.add(&[NfsStat3::EXIST, NfsStat3::INVAL]);
            }
        },
    }
}

fn rename(j: &mut Judgement, fs: &Fs, cred: &Cred, from: &At, to: &At) {
    let moved = j.victim(fs, cred, from);
    let to_dir = j.dir(fs, cred, to, WRITE);
    if to.name == b"." || to.name == b".." {
        let all = [NfsStat3::INVAL, NfsStat3::NOTEMPTY, NfsStat3::EXIST, NfsStat3::ISDIR, NfsStat3::PERM];
        j.add(&all);
        return;
    }
    let (Some(moved), Some(to_dir)) = (moved, to_dir) else { return };
    let (source, target) = (fs.child(from.dir, &from.name), fs.child(to.dir, &to.name));
    if source == target {
        // Nothing happens; whether permission for it is asked is the server's choice.
        j.or_ok = true;
        return;
    }
    let climbs = moved.is_dir() && from.dir != to.dir;
    if let Some(source) = source
        && moved.is_dir()
    {
        j.add_if(fs.is_below(to.dir, source), &[NfsStat3::INVAL]);
    }
    // Its ".." changes.
    j.add_if(climbs && !moved.may(cred, 2), &[NfsStat3::ACCES]);
    let Some(replaced) = target.and_then(|id| fs.node(id)) else { return };
    j.sticky(cred, to_dir, replaced);
    j.add_if(moved.is_dir() && !replaced.is_dir(), &[NfsStat3::NOTDIR, NfsStat3::EXIST]);
    j.add_if(!moved.is_dir() && replaced.is_dir(), &[NfsStat3::ISDIR, NfsStat3::EXIST]);
    j.add_if(not_empty(replaced), &[NfsStat3::NOTEMPTY, NfsStat3::EXIST]);
}
