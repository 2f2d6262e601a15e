//! External Data Representation (RFC 4506): a bounded reader over borrowed bytes and a writer.
//!
//! Decoding never trusts a length: every variable-length item states its bound, and a length that
//! exceeds the bound or the record is an [`XdrError`], not an allocation.

use bytes::{BufMut, BytesMut};
use thiserror::Error;

/// Why bytes are not the XDR item they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum XdrError {
    /// The record ends before the item does.
    #[error("record ends {missing} bytes short")]
    Short {
        /// Bytes that the item needs beyond the record's end.
        missing: usize,
    },
    /// A variable-length item is longer than its bound.
    #[error("length {got} exceeds the bound {max}")]
    TooLong {
        /// Length found on the wire, in bytes or elements.
        got: u32,
        /// The bound.
        max: u32,
    },
    /// A boolean or an enumeration has a value that it cannot have.
    #[error("value {got} is none of the enumeration's")]
    BadEnum {
        /// Value found on the wire.
        got: u32,
    },
    /// Text that must be UTF-8 is not.
    #[error("text is not UTF-8")]
    NotUtf8,
}

/// Result of decoding.
pub type Result<T> = std::result::Result<T, XdrError>;

/// Bytes that round `len` up to a multiple of four (RFC 4506 section 3).
#[must_use]
pub const fn padding(len: usize) -> usize {
    (4 - len % 4) % 4
}

/// A cursor over a record. Everything it returns borrows from the record.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    buf: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `buf`.
    #[must_use]
    pub const fn new(buf: &'a [u8]) -> Self {
        Self { buf, at: 0 }
    }

    /// Reads from byte `at` of `buf`; an `at` past the end reads as an empty rest.
    #[must_use]
    pub const fn at(buf: &'a [u8], at: usize) -> Self {
        Self { buf, at }
    }

    /// Offset of the next byte, in bytes from the start of the record.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Bytes left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.buf.len().saturating_sub(self.at)
    }

    /// All bytes left, without consuming them.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.buf.get(self.at..).unwrap_or_default()
    }

    /// Takes exactly `len` bytes, without padding.
    ///
    /// # Errors
    /// [`XdrError::Short`] if the record ends before.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len).ok_or(XdrError::Short { missing: len })?;
        let got = self
            .buf
            .get(self.at..end)
            .ok_or(XdrError::Short { missing: end.saturating_sub(self.buf.len()) })?;
        self.at = end;
        Ok(got)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N)?;
        // take() returned exactly N bytes, so the conversion cannot fail; map it all the same.
        bytes.try_into().map_err(|_| XdrError::Short { missing: N })
    }

    /// Unsigned integer (section 4.2).
    ///
    /// # Errors
    /// [`XdrError::Short`].
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Unsigned hyper integer (section 4.5).
    ///
    /// # Errors
    /// [`XdrError::Short`].
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Boolean (section 4.4).
    ///
    /// # Errors
    /// [`XdrError::Short`], or [`XdrError::BadEnum`] for anything but 0 and 1.
    pub fn bool(&mut self) -> Result<bool> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            got => Err(XdrError::BadEnum { got }),
        }
    }

    /// Fixed-length opaque data (section 4.9), padding consumed.
    ///
    /// # Errors
    /// [`XdrError::Short`].
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let got = self.array()?;
        self.take(padding(N))?;
        Ok(got)
    }

    /// Variable-length opaque data of at most `max` bytes (section 4.10), padding consumed.
    ///
    /// # Errors
    /// [`XdrError::TooLong`], [`XdrError::Short`].
    pub fn opaque(&mut self, max: u32) -> Result<&'a [u8]> {
        let len = self.len(max)?;
        let got = self.take(len as usize)?;
        self.take(padding(len as usize))?;
        Ok(got)
    }

    /// A length or element count of at most `max`.
    ///
    /// # Errors
    /// [`XdrError::TooLong`], [`XdrError::Short`].
    pub fn len(&mut self, max: u32) -> Result<u32> {
        let got = self.u32()?;
        if got > max {
            return Err(XdrError::TooLong { got, max });
        }
        Ok(got)
    }

    /// Optional data (section 4.19): a boolean, then the item if it is true.
    ///
    /// # Errors
    /// What the boolean or the item fails with.
    pub fn option<T>(&mut self, item: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        if self.bool()? { item(self).map(Some) } else { Ok(None) }
    }
}

/// Something that can be read from a record.
pub trait Decode<'a>: Sized {
    /// Reads the item.
    ///
    /// # Errors
    /// An [`XdrError`] if the bytes are not such an item.
    fn decode(r: &mut Reader<'a>) -> Result<Self>;
}

/// Something that can be written to a record. Writing cannot fail: the buffer grows.
pub trait Encode {
    /// Appends the item to `w`.
    fn encode(&self, w: &mut BytesMut);
}

/// Appends XDR items to a buffer.
pub trait Put {
    /// Boolean.
    fn put_bool(&mut self, v: bool);
    /// Variable-length opaque data with its length and padding.
    fn put_opaque(&mut self, v: &[u8]);
    /// Fixed-length opaque data with its padding.
    fn put_fixed(&mut self, v: &[u8]);
    /// Optional data: a boolean, then the item if there is one.
    fn put_option<T: Encode>(&mut self, v: Option<&T>);
}

// === impl Put ===

impl Put for BytesMut {
    fn put_bool(&mut self, v: bool) {
        self.put_u32(u32::from(v));
    }

    fn put_opaque(&mut self, v: &[u8]) {
        // An item longer than 4 GiB cannot be in a record; every bound is far below.
        self.put_u32(u32::try_from(v.len()).unwrap_or(u32::MAX));
        self.put_fixed(v);
    }

    fn put_fixed(&mut self, v: &[u8]) {
        self.put_slice(v);
        self.put_bytes(0, padding(v.len()));
    }

    fn put_option<T: Encode>(&mut self, v: Option<&T>) {
        self.put_bool(v.is_some());
        if let Some(v) = v {
            v.encode(self);
        }
    }
}

impl Encode for u32 {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u32(*self);
    }
}

impl Encode for u64 {
    fn encode(&self, w: &mut BytesMut) {
        w.put_u64(*self);
    }
}

impl Decode<'_> for u32 {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        r.u32()
    }
}

impl Decode<'_> for u64 {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        r.u64()
    }
}
