//! What a pending request may come to in memory: its own bytes, and those of the reply that it asks for. A few bytes ask
//! for a mebibyte: counted by its own bytes alone, one connection could have hundreds of them made and not take one.

use slice_proto::nfs3::{MAX_DATA, Proc3, peek};
use slice_proto::rpc_msg::{CallHeader, program};
use slice_proto::xdr::Reader;

const READ: u32 = Proc3::Read as u32;
const READDIR: u32 = Proc3::Readdir as u32;
const READDIRPLUS: u32 = Proc3::Readdirplus as u32;

/// Where program and procedure stand in a call (RFC 5531 section 9).
const PROG_AT: usize = 12;
const PROC_AT: usize = 20;

/// Bytes of a call record and of the largest reply to it; replies that are always small count as nothing.
pub(super) fn weight(record: &[u8]) -> usize {
    record.len() + asked(record).unwrap_or(0).min(MAX_DATA) as usize
}

/// Bytes that a READ, READDIR or READDIRPLUS asks for.
fn asked(record: &[u8]) -> Option<u32> {
    if word(record, PROG_AT)? != program::NFS {
        return None;
    }
    let proc = word(record, PROC_AT)?;
    if ![READ, READDIR, READDIRPLUS].contains(&proc) {
        return None;
    }
    let handle = peek::fh_at(record, CallHeader::decode(record).ok()?.args_at).ok()?;
    // RFC 1813 sections 3.3.6, 3.3.16, 3.3.17: what stands between the handle and the count.
    let before = match proc {
        READ => 8,
        READDIR => 16,
        _ => 20,
    };
    word(record, peek::end_of(&handle) + before)
}

fn word(record: &[u8], at: usize) -> Option<u32> {
    Reader::at(record, at).u32().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use slice_proto::ids::Xid;
    use slice_proto::nfs3::{CookieVerf, GetattrArgs, ReadArgs, ReaddirArgs, ReaddirplusArgs};
    use slice_proto::rpc_msg::{OpaqueAuth, encode_call};
    use slice_proto::xdr::Encode;

    fn call(proc: Proc3, args: &impl Encode) -> BytesMut {
        let mut w = BytesMut::new();
        encode_call(&mut w, Xid(1), program::NFS, 3, proc as u32, &OpaqueAuth::NONE);
        args.encode(&mut w);
        w
    }

    #[test]
    fn what_is_asked_for_counts_up_to_what_is_given() {
        let (dir, verf) = (&[7; 48][..], CookieVerf::default());
        let read = |count| call(Proc3::Read, &ReadArgs { file: dir, offset: 1 << 40, count });
        assert_eq!(weight(&read(5000)), read(0).len() + 5000);
        assert_eq!(weight(&read(u32::MAX)), read(0).len() + (1 << 20));
        let list = call(Proc3::Readdir, &ReaddirArgs { dir, cookie: 9, verf, count: 4096 });
        assert_eq!(weight(&list), list.len() + 4096);
        let args = ReaddirplusArgs { dir, cookie: 9, verf, dircount: 1, maxcount: 8192 };
        let plus = call(Proc3::Readdirplus, &args);
        assert_eq!(weight(&plus), plus.len() + 8192);
        let getattr = call(Proc3::Getattr, &GetattrArgs { object: dir });
        assert_eq!(weight(&getattr), getattr.len());
        for len in 0..read(5000).len() {
            assert_eq!(weight(&read(5000)[..len]), len, "cut at {len}");
        }
    }
}
