//! What must be true after an operation, however it was interrupted: that it has happened, once.

use super::client::{Client, private, result, status};
use super::ensemble::{BLOCKS, Ensemble, SMALL};
use super::names::Names;
use super::play::{CUT, GROWN, LARGE, MTIME, Op, Play, TARGET, TRIES, WRITE_AT, bytes, write_pieces};
use slice_proto::ids::{Epoch, FileId};
use slice_proto::nfs3::{
    CommitRes, CreateOk, Fattr3, NfsStat3, PostOpAttr, Proc3, ReadlinkArgs, ReadlinkOk, Res3, StableHow,
    Verifier, WccData, WriteRes,
};
use slice_proto::peer::PeerProc;
use slice_proto::peer::dir::{AttrInfo, ListAttrsArgs, ListAttrsRes};
use slice_proto::rpc_msg::ReplyHeader;
use slice_proto::xdr::{Decode, Reader};

/// A file's record at its home.
async fn record_of(e: &Ensemble, names: &Names, file: FileId) -> Option<AttrInfo> {
    let args = ListAttrsArgs { after: FileId(file.0 - 1), limit: 1 };
    let channel = e.checker().channel(names.home(file)).unwrap();
    let reply = channel.call(private(PeerProc::ListAttrs, &args).into()).await.unwrap();
    let header = ReplyHeader::decode(&reply).unwrap();
    let res = ListAttrsRes::decode(&mut Reader::at(&reply, header.body_at)).unwrap();
    assert_eq!(res.status, 0);
    res.attrs.into_iter().find(|a| a.file == file)
}

/// Everything that the client was told.
pub async fn verify(e: &mut Ensemble, names: &Names, client: &Client, p: &Play, reply: &[u8]) {
    assert_eq!(status(reply), NfsStat3::OK, "what must be possible is answered with success");
    match p.op {
        Op::WriteSync | Op::Write | Op::Commit | Op::SetattrWritten => written(e, client, p, reply).await,
        _ => named(e, names, client, p, reply).await,
    }
}

async fn named(e: &Ensemble, names: &Names, client: &Client, p: &Play, reply: &[u8]) {
    let from = client.lookup(&p.a, &p.from).await;
    let to = client.lookup(&p.b, &p.to).await;
    let gone = |found: &Result<(Vec<u8>, Fattr3), NfsStat3>| {
        assert_eq!(found.as_ref().err(), Some(&NfsStat3::NOENT))
    };
    let old = |play: &Play| play.file.clone().unwrap();
    match p.op {
        Op::Create
        | Op::CreateExclusive
        | Op::Mkdir
        | Op::Symlink
        | Op::Mknod
        | Op::CreateSized
        | Op::CreateOver => {
            let (fh, attr) = to.unwrap();
            assert_eq!(made(reply), fh, "the reply names what is there");
            made_right(e, names, client, p, &fh, attr).await;
        }
        Op::Unlink => {
            gone(&to);
            assert_eq!(from.unwrap().1.nlink, 1);
        }
        Op::Remove | Op::RemoveLarge | Op::RemoveLeft | Op::Rmdir => {
            gone(&to);
            assert_eq!(record_of(e, names, old(p).id).await, None);
        }
        Op::Link => {
            assert_eq!(from.unwrap().0, to.as_ref().unwrap().0);
            assert_eq!(to.unwrap().1.nlink, 2);
        }
        Op::Rename | Op::RenameOver | Op::RenameOverLarge => {
            gone(&from);
            let (fh, attr) = to.unwrap();
            assert_eq!((fh, attr.nlink, attr.mode), (old(p).fh, 1, 0o644));
        }
        Op::RenameDir | Op::RenameDirOver => {
            gone(&from);
            let (fh, _) = to.unwrap();
            assert_eq!(fh, old(p).fh);
            assert_eq!(client.lookup(&fh, b"..").await.unwrap().0, p.b);
        }
        Op::Setattr => {
            let attr = from.unwrap().1;
            assert_eq!((attr.mode, attr.mtime), (0o600, MTIME));
            assert_eq!(wcc(reply).after, Some(attr), "the reply shows what is");
        }
        Op::Cut | Op::CutLeft => {
            let (fh, attr) = from.unwrap();
            assert_eq!((attr.mode, attr.mtime, attr.size), (0o600, MTIME, CUT));
            assert_eq!(wcc(reply).after, Some(attr), "the reply shows what is");
            once_cut(e, names, old(p).id).await;
            assert_eq!(client.read_from(&fh, 0).await, p.content[..CUT as usize]);
        }
        Op::Grow => {
            let (fh, attr) = from.unwrap();
            assert_eq!(attr.size, GROWN);
            let mut all = p.content.clone();
            all.resize(GROWN as usize, 0);
            assert!(client.read_from(&fh, 0).await == all, "what was there, and zeros");
        }
        Op::WriteSync | Op::Write | Op::Commit | Op::SetattrWritten => {}
    }
    if let Some(over) = &p.over {
        assert_eq!(record_of(e, names, over.id).await, None, "it was renamed over");
    }
}

async fn made_right(e: &Ensemble, names: &Names, client: &Client, p: &Play, fh: &[u8], attr: Fattr3) {
    match p.op {
        Op::Create => assert_eq!((attr.mode, attr.nlink), (0o640, 1)),
        Op::CreateSized => {
            assert_eq!((attr.size, attr.nlink), (CUT, 1));
            assert!(client.read_from(fh, 0).await == vec![0; CUT as usize], "zeros");
        }
        Op::CreateOver => {
            let file = p.file.as_ref().unwrap();
            assert_eq!((fh, attr.size), (file.fh.as_slice(), 0));
            once_cut(e, names, file.id).await;
        }
        Op::Symlink => {
            let reply = client.send(&client.record(Proc3::Readlink, &ReadlinkArgs { symlink: fh })).await;
            let ok = Res3::<ReadlinkOk<'_>, PostOpAttr>::decode(&mut result(&reply)).unwrap().into_result();
            assert_eq!(ok.unwrap().target, TARGET);
        }
        Op::Mkdir => assert_eq!(attr.nlink, 2),
        _ => assert_eq!(attr.nlink, 1),
    }
}

/// Every cut raises the epoch, which is 1 at first.
async fn once_cut(e: &Ensemble, names: &Names, file: FileId) {
    assert_eq!(record_of(e, names, file).await.unwrap().epoch, Epoch(2), "it was cut once");
}

fn made(reply: &[u8]) -> Vec<u8> {
    let ok = Res3::<CreateOk<'_>, WccData>::decode(&mut result(reply)).unwrap().into_result().unwrap();
    ok.object.unwrap().to_vec()
}

fn wcc(reply: &[u8]) -> WccData {
    Res3::<WccData, WccData>::decode(&mut result(reply)).unwrap().into_result().unwrap()
}

/// The client does as the verifiers tell it (I7); then the bytes are there, also after the data servers' death.
async fn written(e: &mut Ensemble, client: &Client, p: &Play, reply: &[u8]) {
    let fh = &p.file.as_ref().unwrap().fh;
    let content = match p.op {
        Op::WriteSync | Op::Write => {
            let mut all = vec![0; WRITE_AT as usize];
            all.extend(bytes(WRITE_AT, 1 << 20));
            all
        }
        _ => p.content.clone(),
    };
    let promised: Option<Verifier> = match p.op {
        Op::WriteSync => {
            let ok = WriteRes::decode(&mut result(reply)).unwrap().into_result().unwrap();
            assert_eq!((ok.count, ok.committed), (1 << 20, StableHow::FileSync));
            None
        }
        Op::Write => {
            let ok = WriteRes::decode(&mut result(reply)).unwrap().into_result().unwrap();
            assert_eq!(ok.count, 1 << 20);
            (ok.committed == StableHow::Unstable).then_some(ok.verf)
        }
        Op::Commit => {
            let ok = CommitRes::decode(&mut result(reply)).unwrap().into_result().unwrap();
            // As many as were lost are written again.
            if p.verf == Some(ok.verf) { None } else { Some(write_pieces(client, fh).await) }
        }
        _ => {
            assert_eq!(wcc(reply).after.unwrap().mode, 0o600);
            p.verf
        }
    };
    if let Some(verf) = promised {
        make_durable(client, p, fh, verf).await;
    }
    // What was acknowledged as durable outlives the death of whoever holds it.
    for id in [SMALL, BLOCKS[0], BLOCKS[1]] {
        e.restart(id).await;
    }
    let attr = client.getattr(fh).await.unwrap();
    assert_eq!(attr.size, content.len() as u64);
    if p.op == Op::SetattrWritten {
        assert_eq!(attr.mode, 0o600);
    }
    assert!(client.read_from(fh, 0).await == content, "bit for bit");
}

/// Commits what was written under a verifier, and writes it again where that has changed.
async fn make_durable(client: &Client, p: &Play, fh: &[u8], mut verf: Verifier) {
    for _ in 0..TRIES {
        if client.commit(fh).await.verf == verf {
            return;
        }
        verf = match p.op {
            Op::Write => {
                client.write(fh, WRITE_AT, &bytes(WRITE_AT, 1 << 20), StableHow::Unstable).await.verf
            }
            _ => write_pieces(client, fh).await,
        };
    }
    panic!("the verifier changes though nobody dies (I7)");
}

/// Others go on, and the record comes once more: it gets the first reply, and does nothing to what they did.
pub async fn again(client: &Client, p: &Play, reply: &[u8]) {
    let later = match p.op {
        Op::Cut | Op::CutLeft | Op::Grow | Op::CreateOver | Op::CreateSized => {
            let at = if matches!(p.op, Op::CreateOver | Op::CreateSized) {
                (&p.b, &p.to)
            } else {
                (&p.a, &p.from)
            };
            let (fh, _) = client.lookup(at.0, at.1).await.unwrap();
            // What was cut off stays cut off.
            client.set_size(&fh, LARGE).await;
            Some((fh, p.op))
        }
        _ => None,
    };
    let repeated = client.send(&p.record).await;
    if p.op.is_kept() {
        assert_eq!(repeated, reply, "the first reply");
    } else {
        assert_eq!(status(&repeated), NfsStat3::OK);
    }
    let Some((fh, op)) = later else { return };
    assert_eq!(client.getattr(&fh).await.unwrap().size, LARGE, "it is not done a second time");
    let keeps = match op {
        Op::Grow => LARGE,
        Op::CreateOver | Op::CreateSized => 0,
        _ => CUT,
    };
    let mut all = p.content.clone();
    all.resize(LARGE as usize, 0);
    all[keeps as usize..].fill(0);
    assert!(client.read_from(&fh, 0).await == all, "what was cut off came back");
}
