//! Each thread's stock of buffers, so that a request in steady state allocates nothing and an idle connection
//! owns nothing.
//!
//! * one **read chunk**, lent to whichever connection is being read: complete records are split off it, and once they
//!   have all been dropped its memory is used again from the start; full ones wait aside for that;
//! * some **write buffers**, lent to connections that have something to send and to replies being made;
//! * some **arenas** from which replies of in-process calls are cut;
//! * some **large buffers**, a record each: handles on memory that comes free when the record is dropped.

use crate::framing::MAX_RECORD;
use bytes::BytesMut;
use slice_proto::rpc_msg::RECORD_MARK_LEN as MARK_LEN;
use std::cell::{Cell, RefCell};

/// Most bytes asked of a socket by one read: hundreds of small records.
pub(crate) const READ_AT_ONCE: usize = 64 << 10;

/// Size of a read chunk. Records that are kept pin their whole chunk, so a chunk is left only when less than a full
/// read would fit: at most a quarter is wasted.
const READ_CHUNK: usize = 4 * READ_AT_ONCE;

/// Size of an arena; one holds a few hundred small replies.
const ARENA: usize = 64 << 10;
/// An arena with less room than this is changed: the longest reply without bulk data, a full READDIRPLUS page, grows
/// its own buffer.
const ARENA_MIN: usize = 8 << 10;

/// Buffers of one sort that a thread keeps for the next who needs one.
const KEPT: usize = 8;
/// A write buffer with less room than this, whose memory is still in use elsewhere, is not kept.
const KEPT_MIN: usize = 512;
/// Nor is one that grew beyond this.
const KEPT_MAX_LEN: usize = 256 << 10;

thread_local! {
    static STOCK: Stock = Stock::default();
}

#[derive(Default)]
struct Stock {
    chunk: Cell<BytesMut>,
    /// Chunks that were left because their room was used up, oldest first.
    spent: RefCell<Vec<BytesMut>>,
    write: RefCell<Vec<BytesMut>>,
    arenas: RefCell<Vec<BytesMut>>,
    large: RefCell<Vec<BytesMut>>,
    large_used: Cell<bool>,
}

/// The thread's read chunk: empty, with room for a whole read.
pub(crate) fn take_chunk() -> BytesMut {
    fit_chunk(STOCK.with(|s| s.chunk.take()))
}

/// Makes room for a whole read behind what `chunk` holds.
pub(crate) fn fit_chunk(mut chunk: BytesMut) -> BytesMut {
    // An empty chunk without other handles starts again at its beginning, where the cache is warm.
    if chunk.is_empty() && chunk.try_reclaim(READ_CHUNK) {
        return chunk;
    }
    if chunk.capacity() - chunk.len() >= READ_AT_ONCE || chunk.try_reclaim(READ_AT_ONCE) {
        return chunk;
    }
    let room = READ_CHUNK.max(chunk.len() + READ_AT_ONCE);
    let mut fresh = STOCK
        .with(|s| reclaim(&mut s.spent.borrow_mut(), room))
        .unwrap_or_else(|| BytesMut::with_capacity(room));
    fresh.extend_from_slice(&chunk);
    chunk.clear();
    STOCK.with(|s| put_aside(&mut s.spent.borrow_mut(), chunk));
    fresh
}

/// Returns the read chunk; what it still holds is forgotten.
pub(crate) fn give_chunk(mut chunk: BytesMut) {
    chunk.clear();
    STOCK.with(|s| s.chunk.set(chunk));
}

/// An empty buffer to write into.
pub(crate) fn take_write() -> BytesMut {
    STOCK.with(|s| s.write.borrow_mut().pop()).unwrap_or_default()
}

/// Returns a buffer for the next who writes.
pub(crate) fn give_write(mut buf: BytesMut) {
    buf.clear();
    if buf.try_reclaim(KEPT_MIN) && buf.capacity() <= KEPT_MAX_LEN {
        STOCK.with(|s| keep(&s.write, buf));
    }
}

/// An empty buffer with room for a small message, to be cut off with [`BytesMut::split`] and the rest given back.
pub(crate) fn take_arena() -> BytesMut {
    let mut arena = STOCK.with(|s| s.arenas.borrow_mut().pop()).unwrap_or_default();
    if !arena.try_reclaim(ARENA) && arena.capacity() < ARENA_MIN {
        arena = BytesMut::with_capacity(ARENA);
    }
    arena
}

/// Returns an arena, emptied by a split.
pub(crate) fn give_arena(mut arena: BytesMut) {
    arena.clear();
    if arena.capacity() >= ARENA_MIN {
        STOCK.with(|s| keep(&s.arenas, arena));
    }
}

/// An empty buffer with room for `len` bytes, `len` at most a marked record.
pub(crate) fn take_large(len: usize) -> BytesMut {
    let class = class(len);
    STOCK.with(|s| {
        s.large_used.set(true);
        reclaim(&mut s.large.borrow_mut(), class).unwrap_or_else(|| BytesMut::with_capacity(class))
    })
}

/// Leaves the emptied handle of a large buffer: once the record that was split off it is dropped, it serves again.
pub(crate) fn give_large(mut handle: BytesMut) {
    handle.clear();
    STOCK.with(|s| put_aside(&mut s.large.borrow_mut(), handle));
}

/// Gives what was put aside back to the system if no large buffer was needed since the last call.
pub(crate) fn trim() {
    STOCK.with(|s| {
        if !s.large_used.replace(false) {
            s.large.borrow_mut().clear();
            s.spent.borrow_mut().clear();
        }
    });
}

/// A buffer whose other handles have all been dropped, with room for `len` bytes and not for much more.
fn reclaim(aside: &mut Vec<BytesMut>, len: usize) -> Option<BytesMut> {
    let found = aside.iter_mut().position(|buf| buf.try_reclaim(len) && buf.capacity() < 2 * len)?;
    Some(aside.remove(found))
}

fn put_aside(aside: &mut Vec<BytesMut>, handle: BytesMut) {
    if aside.len() >= KEPT {
        aside.remove(0);
    }
    aside.push(handle);
}

/// Large buffers come in powers of two, so that one fits the next record of about the same length.
fn class(len: usize) -> usize {
    len.next_power_of_two().min(MARK_LEN + MAX_RECORD).max(len)
}

fn keep(stock: &RefCell<Vec<BytesMut>>, buf: BytesMut) {
    let mut stock = stock.borrow_mut();
    if stock.len() < KEPT {
        stock.push(buf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chunk_is_used_again_from_its_start_once_its_records_are_gone() {
        let mut chunk = take_chunk();
        let start = chunk.as_ptr();
        chunk.extend_from_slice(&[1; 1000]);
        let record = chunk.split_to(600);
        give_chunk(chunk);
        // While a record lives, the room behind it is used.
        let chunk = take_chunk();
        assert!(chunk.as_ptr() > start && chunk.capacity() >= READ_AT_ONCE);
        give_chunk(chunk);
        drop(record);
        assert_eq!(take_chunk().as_ptr(), start);
    }

    #[test]
    fn kept_records_never_leave_too_little_room() {
        let mut kept = Vec::new();
        for _ in 0..100 {
            let mut chunk = take_chunk();
            assert!(chunk.capacity() - chunk.len() >= READ_AT_ONCE);
            chunk.extend_from_slice(&[0; 10_000]);
            kept.push(chunk.split());
            give_chunk(chunk);
        }
    }

    #[test]
    fn a_large_buffer_serves_again_once_its_record_is_gone() {
        let mut own = take_large(MAX_RECORD);
        own.extend_from_slice(&[7; 70_000]);
        let start = own.as_ptr();
        let record = own.split().freeze();
        give_large(own);
        let other = take_large(MAX_RECORD);
        assert_ne!(other.as_ptr(), start);
        drop(record);
        assert_eq!(take_large(MAX_RECORD).as_ptr(), start);
        trim();
        trim();
        STOCK.with(|s| assert!(s.large.borrow().is_empty()));
    }

    #[test]
    fn arenas_are_cut_from_one_allocation() {
        let mut first = take_arena();
        first.extend_from_slice(&[1; 100]);
        let reply = first.split();
        give_arena(first);
        let second = take_arena();
        assert_eq!(second.as_ptr() as usize, reply.as_ptr() as usize + 100);
    }
}
