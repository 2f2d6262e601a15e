//! MKNOD (RFC 1813 section 3.3.11).

use super::make::{free_place, make, record};
use super::{At, Caller, Outcome, Stop, View};
use slice_proto::nfs3::{MknodWhat, NfsStat3};

/// Mode of a special file whose creator names none.
const DEFAULT_MODE: u32 = 0o644;

pub(crate) fn mknod(
    at: At<'_>,
    what: MknodWhat,
    who: &Caller<'_>,
    view: &mut dyn View,
) -> Result<Outcome, Stop> {
    let place = free_place(at, who, view)?;
    let ftype = what.ftype();
    let (attr, rdev) = match what {
        // mknod(2): only root makes devices.
        MknodWhat::Chr(..) | MknodWhat::Blk(..) if who.cred.uid != 0 => return Err(NfsStat3::PERM.into()),
        MknodWhat::Chr(attr, rdev) | MknodWhat::Blk(attr, rdev) => (attr, Some(rdev)),
        MknodWhat::Sock(attr) | MknodWhat::Fifo(attr) => (attr, None),
        MknodWhat::Other(_) => return Err(NfsStat3::BADTYPE.into()),
    };
    let mut rec = record(ftype, &attr, DEFAULT_MODE, &place.dir.rec, who);
    rec.rdev = rdev.unwrap_or_default();
    make(&place, place.key.site, rec, who, view)
}
