//! A server in a directory of its own, and a caller that speaks its wire.

use crate::config::{SmallConfig, Tuning};
use crate::server::SmallFileStore;
use bytes::{Bytes, BytesMut};
use slice_proto::handle::{Handle, KeyRing};
use slice_proto::ids::{
    EnsembleId, Epoch, FileId, Role, SITES_PER_ROLE, ServerId, Site, TableEpoch, VolumeId, Xid,
};
use slice_proto::nfs3::{
    CommitArgs, CommitRes, NfsStat3, Proc3, ReadArgs, ReadRes, StableHow, Verifier, WriteArgs, WriteRes,
};
use slice_proto::peer::data::{
    DataRes, ExtendArgs, ListArgs, ObjectInfo, ObjectsRes, PurgeArgs, Sites, StatArgs, TruncateArgs,
};
use slice_proto::peer::{self, PeerProc};
use slice_proto::placement::small_site;
use slice_proto::rpc_msg::{OpaqueAuth, ReplyHeader, ReplyStatus, encode_call, program, version};
use slice_proto::secret::Identity;
use slice_proto::table::{RoutingTable, ServerEntry};
use slice_proto::trailer::{CallTrailer, ResultTrailer};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::clock::Clock;
use slice_rpc::service::{Handled, Message, Peer, Service};
use slice_rpc::tables::{Tables, TablesSender, tables};
use slice_store::EngineKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub const ME: ServerId = ServerId(7);

pub const SMALL: Tuning = Tuning::SMALL;

/// Time that passes, and by how much the time of day is ahead of it.
pub struct TestClock(pub AtomicU64, pub AtomicU64);

impl Clock for TestClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst) + self.1.load(Ordering::SeqCst)
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub struct Rig {
    pub dir: Arc<tempfile::TempDir>,
    pub clock: Arc<TestClock>,
    pub tables: Tables,
    pub sender: TablesSender,
    tuning: Tuning,
    server: Option<Arc<SmallFileStore>>,
    pub table: TableEpoch,
    xid: u32,
}

pub fn identity() -> Identity {
    Identity { ensemble: EnsembleId(3), secret: [5; 32] }
}

pub fn config(dir: &Path) -> SmallConfig {
    SmallConfig { data: dir.to_owned(), engine: EngineKind::Fjall, identity: identity(), server: ME }
}

/// All sites ours, but the last.
pub fn routing(epoch: u64) -> RoutingTable {
    let mut small = vec![vec![ME]; SITES_PER_ROLE];
    small[SITES_PER_ROLE - 1] = vec![ServerId(8)];
    RoutingTable {
        epoch: TableEpoch(epoch),
        small,
        servers: [(ME, ServerEntry { role: Role::Small, address: String::new() })].into(),
        ..RoutingTable::default()
    }
}

/// The n-th file whose small-file site is ours.
pub fn file(n: u64) -> FileId {
    let all = (1..).map(|s| FileId::new(Site(3), s));
    all.filter(|f| usize::from(small_site(*f).0) < SITES_PER_ROLE - 1).nth(n as usize).unwrap()
}

pub fn handle_bytes(file: FileId) -> [u8; 48] {
    let keys = KeyRing::new(&identity(), 0);
    keys.seal(&Handle { ftype: 1, volume: VolumeId(0), policy: 0, file, snapshot: 0 })
}

impl Rig {
    pub async fn new(tuning: Tuning) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        SmallFileStore::format(&config(dir.path())).unwrap();
        let (sender, tables) = tables();
        sender.publish(routing(1));
        let clock = Arc::new(TestClock(AtomicU64::new(1_000), AtomicU64::new(0)));
        let mut rig = Self { dir, clock, tables, sender, tuning, server: None, table: TableEpoch(1), xid: 0 };
        rig.start();
        let sites: Vec<Site> = (0..SITES_PER_ROLE as u16).map(Site).collect();
        rig.server().adopt(&sites, &[]).await.unwrap();
        rig
    }

    pub fn try_open(&self) -> Result<SmallFileStore, crate::Error> {
        SmallFileStore::open_with(
            config(self.dir.path()),
            self.tables.clone(),
            self.clock.clone(),
            self.tuning,
        )
    }

    pub fn start(&mut self) {
        assert!(self.server.is_none());
        self.server = Some(Arc::new(self.try_open().unwrap()));
    }

    pub fn server(&self) -> &SmallFileStore {
        self.server.as_ref().unwrap()
    }

    /// Another caller of the same server, for another thread.
    pub fn twin(&self) -> Self {
        Self {
            dir: Arc::clone(&self.dir),
            clock: Arc::clone(&self.clock),
            tables: self.tables.clone(),
            sender: self.sender.clone(),
            tuning: self.tuning,
            server: self.server.clone(),
            table: self.table,
            xid: 0,
        }
    }

    /// As a killed process: what is in memory alone is gone.
    pub fn crash(&mut self) {
        self.server = None;
    }

    pub async fn shutdown(&mut self) {
        self.server.take().unwrap().shutdown().await;
    }

    /// Hands a record in; the reply record, as it would stand on a wire.
    pub async fn record(&self, record: BytesMut) -> Option<BytesMut> {
        let peer = Peer {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            proved: Some((Role::Proxy, ServerId(1))),
        };
        let mut reply = Message::default();
        let reply = match self.server().call(&peer, record, &mut reply) {
            Handled::Done => reply,
            Handled::Later(reply) => reply.await,
            Handled::Close | Handled::Detached => return None,
        };
        Some(reply.into_record())
    }

    pub fn nfs_record(&mut self, proc: Proc3, args: &impl Encode, epoch: Epoch) -> BytesMut {
        self.xid += 1;
        let mut w = BytesMut::new();
        encode_call(&mut w, Xid(self.xid), program::NFS, version::NFS3, proc as u32, &OpaqueAuth::NONE);
        args.encode(&mut w);
        CallTrailer { xid: Xid(1), table: self.table, epoch, ..CallTrailer::default() }.append(&mut w);
        w
    }

    /// The result of an NFS call, without header and trailer.
    async fn nfs(&mut self, proc: Proc3, args: &impl Encode, epoch: Epoch) -> Bytes {
        let record = self.nfs_record(proc, args, epoch);
        let reply = self.record(record).await.unwrap();
        let head = ReplyHeader::decode(&reply).unwrap();
        assert_eq!((head.xid, head.status), (Xid(self.xid), ReplyStatus::Success));
        let (front, trailer) = ResultTrailer::split(&reply).unwrap();
        assert_eq!((trailer.stamps().count(), trailer.table), (0, self.tables.current().epoch));
        Bytes::copy_from_slice(&front[head.body_at..])
    }

    pub async fn read(&mut self, file: FileId, offset: u64, count: u32) -> Result<(Vec<u8>, bool), u32> {
        let handle = handle_bytes(file);
        let body = self.nfs(Proc3::Read, &ReadArgs { file: &handle, offset, count }, Epoch(0)).await;
        let mut r = Reader::new(&body);
        if let Some(why) = private(&body) {
            return Err(why);
        }
        let res = ReadRes::decode(&mut r).unwrap();
        assert_eq!(r.remaining(), 0);
        let ok = res.into_result().map_err(|s| s.0)?;
        assert_eq!((ok.count as usize, ok.attr), (ok.data.len(), None));
        Ok((ok.data.to_vec(), ok.eof))
    }

    pub async fn write(
        &mut self,
        file: FileId,
        epoch: u64,
        offset: u64,
        data: &[u8],
        stable: StableHow,
    ) -> Result<(StableHow, Verifier), u32> {
        let handle = handle_bytes(file);
        let args = WriteArgs { file: &handle, offset, count: data.len() as u32, stable, data };
        let body = self.nfs(Proc3::Write, &args, Epoch(epoch)).await;
        if let Some(why) = private(&body) {
            return Err(why);
        }
        let ok = WriteRes::decode(&mut Reader::new(&body)).unwrap().into_result().map_err(|s| s.0)?;
        assert_eq!(ok.count as usize, data.len());
        assert!(ok.committed >= stable);
        Ok((ok.committed, ok.verf))
    }

    pub async fn commit(&mut self, file: FileId) -> Result<Verifier, u32> {
        let handle = handle_bytes(file);
        let body =
            self.nfs(Proc3::Commit, &CommitArgs { file: &handle, offset: 0, count: 0 }, Epoch(0)).await;
        if let Some(why) = private(&body) {
            return Err(why);
        }
        let ok = CommitRes::decode(&mut Reader::new(&body)).unwrap().into_result().map_err(|s| s.0)?;
        Ok(ok.verf)
    }

    pub async fn private(&mut self, proc: u32, args: &impl Encode) -> Bytes {
        self.xid += 1;
        let mut w = BytesMut::new();
        encode_call(&mut w, Xid(self.xid), peer::PROGRAM, peer::VERSION, proc, &OpaqueAuth::NONE);
        args.encode(&mut w);
        let reply = self.record(w).await.unwrap();
        let head = ReplyHeader::decode(&reply).unwrap();
        assert_eq!(head.status, ReplyStatus::Success);
        Bytes::copy_from_slice(&reply[head.body_at..])
    }

    async fn data(&mut self, proc: PeerProc, args: &impl Encode) -> (u32, u64) {
        let body = self.private(proc as u32, args).await;
        let res = DataRes::decode(&mut Reader::new(&body)).unwrap();
        (res.status, res.epoch.0)
    }

    pub async fn truncate(&mut self, file: FileId, epoch: u64, size: u64) -> (u32, u64) {
        let sites = Sites(vec![small_site(file)]);
        let args = TruncateArgs { table: self.table, sites, file, epoch: Epoch(epoch), size };
        self.data(PeerProc::Truncate, &args).await
    }

    pub async fn purge(&mut self, file: FileId, epoch: u64) -> (u32, u64) {
        let args = PurgeArgs { table: self.table, sites: Sites::default(), file, epoch: Epoch(epoch) };
        self.data(PeerProc::Purge, &args).await
    }

    pub async fn extend(&mut self, file: FileId, epoch: u64, size: u64, durable: bool) -> (u32, u64) {
        let args = ExtendArgs { table: self.table, file, epoch: Epoch(epoch), size, durable };
        self.data(PeerProc::Extend, &args).await
    }

    pub async fn stat(&mut self, file: FileId) -> Option<ObjectInfo> {
        let body = self.private(PeerProc::Stat as u32, &StatArgs { table: self.table, file }).await;
        let res = ObjectsRes::decode(&mut Reader::new(&body)).unwrap();
        assert_eq!(res.status, NfsStat3::OK.0);
        res.objects.into_iter().next()
    }

    pub async fn list(&mut self, after: FileId, limit: u32) -> Vec<ObjectInfo> {
        let body = self.private(PeerProc::ListObjects as u32, &ListArgs { after, limit }).await;
        let res = ObjectsRes::decode(&mut Reader::new(&body)).unwrap();
        assert_eq!(res.status, NfsStat3::OK.0);
        res.objects
    }
}

/// A private status, which has nothing behind it.
fn private(body: &[u8]) -> Option<u32> {
    let status = Reader::new(body).u32().unwrap();
    let private = peer::PrivateStatus::from_u32(status).is_some();
    assert!(!private || body.len() == 4);
    private.then_some(status)
}

/// Runs a test on a runtime like those that serve.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&rt, test)
}
