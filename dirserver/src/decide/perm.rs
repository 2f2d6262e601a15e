//! UNIX permission, from a record and an AUTH_SYS credential.

use super::{Stop, View};
use crate::records::{AttrRec, S_ISVTX};
use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::dir::Child;
use slice_proto::rpc_msg::Cred;

/// Read.
pub(crate) const R: u32 = 4;
/// Write.
pub(crate) const W: u32 = 2;
/// Execute; of a directory: search.
pub(crate) const X: u32 = 1;

/// Whether all of `want` is permitted. Root may everything, but execute only what somebody may execute.
pub(crate) fn may(cred: &Cred, rec: &AttrRec, want: u32) -> bool {
    if cred.uid == 0 {
        return want & X == 0 || rec.is_dir() || rec.mode & 0o111 != 0;
    }
    let bits = if cred.uid == rec.uid {
        rec.mode >> 6
    } else if cred.in_group(rec.gid) {
        rec.mode >> 3
    } else {
        rec.mode
    };
    bits & want == want
}

/// ACCES unless all of `want` is permitted.
pub(crate) fn need(cred: &Cred, rec: &AttrRec, want: u32) -> Result<(), NfsStat3> {
    if may(cred, rec, want) { Ok(()) } else { Err(NfsStat3::ACCES) }
}

/// Whether the caller may do what is the owner's.
pub(crate) const fn owner(cred: &Cred, rec: &AttrRec) -> bool {
    cred.uid == 0 || cred.uid == rec.uid
}

/// In a directory with the sticky bit only the owner of the directory or of the child takes a name away. The child's
/// record, which may be elsewhere, is read only where it decides.
pub(crate) fn sticky(cred: &Cred, dir: &AttrRec, child: &Child, view: &mut dyn View) -> Result<(), Stop> {
    if dir.mode & S_ISVTX == 0 || owner(cred, dir) {
        return Ok(());
    }
    match view.attr(child.file)? {
        Some(cell) if cell.rec.uid != cred.uid => Err(NfsStat3::PERM.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_proto::ids::VolumeId;
    use slice_proto::nfs3::FType3;
    use slice_proto::rpc_msg::Gids;

    fn rec(ftype: FType3, mode: u32) -> AttrRec {
        AttrRec::new(ftype, VolumeId(0), 0, mode, 10, 20, 1)
    }

    fn cred(uid: u32, gid: u32, gids: &[u32]) -> Cred {
        Cred { uid, gid, gids: Gids::new(gids) }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let f = rec(FType3::Reg, 0o046);
        assert!(!may(&cred(10, 20, &[]), &f, R), "the owner has no bits, though the group has");
        assert!(may(&cred(11, 20, &[]), &f, R));
        assert!(may(&cred(11, 1, &[2, 20]), &f, R));
        assert!(!may(&cred(11, 1, &[2, 20]), &f, W), "in the group, though others may write");
        assert!(may(&cred(11, 1, &[]), &f, R | W));
    }

    #[test]
    fn root_executes_only_what_somebody_may() {
        let root = cred(0, 0, &[]);
        assert!(may(&root, &rec(FType3::Reg, 0), R | W));
        assert!(!may(&root, &rec(FType3::Reg, 0o666), X));
        assert!(may(&root, &rec(FType3::Reg, 0o010), X));
        assert!(may(&root, &rec(FType3::Dir, 0), X));
    }
}
