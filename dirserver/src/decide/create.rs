//! CREATE (RFC 1813 section 3.3.8).

use super::make::{make, place, record};
use super::{At, Caller, Outcome, Reply, Stop, View, perm};
use slice_proto::handle::Handle;
use slice_proto::nfs3::{CreateHow, FType3, NfsStat3, Sattr3};
use slice_proto::peer::dir::Child;
use slice_proto::placement::MAX_FILE_SIZE;

/// Mode of a file whose creator names none.
const DEFAULT_MODE: u32 = 0o644;
/// Mode of a file made exclusively, until its creator's SETATTR.
const EXCLUSIVE_MODE: u32 = 0o600;

pub(crate) fn create(
    at: At<'_>,
    how: CreateHow,
    who: &Caller<'_>,
    view: &mut dyn View,
) -> Result<Outcome, Stop> {
    let place = place(at, who, view)?;
    if let Some(there) = place.there {
        return found(at, how, there, who, view);
    }
    perm::need(&who.cred, &place.dir.rec, perm::W)?;
    let rec = match how {
        CreateHow::Unchecked(attr) | CreateHow::Guarded(attr) => {
            let mut rec = record(FType3::Reg, &attr, DEFAULT_MODE, &place.dir.rec, who);
            // It has its size from the start: there is nothing that it could cut.
            rec.size = attr.size.unwrap_or(0);
            if rec.size > MAX_FILE_SIZE {
                return Err(NfsStat3::FBIG.into());
            }
            rec
        }
        CreateHow::Exclusive(verf) => {
            let mut rec = record(FType3::Reg, &Sattr3::default(), EXCLUSIVE_MODE, &place.dir.rec, who);
            rec.verf = Some(verf);
            rec
        }
    };
    let size = rec.size;
    let mut outcome = make(&place, place.key.site, rec, who, view)?;
    if let Reply::Made { object, .. } = outcome.reply
        && size > 0
    {
        outcome.resize = Some((object.file, size));
    }
    Ok(outcome)
}

/// The name is there already.
fn found(
    at: At<'_>,
    how: CreateHow,
    there: Child,
    who: &Caller<'_>,
    view: &mut dyn View,
) -> Result<Outcome, Stop> {
    let regular = there.ftype == FType3::Reg as u32;
    let object = Handle {
        // ftype3 is below 8.
        ftype: there.ftype as u8,
        volume: who.volume.id,
        policy: there.policy,
        file: there.file,
        snapshot: 0,
    };
    let mut outcome = Outcome::ok(Vec::new(), Reply::Made { object, dir: at.dir.file });
    match how {
        CreateHow::Guarded(_) => return Err(NfsStat3::EXIST.into()),
        CreateHow::Exclusive(verf) => {
            // All 8 bytes are kept, so only a retransmission finds its own (section 3.3.8).
            let rec = if regular { view.attr(there.file)? } else { None };
            match rec {
                Some(cell) if cell.rec.verf == Some(verf) => {}
                _ => return Err(NfsStat3::EXIST.into()),
            }
        }
        CreateHow::Unchecked(attr) => {
            if there.ftype == FType3::Dir as u32 {
                return Err(NfsStat3::ISDIR.into());
            }
            // Of the attributes only the size counts for a file that is there: open with O_CREAT and O_TRUNC.
            if let Some(size) = attr.size
                && regular
            {
                outcome.resize = Some((there.file, size));
            }
            view.attr(there.file)?;
        }
    }
    Ok(outcome)
}
