//! REMOVE (RFC 1813 section 3.3.12).

use super::{At, Caller, Change, Outcome, Reply, Stop, View, directory, names, perm, touch};
use slice_proto::nfs3::{FType3, NfsStat3};

pub(crate) fn remove(at: At<'_>, who: &Caller<'_>, view: &mut dyn View) -> Result<Outcome, Stop> {
    let dir = directory(view, at.dir.file)?;
    names::check(at.name)?;
    perm::need(&who.cred, &dir.rec, perm::X)?;
    if names::dots(at.name) {
        return Err(NfsStat3::ISDIR.into());
    }
    let key = at.key(who.volume);
    let child = view.child(key)?.ok_or(NfsStat3::NOENT)?;
    perm::need(&who.cred, &dir.rec, perm::W)?;
    perm::sticky(&who.cred, &dir.rec, &child, view)?;
    if child.ftype == FType3::Dir as u32 {
        return Err(NfsStat3::ISDIR.into());
    }
    let mut gone = touch(child.file, who.now_ns);
    gone.nlink = -1;
    let mut counted = touch(at.dir.file, who.now_ns);
    counted.mtime = true;
    counted.entries = -1;
    let changes = vec![key.change(Some(child.file), None), Change::Attr(gone), Change::Attr(counted)];
    Ok(Outcome::ok(changes, Reply::Wcc(at.dir.file)))
}
