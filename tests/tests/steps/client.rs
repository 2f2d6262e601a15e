//! A client on one connection that sends a record again until it is answered, as a hard mount does.

use bytes::BytesMut;
use slice_proto::ids::Xid;
use slice_proto::nfs3::types::DirOp;
use slice_proto::nfs3::{
    CommitArgs, CommitOk, CommitRes, CreateArgs, CreateHow, CreateOk, Fattr3, GetattrArgs, GetattrRes,
    LookupArgs, LookupOk, MkdirArgs, NfsStat3, PostOpAttr, Proc3, ReadArgs, ReadRes, RemoveArgs, RemoveRes,
    RenameArgs, RenameRes, Res3, Sattr3, SetattrArgs, SetattrRes, StableHow, WccData, WriteArgs, WriteOk,
    WriteRes,
};
use slice_proto::rpc_msg::{Cred, ReplyHeader, ReplyStatus, peek_xid, program, version};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_tests::wire::raw::{Raw, Reaction, call, marked};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio::sync::watch;

pub type Fh = Vec<u8>;
pub type Res<T> = Result<T, NfsStat3>;

pub struct Client {
    /// Where the µproxy is.
    at: RefCell<watch::Receiver<SocketAddr>>,
    raw: RefCell<Option<Raw>>,
    xid: Cell<u32>,
}

impl Client {
    pub fn new(at: watch::Receiver<SocketAddr>) -> Self {
        Self::counting_from(at, 1)
    }

    /// One of several: all have one address, so that only their transaction ids tell them apart.
    pub fn counting_from(at: watch::Receiver<SocketAddr>, xid: u32) -> Self {
        Self { at: RefCell::new(at), raw: RefCell::default(), xid: Cell::new(xid) }
    }

    /// A call of root's with the next xid.
    pub fn record(&self, proc: Proc3, args: &impl Encode) -> Vec<u8> {
        let xid = self.xid.get();
        self.xid.set(xid + 1);
        call(xid, program::NFS, version::NFS3, proc as u32, Cred::default(), args)
    }

    async fn connect(&self) -> Raw {
        let mut at = self.at.borrow().clone();
        loop {
            let addr = *at.borrow_and_update();
            if let Ok(stream) = TcpStream::connect(addr).await {
                stream.set_nodelay(true).unwrap();
                *self.at.borrow_mut() = at;
                return Raw { stream };
            }
            // Nobody is there: it has been killed, and will be somewhere else.
            at.changed().await.unwrap();
        }
    }

    /// Sends a record as often as it takes; its whole reply.
    pub async fn send(&self, record: &[u8]) -> Vec<u8> {
        let xid = peek_xid(record).unwrap();
        loop {
            let kept = self.raw.borrow_mut().take();
            let mut raw = match kept {
                Some(raw) => raw,
                None => self.connect().await,
            };
            if !raw.send(&marked(record)).await {
                continue;
            }
            while let Reaction::Record(reply) = raw.reaction().await {
                // Another is that of a call that was given up.
                if peek_xid(&reply) == Some(xid) {
                    *self.raw.borrow_mut() = Some(raw);
                    return reply;
                }
            }
        }
    }

    pub async fn call<R>(&self, proc: Proc3, args: &impl Encode) -> R
    where
        R: for<'a> Decode<'a>,
    {
        let reply = self.send(&self.record(proc, args)).await;
        R::decode(&mut result(&reply)).unwrap()
    }

    pub async fn getattr(&self, fh: &[u8]) -> Res<Fattr3> {
        self.call::<GetattrRes>(Proc3::Getattr, &GetattrArgs { object: fh }).await.into_result()
    }

    pub async fn lookup(&self, dir: &[u8], name: &[u8]) -> Res<(Fh, Fattr3)> {
        let reply = self.send(&self.record(Proc3::Lookup, &LookupArgs { what: DirOp { dir, name } })).await;
        let res = Res3::<LookupOk<'_>, PostOpAttr>::decode(&mut result(&reply)).unwrap();
        let fh = res.into_result()?.object.to_vec();
        // As they are now, whatever the µproxy keeps.
        self.getattr(&fh).await.map(|attr| (fh, attr))
    }

    async fn make(&self, proc: Proc3, args: &impl Encode) -> Fh {
        let reply = self.send(&self.record(proc, args)).await;
        let made = Res3::<CreateOk<'_>, WccData>::decode(&mut result(&reply)).unwrap().into_result();
        made.unwrap().object.unwrap().to_vec()
    }

    pub async fn mkdir(&self, dir: &[u8], name: &[u8]) -> Fh {
        let attr = Sattr3 { mode: Some(0o755), ..Sattr3::default() };
        self.make(Proc3::Mkdir, &MkdirArgs { at: DirOp { dir, name }, attr }).await
    }

    pub async fn create(&self, dir: &[u8], name: &[u8], mode: u32) -> Fh {
        let how = CreateHow::Guarded(Sattr3 { mode: Some(mode), ..Sattr3::default() });
        self.make(Proc3::Create, &CreateArgs { at: DirOp { dir, name }, how }).await
    }

    pub async fn rename(&self, dir: &[u8], name: &[u8], to_dir: &[u8], to: &[u8]) {
        let args = RenameArgs { from: DirOp { dir, name }, to: DirOp { dir: to_dir, name: to } };
        self.call::<RenameRes>(Proc3::Rename, &args).await.into_result().unwrap();
    }

    pub async fn remove(&self, dir: &[u8], name: &[u8]) {
        let args = RemoveArgs { object: DirOp { dir, name } };
        self.call::<RemoveRes>(Proc3::Remove, &args).await.into_result().unwrap();
    }

    pub async fn set_size(&self, fh: &[u8], size: u64) {
        let attr = Sattr3 { size: Some(size), ..Sattr3::default() };
        let args = SetattrArgs { object: fh, attr, guard: None };
        self.call::<SetattrRes>(Proc3::Setattr, &args).await.into_result().unwrap();
    }

    pub async fn set_mode(&self, fh: &[u8], mode: u32) {
        let attr = Sattr3 { mode: Some(mode), ..Sattr3::default() };
        let args = SetattrArgs { object: fh, attr, guard: None };
        self.call::<SetattrRes>(Proc3::Setattr, &args).await.into_result().unwrap();
    }

    pub async fn write(&self, fh: &[u8], offset: u64, data: &[u8], stable: StableHow) -> WriteOk {
        let args = WriteArgs { file: fh, offset, count: data.len() as u32, stable, data };
        let ok = self.call::<WriteRes>(Proc3::Write, &args).await.into_result().unwrap();
        assert_eq!(ok.count as usize, data.len(), "the whole of it is written");
        ok
    }

    pub async fn commit(&self, fh: &[u8]) -> CommitOk {
        let args = CommitArgs { file: fh, offset: 0, count: 0 };
        self.call::<CommitRes>(Proc3::Commit, &args).await.into_result().unwrap()
    }

    /// The bytes from an offset to the end of the file.
    pub async fn read_from(&self, fh: &[u8], mut offset: u64) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let args = ReadArgs { file: fh, offset, count: 1 << 20 };
            let reply = self.send(&self.record(Proc3::Read, &args)).await;
            let ok = ReadRes::decode(&mut result(&reply)).unwrap().into_result().unwrap();
            all.extend_from_slice(ok.data);
            offset += ok.data.len() as u64;
            if ok.eof {
                return all;
            }
            assert!(!ok.data.is_empty(), "a READ that neither reads nor ends");
        }
    }
}

/// The result in a reply record.
pub fn result(reply: &[u8]) -> Reader<'_> {
    let header = ReplyHeader::decode(reply).unwrap();
    assert_eq!((header.status, peek_xid(reply).is_some()), (ReplyStatus::Success, true));
    Reader::at(reply, header.body_at)
}

/// The status that a reply record begins with.
pub fn status(reply: &[u8]) -> NfsStat3 {
    NfsStat3(result(reply).u32().unwrap())
}

/// A record of a private procedure, which no client sends.
pub fn private(proc: slice_proto::peer::PeerProc, args: &impl Encode) -> BytesMut {
    let mut w = BytesMut::new();
    let none = slice_proto::rpc_msg::OpaqueAuth::NONE;
    let (prog, vers) = (slice_proto::peer::PROGRAM, slice_proto::peer::VERSION);
    slice_proto::rpc_msg::encode_call(&mut w, Xid(0), prog, vers, proc as u32, &none);
    args.encode(&mut w);
    w
}
