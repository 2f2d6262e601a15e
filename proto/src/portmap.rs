//! Portmap version 2 and rpcbind versions 3 and 4 (RFC 1833), both directions: we answer these, and we
//! register with a port mapper that runs already.

use crate::mount::list;
use crate::xdr::{Decode, Encode, Put, Reader, Result, XdrError};
use bytes::{BufMut, BytesMut};
use std::net::{IpAddr, SocketAddr};

/// The port of the port mapper.
pub const PORT: u16 = 111;
/// `prot` of a mapping over TCP.
pub const IPPROTO_TCP: u32 = 6;
/// `prot` of a mapping over UDP.
pub const IPPROTO_UDP: u32 = 17;

/// Longest netid, universal address, owner or protocol name that is decoded, in bytes: above any that exists.
pub const MAX_TEXT: u32 = 256;

/// Procedures of portmap version 2 (section 3).
pub mod proc2 {
    /// Do nothing.
    pub const NULL: u32 = 0;
    /// Register a [`Mapping`](super::Mapping). Result: bool.
    pub const SET: u32 = 1;
    /// Unregister all mappings of a program and version. Result: bool.
    pub const UNSET: u32 = 2;
    /// The port of a program, version and protocol. Result: u32, 0 if not registered.
    pub const GETPORT: u32 = 3;
    /// All mappings. Result: [`MappingList`](super::MappingList).
    pub const DUMP: u32 = 4;
    /// Call through the port mapper: never answered, as it hides who calls.
    pub const CALLIT: u32 = 5;
}

/// Procedures of rpcbind versions 3 and 4 (section 2).
pub mod proc3 {
    /// Do nothing.
    pub const NULL: u32 = 0;
    /// Register an [`Rpcb`](super::Rpcb). Result: bool.
    pub const SET: u32 = 1;
    /// Unregister. Result: bool.
    pub const UNSET: u32 = 2;
    /// The universal address of a program and version on the transport asked over. Result:
    /// [`Text`](super::Text), empty if not registered.
    pub const GETADDR: u32 = 3;
    /// All registrations. Result: [`RpcbList`](super::RpcbList).
    pub const DUMP: u32 = 4;
    /// Version 3 CALLIT, version 4 BCAST: never answered.
    pub const CALLIT: u32 = 5;
    /// Seconds since the epoch. Result: u32.
    pub const GETTIME: u32 = 6;
    /// From a universal address to a transport's own.
    pub const UADDR2TADDR: u32 = 7;
    /// The reverse.
    pub const TADDR2UADDR: u32 = 8;
    /// Version 4: as GETADDR, but only if the version fits. Result: [`Text`](super::Text).
    pub const GETVERSADDR: u32 = 9;
    /// Version 4: as CALLIT, but errors are answered: never answered by us.
    pub const INDIRECT: u32 = 10;
    /// Version 4: all addresses of a program and version. Result: [`AddrList`](super::AddrList).
    pub const GETADDRLIST: u32 = 11;
    /// Version 4: statistics.
    pub const GETSTAT: u32 = 12;
}

/// `mapping` of version 2: the argument of SET, UNSET and GETPORT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Program.
    pub prog: u32,
    /// Version.
    pub vers: u32,
    /// [`IPPROTO_TCP`] or [`IPPROTO_UDP`].
    pub prot: u32,
    /// Port; ignored by UNSET and GETPORT.
    pub port: u32,
}

/// Result of version 2's DUMP: `pmaplist`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MappingList(pub Vec<Mapping>);

/// `rpcb` of versions 3 and 4: the argument of SET, UNSET, GETADDR, GETVERSADDR and GETADDRLIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rpcb<'a> {
    /// Program.
    pub prog: u32,
    /// Version.
    pub vers: u32,
    /// Transport: `tcp`, `udp`, `tcp6`, `udp6`.
    pub netid: &'a [u8],
    /// Universal address: [`uaddr`].
    pub addr: &'a [u8],
    /// Who registered it.
    pub owner: &'a [u8],
}

/// Result of DUMP in versions 3 and 4: `rpcblist`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RpcbList<'a>(pub Vec<Rpcb<'a>>);

/// A string: results GETADDR and GETVERSADDR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a>(pub &'a [u8]);

/// `rpcb_entry`: one way to reach a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddrEntry<'a> {
    /// Universal address.
    pub addr: &'a [u8],
    /// Transport.
    pub netid: &'a [u8],
    /// Semantics: [`NC_TPI_CLTS`], [`NC_TPI_COTS_ORD`].
    pub semantics: u32,
    /// Protocol family: `inet`, `inet6`.
    pub family: &'a [u8],
    /// Protocol: `tcp`, `udp`.
    pub proto: &'a [u8],
}

/// `nc_semantics` of a connectionless transport (UDP).
pub const NC_TPI_CLTS: u32 = 1;
/// `nc_semantics` of a connection with orderly release (TCP).
pub const NC_TPI_COTS_ORD: u32 = 3;

/// Result of GETADDRLIST: `rpcb_entry_list`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddrList<'a>(pub Vec<AddrEntry<'a>>);

/// The universal address of a socket (RFC 5665 section 5.2.3): the address as text, then the port's two bytes.
#[must_use]
pub fn uaddr(addr: SocketAddr) -> String {
    let [high, low] = addr.port().to_be_bytes();
    format!("{}.{high}.{low}", addr.ip())
}

/// The socket of a universal address; `None` if it is not one.
#[must_use]
pub fn parse_uaddr(text: &str) -> Option<SocketAddr> {
    let (rest, low) = text.rsplit_once('.')?;
    let (ip, high) = rest.rsplit_once('.')?;
    let port = u16::from_be_bytes([high.parse().ok()?, low.parse().ok()?]);
    Some(SocketAddr::new(ip.parse().ok()?, port))
}

/// The netid of a TCP or UDP socket at `ip`.
#[must_use]
pub const fn netid(ip: IpAddr, tcp: bool) -> &'static str {
    match (ip, tcp) {
        (IpAddr::V4(_), true) => "tcp",
        (IpAddr::V4(_), false) => "udp",
        (IpAddr::V6(_), true) => "tcp6",
        (IpAddr::V6(_), false) => "udp6",
    }
}

fn put_list<T: Encode>(w: &mut BytesMut, all: &[T]) {
    for item in all {
        w.put_bool(true);
        item.encode(w);
    }
    w.put_bool(false);
}

// === impl Mapping ===

impl Encode for Mapping {
    fn encode(&self, w: &mut BytesMut) {
        [self.prog, self.vers, self.prot, self.port].iter().for_each(|v| w.put_u32(*v));
    }
}

impl Decode<'_> for Mapping {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { prog: r.u32()?, vers: r.u32()?, prot: r.u32()?, port: r.u32()? })
    }
}

impl Encode for MappingList {
    fn encode(&self, w: &mut BytesMut) {
        put_list(w, &self.0);
    }
}

impl Decode<'_> for MappingList {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        list(r, Mapping::decode).map(Self)
    }
}

// === impl Rpcb ===

impl Encode for Rpcb<'_> {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(self.prog);
        w.put_u32(self.vers);
        [self.netid, self.addr, self.owner].iter().for_each(|v| w.put_opaque(v));
    }
}

impl<'a> Decode<'a> for Rpcb<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(Self {
            prog: r.u32()?,
            vers: r.u32()?,
            netid: r.opaque(MAX_TEXT)?,
            addr: r.opaque(MAX_TEXT)?,
            owner: r.opaque(MAX_TEXT)?,
        })
    }
}

impl Encode for RpcbList<'_> {
    fn encode(&self, w: &mut BytesMut) {
        put_list(w, &self.0);
    }
}

impl<'a> Decode<'a> for RpcbList<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        list(r, Rpcb::decode).map(Self)
    }
}

// === impl Text ===

impl Encode for Text<'_> {
    fn encode(&self, w: &mut BytesMut) {
        w.put_opaque(self.0);
    }
}

impl<'a> Decode<'a> for Text<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        r.opaque(MAX_TEXT).map(Self)
    }
}

impl<'a> Text<'a> {
    /// The socket that this universal address names; `Ok(None)` if it is empty: not registered.
    ///
    /// # Errors
    /// [`XdrError::NotUtf8`] if it is neither empty nor a universal address in text.
    pub fn socket(&self) -> Result<Option<SocketAddr>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let parsed = std::str::from_utf8(self.0).ok().and_then(parse_uaddr);
        parsed.map(Some).ok_or(XdrError::NotUtf8)
    }
}

// === impl AddrEntry ===

impl Encode for AddrEntry<'_> {
    fn encode(&self, w: &mut BytesMut) {
        w.put_opaque(self.addr);
        w.put_opaque(self.netid);
        w.put_u32(self.semantics);
        w.put_opaque(self.family);
        w.put_opaque(self.proto);
    }
}

impl<'a> Decode<'a> for AddrEntry<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(Self {
            addr: r.opaque(MAX_TEXT)?,
            netid: r.opaque(MAX_TEXT)?,
            semantics: r.u32()?,
            family: r.opaque(MAX_TEXT)?,
            proto: r.opaque(MAX_TEXT)?,
        })
    }
}

impl Encode for AddrList<'_> {
    fn encode(&self, w: &mut BytesMut) {
        put_list(w, &self.0);
    }
}

impl<'a> Decode<'a> for AddrList<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        list(r, AddrEntry::decode).map(Self)
    }
}
