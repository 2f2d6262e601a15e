//! NFS version 3 (RFC 1813): its 22 procedures, their arguments and results, both ways.
//!
//! Arguments and results borrow handles, names and data from the record. A result is a [`Res3`]: what a
//! success carries, or a status with what a failure carries. Proxies do not decode: see [`peek`] for
//! arguments and [`slots`] for the attributes in results.
//!
//! | file | procedures |
//! | --- | --- |
//! | [`object`] | GETATTR SETATTR LOOKUP ACCESS READLINK |
//! | [`io`] | READ WRITE COMMIT |
//! | [`create`] | CREATE MKDIR SYMLINK MKNOD |
//! | [`remove`] | REMOVE RMDIR RENAME LINK |
//! | [`readdir`] | READDIR READDIRPLUS |
//! | [`fs`] | FSSTAT FSINFO PATHCONF |

#[macro_use]
mod wire;

pub mod attr;
pub mod create;
pub mod fs;
pub mod io;
pub mod object;
pub mod peek;
pub mod proc;
pub mod readdir;
pub mod remove;
pub mod res;
pub mod slots;
pub mod status;
pub mod types;

pub use attr::{Fattr3, PostOpAttr, Sattr3, TimeHow, WccAttr, WccData};
pub use create::{
    CreateArgs, CreateHow, CreateOk, CreateRes, MkdirArgs, MkdirRes, MknodArgs, MknodRes, MknodWhat,
    SymlinkArgs, SymlinkRes,
};
pub use fs::{FsArgs, FsinfoOk, FsinfoRes, FsstatOk, FsstatRes, PathconfOk, PathconfRes};
pub use io::{
    CommitArgs, CommitOk, CommitRes, ReadArgs, ReadOk, ReadOkHead, ReadRes, WriteArgs, WriteArgsHead,
    WriteOk, WriteRes,
};
pub use object::{
    AccessArgs, AccessOk, AccessRes, GetattrArgs, GetattrRes, LookupArgs, LookupOk, LookupRes, ReadlinkArgs,
    ReadlinkOk, ReadlinkRes, SetattrArgs, SetattrRes,
};
pub use proc::Proc3;
pub use readdir::{
    Entry, EntryPlus, ReaddirArgs, ReaddirOk, ReaddirOkHead, ReaddirRes, ReaddirplusArgs, ReaddirplusOk,
    ReaddirplusRes,
};
pub use remove::{LinkArgs, LinkOk, LinkRes, RemoveArgs, RemoveRes, RenameArgs, RenameOk, RenameRes};
pub use res::Res3;
pub use slots::{AttrKind, AttrSlot, AttrWalk, for_each_attr};
pub use status::NfsStat3;
pub use types::{CookieVerf, DirOp, FType3, NfsTime3, SpecData3, StableHow, Verifier, access, fsf};

/// Longest file handle, in bytes (section 2.4).
pub const NFS3_FHSIZE: u32 = 64;
/// Bytes of a READDIR cookie verifier (section 2.4).
pub const NFS3_COOKIEVERFSIZE: usize = 8;
/// Bytes of the verifier of an exclusive CREATE (section 2.4).
pub const NFS3_CREATEVERFSIZE: usize = 8;
/// Bytes of a WRITE and COMMIT verifier (section 2.4).
pub const NFS3_WRITEVERFSIZE: usize = 8;

/// Longest name that is decoded, in bytes: far above every server's limit, so that the server can answer
/// NAMETOOLONG; a longer one is garbage.
pub const MAX_NAME_WIRE: u32 = 8192;
/// Longest symbolic link target that is decoded, in bytes: above PATH_MAX for the same reason.
pub const MAX_PATH_WIRE: u32 = 8192;
/// Most data of one READ or WRITE, in bytes: what FSINFO offers as rtmax and wtmax.
pub const MAX_DATA: u32 = 1 << 20;
