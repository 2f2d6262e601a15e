//! A whole ensemble in this process. Every server has a thread of its own, with which it dies; they meet on sockets.

use super::wire::{Guarded, Stopped, Wire, answer};
use slice::admin::check;
use slice_blockstore::{BlockConfig, BlockStore};
use slice_coordinator::client::Client as Control;
use slice_coordinator::ensemble::{Expected, Plan};
use slice_coordinator::{Coordinator, CoordinatorConfig};
use slice_dirserver::{DirConfig, DirServer};
use slice_proto::control::pb;
use slice_proto::ids::{EnsembleId, FileId, Role, ServerId, Site, VolumeId};
use slice_proto::peer::hello::{MAX_WIRE_VERSION, MIN_WIRE_VERSION};
use slice_proto::secret::Identity;
use slice_proto::table::{NamePolicy, Placement, RoutingTable, Volume};
use slice_proxy::{Export, Exports, Proxy, ProxyConfig, Space, Squash};
use slice_rpc::clock::Clock;
use slice_rpc::tables::{Tables, TablesSender, tables};
use slice_rpc::{Directory, Me, Options, Service, SystemClock, Target, Workers, serve};
use slice_smallfile::{SmallConfig, SmallFileStore};
use slice_store::EngineKind;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub const COORDINATOR: ServerId = ServerId(1);
pub const DIRS: [ServerId; 3] = [ServerId(11), ServerId(12), ServerId(13)];
pub const SMALL: ServerId = ServerId(21);
pub const BLOCKS: [ServerId; 2] = [ServerId(31), ServerId(32)];
pub const PROXY: ServerId = ServerId(41);
/// A second way in, which is started only for who asks for it.
pub const SECOND_PROXY: ServerId = ServerId(42);
const CHECKER: ServerId = ServerId(99);

/// All servers; the µproxy has no store and comes last.
const ALL: [ServerId; 8] = [COORDINATOR, DIRS[0], DIRS[1], DIRS[2], SMALL, BLOCKS[0], BLOCKS[1], PROXY];

/// How old an intention is taken over: longer than its owner takes where nobody dies (a purge gathers for 20 ms).
pub const TAKE_OVER_AFTER: Duration = Duration::from_millis(400);

/// A server that hangs fails its test here. No claim on speed.
const HANGS_AFTER: Duration = Duration::from_secs(30);
/// Between two looks at what tells nobody when it changes.
const LOOK: Duration = Duration::from_millis(2);

/// What a server is called in the table.
pub fn name(server: ServerId) -> String {
    match role(server) {
        Role::Coordinator => "coord".to_owned(),
        Role::Proxy => "µproxy".to_owned(),
        role => format!("{}{}", role.name().get(..3).unwrap(), server.0 % 10),
    }
}

pub fn role(server: ServerId) -> Role {
    match server.0 / 10 {
        0 => Role::Coordinator,
        1 => Role::Dir,
        2 => Role::Small,
        3 => Role::Block,
        4 => Role::Proxy,
        _ => Role::Admin,
    }
}

pub fn identity() -> Identity {
    Identity { ensemble: EnsembleId(7), secret: [3; 32] }
}

fn me(server: ServerId) -> Arc<Me> {
    Arc::new(Me { identity: identity(), role: role(server), server })
}

/// A server that runs.
struct Life {
    workers: Workers,
    server: Running,
}

#[derive(Clone)]
enum Running {
    Dir(Arc<DirServer>),
    Small(Arc<SmallFileStore>),
    Block(Arc<BlockStore>),
    Coordinator(Arc<Coordinator>),
    Proxy(#[allow(dead_code, reason = "it is held")] Arc<Proxy>),
}

pub struct Ensemble {
    dir: tempfile::TempDir,
    pub wire: Wire,
    pub table: RoutingTable,
    volumes: Vec<Volume>,
    sender: TablesSender,
    tables: Tables,
    directories: BTreeMap<ServerId, Directory>,
    lives: BTreeMap<ServerId, Life>,
    /// Where the µproxies are.
    fronts: BTreeMap<ServerId, watch::Sender<SocketAddr>>,
    /// Each server's machine has a clock of its own.
    pub clocks: BTreeMap<ServerId, Arc<Hands>>,
}

/// A machine's clock: by how much it is wrong.
#[derive(Default)]
pub struct Hands(pub AtomicI64);

impl Clock for Hands {
    fn now_ns(&self) -> u64 {
        SystemClock.now_ns().saturating_add_signed(self.0.load(Ordering::SeqCst))
    }

    fn monotonic_ns(&self) -> u64 {
        SystemClock.monotonic_ns()
    }
}

/// A directory for stores: in memory where there is one, because what is tested here is no disk.
fn store_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.or_else(|_| tempfile::tempdir()).unwrap()
}

fn volume(policy: NamePolicy) -> Volume {
    Volume {
        id: VolumeId(0),
        path: "/".to_owned(),
        root: FileId::new(Site(17), 1),
        policy,
        seed: 42,
        placement: 0,
        root_uid: 0,
        root_gid: 0,
        root_mode: 0o755,
    }
}

impl Running {
    fn service(&self) -> Option<Arc<dyn Service>> {
        match self {
            Self::Dir(s) => Some(Arc::clone(s) as _),
            Self::Small(s) => Some(Arc::clone(s) as _),
            Self::Block(s) => Some(Arc::clone(s) as _),
            Self::Coordinator(s) => Some(Arc::clone(s) as _),
            Self::Proxy(_) => None,
        }
    }

    fn run(&self, workers: &Workers) {
        match self.clone() {
            Self::Dir(s) => workers.spawn_on(0, move || s.run()),
            Self::Small(s) => workers.spawn_on(0, move || s.run()),
            Self::Block(s) => workers.spawn_on(0, move || s.run()),
            Self::Coordinator(s) => workers.spawn_on(0, move || s.run()),
            Self::Proxy(_) => {}
        }
    }

    async fn adopt(&self, sites: &[Site], volumes: &[Volume]) {
        match self {
            Self::Dir(s) => s.adopt(sites, volumes).await.unwrap(),
            Self::Small(s) => s.adopt(sites, volumes).await.unwrap(),
            Self::Block(s) => s.adopt(sites, volumes).await.unwrap(),
            Self::Coordinator(_) | Self::Proxy(_) => panic!("it owns no sites"),
        }
    }

    fn unsettled(&self) -> u64 {
        match self {
            Self::Dir(s) => s.stats().unsettled,
            Self::Coordinator(s) => s.stats().unsettled,
            Self::Small(_) | Self::Block(_) | Self::Proxy(_) => 0,
        }
    }
}

impl Ensemble {
    /// Formats an ensemble, and starts everything.
    pub async fn new(policy: NamePolicy) -> Self {
        let (sender, tables) = tables();
        let all = ALL.into_iter().chain([SECOND_PROXY, CHECKER]);
        let directories = all.clone().map(|id| (id, Directory::new(Some(me(id))))).collect();
        let nowhere = || watch::Sender::new(SocketAddr::from(([127, 0, 0, 1], 9)));
        let mut e = Self {
            dir: store_dir(),
            wire: Wire::default(),
            table: RoutingTable::default(),
            volumes: vec![volume(policy)],
            sender,
            tables,
            directories,
            lives: BTreeMap::new(),
            fronts: [PROXY, SECOND_PROXY].map(|id| (id, nowhere())).into(),
            clocks: all.map(|id| (id, Arc::default())).collect(),
        };
        e.form().await;
        for id in [COORDINATOR, PROXY] {
            e.start(id).await;
        }
        e
    }

    /// Formats all stores, has the coordinator deal the sites and every server stamp its own.
    async fn form(&mut self) {
        let plan = Plan {
            expected: Expected { dir: DIRS.len(), small: 1, block: BLOCKS.len() },
            volumes: self.volumes.clone(),
            placements: vec![Placement { copies: 1 }],
        };
        Coordinator::format(&self.coordinator_config(), plan).unwrap();
        let servers: Vec<_> = DIRS.into_iter().chain([SMALL]).chain(BLOCKS).collect();
        for id in &servers {
            match role(*id) {
                Role::Dir => DirServer::format(&self.dir_config(*id)).unwrap(),
                Role::Small => SmallFileStore::format(&self.small_config()).unwrap(),
                _ => BlockStore::format(&self.block_config(*id)).unwrap(),
            }
        }
        // This life of the coordinator is only for its control plane, which clients do not wait for.
        let directory = Directory::new(Some(me(COORDINATOR)));
        let opened = Coordinator::open(
            self.coordinator_config(),
            self.sender.clone(),
            directory,
            Arc::new(SystemClock),
        );
        let coordinator = opened.await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = tokio::task::spawn_local(Arc::clone(&coordinator).serve_control(listener));
        let control = Control::new(&address, identity(), Arc::new(SystemClock)).unwrap();
        for id in &servers {
            control.register(registration(*id)).await.unwrap();
        }
        for id in servers {
            let mut events = control.watch(pb::WatchRequest { server: id.0 }).await.unwrap();
            let sites = match events.message().await.unwrap().unwrap().event {
                Some(pb::watch_event::Event::Adopt(adopt)) => adopt.sites,
                other => panic!("{other:?}"),
            };
            self.start(id).await;
            let mine: Vec<_> = sites.iter().map(|s| Site(u16::try_from(*s).unwrap())).collect();
            self.lives[&id].server.adopt(&mine, &self.volumes).await;
            control.adopted(pb::AdoptedRequest { server: id.0, sites }).await.unwrap();
        }
        self.table = RoutingTable::clone(&self.tables.current());
        assert_eq!(self.table.coordinator(), Some(COORDINATOR));
        coordinator.shutdown().await;
        serving.await.unwrap().unwrap();
    }

    fn path(&self, id: ServerId) -> PathBuf {
        self.dir.path().join(name(id))
    }

    fn dir_config(&self, id: ServerId) -> DirConfig {
        let mut config = DirConfig::new(self.path(id), identity(), id);
        config.cache_bytes = 16 << 20;
        config
    }

    fn small_config(&self) -> SmallConfig {
        SmallConfig { data: self.path(SMALL), engine: EngineKind::Fjall, identity: identity(), server: SMALL }
    }

    fn block_config(&self, id: ServerId) -> BlockConfig {
        BlockConfig { data: self.path(id), engine: EngineKind::Fjall, identity: identity(), server: id }
    }

    fn coordinator_config(&self) -> CoordinatorConfig {
        CoordinatorConfig {
            data: self.path(COORDINATOR),
            engine: EngineKind::Fjall,
            identity: identity(),
            server: COORDINATOR,
            address: "127.0.0.1:9".into(),
            take_over_after: TAKE_OVER_AFTER,
        }
    }

    fn proxy_config(id: ServerId) -> ProxyConfig {
        ProxyConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            portmap: None,
            identity: identity(),
            id,
            exports: Exports(vec![Export { squash: Squash::None, ..Export::default() }]),
            space: Arc::new(Space::default()),
        }
    }

    /// Opens a server on a thread of its own. `None` if its store is still locked.
    async fn open(&self, id: ServerId, workers: &Workers) -> Option<Running> {
        let (tables, directory, clock) =
            (self.tables.clone(), self.directories[&id].clone(), Arc::clone(&self.clocks[&id]));
        // One place where all four say the same thing.
        macro_rules! opened {
            ($make:expr, $error:path, $kind:path) => {
                match workers.ask(0, move || $make).await.unwrap() {
                    Ok(server) => Some($kind(server)),
                    Err($error(slice_store::Error::Locked { .. })) => None,
                    Err(e) => panic!("{}: {e}", name(id)),
                }
            };
        }
        match role(id) {
            Role::Dir => {
                let config = self.dir_config(id);
                opened!(
                    DirServer::open(config, tables, directory, clock),
                    slice_dirserver::Error::Store,
                    Running::Dir
                )
            }
            Role::Small => {
                let config = self.small_config();
                let open = move || SmallFileStore::open(config, tables, directory, clock);
                opened!(open(), slice_smallfile::Error::Store, Running::Small)
            }
            Role::Block => {
                let config = self.block_config(id);
                let open = move || BlockStore::open(config, tables, directory, clock);
                opened!(open(), slice_blockstore::Error::Store, Running::Block)
            }
            Role::Coordinator => {
                let (config, sender) = (self.coordinator_config(), self.sender.clone());
                let open = move || Coordinator::open(config, sender, directory, clock);
                opened!(open(), slice_coordinator::Error::Store, Running::Coordinator)
            }
            Role::Proxy | Role::Admin => {
                Some(Running::Proxy(Proxy::new(Self::proxy_config(id), tables, directory, clock).unwrap()))
            }
        }
    }

    /// Starts a server that is down.
    pub async fn start(&mut self, id: ServerId) {
        assert!(!self.lives.contains_key(&id), "{} runs", name(id));
        let workers = Workers::start(&name(id), 1).unwrap();
        let server = loop {
            match self.open(id, &workers).await {
                Some(server) => break server,
                // The last reference to the store of the life before is still on its way out.
                None => tokio::time::sleep(LOOK).await,
            }
        };
        if let Running::Proxy(proxy) = &server {
            self.fronts[&id].send_replace(proxy.start(&workers).unwrap());
        }
        server.run(&workers);
        if let Some(service) = server.service() {
            let service = Arc::new(Guarded { id, wire: self.wire.clone(), service });
            let listen = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = serve(&workers, listen, service, Options::peers(me(id))).unwrap();
            for directory in self.directories.values() {
                directory.set(id, Target::Socket(listener.local_addr()));
            }
        }
        self.lives.insert(id, Life { workers, server });
    }

    /// Kills a server where it stands: no task of it runs on, and what it had not been asked to make durable is lost.
    pub async fn kill(&mut self, id: ServerId) {
        let Life { workers, server } = self.lives.remove(&id).unwrap();
        let path = self.path(id);
        let die = move || {
            workers.stop();
            // Nobody is told anything any more. A store that is closed writes what is pending, which a process that is
            // killed does not: what counts is what lies there now.
            let forgets = matches!(server, Running::Dir(_) | Running::Coordinator(_));
            let kept = path.with_extension("kept");
            if forgets {
                copy(&path, &kept);
            }
            drop(server);
            if forgets {
                std::fs::remove_dir_all(&path).unwrap();
                std::fs::rename(&kept, &path).unwrap();
            }
        };
        tokio::task::spawn_blocking(die).await.unwrap();
    }

    /// Kills and starts.
    pub async fn restart(&mut self, id: ServerId) {
        self.kill(id).await;
        self.start(id).await;
    }

    /// Where the µproxy is, and will be.
    pub fn front(&self) -> watch::Receiver<SocketAddr> {
        self.front_of(PROXY)
    }

    /// The same of one of the two.
    pub fn front_of(&self, proxy: ServerId) -> watch::Receiver<SocketAddr> {
        self.fronts[&proxy].subscribe()
    }

    /// Hands a message that was stopped, and whose sender is dead, to its receiver.
    pub async fn deliver(&self, to: ServerId, stopped: Stopped) {
        let Life { workers, server } = &self.lives[&to];
        let Some(service) = server.service() else { return };
        let Stopped { peer, record, .. } = stopped;
        let (begun, begins) = tokio::sync::oneshot::channel();
        workers.spawn_on(0, move || async move {
            let answered = answer(&*service, &peer, record);
            let _ = begun.send(());
            // Nobody hears it.
            answered.await;
        });
        begins.await.unwrap();
    }

    /// Waits until the coordinator has no intention open.
    pub async fn no_intentions(&self) {
        self.until(|e| e.lives[&COORDINATOR].server.unsettled() == 0).await;
    }

    /// How many intentions this life of the coordinator has taken over.
    pub fn taken_over(&self) -> u64 {
        let Running::Coordinator(c) = &self.lives[&COORDINATOR].server else { panic!("not the coordinator") };
        let ops = c.stats().ops;
        ops.iter().find(|(name, _)| name == "taken over").unwrap().1
    }

    /// Waits until nothing is owed, held, intended or under way anywhere.
    pub async fn settle(&self) {
        // Twice: what one has handed to another may be seen at neither in one look.
        for _ in 0..2 {
            self.until(|e| e.lives.values().all(|l| l.server.unsettled() == 0)).await;
        }
    }

    async fn until(&self, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + HANGS_AFTER;
        while !done(self) {
            assert!(Instant::now() < deadline, "it does not settle:\n{}", self.tell());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What is not at rest.
    pub fn tell(&self) -> String {
        let tell = |(id, life): (&ServerId, &Life)| match &life.server {
            Running::Dir(d) => format!("{}: {}\n", name(*id), d.tell()),
            other => format!("{}: {} unsettled\n", name(*id), other.unsettled()),
        };
        self.lives.iter().map(tell).collect()
    }

    /// A directory of servers for who asks them privately.
    pub fn checker(&self) -> &Directory {
        &self.directories[&CHECKER]
    }

    /// Has `slice admin check` look at everything.
    pub async fn check(&self) {
        let options = check::Options {
            passes: 1,
            answer: HANGS_AFTER,
            settle: HANGS_AFTER,
            ..check::Options::default()
        };
        let report = check::run(self.checker(), &self.table, &options).await.unwrap();
        assert!(report.clean(), "{:#?}\n{}", report.problems, self.tell());
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        for life in std::mem::take(&mut self.lives).into_values() {
            life.workers.stop();
        }
    }
}

fn registration(id: ServerId) -> pb::RegisterRequest {
    pb::RegisterRequest {
        server: id.0,
        role: pb::Role::from(role(id)).into(),
        // Who is where is told by the directories.
        address: format!("127.0.0.1:{}", id.0),
        min_wire_version: MIN_WIRE_VERSION,
        max_wire_version: MAX_WIRE_VERSION,
        fresh: true,
        stamped: Vec::new(),
        pid: 1,
        filesystem: 1,
    }
}

/// Copies a directory as it stands.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            copy_file(&entry.path(), &to);
        }
    }
}

/// Copies a file, but for the zeros with which it is preallocated.
fn copy_file(from: &Path, to: &Path) {
    const BLOCK: usize = 64 << 10;
    let bytes = std::fs::read(from).unwrap();
    let file = std::fs::File::create(to).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    let zeros = [0; BLOCK];
    for (nth, block) in bytes.chunks(BLOCK).enumerate().filter(|(_, b)| !zeros.starts_with(b)) {
        file.write_all_at(block, (nth * BLOCK) as u64).unwrap();
    }
}
