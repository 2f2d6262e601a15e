//! Replies of procedures that make or move names.

use super::check::{Before, resize, see, see_dir, see_wcc};
use super::fs::{Fs, Id, Kind, MODE_BITS, Node, S_ISGID, S_ISUID, S_IXGRP, Time};
use super::op::At;
use super::{Result, differs};
use slice_load::client::Fh;
use slice_proto::nfs3::{CreateHow, CreateRes, Fattr3, NfsStat3, RenameRes, Res3, Sattr3, TimeHow};
use slice_proto::rpc_msg::Cred;

/// A new object as CREATE, MKDIR, SYMLINK and MKNOD make it.
pub(super) fn made_node(fs: &Fs, cred: &Cred, at: &At, kind: Kind, attr: &Sattr3) -> Node {
    let (dir_mode, dir_gid) = fs.node(at.dir).map_or((0, 0), |d| (d.mode, d.gid));
    let inherits = dir_mode & S_ISGID != 0;
    let (mut uid, mut gid) = (cred.uid, if inherits { dir_gid } else { cred.gid });
    if cred.uid == 0 {
        uid = attr.uid.unwrap_or(uid);
        gid = attr.gid.unwrap_or(gid);
    }
    let is_dir = matches!(kind, Kind::Dir(_));
    let mut node = Node::new(kind, attr.mode.unwrap_or(0) & MODE_BITS, uid, gid, at.dir, Fh::new(&[]));
    if attr.mode.is_none() {
        node.loose = MODE_BITS;
    }
    // Whether a new directory gets set-id bits that were asked for is the server's choice: mkdir(2) does not; nor what is
    // then given away, or written.
    let asked = node.mode & (S_ISUID | S_ISGID);
    if is_dir || attr.uid.is_some() || attr.gid.is_some() || attr.size.is_some() {
        node.loose |= asked;
    }
    if is_dir && inherits {
        node.mode |= S_ISGID;
        node.loose &= !S_ISGID;
    } else if !is_dir && node.mode & S_ISGID != 0 && cred.uid != 0 {
        if cred.in_group(gid) || node.mode & S_IXGRP == 0 {
            node.loose |= S_ISGID;
        } else {
            node.mode &= !S_ISGID;
        }
    }
    if let TimeHow::Client(t) = attr.mtime {
        node.moved.mtime = Time::Exactly(t);
    }
    node
}

/// Checks the reply of a procedure that makes an object.
pub(super) fn make(
    fs: &mut Fs,
    at: &At,
    node: Node,
    res: &CreateRes<'_>,
    fits: impl Fn(NfsStat3) -> Result<()>,
) -> Result<NfsStat3> {
    let before = Before::of(fs, at.dir);
    fits(res.status())?;
    match res {
        Res3::Ok(ok) => {
            let id = fs.add(at.dir, &at.name, node);
            learn(fs, id, ok.object, &ok.attr)?;
            see_dir(fs, at.dir, &before, &ok.dir_wcc, NfsStat3::OK)?;
        }
        Res3::Err(status, wcc) => see_dir(fs, at.dir, &before, wcc, *status)?,
    }
    Ok(res.status())
}

/// Learns a new object's handle.
fn learn(fs: &mut Fs, id: Id, handle: Option<&[u8]>, attr: &Option<Fattr3>) -> Result<()> {
    let Some(handle) = handle else { return differs("no handle") };
    if fs.nodes().any(|(_, n)| n.fh.as_slice() == handle) {
        return differs("the new object has the handle of another");
    }
    if let Some(n) = fs.node_mut(id) {
        n.fh = Fh::new(handle);
    }
    see(fs, id, attr)
}

pub(super) fn create(
    fs: &mut Fs,
    cred: &Cred,
    at: &At,
    how: &CreateHow,
    res: &CreateRes<'_>,
    fits: impl Fn(NfsStat3) -> Result<()>,
) -> Result<NfsStat3> {
    let Some(there) = fs.child(at.dir, &at.name) else {
        let (attr, verf) = match how {
            CreateHow::Unchecked(attr) | CreateHow::Guarded(attr) => (*attr, None),
            CreateHow::Exclusive(verf) => (Sattr3::default(), Some(*verf)),
        };
        let mut node = made_node(fs, cred, at, Kind::File(vec![0; attr.size.unwrap_or(0) as usize]), &attr);
        if verf.is_some() {
            // Where the verifier is kept until the client's SETATTR is the server's business.
            node.loose = MODE_BITS;
            node.verf = verf;
        }
        return make(fs, at, node, res, fits);
    };
    let before = Before::of(fs, at.dir);
    fits(res.status())?;
    match res {
        Res3::Ok(ok) => {
            if let CreateHow::Unchecked(Sattr3 { size: Some(size), .. }) = how
                && let Some(n) = fs.node_mut(there)
            {
                resize(n, cred, *size, false);
            } else if let Some(n) = fs.node_mut(there) {
                n.moved.ctime = if n.moved.ctime == Time::Same { Time::Any } else { n.moved.ctime };
            }
            if ok.object.is_some_and(|h| h != fs.fh(there)) {
                return differs(format!("the handle is not that of #{there}"));
            }
            see(fs, there, &ok.attr)?;
            see_wcc(fs, at.dir, &before, &ok.dir_wcc)?;
        }
        Res3::Err(_, wcc) => see_wcc(fs, at.dir, &before, wcc)?,
    }
    Ok(res.status())
}

pub(super) fn rename(
    fs: &mut Fs,
    from: &At,
    to: &At,
    res: &RenameRes,
    fits: impl Fn(NfsStat3) -> Result<()>,
) -> Result<NfsStat3> {
    let (from_before, to_before) = (Before::of(fs, from.dir), Before::of(fs, to.dir));
    fits(res.status())?;
    let source = fs.child(from.dir, &from.name);
    let same = source.is_some() && source == fs.child(to.dir, &to.name);
    if let Res3::Ok(_) = res
        && !same
    {
        if let Some(replaced) = fs.take_name(to.dir, &to.name) {
            fs.drop_link(replaced, to.dir);
        }
        if let Some(id) = fs.take_name(from.dir, &from.name) {
            fs.put_name(to.dir, &to.name, id);
            let mut moves = false;
            if let Some(n) = fs.node_mut(id) {
                n.attr_changed();
                moves = n.is_dir() && from.dir != to.dir;
                if n.is_dir() {
                    n.parent = to.dir;
                }
            }
            if moves {
                if let Some(d) = fs.node_mut(from.dir) {
                    d.nlink = d.nlink.saturating_sub(1);
                }
                if let Some(d) = fs.node_mut(to.dir) {
                    d.nlink += 1;
                }
            }
        }
    }
    let (Res3::Ok(ok) | Res3::Err(_, ok)) = res;
    let status = if same { NfsStat3::EXIST } else { res.status() };
    see_dir(fs, from.dir, &from_before, &ok.from_wcc, status)?;
    see_dir(fs, to.dir, &to_before, &ok.to_wcc, status)?;
    Ok(res.status())
}
