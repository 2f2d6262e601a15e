//! What is written as one.

use bytes::Bytes;

/// One change: `value` is what stands at `key` afterwards, `None` for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// 1 to 65,535 bytes (the engine's limits; ours are under 300).
    pub key: Bytes,
    /// At most 64 MiB; ours are under 64 KiB.
    pub value: Option<Bytes>,
}

/// Changes that take effect together or not at all. If a key occurs twice, the later change wins.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) ops: Vec<Op>,
    pub(crate) bytes: usize,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> &mut Self {
        self.push(key.as_ref(), Some(value.into()))
    }

    /// Removes `key`; nothing happens if it is not there.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.push(key.as_ref(), None)
    }

    fn push(&mut self, key: &[u8], value: Option<Bytes>) -> &mut Self {
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        self.ops.push(Op { key: Bytes::copy_from_slice(key), value });
        self
    }

    /// Adds the changes of `other` behind its own.
    pub fn append(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.ops.extend(other.ops);
    }

    /// The changes, in order.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}
