//! Pages of listings.

use super::check::see;
use super::fs::{Fs, Node};
use super::{Result, differs};
use slice_load::client::Fh;
use slice_proto::nfs3::{CookieVerf, Fattr3, NfsStat3, PostOpAttr};

pub(super) fn len_of(ok: &impl slice_proto::xdr::Encode) -> usize {
    let mut w = bytes::BytesMut::new();
    ok.encode(&mut w);
    w.len()
}

/// A listed entry: file id, name, cookie, attributes, handle.
type Listed<'a> = (u64, &'a [u8], u64, Option<Fattr3>, Option<Fh>);

/// Checks a page of a listing.
#[allow(clippy::too_many_arguments)] // a READDIR and a READDIRPLUS page, taken apart
pub(super) fn page<'a>(
    fs: &mut Fs,
    scan: usize,
    most: u32,
    size: usize,
    dir_attr: Option<Fattr3>,
    verf: CookieVerf,
    eof: bool,
    entries: impl Iterator<Item = Listed<'a>>,
) -> Result<()> {
    let Some(mut s) = fs.scans.get(scan).cloned() else { return Ok(()) };
    see(fs, s.dir, &dir_attr)?;
    if size > most as usize && !fs.reference {
        return differs(format!("{size} bytes, at most {most} were asked for"));
    }
    let mut any = false;
    for (fileid, name, cookie, attr, handle) in entries {
        any = true;
        let shown = String::from_utf8_lossy(name).into_owned();
        match s.entry(name, cookie)? {
            Some(ids) => {
                let id = ids
                    .iter()
                    .copied()
                    .find(|id| fs.node(*id).and_then(|n| n.seen).is_some_and(|a| a.fileid.0 == fileid));
                // One whose attributes were never seen has an id that nobody knows yet.
                let unseen = ids.iter().any(|id| fs.node(*id).is_some_and(|n| n.seen.is_none()));
                let Some(id) = id else {
                    if unseen {
                        continue;
                    }
                    return differs(format!("{shown:?} has file id {fileid:x}, which it never had"));
                };
                let alive = fs.node(id).is_some_and(Node::alive);
                if alive && let Some(attr) = &attr {
                    fs.see(id, attr)?;
                }
                if handle.is_some_and(|h| h.as_slice() != fs.fh(id)) {
                    return differs(format!("{shown:?} has another handle"));
                }
            }
            None => {
                let id = if name == b"." { Some(s.dir) } else { fs.node(s.dir).map(|n| n.parent) };
                let known = id.and_then(|id| fs.node(id)).and_then(|n| n.seen).map(|a| a.fileid.0);
                if known.is_some_and(|k| k != fileid) {
                    return differs(format!("{shown:?} has file id {fileid:x}"));
                }
            }
        }
    }
    if !any && !eof {
        return differs("a page without entries that is not the last");
    }
    s.verf = verf;
    if eof {
        s.end()?;
    }
    if let Some(place) = fs.scans.get_mut(scan) {
        *place = s;
    }
    Ok(())
}

/// A listing's error; TOOSMALL only where one entry can be too large.
pub(super) fn too_small(
    fs: &mut Fs,
    scan: usize,
    most: u32,
    status: NfsStat3,
    attr: &PostOpAttr,
) -> Result<()> {
    /// Attributes, verifier, one entry with the longest name, its attributes and handle, the end.
    const ALWAYS_FITS: u32 = 88 + 8 + 4 + 280 + 88 + 72 + 8;
    let Some(dir) = fs.scans.get(scan).map(|s| s.dir) else { return Ok(()) };
    see(fs, dir, attr)?;
    if status == NfsStat3::TOOSMALL && most >= ALWAYS_FITS {
        return differs(format!("TOOSMALL with {most} bytes"));
    }
    Ok(())
}
