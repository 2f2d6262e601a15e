//! Messages written out by hand from the layouts in RFC 5531, 1813 and 1833.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

use bytes::BytesMut;
use slice_proto::ids::{FileId, Xid};
use slice_proto::mount::{ExportList, MntRes};
use slice_proto::nfs3::*;
use slice_proto::portmap::{self, Mapping};
use slice_proto::rpc_msg::*;
use slice_proto::xdr::{Decode, Encode, Reader, XdrError};

/// Big-endian words; text in words of four letters.
fn words(all: &[u32]) -> Vec<u8> {
    all.iter().flat_map(|w| w.to_be_bytes()).collect()
}

const fn text(four: &[u8; 4]) -> u32 {
    u32::from_be_bytes(*four)
}

fn encoded(v: &impl Encode) -> Vec<u8> {
    let mut w = BytesMut::new();
    v.encode(&mut w);
    w.to_vec()
}

fn reply(status: ReplyStatus) -> Vec<u8> {
    let mut w = BytesMut::new();
    encode_reply(&mut w, Xid(7), status);
    w.to_vec()
}

/// A LOOKUP of "ab" in directory handle 01020304 by user 1000 (groups 100; 4, 24) of machine "box".
fn lookup_call() -> Vec<u8> {
    words(&[
        0xdead_beef,
        0,
        2,
        100_003,
        3,
        3, // xid, CALL, rpcvers, prog, vers, proc
        1,
        32,
        9,
        3,
        text(b"box\0"),
        1000,
        100,
        2,
        4,
        24, // AUTH_SYS
        0,
        0, // verifier
        4,
        0x0102_0304,
        2,
        text(b"ab\0\0"),
    ])
}

#[test]
fn a_call_is_read_in_place() {
    let record = lookup_call();
    let call = CallHeader::decode(&record).unwrap();
    assert_eq!((call.xid, call.prog, call.vers, call.proc), (Xid(0xdead_beef), program::NFS, 3, 3));
    assert_eq!(call.verf, OpaqueAuth::NONE);
    let sys = AuthSys::from_body(call.cred.body).unwrap();
    assert_eq!(sys.machine, b"box");
    assert_eq!(sys.cred, Cred { uid: 1000, gid: 100, gids: Gids::new(&[4, 24]) });
    assert!(sys.cred.in_group(100) && sys.cred.in_group(24) && !sys.cred.in_group(0));
    let args = LookupArgs::decode(&mut Reader::at(&record, call.args_at)).unwrap();
    assert_eq!(args.what, DirOp { dir: &[1, 2, 3, 4], name: b"ab" });

    let mut w = BytesMut::new();
    encode_call(&mut w, call.xid, call.prog, call.vers, call.proc, &sys);
    args.encode(&mut w);
    assert_eq!(w.to_vec(), record);
}

#[test]
fn a_credential_can_be_replaced() {
    let record = lookup_call();
    let at = cred_range(&record).unwrap();
    assert_eq!(at, 24..64);
    let squashed =
        AuthSys { stamp: 0, machine: b"", cred: Cred { uid: 65534, gid: 65534, gids: Gids::default() } };
    let mut new = BytesMut::from(&record[..at.start]);
    squashed.encode(&mut new);
    new.extend_from_slice(&record[at.end..]);
    let call = CallHeader::decode(&new).unwrap();
    assert_eq!(AuthSys::from_body(call.cred.body).unwrap(), squashed);
    let args = LookupArgs::decode(&mut Reader::at(&new, call.args_at)).unwrap();
    assert_eq!(args.what.name, b"ab");
}

#[test]
fn what_is_no_call_of_version_2_is_told_apart() {
    let mut record = lookup_call();
    record[11] = 3;
    assert_eq!(CallHeader::decode(&record), Err(RpcError::Version { xid: Xid(0xdead_beef), got: 3 }));
    record[7] = 1;
    assert_eq!(CallHeader::decode(&record), Err(RpcError::NotACall(XdrError::BadEnum { got: 1 })));
    assert!(matches!(CallHeader::decode(&record[..3]), Err(RpcError::NotACall(XdrError::Short { .. }))));
}

#[test]
fn a_credential_has_bounds() {
    let gids = |n: u32| {
        let mut body = vec![0, 0, 0, 0, n];
        body.extend(0..n);
        words(&body)
    };
    assert_eq!(AuthSys::from_body(&gids(16)).unwrap().cred.gids.as_slice().len(), 16);
    assert_eq!(AuthSys::from_body(&gids(17)), Err(XdrError::TooLong { got: 17, max: 16 }));
    let mut long = words(&[1, 0, 2, 100_003, 3, 0, 1, 401]);
    long.extend([0; 500]);
    assert_eq!(CallHeader::decode(&long), Err(RpcError::NotACall(XdrError::TooLong { got: 401, max: 400 })));
    let mut trailing = gids(2);
    trailing.extend([0; 4]);
    assert!(AuthSys::from_body(&trailing).is_err());
}

#[test]
fn reply_headers_are_the_rfcs() {
    let cases: [(ReplyStatus, &[u32]); 8] = [
        (ReplyStatus::Success, &[7, 1, 0, 0, 0, 0]),
        (ReplyStatus::ProgUnavail, &[7, 1, 0, 0, 0, 1]),
        (ReplyStatus::ProgMismatch { low: 3, high: 3 }, &[7, 1, 0, 0, 0, 2, 3, 3]),
        (ReplyStatus::ProcUnavail, &[7, 1, 0, 0, 0, 3]),
        (ReplyStatus::GarbageArgs, &[7, 1, 0, 0, 0, 4]),
        (ReplyStatus::SystemErr, &[7, 1, 0, 0, 0, 5]),
        (ReplyStatus::RPC_MISMATCH, &[7, 1, 1, 0, 2, 2]),
        (ReplyStatus::AuthError(auth_stat::TOOWEAK), &[7, 1, 1, 1, 5]),
    ];
    for (status, expected) in cases {
        let bytes = words(expected);
        assert_eq!(reply(status), bytes, "{status:?}");
        let got = ReplyHeader::decode(&bytes).unwrap();
        assert_eq!(got, ReplyHeader { xid: Xid(7), status, body_at: bytes.len() });
        for cut in 0..bytes.len() {
            assert!(ReplyHeader::decode(&bytes[..cut]).is_err());
        }
    }
    assert_eq!(reply(ReplyStatus::Success).len(), ACCEPTED_LEN);
}

#[test]
fn an_xid_is_patched_in_place() {
    let mut record = lookup_call();
    assert_eq!(peek_xid(&record), Some(Xid(0xdead_beef)));
    assert!(patch_xid(&mut record, Xid(5)));
    assert_eq!(peek_xid(&record), Some(Xid(5)));
    assert_eq!(record[4..], lookup_call()[4..]);
    assert_eq!(peek_xid(&record[..3]), None);
    assert!(!patch_xid(&mut record[..3], Xid(6)));
    assert_eq!(record_mark(0x1234), [0x80, 0, 0x12, 0x34]);
}

fn attr() -> Fattr3 {
    let t = |s| NfsTime3 { seconds: s, nseconds: s + 1 };
    Fattr3 {
        ftype: FType3::Reg,
        mode: 0o644,
        nlink: 1,
        uid: 1000,
        gid: 100,
        size: 0x1_0000_0002,
        used: 4096,
        rdev: SpecData3 { major: 8, minor: 1 },
        fsid: 0x11,
        fileid: FileId(0x22_0000_0033),
        atime: t(10),
        mtime: t(20),
        ctime: t(30),
    }
}

const ATTR: [u32; 21] =
    [1, 0o644, 1, 1000, 100, 1, 2, 0, 4096, 8, 1, 0, 0x11, 0x22, 0x33, 10, 11, 20, 21, 30, 31];

#[test]
fn fattr3_stands_as_in_section_2_6_and_is_patched_there() {
    let mut bytes = words(&ATTR);
    assert_eq!(bytes.len(), Fattr3::ENCODED_LEN);
    assert_eq!(encoded(&attr()), bytes);
    assert_eq!(Fattr3::peek_fileid(&bytes), Ok(FileId(0x22_0000_0033)));
    let (m, c) = (NfsTime3 { seconds: 50, nseconds: 51 }, NfsTime3 { seconds: 60, nseconds: 61 });
    assert!(Fattr3::patch(&mut bytes, 70, 71, m, c));
    let expected = Fattr3 { size: 70, used: 71, mtime: m, ctime: c, ..attr() };
    assert_eq!(Fattr3::decode(&mut Reader::new(&bytes)), Ok(expected));
    let short = &mut bytes[..83];
    assert!(!Fattr3::patch(short, 0, 0, m, c));
}

#[test]
fn results_stand_as_in_section_3_3() {
    let mut getattr = vec![0];
    getattr.extend(ATTR);
    assert_eq!(encoded(&GetattrRes::Ok(attr())), words(&getattr));
    assert_eq!(encoded(&GetattrRes::Err(NfsStat3::STALE, ())), words(&[70]));
    assert_eq!(encoded(&LookupRes::Err(NfsStat3::NOENT, None)), words(&[2, 0]));

    let read = ReadRes::Ok(ReadOk { attr: None, count: 5, eof: true, data: b"hello" });
    assert_eq!(encoded(&read), words(&[0, 0, 5, 1, 5, text(b"hell"), text(b"o\0\0\0")]));

    let before = Some(WccAttr {
        size: 3,
        mtime: NfsTime3 { seconds: 1, nseconds: 2 },
        ctime: NfsTime3 { seconds: 3, nseconds: 4 },
    });
    let wcc = WccData { before, after: None };
    let write =
        WriteRes::Ok(WriteOk { wcc, count: 5, committed: StableHow::FileSync, verf: Verifier(*b"verifier") });
    let expected = words(&[0, 1, 0, 3, 1, 2, 3, 4, 0, 5, 2, text(b"veri"), text(b"fier")]);
    assert_eq!(encoded(&write), expected);

    let entry = Entry { fileid: FileId(9), name: b"x", cookie: 77 };
    let listing = ReaddirRes::Ok(ReaddirOk {
        dir_attr: None,
        verf: CookieVerf([0; 8]),
        entries: vec![entry],
        eof: true,
    });
    assert_eq!(encoded(&listing), words(&[0, 0, 0, 0, 1, 0, 9, 1, text(b"x\0\0\0"), 0, 77, 0, 1]));
}

#[test]
fn arguments_stand_as_in_section_3_3() {
    let attr = Sattr3 { mode: Some(0o755), size: Some(1), mtime: TimeHow::ServerTime, ..Sattr3::default() };
    let at = DirOp { dir: &[1, 2, 3, 4], name: b"n" };
    let how = CreateHow::Guarded(attr);
    let create = [4, 0x0102_0304, 1, text(b"n\0\0\0"), 1, 1, 0o755, 0, 0, 1, 0, 1, 0, 1];
    assert_eq!(encoded(&CreateArgs { at, how }), words(&create));
    let exclusive = [4, 0x0102_0304, 1, text(b"n\0\0\0"), 2, 0x0001_0203, 0x0405_0607];
    let how = CreateHow::Exclusive([0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(encoded(&CreateArgs { at, how }), words(&exclusive));
    let guard = Some(NfsTime3 { seconds: 5, nseconds: 6 });
    let attr = Sattr3 { atime: TimeHow::Client(NfsTime3 { seconds: 1, nseconds: 2 }), ..Sattr3::default() };
    let setattr = [4, 0x0102_0304, 0, 0, 0, 0, 2, 1, 2, 0, 1, 5, 6];
    assert_eq!(encoded(&SetattrArgs { object: at.dir, attr, guard }), words(&setattr));
    let write =
        WriteArgs { file: at.dir, offset: 1 << 33, count: 2, stable: StableHow::Unstable, data: b"hi" };
    assert_eq!(encoded(&write), words(&[4, 0x0102_0304, 2, 0, 2, 0, 2, text(b"hi\0\0")]));
}

#[test]
fn bounds_are_the_rfcs() {
    let mut long_handle = words(&[65]);
    long_handle.extend([0; 68]);
    let got = GetattrArgs::decode(&mut Reader::new(&long_handle));
    assert_eq!(got, Err(XdrError::TooLong { got: 65, max: 64 }));
    let huge = words(&[4, 0, 0, 0, 0, 2, u32::MAX, 0]);
    let got = WriteArgs::decode(&mut Reader::new(&huge));
    assert_eq!(got, Err(XdrError::TooLong { got: u32::MAX, max: MAX_DATA }));
}

#[test]
fn times_convert_and_end_in_2106() {
    let t = NfsTime3 { seconds: 12, nseconds: 34 };
    assert_eq!(t.as_ns(), 12_000_000_034);
    assert_eq!(NfsTime3::from_ns(12_000_000_034), t);
    assert_eq!(NfsTime3::from_ns(u64::MAX), NfsTime3::MAX);
    assert_eq!(NfsTime3::from_ns(NfsTime3::MAX.as_ns()), NfsTime3::MAX);
    assert_eq!(NfsTime3::from_ns(NfsTime3::MAX.as_ns() + 1), NfsTime3::MAX);
    assert!(NfsTime3 { seconds: 1, nseconds: 9 } < NfsTime3 { seconds: 2, nseconds: 0 });
}

#[test]
fn procedures_and_statuses_have_the_rfcs_numbers() {
    for (number, proc) in Proc3::ALL.into_iter().enumerate() {
        assert_eq!(Proc3::from_u32(number as u32), Some(proc));
    }
    assert_eq!(Proc3::from_u32(22), None);
    assert_eq!((Proc3::Readdirplus as u32, Proc3::Commit.name()), (17, "COMMIT"));
    assert_eq!(NfsStat3::ALL.len(), 29);
    assert_eq!(NfsStat3::JUKEBOX.to_string(), "JUKEBOX");
    assert_eq!(NfsStat3(12345).to_string(), "status 12345");
}

#[test]
#[cfg(target_os = "linux")]
fn system_errors_have_their_status() {
    // Numbers from Linux's errno.h.
    let cases = [
        (1, NfsStat3::PERM),
        (2, NfsStat3::NOENT),
        (5, NfsStat3::IO),
        (6, NfsStat3::NXIO),
        (13, NfsStat3::ACCES),
        (17, NfsStat3::EXIST),
        (18, NfsStat3::XDEV),
        (19, NfsStat3::NODEV),
        (20, NfsStat3::NOTDIR),
        (21, NfsStat3::ISDIR),
        (22, NfsStat3::INVAL),
        (27, NfsStat3::FBIG),
        (28, NfsStat3::NOSPC),
        (30, NfsStat3::ROFS),
        (31, NfsStat3::MLINK),
        (36, NfsStat3::NAMETOOLONG),
        (39, NfsStat3::NOTEMPTY),
        (116, NfsStat3::STALE),
        (122, NfsStat3::DQUOT),
        (117, NfsStat3::IO),
    ];
    for (errno, status) in cases {
        assert_eq!(NfsStat3::from_errno(errno), status, "errno {errno}");
    }
}

#[test]
fn mount_and_portmap_stand_as_in_their_rfcs() {
    let ok = MntRes::Ok { handle: &[1, 2, 3], flavors: vec![1, 0] };
    assert_eq!(encoded(&ok), words(&[0, 3, 0x0102_0300, 2, 1, 0]));
    let exports = words(&[1, 1, text(b"/\0\0\0"), 1, 1, text(b"*\0\0\0"), 0, 0]);
    let got = ExportList::decode(&mut Reader::new(&exports)).unwrap();
    assert_eq!(got.0.len(), 1);
    assert_eq!((got.0[0].path, &got.0[0].groups[..]), (&b"/"[..], &[&b"*"[..]][..]));
    let mapping = Mapping { prog: 100_003, vers: 3, prot: portmap::IPPROTO_TCP, port: 2049 };
    assert_eq!(encoded(&mapping), words(&[100_003, 3, 6, 2049]));
}

#[test]
fn universal_addresses_are_rfc_5665s() {
    for (text, socket) in [
        ("127.0.0.1.8.1", "127.0.0.1:2049"),
        ("0.0.0.0.0.111", "0.0.0.0:111"),
        ("::1.8.1", "[::1]:2049"),
        ("fe80::2.255.255", "[fe80::2]:65535"),
    ] {
        let socket = socket.parse().unwrap();
        assert_eq!(portmap::uaddr(socket), text);
        assert_eq!(portmap::parse_uaddr(text), Some(socket));
        assert_eq!(portmap::Text(text.as_bytes()).socket(), Ok(Some(socket)));
    }
    for bad in
        ["", "1", "127.0.0.1", "127.0.0.1.8", "127.0.0.1.256.1", "127.0.0.1.8.-1", "x.1.1", "127.0.0.1.8.1.1"]
    {
        assert_eq!(portmap::parse_uaddr(bad), None, "{bad}");
    }
    assert_eq!(portmap::Text(b"").socket(), Ok(None));
    assert!(portmap::Text(&[0xff]).socket().is_err());
}
