//! The procedures and their numbers (RFC 1813 section 3).

use std::fmt;

macro_rules! procedures {
    ($($(#[$doc:meta])* $name:ident = $number:literal $text:literal,)*) => {
        /// A procedure of NFS version 3.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Proc3 {
            $($(#[$doc])* $name = $number,)*
        }

        impl Proc3 {
            /// Every procedure, in order of its number.
            pub const ALL: [Self; 22] = [$(Self::$name),*];

            /// The procedure with this number.
            #[must_use]
            pub const fn from_u32(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name that the RFC gives it, in capitals.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

procedures! {
    /// Do nothing (3.3.0).
    Null = 0 "NULL",
    /// Get attributes (3.3.1).
    Getattr = 1 "GETATTR",
    /// Set attributes (3.3.2).
    Setattr = 2 "SETATTR",
    /// Look up a name (3.3.3).
    Lookup = 3 "LOOKUP",
    /// Check access permission (3.3.4).
    Access = 4 "ACCESS",
    /// Read from a symbolic link (3.3.5).
    Readlink = 5 "READLINK",
    /// Read from a file (3.3.6).
    Read = 6 "READ",
    /// Write to a file (3.3.7).
    Write = 7 "WRITE",
    /// Create a file (3.3.8).
    Create = 8 "CREATE",
    /// Create a directory (3.3.9).
    Mkdir = 9 "MKDIR",
    /// Create a symbolic link (3.3.10).
    Symlink = 10 "SYMLINK",
    /// Create a special file (3.3.11).
    Mknod = 11 "MKNOD",
    /// Remove a file (3.3.12).
    Remove = 12 "REMOVE",
    /// Remove a directory (3.3.13).
    Rmdir = 13 "RMDIR",
    /// Rename a file or directory (3.3.14).
    Rename = 14 "RENAME",
    /// Create a link (3.3.15).
    Link = 15 "LINK",
    /// Read from a directory (3.3.16).
    Readdir = 16 "READDIR",
    /// Read from a directory with attributes and handles (3.3.17).
    Readdirplus = 17 "READDIRPLUS",
    /// Get dynamic file system information (3.3.18).
    Fsstat = 18 "FSSTAT",
    /// Get static file system information (3.3.19).
    Fsinfo = 19 "FSINFO",
    /// Get POSIX information (3.3.20).
    Pathconf = 20 "PATHCONF",
    /// Commit cached data to stable storage (3.3.21).
    Commit = 21 "COMMIT",
}

impl fmt::Display for Proc3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
