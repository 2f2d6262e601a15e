//! A reply against the model: whether it may be so, and what follows from it.

use super::fs::{Fs, Id, Kind, MODE_BITS, Moved, Node, S_ISGID, S_ISUID, S_IXGRP, Time, Uncommitted};
use super::judge::judge;
use super::names::{create, made_node, make, rename};
use super::op::{At, Op};
use super::pages::{len_of, page, too_small};
use super::{Result, differs};
use slice_load::client::Fh;
use slice_load::conn::Reply;
use slice_proto::nfs3::{
    AccessRes, CommitRes, FType3, FsinfoRes, FsstatRes, GetattrRes, LinkRes, LookupRes, MknodWhat, NfsStat3,
    PathconfRes, PostOpAttr, ReadRes, ReaddirRes, ReaddirplusRes, ReadlinkRes, RemoveRes, Res3, Sattr3,
    SetattrRes, SpecData3, StableHow, TimeHow, WccAttr, WccData, WriteRes, access,
};
use slice_proto::rpc_msg::Cred;
use std::collections::BTreeMap;

/// The attributes of a node before an operation, for its wcc data.
pub(super) struct Before(Option<WccAttr>);

impl Before {
    /// What is known of a node now; nothing if it has changed since it was seen.
    pub(super) fn of(fs: &Fs, id: Id) -> Self {
        let node = fs.node(id).filter(|n| n.moved == Moved::default() && !n.unpushed && !n.crossed);
        Self(node.and_then(|n| n.seen).map(|a| a.wcc()))
    }
}

/// Compares a reply with the model, and brings the model up to date.
pub fn check(fs: &mut Fs, cred: &Cred, op: &Op, reply: &Reply) -> Result<NfsStat3> {
    let (judgement, fs_is_reference) = (judge(fs, cred, op), fs.reference);
    let fits = |status: NfsStat3| {
        // The reference has its own mind of which error it is.
        let of_its_own = !judgement.errors.is_empty() || matches!(op, Op::Create { .. });
        let some_error = fs_is_reference && status != NfsStat3::OK && of_its_own;
        if judgement.fits(status) || some_error {
            return Ok(());
        }
        let wanted: Vec<_> = judgement.errors.iter().map(ToString::to_string).collect();
        differs(format!(
            "status {status}, should be OK={} or {wanted:?}",
            judgement.or_ok || wanted.is_empty()
        ))
    };
    match op {
        Op::Null => reply.decode::<()>().map(|()| NfsStat3::OK).map_err(Into::into),
        Op::Getattr(node) => {
            let res: GetattrRes = reply.decode()?;
            fits(res.status())?;
            if let Res3::Ok(attr) = &res {
                fs.see(*node, attr)?;
            }
            Ok(res.status())
        }
        Op::Setattr { node, attr, .. } => {
            let before = Before::of(fs, *node);
            let res: SetattrRes = reply.decode()?;
            fits(res.status())?;
            if let Res3::Ok(_) = &res {
                setattr(fs, cred, *node, attr);
            }
            let (Res3::Ok(wcc) | Res3::Err(_, wcc)) = &res;
            see_wcc(fs, *node, &before, wcc)?;
            Ok(res.status())
        }
        Op::Lookup(at) => lookup(fs, at, &reply.decode()?, fits),
        Op::Access { node, bits } => {
            let res: AccessRes = reply.decode()?;
            fits(res.status())?;
            match &res {
                Res3::Ok(ok) => {
                    see(fs, *node, &ok.attr)?;
                    granted(fs, cred, *node, *bits, ok.access)?;
                }
                Res3::Err(_, attr) => see(fs, *node, attr)?,
            }
            Ok(res.status())
        }
        Op::Readlink(node) => {
            let res: ReadlinkRes<'_> = reply.decode()?;
            fits(res.status())?;
            match &res {
                Res3::Ok(ok) => {
                    see(fs, *node, &ok.attr)?;
                    match fs.node(*node).map(|n| &n.kind) {
                        Some(Kind::Link(target)) if target == ok.target => {}
                        _ => return differs("another target"),
                    }
                }
                Res3::Err(_, attr) => see(fs, *node, attr)?,
            }
            Ok(res.status())
        }
        Op::Read { node, offset, count } => read(fs, *node, *offset, *count, &reply.decode()?, fits),
        Op::Write { node, offset, data, stable } => {
            let res: WriteRes = reply.decode()?;
            fits(res.status())?;
            write(fs, cred, *node, *offset, data, *stable, &res)?;
            Ok(res.status())
        }
        Op::Create { at, how } => create(fs, cred, at, how, &reply.decode()?, fits),
        Op::Mkdir { at, attr } => {
            let node = made_node(fs, cred, at, Kind::Dir(BTreeMap::new()), attr);
            make(fs, at, node, &reply.decode()?, fits)
        }
        Op::Symlink { at, attr, target } => {
            let mut node = made_node(fs, cred, at, Kind::Link(target.clone()), attr);
            node.loose = MODE_BITS;
            make(fs, at, node, &reply.decode()?, fits)
        }
        Op::Mknod { at, what } => {
            let (kind, attr) = match what {
                MknodWhat::Chr(attr, dev) | MknodWhat::Blk(attr, dev) => {
                    (Kind::Special(what.ftype(), *dev), *attr)
                }
                MknodWhat::Sock(attr) | MknodWhat::Fifo(attr) => {
                    (Kind::Special(what.ftype(), SpecData3::default()), *attr)
                }
                MknodWhat::Other(ftype) => (Kind::Special(*ftype, SpecData3::default()), Sattr3::default()),
            };
            let node = made_node(fs, cred, at, kind, &attr);
            make(fs, at, node, &reply.decode()?, fits)
        }
        Op::Remove(at) | Op::Rmdir(at) => {
            let before = Before::of(fs, at.dir);
            let res: RemoveRes = reply.decode()?;
            fits(res.status())?;
            if let Res3::Ok(_) = &res
                && let Some(id) = fs.take_name(at.dir, &at.name)
            {
                fs.drop_link(id, at.dir);
            }
            let (Res3::Ok(wcc) | Res3::Err(_, wcc)) = &res;
            see_dir(fs, at.dir, &before, wcc, res.status())?;
            Ok(res.status())
        }
        Op::Rename { from, to } => rename(fs, from, to, &reply.decode()?, fits),
        Op::Link { node, at } => {
            let before = Before::of(fs, at.dir);
            let res: LinkRes = reply.decode()?;
            fits(res.status())?;
            if let Res3::Ok(_) = &res {
                fs.put_name(at.dir, &at.name, *node);
                if let Some(n) = fs.node_mut(*node) {
                    n.nlink += 1;
                    n.attr_changed();
                }
            }
            let (Res3::Ok(ok) | Res3::Err(_, ok)) = &res;
            see(fs, *node, &ok.attr)?;
            see_dir(fs, at.dir, &before, &ok.dir_wcc, res.status())?;
            Ok(res.status())
        }
        Op::Readdir { scan, count } => {
            let res: ReaddirRes<'_> = reply.decode()?;
            let status = res.status();
            if status != NfsStat3::TOOSMALL {
                fits(status)?;
            }
            match res {
                Res3::Ok(ok) => {
                    let entries = ok.entries.iter().map(|e| (e.fileid.0, e.name, e.cookie, None, None));
                    let size = len_of(&ok);
                    page(fs, *scan, *count, size, ok.dir_attr, ok.verf, ok.eof, entries)?;
                }
                Res3::Err(_, attr) => too_small(fs, *scan, *count, status, &attr)?,
            }
            Ok(status)
        }
        Op::Readdirplus { scan, maxcount, .. } => {
            let res: ReaddirplusRes<'_> = reply.decode()?;
            let status = res.status();
            if status != NfsStat3::TOOSMALL {
                fits(status)?;
            }
            match res {
                Res3::Ok(ok) => {
                    let entries = ok.entries.iter().map(|e| {
                        (e.entry.fileid.0, e.entry.name, e.entry.cookie, e.attr, e.handle.map(Fh::new))
                    });
                    let size = len_of(&ok);
                    page(fs, *scan, *maxcount, size, ok.dir_attr, ok.verf, ok.eof, entries)?;
                }
                Res3::Err(_, attr) => too_small(fs, *scan, *maxcount, status, &attr)?,
            }
            Ok(status)
        }
        Op::Fsstat(node) => {
            let res: FsstatRes = reply.decode()?;
            fits(res.status())?;
            match &res {
                Res3::Ok(ok) if ok.fbytes > ok.tbytes || ok.abytes > ok.tbytes => {
                    differs("more free than there is")
                }
                Res3::Ok(ok) => see(fs, *node, &ok.attr).map(|()| NfsStat3::OK),
                Res3::Err(status, attr) => see(fs, *node, attr).map(|()| *status),
            }
        }
        Op::Fsinfo(node) => {
            let res: FsinfoRes = reply.decode()?;
            fits(res.status())?;
            match &res {
                Res3::Ok(ok) if ok.rtmax == 0 || ok.wtmax == 0 || ok.maxfilesize == 0 => {
                    differs("no bytes at all")
                }
                Res3::Ok(ok) => see(fs, *node, &ok.attr).map(|()| NfsStat3::OK),
                Res3::Err(status, attr) => see(fs, *node, attr).map(|()| *status),
            }
        }
        Op::Pathconf(node) => {
            let res: PathconfRes = reply.decode()?;
            fits(res.status())?;
            match &res {
                Res3::Ok(ok) if !fs.reference && (ok.name_max != 255 || ok.case_insensitive) => {
                    differs("other names than we use")
                }
                Res3::Ok(ok) => see(fs, *node, &ok.attr).map(|()| NfsStat3::OK),
                Res3::Err(status, attr) => see(fs, *node, attr).map(|()| *status),
            }
        }
        Op::Commit(node) => {
            let res: CommitRes = reply.decode()?;
            fits(res.status())?;
            match &res {
                Res3::Ok(_) if fs.node(*node).is_some_and(|n| !n.alive()) => {}
                Res3::Ok(ok) => {
                    if let Some(n) = fs.node_mut(*node) {
                        n.pushed();
                        // Those with another verifier may be lost: who runs the sequence knows whether that can be.
                        n.uncommitted.retain(|u| u.verf != ok.verf);
                    }
                    see(fs, *node, &ok.wcc.after)?;
                }
                Res3::Err(_, wcc) => see(fs, *node, &wcc.after)?,
            }
            Ok(res.status())
        }
    }
}

pub(super) fn see(fs: &mut Fs, id: Id, attr: &PostOpAttr) -> Result<()> {
    attr.as_ref().map_or(Ok(()), |attr| fs.see(id, attr))
}

pub(super) fn see_wcc(fs: &mut Fs, id: Id, before: &Before, wcc: &WccData) -> Result<()> {
    if let (Some(known), Some(shown)) = (before.0, wcc.before)
        && known != shown
    {
        return differs(format!("wcc before #{id}: {shown:?}, but it was {known:?}"));
    }
    see(fs, id, &wcc.after)
}

/// A directory's wcc data after an operation that changes names: our server always has them.
pub(super) fn see_dir(fs: &mut Fs, dir: Id, before: &Before, wcc: &WccData, status: NfsStat3) -> Result<()> {
    if status == NfsStat3::OK && !fs.reference && (wcc.before.is_none() || wcc.after.is_none()) {
        return differs(format!("no wcc data of #{dir}"));
    }
    see_wcc(fs, dir, before, wcc)
}

/// What SETATTR does. The node's attributes were checked: it may.
fn setattr(fs: &mut Fs, cred: &Cred, id: Id, attr: &Sattr3) {
    let Some(n) = fs.node_mut(id) else { return };
    // What was written is told first.
    n.pushed();
    n.attr_changed();
    if *attr == Sattr3::default() {
        n.moved.ctime = Time::Any;
    }
    n.uid = attr.uid.unwrap_or(n.uid);
    n.gid = attr.gid.unwrap_or(n.gid);
    if let Some(mode) = attr.mode {
        n.mode = mode & MODE_BITS;
        if cred.uid != 0 && !cred.in_group(n.gid) {
            n.mode &= !S_ISGID;
        }
        if n.ftype() == FType3::Lnk {
            // Nobody looks at a link's mode, and few servers let it be set.
            n.loose = MODE_BITS;
        }
    }
    if (attr.uid.is_some() || attr.gid.is_some()) && !n.is_dir() {
        // A chown takes set-id bits, whoever does it; together with a chmod servers differ.
        if attr.mode.is_some() || n.mode & (S_ISGID | S_IXGRP) == S_ISGID {
            n.loose |= S_ISUID | S_ISGID;
        }
        n.mode &= !S_ISUID;
        if n.mode & S_IXGRP != 0 {
            n.mode &= !S_ISGID;
        }
    }
    if let Some(size) = attr.size {
        resize(n, cred, size, attr.mode.is_some());
    }
    match attr.atime {
        TimeHow::DontChange => {}
        TimeHow::ServerTime => n.moved.atime = Time::Any,
        TimeHow::Client(t) => n.moved.atime = Time::Exactly(t),
    }
    match attr.mtime {
        TimeHow::DontChange => {}
        TimeHow::ServerTime => n.moved.mtime = Time::Later,
        TimeHow::Client(t) => n.moved.mtime = Time::Exactly(t),
    }
}

/// What setting the size does to a regular file.
pub(super) fn resize(n: &mut Node, cred: &Cred, size: u64, with_mode: bool) {
    let Kind::File(bytes) = &mut n.kind else { return };
    let same = bytes.len() as u64 == size;
    bytes.resize(size as usize, 0);
    n.changed();
    if same {
        // Whether that is a change at all, servers see differently.
        (n.moved.mtime, n.moved.ctime) = (Time::Any, Time::Any);
    }
    // POSIX leaves it open whether cutting clears them, as writing does.
    if with_mode || cred.uid != 0 {
        n.loose |= S_ISUID | S_ISGID;
    }
}

fn lookup(
    fs: &mut Fs,
    at: &At,
    res: &LookupRes<'_>,
    fits: impl Fn(NfsStat3) -> Result<()>,
) -> Result<NfsStat3> {
    fits(res.status())?;
    match res {
        Res3::Ok(ok) => {
            see(fs, at.dir, &ok.dir_attr)?;
            let Some(id) = fs.child(at.dir, &at.name) else { return differs("no such name") };
            if fs.fh(id) != ok.object {
                return differs(format!("the handle is not that of #{id}"));
            }
            see(fs, id, &ok.attr)?;
        }
        Res3::Err(_, attr) => see(fs, at.dir, attr)?,
    }
    Ok(res.status())
}

/// Whether ACCESS granted what it must.
fn granted(fs: &Fs, cred: &Cred, id: Id, asked: u32, got: u32) -> Result<()> {
    let Some(n) = fs.node(id) else { return Ok(()) };
    let all = |bits| n.may(cred, bits);
    // What must be granted, and what may be.
    let classes: &[(u32, bool, bool)] = if n.is_dir() {
        &[
            (access::READ, all(4), all(4)),
            (access::LOOKUP, all(1), all(1)),
            (access::MODIFY, all(3), all(2)),
            (access::EXTEND, all(3), all(2)),
            (access::DELETE, all(3), all(2)),
            (access::EXECUTE, false, all(1)),
        ]
    } else {
        &[
            (access::READ, all(4), all(4)),
            (access::LOOKUP, false, all(1)),
            (access::MODIFY, all(2), all(2)),
            (access::EXTEND, all(2), all(2)),
            (access::DELETE, false, true),
            (access::EXECUTE, all(1) && matches!(n.kind, Kind::File(_)), all(1)),
        ]
    };
    for (bit, must, may) in classes.iter().filter(|(bit, ..)| asked & bit != 0) {
        let has = got & bit != 0;
        if (*must && !has) || (has && !*may) {
            return differs(format!("ACCESS grants {got:#x} of {asked:#x}: bit {bit:#x} is wrong"));
        }
    }
    if got & !asked == 0 { Ok(()) } else { differs("ACCESS grants what was not asked") }
}

fn read(
    fs: &mut Fs,
    id: Id,
    offset: u64,
    count: u32,
    res: &ReadRes<'_>,
    fits: impl Fn(NfsStat3) -> Result<()>,
) -> Result<NfsStat3> {
    fits(res.status())?;
    match res {
        // Bytes of a file that is gone are nobody's any more.
        Res3::Ok(_) if fs.node(id).is_some_and(|n| !n.alive()) => {}
        Res3::Ok(ok) => {
            see(fs, id, &ok.attr)?;
            let Some(bytes) = fs.node(id).and_then(Node::bytes) else { return differs("it has no bytes") };
            let size = bytes.len() as u64;
            let (start, end) = (offset.min(size), (offset + u64::from(count)).min(size));
            let want = bytes.get(start as usize..end as usize).unwrap_or_default();
            if ok.count as usize != ok.data.len() {
                return differs("count is not the data's length");
            }
            if ok.data.len() != want.len() {
                return differs(format!("{} bytes instead of {}", ok.data.len(), want.len()));
            }
            if let Some(at) = ok.data.iter().zip(want).position(|(a, b)| a != b) {
                let (is, should) = (ok.data.get(at), want.get(at));
                return differs(format!("byte {} is {is:?}, should be {should:?}", offset + at as u64));
            }
            if (!fs.reference || count > 0) && ok.eof != (offset + u64::from(count) >= size) {
                return differs(format!("eof is {} with {size} bytes", ok.eof));
            }
        }
        Res3::Err(_, attr) => see(fs, id, attr)?,
    }
    Ok(res.status())
}

fn write(
    fs: &mut Fs,
    cred: &Cred,
    id: Id,
    offset: u64,
    data: &[u8],
    stable: StableHow,
    res: &WriteRes,
) -> Result<()> {
    let ok = match res {
        Res3::Ok(ok) => ok,
        Res3::Err(_, wcc) => return see(fs, id, &wcc.after),
    };
    if fs.node(id).is_some_and(|n| !n.alive()) {
        return Ok(());
    }
    if ok.count as usize != data.len() {
        return differs(format!("{} bytes written of {}", ok.count, data.len()));
    }
    if ok.committed < stable {
        return differs(format!("committed is only {:?}", ok.committed));
    }
    if let Some(n) = fs.node_mut(id) {
        put_bytes(n, offset, data);
        // What is told of an earlier write may come behind what is told of this one, and moves ctime once more then.
        let crossed = n.crossed || n.unpushed;
        n.changed();
        n.crossed = crossed;
        if data.is_empty() {
            // Whether that is a change at all, servers see differently; and when it shows.
            (n.moved.mtime, n.moved.ctime) = (Time::Any, Time::Any);
            n.loose |= S_ISUID | S_ISGID;
            return Ok(());
        }
        n.written_by(cred);
        if ok.committed == StableHow::Unstable {
            n.uncommitted.push(Uncommitted { offset, len: data.len() as u64, verf: ok.verf });
            n.unpushed = true;
        }
    }
    see(fs, id, &ok.wcc.after)
}

fn put_bytes(n: &mut Node, offset: u64, data: &[u8]) {
    if let Kind::File(bytes) = &mut n.kind
        && !data.is_empty()
    {
        let (start, end) = (offset as usize, offset as usize + data.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(to) = bytes.get_mut(start..end) {
            to.copy_from_slice(data);
        }
    }
}

/// What a special file is made of, for the generator.
pub fn special(ftype: FType3, attr: Sattr3, dev: SpecData3) -> MknodWhat {
    match ftype {
        FType3::Chr => MknodWhat::Chr(attr, dev),
        FType3::Blk => MknodWhat::Blk(attr, dev),
        FType3::Sock => MknodWhat::Sock(attr),
        FType3::Fifo => MknodWhat::Fifo(attr),
        other => MknodWhat::Other(other),
    }
}
