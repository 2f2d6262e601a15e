//! Where the attributes stand in a result, so that a proxy can patch size and times in place.
//!
//! [`AttrWalk`] borrows nothing between steps: the caller may change the bytes it was just told of.
//! Nothing is allocated, not even for READDIRPLUS.

use super::attr::{Fattr3, WccAttr};
use super::proc::Proc3;
use super::status::NfsStat3;
use super::{MAX_NAME_WIRE, NFS3_COOKIEVERFSIZE, NFS3_FHSIZE};
use crate::xdr::{Reader, Result};

/// What stands at a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttrKind {
    /// GETATTR's `fattr3`, which is always there.
    Object,
    /// The `fattr3` of a `post_op_attr`; the word that says that it follows stands 4 bytes before.
    PostOp,
    /// The `wcc_attr` before an operation ([`WccAttr::ENCODED_LEN`] bytes); the word that says that it follows stands 4
    /// bytes before.
    WccBefore,
    /// The `fattr3` after an operation; the word that says that it follows stands 4 bytes before.
    WccAfter,
}

/// Attributes in a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttrSlot {
    /// Offset of the first byte of the `fattr3` or `wcc_attr`, from the start of what was walked.
    pub at: usize,
    /// What stands there.
    pub kind: AttrKind,
}

/// What a result is made of, as far as its last attributes.
#[derive(Debug, Clone, Copy)]
enum Step {
    Object,
    PostOp,
    WccBefore,
    WccAfter,
    Fh,
    PostFh,
    CookieVerf,
    /// Further entries of READDIRPLUS: each is unfolded as it is met.
    Entries,
}

/// Walks over the attributes of one result.
#[derive(Debug, Clone)]
pub struct AttrWalk {
    steps: &'static [Step],
    at: usize,
}

use Step::{CookieVerf, Entries, Fh, Object, PostFh, PostOp, WccAfter, WccBefore};

/// `name_attributes` and `name_handle` of the entry just met, then the next entry.
const ENTRY: &[Step] = &[PostOp, PostFh, Entries];

const fn steps(proc: Proc3, ok: bool) -> &'static [Step] {
    match (proc, ok) {
        (Proc3::Null, _) | (Proc3::Getattr, false) => &[],
        (Proc3::Getattr, true) => &[Object],
        (Proc3::Lookup, true) => &[Fh, PostOp, PostOp],
        (Proc3::Create | Proc3::Mkdir | Proc3::Symlink | Proc3::Mknod, true) => {
            &[PostFh, PostOp, WccBefore, WccAfter]
        }
        (Proc3::Rename, _) => &[WccBefore, WccAfter, WccBefore, WccAfter],
        (Proc3::Link, _) => &[PostOp, WccBefore, WccAfter],
        (Proc3::Readdirplus, true) => &[PostOp, CookieVerf, Entries],
        (
            Proc3::Setattr
            | Proc3::Write
            | Proc3::Create
            | Proc3::Mkdir
            | Proc3::Symlink
            | Proc3::Mknod
            | Proc3::Remove
            | Proc3::Rmdir
            | Proc3::Commit,
            _,
        ) => &[WccBefore, WccAfter],
        (
            Proc3::Lookup
            | Proc3::Access
            | Proc3::Readlink
            | Proc3::Read
            | Proc3::Readdir
            | Proc3::Readdirplus
            | Proc3::Fsstat
            | Proc3::Fsinfo
            | Proc3::Pathconf,
            _,
        ) => &[PostOp],
    }
}

// === impl AttrWalk ===

impl AttrWalk {
    /// A walk over the result of `proc` that begins, with its status, at byte `at` of `buf`.
    ///
    /// # Errors
    /// [`XdrError::Short`](crate::xdr::XdrError::Short) if there is no status.
    pub fn new(proc: Proc3, buf: &[u8], at: usize) -> Result<Self> {
        if matches!(proc, Proc3::Null) {
            return Ok(Self { steps: &[], at });
        }
        let mut r = Reader::at(buf, at);
        let ok = NfsStat3(r.u32()?) == NfsStat3::OK;
        Ok(Self { steps: steps(proc, ok), at: r.position() })
    }

    /// The next attributes that are there; offsets are from the start of `buf`, which must be the buffer that
    /// the walk began with, changed at most within slots that were returned.
    ///
    /// # Errors
    /// An [`XdrError`](crate::xdr::XdrError) if this is no such result.
    pub fn next(&mut self, buf: &[u8]) -> Result<Option<AttrSlot>> {
        let mut r = Reader::at(buf, self.at);
        let mut found = None;
        while found.is_none() {
            let Some((step, rest)) = self.steps.split_first() else { break };
            self.steps = rest;
            found = match step {
                Object => Some(slot(&mut r, AttrKind::Object, Fattr3::ENCODED_LEN)?),
                PostOp => optional(&mut r, AttrKind::PostOp, Fattr3::ENCODED_LEN)?,
                WccBefore => optional(&mut r, AttrKind::WccBefore, WccAttr::ENCODED_LEN)?,
                WccAfter => optional(&mut r, AttrKind::WccAfter, Fattr3::ENCODED_LEN)?,
                Fh => skip(r.opaque(NFS3_FHSIZE))?,
                PostFh => skip(r.option(|r| r.opaque(NFS3_FHSIZE)))?,
                CookieVerf => skip(r.take(NFS3_COOKIEVERFSIZE))?,
                Entries => {
                    if r.bool()? {
                        r.u64()?;
                        r.opaque(MAX_NAME_WIRE)?;
                        r.u64()?;
                        self.steps = ENTRY;
                    }
                    None
                }
            };
        }
        self.at = r.position();
        Ok(found)
    }
}

fn slot(r: &mut Reader<'_>, kind: AttrKind, len: usize) -> Result<AttrSlot> {
    let at = r.position();
    r.take(len)?;
    Ok(AttrSlot { at, kind })
}

fn optional(r: &mut Reader<'_>, kind: AttrKind, len: usize) -> Result<Option<AttrSlot>> {
    r.option(|r| slot(r, kind, len))
}

fn skip<T>(skipped: Result<T>) -> Result<Option<AttrSlot>> {
    skipped.map(|_| None)
}

/// Calls `visit` with every attribute slot of the result of `proc` that begins, with its status, at `body[0]`.
///
/// # Errors
/// An [`XdrError`](crate::xdr::XdrError) if this is no such result; slots before the fault were visited.
pub fn for_each_attr(proc: Proc3, body: &[u8], mut visit: impl FnMut(AttrSlot)) -> Result<()> {
    let mut walk = AttrWalk::new(proc, body, 0)?;
    while let Some(slot) = walk.next(body)? {
        visit(slot);
    }
    Ok(())
}
