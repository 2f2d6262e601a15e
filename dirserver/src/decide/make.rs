//! What CREATE, MKDIR, SYMLINK and MKNOD have in common: a new object and a name for it.

use super::{At, Caller, Change, NameKey, Outcome, Reply, Stop, View, directory, names, perm, touch};
use crate::records::{AttrRec, MODE_BITS, S_ISGID, S_IXGRP};
use crate::state::cache::AttrCell;
use slice_proto::handle::Handle;
use slice_proto::ids::Site;
use slice_proto::nfs3::{FType3, NfsStat3, Sattr3, TimeHow};
use slice_proto::peer::dir::Child;
use std::sync::Arc;

/// A place for a new name, and what is there now.
pub(crate) struct Place<'a> {
    pub(crate) at: At<'a>,
    pub(crate) key: NameKey<'a>,
    pub(crate) dir: Arc<AttrCell>,
    pub(crate) there: Option<Child>,
}

/// Looks the name up, as one who may search the directory.
pub(crate) fn place<'a>(at: At<'a>, who: &Caller<'_>, view: &mut dyn View) -> Result<Place<'a>, Stop> {
    let dir = directory(view, at.dir.file)?;
    names::check(at.name)?;
    perm::need(&who.cred, &dir.rec, perm::X)?;
    if names::dots(at.name) {
        return Err(NfsStat3::EXIST.into());
    }
    let key = at.key(who.volume);
    let there = view.child(key)?;
    Ok(Place { at, key, dir, there })
}

/// As [`place`], where nothing may be there and the directory may be written.
pub(crate) fn free_place<'a>(at: At<'a>, who: &Caller<'_>, view: &mut dyn View) -> Result<Place<'a>, Stop> {
    let place = place(at, who, view)?;
    if place.there.is_some() {
        return Err(NfsStat3::EXIST.into());
    }
    perm::need(&who.cred, &place.dir.rec, perm::W)?;
    Ok(place)
}

/// The record of a new object of the caller's in `dir`. A set-group-id directory gives its group to everything made in
/// it, and the bit to directories.
pub(crate) fn record(
    ftype: FType3,
    attr: &Sattr3,
    default_mode: u32,
    dir: &AttrRec,
    who: &Caller<'_>,
) -> AttrRec {
    let cred = &who.cred;
    let inherits = dir.mode & S_ISGID != 0;
    let (mut uid, mut gid) = (cred.uid, if inherits { dir.gid } else { cred.gid });
    if cred.uid == 0 {
        // Only root makes things for others; from anyone else the wish is passed over, as Linux servers do.
        uid = attr.uid.unwrap_or(uid);
        gid = attr.gid.unwrap_or(gid);
    }
    let mut mode = attr.mode.unwrap_or(default_mode) & MODE_BITS;
    if ftype == FType3::Dir && inherits {
        mode |= S_ISGID;
    } else if ftype != FType3::Dir
        && mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP
        && cred.uid != 0
        && !cred.in_group(gid)
    {
        mode &= !S_ISGID;
    }
    let mut rec = AttrRec::new(ftype, who.volume.id, who.volume.placement, mode, uid, gid, who.now_ns);
    if let TimeHow::Client(t) = attr.atime {
        rec.atime_ns = t.as_ns();
    }
    if let TimeHow::Client(t) = attr.mtime {
        rec.mtime_ns = t.as_ns();
        rec.mtime_set = true;
    }
    rec
}

/// Makes `rec` an object of site `home` with a name at `place`.
pub(crate) fn make(
    place: &Place<'_>,
    home: Site,
    rec: AttrRec,
    who: &Caller<'_>,
    view: &mut dyn View,
) -> Result<Outcome, Stop> {
    let file = view.fresh(home)?;
    let child = Child { file, ftype: rec.ftype as u32, policy: rec.policy };
    let object =
        Handle { ftype: rec.ftype as u8, volume: who.volume.id, policy: rec.policy, file, snapshot: 0 };
    let mut dir = touch(place.at.dir.file, who.now_ns);
    dir.mtime = true;
    dir.entries = 1;
    dir.nlink = i32::from(rec.is_dir());
    let changes =
        vec![Change::Make(file, Box::new(rec)), place.key.change(None, Some(child)), Change::Attr(dir)];
    Ok(Outcome::ok(changes, Reply::Made { object, dir: place.at.dir.file }))
}
