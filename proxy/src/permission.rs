//! READ and WRITE permission from a file's attributes (RFC 1813 section 4.4): pure.
//!
//! A server of NFSv3 sees no open: a file's owner may always read and write its bytes, because it could when it
//! opened the file, and whoever may execute a file may read it, because that is how it is executed.

use slice_proto::nfs3::{FType3, Fattr3, NfsStat3};
use slice_proto::rpc_msg::Cred;

/// What is to be done with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// READ.
    Read,
    /// WRITE and COMMIT.
    Write,
}

/// Mode bits of each class.
const R: u32 = 4;
const W: u32 = 2;
const X: u32 = 1;
/// Set-user-id; set-group-id (which clears only where the group may execute, else it means mandatory locking).
const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const GROUP_X: u32 = 0o010;

/// Whether `cred` may do it with the file of these attributes.
///
/// # Errors
/// The status that the client gets.
pub fn check(attr: &Fattr3, cred: &Cred, want: Want) -> Result<(), NfsStat3> {
    is_file(attr.ftype)?;
    if cred.uid == 0 || cred.uid == attr.uid {
        return Ok(());
    }
    let class = if cred.in_group(attr.gid) { attr.mode >> 3 } else { attr.mode };
    let bits = match want {
        Want::Read => R | X,
        Want::Write => W,
    };
    if class & bits != 0 { Ok(()) } else { Err(NfsStat3::ACCES) }
}

/// Whether `cred` may search the directory of these attributes.
///
/// # Errors
/// The status that the client gets: NOTDIR if it is no directory.
pub fn search(attr: &Fattr3, cred: &Cred) -> Result<(), NfsStat3> {
    if attr.ftype != FType3::Dir {
        return Err(NfsStat3::NOTDIR);
    }
    let class = if cred.uid == attr.uid {
        attr.mode >> 6
    } else if cred.in_group(attr.gid) {
        attr.mode >> 3
    } else {
        attr.mode
    };
    if cred.uid == 0 || class & X != 0 { Ok(()) } else { Err(NfsStat3::ACCES) }
}

/// Bytes are read and written in regular files only.
///
/// # Errors
/// ISDIR for a directory, INVAL for anything else that is not a regular file (RFC 1813 sections 3.3.6, 3.3.7).
pub fn is_file(ftype: FType3) -> Result<(), NfsStat3> {
    match ftype {
        FType3::Reg => Ok(()),
        FType3::Dir => Err(NfsStat3::ISDIR),
        _ => Err(NfsStat3::INVAL),
    }
}

/// Whether a write by `cred` clears set-id bits of a file with this mode.
#[must_use]
pub const fn clears_set_ids(mode: u32, cred: &Cred) -> bool {
    cred.uid != 0 && has_set_ids(mode)
}

/// Whether the mode has bits that a write by another than root clears.
#[must_use]
pub const fn has_set_ids(mode: u32) -> bool {
    mode & SET_UID != 0 || mode & (SET_GID | GROUP_X) == SET_GID | GROUP_X
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_proto::ids::FileId;
    use slice_proto::nfs3::{NfsTime3, SpecData3};
    use slice_proto::rpc_msg::Gids;

    fn attr(mode: u32) -> Fattr3 {
        Fattr3 {
            ftype: FType3::Reg,
            mode,
            nlink: 1,
            uid: 10,
            gid: 20,
            size: 0,
            used: 0,
            rdev: SpecData3::default(),
            fsid: 1,
            fileid: FileId(1),
            atime: NfsTime3::default(),
            mtime: NfsTime3::default(),
            ctime: NfsTime3::default(),
        }
    }

    fn cred(uid: u32, gid: u32, gids: &[u32]) -> Cred {
        Cred { uid, gid, gids: Gids::new(gids) }
    }

    #[test]
    fn the_owner_and_root_always_may() {
        for want in [Want::Read, Want::Write] {
            assert_eq!(check(&attr(0), &cred(10, 1, &[]), want), Ok(()));
            assert_eq!(check(&attr(0), &cred(0, 0, &[]), want), Ok(()));
        }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        // A member of the group gets the group's bits, even if others may more.
        assert_eq!(check(&attr(0o606), &cred(1, 20, &[]), Want::Read), Err(NfsStat3::ACCES));
        assert_eq!(check(&attr(0o606), &cred(1, 2, &[3, 20]), Want::Write), Err(NfsStat3::ACCES));
        assert_eq!(check(&attr(0o606), &cred(1, 2, &[3]), Want::Write), Ok(()));
        assert_eq!(check(&attr(0o660), &cred(1, 2, &[20]), Want::Write), Ok(()));
        assert_eq!(check(&attr(0o640), &cred(1, 2, &[20]), Want::Write), Err(NfsStat3::ACCES));
    }

    #[test]
    fn who_may_execute_may_read_but_not_write() {
        assert_eq!(check(&attr(0o711), &cred(1, 2, &[]), Want::Read), Ok(()));
        assert_eq!(check(&attr(0o711), &cred(1, 2, &[]), Want::Write), Err(NfsStat3::ACCES));
    }

    #[test]
    fn only_regular_files_have_bytes() {
        let of = |ftype| check(&Fattr3 { ftype, ..attr(0o777) }, &cred(10, 20, &[]), Want::Read);
        assert_eq!(of(FType3::Dir), Err(NfsStat3::ISDIR));
        assert_eq!(of(FType3::Lnk), Err(NfsStat3::INVAL));
    }

    #[test]
    fn searching_takes_the_x_of_the_callers_class() {
        let may = |mode, cred| search(&Fattr3 { ftype: FType3::Dir, ..attr(mode) }, &cred);
        assert_eq!(may(0o677, cred(10, 1, &[])), Err(NfsStat3::ACCES), "the owner's class, not others'");
        assert_eq!(may(0o100, cred(10, 1, &[])), Ok(()));
        assert_eq!(may(0o707, cred(1, 2, &[20])), Err(NfsStat3::ACCES));
        assert_eq!(may(0o001, cred(1, 2, &[3])), Ok(()));
        assert_eq!(may(0, cred(0, 0, &[])), Ok(()));
        assert_eq!(search(&attr(0o777), &cred(0, 0, &[])), Err(NfsStat3::NOTDIR));
    }

    #[test]
    fn set_ids_are_cleared_by_others_than_root() {
        assert!(clears_set_ids(0o4755, &cred(1, 1, &[])));
        assert!(clears_set_ids(0o2755, &cred(1, 1, &[])));
        assert!(!clears_set_ids(0o2644, &cred(1, 1, &[])), "mandatory locking, not set-group-id");
        assert!(!clears_set_ids(0o4755, &cred(0, 0, &[])));
        assert!(!clears_set_ids(0o1777, &cred(1, 1, &[])));
    }
}
