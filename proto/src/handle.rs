//! The file handle: opaque to clients, fields at fixed offsets so that routing needs no parsing (I1).
//!
//! ```text
//! offset length field
//!      0      1 version, 1
//!      1      1 type (ftype3 of RFC 1813 section 2.3.5)
//!      2      2 key id
//!      4      4 volume
//!      8      4 placement policy id
//!     12      4 reserved, 0
//!     16      8 file id
//!     24      8 snapshot id, 0 for the live file
//!     32     16 SipHash-2-4-128 over bytes 0..32 under the key
//! ```
//! What routing reads most (file id, volume) is aligned; the MAC stands last so that it covers a prefix.
//! No machine, no boot time: a handle survives restart, failover, rename and rebalancing.

use crate::ids::{FileId, VolumeId};
use crate::secret::Identity;
use crate::xdr::{Encode, Put};
use bytes::BytesMut;
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;
use thiserror::Error;

/// Length of a handle in bytes.
pub const HANDLE_LEN: usize = 48;
/// Version of the layout.
pub const HANDLE_VERSION: u8 = 1;
const MAC_AT: usize = 32;

/// Why bytes are not a handle of this ensemble. All of them answer `NFS3ERR_BADHANDLE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HandleError {
    /// The length is not [`HANDLE_LEN`].
    #[error("handle of {0} bytes")]
    Length(usize),
    /// A version that this program does not know.
    #[error("handle version {0}")]
    Version(u8),
    /// A key id that this ensemble does not have.
    #[error("handle key {0}")]
    Key(u16),
    /// The MAC is not ours: a forged or damaged handle.
    #[error("handle with a wrong MAC")]
    Mac,
}

/// A handle's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle {
    /// ftype3 of RFC 1813: 1 regular, 2 directory, 3 block, 4 character, 5 symlink, 6 socket, 7 FIFO.
    pub ftype: u8,
    /// The volume it belongs to.
    pub volume: VolumeId,
    /// Placement policy (striping, mirroring): an index into an immutable table.
    pub policy: u32,
    /// The file.
    pub file: FileId,
    /// 0 for the live file.
    pub snapshot: u64,
}

/// A handle as it stands on the wire and in directory entries.
pub type HandleBytes = [u8; HANDLE_LEN];

/// The keys that authenticate handles.
#[derive(Debug, Clone)]
pub struct KeyRing {
    current: u16,
    keys: Vec<[u8; 16]>,
}

impl KeyRing {
    /// Keys 0..=`current` of the ensemble; new handles are made with `current`.
    #[must_use]
    pub fn new(identity: &Identity, current: u16) -> Self {
        Self { current, keys: (0..=current).map(|id| identity.handle_key(id)).collect() }
    }

    /// Makes a handle.
    #[must_use]
    pub fn seal(&self, h: &Handle) -> HandleBytes {
        let mut out = [0; HANDLE_LEN];
        let (front, mac) = out.split_at_mut(MAC_AT);
        let fields = [
            &[HANDLE_VERSION, h.ftype][..],
            &self.current.to_be_bytes(),
            &h.volume.0.to_be_bytes(),
            &h.policy.to_be_bytes(),
            &[0; 4],
            &h.file.0.to_be_bytes(),
            &h.snapshot.to_be_bytes(),
        ];
        for (to, from) in front.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        if let Some(key) = self.keys.get(usize::from(self.current)) {
            mac.copy_from_slice(&mac_of(key, front));
        }
        out
    }

    /// Checks a handle and reads its fields.
    ///
    /// # Errors
    /// A [`HandleError`]; the reply is `NFS3ERR_BADHANDLE`.
    pub fn open(&self, bytes: &[u8]) -> Result<Handle, HandleError> {
        let h: &HandleBytes = bytes.try_into().map_err(|_| HandleError::Length(bytes.len()))?;
        let [version, ftype, k0, k1, v0, v1, v2, v3, p0, p1, p2, p3, _, _, _, _, rest @ ..] = h;
        if *version != HANDLE_VERSION {
            return Err(HandleError::Version(*version));
        }
        let key_id = u16::from_be_bytes([*k0, *k1]);
        let key = self.keys.get(usize::from(key_id)).ok_or(HandleError::Key(key_id))?;
        let (front, mac) = h.split_at(MAC_AT);
        if mac != mac_of(key, front) {
            return Err(HandleError::Mac);
        }
        let [f0, f1, f2, f3, f4, f5, f6, f7, s0, s1, s2, s3, s4, s5, s6, s7, ..] = rest;
        Ok(Handle {
            ftype: *ftype,
            volume: VolumeId(u32::from_be_bytes([*v0, *v1, *v2, *v3])),
            policy: u32::from_be_bytes([*p0, *p1, *p2, *p3]),
            file: FileId(u64::from_be_bytes([*f0, *f1, *f2, *f3, *f4, *f5, *f6, *f7])),
            snapshot: u64::from_be_bytes([*s0, *s1, *s2, *s3, *s4, *s5, *s6, *s7]),
        })
    }
}

/// The MAC: SipHash-2-4 with 128 bits of output.
fn mac_of(key: &[u8; 16], front: &[u8]) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(front);
    hasher.finish128().as_bytes()
}

impl Encode for HandleBytes {
    fn encode(&self, w: &mut BytesMut) {
        w.put_opaque(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{EnsembleId, Site};

    fn ring() -> KeyRing {
        KeyRing::new(&Identity { ensemble: EnsembleId(7), secret: [9; 32] }, 1)
    }

    fn handle() -> Handle {
        Handle { ftype: 1, volume: VolumeId(3), policy: 2, file: FileId::new(Site(200), 77), snapshot: 0 }
    }

    #[test]
    fn a_sealed_handle_opens_to_the_same_fields() {
        assert_eq!(ring().open(&ring().seal(&handle())), Ok(handle()));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let good = ring().seal(&handle());
        for bit in 0..HANDLE_LEN * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ring().open(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn an_older_key_still_opens_and_another_ensemble_does_not() {
        let old = KeyRing::new(&Identity { ensemble: EnsembleId(7), secret: [9; 32] }, 0).seal(&handle());
        assert_eq!(ring().open(&old), Ok(handle()));
        let foreign = KeyRing::new(&Identity { ensemble: EnsembleId(7), secret: [8; 32] }, 1);
        assert_eq!(foreign.open(&old), Err(HandleError::Mac));
    }
}
