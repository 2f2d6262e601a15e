//! Everything said on a wire, without I/O: XDR (RFC 4506), ONC RPC (RFC 5531), NFSv3 and MOUNT v3
//! (RFC 1813), portmap and rpcbind (RFC 1833), the file handle, the routing table with its hashes, the
//! trailers behind forwarded records, and Slice's private program.
#![forbid(unsafe_code)]

pub mod control;
pub mod handle;
pub mod ids;
pub mod mount;
pub mod nfs3;
pub mod peer;
pub mod placement;
pub mod portmap;
pub mod procedures;
pub mod rpc_msg;
pub mod secret;
pub mod stats;
pub mod table;
pub mod trailer;
pub mod xdr;
