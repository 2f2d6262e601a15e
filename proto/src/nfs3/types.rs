//! Basic data types (RFC 1813 sections 2.5 and 2.6).

use crate::xdr::{Decode, Encode, Reader, Result, XdrError};
use bytes::{BufMut, BytesMut};

macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$vdoc])* $variant = $number,)*
        }

        impl $name {
            /// The value with this number.
            #[must_use]
            pub const fn from_u32(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl Encode for $name {
            fn encode(&self, w: &mut BytesMut) {
                w.put_u32(*self as u32);
            }
        }

        impl Decode<'_> for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self> {
                let got = r.u32()?;
                Self::from_u32(got).ok_or(XdrError::BadEnum { got })
            }
        }
    };
}

wire_enum! {
    /// `ftype3`: what kind of object.
    FType3 {
        /// Regular file.
        Reg = 1,
        /// Directory.
        Dir = 2,
        /// Block device.
        Blk = 3,
        /// Character device.
        Chr = 4,
        /// Symbolic link.
        Lnk = 5,
        /// Socket.
        Sock = 6,
        /// FIFO.
        Fifo = 7,
    }
}

wire_enum! {
    /// `stable_how`: how durable a WRITE must be before its reply (3.3.7).
    StableHow {
        /// Not at all: a COMMIT will follow.
        Unstable = 0,
        /// The data, and the metadata needed to read it.
        DataSync = 1,
        /// Data and all metadata.
        FileSync = 2,
    }
}

/// Bits of ACCESS (3.3.4).
pub mod access {
    /// Read data or a directory.
    pub const READ: u32 = 0x0001;
    /// Look a name up in a directory.
    pub const LOOKUP: u32 = 0x0002;
    /// Rewrite data, change entries.
    pub const MODIFY: u32 = 0x0004;
    /// Write new data, add entries.
    pub const EXTEND: u32 = 0x0008;
    /// Delete an entry.
    pub const DELETE: u32 = 0x0010;
    /// Execute a file.
    pub const EXECUTE: u32 = 0x0020;
    /// Every bit there is.
    pub const ALL: u32 = 0x003f;
}

/// Bits of FSINFO's properties (3.3.19).
pub mod fsf {
    /// Hard links are supported.
    pub const LINK: u32 = 0x0001;
    /// Symbolic links are supported.
    pub const SYMLINK: u32 = 0x0002;
    /// PATHCONF is the same for every object.
    pub const HOMOGENEOUS: u32 = 0x0008;
    /// SETATTR can set times.
    pub const CANSETTIME: u32 = 0x0010;
}

/// Nanoseconds in a second.
const NS_PER_S: u64 = 1_000_000_000;

/// `nfstime3`: seconds and nanoseconds since 1970-01-01 00:00:00 UTC. Ends in 2106.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NfsTime3 {
    /// Seconds.
    pub seconds: u32,
    /// Nanoseconds within the second.
    pub nseconds: u32,
}

impl NfsTime3 {
    /// The last time that there is.
    pub const MAX: Self = Self { seconds: u32::MAX, nseconds: NS_PER_S as u32 - 1 };

    /// From nanoseconds since the epoch; what is past [`Self::MAX`] is [`Self::MAX`].
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        let seconds = ns / NS_PER_S;
        if seconds > u32::MAX as u64 {
            return Self::MAX;
        }
        Self { seconds: seconds as u32, nseconds: (ns % NS_PER_S) as u32 }
    }

    /// Nanoseconds since the epoch. A `nseconds` of a second or more carries over.
    #[must_use]
    pub const fn as_ns(self) -> u64 {
        // At most 2^32 · 10^9 + 2^32: below 2^63.
        self.seconds as u64 * NS_PER_S + self.nseconds as u64
    }
}

impl Encode for NfsTime3 {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(self.seconds);
        w.put_u32(self.nseconds);
    }
}

impl Decode<'_> for NfsTime3 {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { seconds: r.u32()?, nseconds: r.u32()? })
    }
}

/// `specdata3`: a device's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SpecData3 {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl Encode for SpecData3 {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(self.major);
        w.put_u32(self.minor);
    }
}

impl Decode<'_> for SpecData3 {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { major: r.u32()?, minor: r.u32()? })
    }
}

macro_rules! verifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub struct $name(pub [u8; 8]);

        impl Encode for $name {
            fn encode(&self, w: &mut BytesMut) {
                w.put_slice(&self.0);
            }
        }

        impl Decode<'_> for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self> {
                r.fixed().map(Self)
            }
        }
    };
}

verifier!(
    /// `writeverf3`: changes when uncommitted data may have been lost (3.3.7, 3.3.21).
    Verifier
);
verifier!(
    /// `cookieverf3`: whether a cookie still means what it meant (3.3.16).
    CookieVerf
);

wire! {
    /// `diropargs3`: a name in a directory.
    pub struct DirOp<'a> {
        /// Handle of the directory.
        pub dir: &'a [u8] => fh,
        /// The name.
        pub name: &'a [u8] => name,
    }
}
