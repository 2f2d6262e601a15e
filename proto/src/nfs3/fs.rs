//! FSSTAT, FSINFO, PATHCONF (RFC 1813 sections 3.3.18 to 3.3.20).

use super::attr::PostOpAttr;
use super::res::Res3;
use super::types::NfsTime3;

wire! {
    /// Arguments of FSSTAT, FSINFO and PATHCONF.
    pub struct FsArgs<'a> {
        /// The root, or for PATHCONF any object.
        pub object: &'a [u8] => fh,
    }

    /// Results of FSSTAT (3.3.18).
    pub struct FsstatOk {
        /// The object's attributes.
        pub attr: PostOpAttr => val,
        /// Bytes in all.
        pub tbytes: u64 => val,
        /// Bytes free.
        pub fbytes: u64 => val,
        /// Bytes that the caller may use.
        pub abytes: u64 => val,
        /// Files in all.
        pub tfiles: u64 => val,
        /// Files free.
        pub ffiles: u64 => val,
        /// Files that the caller may create.
        pub afiles: u64 => val,
        /// Seconds for which nothing of this will change; 0 if it may at any time.
        pub invarsec: u32 => val,
    }

    /// Results of FSINFO (3.3.19). Sizes in bytes.
    pub struct FsinfoOk {
        /// The object's attributes.
        pub attr: PostOpAttr => val,
        /// Most of one READ.
        pub rtmax: u32 => val,
        /// Preferred size of a READ.
        pub rtpref: u32 => val,
        /// READ sizes are multiples of it.
        pub rtmult: u32 => val,
        /// Most of one WRITE.
        pub wtmax: u32 => val,
        /// Preferred size of a WRITE.
        pub wtpref: u32 => val,
        /// WRITE sizes are multiples of it.
        pub wtmult: u32 => val,
        /// Preferred size of a READDIR.
        pub dtpref: u32 => val,
        /// Largest file.
        pub maxfilesize: u64 => val,
        /// Granularity of times.
        pub time_delta: NfsTime3 => val,
        /// Bits of [`fsf`](super::fsf).
        pub properties: u32 => val,
    }

    /// Results of PATHCONF (3.3.20).
    pub struct PathconfOk {
        /// The object's attributes.
        pub attr: PostOpAttr => val,
        /// Most hard links.
        pub linkmax: u32 => val,
        /// Longest name, in bytes.
        pub name_max: u32 => val,
        /// A longer name is an error, not cut off.
        pub no_trunc: bool => flag,
        /// Only the superuser may give files away.
        pub chown_restricted: bool => flag,
        /// Names that differ in case only are the same name.
        pub case_insensitive: bool => flag,
        /// Names keep their case.
        pub case_preserving: bool => flag,
    }
}

/// Result of FSSTAT.
pub type FsstatRes = Res3<FsstatOk, PostOpAttr>;
/// Result of FSINFO.
pub type FsinfoRes = Res3<FsinfoOk, PostOpAttr>;
/// Result of PATHCONF.
pub type PathconfRes = Res3<PathconfOk, PostOpAttr>;
