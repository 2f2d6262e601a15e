//! A fake ensemble in memory: directory and data servers that do what docs/wire.md says, as simply as they can, with
//! faults on request; a µproxy before them on a real socket; and a client.
// A test's helpers may stop at the first surprise, and not every test needs all of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    missing_docs
)]

pub mod data;
pub mod dir;

use bytes::{BufMut, BytesMut};
use data::FakeData;
use dir::FakeDir;
use slice_proto::handle::{Handle, KeyRing};
use slice_proto::ids::{
    EnsembleId, Epoch, FileId, Role, SITES_PER_ROLE, ServerId, Site, TableEpoch, VolumeId, Xid,
};
use slice_proto::nfs3::*;
use slice_proto::rpc_msg::{
    AuthSys, Cred, Gids, ReplyHeader, ReplyStatus, encode_call, encode_success, program, record_mark,
};
use slice_proto::secret::Identity;
use slice_proto::table::{NamePolicy, Placement, RoutingTable, ServerEntry, Volume};
use slice_proto::trailer::{CallTrailer, ResultTrailer, Stamp};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_proxy::{Exports, Proxy, ProxyConfig, Space};
use slice_rpc::clock::SystemClock;
use slice_rpc::tables::{TablesSender, tables};
use slice_rpc::{Channel, Directory, Handled, Message, Target, Workers};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub const DIRS: u64 = 2;
pub const BLOCKS: u64 = 3;
pub const SMALLS: u64 = 2;

pub fn dir_id(n: u64) -> ServerId {
    ServerId(100 + n)
}
pub fn small_id(n: u64) -> ServerId {
    ServerId(200 + n)
}
pub fn block_id(n: u64) -> ServerId {
    ServerId(300 + n)
}

/// What all fakes share: the journal of calls, faults to come.
#[derive(Default)]
pub struct Stage {
    pub journal: Mutex<Vec<String>>,
    faults: Mutex<Vec<(String, u32)>>,
    held: Mutex<Option<(String, Arc<tokio::sync::Notify>)>>,
}

impl Stage {
    /// The next call written like this in the journal gets this status instead of an answer.
    pub fn fail_next(&self, call: &str, status: u32) {
        self.faults.lock().unwrap().push((call.to_owned(), status));
    }

    /// The next call written like this in the journal is executed, but answered only once the notify is.
    pub fn hold_next(&self, call: &str) -> Arc<tokio::sync::Notify> {
        let release = Arc::<tokio::sync::Notify>::default();
        *self.held.lock().unwrap() = Some((call.to_owned(), Arc::clone(&release)));
        release
    }

    /// Answers a call that was executed, now or once it is released.
    pub fn leave(&self, reply: &mut Message) -> Handled {
        let last = self.journal.lock().unwrap().last().cloned();
        let mut held = self.held.lock().unwrap();
        match held.take() {
            Some((call, release)) if Some(&call) == last.as_ref() => {
                let reply = std::mem::take(reply);
                Handled::Later(Box::pin(async move {
                    release.notified().await;
                    reply
                }))
            }
            other => {
                *held = other;
                Handled::Done
            }
        }
    }

    /// Notes a call; the status that it is to fail with, if it is to.
    pub fn enter(&self, call: String) -> Option<u32> {
        let fault = {
            let mut faults = self.faults.lock().unwrap();
            let at = faults.iter().position(|(c, _)| *c == call);
            at.map(|at| faults.remove(at).1)
        };
        self.journal.lock().unwrap().push(call);
        fault
    }

    pub fn take_journal(&self) -> Vec<String> {
        std::mem::take(&mut *self.journal.lock().unwrap())
    }

    pub fn count(&self, call: &str) -> usize {
        self.journal.lock().unwrap().iter().filter(|c| *c == call).count()
    }
}

/// Everything of one ensemble.
pub struct World {
    pub stage: Arc<Stage>,
    pub identity: Identity,
    pub keys: KeyRing,
    pub tables: TablesSender,
    pub tables_rx: slice_rpc::tables::Tables,
    pub directory: Directory,
    pub files: Arc<dir::Files>,
    pub dirs: Vec<Arc<FakeDir>>,
    pub smalls: Vec<Arc<FakeData>>,
    pub blocks: Vec<Arc<FakeData>>,
    pub workers: Workers,
}

/// A µproxy and where it listens.
pub struct Front {
    pub proxy: Arc<Proxy>,
    pub addr: SocketAddr,
}

impl World {
    pub fn new(policy: NamePolicy) -> Self {
        let world = Self::without_table();
        world.tables.publish(table(1, policy));
        world
    }

    /// An ensemble whose routing table is not known yet.
    pub fn without_table() -> Self {
        let identity = Identity { ensemble: EnsembleId(5), secret: [3; 32] };
        let keys = KeyRing::new(&identity, 0);
        let stage = Arc::<Stage>::default();
        let (tx, rx) = tables();
        let directory = Directory::new(None);
        let data = |id: ServerId, role| Arc::new(FakeData::new(id, role, Arc::clone(&stage), rx.clone()));
        let smalls: Vec<_> = (0..SMALLS).map(|n| data(small_id(n), Role::Small)).collect();
        let blocks: Vec<_> = (0..BLOCKS).map(|n| data(block_id(n), Role::Block)).collect();
        let files = Arc::new(dir::Files::new(smalls.iter().chain(&blocks).cloned().collect()));
        let dirs: Vec<_> = (0..DIRS)
            .map(|n| {
                Arc::new(FakeDir::new(
                    dir_id(n),
                    keys.clone(),
                    Arc::clone(&files),
                    Arc::clone(&stage),
                    rx.clone(),
                ))
            })
            .collect();
        for d in &dirs {
            directory.set(d.id, Target::InProcess(Arc::clone(d) as _));
        }
        for d in smalls.iter().chain(&blocks) {
            directory.set(d.id, Target::InProcess(Arc::clone(d) as _));
        }
        let workers = Workers::start("proxy", 2).unwrap();
        Self {
            stage,
            identity,
            keys,
            tables: tx,
            tables_rx: rx,
            directory,
            files,
            dirs,
            smalls,
            blocks,
            workers,
        }
    }

    pub fn start(&self, exports: Exports) -> Front {
        self.start_with(exports, None)
    }

    pub fn start_with(&self, exports: Exports, portmap: Option<SocketAddr>) -> Front {
        let config = ProxyConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            portmap,
            identity: self.identity.clone(),
            id: ServerId(1),
            exports,
            space: Arc::new(Space { total: 1 << 40, free: 1 << 39, available: 1 << 38, files: 10 }),
        };
        let proxy = Proxy::new(config, self.tables_rx.clone(), self.directory.clone(), Arc::new(SystemClock))
            .unwrap();
        let addr = proxy.start(&self.workers).unwrap();
        Front { proxy, addr }
    }

    /// A regular file with these attributes.
    pub fn file(&self, n: u64, uid: u32, mode: u32) -> (FileId, Vec<u8>) {
        let id = FileId::new(Site(7), n);
        self.files.insert(id, attributes(id, FType3::Reg, uid, mode));
        (id, self.handle(id, 1))
    }

    pub fn handle(&self, file: FileId, ftype: u8) -> Vec<u8> {
        self.keys.seal(&Handle { ftype, volume: VolumeId(0), policy: 0, file, snapshot: 0 }).to_vec()
    }

    pub fn root(&self) -> Vec<u8> {
        self.handle(root(), 2)
    }

    /// What the data servers hold of a file, as one flat file of its home size.
    pub fn flat(&self, file: FileId) -> Vec<u8> {
        let size = self.files.size(file) as usize;
        let mut out = vec![0; size];
        for d in self.smalls.iter().chain(&self.blocks) {
            d.copy_out(file, &mut out);
        }
        out
    }
}

pub fn root() -> FileId {
    FileId::new(Site(0), 1)
}

pub fn attributes(id: FileId, ftype: FType3, uid: u32, mode: u32) -> Fattr3 {
    let t = NfsTime3::from_ns(1_000_000_000_000);
    Fattr3 {
        ftype,
        mode,
        nlink: 1,
        uid,
        gid: uid,
        size: 0,
        used: 0,
        rdev: SpecData3::default(),
        fsid: 1,
        fileid: id,
        atime: t,
        mtime: t,
        ctime: t,
    }
}

pub fn table(epoch: u64, policy: NamePolicy) -> RoutingTable {
    let deal =
        |n: u64, id: fn(u64) -> ServerId| (0..SITES_PER_ROLE as u64).map(|s| vec![id(s % n)]).collect();
    let mut servers = std::collections::BTreeMap::new();
    let mut add = |id, role| servers.insert(id, ServerEntry { role, address: String::new() });
    (0..DIRS).for_each(|n| drop(add(dir_id(n), Role::Dir)));
    (0..SMALLS).for_each(|n| drop(add(small_id(n), Role::Small)));
    (0..BLOCKS).for_each(|n| drop(add(block_id(n), Role::Block)));
    RoutingTable {
        epoch: TableEpoch(epoch),
        dir: deal(DIRS, dir_id),
        small: deal(SMALLS, small_id),
        block: deal(BLOCKS, block_id),
        servers,
        volumes: vec![Volume {
            id: VolumeId(0),
            path: "/".into(),
            root: root(),
            policy,
            seed: 1,
            placement: 0,
            root_uid: 0,
            root_gid: 0,
            root_mode: 0o755,
        }],
        placements: vec![Placement { copies: 1 }],
        key_id: 0,
    }
}

/// Begins a reply's result: header and status.
pub fn begin(w: &mut BytesMut, status: u32) {
    encode_success(w, Xid(0));
    w.put_u32(status);
}

pub fn end(w: &mut BytesMut, stamps: &[Stamp], table: TableEpoch) {
    ResultTrailer::append_parts(w, stamps, table, 0);
}

/// The arguments and trailer of an NFS call.
pub fn open_call(record: &[u8]) -> (Reader<'_>, CallTrailer) {
    let (front, trailer) = CallTrailer::split(record).expect("every forwarded call has a trailer");
    let header = slice_proto::rpc_msg::CallHeader::decode(front).unwrap();
    (Reader::at(front, header.args_at), trailer)
}

/// A client on one connection.
pub struct Client {
    pub channel: Channel,
    pub cred: Cred,
}

pub fn user(uid: u32) -> Cred {
    Cred { uid, gid: uid, gids: Gids::new(&[uid]) }
}

impl Client {
    pub fn new(addr: SocketAddr, uid: u32) -> Self {
        Self { channel: Channel::open(ServerId(0), Target::Socket(addr), None, None), cred: user(uid) }
    }

    pub async fn raw(&self, prog: u32, vers: u32, proc: u32, args: &impl Encode) -> (ReplyStatus, BytesMut) {
        let mut w = BytesMut::new();
        encode_call(
            &mut w,
            Xid(0),
            prog,
            vers,
            proc,
            &AuthSys { stamp: 1, machine: b"test", cred: self.cred },
        );
        args.encode(&mut w);
        let mut reply = self.channel.call(Message::from(w)).await.expect("the µproxy answers");
        let header = ReplyHeader::decode(&reply).unwrap();
        (header.status, reply.split_off(header.body_at))
    }

    pub async fn call<R>(&self, proc: Proc3, args: &impl Encode) -> R
    where
        R: for<'a> Decode<'a>,
    {
        let (status, body) = self.raw(program::NFS, 3, proc as u32, args).await;
        assert_eq!(status, ReplyStatus::Success, "{proc:?}");
        let mut r = Reader::new(&body);
        let result = R::decode(&mut r).unwrap_or_else(|e| panic!("{proc:?}: {e}"));
        assert_eq!(r.remaining(), 0, "{proc:?}: nothing stands behind the result");
        result
    }

    pub async fn getattr(&self, fh: &[u8]) -> Result<Fattr3, NfsStat3> {
        self.call::<GetattrRes>(Proc3::Getattr, &GetattrArgs { object: fh }).await.into_result()
    }

    pub async fn write(
        &self,
        fh: &[u8],
        offset: u64,
        data: &[u8],
        stable: StableHow,
    ) -> Result<WriteOk, NfsStat3> {
        let args = WriteArgs { file: fh, offset, count: data.len() as u32, stable, data };
        self.call::<WriteRes>(Proc3::Write, &args).await.into_result()
    }

    pub async fn read(
        &self,
        fh: &[u8],
        offset: u64,
        count: u32,
    ) -> Result<(Vec<u8>, bool, PostOpAttr), NfsStat3> {
        let (status, body) = self.raw(program::NFS, 3, 6, &ReadArgs { file: fh, offset, count }).await;
        assert_eq!(status, ReplyStatus::Success);
        let mut r = Reader::new(&body);
        let res = ReadRes::decode(&mut r).unwrap();
        assert_eq!(r.remaining(), 0);
        let ok = res.into_result()?;
        assert_eq!(ok.count as usize, ok.data.len());
        Ok((ok.data.to_vec(), ok.eof, ok.attr))
    }

    pub async fn commit(&self, fh: &[u8]) -> Result<CommitOk, NfsStat3> {
        let args = CommitArgs { file: fh, offset: 0, count: 0 };
        self.call::<CommitRes>(Proc3::Commit, &args).await.into_result()
    }

    pub async fn setattr(&self, fh: &[u8], attr: Sattr3) -> Result<WccData, NfsStat3> {
        let args = SetattrArgs { object: fh, attr, guard: None };
        self.call::<SetattrRes>(Proc3::Setattr, &args).await.into_result()
    }
}

/// A client's call under a number of the caller's choice, to be sent as often as he likes.
pub fn record(xid: u32, uid: u32, proc: Proc3, args: &impl Encode) -> BytesMut {
    let mut w = BytesMut::new();
    let cred = AuthSys { stamp: 1, machine: b"test", cred: user(uid) };
    encode_call(&mut w, Xid(xid), program::NFS, 3, proc as u32, &cred);
    args.encode(&mut w);
    w
}

/// A connection that sends what it is told.
pub struct Raw(tokio::net::TcpStream);

impl Raw {
    pub async fn connect(addr: SocketAddr) -> Self {
        Self(tokio::net::TcpStream::connect(addr).await.unwrap())
    }

    pub async fn send(&mut self, record: &[u8]) {
        self.0.write_all(&[&record_mark(record.len())[..], record].concat()).await.unwrap();
    }

    /// The next reply: all of it, and the result in it.
    pub async fn reply<R: for<'a> Decode<'a>>(&mut self) -> (Vec<u8>, R) {
        let mark = self.0.read_u32().await.unwrap();
        let mut reply = vec![0; (mark & 0x7fff_ffff) as usize];
        self.0.read_exact(&mut reply).await.unwrap();
        let header = ReplyHeader::decode(&reply).unwrap();
        assert_eq!(header.status, ReplyStatus::Success);
        let result = R::decode(&mut Reader::at(&reply, header.body_at)).unwrap();
        (reply, result)
    }
}

/// Runs a client's part on a thread of its own, as the engine wants it.
pub fn run<F: std::future::Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test());
}

pub type Objects<T> = Mutex<HashMap<FileId, T>>;
pub const NO_EPOCH: Epoch = Epoch(0);
