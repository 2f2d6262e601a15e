//! Proof of the ensemble's secret in the metadata of a control call, and of its reply.
//!
//! ```text
//! request   slice-proof: version.time_ns.nonce.MAC("control call", method ‖ time ‖ nonce)      (hexadecimal)
//! reply     slice-proof: MAC("control reply", method ‖ time ‖ nonce)
//! ```
//!
//! The caller draws the nonce; the time bounds how long the coordinator must remember nonces to refuse a replay.
//! The reply's proof shows that it is the coordinator that answers. What is said is not secret and is not encrypted.

use crate::secret::Identity;
use std::collections::{BTreeSet, HashSet};
use thiserror::Error;

/// Name of the metadata entry.
pub const PROOF_KEY: &str = "slice-proof";
/// Version of the proof.
const VERSION: &str = "1";
/// How far the caller's clock may be from the coordinator's, in nanoseconds: ten minutes. Machines without time
/// synchronisation stay within that for months; and so long must nonces be remembered.
pub const CLOCK_TOLERANCE_NS: u64 = 600 * 1_000_000_000;
/// Most nonces that are remembered: 64 servers' calls at ten a second for twice the tolerance fit in with room.
const MAX_NONCES: usize = 1 << 20;

/// A nonce.
pub type Nonce = [u8; 16];

/// Why a proof is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AuthError {
    /// There is none, or it is not one.
    #[error("the call carries no proof of the ensemble's secret: give the --identity file of this ensemble")]
    Missing,
    /// Another secret.
    #[error("the proof is of another secret: give the --identity file of this ensemble")]
    Wrong,
    /// The clocks are too far apart.
    #[error("the caller's clock is {off_s} s away from the coordinator's: set the machines' clocks")]
    Clock {
        /// By how many seconds.
        off_s: u64,
    },
    /// The very same proof was here before.
    #[error("the proof was used before")]
    Replayed,
    /// Too many calls to remember all nonces.
    #[error("too many calls: try again later")]
    Busy,
}

/// A proof that was made or taken, from which the reply's is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    method: String,
    time_ns: u64,
    nonce: Nonce,
}

impl Proof {
    /// A proof for a call of `method` (`/slice.control.v1.Control/Status`) at `time_ns`.
    #[must_use]
    pub fn new(method: &str, time_ns: u64, nonce: Nonce) -> Self {
        Self { method: method.to_owned(), time_ns, nonce }
    }

    fn mac(&self, identity: &Identity, label: &str) -> String {
        let parts = [self.method.as_bytes(), &self.time_ns.to_be_bytes(), &self.nonce];
        hex(&identity.mac(label, &parts))
    }

    /// The request's metadata value.
    #[must_use]
    pub fn request(&self, identity: &Identity) -> String {
        let mac = self.mac(identity, "control call");
        format!("{VERSION}.{:x}.{}.{mac}", self.time_ns, hex(&self.nonce))
    }

    /// The reply's metadata value.
    #[must_use]
    pub fn reply(&self, identity: &Identity) -> String {
        self.mac(identity, "control reply")
    }

    /// Whether a reply's metadata value is the coordinator's.
    #[must_use]
    pub fn accepts(&self, identity: &Identity, reply: &str) -> bool {
        same(self.reply(identity).as_bytes(), reply.as_bytes())
    }

    /// Reads a request's metadata value and checks all but that it is new.
    ///
    /// # Errors
    /// An [`AuthError`].
    pub fn check(identity: &Identity, method: &str, value: &str, now_ns: u64) -> Result<Self, AuthError> {
        let mut parts = value.split('.');
        let (Some(VERSION), Some(time), Some(nonce), Some(mac), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(AuthError::Missing);
        };
        let time_ns = u64::from_str_radix(time, 16).map_err(|_| AuthError::Missing)?;
        let nonce = unhex(nonce).ok_or(AuthError::Missing)?;
        let proof = Self::new(method, time_ns, nonce);
        if !same(proof.mac(identity, "control call").as_bytes(), mac.as_bytes()) {
            return Err(AuthError::Wrong);
        }
        let off = now_ns.abs_diff(time_ns);
        if off > CLOCK_TOLERANCE_NS {
            return Err(AuthError::Clock { off_s: off / 1_000_000_000 });
        }
        Ok(proof)
    }
}

/// The nonces seen within the clock tolerance.
#[derive(Debug, Default)]
pub struct Nonces {
    seen: HashSet<Nonce>,
    by_time: BTreeSet<(u64, Nonce)>,
}

impl Nonces {
    /// Remembers a proof's nonce.
    ///
    /// # Errors
    /// [`AuthError::Replayed`], [`AuthError::Busy`].
    pub fn take(&mut self, proof: &Proof, now_ns: u64) -> Result<(), AuthError> {
        // One that is too old is refused for its time, so its nonce need not be known any more.
        let horizon = now_ns.saturating_sub(CLOCK_TOLERANCE_NS);
        let kept = self.by_time.split_off(&(horizon, [0; 16]));
        for (_, nonce) in std::mem::replace(&mut self.by_time, kept) {
            self.seen.remove(&nonce);
        }
        if self.seen.len() >= MAX_NONCES {
            return Err(AuthError::Busy);
        }
        if !self.seen.insert(proof.nonce) {
            return Err(AuthError::Replayed);
        }
        self.by_time.insert((proof.time_ns, proof.nonce));
        Ok(())
    }
}

/// Compares without telling by time where the two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// Reads exactly `N` bytes of hexadecimal.
#[must_use]
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut out = [0; N];
    for (to, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *to = (nibble(*high)? << 4) | nibble(*low)?;
    }
    Some(out)
}

fn nibble(digit: u8) -> Option<u8> {
    // A hexadecimal digit is below 16.
    (digit as char).to_digit(16).map(|d| d as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::EnsembleId;
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000_000_000_000;
    const METHOD: &str = "/slice.control.v1.Control/Status";

    fn identity(secret: u8) -> Identity {
        Identity { ensemble: EnsembleId(1), secret: [secret; 32] }
    }

    #[test]
    fn both_sides_prove_the_secret() {
        let sent = Proof::new(METHOD, NOW, [7; 16]);
        let got = Proof::check(&identity(1), METHOD, &sent.request(&identity(1)), NOW).unwrap();
        assert!(sent.accepts(&identity(1), &got.reply(&identity(1))));
        assert!(!sent.accepts(&identity(1), &got.reply(&identity(2))));
        // A request's proof is not good as a reply's.
        assert!(!sent.accepts(&identity(1), &sent.mac(&identity(1), "control call")));
    }

    #[test]
    fn another_secret_method_or_time_is_refused() {
        let value = Proof::new(METHOD, NOW, [7; 16]).request(&identity(1));
        let check = |secret, method, now| Proof::check(&identity(secret), method, &value, now);
        assert_eq!(check(2, METHOD, NOW), Err(AuthError::Wrong));
        assert_eq!(check(1, "/slice.control.v1.Control/Register", NOW), Err(AuthError::Wrong));
        assert_eq!(check(1, METHOD, NOW + CLOCK_TOLERANCE_NS + 1), Err(AuthError::Clock { off_s: 600 }));
        assert!(check(1, METHOD, NOW - CLOCK_TOLERANCE_NS).is_ok());
    }

    #[test]
    fn a_replay_is_refused_and_old_nonces_are_forgotten() {
        let mut nonces = Nonces::default();
        let proof = Proof::new(METHOD, NOW, [7; 16]);
        assert_eq!(nonces.take(&proof, NOW), Ok(()));
        assert_eq!(nonces.take(&proof, NOW + CLOCK_TOLERANCE_NS), Err(AuthError::Replayed));
        let later = Proof::new(METHOD, NOW + CLOCK_TOLERANCE_NS + 1, [8; 16]);
        assert_eq!(nonces.take(&later, NOW + CLOCK_TOLERANCE_NS + 1), Ok(()));
        assert_eq!(nonces.seen.len(), 1);
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_refused(value in "[ -~]{0,200}") {
            prop_assert!(Proof::check(&identity(1), METHOD, &value, NOW).is_err());
        }

        #[test]
        fn hexadecimal_comes_back(bytes: [u8; 16]) {
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        }
    }
}
