//! No bytes make a decoder panic, or allocate more than a small multiple of what was sent.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop at the first surprise")]
#![allow(
    unsafe_code,
    reason = "counting allocations takes an allocator, whose trait is unsafe; it forwards to the system's"
)]

mod common;

use bytes::BytesMut;
use common::Gen;
use proptest::prelude::*;
use slice_proto::mount::*;
use slice_proto::nfs3::*;
use slice_proto::portmap::{AddrList, MappingList, RpcbList, Text};
use slice_proto::rpc_msg::{AuthSys, CallHeader, ReplyHeader, cred_range, peek_xid};
use slice_proto::xdr::{Decode, Encode, Reader};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

/// Counts the bytes that this thread asks for.
struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: forwards every call unchanged to the system's allocator; the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ASKED.try_with(|a| a.set(a.get() + layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        let _ = ASKED.try_with(|a| a.set(a.get() + new));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(ptr, layout, new) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes asked for while `f` runs.
fn asked(f: impl FnOnce()) -> usize {
    let before = ASKED.get();
    f();
    ASKED.get() - before
}

/// Keeps the optimiser from leaving the work out.
fn see<T>(result: T) {
    black_box(result);
}

fn decode<'a, T: Decode<'a>>(bytes: &'a [u8]) {
    see(T::decode(&mut Reader::new(bytes)));
}

/// Decoders that must not allocate at all.
const FLAT: &[fn(&[u8])] = &[
    |b| see(CallHeader::decode(b)),
    |b| see(ReplyHeader::decode(b)),
    |b| see(AuthSys::from_body(b)),
    |b| see((cred_range(b), peek_xid(b))),
    |b| decode::<AuthSys>(b),
    |b| decode::<GetattrArgs>(b),
    |b| decode::<GetattrRes>(b),
    |b| decode::<SetattrArgs>(b),
    |b| decode::<SetattrRes>(b),
    |b| decode::<LookupArgs>(b),
    |b| decode::<LookupRes>(b),
    |b| decode::<AccessArgs>(b),
    |b| decode::<AccessRes>(b),
    |b| decode::<ReadlinkArgs>(b),
    |b| decode::<ReadlinkRes>(b),
    |b| decode::<ReadArgs>(b),
    |b| decode::<ReadRes>(b),
    |b| decode::<WriteArgs>(b),
    |b| decode::<WriteRes>(b),
    |b| decode::<CreateArgs>(b),
    |b| decode::<CreateRes>(b),
    |b| decode::<MkdirArgs>(b),
    |b| decode::<SymlinkArgs>(b),
    |b| decode::<MknodArgs>(b),
    |b| decode::<RemoveArgs>(b),
    |b| decode::<RemoveRes>(b),
    |b| decode::<RenameArgs>(b),
    |b| decode::<RenameRes>(b),
    |b| decode::<LinkArgs>(b),
    |b| decode::<LinkRes>(b),
    |b| decode::<ReaddirArgs>(b),
    |b| decode::<ReaddirplusArgs>(b),
    |b| decode::<FsArgs>(b),
    |b| decode::<FsstatRes>(b),
    |b| decode::<FsinfoRes>(b),
    |b| decode::<PathconfRes>(b),
    |b| decode::<CommitArgs>(b),
    |b| decode::<CommitRes>(b),
    |b| decode::<DirPath>(b),
    |b| decode::<MntResV1>(b),
    |b| decode::<Text>(b),
    |b| see(peek::fh_at(b, 0)),
    |b| see(peek::dirop_at(b, 0)),
    |b| see(peek::extent_at(b, 0)),
    |b| see(peek::write_at(b, 0)),
    |b| Proc3::ALL.iter().for_each(|p| see(slots::for_each_attr(*p, b, |_| {}))),
];

/// Decoders that return lists.
const LISTS: &[fn(&[u8])] = &[
    |b| decode::<ReaddirRes>(b),
    |b| decode::<ReaddirplusRes>(b),
    |b| decode::<MntRes>(b),
    |b| decode::<MountList>(b),
    |b| decode::<ExportList>(b),
    |b| decode::<MappingList>(b),
    |b| decode::<RpcbList>(b),
    |b| decode::<AddrList>(b),
];

/// Most bytes that a list may ask for, for each byte of the record: an entry in memory is at most 12 times
/// its shortest form on the wire, and a growing vector asks for at most 4 times what it ends with.
const LIST_FACTOR: usize = 48;
/// A vector's first allocation.
const LIST_FLOOR: usize = 4096;

fn throw(bytes: &[u8]) {
    for (i, decoder) in FLAT.iter().enumerate() {
        let got = asked(|| decoder(bytes));
        assert_eq!(got, 0, "flat decoder {i} allocates");
    }
    for (i, decoder) in LISTS.iter().enumerate() {
        let (got, most) = (asked(|| decoder(bytes)), LIST_FLOOR + LIST_FACTOR * bytes.len());
        assert!(got <= most, "list decoder {i} asks for {got} bytes for a record of {}", bytes.len());
    }
}

fn words() -> impl Strategy<Value = Vec<u8>> {
    // Small numbers, so that lengths, booleans and enumerations are often right.
    let word = prop_oneof![6 => 0u32..4, 2 => 0u32..100, 1 => any::<u32>()];
    prop::collection::vec(word, 0..300).prop_map(|w| w.iter().flat_map(|w| w.to_be_bytes()).collect())
}

proptest! {
    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        throw(&bytes);
    }

    #[test]
    fn random_words(bytes in words()) {
        throw(&bytes);
    }

    #[test]
    fn damaged_results(entropy in prop::collection::vec(any::<u8>(), 0..1500), at in any::<u16>(), bits in 1u8..) {
        let mut g = Gen::new(&entropy);
        let mut w = BytesMut::new();
        g.readdirplus_res().encode(&mut w);
        g.create_res().encode(&mut w);
        let at = usize::from(at) % w.len();
        w[at] ^= bits;
        throw(&w);
    }
}

#[test]
fn the_densest_lists_stay_within_the_bound() {
    let ones: Vec<u8> = std::iter::repeat_n([0, 0, 0, 1, 0, 0, 0, 0], 200_000).flatten().collect();
    throw(&ones);
    let mut entries = vec![0; 16];
    for _ in 0..20_000 {
        entries.extend([0, 0, 0, 1]);
        entries.extend([0; 28]);
    }
    throw(&entries);
}
