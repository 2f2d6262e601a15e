//! What proxies peek at and patch is what decoding finds.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop at the first surprise")]

mod common;

use bytes::BytesMut;
use common::Gen;
use proptest::prelude::*;
use slice_proto::nfs3::slots::{AttrKind, AttrWalk, for_each_attr};
use slice_proto::nfs3::*;
use slice_proto::xdr::{Decode, Encode, Reader};

#[derive(Debug, PartialEq)]
enum Found {
    Attr(Fattr3),
    Before(WccAttr),
}

/// What the slots of a result hold, in order.
fn found(proc: Proc3, res: &impl Encode) -> Vec<Found> {
    let mut w = BytesMut::new();
    res.encode(&mut w);
    let mut all = Vec::new();
    for_each_attr(proc, &w, |slot| {
        let mut r = Reader::at(&w, slot.at);
        all.push(match slot.kind {
            AttrKind::WccBefore => Found::Before(WccAttr::decode(&mut r).unwrap()),
            AttrKind::Object | AttrKind::PostOp | AttrKind::WccAfter => {
                Found::Attr(Fattr3::decode(&mut r).unwrap())
            }
        });
    })
    .unwrap();
    all
}

fn post(attr: PostOpAttr) -> Vec<Found> {
    attr.map(Found::Attr).into_iter().collect()
}

fn wcc(wcc: WccData) -> Vec<Found> {
    wcc.before.map(Found::Before).into_iter().chain(post(wcc.after)).collect()
}

fn cat(parts: impl IntoIterator<Item = Vec<Found>>) -> Vec<Found> {
    parts.into_iter().flatten().collect()
}

proptest! {
    #[test]
    fn slots_are_where_the_attributes_are(entropy in prop::collection::vec(any::<u8>(), 0..2500)) {
        let g = &mut Gen::new(&entropy);
        prop_assert_eq!(found(Proc3::Null, &()), vec![]);

        let res = g.res(Gen::attr, |_| ());
        let expected = if let Res3::Ok(attr) = res { vec![Found::Attr(attr)] } else { vec![] };
        prop_assert_eq!(found(Proc3::Getattr, &res), expected);

        for proc in [Proc3::Setattr, Proc3::Remove, Proc3::Rmdir] {
            let res = g.res(Gen::wcc, Gen::wcc);
            let (Res3::Ok(w) | Res3::Err(_, w)) = res;
            prop_assert_eq!(found(proc, &res), wcc(w));
        }

        let res = g.lookup_res();
        let expected = match res {
            Res3::Ok(ok) => cat([post(ok.attr), post(ok.dir_attr)]),
            Res3::Err(_, dir) => post(dir),
        };
        prop_assert_eq!(found(Proc3::Lookup, &res), expected);

        // These begin with the status and a post_op_attr, whatever follows.
        let res = g.read_res();
        let expected = match res { Res3::Ok(ok) => post(ok.attr), Res3::Err(_, attr) => post(attr) };
        for proc in [Proc3::Access, Proc3::Readlink, Proc3::Read, Proc3::Fsstat, Proc3::Fsinfo, Proc3::Pathconf] {
            prop_assert_eq!(&found(proc, &res), &expected);
        }

        let res = g.write_res();
        let expected = match res { Res3::Ok(ok) => wcc(ok.wcc), Res3::Err(_, w) => wcc(w) };
        prop_assert_eq!(&found(Proc3::Write, &res), &expected);
        prop_assert_eq!(&found(Proc3::Commit, &res), &expected);

        for proc in [Proc3::Create, Proc3::Mkdir, Proc3::Symlink, Proc3::Mknod] {
            let res = g.create_res();
            let expected = match res {
                Res3::Ok(ok) => cat([post(ok.attr), wcc(ok.dir_wcc)]),
                Res3::Err(_, w) => wcc(w),
            };
            prop_assert_eq!(found(proc, &res), expected);
        }

        let res = g.rename_res();
        let (Res3::Ok(both) | Res3::Err(_, both)) = res;
        prop_assert_eq!(found(Proc3::Rename, &res), cat([wcc(both.from_wcc), wcc(both.to_wcc)]));
        let res = g.link_res();
        let (Res3::Ok(both) | Res3::Err(_, both)) = res;
        prop_assert_eq!(found(Proc3::Link, &res), cat([post(both.attr), wcc(both.dir_wcc)]));

        let res = g.readdir_res();
        let expected = match &res { Res3::Ok(ok) => post(ok.dir_attr), Res3::Err(_, attr) => post(*attr) };
        prop_assert_eq!(found(Proc3::Readdir, &res), expected);
        let res = g.readdirplus_res();
        let expected = match &res {
            Res3::Ok(ok) => cat([post(ok.dir_attr)].into_iter().chain(ok.entries.iter().map(|e| post(e.attr)))),
            Res3::Err(_, attr) => post(*attr),
        };
        prop_assert_eq!(found(Proc3::Readdirplus, &res), expected);
    }

    /// Patching every slot while walking changes what it should, and nothing else.
    #[test]
    fn patches_while_walking(entropy in prop::collection::vec(any::<u8>(), 0..2500)) {
        let before = Gen::new(&entropy).readdirplus_res();
        let mut w = BytesMut::new();
        w.extend_from_slice(b"a reply header");
        let start = w.len();
        before.encode(&mut w);
        let (mtime, ctime) = (NfsTime3::from_ns(5), NfsTime3::from_ns(6));
        let mut walk = AttrWalk::new(Proc3::Readdirplus, &w, start).unwrap();
        while let Some(slot) = walk.next(&w).unwrap() {
            prop_assert!(Fattr3::patch(&mut w[slot.at..], 1, 2, mtime, ctime));
        }
        let patch = |attr: &mut PostOpAttr| if let Some(a) = attr {
            *a = Fattr3 { size: 1, used: 2, mtime, ctime, ..*a };
        };
        let mut expected = before;
        match &mut expected {
            Res3::Ok(ok) => {
                patch(&mut ok.dir_attr);
                ok.entries.iter_mut().for_each(|e| patch(&mut e.attr));
            }
            Res3::Err(_, attr) => patch(attr),
        }
        prop_assert_eq!(ReaddirplusRes::decode(&mut Reader::at(&w, start)).unwrap(), expected);
    }

    #[test]
    fn peeks_find_what_decoding_finds(entropy in prop::collection::vec(any::<u8>(), 0..800)) {
        let g = &mut Gen::new(&entropy);
        let mut w = BytesMut::new();
        w.extend_from_slice(b"a header");
        let at = w.len();
        let write = WriteArgs {
            file: g.fh(), offset: g.u64(), count: g.u32(), stable: g.stable(), data: g.opaque(200)
        };
        write.encode(&mut w);
        let peeked = peek::write_at(&w, at).unwrap();
        prop_assert_eq!(&w[peeked.extent.file.clone()], write.file);
        prop_assert_eq!(&w[peeked.data], write.data);
        prop_assert_eq!(peeked.stable, write.stable);
        prop_assert_eq!((peeked.extent.offset, peeked.extent.count), (write.offset, write.count));
        let mut r = Reader::at(&w, peeked.extent.offset_at);
        prop_assert_eq!((r.u64(), r.u32()), (Ok(write.offset), Ok(write.count)));
        prop_assert_eq!(&peek::extent_at(&w, at).unwrap(), &peeked.extent);
        prop_assert_eq!(peek::fh_at(&w, at).unwrap(), peeked.extent.file);

        w.truncate(at);
        let rename = RenameArgs { from: g.dirop(), to: g.dirop() };
        rename.encode(&mut w);
        let from = peek::dirop_at(&w, at).unwrap();
        let to = peek::dirop_at(&w, from.end).unwrap();
        prop_assert_eq!(DirOp { dir: &w[from.dir], name: &w[from.name] }, rename.from);
        prop_assert_eq!(DirOp { dir: &w[to.dir], name: &w[to.name] }, rename.to);
        prop_assert_eq!(to.end, w.len());

        w.truncate(at);
        let link = LinkArgs { file: g.fh(), link: g.dirop() };
        link.encode(&mut w);
        let file = peek::fh_at(&w, at).unwrap();
        let to = peek::dirop_at(&w, peek::end_of(&file)).unwrap();
        prop_assert_eq!(&w[file], link.file);
        prop_assert_eq!(DirOp { dir: &w[to.dir], name: &w[to.name] }, link.link);
    }
}
