//! Which nodes there are; starting and killing them.

use crate::machine::log_turns;
use crate::net::{Key, Link, Party};
use crate::witness::{Acknowledged, Witness};
use crate::world::{Host, World, world};
use rand::Rng;
use slice_blockstore::{BlockConfig, BlockStore};
use slice_coordinator::ensemble::{Ensemble as Membership, Expected, Member, Phase};
use slice_coordinator::{Coordinator, CoordinatorConfig, TAKE_OVER_AFTER};
use slice_dirserver::{DirConfig, DirServer};
use slice_proto::handle::KeyRing;
use slice_proto::ids::{EnsembleId, FileId, Role, SITES_PER_ROLE, ServerId, Site, TableEpoch, VolumeId};
use slice_proto::secret::Identity;
use slice_proto::table::{NamePolicy, Placement, RoutingTable, ServerEntry, Volume};
use slice_proxy::{Export, Exports, Proxy, ProxyConfig, Space, Squash};
use slice_rpc::tables::{Tables, TablesSender, tables};
use slice_rpc::{Directory, Me, Service, Target};
use slice_smallfile::{SmallConfig, SmallFileStore};
use slice_store::{EngineKind, Store, StoreStamp};
use slice_system::System;
use slice_system::disk::Power;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::task::LocalSet;

/// How many of each.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Directory servers.
    pub dirs: usize,
    /// µproxies.
    pub proxies: usize,
    /// Block storage nodes.
    pub blocks: usize,
}

/// An ensemble in this thread's world.
pub struct Ensemble {
    /// Where everything is.
    pub world: Rc<World>,
    /// Who serves what.
    pub table: RoutingTable,
    identity: Identity,
    tables: (TablesSender, Tables),
    dirs: RefCell<BTreeMap<usize, Arc<DirServer>>>,
    data: RefCell<BTreeMap<usize, Arc<dyn Service>>>,
    coordinators: RefCell<BTreeMap<usize, Arc<Coordinator>>>,
    acknowledged: Acknowledged,
}

/// Files that a block storage node has open at a time: few, so that objects go and come.
const OPEN_FILES: usize = 16;

fn identity() -> Identity {
    Identity { ensemble: EnsembleId(7), secret: [3; 32] }
}

const fn id(node: usize) -> ServerId {
    ServerId(node as u64 + 1)
}

impl Ensemble {
    /// Formats an ensemble. Nothing of it runs yet.
    #[must_use]
    pub fn make(seed: u64, size: Size, policy: NamePolicy) -> Rc<Self> {
        let roles = std::iter::repeat_n(Role::Dir, size.dirs)
            .chain(std::iter::repeat_n(Role::Proxy, size.proxies))
            .chain([Role::Small, Role::Coordinator])
            .chain(std::iter::repeat_n(Role::Block, size.blocks));
        let machines: Vec<_> = roles.enumerate().map(|(i, r)| (format!("{r:?} {i}"), id(i), r)).collect();
        let of = |role| {
            let all: Vec<_> = machines.iter().filter(|m| m.2 == role).map(|m| m.1).collect();
            (0..SITES_PER_ROLE).map(|site| vec![all[site % all.len()]]).collect::<Vec<_>>()
        };
        let volume = Volume {
            id: VolumeId(0),
            path: "/".to_owned(),
            root: FileId::new(Site(17), 1),
            policy,
            seed: 42,
            placement: 0,
            root_uid: 0,
            root_gid: 0,
            root_mode: 0o777,
        };
        // Nobody connects to these: they only look like addresses.
        let entry = |role| ServerEntry { role, address: "127.0.0.1:1".to_owned() };
        let servers = machines.iter().filter(|m| m.2 != Role::Proxy);
        let table = RoutingTable {
            epoch: TableEpoch(1),
            dir: of(Role::Dir),
            small: of(Role::Small),
            block: of(Role::Block),
            servers: servers.map(|m| (m.1, entry(m.2))).collect(),
            volumes: vec![volume],
            placements: vec![Placement { copies: 1 }],
            key_id: 0,
        };
        let tables = tables();
        tables.0.publish(table.clone());
        let this = Self {
            world: World::make(seed, machines),
            table,
            identity: identity(),
            tables,
            dirs: RefCell::default(),
            data: RefCell::default(),
            coordinators: RefCell::default(),
            acknowledged: Acknowledged::default(),
        };
        this.format(size);
        Rc::new(this)
    }

    /// Makes what servers' disks must hold before they are first opened.
    fn format(&self, size: Size) {
        let works = "its disk works";
        for i in self.nodes(Role::Block) {
            let config = self.block_config(i);
            self.world.prepare(i, |on| BlockStore::format_on(&*on.files, &config)).expect(works);
        }
        for i in self.nodes(Role::Small) {
            let config = self.small_config(i);
            self.world.prepare(i, |on| SmallFileStore::format_on(&*on.files, &config)).expect(works);
        }
        let member = |role| move |s: &(&ServerId, &ServerEntry)| s.1.role == role;
        let members = [Role::Dir, Role::Small, Role::Block].map(|role| {
            let of_role = self.table.servers.iter().filter(member(role));
            of_role
                .map(|(id, entry)| (*id, Member { entry: entry.clone(), adopted: true }))
                .collect::<Vec<_>>()
        });
        let membership = Membership {
            phase: Phase::Serving,
            expected: Expected { dir: size.dirs, small: 1, block: size.blocks },
            members: members.into_iter().flatten().collect(),
            table: self.table.clone(),
        };
        for i in self.nodes(Role::Coordinator) {
            let config = self.coordinator_config(i);
            let engine = self.world.nodes[i].disk.mount(None);
            let store = Store::on_engine(engine, Coordinator::stamp(&config), || ());
            let made = |on: &System| Coordinator::format_on(&store, on, &config, &membership);
            self.world.prepare(i, made).expect(works);
        }
    }

    /// The nodes of a role.
    #[must_use]
    pub fn nodes(&self, role: Role) -> Vec<usize> {
        (0..self.world.nodes.len()).filter(|i| self.world.nodes[*i].role == role).collect()
    }

    /// The root's handle.
    #[must_use]
    pub fn root(&self) -> Vec<u8> {
        self.table.volumes[0].sealed_root(&KeyRing::new(&self.identity, 0)).to_vec()
    }

    /// A directory server that is up.
    #[must_use]
    pub fn dir(&self, node: usize) -> Option<Arc<DirServer>> {
        self.dirs.borrow().get(&node).cloned()
    }

    /// A data server that is up.
    #[must_use]
    pub fn data(&self, node: usize) -> Option<Arc<dyn Service>> {
        self.data.borrow().get(&node).cloned()
    }

    /// A coordinator that is up.
    #[must_use]
    pub fn coordinator(&self, node: usize) -> Option<Arc<Coordinator>> {
        self.coordinators.borrow().get(&node).cloned()
    }

    fn directory(&self, node: usize, life: u64) -> Directory {
        let (me, role) = (self.world.nodes[node].id, self.world.nodes[node].role);
        let directory =
            Directory::new(Some(Arc::new(Me { identity: self.identity.clone(), role, server: me })));
        for (to, other) in self.world.nodes.iter().enumerate() {
            if to != node && other.role != Role::Proxy {
                let link = Arc::new(Link { key: Key { from: Party::Node(node, life), to } });
                directory.set(other.id, Target::InProcess(link as Arc<dyn Service>));
            }
        }
        directory
    }

    /// Starts what is down.
    pub fn start(self: &Rc<Self>, i: usize) {
        let node = &self.world.nodes[i];
        if node.set.borrow().is_some() {
            return;
        }
        let life = node.life.get() + 1;
        node.life.set(life);
        self.world.note(|| format!("{} starts", node.name));
        let set = LocalSet::new();
        let this = Rc::clone(self);
        set.spawn_local(async move {
            match this.world.nodes[i].role {
                Role::Dir => this.run_dir(i, life).await,
                Role::Proxy => this.run_proxy(i, life),
                Role::Coordinator => this.run_coordinator(i, life).await,
                Role::Block => this.run_block(i, life).await,
                Role::Small => this.run_small(i, life).await,
                Role::Admin => {}
            }
        });
        *node.set.borrow_mut() = Some(set);
    }

    fn serve(&self, i: usize, host: Host) {
        let node = &self.world.nodes[i];
        *node.host.borrow_mut() = Some(host);
        self.world.note(|| format!("{} serves", node.name));
    }

    /// The store of a new life.
    fn store(&self, i: usize, life: u64, stamp: StoreStamp, power: Option<Arc<Power>>) -> Store {
        let node = &self.world.nodes[i];
        // A turn of the store's committer: an fsync takes its time.
        let wanted = move || {
            let world = world();
            world.after(world.disk_takes(), move |w| {
                let node = &w.nodes[i];
                let store = node.store.borrow().clone().filter(|_| node.life.get() == life);
                if let Some(store) = store {
                    store.turn().expect("the disk works as long as its server lives");
                }
            });
        };
        let store = Store::on_engine(node.disk.mount(power), stamp, wanted);
        *node.store.borrow_mut() = Some(store.clone());
        store
    }

    async fn run_dir(&self, i: usize, life: u64) {
        let node = &self.world.nodes[i];
        let mut config = DirConfig::new("/nowhere", self.identity.clone(), node.id);
        config.cache_bytes = 16 << 20;
        let store = self.store(i, life, DirServer::stamp(&config), None);
        let (directory, clock) = (self.directory(i, life), Arc::clone(&node.clock));
        let server = DirServer::open_on(store, config, self.tables.1.clone(), directory, clock)
            .await
            .unwrap_or_else(|e| panic!("{} does not open: {e}", node.name));
        if server.stamped().is_empty() {
            let mine: Vec<Site> = self.table.owned(Role::Dir, node.id).collect();
            server.adopt(&mine, &self.table.volumes).await.expect("its store works");
        }
        self.dirs.borrow_mut().insert(i, Arc::clone(&server));
        self.serve(i, Host::Server(Arc::clone(&server) as _));
        server.run().await;
    }

    fn block_config(&self, i: usize) -> BlockConfig {
        BlockConfig {
            data: "/data".into(),
            engine: EngineKind::default(),
            identity: self.identity.clone(),
            server: self.world.nodes[i].id,
        }
    }

    async fn run_block(&self, i: usize, life: u64) {
        let node = &self.world.nodes[i];
        let config = self.block_config(i);
        let (system, power) = self.world.system(i, life);
        let store = self.store(i, life, BlockStore::stamp(&config), Some(power));
        let (tables, clock) = (self.tables.1.clone(), Arc::clone(&node.clock));
        let server = BlockStore::open_on(store, config, tables, clock, system, OPEN_FILES)
            .await
            .unwrap_or_else(|e| panic!("{} does not open: {e}", node.name));
        if server.stamped().is_empty() {
            let mine: Vec<Site> = self.table.owned(Role::Block, node.id).collect();
            server.adopt(&mine, &[]).await.expect("its store works");
        }
        self.data.borrow_mut().insert(i, Arc::clone(&server) as _);
        self.serve(i, Host::Server(Arc::clone(&server) as _));
        server.run().await;
    }

    fn small_config(&self, i: usize) -> SmallConfig {
        SmallConfig {
            data: "/data".into(),
            engine: EngineKind::default(),
            identity: self.identity.clone(),
            server: self.world.nodes[i].id,
        }
    }

    async fn run_small(&self, i: usize, life: u64) {
        let node = &self.world.nodes[i];
        let config = self.small_config(i);
        let (system, power) = self.world.system(i, life);
        let store = self.store(i, life, SmallFileStore::stamp(&config), Some(power));
        let (tables, clock) = (self.tables.1.clone(), Arc::clone(&node.clock));
        let server = SmallFileStore::open_on(store, config, tables, clock, system, log_turns(i, life))
            .await
            .unwrap_or_else(|e| panic!("{} does not open: {e}", node.name));
        let log = Arc::clone(&server);
        *node.machine.turn.borrow_mut() = Some(Rc::new(move || log.turn()));
        if server.stamped().is_empty() {
            let mine: Vec<Site> = self.table.owned(Role::Small, node.id).collect();
            server.adopt(&mine, &[]).await.expect("its store works");
        }
        self.data.borrow_mut().insert(i, Arc::clone(&server) as _);
        self.serve(i, Host::Server(Arc::clone(&server) as _));
        server.run().await;
    }

    fn coordinator_config(&self, i: usize) -> CoordinatorConfig {
        CoordinatorConfig {
            data: "/data".into(),
            engine: EngineKind::default(),
            identity: self.identity.clone(),
            server: self.world.nodes[i].id,
            address: self.table.servers[&self.world.nodes[i].id].address.clone(),
            take_over_after: TAKE_OVER_AFTER,
        }
    }

    async fn run_coordinator(&self, i: usize, life: u64) {
        let node = &self.world.nodes[i];
        let config = self.coordinator_config(i);
        let (system, power) = self.world.system(i, life);
        let store = self.store(i, life, Coordinator::stamp(&config), Some(power));
        // It publishes the table that all have already: to nobody.
        let (directory, publish, clock) = (self.directory(i, life), tables().0, Arc::clone(&node.clock));
        let wanted = log_turns(i, life);
        let coordinator = Coordinator::open_on(store, config, publish, directory, clock, system, wanted)
            .await
            .unwrap_or_else(|e| panic!("{} does not open: {e}", node.name));
        let log = Arc::clone(&coordinator);
        *node.machine.turn.borrow_mut() = Some(Rc::new(move || log.turn()));
        coordinator.carry_forward().await.expect("its log works");
        self.coordinators.borrow_mut().insert(i, Arc::clone(&coordinator));
        let acknowledged = Arc::clone(&self.acknowledged);
        let witness = Witness { coordinator: Arc::clone(&coordinator), acknowledged };
        self.serve(i, Host::Server(Arc::new(witness)));
        coordinator.run().await;
    }

    fn run_proxy(&self, i: usize, life: u64) {
        let node = &self.world.nodes[i];
        let all = Export {
            path: "*".to_owned(),
            clients: Vec::new(),
            read_only: false,
            squash: Squash::None,
            anon_uid: 1,
            anon_gid: 1,
        };
        let config = ProxyConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            portmap: None,
            identity: self.identity.clone(),
            id: node.id,
            exports: Exports(vec![all]),
            space: Arc::new(Space::default()),
        };
        let (directory, clock) = (self.directory(i, life), Arc::clone(&node.clock));
        let proxy = Proxy::new(config, self.tables.1.clone(), directory, clock).expect("there is randomness");
        self.serve(i, Host::Proxy(proxy.local_service()));
    }

    /// Kills what runs on a node, wherever it stands. What was not fsynced may be lost: its machine's power goes, for the most
    /// part, with its process.
    pub fn kill(&self, i: usize) {
        let node = &self.world.nodes[i];
        let Some(set) = node.set.take() else { return };
        node.life.set(node.life.get() + 1);
        let store = node.store.take();
        let flush = || {
            if let Some(store) = &store {
                // It fails if the power goes meanwhile.
                let _ = store.flush();
            }
        };
        let power_is_lost = self.world.draw(|rng| rng.random_ratio(3, 4));
        if node.role == Role::Dir && power_is_lost && self.world.draw(|rng| rng.random()) {
            // Killed between a write and its fsync.
            node.disk.die();
            flush();
        }
        self.world.crash(i, power_is_lost, flush);
        let kept = self.world.draw(|rng| node.disk.crash(rng, power_is_lost));
        self.world.note(|| {
            format!("{} killed, power lost {power_is_lost}, {kept} unsynced writes kept", node.name)
        });
        *node.host.borrow_mut() = None;
        node.stopped.set(false);
        self.dirs.borrow_mut().remove(&i);
        self.data.borrow_mut().remove(&i);
        self.coordinators.borrow_mut().remove(&i);
        drop(set);
        self.world.lose(i);
    }

    /// Everything is up, and all reach each other.
    pub fn heal(self: &Rc<Self>) {
        self.world.heal_net();
        for i in 0..self.world.nodes.len() {
            self.world.nodes[i].stopped.set(false);
            self.world.nodes[i].doom.take();
            self.start(i);
        }
    }
}
