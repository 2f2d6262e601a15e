//! Buffers for bulk READ replies: used again, so that neither the kernel must clear fresh pages nor we the buffer.

use bytes::Bytes;
use std::cell::RefCell;

/// Sizes of buffers: a stripe-unit READ, and the usual smaller ones.
const CLASSES: [usize; 2] = [128 << 10, 1 << 20];
/// Buffers of each class that a thread keeps: 5 MiB in all.
const KEPT: [usize; 2] = [8, 4];

thread_local! {
    static FREE: RefCell<[Vec<Vec<u8>>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// A buffer that goes back to the thread that drops it.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// A buffer of at least `len` bytes, of whatever content.
    pub(crate) fn take(len: usize) -> Self {
        let Some(class) = CLASSES.iter().position(|c| *c >= len) else { return Self(vec![0; len]) };
        let kept = FREE.with_borrow_mut(|free| free.get_mut(class).and_then(Vec::pop));
        Self(kept.unwrap_or_else(|| vec![0; CLASSES.get(class).copied().unwrap_or(len)]))
    }

    /// The first `len` bytes, to be filled.
    pub(crate) fn front(&mut self, len: usize) -> &mut [u8] {
        self.0.get_mut(..len).unwrap_or_default()
    }

    /// The first `len` bytes, to be sent.
    pub(crate) fn send(self, len: usize) -> Bytes {
        let len = len.min(self.0.len());
        Bytes::from_owner(self).slice(..len)
    }
}

// === impl AsRef ===

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        let Some(class) = CLASSES.iter().position(|c| *c == buffer.len()) else { return };
        // At a thread's end its list may be gone already: then the buffer goes too.
        let _ = FREE.try_with(|free| {
            let Ok(mut free) = free.try_borrow_mut() else { return };
            if let (Some(list), Some(most)) = (free.get_mut(class), KEPT.get(class))
                && list.len() < *most
            {
                list.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let mut b = Buffer::take(100_000);
        b.front(3).copy_from_slice(b"abc");
        let sent = b.send(3);
        assert_eq!(&sent[..], b"abc");
        let at = sent.as_ptr();
        drop(sent);
        assert_eq!(Buffer::take(70_000).as_ref().as_ptr(), at);
        assert_eq!(Buffer::take(2 << 20).as_ref().len(), 2 << 20);
    }
}
