//! MKDIR (RFC 1813 section 3.3.9).

use super::make::{free_place, make, record};
use super::{At, Caller, Outcome, SUBDIR_MAX, Stop, View};
use slice_proto::nfs3::{FType3, NfsStat3, Sattr3};
use slice_proto::placement::new_directory_home;

/// Mode of a directory whose creator names none.
const DEFAULT_MODE: u32 = 0o755;

pub(crate) fn mkdir(
    at: At<'_>,
    attr: &Sattr3,
    who: &Caller<'_>,
    view: &mut dyn View,
) -> Result<Outcome, Stop> {
    let place = free_place(at, who, view)?;
    if place.dir.rec.shown_nlink() >= SUBDIR_MAX {
        return Err(NfsStat3::MLINK.into());
    }
    let mut rec = record(FType3::Dir, attr, DEFAULT_MODE, &place.dir.rec, who);
    rec.parent = at.dir.file;
    make(&place, new_directory_home(who.volume, at.dir.file, at.name), rec, who, view)
}
