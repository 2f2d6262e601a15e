//! A forwarded NFS call, decoded as far as every procedure needs it.

use crate::decide::{At, Op};
use crate::replies::ReplyKey;
use bytes::{Bytes, BytesMut};
use slice_proto::handle::{Handle, KeyRing};
use slice_proto::ids::Xid;
use slice_proto::nfs3::types::DirOp;
use slice_proto::nfs3::{
    CreateArgs, LinkArgs, MkdirArgs, MknodArgs, NfsStat3, Proc3, RemoveArgs, RenameArgs, SetattrArgs,
    SymlinkArgs,
};
use slice_proto::rpc_msg::{AuthSys, CallHeader, Cred, auth_flavor, auth_stat};
use slice_proto::trailer::CallTrailer;
use slice_proto::xdr::{Decode, Reader, XdrError};
use xxhash_rust::xxh3::xxh3_64;

/// Who calls with AUTH_NONE: nobody, in no group that has anything.
const NOBODY: u32 = 65_534;

/// A call with its record.
pub(crate) struct Call {
    record: BytesMut,
    pub(crate) head: Head,
}

/// What stands before and behind the arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) xid: Xid,
    pub(crate) proc: Proc3,
    pub(crate) cred: Cred,
    pub(crate) trailer: CallTrailer,
    args_at: usize,
    end: usize,
}

/// Why arguments cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    /// They are not what the procedure takes.
    Garbage,
    /// They are, but this is their answer at once.
    Status(NfsStat3),
}

impl From<XdrError> for Bad {
    fn from(_: XdrError) -> Self {
        Self::Garbage
    }
}

/// The credential that a call acts with.
///
/// # Errors
/// The auth_stat to refuse it with.
pub(crate) fn credential(header: &CallHeader<'_>) -> Result<Cred, u32> {
    match header.cred.flavor {
        auth_flavor::SYS => {
            AuthSys::from_body(header.cred.body).map(|a| a.cred).map_err(|_| auth_stat::BADCRED)
        }
        auth_flavor::NONE => Ok(Cred { uid: NOBODY, gid: NOBODY, ..Cred::default() }),
        _ => Err(auth_stat::TOOWEAK),
    }
}

/// Opens a handle of the live file system.
pub(crate) fn open(keys: &KeyRing, bytes: &[u8]) -> Result<Handle, Bad> {
    match keys.open(bytes) {
        Ok(h) if h.snapshot == 0 => Ok(h),
        // Snapshots are read-only and a later issue; nobody has been given such a handle.
        _ => Err(Bad::Status(NfsStat3::BADHANDLE)),
    }
}

// === impl Call ===

impl Call {
    pub(crate) const fn new(record: BytesMut, head: Head) -> Self {
        Self { record, head }
    }

    /// Reads a whole call, credential and trailer included; `None` if it is none of a µproxy's.
    pub(crate) fn read(record: &[u8]) -> Option<Self> {
        let header = CallHeader::decode(record).ok()?;
        let proc = Proc3::from_u32(header.proc)?;
        let head = Head::new(&header, proc, credential(&header).ok()?, record).ok()?;
        Some(Self::new(record.into(), head))
    }

    /// The whole call, for a store: [`Call::read`] takes it.
    pub(crate) fn stored(&self) -> Bytes {
        Bytes::copy_from_slice(&self.record)
    }

    /// The arguments, trailer cut off.
    pub(crate) fn args(&self) -> &[u8] {
        self.head.args(&self.record)
    }

    /// Which call of its client it is.
    pub(crate) fn key(&self) -> ReplyKey {
        ReplyKey { xid: self.head.trailer.xid, proc: self.head.proc as u32, sum: self.checksum() }
    }

    /// Checksum of the arguments.
    fn checksum(&self) -> u64 {
        xxh3_64(self.args())
    }

    /// The operation, if the procedure changes anything.
    pub(crate) fn op(&self, keys: &KeyRing) -> Result<Op<'_>, Bad> {
        let r = &mut Reader::new(self.args());
        let at = |d: DirOp<'_>| open(keys, d.dir);
        Ok(match self.head.proc {
            Proc3::Setattr => {
                let a = SetattrArgs::decode(r)?;
                Op::Setattr { file: open(keys, a.object)?, attr: a.attr, guard: a.guard }
            }
            Proc3::Create => {
                let a = CreateArgs::decode(r)?;
                Op::Create { at: At { dir: at(a.at)?, name: a.at.name }, how: a.how }
            }
            Proc3::Mkdir => {
                let a = MkdirArgs::decode(r)?;
                Op::Mkdir { at: At { dir: at(a.at)?, name: a.at.name }, attr: a.attr }
            }
            Proc3::Symlink => {
                let a = SymlinkArgs::decode(r)?;
                Op::Symlink { at: At { dir: at(a.at)?, name: a.at.name }, attr: a.attr, target: a.target }
            }
            Proc3::Mknod => {
                let a = MknodArgs::decode(r)?;
                Op::Mknod { at: At { dir: at(a.at)?, name: a.at.name }, what: a.what }
            }
            Proc3::Remove => {
                let a = RemoveArgs::decode(r)?;
                Op::Remove { at: At { dir: at(a.object)?, name: a.object.name } }
            }
            Proc3::Rmdir => {
                let a = RemoveArgs::decode(r)?;
                Op::Rmdir { at: At { dir: at(a.object)?, name: a.object.name } }
            }
            Proc3::Rename => {
                let a = RenameArgs::decode(r)?;
                Op::Rename {
                    from: At { dir: at(a.from)?, name: a.from.name },
                    to: At { dir: at(a.to)?, name: a.to.name },
                }
            }
            Proc3::Link => {
                let a = LinkArgs::decode(r)?;
                Op::Link { file: open(keys, a.file)?, to: At { dir: at(a.link)?, name: a.link.name } }
            }
            _ => return Err(Bad::Garbage),
        })
    }
}

// === impl Head ===

impl Head {
    /// Reads header and trailer.
    ///
    /// # Errors
    /// [`Bad::Garbage`] without a call trailer of a known version: it does not come from a µproxy.
    pub(crate) fn new(header: &CallHeader<'_>, proc: Proc3, cred: Cred, record: &[u8]) -> Result<Self, Bad> {
        let (front, trailer) = CallTrailer::split(record)?;
        Ok(Self { xid: header.xid, proc, cred, trailer, args_at: header.args_at, end: front.len() })
    }

    /// The arguments in the record that the head was read from.
    pub(crate) fn args<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        record.get(self.args_at..self.end).unwrap_or_default()
    }
}
