//! Replies that the µproxy makes, and the way of servers' replies back: the result trailer is split off, what it says
//! of files is taken into the soft state, attributes are patched in place, the client's xid is put back.

use crate::soft::Soft;
use crate::soft::file::FRESH;
use bytes::{BufMut, BytesMut};
use slice_proto::ids::{TableEpoch, Xid};
use slice_proto::nfs3::slots::{AttrKind, AttrWalk};
use slice_proto::nfs3::{FType3, Fattr3, NfsStat3, Proc3};
use slice_proto::peer::PrivateStatus;
use slice_proto::rpc_msg::{ReplyHeader, ReplyStatus, encode_reply, encode_success, patch_xid};
use slice_proto::trailer::{RESULT_TRAILER_BASE_LEN, ResultTrailer};
use slice_proto::xdr::{Decode, Put, Reader};
use slice_rpc::Message;
use tokio::time::Instant;

/// What became of a forwarded call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The reply is ready for the client.
    Answered,
    /// It must be routed again, by a table of at least this epoch (I4).
    WrongSite(TableEpoch),
    /// The file epoch was older than the object's (I9).
    Fenced,
    /// The server cannot serve the site now; the client is to ask again later.
    NotNow,
    /// What came back is no reply between ours.
    Broken,
}

/// Appends the failure of `proc` with `status`, without attributes: the whole reply.
pub fn put_failure(w: &mut BytesMut, xid: Xid, proc: Proc3, status: NfsStat3) {
    encode_success(w, xid);
    w.put_u32(status.0);
    // RFC 1813 section 3.3: what a failure carries is a post_op_attr, wcc_data (two words if absent), or combinations.
    let absent = match proc {
        Proc3::Null | Proc3::Getattr => 0,
        Proc3::Lookup
        | Proc3::Access
        | Proc3::Readlink
        | Proc3::Read
        | Proc3::Readdir
        | Proc3::Readdirplus
        | Proc3::Fsstat
        | Proc3::Fsinfo
        | Proc3::Pathconf => 1,
        Proc3::Setattr
        | Proc3::Write
        | Proc3::Create
        | Proc3::Mkdir
        | Proc3::Symlink
        | Proc3::Mknod
        | Proc3::Remove
        | Proc3::Rmdir
        | Proc3::Commit => 2,
        Proc3::Link => 3,
        Proc3::Rename => 4,
    };
    (0..absent).for_each(|_| w.put_bool(false));
}

/// The failure of `proc` as a message.
#[must_use]
pub fn failure(xid: Xid, proc: Proc3, status: NfsStat3) -> Message {
    let mut w = BytesMut::with_capacity(64);
    put_failure(&mut w, xid, proc, status);
    w.into()
}

/// An RPC-level refusal as a message.
pub fn put_refusal(w: &mut BytesMut, xid: Xid, status: ReplyStatus) {
    encode_reply(w, xid, status);
}

/// Tells a thread's two times. Reading a clock costs as much as classifying a call, so it is done only where needed.
pub trait Now {
    /// Monotonic: for ages.
    fn at(&self) -> Instant;
    /// The machine's time of day, ns: for the ensemble clock.
    fn local_ns(&self) -> u64;
}

/// Makes a server's reply the client's: see the head of this file. Only with [`Verdict::Answered`] is it one.
pub fn settle(soft: &mut Soft, proc: Proc3, xid: Xid, reply: &mut Message, now: &impl Now) -> Verdict {
    if !reply.body.is_empty() || !reply.tail.is_empty() {
        // Directory servers answer in one part; data servers' replies do not come this way.
        *reply = Message::from(std::mem::take(reply).into_record());
    }
    patch_xid(&mut reply.head, xid);
    let Ok(header) = ReplyHeader::decode(&reply.head) else { return Verdict::Broken };
    let trailer = ResultTrailer::split(&reply.head).map(|(front, t)| (front.len(), t.table, t.now_ns));
    if header.status != ReplyStatus::Success {
        // GARBAGE_ARGS and the like: no result, and perhaps no trailer.
        if let Ok((len, ..)) = trailer {
            reply.head.truncate(len);
        }
        return Verdict::Answered;
    }
    let Ok((len, table, now_ns)) = trailer else { return Verdict::Broken };
    if soft.clock.wants() {
        soft.clock.learn(now_ns, now.local_ns());
    }
    match verdict(&reply.head, header.body_at, table) {
        Verdict::Answered => {}
        other => return other,
    }
    if matches!(proc, Proc3::Remove | Proc3::Rename) {
        soft.name_taken();
    }
    // A file about to be read or written is worth a record; one that is only looked at is not, nor one that was made long ago.
    let keep = match proc {
        Proc3::Access => true,
        Proc3::Create => {
            let age_ns = soft.clock.at(now.local_ns()).saturating_sub(now_ns);
            now_ns == 0 || u128::from(age_ns) < FRESH.as_nanos()
        }
        _ => false,
    };
    let walked = walk(soft, proc, &mut reply.head, (header.body_at, len), keep, now);
    reply.head.truncate(len);
    if walked { Verdict::Answered } else { Verdict::Broken }
}

/// What a result's status says of the call, private statuses included.
#[must_use]
pub fn verdict(record: &[u8], body_at: usize, table: TableEpoch) -> Verdict {
    let Ok(status) = Reader::at(record, body_at).u32() else { return Verdict::Broken };
    match PrivateStatus::from_u32(status) {
        None => Verdict::Answered,
        Some(PrivateStatus::WrongSite) => Verdict::WrongSite(table),
        Some(PrivateStatus::Fenced) => Verdict::Fenced,
        Some(PrivateStatus::Retry | PrivateStatus::Unstamped) => Verdict::NotNow,
    }
}

/// Takes attributes and stamps into the soft state and patches the attributes. `len` is where the trailer begins.
fn walk(
    soft: &mut Soft,
    proc: Proc3,
    record: &mut [u8],
    (body_at, len): (usize, usize),
    keep: bool,
    now: &impl Now,
) -> bool {
    let Some((front, trailer)) = record.split_at_mut_checked(len) else { return false };
    debug_assert!(trailer.len() >= RESULT_TRAILER_BASE_LEN);
    let Ok((_, trailer)) = ResultTrailer::split(trailer) else { return false };
    let mut stamps = trailer.stamps();
    let Ok(mut walk) = AttrWalk::new(proc, front, body_at) else { return false };
    // What changes something is answered from the reply cache when it comes again.
    let replayed = !matches!(
        proc,
        Proc3::Getattr
            | Proc3::Lookup
            | Proc3::Access
            | Proc3::Readlink
            | Proc3::Readdir
            | Proc3::Readdirplus
    );
    loop {
        let slot = match walk.next(front) {
            Ok(Some(slot)) => slot,
            Ok(None) => return true,
            Err(_) => return false,
        };
        if slot.kind == AttrKind::WccBefore {
            continue;
        }
        let (Some(stamp), Some(encoded)) = (stamps.next(), front.get_mut(slot.at..)) else { return false };
        let of = |ftype: FType3| encoded.first_chunk() == Some(&(ftype as u32).to_be_bytes());
        let (file, dir) = (of(FType3::Reg), of(FType3::Dir));
        // Directories are known only where their search permission is checked here.
        if !(file || dir) || !(file && keep) && soft.get(stamp.file).is_none() {
            continue;
        }
        let Ok(attr) = Fattr3::decode(&mut Reader::new(encoded)) else { return false };
        let state = soft.absorb(stamp.file, &attr, stamp, now.at(), replayed);
        let patched = state.filter(|s| s.patches()).map(|s| s.patched(attr, stamp.epoch, stamp.seq));
        if let Some(p) = patched.filter(|p| *p != attr) {
            Fattr3::patch(encoded, p.size, p.used, p.mtime, p.ctime);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soft::file::Wrote;
    use proptest::prelude::*;
    use slice_proto::ids::{AttrSeq, Epoch, FileId};
    use slice_proto::nfs3::{GetattrRes, NfsTime3, Res3, SpecData3};
    use slice_proto::trailer::Stamp;
    use slice_proto::xdr::Encode;

    fn attr(size: u64) -> Fattr3 {
        Fattr3 {
            ftype: FType3::Reg,
            mode: 0o644,
            nlink: 1,
            uid: 1,
            gid: 1,
            size,
            used: 4096,
            rdev: SpecData3::default(),
            fsid: 1,
            fileid: FileId(9),
            atime: NfsTime3::default(),
            mtime: NfsTime3::from_ns(100),
            ctime: NfsTime3::from_ns(100),
        }
    }

    struct At1000;

    impl Now for At1000 {
        fn at(&self) -> Instant {
            Instant::now()
        }

        fn local_ns(&self) -> u64 {
            1000
        }
    }

    fn stamp(epoch: u64) -> Stamp {
        Stamp { file: FileId(9), epoch: Epoch(epoch), seq: AttrSeq(1), reach: 65536 }
    }

    fn getattr_reply(size: u64, epoch: u64) -> Message {
        let mut w = BytesMut::new();
        encode_success(&mut w, Xid(999));
        GetattrRes::Ok(attr(size)).encode(&mut w);
        ResultTrailer { stamps: vec![stamp(epoch)], table: TableEpoch(4), now_ns: 5_000_000_000 }
            .append(&mut w);
        w.into()
    }

    #[test]
    fn the_clients_xid_comes_back_the_trailer_goes_and_growth_is_shown() {
        let mut soft = Soft::default();
        soft.upsert(FileId(9), |s| {
            s.absorb(&attr(10), stamp(1), (Instant::now(), 0), false);
            s.wrote(Wrote { epoch: Epoch(1), end: 5000, time_ns: 700, clear_set_ids: false }, None);
        });
        let mut reply = getattr_reply(10, 1);
        assert_eq!(settle(&mut soft, Proc3::Getattr, Xid(7), &mut reply, &At1000), Verdict::Answered);
        let mut r = Reader::new(&reply.head);
        assert_eq!(ReplyHeader::decode(&reply.head).unwrap().xid, Xid(7));
        r.take(24).unwrap();
        let Res3::Ok(got) = GetattrRes::decode(&mut r).unwrap() else { panic!("failed") };
        assert_eq!(r.remaining(), 0, "nothing stands behind the result");
        assert_eq!((got.size, got.used, got.mtime.as_ns(), got.ctime.as_ns()), (5000, 8192, 700, 700));
        assert_eq!(soft.clock.at(1000), 5_000_000_000, "the clock was learned");
        // A newer epoch passes: the growth is void.
        let mut reply = getattr_reply(3, 2);
        settle(&mut soft, Proc3::Getattr, Xid(7), &mut reply, &At1000);
        let Res3::Ok(got) = GetattrRes::decode(&mut Reader::at(&reply.head, 24)).unwrap() else {
            panic!("failed")
        };
        assert_eq!(got.size, 3);
    }

    #[test]
    fn private_statuses_never_reach_a_client() {
        for (status, expected) in [
            (PrivateStatus::WrongSite, Verdict::WrongSite(TableEpoch(8))),
            (PrivateStatus::Fenced, Verdict::Fenced),
            (PrivateStatus::Retry, Verdict::NotNow),
            (PrivateStatus::Unstamped, Verdict::NotNow),
        ] {
            let mut w = BytesMut::new();
            encode_success(&mut w, Xid(1));
            w.put_u32(status as u32);
            ResultTrailer { table: TableEpoch(8), ..ResultTrailer::default() }.append(&mut w);
            let got = settle(&mut Soft::default(), Proc3::Lookup, Xid(7), &mut w.into(), &At1000);
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn every_failure_has_the_shape_of_its_procedure() {
        for proc in Proc3::ALL.into_iter().filter(|p| *p != Proc3::Null) {
            let reply = failure(Xid(1), proc, NfsStat3::ACCES);
            let mut walk = AttrWalk::new(proc, &reply.head, 24).unwrap();
            assert_eq!(walk.next(&reply.head), Ok(None), "{proc:?}");
            // The walk must have met the end of the record, neither before nor after.
            let mut cut = reply.head.clone();
            if cut.len() > 28 {
                cut.truncate(cut.len() - 4);
                let mut walk = AttrWalk::new(proc, &cut, 24).unwrap();
                assert!(walk.next(&cut).is_err(), "{proc:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_replies_never_panic(
            proc in 0u32..22, cut in 0usize..200, junk in prop::collection::vec(any::<u8>(), 0..120), good: bool,
        ) {
            let proc = Proc3::from_u32(proc).unwrap();
            let mut w = BytesMut::new();
            encode_success(&mut w, Xid(1));
            w.extend_from_slice(&junk);
            if good {
                ResultTrailer { stamps: vec![stamp(1)], ..ResultTrailer::default() }.append(&mut w);
            } else {
                w.truncate(cut);
            }
            let _ = settle(&mut Soft::default(), proc, Xid(2), &mut w.into(), &At1000);
        }
    }
}
