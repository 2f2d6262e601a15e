//! RENAME (RFC 1813 section 3.3.14).

use super::{At, Caller, Change, Outcome, Reply, SUBDIR_MAX, Stop, View, directory, names, perm, touch};
use slice_proto::ids::FileId;
use slice_proto::nfs3::{FType3, NfsStat3};
use slice_proto::peer::dir::Child;

/// Deepest directory that the walk up climbs from: far above what PATH_MAX lets anybody name, so that a damaged store
/// ends in an error and not in a loop.
const MAX_DEPTH: usize = 1 << 16;

const fn is_dir(child: &Child) -> bool {
    child.ftype == FType3::Dir as u32
}

pub(crate) fn rename(
    from: At<'_>,
    to: At<'_>,
    who: &Caller<'_>,
    view: &mut dyn View,
) -> Result<Outcome, Stop> {
    if from.dir.volume != to.dir.volume {
        return Err(NfsStat3::XDEV.into());
    }
    // Both first, so that a failure shows both.
    view.dir(from.dir.file)?;
    view.dir(to.dir.file)?;
    let (from_dir, to_dir) = (directory(view, from.dir.file)?, directory(view, to.dir.file)?);
    names::check(from.name)?;
    names::check(to.name)?;
    perm::need(&who.cred, &from_dir.rec, perm::X)?;
    perm::need(&who.cred, &to_dir.rec, perm::X)?;
    if names::dots(from.name) || names::dots(to.name) {
        return Err(NfsStat3::INVAL.into());
    }
    let (from_key, to_key) = (from.key(who.volume), to.key(who.volume));
    let moved = view.child(from_key)?.ok_or(NfsStat3::NOENT)?;
    let replaced = view.child(to_key)?;
    let reply = Reply::Two { from: from.dir.file, to: to.dir.file };
    // rename(2): two names of one file stay as they are.
    if replaced.is_some_and(|r| r.file == moved.file) {
        return Ok(Outcome::ok(Vec::new(), reply));
    }
    let elsewhere = from.dir.file != to.dir.file;
    let climbs = is_dir(&moved) && elsewhere;
    if climbs {
        // No two directories move to other directories at once, so that none ends below itself (DESIGN §6).
        view.right(who.volume.root)?;
        not_below(to.dir.file, moved.file, who.volume.root, view)?;
    }
    perm::need(&who.cred, &from_dir.rec, perm::W)?;
    perm::sticky(&who.cred, &from_dir.rec, &moved, view)?;
    perm::need(&who.cred, &to_dir.rec, perm::W)?;
    if let Some(r) = &replaced {
        perm::sticky(&who.cred, &to_dir.rec, r, view)?;
        match (is_dir(&moved), is_dir(r)) {
            (true, false) => return Err(NfsStat3::NOTDIR.into()),
            (false, true) => return Err(NfsStat3::ISDIR.into()),
            _ => {}
        }
    }
    if climbs {
        // Its ".." changes: that takes permission to write it.
        if let Some(cell) = view.attr(moved.file)? {
            perm::need(&who.cred, &cell.rec, perm::W)?;
        }
        if to_dir.rec.shown_nlink() >= SUBDIR_MAX && replaced.is_none() {
            return Err(NfsStat3::MLINK.into());
        }
    }
    if let Some(r) = replaced.filter(is_dir)
        && view.attr(r.file)?.is_some_and(|cell| cell.rec.entries != 0)
    {
        return Err(NfsStat3::NOTEMPTY.into());
    }
    Ok(Outcome::ok(changes(&Renaming { from, to, moved, replaced }, who), reply))
}

struct Renaming<'a> {
    from: At<'a>,
    to: At<'a>,
    moved: Child,
    replaced: Option<Child>,
}

fn changes(r: &Renaming<'_>, who: &Caller<'_>) -> Vec<Change> {
    let (from_dir, to_dir) = (r.from.dir.file, r.to.dir.file);
    let (moved_dirs, replaced_dirs) =
        (i32::from(is_dir(&r.moved)), i32::from(r.replaced.as_ref().is_some_and(is_dir)));
    let mut changes = vec![
        // The new name first: a reader that looks both up finds the file under one of them at least.
        r.to.key(who.volume).change(r.replaced.map(|c| c.file), Some(r.moved)),
        r.from.key(who.volume).change(Some(r.moved.file), None),
    ];
    let mut touched = touch(r.moved.file, who.now_ns);
    if is_dir(&r.moved) && from_dir != to_dir {
        touched.parent = Some(to_dir);
    }
    changes.push(Change::Attr(touched));
    if let Some(replaced) = &r.replaced {
        let mut gone = touch(replaced.file, who.now_ns);
        gone.remove = is_dir(replaced);
        gone.nlink = if gone.remove { 0 } else { -1 };
        changes.push(Change::Attr(gone));
    }
    let mut gains = touch(to_dir, who.now_ns);
    gains.mtime = true;
    gains.entries = i32::from(r.replaced.is_none());
    gains.nlink = moved_dirs - replaced_dirs;
    if from_dir == to_dir {
        gains.entries -= 1;
        gains.nlink -= moved_dirs;
    } else {
        let mut loses = touch(from_dir, who.now_ns);
        loses.mtime = true;
        loses.entries = -1;
        loses.nlink = -moved_dirs;
        changes.push(Change::Attr(loses));
    }
    changes.push(Change::Attr(gains));
    changes
}

/// INVAL if `dir` is `moved` or below it.
fn not_below(dir: FileId, moved: FileId, root: FileId, view: &mut dyn View) -> Result<(), Stop> {
    let mut at = dir;
    for _ in 0..MAX_DEPTH {
        if at == moved {
            return Err(NfsStat3::INVAL.into());
        }
        if at == root {
            return Ok(());
        }
        at = view.peek(at)?.ok_or(NfsStat3::STALE)?.rec.parent;
    }
    Err(NfsStat3::SERVERFAULT.into())
}
