//! SYMLINK (RFC 1813 section 3.3.10).

use super::make::{free_place, make, record};
use super::{At, Caller, Outcome, Stop, View};
use bytes::Bytes;
use slice_proto::nfs3::{FType3, NfsStat3, Sattr3};

/// Mode of every symlink: nobody looks at it.
const MODE: u32 = 0o777;
/// Longest target in bytes: PATH_MAX without its NUL.
const MAX_TARGET: usize = 4095;

pub(crate) fn symlink(
    at: At<'_>,
    attr: &Sattr3,
    target: &[u8],
    who: &Caller<'_>,
    view: &mut dyn View,
) -> Result<Outcome, Stop> {
    let place = free_place(at, who, view)?;
    if target.is_empty() || target.contains(&0) {
        return Err(NfsStat3::INVAL.into());
    }
    if target.len() > MAX_TARGET {
        return Err(NfsStat3::NAMETOOLONG.into());
    }
    let mut rec = record(FType3::Lnk, attr, MODE, &place.dir.rec, who);
    rec.target = Bytes::copy_from_slice(target);
    make(&place, place.key.site, rec, who, view)
}
