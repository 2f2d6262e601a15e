//! A node in a directory of its own, and a caller that speaks its wire.

use crate::{BlockConfig, BlockStore, Error};
use bytes::{Bytes, BytesMut};
use slice_proto::handle::{Handle, KeyRing};
use slice_proto::ids::{
    EnsembleId, Epoch, FileId, Role, SITES_PER_ROLE, ServerId, Site, TableEpoch, VolumeId, Xid,
};
use slice_proto::nfs3::{CommitArgs, ReadOk};
use slice_proto::nfs3::{
    CommitRes, NfsStat3, Proc3, ReadArgs, ReadRes, Res3, StableHow, Verifier, WriteArgs, WriteRes,
};
use slice_proto::peer::data::{
    DataRes, ListArgs, ObjectInfo, ObjectsRes, PurgeArgs, Sites, StatArgs, TruncateArgs,
};
use slice_proto::peer::{self, PeerProc};
use slice_proto::placement::block_site;
use slice_proto::rpc_msg::{OpaqueAuth, ReplyHeader, ReplyStatus, encode_call, program, version};
use slice_proto::secret::Identity;
use slice_proto::table::RoutingTable;
use slice_proto::trailer::{CallTrailer, ResultTrailer};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::clock::Clock;
use slice_rpc::service::{Handled, Message, Peer, Service};
use slice_rpc::tables::{TablesSender, tables};
use slice_store::EngineKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The server under test.
pub const ME: ServerId = ServerId(1);
/// Another one, which owns the sites that are not ours.
pub const OTHER: ServerId = ServerId(2);
/// Epoch of the first table.
pub const TABLE: TableEpoch = TableEpoch(1);

/// A clock that tests set: time that passes, and by how much the time of day is ahead of it.
#[derive(Debug, Default)]
pub struct SetClock(pub AtomicU64, pub AtomicU64);

impl Clock for SetClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst) + self.1.load(Ordering::SeqCst)
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub struct Harness {
    dir: tempfile::TempDir,
    pub block: Option<Arc<BlockStore>>,
    pub tables: TablesSender,
    follower: slice_rpc::tables::Tables,
    pub clock: Arc<SetClock>,
    pub keys: KeyRing,
    /// Table epoch that calls carry.
    pub sender: TableEpoch,
}

fn identity() -> Identity {
    Identity { ensemble: EnsembleId(7), secret: [3; 32] }
}

/// A table in which `mine` of the storage sites are ours.
pub fn table(epoch: u64, mine: impl Fn(u16) -> bool) -> RoutingTable {
    let owner = |site| vec![if mine(site) { ME } else { OTHER }];
    RoutingTable {
        epoch: TableEpoch(epoch),
        block: (0..SITES_PER_ROLE as u16).map(owner).collect(),
        ..RoutingTable::default()
    }
}

/// Runs a test on a runtime as servers have it.
pub fn run<T>(test: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test())
}

impl Harness {
    /// A new node that owns the sites for which `mine` says so.
    pub async fn new(mine: impl Fn(u16) -> bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (tx, follower) = tables();
        tx.publish(table(TABLE.0, &mine));
        let keys = KeyRing::new(&identity(), 0);
        let mut h =
            Self { dir, block: None, tables: tx, follower, clock: Arc::default(), keys, sender: TABLE };
        h.clock.0.store(1_000_000_000_000_000, Ordering::SeqCst);
        BlockStore::format(&h.config()).unwrap();
        h.open().await;
        let sites: Vec<_> = (0..SITES_PER_ROLE as u16).filter(|s| mine(*s)).map(Site).collect();
        h.node().adopt(&sites, &[]).await.unwrap();
        h
    }

    pub fn config(&self) -> BlockConfig {
        BlockConfig {
            data: self.dir.path().to_owned(),
            engine: EngineKind::Fjall,
            identity: identity(),
            server: ME,
        }
    }

    pub fn node(&self) -> &Arc<BlockStore> {
        self.block.as_ref().unwrap()
    }

    async fn open(&mut self) {
        self.block = loop {
            let directory = slice_rpc::Directory::new(None);
            let (tables, clock) = (self.follower.clone(), self.clock.clone());
            match BlockStore::open(self.config(), tables, directory, clock).await {
                Ok(block) => break Some(block),
                // A job that has answered may still be on its way out, and the node with it.
                Err(Error::Store(slice_store::Error::Locked { .. })) => tokio::task::yield_now().await,
                Err(e) => panic!("{e}"),
            }
        };
    }

    /// Drops the node as a crash of the process would, and opens it again.
    pub async fn crash(&mut self) {
        self.block = None;
        self.open().await;
    }

    pub fn handle(&self, file: FileId) -> Vec<u8> {
        self.keys.seal(&Handle { ftype: 1, volume: VolumeId(0), policy: 0, file, snapshot: 0 }).to_vec()
    }

    /// A call record of an NFS procedure.
    pub fn nfs_record(&self, proc: Proc3, args: &impl Encode, epoch: Epoch) -> BytesMut {
        let mut w = BytesMut::new();
        encode_call(&mut w, Xid(9), program::NFS, version::NFS3, proc as u32, &OpaqueAuth::NONE);
        args.encode(&mut w);
        CallTrailer { table: self.sender, epoch, xid: Xid(1), ..CallTrailer::default() }.append(&mut w);
        w
    }

    /// Sends a record; the reply's body.
    pub async fn send(&self, record: BytesMut) -> Bytes {
        let reply = send(self.node(), record).await.expect("closed");
        let header = ReplyHeader::decode(&reply).unwrap();
        assert_eq!((header.xid, header.status), (Xid(9), ReplyStatus::Success));
        reply.slice(header.body_at..)
    }

    async fn nfs(&self, proc: Proc3, args: &impl Encode, epoch: Epoch) -> Bytes {
        let body = self.send(self.nfs_record(proc, args, epoch)).await;
        let (front, trailer) = ResultTrailer::split(&body).unwrap();
        assert_eq!(trailer.first(), None);
        body.slice(..front.len())
    }

    /// The bytes and eof, or the status.
    pub async fn read(&self, file: FileId, offset: u64, count: u32) -> Result<(Vec<u8>, bool), u32> {
        let fh = self.handle(file);
        let body = self.nfs(Proc3::Read, &ReadArgs { file: &fh, offset, count }, Epoch(0)).await;
        if body.len() == 4 {
            return Err(u32::from_be_bytes(body[..].try_into().unwrap()));
        }
        match whole::<ReadRes<'_>>(&body) {
            Res3::Ok(ReadOk { attr, count, eof, data }) => {
                assert_eq!((attr, count as usize), (None, data.len()));
                Ok((data.to_vec(), eof))
            }
            Res3::Err(status, _) => Err(status.0),
        }
    }

    /// The count and verifier, or the status.
    pub async fn write(
        &self,
        file: FileId,
        epoch: u64,
        offset: u64,
        data: &[u8],
        stable: StableHow,
    ) -> Result<(u32, Verifier), u32> {
        let fh = self.handle(file);
        let args = WriteArgs { file: &fh, offset, count: data.len() as u32, stable, data };
        let body = self.nfs(Proc3::Write, &args, Epoch(epoch)).await;
        if body.len() == 4 {
            return Err(u32::from_be_bytes(body[..].try_into().unwrap()));
        }
        match whole::<WriteRes>(&body) {
            Res3::Ok(ok) => {
                assert!(ok.committed >= stable);
                Ok((ok.count, ok.verf))
            }
            Res3::Err(status, _) => Err(status.0),
        }
    }

    /// A stable write of all bytes.
    pub async fn put(&self, file: FileId, epoch: u64, offset: u64, data: &[u8]) {
        let n = self.write(file, epoch, offset, data, StableHow::FileSync).await.unwrap().0;
        assert_eq!(n as usize, data.len());
    }

    /// The verifier, or the status.
    pub async fn commit(&self, file: FileId) -> Result<Verifier, u32> {
        let fh = self.handle(file);
        let body = self.nfs(Proc3::Commit, &CommitArgs { file: &fh, offset: 0, count: 0 }, Epoch(0)).await;
        if body.len() == 4 {
            return Err(u32::from_be_bytes(body[..].try_into().unwrap()));
        }
        whole::<CommitRes>(&body).into_result().map(|ok| ok.verf).map_err(|s| s.0)
    }

    /// Calls a private procedure.
    pub async fn private<T: for<'a> Decode<'a>>(&self, proc: PeerProc, args: &impl Encode) -> T {
        let mut w = BytesMut::new();
        encode_call(&mut w, Xid(9), peer::PROGRAM, peer::VERSION, proc as u32, &OpaqueAuth::NONE);
        args.encode(&mut w);
        whole(&self.send(w).await)
    }

    fn data(res: DataRes) -> Result<Epoch, u32> {
        if res.status == NfsStat3::OK.0 { Ok(res.epoch) } else { Err(res.status) }
    }

    pub async fn truncate(&self, file: FileId, epoch: u64, size: u64) -> Result<Epoch, u32> {
        let (table, sites) = (self.sender, self.sites(file));
        let args = TruncateArgs { table, sites, file, epoch: Epoch(epoch), size };
        Self::data(self.private(PeerProc::Truncate, &args).await)
    }

    pub async fn purge(&self, file: FileId, epoch: u64) -> Result<Epoch, u32> {
        let args = PurgeArgs { table: self.sender, sites: self.sites(file), file, epoch: Epoch(epoch) };
        Self::data(self.private(PeerProc::Purge, &args).await)
    }

    /// Our sites under a reach that covers all.
    fn sites(&self, file: FileId) -> Sites {
        let table = self.follower.current();
        let mut sites: Vec<_> = (0..8u64).map(|unit| block_site(file, unit << 20)).collect();
        sites.retain(|s| table.owner(Role::Block, *s) == Some(ME));
        Sites(sites)
    }

    pub async fn stat(&self, file: FileId) -> Option<ObjectInfo> {
        let res: ObjectsRes = self.private(PeerProc::Stat, &StatArgs { table: self.sender, file }).await;
        assert_eq!(res.status, 0);
        res.objects.into_iter().next()
    }

    pub async fn list(&self, after: FileId, limit: u32) -> Vec<ObjectInfo> {
        let res: ObjectsRes = self.private(PeerProc::ListObjects, &ListArgs { after, limit }).await;
        assert_eq!(res.status, 0);
        res.objects
    }
}

/// Sends a record; `None` if the service wants the connection closed.
pub async fn send(service: &Arc<BlockStore>, record: BytesMut) -> Option<Bytes> {
    let addr = SocketAddr::from(([0, 0, 0, 0], 0));
    let peer = Peer { addr, proved: Some((Role::Proxy, ServerId(99))) };
    let mut reply = Message::default();
    let reply = match service.call(&peer, record, &mut reply) {
        Handled::Done => reply,
        Handled::Later(later) => later.await,
        Handled::Detached => panic!("we detach nothing"),
        Handled::Close => return None,
    };
    let mut all = reply.head;
    all.extend_from_slice(&reply.body);
    all.extend_from_slice(&reply.tail);
    Some(all.freeze())
}

/// Decodes an item that is all there is.
pub fn whole<'a, T: Decode<'a>>(bytes: &'a [u8]) -> T {
    let mut r = Reader::new(bytes);
    let item = T::decode(&mut r).unwrap();
    assert_eq!(r.remaining(), 0, "bytes left over");
    item
}
