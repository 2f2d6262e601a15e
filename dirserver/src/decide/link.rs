//! LINK (RFC 1813 section 3.3.15).

use super::make::free_place;
use super::{At, Caller, Change, LINK_MAX, Outcome, Reply, Stop, View, directory, touch};
use slice_proto::handle::Handle;
use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::dir::Child;

pub(crate) fn link(file: Handle, to: At<'_>, who: &Caller<'_>, view: &mut dyn View) -> Result<Outcome, Stop> {
    if file.volume != to.dir.volume {
        return Err(NfsStat3::XDEV.into());
    }
    // The directory first, so that a failure shows its attributes.
    directory(view, to.dir.file)?;
    let source = view.attr(file.file)?.ok_or(NfsStat3::STALE)?;
    let place = free_place(to, who, view)?;
    // link(2): EPERM for a directory.
    if source.rec.is_dir() {
        return Err(NfsStat3::PERM.into());
    }
    if source.rec.nlink >= LINK_MAX {
        return Err(NfsStat3::MLINK.into());
    }
    let mut linked = touch(file.file, who.now_ns);
    linked.nlink = 1;
    let mut counted = touch(to.dir.file, who.now_ns);
    counted.mtime = true;
    counted.entries = 1;
    let child = Child { file: file.file, ftype: source.rec.ftype as u32, policy: source.rec.policy };
    let changes = vec![Change::Attr(linked), place.key.change(None, Some(child)), Change::Attr(counted)];
    Ok(Outcome::ok(changes, Reply::Link { file: file.file, dir: to.dir.file }))
}
