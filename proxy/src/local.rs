//! What the µproxy answers by itself: FSINFO, PATHCONF, FSSTAT (RFC 1813 sections 3.3.18 to 3.3.20).

use crate::config::Space;
use bytes::BytesMut;
use slice_proto::ids::Xid;
use slice_proto::nfs3::{
    FsinfoOk, FsinfoRes, FsstatOk, FsstatRes, MAX_DATA, NfsTime3, PathconfOk, PathconfRes, Proc3, Res3, fsf,
};
use slice_proto::placement::MAX_FILE_SIZE;
use slice_proto::rpc_msg::encode_success;
use slice_proto::xdr::Encode;

/// Preferred size of a READDIR: what fits one page of a Linux client's directory cache several times over.
const DTPREF: u32 = 64 << 10;
/// Sizes of READ and WRITE are best multiples of a page.
const MULTIPLE: u32 = 4096;
/// Most hard links: directory servers refuse the next with MLINK.
pub const LINK_MAX: u32 = 65_000;
/// Longest name, in bytes.
const NAME_MAX: u32 = 255;
/// Files are bounded by the home sites' sequences, which nobody will use up.
const FILES: u64 = 1 << 48;

/// Appends the whole reply. None of these carries attributes: that is allowed, and spares a round trip.
pub fn answer(proc: Proc3, xid: Xid, space: Space, w: &mut BytesMut) {
    encode_success(w, xid);
    match proc {
        Proc3::Fsinfo => fsinfo().encode(w),
        Proc3::Pathconf => pathconf().encode(w),
        Proc3::Fsstat => fsstat(space).encode(w),
        // NULL has no result.
        _ => {}
    }
}

fn fsinfo() -> FsinfoRes {
    Res3::Ok(FsinfoOk {
        attr: None,
        rtmax: MAX_DATA,
        rtpref: MAX_DATA,
        rtmult: MULTIPLE,
        wtmax: MAX_DATA,
        wtpref: MAX_DATA,
        wtmult: MULTIPLE,
        dtpref: DTPREF,
        maxfilesize: MAX_FILE_SIZE,
        time_delta: NfsTime3 { seconds: 0, nseconds: 1 },
        properties: fsf::LINK | fsf::SYMLINK | fsf::HOMOGENEOUS | fsf::CANSETTIME,
    })
}

fn pathconf() -> PathconfRes {
    Res3::Ok(PathconfOk {
        attr: None,
        linkmax: LINK_MAX,
        name_max: NAME_MAX,
        no_trunc: true,
        chown_restricted: true,
        case_insensitive: false,
        case_preserving: true,
    })
}

fn fsstat(space: Space) -> FsstatRes {
    Res3::Ok(FsstatOk {
        attr: None,
        tbytes: space.total,
        fbytes: space.free,
        abytes: space.available,
        tfiles: FILES,
        ffiles: FILES.saturating_sub(space.files),
        afiles: FILES.saturating_sub(space.files),
        invarsec: 0,
    })
}
