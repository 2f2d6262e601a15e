//! Decoders. What one of them understands is encoded again, and must read back as the same: a decoder that takes what its
//! encoder would not write is a place where two servers may disagree.

use bytes::{Bytes, BytesMut};
use prost::Message;
use slice_proto::control::pb;
use slice_proto::handle::{HANDLE_LEN, Handle, KeyRing};
use slice_proto::ids::{FileId, VolumeId, Xid};
use slice_proto::mount::{DirPath, ExportList, MntRes, MntResV1, MountList};
use slice_proto::nfs3::*;
use slice_proto::peer::attrs::{AttrRes, PushArgs, RaiseArgs};
use slice_proto::peer::data::{DataRes, ExtendArgs, ListArgs, ObjectsRes, PurgeArgs, StatArgs, TruncateArgs};
use slice_proto::peer::dir::{
    ConfirmArgs, DirRes, DropArgs, HoldArgs, HoldRes, ListAttrsArgs, ListAttrsRes, ListEntriesArgs,
    ListEntriesRes, ReconcileArgs, ReconcileRes, SettledRes,
};
use slice_proto::peer::hello::{HelloArgs, HelloRes, HelloStatus, ProveArgs};
use slice_proto::peer::intent::{CompleteArgs, LogArgs, LogRes};
use slice_proto::portmap::{AddrList, Mapping, MappingList, Rpcb, RpcbList, Text, parse_uaddr};
use slice_proto::rpc_msg::{AuthSys, CallHeader, ReplyHeader, patch_xid, peek_xid};
use slice_proto::table::RoutingTable;
use slice_proto::trailer::{CallTrailer, ResultTrailer};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_proxy::classify;
use slice_rpc::framing::{Framer, MAX_RECORD};

use crate::world::identity;

/// What stands at the start of the data, if it is this, must read back as the same.
macro_rules! reads_back {
    ($data:expr, $($type:ty),* $(,)?) => {{ $({
        if let Ok(value) = <$type>::decode(&mut Reader::new($data)) {
            let mut w = BytesMut::new();
            value.encode(&mut w);
            let mut r = Reader::new(&w);
            assert_eq!(<$type>::decode(&mut r).as_ref(), Ok(&value), "{}", stringify!($type));
            assert_eq!(r.remaining(), 0, "{} is longer when it is written than when it is read", stringify!($type));
        }
    })* }};
}

/// The first byte chooses, the rest is the data.
fn choose(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// Headers of calls and replies, credentials, the µproxy's first look.
pub fn rpc_message(data: &[u8]) {
    if let Ok(header) = CallHeader::decode(data) {
        assert!(header.args_at <= data.len());
        reads_back!(header.cred.body, AuthSys<'_>);
        for at in [header.args_at, header.args_at + 4] {
            let inside = |range: &std::ops::Range<usize>| assert!(range.end <= data.len(), "{range:?}");
            peek::fh_at(data, at).iter().for_each(inside);
            peek::dirop_at(data, at).iter().for_each(|it| (inside(&it.dir), inside(&it.name)).0);
            peek::extent_at(data, at).iter().for_each(|it| inside(&it.file));
            peek::write_at(data, at).iter().for_each(|it| inside(&it.data));
        }
    }
    if let Ok(header) = ReplyHeader::decode(data) {
        assert!(header.body_at <= data.len());
    }
    let mut patched = data.to_vec();
    assert_eq!(patch_xid(&mut patched, Xid(0x0102_0304)), peek_xid(data).is_some());
    assert_eq!(peek_xid(&patched).is_some_and(|xid| xid == Xid(0x0102_0304)), peek_xid(data).is_some());
    let keys = KeyRing::new(&identity(), 0);
    if let Ok(call) = classify::classify(data, &keys) {
        assert!(call.cred.end <= data.len() && call.args_at <= data.len());
        assert_eq!(Some(call.xid), peek_xid(data));
    }
    let header = CallHeader::decode(data).ok();
    assert_eq!(classify::program_of(data), header.map(|header| header.prog));
}

/// Records out of a stream: the same however it is cut into reads.
pub fn framing(data: &[u8]) {
    let (cut, data) = choose(data);
    let take = |input: &mut BytesMut, framer: &mut Framer, all: &mut Vec<BytesMut>| {
        loop {
            framer.missing(input).ok();
            let _ = framer.mid_record(input);
            match framer.next(input) {
                Ok(Some(record)) => all.push(record),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    };
    let (mut whole, mut framer) = (Vec::new(), Framer::new(MAX_RECORD));
    let good = take(&mut BytesMut::from(data), &mut framer, &mut whole);
    let (mut parts, mut framer, mut input, mut still) =
        (Vec::new(), Framer::new(MAX_RECORD), BytesMut::new(), true);
    for part in data.chunks(usize::from(cut % 16) + 1) {
        input.extend_from_slice(part);
        still = still && take(&mut input, &mut framer, &mut parts);
    }
    assert_eq!((good, whole), (still, parts));
}

/// Arguments of NFSv3's procedures; the first byte says of which.
pub fn nfs_args(data: &[u8]) {
    let (proc, data) = choose(data);
    match proc % 22 {
        1 => reads_back!(data, GetattrArgs<'_>),
        2 => reads_back!(data, SetattrArgs<'_>),
        3 => reads_back!(data, LookupArgs<'_>),
        4 => reads_back!(data, AccessArgs<'_>),
        5 => reads_back!(data, ReadlinkArgs<'_>),
        6 => reads_back!(data, ReadArgs<'_>),
        7 => reads_back!(data, WriteArgs<'_>),
        8 => reads_back!(data, CreateArgs<'_>),
        9 => reads_back!(data, MkdirArgs<'_>),
        10 => reads_back!(data, SymlinkArgs<'_>),
        11 => reads_back!(data, MknodArgs<'_>),
        12 | 13 => reads_back!(data, RemoveArgs<'_>),
        14 => reads_back!(data, RenameArgs<'_>),
        15 => reads_back!(data, LinkArgs<'_>),
        16 => reads_back!(data, ReaddirArgs<'_>),
        17 => reads_back!(data, ReaddirplusArgs<'_>),
        18..=20 => reads_back!(data, FsArgs<'_>),
        21 => reads_back!(data, CommitArgs<'_>),
        _ => reads_back!(data, Sattr3),
    }
}

/// Results of NFSv3's procedures, which µproxies patch in place; the first byte says of which.
pub fn nfs_results(data: &[u8]) {
    let (number, data) = choose(data);
    let number = u32::from(number % 22);
    match number {
        1 => reads_back!(data, GetattrRes),
        2 => reads_back!(data, SetattrRes),
        3 => reads_back!(data, LookupRes<'_>),
        4 => reads_back!(data, AccessRes),
        5 => reads_back!(data, ReadlinkRes<'_>),
        6 => reads_back!(data, ReadRes<'_>),
        7 => reads_back!(data, WriteRes),
        8..=11 => reads_back!(data, CreateRes<'_>),
        12 | 13 => reads_back!(data, RemoveRes),
        14 => reads_back!(data, RenameRes),
        15 => reads_back!(data, LinkRes),
        16 => reads_back!(data, ReaddirRes<'_>),
        17 => reads_back!(data, ReaddirplusRes<'_>),
        18 => reads_back!(data, FsstatRes),
        19 => reads_back!(data, FsinfoRes),
        20 => reads_back!(data, PathconfRes),
        _ => reads_back!(data, CommitRes),
    }
    if let Some(proc) = Proc3::from_u32(number) {
        // What is walked over lies within.
        let walked = slots::for_each_attr(proc, data, |slot| {
            let len = match slot.kind {
                slots::AttrKind::WccBefore => WccAttr::ENCODED_LEN,
                _ => Fattr3::ENCODED_LEN,
            };
            assert!(slot.at + len <= data.len(), "{proc:?}: {slot:?} of {}", data.len());
        });
        walked.ok();
    }
}

/// MOUNT.
pub fn mount(data: &[u8]) {
    reads_back!(data, DirPath<'_>, MntRes<'_>, MntResV1, MountList<'_>, ExportList<'_>);
}

/// Portmap and rpcbind.
pub fn portmap(data: &[u8]) {
    reads_back!(data, Mapping, MappingList, Rpcb<'_>, RpcbList<'_>, Text<'_>, AddrList<'_>);
    if let Ok(text) = Text::decode(&mut Reader::new(data)) {
        text.socket().ok();
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(address) = parse_uaddr(text)
    {
        assert_eq!(parse_uaddr(&slice_proto::portmap::uaddr(address)), Some(address));
    }
}

/// Handles: nothing but what was sealed is opened.
pub fn handle(data: &[u8]) {
    let keys = KeyRing::new(&identity(), 0);
    if let Ok(handle) = keys.open(data) {
        assert_eq!(keys.seal(&handle), data, "a handle that nobody sealed");
    }
    // One that was sealed, and the same with a change of one byte.
    let mut r = Reader::new(data);
    let mut word = || r.u32().unwrap_or(0);
    let (at, change) = (word() as usize % HANDLE_LEN, (word() % 255) as u8 + 1);
    let handle = Handle {
        ftype: 1 + (word() % 7) as u8,
        volume: VolumeId(word()),
        policy: word(),
        file: FileId(u64::from(word()) << 32 | u64::from(word())),
        snapshot: 0,
    };
    let mut sealed = keys.seal(&handle);
    assert_eq!(keys.open(&sealed), Ok(handle));
    sealed[at] ^= change;
    assert!(keys.open(&sealed).is_err(), "byte {at} of a handle does not count");
}

/// Trailers behind calls and results.
pub fn trailer(data: &[u8]) {
    if let Ok((front, trailer)) = CallTrailer::split(data) {
        let mut w = BytesMut::from(front);
        trailer.append(&mut w);
        assert_eq!(CallTrailer::split(&w), Ok((front, trailer)));
    }
    if let Ok((front, trailer)) = ResultTrailer::split(data) {
        let stamps: Vec<_> = trailer.stamps().collect();
        assert_eq!(trailer.first(), stamps.first().copied());
        let owned = ResultTrailer { stamps, table: trailer.table, now_ns: trailer.now_ns };
        let mut w = BytesMut::from(front);
        owned.append(&mut w);
        let (again, back) = ResultTrailer::split(&w).unwrap();
        assert_eq!((again, back.stamps().collect::<Vec<_>>()), (front, owned.stamps));
    }
}

/// What servers say to each other; the first byte says what.
pub fn peer(data: &[u8]) {
    let (which, data) = choose(data);
    match which % 28 {
        0 => reads_back!(data, HelloArgs),
        1 => reads_back!(data, HelloRes),
        2 => reads_back!(data, HelloStatus),
        3 => reads_back!(data, ProveArgs),
        4 => reads_back!(data, PushArgs),
        5 => reads_back!(data, RaiseArgs),
        6 => reads_back!(data, AttrRes),
        7 => reads_back!(data, HoldArgs),
        8 => reads_back!(data, HoldRes),
        9 => reads_back!(data, ConfirmArgs),
        10 => reads_back!(data, DropArgs),
        11 => reads_back!(data, DirRes),
        12 => reads_back!(data, ReconcileArgs),
        13 => reads_back!(data, ReconcileRes),
        14 => reads_back!(data, TruncateArgs),
        15 => reads_back!(data, PurgeArgs),
        16 => reads_back!(data, ExtendArgs),
        17 => reads_back!(data, StatArgs),
        18 => reads_back!(data, DataRes),
        19 => reads_back!(data, ListArgs),
        20 => reads_back!(data, ObjectsRes),
        21 => reads_back!(data, LogArgs),
        22 => reads_back!(data, LogRes),
        23 => reads_back!(data, CompleteArgs),
        24 => reads_back!(data, ListAttrsArgs, ListAttrsRes),
        25 => reads_back!(data, ListEntriesArgs),
        26 => reads_back!(data, ListEntriesRes),
        _ => reads_back!(data, SettledRes),
    }
}

/// The routing table as the control plane sends it: what is taken can be used without looking.
pub fn table(data: &[u8]) {
    let Ok(message) = pb::RoutingTable::decode(data) else { return };
    RoutingTable::undealt(message.clone()).ok();
    let Ok(table) = RoutingTable::try_from(message) else { return };
    let back = pb::RoutingTable::from(&table).encode_to_vec();
    let back = RoutingTable::try_from(pb::RoutingTable::decode(&*back).unwrap());
    assert_eq!(back.ok().as_ref(), Some(&table));
}

/// What stands in the stores of all roles.
pub fn records(data: &[u8]) {
    slice_dirserver::fuzzing::records(&Bytes::copy_from_slice(data));
    slice_smallfile::fuzzing::records(data);
    slice_blockstore::fuzzing::records(data);
    slice_store::fuzzing::records(data);
    slice_coordinator::fuzzing::records(data);
}

/// A segment of the coordinator's log, and its entries.
pub fn intent_log(data: &[u8]) {
    slice_coordinator::fuzzing::log(data);
}
