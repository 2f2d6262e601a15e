//! GETATTR, SETATTR, LOOKUP, ACCESS, READLINK (RFC 1813 sections 3.3.1 to 3.3.5).

use super::attr::{Fattr3, PostOpAttr, Sattr3, WccData};
use super::res::Res3;
use super::types::{DirOp, NfsTime3};

wire! {
    /// Arguments of GETATTR (3.3.1).
    pub struct GetattrArgs<'a> {
        /// The object.
        pub object: &'a [u8] => fh,
    }

    /// Arguments of SETATTR (3.3.2).
    pub struct SetattrArgs<'a> {
        /// The object.
        pub object: &'a [u8] => fh,
        /// What to set.
        pub attr: Sattr3 => val,
        /// The ctime that the object must have, else NOT_SYNC.
        pub guard: Option<NfsTime3> => opt,
    }

    /// Arguments of LOOKUP (3.3.3).
    pub struct LookupArgs<'a> {
        /// The name and its directory.
        pub what: DirOp<'a> => val,
    }

    /// Results of LOOKUP (3.3.3).
    pub struct LookupOk<'a> {
        /// Handle of the object.
        pub object: &'a [u8] => fh,
        /// The object's attributes.
        pub attr: PostOpAttr => val,
        /// The directory's attributes.
        pub dir_attr: PostOpAttr => val,
    }

    /// Arguments of ACCESS (3.3.4).
    pub struct AccessArgs<'a> {
        /// The object.
        pub object: &'a [u8] => fh,
        /// What is asked for: bits of [`access`](super::access).
        pub access: u32 => val,
    }

    /// Results of ACCESS (3.3.4).
    pub struct AccessOk {
        /// The object's attributes.
        pub attr: PostOpAttr => val,
        /// What is granted: bits of [`access`](super::access).
        pub access: u32 => val,
    }

    /// Arguments of READLINK (3.3.5).
    pub struct ReadlinkArgs<'a> {
        /// The symbolic link.
        pub symlink: &'a [u8] => fh,
    }

    /// Results of READLINK (3.3.5).
    pub struct ReadlinkOk<'a> {
        /// The link's attributes.
        pub attr: PostOpAttr => val,
        /// What it points to.
        pub target: &'a [u8] => path,
    }
}

/// Result of GETATTR.
pub type GetattrRes = Res3<Fattr3, ()>;
/// Result of SETATTR.
pub type SetattrRes = Res3<WccData, WccData>;
/// Result of LOOKUP; a failure carries the directory's attributes.
pub type LookupRes<'a> = Res3<LookupOk<'a>, PostOpAttr>;
/// Result of ACCESS.
pub type AccessRes = Res3<AccessOk, PostOpAttr>;
/// Result of READLINK.
pub type ReadlinkRes<'a> = Res3<ReadlinkOk<'a>, PostOpAttr>;
