//! SETATTR (RFC 1813 section 3.3.2).

use super::{Caller, Change, Outcome, Reply, Stop, View, perm};
use crate::records::{AttrRec, MODE_BITS, S_ISGID, S_ISUID, S_IXGRP};
use slice_proto::handle::Handle;
use slice_proto::ids::AttrSeq;
use slice_proto::nfs3::{FType3, NfsStat3, NfsTime3, Sattr3, TimeHow};
use slice_proto::placement::MAX_FILE_SIZE;
use slice_proto::rpc_msg::Cred;

pub(crate) fn setattr(
    file: Handle,
    attr: &Sattr3,
    guard: Option<NfsTime3>,
    who: &Caller<'_>,
    view: &mut dyn View,
) -> Result<Outcome, Stop> {
    let cell = view.attr(file.file)?.ok_or(NfsStat3::STALE)?;
    let new = set(&cell.rec, attr, guard, &who.cred, who.now_ns)?;
    let mut outcome = Outcome::ok(vec![Change::Set(file.file, Box::new(new))], Reply::Wcc(file.file));
    outcome.resize = attr.size.map(|size| (file.file, size));
    Ok(outcome)
}

/// The record with the attributes set, all but the size, which takes the data servers.
pub(crate) fn set(
    rec: &AttrRec,
    attr: &Sattr3,
    guard: Option<NfsTime3>,
    cred: &Cred,
    now_ns: u64,
) -> Result<AttrRec, NfsStat3> {
    permitted(rec, attr, guard, cred)?;
    let mut new = rec.clone();
    new.ctime_ns = rec.next_ctime(now_ns);
    new.seq = AttrSeq(rec.seq.0 + 1);
    new.uid = attr.uid.unwrap_or(rec.uid);
    new.gid = attr.gid.unwrap_or(rec.gid);
    if let Some(mode) = attr.mode {
        new.mode = mode & MODE_BITS;
        // chmod(2): set-group-id takes membership in the file's group.
        if cred.uid != 0 && !cred.in_group(new.gid) {
            new.mode &= !S_ISGID;
        }
    }
    // A chown clears set-id bits, whoever does it, as Linux does; set-group-id without group execute is none.
    if (attr.uid.is_some() || attr.gid.is_some()) && !rec.is_dir() {
        new.mode &= !S_ISUID;
        if new.mode & S_IXGRP != 0 {
            new.mode &= !S_ISGID;
        }
    }
    if attr.size.is_some() {
        new.mtime_ns = new.ctime_ns;
        new.mtime_set = false;
        // Writing into it would clear them, and so does cutting it (another than root; the owner's write does, too).
        if cred.uid != 0 {
            new.mode &= !S_ISUID;
            if new.mode & S_IXGRP != 0 {
                new.mode &= !S_ISGID;
            }
        }
    }
    match attr.atime {
        TimeHow::DontChange => {}
        TimeHow::ServerTime => new.atime_ns = now_ns,
        TimeHow::Client(t) => new.atime_ns = t.as_ns(),
    }
    match attr.mtime {
        TimeHow::DontChange => {}
        TimeHow::ServerTime => {
            new.mtime_ns = new.ctime_ns;
            new.mtime_set = false;
        }
        TimeHow::Client(t) => {
            new.mtime_ns = t.as_ns();
            new.mtime_set = true;
        }
    }
    Ok(new)
}

/// Who may set what.
fn permitted(rec: &AttrRec, attr: &Sattr3, guard: Option<NfsTime3>, cred: &Cred) -> Result<(), NfsStat3> {
    if guard.is_some_and(|ctime| ctime != NfsTime3::from_ns(rec.ctime_ns)) {
        return Err(NfsStat3::NOT_SYNC);
    }
    let owner = perm::owner(cred, rec);
    if let Some(size) = attr.size {
        match rec.ftype {
            FType3::Reg => {}
            FType3::Dir => return Err(NfsStat3::ISDIR),
            _ => return Err(NfsStat3::INVAL),
        }
        if size > MAX_FILE_SIZE {
            return Err(NfsStat3::FBIG);
        }
        // The owner may always: it may have opened the file before taking the permission away.
        if !owner {
            perm::need(cred, rec, perm::W)?;
        }
    }
    if attr.mode.is_some() && !owner {
        return Err(NfsStat3::PERM);
    }
    // chown(2): only root gives files away; an owner may give it to a group that it is in.
    if attr.uid.is_some_and(|uid| cred.uid != 0 && (uid != rec.uid || !owner)) {
        return Err(NfsStat3::PERM);
    }
    if attr.gid.is_some_and(|gid| cred.uid != 0 && !(owner && (gid == rec.gid || cred.in_group(gid)))) {
        return Err(NfsStat3::PERM);
    }
    times_permitted(rec, attr, cred, owner)
}

/// utimensat(2): a given time is the owner's to set; both to now, everybody who may write.
fn times_permitted(rec: &AttrRec, attr: &Sattr3, cred: &Cred, owner: bool) -> Result<(), NfsStat3> {
    if owner {
        return Ok(());
    }
    match (attr.atime, attr.mtime) {
        (TimeHow::DontChange, TimeHow::DontChange) => Ok(()),
        (TimeHow::ServerTime, TimeHow::ServerTime) => perm::need(cred, rec, perm::W),
        // open with O_TRUNC sets the size and mtime together; who may cut it may.
        (TimeHow::DontChange, TimeHow::ServerTime) if attr.size.is_some() => Ok(()),
        _ => Err(NfsStat3::PERM),
    }
}
