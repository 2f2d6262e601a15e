//! Ensembles in this process, each with a small store of its own: a µproxy on a socket, a directory server on another, data
//! servers that they reach by a call.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, OnceLock};

use bytes::{BufMut, BytesMut};
use parking_lot::Mutex;
use slice_blockstore::{BlockConfig, BlockStore};
use slice_dirserver::{DirConfig, DirServer};
use slice_proto::ids::{
    EnsembleId, FileId, IntentionId, Role, SITES_PER_ROLE, ServerId, Site, TableEpoch, VolumeId,
};
use slice_proto::peer::PeerProc;
use slice_proto::peer::data::{DataRes, ExtendArgs, PurgeArgs, TruncateArgs};
use slice_proto::peer::intent::LogRes;
use slice_proto::rpc_msg::{CallHeader, encode_success};
use slice_proto::secret::Identity;
use slice_proto::table::{NamePolicy, Placement, RoutingTable, ServerEntry, Volume};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_proxy::{Export, Exports, Proxy, ProxyConfig, Space, Squash};
use slice_rpc::clock::SystemClock;
use slice_rpc::service::{Handled, Message, Peer, Service};
use slice_rpc::tables::{Tables, TablesSender, tables};
use slice_rpc::{Directory, Me, Options, Target, Workers, serve};
use slice_smallfile::{SmallConfig, SmallFileStore};
use slice_store::EngineKind;

const DIR: ServerId = ServerId(10);
const SMALL: ServerId = ServerId(20);
const BLOCK: ServerId = ServerId(30);
const COORDINATOR: ServerId = ServerId(40);
const PROXY: ServerId = ServerId(50);

/// Every input is for this ensemble: kept inputs have handles that it sealed.
#[must_use]
pub fn identity() -> Identity {
    Identity { ensemble: EnsembleId(7), secret: [3; 32] }
}

/// Its only volume.
#[must_use]
pub fn volume() -> Volume {
    Volume {
        id: VolumeId(0),
        path: "/".to_owned(),
        root: FileId::new(Site(17), 1),
        policy: NamePolicy::Hash,
        seed: 42,
        placement: 0,
        root_uid: 0,
        root_gid: 0,
        root_mode: 0o777,
    }
}

/// Its table: one server of each role.
#[must_use]
pub fn table() -> RoutingTable {
    let entry = |role| ServerEntry { role, address: String::new() };
    let servers = [
        (DIR, entry(Role::Dir)),
        (SMALL, entry(Role::Small)),
        (BLOCK, entry(Role::Block)),
        (COORDINATOR, entry(Role::Coordinator)),
    ];
    RoutingTable {
        epoch: TableEpoch(1),
        dir: vec![vec![DIR]; SITES_PER_ROLE],
        small: vec![vec![SMALL]; SITES_PER_ROLE],
        block: vec![vec![BLOCK]; SITES_PER_ROLE],
        servers: servers.into(),
        volumes: vec![volume()],
        placements: vec![Placement { copies: 1 }],
        key_id: 0,
    }
}

/// A running ensemble.
pub struct World {
    /// The µproxy.
    pub proxy: SocketAddr,
    /// The directory server, behind the hello.
    pub dir: SocketAddr,
    /// The same without it: what a peer's records come to once it has proved itself.
    pub service: Arc<dyn Service>,
    workers: Workers,
    /// What must live with the servers.
    _kept: (TablesSender, tempfile::TempDir, Arc<Proxy>),
}

impl Drop for World {
    fn drop(&mut self) {
        self.workers.stop();
    }
}

/// A coordinator, or a data server, that promises everything.
struct Promises;

impl Service for Promises {
    fn call(&self, _: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let header = CallHeader::decode(&record).unwrap();
        encode_success(&mut reply.head, header.xid);
        let done = |epoch| DataRes { status: 0, epoch, table: TableEpoch(1) };
        let args = &mut Reader::at(&record, header.args_at);
        match PeerProc::from_u32(header.proc) {
            Some(PeerProc::IntentLog) => LogRes { status: 0, id: IntentionId(1) }.encode(&mut reply.head),
            Some(PeerProc::Truncate) => {
                done(TruncateArgs::decode(args).unwrap().epoch).encode(&mut reply.head);
            }
            Some(PeerProc::Purge) => done(PurgeArgs::decode(args).unwrap().epoch).encode(&mut reply.head),
            Some(PeerProc::Extend) => done(ExtendArgs::decode(args).unwrap().epoch).encode(&mut reply.head),
            _ => reply.head.put_u32(0),
        }
        Handled::Done
    }
}

/// Whether a thread has panicked since this process began to look.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Fails if a server's thread has panicked: the runtime catches that, and a peer sees no more than a closed connection.
pub fn judge() {
    assert!(!PANICKED.load(Ordering::SeqCst), "a server's thread has panicked");
}

thread_local! {
    /// Whether this thread runs targets: its panics are findings already, or a test's own.
    static ASKS: Cell<bool> = const { Cell::new(false) };
}

/// From now on panics of other threads than this one are findings.
fn look() {
    static LOOKS: Once = Once::new();
    ASKS.set(true);
    LOOKS.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !ASKS.get() {
                PANICKED.store(true, Ordering::SeqCst);
            }
            before(info);
        }));
    });
}

fn start(data_servers: bool) -> World {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(World::start(data_servers))
}

/// The ensemble of clients: it lives as long as the process.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    look();
    WORLD.get_or_init(|| start(true))
}

/// The ensemble of peers, without data servers. What a peer holds it holds for ever (DESIGN §6), so that after some thousand inputs
/// most calls wait: then another takes its place.
pub fn world_of_peers() -> Arc<World> {
    const INPUTS: u64 = 5000;
    static NOW: Mutex<(u64, Option<Arc<World>>)> = Mutex::new((0, None));
    look();
    let mut now = NOW.lock();
    now.0 += 1;
    if now.0.is_multiple_of(INPUTS) {
        now.1 = None;
    }
    Arc::clone(now.1.get_or_insert_with(|| Arc::new(start(false))))
}

impl World {
    async fn start(data_servers: bool) -> Self {
        let data = tempfile::tempdir().unwrap();
        let (sender, tables) = tables();
        sender.publish(table());
        let directory = Directory::new(Some(me(Role::Dir, DIR)));
        let workers = Workers::start("fuzzed", 1).unwrap();
        let sites: Vec<Site> = (0..SITES_PER_ROLE as u16).map(Site).collect();

        let mut dir_config = DirConfig::new(data.path().join("dir"), identity(), DIR);
        dir_config.cache_bytes = 16 << 20;
        DirServer::format(&dir_config).unwrap();
        let (tables_too, directory_too) = (tables.clone(), directory.clone());
        let open = move || DirServer::open(dir_config, tables_too, directory_too, Arc::new(SystemClock));
        let dir = workers.ask(0, open).await.unwrap().unwrap();
        dir.adopt(&sites, &[volume()]).await.unwrap();
        directory.set(DIR, Target::InProcess(Arc::clone(&dir) as _));
        for server in [SMALL, BLOCK, COORDINATOR] {
            directory.set(server, Target::InProcess(Arc::new(Promises)));
        }
        if data_servers {
            let (small, block) = open_data(data.path(), &tables, &directory).await;
            small.adopt(&sites, &[volume()]).await.unwrap();
            block.adopt(&sites, &[volume()]).await.unwrap();
            directory.set(SMALL, Target::InProcess(Arc::clone(&small) as _));
            directory.set(BLOCK, Target::InProcess(Arc::clone(&block) as _));
            workers.spawn_on(0, move || small.run());
            workers.spawn_on(0, move || block.run());
        }
        let run = Arc::clone(&dir);
        workers.spawn_on(0, move || run.run());

        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let service: Arc<dyn Service> = dir;
        let options = Options::peers(me(Role::Dir, DIR));
        let listener = serve(&workers, any, Arc::clone(&service), options).unwrap();
        let exports = Exports(vec![Export {
            path: "*".to_owned(),
            clients: Vec::new(),
            read_only: false,
            squash: Squash::None,
            anon_uid: 65_534,
            anon_gid: 65_534,
        }]);
        let config = ProxyConfig {
            listen: any,
            portmap: None,
            identity: identity(),
            id: PROXY,
            exports,
            space: Arc::new(Space { total: 1 << 40, free: 1 << 39, available: 1 << 38, files: 10 }),
        };
        let proxy = Proxy::new(config, tables, directory, Arc::new(SystemClock)).unwrap();
        let at = proxy.start(&workers).unwrap();
        Self { proxy: at, dir: listener.local_addr(), service, workers, _kept: (sender, data, proxy) }
    }
}

/// Makes and opens a small-file server and a storage node.
async fn open_data(
    data: &Path,
    tables: &Tables,
    directory: &Directory,
) -> (Arc<SmallFileStore>, Arc<BlockStore>) {
    let (engine, clock) = (EngineKind::default(), || Arc::new(SystemClock));
    let config = SmallConfig { data: data.join("small"), engine, identity: identity(), server: SMALL };
    SmallFileStore::format(&config).unwrap();
    let small = SmallFileStore::open(config, tables.clone(), directory.clone(), clock()).await.unwrap();
    let config = BlockConfig { data: data.join("block"), engine, identity: identity(), server: BLOCK };
    BlockStore::format(&config).unwrap();
    let block = BlockStore::open(config, tables.clone(), directory.clone(), clock()).await.unwrap();
    (small, block)
}

fn me(role: Role, server: ServerId) -> Arc<Me> {
    Arc::new(Me { identity: identity(), role, server })
}
