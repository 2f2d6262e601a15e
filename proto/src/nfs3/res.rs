//! The shape that every NFSv3 result has: a status, then what goes with success or with failure.

use super::status::NfsStat3;
use crate::xdr::{Decode, Encode, Reader, Result};
use bytes::{BufMut, BytesMut};

/// A result: `O` with NFS3_OK, else a status and `F`. Not a [`std::result::Result`], because failures
/// carry attributes and are as large as successes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Res3<O, F> {
    /// The procedure succeeded.
    Ok(O),
    /// The procedure failed. The status is never [`NfsStat3::OK`].
    Err(NfsStat3, F),
}

impl<O, F> Res3<O, F> {
    /// The status on the wire.
    pub const fn status(&self) -> NfsStat3 {
        match self {
            Self::Ok(_) => NfsStat3::OK,
            Self::Err(status, _) => *status,
        }
    }

    /// The success, or the failure's status.
    ///
    /// # Errors
    /// The status, if it is a failure.
    pub fn into_result(self) -> std::result::Result<O, NfsStat3> {
        match self {
            Self::Ok(ok) => Ok(ok),
            Self::Err(status, _) => Err(status),
        }
    }
}

impl<O: Encode, F: Encode> Encode for Res3<O, F> {
    fn encode(&self, w: &mut BytesMut) {
        match self {
            Self::Ok(ok) => {
                w.put_u32(NfsStat3::OK.0);
                ok.encode(w);
            }
            Self::Err(status, fail) => {
                w.put_u32(status.0);
                fail.encode(w);
            }
        }
    }
}

impl<'a, O: Decode<'a>, F: Decode<'a>> Decode<'a> for Res3<O, F> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        match NfsStat3(r.u32()?) {
            NfsStat3::OK => O::decode(r).map(Self::Ok),
            status => F::decode(r).map(|fail| Self::Err(status, fail)),
        }
    }
}

/// The failure of a procedure that says nothing but its status.
impl Encode for () {
    fn encode(&self, _: &mut BytesMut) {}
}

impl Decode<'_> for () {
    fn decode(_: &mut Reader<'_>) -> Result<Self> {
        Ok(())
    }
}
