//! The ensemble's secret and what is derived from it: handle keys and hello proofs.

use crate::ids::EnsembleId;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

/// Length of the ensemble's secret, in bytes.
pub const SECRET_LEN: usize = 32;

/// What every server and µproxy of one ensemble shares: its id and its secret, made at format.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The ensemble.
    pub ensemble: EnsembleId,
    /// Its secret. Never logged, never sent.
    pub secret: [u8; SECRET_LEN],
}

impl Identity {
    /// HMAC-SHA-256 of the parts under the secret; `label` keeps the uses apart.
    #[must_use]
    pub fn mac(&self, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut out = [0; 32];
        // HMAC takes a key of any length, so this branch is always taken.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret) {
            for part in [label.as_bytes()].iter().chain(parts) {
                mac.update(&(part.len() as u64).to_be_bytes());
                mac.update(part);
            }
            out.copy_from_slice(&mac.finalize().into_bytes());
        }
        out
    }

    /// The key with which handles of key id `id` are authenticated: the first 16 bytes of a MAC over the id.
    #[must_use]
    pub fn handle_key(&self, id: u16) -> [u8; 16] {
        let mac = self.mac("handle key", &[&self.ensemble.0.to_be_bytes(), &id.to_be_bytes()]);
        let mut key = [0; 16];
        key.iter_mut().zip(mac).for_each(|(k, m)| *k = m);
        key
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:016x}, secret hidden)", self.ensemble.0)
    }
}
