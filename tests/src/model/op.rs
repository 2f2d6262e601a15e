//! An operation of the model, and the record that it is on the wire.

use super::fs::{Fs, Id};
use bytes::BytesMut;
use slice_proto::ids::Xid;
use slice_proto::nfs3::{
    AccessArgs, CommitArgs, CreateArgs, CreateHow, DirOp, FsArgs, GetattrArgs, LinkArgs, LookupArgs,
    MkdirArgs, MknodArgs, MknodWhat, NfsTime3, Proc3, ReadArgs, ReaddirArgs, ReaddirplusArgs, ReadlinkArgs,
    RemoveArgs, RenameArgs, Sattr3, SetattrArgs, StableHow, SymlinkArgs, WriteArgs,
};
use slice_proto::rpc_msg::{AuthSys, Cred, encode_call, program, version};
use slice_proto::xdr::Encode;
use std::fmt;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The directory, or what is taken for one.
    pub dir: Id,
    /// The name.
    pub name: Vec<u8>,
}

/// SETATTR's guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// None.
    Absent,
    /// The ctime that was last seen.
    Right,
    /// Another.
    Wrong,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are the procedures' arguments.
pub enum Op {
    Null,
    Getattr(Id),
    Setattr { node: Id, attr: Sattr3, guard: Guard },
    Lookup(At),
    Access { node: Id, bits: u32 },
    Readlink(Id),
    Read { node: Id, offset: u64, count: u32 },
    Write { node: Id, offset: u64, data: Vec<u8>, stable: StableHow },
    Create { at: At, how: CreateHow },
    Mkdir { at: At, attr: Sattr3 },
    Symlink { at: At, attr: Sattr3, target: Vec<u8> },
    Mknod { at: At, what: MknodWhat },
    Remove(At),
    Rmdir(At),
    Rename { from: At, to: At },
    Link { node: Id, at: At },
    Readdir { scan: usize, count: u32 },
    Readdirplus { scan: usize, dircount: u32, maxcount: u32 },
    Fsstat(Id),
    Fsinfo(Id),
    Pathconf(Id),
    Commit(Id),
}

impl Op {
    /// Its procedure.
    pub fn proc(&self) -> Proc3 {
        match self {
            Self::Null => Proc3::Null,
            Self::Getattr(_) => Proc3::Getattr,
            Self::Setattr { .. } => Proc3::Setattr,
            Self::Lookup(_) => Proc3::Lookup,
            Self::Access { .. } => Proc3::Access,
            Self::Readlink(_) => Proc3::Readlink,
            Self::Read { .. } => Proc3::Read,
            Self::Write { .. } => Proc3::Write,
            Self::Create { .. } => Proc3::Create,
            Self::Mkdir { .. } => Proc3::Mkdir,
            Self::Symlink { .. } => Proc3::Symlink,
            Self::Mknod { .. } => Proc3::Mknod,
            Self::Remove(_) => Proc3::Remove,
            Self::Rmdir(_) => Proc3::Rmdir,
            Self::Rename { .. } => Proc3::Rename,
            Self::Link { .. } => Proc3::Link,
            Self::Readdir { .. } => Proc3::Readdir,
            Self::Readdirplus { .. } => Proc3::Readdirplus,
            Self::Fsstat(_) => Proc3::Fsstat,
            Self::Fsinfo(_) => Proc3::Fsinfo,
            Self::Pathconf(_) => Proc3::Pathconf,
            Self::Commit(_) => Proc3::Commit,
        }
    }

    /// Whether doing it twice is not doing it once: its reply must come out of the reply cache when it is sent again (I10).
    pub fn is_once(&self) -> bool {
        use Proc3::{Create, Link, Mkdir, Mknod, Remove, Rename, Rmdir, Symlink};
        matches!(self.proc(), Create | Mkdir | Symlink | Mknod | Remove | Rmdir | Rename | Link)
    }

    /// Whether its reply depends on bytes that a server may have lost before they were committed.
    pub fn shows_bytes(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Write { .. } | Self::Commit(_))
    }

    /// The whole call record.
    pub fn record(&self, fs: &Fs, xid: Xid, cred: Cred) -> BytesMut {
        let mut w = BytesMut::new();
        let cred = AuthSys { stamp: 0, machine: b"model", cred };
        encode_call(&mut w, xid, program::NFS, version::NFS3, self.proc() as u32, &cred);
        self.encode_args(fs, &mut w);
        w
    }

    fn encode_args(&self, fs: &Fs, w: &mut BytesMut) {
        let fh = |id: &Id| fs.fh(*id);
        match self {
            Self::Null => {}
            Self::Getattr(node) => GetattrArgs { object: fh(node) }.encode(w),
            Self::Setattr { node, attr, guard } => {
                let ctime = fs.node(*node).and_then(|n| n.seen).map(|a| a.ctime).unwrap_or_default();
                let guard = match guard {
                    Guard::Absent => None,
                    Guard::Right => Some(ctime),
                    Guard::Wrong => Some(NfsTime3 { seconds: ctime.seconds ^ 1, ..ctime }),
                };
                SetattrArgs { object: fh(node), attr: *attr, guard }.encode(w);
            }
            Self::Lookup(at) => LookupArgs { what: dir_op(fs, at) }.encode(w),
            Self::Access { node, bits } => AccessArgs { object: fh(node), access: *bits }.encode(w),
            Self::Readlink(node) => ReadlinkArgs { symlink: fh(node) }.encode(w),
            Self::Read { node, offset, count } => {
                ReadArgs { file: fh(node), offset: *offset, count: *count }.encode(w);
            }
            Self::Write { node, offset, data, stable } => {
                let count = data.len() as u32;
                WriteArgs { file: fh(node), offset: *offset, count, stable: *stable, data }.encode(w);
            }
            Self::Create { at, how } => CreateArgs { at: dir_op(fs, at), how: *how }.encode(w),
            Self::Mkdir { at, attr } => MkdirArgs { at: dir_op(fs, at), attr: *attr }.encode(w),
            Self::Symlink { at, attr, target } => {
                SymlinkArgs { at: dir_op(fs, at), attr: *attr, target }.encode(w);
            }
            Self::Mknod { at, what } => MknodArgs { at: dir_op(fs, at), what: *what }.encode(w),
            Self::Remove(at) | Self::Rmdir(at) => RemoveArgs { object: dir_op(fs, at) }.encode(w),
            Self::Rename { from, to } => {
                RenameArgs { from: dir_op(fs, from), to: dir_op(fs, to) }.encode(w);
            }
            Self::Link { node, at } => LinkArgs { file: fh(node), link: dir_op(fs, at) }.encode(w),
            Self::Readdir { scan, count } => {
                let Some(s) = fs.scans.get(*scan) else { return };
                ReaddirArgs { dir: fh(&s.dir), cookie: s.cookie, verf: s.verf, count: *count }.encode(w);
            }
            Self::Readdirplus { scan, dircount, maxcount } => {
                let Some(s) = fs.scans.get(*scan) else { return };
                let (dir, cookie, verf) = (fh(&s.dir), s.cookie, s.verf);
                ReaddirplusArgs { dir, cookie, verf, dircount: *dircount, maxcount: *maxcount }.encode(w);
            }
            Self::Fsstat(node) | Self::Fsinfo(node) | Self::Pathconf(node) => {
                FsArgs { object: fh(node) }.encode(w);
            }
            Self::Commit(node) => CommitArgs { file: fh(node), offset: 0, count: 0 }.encode(w),
        }
    }
}

fn dir_op<'a>(fs: &'a Fs, at: &'a At) -> DirOp<'a> {
    DirOp { dir: fs.fh(at.dir), name: &at.name }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.name);
        match text.char_indices().nth(12) {
            Some((end, _)) => {
                write!(f, "#{}/{}…({})", self.dir, text.get(..end).unwrap_or_default(), self.name.len())
            }
            None => write!(f, "#{}/{text}", self.dir),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.proc())?;
        match self {
            Self::Null => Ok(()),
            Self::Getattr(n)
            | Self::Readlink(n)
            | Self::Fsstat(n)
            | Self::Fsinfo(n)
            | Self::Pathconf(n)
            | Self::Commit(n) => write!(f, "#{n}"),
            Self::Setattr { node, attr, guard } => write!(f, "#{node} {attr:?} guard {guard:?}"),
            Self::Lookup(at) | Self::Remove(at) | Self::Rmdir(at) => write!(f, "{at}"),
            Self::Access { node, bits } => write!(f, "#{node} {bits:#x}"),
            Self::Read { node, offset, count } => write!(f, "#{node} {offset}+{count}"),
            Self::Write { node, offset, data, stable } => {
                write!(f, "#{node} {offset}+{} {stable:?}", data.len())
            }
            Self::Create { at, how } => write!(f, "{at} {how:?}"),
            Self::Mkdir { at, attr } => write!(f, "{at} {attr:?}"),
            Self::Symlink { at, target, .. } => write!(f, "{at} to {} bytes", target.len()),
            Self::Mknod { at, what } => write!(f, "{at} {what:?}"),
            Self::Rename { from, to } => write!(f, "{from} to {to}"),
            Self::Link { node, at } => write!(f, "#{node} as {at}"),
            Self::Readdir { scan, count } => write!(f, "scan {scan} count {count}"),
            Self::Readdirplus { scan, dircount, maxcount } => {
                write!(f, "scan {scan} dircount {dircount} maxcount {maxcount}")
            }
        }
    }
}
