//! RMDIR (RFC 1813 section 3.3.13).

use super::{At, Caller, Change, Outcome, Reply, Stop, View, directory, names, perm, touch};
use slice_proto::nfs3::{FType3, NfsStat3};

pub(crate) fn rmdir(at: At<'_>, who: &Caller<'_>, view: &mut dyn View) -> Result<Outcome, Stop> {
    let dir = directory(view, at.dir.file)?;
    names::check(at.name)?;
    perm::need(&who.cred, &dir.rec, perm::X)?;
    match at.name {
        // rmdir(2): "." is invalid, and ".." is not empty, because we come from there.
        b"." => return Err(NfsStat3::INVAL.into()),
        b".." => return Err(NfsStat3::NOTEMPTY.into()),
        _ => {}
    }
    let key = at.key(who.volume);
    let child = view.child(key)?.ok_or(NfsStat3::NOENT)?;
    perm::need(&who.cred, &dir.rec, perm::W)?;
    perm::sticky(&who.cred, &dir.rec, &child, view)?;
    if child.ftype != FType3::Dir as u32 {
        return Err(NfsStat3::NOTDIR.into());
    }
    // Whether it is empty is its home site's own knowledge: the count (DESIGN §6).
    if view.attr(child.file)?.is_some_and(|cell| cell.rec.entries != 0) {
        return Err(NfsStat3::NOTEMPTY.into());
    }
    let mut gone = touch(child.file, who.now_ns);
    gone.remove = true;
    let mut counted = touch(at.dir.file, who.now_ns);
    counted.mtime = true;
    counted.entries = -1;
    counted.nlink = -1;
    let changes = vec![key.change(Some(child.file), None), Change::Attr(gone), Change::Attr(counted)];
    Ok(Outcome::ok(changes, Reply::Wcc(at.dir.file)))
}
