//! ONC RPC version 2 messages (RFC 5531): call and reply headers, AUTH_SYS credentials, record marks.
//!
//! A call header, as a byte table (all integers big-endian):
//!
//! ```text
//!  0 xid   4 CALL   8 rpcvers = 2   12 prog   16 vers   20 proc
//! 24 cred.flavor   28 cred.length   32 cred.body … (padded)   verf.flavor, verf.length, verf.body … (padded)   args
//! ```
//!
//! Everything is read in place; xid and credential can be replaced in place.

use crate::ids::Xid;
use crate::xdr::{self, Decode, Encode, Put, Reader, XdrError, padding};
use bytes::{BufMut, BytesMut};
use std::ops::Range;
use thiserror::Error;

/// `msg_type` of a call (section 9).
pub const CALL: u32 = 0;
/// `msg_type` of a reply (section 9).
pub const REPLY: u32 = 1;
/// The RPC version that we speak, and the only one there is (section 9).
pub const RPC_VERSION: u32 = 2;

/// `reply_stat`: the call was accepted (section 9).
pub const MSG_ACCEPTED: u32 = 0;
/// `reply_stat`: the call was denied (section 9).
pub const MSG_DENIED: u32 = 1;

/// Values of `accept_stat` (section 9).
pub mod accept_stat {
    /// The procedure ran; its results follow.
    pub const SUCCESS: u32 = 0;
    /// The program is not here.
    pub const PROG_UNAVAIL: u32 = 1;
    /// The program is here in other versions; lowest and highest follow.
    pub const PROG_MISMATCH: u32 = 2;
    /// The program has no such procedure.
    pub const PROC_UNAVAIL: u32 = 3;
    /// The arguments could not be decoded.
    pub const GARBAGE_ARGS: u32 = 4;
    /// An error of ours: memory, for example.
    pub const SYSTEM_ERR: u32 = 5;
}

/// Values of `reject_stat` (section 9).
pub mod reject_stat {
    /// The RPC version is not 2; lowest and highest follow.
    pub const RPC_MISMATCH: u32 = 0;
    /// The caller could not be authenticated; an [`auth_stat`](super::auth_stat) follows.
    pub const AUTH_ERROR: u32 = 1;
}

/// Values of `auth_stat` (section 9).
pub mod auth_stat {
    /// Success.
    pub const OK: u32 = 0;
    /// The credential could not be decoded.
    pub const BADCRED: u32 = 1;
    /// The client must begin a new session.
    pub const REJECTEDCRED: u32 = 2;
    /// The verifier could not be decoded.
    pub const BADVERF: u32 = 3;
    /// The verifier expired or was replayed.
    pub const REJECTEDVERF: u32 = 4;
    /// Refused for security reasons: this flavor is not enough.
    pub const TOOWEAK: u32 = 5;
    /// The reply's verifier is bogus (client side).
    pub const INVALIDRESP: u32 = 6;
    /// Unknown reason.
    pub const FAILED: u32 = 7;
}

/// Authentication flavors (section 8.2; RFC 5531 section 14; RFC 9289 section 4.1).
pub mod auth_flavor {
    /// No credential.
    pub const NONE: u32 = 0;
    /// UNIX user and groups.
    pub const SYS: u32 = 1;
    /// Shorthand for an earlier credential.
    pub const SHORT: u32 = 2;
    /// RPCSEC_GSS.
    pub const GSS: u32 = 6;
    /// Probe for TLS.
    pub const TLS: u32 = 7;
}

/// Program numbers.
pub mod program {
    /// Portmap version 2, rpcbind versions 3 and 4 (RFC 1833).
    pub const PORTMAP: u32 = 100_000;
    /// NFS (RFC 1813).
    pub const NFS: u32 = 100_003;
    /// MOUNT (RFC 1813 appendix I).
    pub const MOUNT: u32 = 100_005;
    /// Network lock manager.
    pub const NLM: u32 = 100_021;
    /// The NFSACL side protocol that Linux and Solaris clients probe.
    pub const NFSACL: u32 = 100_227;
}

/// Program versions.
pub mod version {
    /// NFS version 3.
    pub const NFS3: u32 = 3;
    /// MOUNT version 1: what `showmount` asks with.
    pub const MOUNT1: u32 = 1;
    /// MOUNT version 3.
    pub const MOUNT3: u32 = 3;
    /// Portmap version 2.
    pub const PORTMAP2: u32 = 2;
    /// Rpcbind version 3.
    pub const RPCBIND3: u32 = 3;
    /// Rpcbind version 4.
    pub const RPCBIND4: u32 = 4;
}

/// Set in a record mark for the last fragment of a record (section 11).
pub const LAST_FRAGMENT: u32 = 0x8000_0000;
/// The bits of a record mark that hold the fragment's length in bytes (section 11).
pub const FRAGMENT_LENGTH: u32 = 0x7fff_ffff;
/// Bytes of a record mark.
pub const RECORD_MARK_LEN: usize = 4;

/// Longest body of a credential or verifier, in bytes (section 8.2).
pub const MAX_AUTH_BYTES: u32 = 400;
/// Most supplementary groups of AUTH_SYS (appendix A).
pub const MAX_GIDS: usize = 16;
/// Longest machine name of AUTH_SYS, in bytes (appendix A).
pub const MAX_MACHINE: u32 = 255;

/// Bytes of an accepted reply's header with an empty verifier: where its results begin.
pub const ACCEPTED_LEN: usize = 24;

const XID_AT: usize = 0;
const CRED_AT: usize = 24;

/// The record mark of a record of `len` bytes sent as one fragment.
#[must_use]
pub const fn record_mark(len: usize) -> [u8; RECORD_MARK_LEN] {
    // Every record is far shorter than 2 GiB: the engine bounds them.
    ((len as u32 & FRAGMENT_LENGTH) | LAST_FRAGMENT).to_be_bytes()
}

/// Why a record is not a call that can be dispatched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RpcError {
    /// Not a call, or its header cannot be decoded: close the connection.
    #[error("not an RPC call: {0}")]
    NotACall(#[from] XdrError),
    /// A call of an RPC version other than 2: answer [`ReplyStatus::RpcMismatch`].
    #[error("RPC version {got} instead of 2")]
    Version {
        /// The call's id, for the reply.
        xid: Xid,
        /// The version that was asked for.
        got: u32,
    },
}

/// A credential or verifier (section 8.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpaqueAuth<'a> {
    /// One of [`auth_flavor`].
    pub flavor: u32,
    /// What the flavor says about the caller; at most [`MAX_AUTH_BYTES`].
    pub body: &'a [u8],
}

/// The header of a call (section 9), borrowed from its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallHeader<'a> {
    /// Transaction id.
    pub xid: Xid,
    /// Program.
    pub prog: u32,
    /// Program version.
    pub vers: u32,
    /// Procedure.
    pub proc: u32,
    /// Who calls.
    pub cred: OpaqueAuth<'a>,
    /// Proof of it.
    pub verf: OpaqueAuth<'a>,
    /// Offset of the arguments in the record, in bytes.
    pub args_at: usize,
}

// === impl OpaqueAuth ===

impl OpaqueAuth<'_> {
    /// AUTH_NONE.
    pub const NONE: OpaqueAuth<'static> = OpaqueAuth { flavor: auth_flavor::NONE, body: &[] };
}

impl Encode for OpaqueAuth<'_> {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(self.flavor);
        w.put_opaque(self.body);
    }
}

impl<'a> Decode<'a> for OpaqueAuth<'a> {
    fn decode(r: &mut Reader<'a>) -> xdr::Result<Self> {
        Ok(Self { flavor: r.u32()?, body: r.opaque(MAX_AUTH_BYTES)? })
    }
}

// === impl CallHeader ===

impl<'a> CallHeader<'a> {
    /// Reads the header of the call in `record` (without record mark).
    ///
    /// # Errors
    /// [`RpcError::NotACall`] if this is no call, [`RpcError::Version`] if it is one of another RPC version.
    pub fn decode(record: &'a [u8]) -> Result<Self, RpcError> {
        let mut r = Reader::new(record);
        let xid = Xid(r.u32()?);
        let kind = r.u32()?;
        if kind != CALL {
            return Err(XdrError::BadEnum { got: kind }.into());
        }
        let got = r.u32()?;
        if got != RPC_VERSION {
            return Err(RpcError::Version { xid, got });
        }
        Ok(Self {
            xid,
            prog: r.u32()?,
            vers: r.u32()?,
            proc: r.u32()?,
            cred: OpaqueAuth::decode(&mut r)?,
            verf: OpaqueAuth::decode(&mut r)?,
            args_at: r.position(),
        })
    }
}

/// Appends a call header with an empty verifier; the arguments follow.
pub fn encode_call(w: &mut BytesMut, xid: Xid, prog: u32, vers: u32, proc: u32, cred: &impl Encode) {
    for word in [xid.0, CALL, RPC_VERSION, prog, vers, proc] {
        w.put_u32(word);
    }
    cred.encode(w);
    OpaqueAuth::NONE.encode(w);
}

/// The transaction id of a call or reply record; `None` if it is shorter than an xid.
#[must_use]
pub fn peek_xid(record: &[u8]) -> Option<Xid> {
    record.get(XID_AT..)?.first_chunk().map(|b| Xid(u32::from_be_bytes(*b)))
}

/// Replaces the transaction id of a call or reply record in place; false if it is shorter than an xid.
pub fn patch_xid(record: &mut [u8], xid: Xid) -> bool {
    let Some(at) = record.get_mut(XID_AT..).and_then(|r| r.first_chunk_mut()) else { return false };
    *at = xid.0.to_be_bytes();
    true
}

/// Where the credential of the call in `record` stands, from its flavor to the end of its padding, so that
/// it can be replaced.
///
/// # Errors
/// An [`XdrError`] if the record ends before the credential does, or the credential is too long.
pub fn cred_range(record: &[u8]) -> xdr::Result<Range<usize>> {
    let mut r = Reader::at(record, CRED_AT);
    OpaqueAuth::decode(&mut r)?;
    Ok(CRED_AT..r.position())
}

/// Supplementary groups, in place: at most [`MAX_GIDS`].
#[derive(Clone, Copy, Default)]
pub struct Gids {
    len: u8,
    ids: [u32; MAX_GIDS],
}

/// Whom a call acts for: user, group, supplementary groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Cred {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups.
    pub gids: Gids,
}

/// An AUTH_SYS credential (appendix A). Encodes and decodes as the whole `opaque_auth`, flavor and length included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuthSys<'a> {
    /// Arbitrary id that the caller's machine drew.
    pub stamp: u32,
    /// The caller's machine; at most [`MAX_MACHINE`] bytes.
    pub machine: &'a [u8],
    /// Whom the call acts for.
    pub cred: Cred,
}

// === impl Gids ===

impl Gids {
    /// The first [`MAX_GIDS`] of `ids`.
    #[must_use]
    pub fn new(ids: &[u32]) -> Self {
        let mut all = Self::default();
        for (to, from) in all.ids.iter_mut().zip(ids) {
            *to = *from;
            all.len += 1;
        }
        all
    }

    /// The groups.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        self.ids.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The groups, to be changed in place (squashing).
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u32] {
        self.ids.get_mut(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether `gid` is among them.
    #[must_use]
    pub fn contains(&self, gid: u32) -> bool {
        self.as_slice().contains(&gid)
    }
}

impl std::fmt::Debug for Gids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

impl PartialEq for Gids {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Gids {}

impl std::hash::Hash for Gids {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

// === impl Cred ===

impl Cred {
    /// The superuser, without supplementary groups.
    pub const ROOT: Self = Self { uid: 0, gid: 0, gids: Gids { len: 0, ids: [0; MAX_GIDS] } };

    /// Whether the caller is in group `gid`.
    #[must_use]
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.gids.contains(gid)
    }
}

// === impl AuthSys ===

impl<'a> AuthSys<'a> {
    /// Reads the body of a credential of flavor [`auth_flavor::SYS`].
    ///
    /// # Errors
    /// An [`XdrError`] if it cannot be decoded or bytes follow it: answer AUTH_ERROR with [`auth_stat::BADCRED`].
    pub fn from_body(body: &'a [u8]) -> xdr::Result<Self> {
        let mut r = Reader::new(body);
        let (stamp, machine) = (r.u32()?, r.opaque(MAX_MACHINE)?);
        let (uid, gid) = (r.u32()?, r.u32()?);
        let len = r.len(MAX_GIDS as u32)?;
        let mut gids = Gids { len: len as u8, ids: [0; MAX_GIDS] };
        for id in gids.as_mut_slice() {
            *id = r.u32()?;
        }
        match r.remaining() {
            0 => Ok(Self { stamp, machine, cred: Cred { uid, gid, gids } }),
            left => Err(XdrError::TooLong { got: body.len() as u32, max: (body.len() - left) as u32 }),
        }
    }

    /// Bytes of the body.
    fn body_len(&self) -> usize {
        // stamp, length, name, uid, gid, count, groups
        20 + self.machine.len() + padding(self.machine.len()) + 4 * self.cred.gids.as_slice().len()
    }
}

impl Encode for AuthSys<'_> {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(auth_flavor::SYS);
        w.put_u32(self.body_len() as u32);
        w.put_u32(self.stamp);
        w.put_opaque(self.machine);
        w.put_u32(self.cred.uid);
        w.put_u32(self.cred.gid);
        let gids = self.cred.gids.as_slice();
        w.put_u32(gids.len() as u32);
        for gid in gids {
            w.put_u32(*gid);
        }
    }
}

impl<'a> Decode<'a> for AuthSys<'a> {
    fn decode(r: &mut Reader<'a>) -> xdr::Result<Self> {
        let auth = OpaqueAuth::decode(r)?;
        if auth.flavor != auth_flavor::SYS {
            return Err(XdrError::BadEnum { got: auth.flavor });
        }
        Self::from_body(auth.body)
    }
}

/// How a call ended, as far as RPC is concerned (section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyStatus {
    /// The procedure's results follow the header.
    Success,
    /// The program is not here.
    ProgUnavail,
    /// The program is here only in versions `low..=high`.
    ProgMismatch {
        /// Lowest version.
        low: u32,
        /// Highest version.
        high: u32,
    },
    /// No such procedure.
    ProcUnavail,
    /// The arguments could not be decoded.
    GarbageArgs,
    /// An error of the server's own.
    SystemErr,
    /// The RPC version is not among `low..=high`.
    RpcMismatch {
        /// Lowest version.
        low: u32,
        /// Highest version.
        high: u32,
    },
    /// Not authenticated; one of [`auth_stat`].
    AuthError(u32),
}

/// The header of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyHeader {
    /// Transaction id of the call that this answers.
    pub xid: Xid,
    /// How the call ended.
    pub status: ReplyStatus,
    /// Offset of the results in the record, in bytes.
    pub body_at: usize,
}

// === impl ReplyStatus ===

impl ReplyStatus {
    /// The answer to [`RpcError::Version`].
    pub const RPC_MISMATCH: Self = Self::RpcMismatch { low: RPC_VERSION, high: RPC_VERSION };
}

/// Appends a reply header with an empty verifier. After [`ReplyStatus::Success`] the results follow; every
/// other status is a whole reply.
pub fn encode_reply(w: &mut BytesMut, xid: Xid, status: ReplyStatus) {
    w.put_u32(xid.0);
    w.put_u32(REPLY);
    let (accept, detail): (u32, &[u32]) = match status {
        ReplyStatus::Success => (accept_stat::SUCCESS, &[]),
        ReplyStatus::ProgUnavail => (accept_stat::PROG_UNAVAIL, &[]),
        ReplyStatus::ProgMismatch { low, high } => (accept_stat::PROG_MISMATCH, &[low, high]),
        ReplyStatus::ProcUnavail => (accept_stat::PROC_UNAVAIL, &[]),
        ReplyStatus::GarbageArgs => (accept_stat::GARBAGE_ARGS, &[]),
        ReplyStatus::SystemErr => (accept_stat::SYSTEM_ERR, &[]),
        ReplyStatus::RpcMismatch { low, high } => {
            return [MSG_DENIED, reject_stat::RPC_MISMATCH, low, high].iter().for_each(|v| w.put_u32(*v));
        }
        ReplyStatus::AuthError(why) => {
            return [MSG_DENIED, reject_stat::AUTH_ERROR, why].iter().for_each(|v| w.put_u32(*v));
        }
    };
    w.put_u32(MSG_ACCEPTED);
    OpaqueAuth::NONE.encode(w);
    w.put_u32(accept);
    detail.iter().for_each(|v| w.put_u32(*v));
}

/// Appends the header of a successful reply, [`ACCEPTED_LEN`] bytes; the results follow.
pub fn encode_success(w: &mut BytesMut, xid: Xid) {
    encode_reply(w, xid, ReplyStatus::Success);
}

// === impl ReplyHeader ===

impl ReplyHeader {
    /// Reads the header of the reply in `record` (without record mark).
    ///
    /// # Errors
    /// An [`XdrError`] if this is no reply: close the connection.
    pub fn decode(record: &[u8]) -> xdr::Result<Self> {
        let mut r = Reader::new(record);
        let xid = Xid(r.u32()?);
        let kind = r.u32()?;
        if kind != REPLY {
            return Err(XdrError::BadEnum { got: kind });
        }
        let status = match r.u32()? {
            MSG_ACCEPTED => accepted(&mut r)?,
            MSG_DENIED => denied(&mut r)?,
            got => return Err(XdrError::BadEnum { got }),
        };
        Ok(Self { xid, status, body_at: r.position() })
    }
}

fn accepted(r: &mut Reader<'_>) -> xdr::Result<ReplyStatus> {
    OpaqueAuth::decode(r)?;
    Ok(match r.u32()? {
        accept_stat::SUCCESS => ReplyStatus::Success,
        accept_stat::PROG_UNAVAIL => ReplyStatus::ProgUnavail,
        accept_stat::PROG_MISMATCH => ReplyStatus::ProgMismatch { low: r.u32()?, high: r.u32()? },
        accept_stat::PROC_UNAVAIL => ReplyStatus::ProcUnavail,
        accept_stat::GARBAGE_ARGS => ReplyStatus::GarbageArgs,
        accept_stat::SYSTEM_ERR => ReplyStatus::SystemErr,
        got => return Err(XdrError::BadEnum { got }),
    })
}

fn denied(r: &mut Reader<'_>) -> xdr::Result<ReplyStatus> {
    Ok(match r.u32()? {
        reject_stat::RPC_MISMATCH => ReplyStatus::RpcMismatch { low: r.u32()?, high: r.u32()? },
        reject_stat::AUTH_ERROR => ReplyStatus::AuthError(r.u32()?),
        got => return Err(XdrError::BadEnum { got }),
    })
}
