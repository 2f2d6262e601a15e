//! An ensemble of directory servers.

use super::fake::{Door, Fake, Guarded};
use slice_dirserver::{DirConfig, DirServer, FIRST_SEQUENCE};
use slice_proto::ids::{EnsembleId, FileId, Role, SITES_PER_ROLE, ServerId, Site, TableEpoch, VolumeId};
use slice_proto::secret::Identity;
use slice_proto::table::{NamePolicy, Placement, RoutingTable, ServerEntry, Volume};
use slice_rpc::clock::SystemClock;
use slice_rpc::server::{Options, serve};
use slice_rpc::service::Service;
use slice_rpc::tables::{Tables, TablesSender, tables};
use slice_rpc::{Directory, Me, Target, Workers};
use std::sync::Arc;

pub const ME: ServerId = ServerId(9999);
const SMALL: ServerId = ServerId(900);
const BLOCK: ServerId = ServerId(901);
const COORDINATOR: ServerId = ServerId(902);

pub fn identity() -> Identity {
    Identity { ensemble: EnsembleId(7), secret: [3; 32] }
}

fn me(role: Role, server: ServerId) -> Arc<Me> {
    Arc::new(Me { identity: identity(), role, server })
}

/// A server that runs.
struct Life {
    workers: Workers,
    server: Arc<DirServer>,
}

pub struct Cluster {
    dir: tempfile::TempDir,
    pub table: RoutingTable,
    pub sender: TablesSender,
    tables: Tables,
    pub directory: Directory,
    /// As `directory`, of one who may repair.
    admin: Directory,
    directories: Vec<Directory>,
    lives: Vec<Option<Life>>,
    pub doors: Vec<Door>,
    pub fake: Arc<Fake>,
    fakes: Workers,
    data: Vec<(ServerId, std::net::SocketAddr)>,
    pub cache_bytes: u64,
}

/// What a client needs of an ensemble.
#[derive(Clone)]
pub struct View {
    pub directory: Directory,
    pub table: RoutingTable,
}

pub fn volume(policy: NamePolicy) -> Volume {
    Volume {
        id: VolumeId(0),
        path: "/".to_owned(),
        root: FileId::new(Site(17), 1),
        policy,
        seed: 42,
        placement: 0,
        root_uid: 0,
        root_gid: 0,
        root_mode: 0o777,
    }
}

/// A table in which `n` directory servers have the sites in turn.
fn table(n: usize, policy: NamePolicy) -> RoutingTable {
    let entry = |role| ServerEntry { role, address: String::new() };
    let mut servers: std::collections::BTreeMap<_, _> =
        (0..n as u64).map(|i| (ServerId(1 + i), entry(Role::Dir))).collect();
    servers.insert(SMALL, entry(Role::Small));
    servers.insert(BLOCK, entry(Role::Block));
    servers.insert(COORDINATOR, entry(Role::Coordinator));
    RoutingTable {
        epoch: TableEpoch(1),
        dir: (0..SITES_PER_ROLE).map(|i| vec![ServerId(1 + (i % n) as u64)]).collect(),
        small: vec![vec![SMALL]; SITES_PER_ROLE],
        block: vec![vec![BLOCK]; SITES_PER_ROLE],
        servers,
        volumes: vec![volume(policy)],
        placements: vec![Placement { copies: 1 }],
        key_id: 0,
    }
}

impl Cluster {
    pub async fn new(n: usize, policy: NamePolicy) -> Self {
        Self::with_cache(n, policy, 16 << 20).await
    }

    pub async fn with_cache(n: usize, policy: NamePolicy, cache_bytes: u64) -> Self {
        let table = table(n, policy);
        let (sender, tables) = tables();
        sender.publish(table.clone());
        let fake = Arc::<Fake>::default();
        let fakes = Workers::start("fake", 1).unwrap();
        let directory = Directory::new(Some(me(Role::Proxy, ME)));
        let admin = Directory::new(Some(me(Role::Admin, ME)));
        let directories: Vec<_> =
            (0..n as u64).map(|i| Directory::new(Some(me(Role::Dir, ServerId(1 + i))))).collect();
        let mut data = Vec::new();
        for (id, role) in [(SMALL, Role::Small), (BLOCK, Role::Block), (COORDINATOR, Role::Coordinator)] {
            let service: Arc<dyn Service> = Arc::clone(&fake) as _;
            let options = Options::peers(me(role, id));
            let listener = serve(&fakes, "127.0.0.1:0".parse().unwrap(), service, options).unwrap();
            data.push((id, listener.local_addr()));
        }
        let mut c = Self {
            dir: tempfile::tempdir().unwrap(),
            table,
            sender,
            tables,
            directory,
            admin,
            directories,
            lives: (0..n).map(|_| None).collect(),
            doors: vec![Door::default(); n].iter().map(|_| Door::default()).collect(),
            fake,
            fakes,
            data,
            cache_bytes,
        };
        c.show_data();
        for i in 0..n {
            DirServer::format(&c.config(i)).unwrap();
            c.start(i).await;
            let mine: Vec<_> = c.table.owned(Role::Dir, ServerId(1 + i as u64)).collect();
            let volumes = c.table.volumes.clone();
            c.server(i).adopt(&mine, &volumes).await.unwrap();
            assert!(volumes.iter().all(|v| v.root.sequence() < FIRST_SEQUENCE));
        }
        c
    }

    pub fn view(&self) -> View {
        View { directory: self.directory.clone(), table: self.table.clone() }
    }

    /// For a client that may repair.
    pub fn admin(&self) -> View {
        View { directory: self.admin.clone(), table: self.table.clone() }
    }

    /// Data servers and coordinator cannot be reached.
    pub fn hide_data(&self) {
        self.directories.iter().for_each(|d| self.data.iter().for_each(|(id, _)| d.remove(*id)));
    }

    /// They can be reached again.
    pub fn show_data(&self) {
        for d in &self.directories {
            self.data.iter().for_each(|(id, addr)| d.set(*id, Target::Socket(*addr)));
        }
    }

    fn config(&self, i: usize) -> DirConfig {
        let mut config =
            DirConfig::new(self.dir.path().join(format!("d{i}")), identity(), ServerId(1 + i as u64));
        config.cache_bytes = self.cache_bytes;
        config
    }

    pub fn server(&self, i: usize) -> &Arc<DirServer> {
        &self.lives[i].as_ref().unwrap().server
    }

    pub fn volume(&self) -> &Volume {
        &self.table.volumes[0]
    }

    /// Starts a server that is down.
    pub async fn start(&mut self, i: usize) {
        let id = ServerId(1 + i as u64);
        let workers = Workers::start("dir", 1).unwrap();
        let server = loop {
            let (config, tables, directory) =
                (self.config(i), self.tables.clone(), self.directories[i].clone());
            let open = move || DirServer::open(config, tables, directory, Arc::new(SystemClock));
            match workers.ask(0, open).await.unwrap() {
                Ok(server) => break server,
                // The last reference to the store of the life before may still be on its way out.
                Err(slice_dirserver::Error::Store(slice_store::Error::Locked { .. })) => {
                    tokio::task::yield_now().await;
                }
                Err(e) => panic!("{e}"),
            }
        };
        let run = Arc::clone(&server);
        workers.spawn_on(0, move || run.run());
        let service: Arc<dyn Service> =
            Arc::new(Guarded { door: self.doors[i].clone(), service: Arc::clone(&server) as _ });
        let options = Options::peers(me(Role::Dir, id));
        let listener = serve(&workers, "127.0.0.1:0".parse().unwrap(), service, options).unwrap();
        for d in self.directories.iter().chain([&self.directory, &self.admin]) {
            d.set(id, Target::Socket(listener.local_addr()));
        }
        self.lives[i] = Some(Life { workers, server });
    }

    /// Stops a server where it stands: no task of it runs on.
    pub async fn kill(&mut self, i: usize) {
        let Life { workers, server } = self.lives[i].take().unwrap();
        tokio::task::spawn_blocking(move || workers.stop()).await.unwrap();
        drop(server);
    }

    /// Kills and starts.
    pub async fn restart(&mut self, i: usize) {
        self.kill(i).await;
        self.start(i).await;
    }

    /// Stops a server in order.
    pub async fn stop(&mut self, i: usize) {
        self.server(i).shutdown().await;
        self.kill(i).await;
    }

    pub fn len(&self) -> usize {
        self.lives.len()
    }

    /// What is not at rest at each server that runs.
    pub fn tell(&self) -> String {
        let tell = |(i, life): (usize, &Option<Life>)| {
            format!("server {}: {}\n", i + 1, life.as_ref().map_or("down".to_owned(), |l| l.server.tell()))
        };
        self.lives.iter().enumerate().map(tell).collect()
    }

    /// Waits until nothing is owed, held or under way anywhere.
    pub async fn settle(&self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            let open: Vec<u64> = self.lives.iter().flatten().map(|l| l.server.stats().unsettled).collect();
            if open.iter().all(|n| *n == 0) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "not settled: {open:?}\n{}", self.tell());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Where a site is served.
    pub fn owner(&self, site: Site) -> ServerId {
        self.table.owner(Role::Dir, site).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for life in self.lives.drain(..).flatten() {
            life.workers.stop();
        }
        self.fakes.stop();
    }
}
