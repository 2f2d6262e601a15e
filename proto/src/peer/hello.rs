//! The hello that opens a connection between ours: who we are, which versions we speak, and proof of the
//! ensemble's secret in both directions. Until both proofs stand, a server answers nothing but NULL and these.
//!
//! ```text
//! caller                                     server
//!   HELLO  versions, ensemble, role, id, nonce c  ──▶
//!          ◀──  status, version, ensemble, role, id, nonce s, MAC("server", c ‖ s ‖ both sides' fields)
//!   PROVE  MAC("caller", s ‖ c ‖ both sides' fields)  ──▶
//!          ◀──  status
//! ```

use super::xdr_struct;
use crate::ids::{EnsembleId, Role, ServerId};
use crate::secret::Identity;
use crate::xdr::{Decode, Encode, Reader, Result};
use bytes::{BufMut, BytesMut};

/// Lowest version of the wire between ours that this program speaks.
pub const MIN_WIRE_VERSION: u32 = 1;
/// Highest version of the wire between ours that this program speaks.
pub const MAX_WIRE_VERSION: u32 = 1;

/// What became of a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum HelloStatus {
    /// Welcome.
    Ok = 0,
    /// No version in common.
    Version = 1,
    /// Another ensemble.
    Ensemble = 2,
    /// The proof is wrong: another secret.
    Proof = 3,
    /// PROVE without HELLO.
    Order = 4,
    /// The called server is not the one that the caller's table names (address reused by another server).
    Server = 5,
}

impl Encode for HelloStatus {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(*self as u32);
    }
}

impl Decode<'_> for HelloStatus {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let got = r.u32()?;
        [Self::Ok, Self::Version, Self::Ensemble, Self::Proof, Self::Order, Self::Server]
            .into_iter()
            .find(|s| *s as u32 == got)
            .ok_or(crate::xdr::XdrError::BadEnum { got })
    }
}

/// A random number used once, 16 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Nonce(pub [u8; 16]);

impl Encode for Nonce {
    fn encode(&self, w: &mut BytesMut) {
        w.put_slice(&self.0);
    }
}

impl Decode<'_> for Nonce {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self(r.fixed()?))
    }
}

/// An HMAC-SHA-256.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proof(pub [u8; 32]);

impl Encode for Proof {
    fn encode(&self, w: &mut BytesMut) {
        w.put_slice(&self.0);
    }
}

impl Decode<'_> for Proof {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self(r.fixed()?))
    }
}

xdr_struct! {
    /// Arguments of HELLO.
    pub struct HelloArgs {
        /// Lowest wire version that the caller speaks.
        pub min_version: u32,
        /// Highest wire version that the caller speaks.
        pub max_version: u32,
        /// The caller's ensemble.
        pub ensemble: EnsembleId,
        /// The caller's role.
        pub role: Role,
        /// The caller's id.
        pub server: ServerId,
        /// The server that the caller means to reach; 0 where it does not know yet.
        pub wanted: ServerId,
        /// The caller's nonce.
        pub nonce: Nonce,
    }
}

xdr_struct! {
    /// Result of HELLO. With a status other than Ok the other fields are still filled in, but the proof is zero.
    pub struct HelloRes {
        /// What became of it.
        pub status: HelloStatus,
        /// The version that will be spoken.
        pub version: u32,
        /// The called server's ensemble.
        pub ensemble: EnsembleId,
        /// The called server's role.
        pub role: Role,
        /// The called server's id.
        pub server: ServerId,
        /// The called server's nonce.
        pub nonce: Nonce,
        /// [`server_proof`].
        pub proof: Proof,
    }
}

xdr_struct! {
    /// Arguments of PROVE; the result is a [`HelloStatus`].
    pub struct ProveArgs {
        /// [`caller_proof`].
        pub proof: Proof,
    }
}

fn transcript(args: &HelloArgs, res: &HelloRes) -> BytesMut {
    let mut w = BytesMut::new();
    args.encode(&mut w);
    HelloRes { proof: Proof::default(), ..res.clone() }.encode(&mut w);
    w
}

/// The server's proof: a MAC over all that both sides said. Compare with [`same`].
#[must_use]
pub fn server_proof(identity: &Identity, args: &HelloArgs, res: &HelloRes) -> Proof {
    Proof(identity.mac("hello server", &[&transcript(args, res)]))
}

/// The caller's proof: a MAC over all that both sides said, under another label.
#[must_use]
pub fn caller_proof(identity: &Identity, args: &HelloArgs, res: &HelloRes) -> Proof {
    Proof(identity.mac("hello caller", &[&transcript(args, res)]))
}

/// Compares proofs without telling by time where they differ.
#[must_use]
pub fn same(a: &Proof, b: &Proof) -> bool {
    a.0.iter().zip(b.0).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}
