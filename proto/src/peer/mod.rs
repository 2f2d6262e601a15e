//! Slice's private RPC program: what NFSv3 has no room for. docs/wire.md tells who calls what, and when.
//!
//! Calls and results are XDR, framed as any ONC RPC call (AUTH_NONE); every result begins with an nfsstat3,
//! in which the [private statuses](PrivateStatus) also occur. No trailers: the arguments carry what is needed.

pub mod attrs;
pub mod data;
pub mod dir;
pub mod hello;
pub mod intent;
pub mod repair;

/// Program number, in the range that RFC 5531 section 13.1 leaves to users.
pub const PROGRAM: u32 = 0x2051_1ce0;
/// Version of the program.
pub const VERSION: u32 = 1;

/// Procedures of the private program. The tens say whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs)] // each is documented where its arguments are
pub enum PeerProc {
    /// Does nothing; answered before the hello too.
    Null = 0,
    /// [`hello::HelloArgs`].
    Hello = 1,
    /// [`hello::ProveArgs`].
    Prove = 2,
    // 10..20: µproxy → home site
    /// [`attrs::PushArgs`].
    Push = 10,
    /// [`attrs::RaiseArgs`].
    RaiseReach = 11,
    // 20..30: directory server ↔ directory server
    /// [`dir::HoldArgs`].
    Hold = 20,
    /// [`dir::ConfirmArgs`].
    Confirm = 21,
    /// [`dir::DropArgs`].
    Drop = 22,
    /// [`dir::ConfirmArgs`].
    Owe = 23,
    /// [`dir::ReconcileArgs`].
    Reconcile = 24,
    // 30..40: home site or µproxy → data server
    /// [`data::TruncateArgs`].
    Truncate = 30,
    /// [`data::PurgeArgs`].
    Purge = 31,
    /// [`data::ExtendArgs`].
    Extend = 32,
    /// [`data::StatArgs`].
    Stat = 33,
    // 40..50: anyone → coordinator
    /// [`intent::LogArgs`].
    IntentLog = 40,
    /// [`intent::CompleteArgs`].
    IntentComplete = 41,
    // 50..60: checker → any server
    /// Objects of a data server: [`data::ListArgs`].
    ListObjects = 50,
    /// Attribute records of a directory server.
    ListAttrs = 51,
    /// Entries of a directory server.
    ListEntries = 52,
    /// Whether nothing is owed, held or intended any more.
    Settled = 53,
    /// An attribute record of a directory server: [`repair::InspectArgs`].
    Inspect = 54,
    /// [`repair::RepairArgs`].
    Repair = 55,
}

impl PeerProc {
    const ALL: [Self; 22] = [
        Self::Null,
        Self::Hello,
        Self::Prove,
        Self::Push,
        Self::RaiseReach,
        Self::Hold,
        Self::Confirm,
        Self::Drop,
        Self::Owe,
        Self::Reconcile,
        Self::Truncate,
        Self::Purge,
        Self::Extend,
        Self::Stat,
        Self::IntentLog,
        Self::IntentComplete,
        Self::ListObjects,
        Self::ListAttrs,
        Self::ListEntries,
        Self::Settled,
        Self::Inspect,
        Self::Repair,
    ];

    /// The procedure with this number.
    #[must_use]
    pub fn from_u32(v: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|p| *p as u32 == v)
    }
}

/// Statuses between ours that no client ever sees; they stand where an nfsstat3 stands, and nothing but the
/// result trailer (for NFS procedures) follows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum PrivateStatus {
    /// The server does not own the site, or knows a newer table than the caller's: reload and route again (I4).
    WrongSite = 0x534c_0001,
    /// The file epoch is older than the object's: fetch attributes and try again (I9).
    Fenced = 0x534c_0002,
    /// A hold stands in the way and was asked for out of order: release what is held and try again.
    Retry = 0x534c_0003,
    /// The store has no stamp for the site: it was emptied, or is foreign. An operator must look.
    Unstamped = 0x534c_0004,
}

impl PrivateStatus {
    /// The private status with this number.
    #[must_use]
    pub fn from_u32(v: u32) -> Option<Self> {
        [Self::WrongSite, Self::Fenced, Self::Retry, Self::Unstamped].into_iter().find(|s| *s as u32 == v)
    }
}

/// Declares a structure that is its fields one after another on the wire.
macro_rules! xdr_struct {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$fdoc:meta])* pub $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty),* }
        impl $crate::xdr::Encode for $name {
            fn encode(&self, w: &mut bytes::BytesMut) { $($crate::xdr::Encode::encode(&self.$field, w);)* }
        }
        impl<'a> $crate::xdr::Decode<'a> for $name {
            fn decode(r: &mut $crate::xdr::Reader<'a>) -> $crate::xdr::Result<Self> {
                Ok(Self { $($field: $crate::xdr::Decode::decode(r)?),* })
            }
        }
    };
}
pub(crate) use xdr_struct;
