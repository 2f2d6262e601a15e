//! A newtype for every id, so that one is never taken for another.

use crate::xdr::{Decode, Encode, Reader, Result};
use bytes::{BufMut, BytesMut};
use std::fmt;

/// Logical servers of each role, fixed at format (DESIGN: 256 per role).
pub const SITES_PER_ROLE: usize = 256;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($raw:ty), $put:ident, $get:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $raw);

        impl Encode for $name {
            fn encode(&self, w: &mut BytesMut) {
                w.$put(self.0.into());
            }
        }
        impl Decode<'_> for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self> {
                Ok(Self(r.$get()?))
            }
        }
    };
}

id!(
    /// A file, directory, symlink or special file: home directory site (16 bits) ‖ sequence (48 bits).
    /// Never reused. What a client sees as `fileid` in its attributes.
    FileId(u64), put_u64, u64
);
id!(
    /// File epoch: raised by every shrink and by the last link's removal; fences late writes (I9).
    Epoch(u64), put_u64, u64
);
id!(
    /// Set-attribute sequence: raised by every change of attributes that a push must not undo (I6).
    AttrSeq(u64), put_u64, u64
);
id!(
    /// Epoch of the routing table.
    TableEpoch(u64), put_u64, u64
);
id!(
    /// A server process's own id, drawn at random when its store is formatted.
    ServerId(u64), put_u64, u64
);
id!(
    /// The ensemble's id, drawn at random at format.
    EnsembleId(u64), put_u64, u64
);
id!(
    /// Volume number: the index of an export in the volume table.
    VolumeId(u32), put_u32, u32
);
id!(
    /// RPC transaction id (RFC 5531 section 9).
    Xid(u32), put_u32, u32
);
id!(
    /// An intention in the coordinator's log.
    IntentionId(u64), put_u64, u64
);

/// A logical server of some role. Handles and hashes name sites, never machines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(pub u16);

impl Encode for Site {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(u32::from(self.0));
    }
}

impl Decode<'_> for Site {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let got = r.u32()?;
        u16::try_from(got).map(Self).map_err(|_| crate::xdr::XdrError::BadEnum { got })
    }
}

/// Bits of a [`FileId`] that count within its home site.
const SEQUENCE_BITS: u32 = 48;

impl FileId {
    /// A file id of the given home site; `sequence` uses the low 48 bits.
    #[must_use]
    pub const fn new(home: Site, sequence: u64) -> Self {
        Self(((home.0 as u64) << SEQUENCE_BITS) | (sequence & ((1 << SEQUENCE_BITS) - 1)))
    }

    /// The directory site that holds this file's attribute record.
    #[must_use]
    pub const fn home(self) -> Site {
        Site((self.0 >> SEQUENCE_BITS) as u16)
    }

    /// The sequence number within the home site.
    #[must_use]
    pub const fn sequence(self) -> u64 {
        self.0 & ((1 << SEQUENCE_BITS) - 1)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.home().0, self.sequence())
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Role {
    /// Interposed request router; a client of every other role.
    Proxy = 0,
    /// Directory server: names and attributes.
    Dir = 1,
    /// Small-file server: bytes below the threshold.
    Small = 2,
    /// Block storage node: bytes from the threshold on.
    Block = 3,
    /// Coordinator: intention log, routing table, membership.
    Coordinator = 4,
    /// `slice admin` and `slice status`.
    Admin = 5,
}

impl Role {
    /// Every role, in order of its number.
    pub const ALL: [Self; 6] =
        [Self::Proxy, Self::Dir, Self::Small, Self::Block, Self::Coordinator, Self::Admin];

    /// The role with this number on the wire.
    #[must_use]
    pub fn from_u32(v: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|r| *r as u32 == v)
    }

    /// The role's name as the program's subcommands and `ensemble.json` spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Dir => "dirserver",
            Self::Small => "smallfile",
            Self::Block => "blockstore",
            Self::Coordinator => "coordinator",
            Self::Admin => "admin",
        }
    }
}

impl Encode for Role {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(*self as u32);
    }
}

impl Decode<'_> for Role {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let got = r.u32()?;
        Self::from_u32(got).ok_or(crate::xdr::XdrError::BadEnum { got })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
