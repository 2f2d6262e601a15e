//! `nfsstat3` (RFC 1813 section 2.6).

use std::fmt;
use std::io;

/// A status. A newtype, not an enumeration: a server's status that we do not know is passed on, not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub struct NfsStat3(pub u32);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        impl NfsStat3 {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// Every status of the RFC.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The RFC's name without `NFS3ERR_`, or `UNKNOWN`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    _ => "UNKNOWN",
                }
            }
        }
    };
}

statuses! {
    /// Success.
    OK = 0,
    /// Not owner.
    PERM = 1,
    /// No such file or directory.
    NOENT = 2,
    /// A hard error of the storage.
    IO = 5,
    /// No such device or address.
    NXIO = 6,
    /// Permission denied.
    ACCES = 13,
    /// It exists.
    EXIST = 17,
    /// A hard link across devices.
    XDEV = 18,
    /// No such device.
    NODEV = 19,
    /// Not a directory.
    NOTDIR = 20,
    /// A directory, where none may be.
    ISDIR = 21,
    /// Invalid or unsupported argument.
    INVAL = 22,
    /// File too large.
    FBIG = 27,
    /// No space left.
    NOSPC = 28,
    /// Read-only file system.
    ROFS = 30,
    /// Too many hard links.
    MLINK = 31,
    /// Name too long.
    NAMETOOLONG = 63,
    /// Directory not empty.
    NOTEMPTY = 66,
    /// Quota exceeded.
    DQUOT = 69,
    /// The handle's file is gone.
    STALE = 70,
    /// Too many levels of remote in path.
    REMOTE = 71,
    /// The handle is not one of ours.
    BADHANDLE = 10001,
    /// SETATTR's guard does not hold.
    NOT_SYNC = 10002,
    /// The READDIR cookie is stale.
    BAD_COOKIE = 10003,
    /// Not supported.
    NOTSUPP = 10004,
    /// The buffer or request is too small.
    TOOSMALL = 10005,
    /// An error that has no other name.
    SERVERFAULT = 10006,
    /// The type of the object to be created is not supported.
    BADTYPE = 10007,
    /// Started, not finished in time: the client tries again with a new xid.
    JUKEBOX = 10008,
}

/// Errors that [`io::ErrorKind`] does not tell apart from others; the same numbers on Linux, macOS and the BSDs.
const EPERM: i32 = 1;
const ENXIO: i32 = 6;
const ENODEV: i32 = 19;

impl NfsStat3 {
    /// The status that tells a client of a failed system call. What has no status of its own is [`Self::IO`].
    pub fn from_io(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(EPERM) => Self::PERM,
            Some(ENXIO) => Self::NXIO,
            Some(ENODEV) => Self::NODEV,
            _ => Self::from_kind(error.kind()),
        }
    }

    /// The status for an `errno` of this platform.
    pub fn from_errno(errno: i32) -> Self {
        Self::from_io(&io::Error::from_raw_os_error(errno))
    }

    /// The status for an error's kind.
    pub const fn from_kind(kind: io::ErrorKind) -> Self {
        use io::ErrorKind as K;
        match kind {
            K::NotFound => Self::NOENT,
            K::PermissionDenied => Self::ACCES,
            K::AlreadyExists => Self::EXIST,
            K::CrossesDevices => Self::XDEV,
            K::NotADirectory => Self::NOTDIR,
            K::IsADirectory => Self::ISDIR,
            K::InvalidInput => Self::INVAL,
            K::FileTooLarge => Self::FBIG,
            K::StorageFull => Self::NOSPC,
            K::ReadOnlyFilesystem => Self::ROFS,
            K::TooManyLinks => Self::MLINK,
            K::InvalidFilename => Self::NAMETOOLONG,
            K::DirectoryNotEmpty => Self::NOTEMPTY,
            K::QuotaExceeded => Self::DQUOT,
            K::StaleNetworkFileHandle => Self::STALE,
            K::Unsupported => Self::NOTSUPP,
            _ => Self::IO,
        }
    }
}

impl fmt::Display for NfsStat3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "UNKNOWN" => write!(f, "status {}", self.0),
            name => f.write_str(name),
        }
    }
}
