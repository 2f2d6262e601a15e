//! Every type of the standard protocols survives the wire; every strict prefix of it is refused.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test may stop at the first surprise")]

mod common;

use bytes::BytesMut;
use common::Gen;
use proptest::prelude::*;
use slice_proto::mount::{
    DirPath, ExportEntry, ExportList, MntRes, MntResV1, MountEntry, MountList, MountStat,
};
use slice_proto::nfs3::*;
use slice_proto::portmap::{AddrEntry, AddrList, Mapping, MappingList, Rpcb, RpcbList, Text};
use slice_proto::rpc_msg::OpaqueAuth;
use slice_proto::xdr::{Decode, Encode, Reader};
use std::fmt::Debug;

fn encoded(v: &impl Encode) -> Vec<u8> {
    let mut w = BytesMut::new();
    v.encode(&mut w);
    w.to_vec()
}

/// Decodes the type of `_like`.
fn decode_like<'a, T: Decode<'a>>(_like: &T, bytes: &'a [u8]) -> slice_proto::xdr::Result<(T, usize)> {
    let mut r = Reader::new(bytes);
    let v = T::decode(&mut r)?;
    Ok((v, r.remaining()))
}

fn round<'a, T: Encode + Decode<'a> + PartialEq + Debug>(value: &T, bytes: &'a [u8]) {
    assert_eq!(bytes.len() % 4, 0, "XDR comes in units of four bytes: {value:?}");
    let (got, left) = decode_like(value, bytes).expect("what we encode, we decode");
    assert_eq!(left, 0, "{value:?}");
    assert_eq!(&got, value);
    assert_eq!(encoded(&got), bytes);
    for cut in (0..bytes.len()).step_by(4) {
        assert!(decode_like(value, &bytes[..cut]).is_err(), "cut at {cut}: {value:?}");
    }
}

macro_rules! round_trips {
    ($($test:ident: |$g:ident| $($value:expr),+ ;)*) => { proptest! { $(
        #[test]
        fn $test(entropy in prop::collection::vec(any::<u8>(), 0..1500)) {
            let mut gen_ = Gen::new(&entropy);
            let $g = &mut gen_;
            $({
                let value = $value;
                let bytes = encoded(&value);
                round(&value, &bytes);
            })+
        }
    )* } };
}

round_trips! {
    basic_types: |g| g.ftype(), g.stable(), g.time(), g.spec(), g.verf(), CookieVerf(g.array()), g.dirop();
    attributes: |g| g.attr(), g.post(), g.wcc(), g.time_how(), g.sattr();
    credentials: |g| g.auth_sys(), OpaqueAuth { flavor: g.u32(), body: g.opaque(255) };
    getattr: |g| GetattrArgs { object: g.fh() }, g.res(Gen::attr, |_| ());
    setattr: |g| SetattrArgs { object: g.fh(), attr: g.sattr(), guard: g.opt(Gen::time) }, g.res(Gen::wcc, Gen::wcc);
    lookup: |g| LookupArgs { what: g.dirop() }, g.lookup_res();
    access: |g| AccessArgs { object: g.fh(), access: g.u32() },
        g.res(|g| AccessOk { attr: g.post(), access: g.u32() }, Gen::post);
    readlink: |g| ReadlinkArgs { symlink: g.fh() },
        g.res(|g| ReadlinkOk { attr: g.post(), target: g.name() }, Gen::post);
    read: |g| ReadArgs { file: g.fh(), offset: g.u64(), count: g.u32() }, g.read_res();
    write: |g| WriteArgs { file: g.fh(), offset: g.u64(), count: g.u32(), stable: g.stable(), data: g.opaque(200) },
        g.write_res();
    create: |g| CreateArgs { at: g.dirop(), how: g.how() }, g.create_res();
    mkdir: |g| MkdirArgs { at: g.dirop(), attr: g.sattr() };
    symlink: |g| SymlinkArgs { at: g.dirop(), attr: g.sattr(), target: g.name() };
    mknod: |g| MknodArgs { at: g.dirop(), what: g.mknod() };
    remove: |g| RemoveArgs { object: g.dirop() }, g.res(Gen::wcc, Gen::wcc);
    rename: |g| RenameArgs { from: g.dirop(), to: g.dirop() }, g.rename_res();
    link: |g| LinkArgs { file: g.fh(), link: g.dirop() }, g.link_res();
    readdir: |g| ReaddirArgs { dir: g.fh(), cookie: g.u64(), verf: CookieVerf(g.array()), count: g.u32() },
        g.readdir_res();
    readdirplus: |g| ReaddirplusArgs {
            dir: g.fh(), cookie: g.u64(), verf: CookieVerf(g.array()), dircount: g.u32(), maxcount: g.u32()
        }, g.readdirplus_res();
    fsstat: |g| FsArgs { object: g.fh() }, g.res(|g| FsstatOk {
            attr: g.post(), tbytes: g.u64(), fbytes: g.u64(), abytes: g.u64(), tfiles: g.u64(), ffiles: g.u64(),
            afiles: g.u64(), invarsec: g.u32(),
        }, Gen::post);
    fsinfo: |g| g.res(|g| FsinfoOk {
            attr: g.post(), rtmax: g.u32(), rtpref: g.u32(), rtmult: g.u32(), wtmax: g.u32(), wtpref: g.u32(),
            wtmult: g.u32(), dtpref: g.u32(), maxfilesize: g.u64(), time_delta: g.time(), properties: g.u32(),
        }, Gen::post);
    pathconf: |g| g.res(|g| PathconfOk {
            attr: g.post(), linkmax: g.u32(), name_max: g.u32(), no_trunc: g.bool(), chown_restricted: g.bool(),
            case_insensitive: g.bool(), case_preserving: g.bool(),
        }, Gen::post);
    commit: |g| CommitArgs { file: g.fh(), offset: g.u64(), count: g.u32() },
        g.res(|g| CommitOk { wcc: g.wcc(), verf: g.verf() }, Gen::wcc);
    mount: |g| DirPath(g.opaque(255)),
        if g.bool() { MntRes::Ok { handle: g.fh(), flavors: g.many(8, Gen::u32) } } else { MntRes::Err(MountStat::ACCES) },
        if g.bool() { MntResV1::Ok(g.array()) } else { MntResV1::Err(MountStat::NOENT) },
        MountList(g.many(5, |g| MountEntry { host: g.name(), path: g.name() })),
        ExportList(g.many(5, |g| ExportEntry { path: g.name(), groups: g.many(4, Gen::name) }));
    portmap: |g| MappingList(g.many(5, |g| Mapping { prog: g.u32(), vers: g.u32(), prot: g.u32(), port: g.u32() })),
        Text(g.opaque(255)),
        RpcbList(g.many(5, |g| Rpcb {
            prog: g.u32(), vers: g.u32(), netid: g.name(), addr: g.name(), owner: g.name() })),
        AddrList(g.many(5, |g| AddrEntry {
            addr: g.name(), netid: g.name(), semantics: g.u32(), family: g.name(), proto: g.name() }));
}

proptest! {
    /// What the zero-copy heads write, followed by the data, is what the whole type writes.
    #[test]
    fn heads_and_data_are_the_whole(entropy in prop::collection::vec(any::<u8>(), 0..800)) {
        let mut g = Gen::new(&entropy);
        let data = g.opaque(200);
        let (attr, eof) = (g.post(), g.bool());
        let mut w = BytesMut::new();
        ReadOkHead { attr, eof, data_len: data.len() as u32 }.encode_ok(&mut w);
        slice_proto::xdr::Put::put_fixed(&mut w, data);
        prop_assert_eq!(w.to_vec(), encoded(&ReadRes::Ok(ReadOk { attr, count: data.len() as u32, eof, data })));

        let (file, offset, stable) = (g.fh(), g.u64(), g.stable());
        let mut w = BytesMut::new();
        WriteArgsHead { file, offset, stable, data_len: data.len() as u32 }.encode(&mut w);
        slice_proto::xdr::Put::put_fixed(&mut w, data);
        prop_assert_eq!(w.to_vec(), encoded(&WriteArgs { file, offset, count: data.len() as u32, stable, data }));
    }

    /// Entries say beforehand how long they will be.
    #[test]
    fn entries_know_their_length(entropy in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut g = Gen::new(&entropy);
        let plus = g.entry_plus();
        let mut w = BytesMut::new();
        readdir::encode_entry(&mut w, &plus);
        prop_assert_eq!(w.len(), plus.encoded_len());
        w.clear();
        readdir::encode_entry(&mut w, &plus.entry);
        prop_assert_eq!(w.len(), plus.entry.encoded_len());
        let head = ReaddirOkHead { dir_attr: g.post(), verf: CookieVerf(g.array()) };
        prop_assert_eq!(encoded(&head).len(), head.encoded_len());
        w.clear();
        readdir::encode_end(&mut w, true);
        prop_assert_eq!(w.len(), readdir::END_LEN);
    }
}
