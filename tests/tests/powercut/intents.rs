//! The coordinator: intentions of several owners, and what becomes of those that nobody completes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slice_coordinator::client::Client;
use slice_coordinator::ensemble::{Expected, Plan};
use slice_coordinator::{Coordinator, CoordinatorConfig};
use slice_proto::control::pb;
use slice_proto::ids::{Epoch, FileId, IntentionId, Role as Place, ServerId, TableEpoch};
use slice_proto::peer::PeerProc;
use slice_proto::peer::data::{DataRes, PurgeArgs, TruncateArgs};
use slice_proto::peer::dir::SettledRes;
use slice_proto::peer::hello::{MAX_WIRE_VERSION, MIN_WIRE_VERSION};
use slice_proto::peer::intent::{CompleteArgs, Intent, IntentKind, LogArgs, LogRes};
use slice_proto::rpc_msg::{CallHeader, encode_success};
use slice_proto::table::Placement;
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::clock::SystemClock;
use slice_rpc::service::{Handled, Message, Peer, Service};
use slice_rpc::tables::tables;
use slice_rpc::{Directory, Target};
use slice_store::EngineKind;
use tokio::net::TcpListener;

use super::round::{Dark, Life, Role};
use super::wire::{self, COORDINATOR};

const SERVERS: [(Place, u64); 4] = [(Place::Dir, 1), (Place::Small, 2), (Place::Block, 3), (Place::Block, 4)];

/// Those that a roll forward visits: the reach covers stripe units at both storage nodes.
const DATA: [u64; 3] = [2, 3, 4];

const OWNERS: u64 = 8;

/// Open intentions of an owner, from which on it completes some.
const MANY: usize = 12;

/// A file's intention: (file, truncate).
type Key = (u64, bool);

fn intent((file, truncate): Key) -> Intent {
    Intent {
        kind: if truncate { IntentKind::Truncate } else { IntentKind::Remove },
        file: FileId(file),
        epoch: Epoch(2),
        size: 100,
        reach: 4 << 20,
        owner: ServerId(1),
    }
}

/// Who logs intentions.
struct Owner {
    number: u64,
    next: u64,
    /// Acknowledged, and not completed.
    open: BTreeMap<Key, IntentionId>,
    /// Sent, and not answered.
    doubt: Option<Key>,
    /// Completed: the coordinator may forget it, but need not yet.
    completed: BTreeSet<Key>,
    acknowledged: u64,
    rng: StdRng,
}

/// A data server that notes what it is told.
#[derive(Default)]
struct Notes(Mutex<BTreeSet<Key>>);

impl Service for Notes {
    fn call(&self, _: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let call = CallHeader::decode(&record).unwrap();
        let mut args = Reader::at(&record, call.args_at);
        let key = if call.proc == PeerProc::Purge as u32 {
            (PurgeArgs::decode(&mut args).unwrap().file.0, false)
        } else {
            assert_eq!(call.proc, PeerProc::Truncate as u32);
            let args = TruncateArgs::decode(&mut args).unwrap();
            assert_eq!(args.size, 100);
            (args.file.0, true)
        };
        self.0.lock().insert(key);
        encode_success(&mut reply.head, call.xid);
        DataRes { status: 0, epoch: Epoch(2), table: TableEpoch(1) }.encode(&mut reply.head);
        Handled::Done
    }
}

async fn log(c: &Coordinator, life: &Life, key: Key) -> Result<IntentionId, Dark> {
    let args = LogArgs { intent: intent(key) };
    let res = life.lit(wire::private::<LogRes>(c, PeerProc::IntentLog as u32, &args)).await?;
    let res = life.good("INTENT_LOG", res.ok_or("closed"))?;
    life.good("INTENT_LOG", if res.status == 0 { Ok(res.id) } else { Err(res.status) })
}

impl Owner {
    async fn step(&mut self, c: &Coordinator, life: &Life) -> Result<(), Dark> {
        if self.open.len() >= MANY {
            let some: Vec<Key> = self.open.keys().copied().filter(|_| self.rng.random()).collect();
            let ids = some.iter().map(|key| self.open[key]).collect();
            for key in some {
                self.open.remove(&key);
                self.completed.insert(key);
            }
            let args = CompleteArgs { ids };
            let status = life.lit(wire::private::<u32>(c, PeerProc::IntentComplete as u32, &args)).await?;
            life.good("INTENT_COMPLETE", if status == Some(0) { Ok(()) } else { Err(status) })?;
        }
        self.next += 1;
        let key = (self.number << 32 | self.next, self.rng.random());
        self.doubt = Some(key);
        let id = log(c, life, key).await?;
        self.doubt = None;
        self.open.insert(key, id);
        self.acknowledged += 1;
        Ok(())
    }

    /// What is logged is known: logging it again gives the same number.
    async fn judge(&mut self, c: &Coordinator, life: &Life) -> Result<(), Dark> {
        for (key, id) in &self.open {
            assert_eq!(log(c, life, *key).await?, *id, "intention {key:?} is forgotten");
        }
        if let Some(key) = self.doubt {
            let id = log(c, life, key).await?;
            self.doubt = None;
            self.open.insert(key, id);
        }
        Ok(())
    }
}

/// The coordinator and the owners of intentions.
pub struct Intents {
    owners: Vec<Owner>,
    /// Lives so far: in each it is at another address, which raises the table's epoch.
    lives: u16,
    epoch: TableEpoch,
    /// What the data servers were told, since it was last looked at.
    notes: [Arc<Notes>; 3],
    rng: StdRng,
}

fn config(data: &Path, lives: u16) -> CoordinatorConfig {
    CoordinatorConfig {
        data: data.to_owned(),
        engine: EngineKind::Fjall,
        identity: wire::identity(),
        server: COORDINATOR,
        address: format!("127.0.0.1:{}", 10 + lives),
        take_over_after: Duration::ZERO,
    }
}

impl Intents {
    /// Those that a take-over told every data server of, before the power went: they are done, known or forgotten.
    fn done(&mut self) {
        let everywhere = |key: &Key| self.notes.iter().all(|notes| notes.0.lock().contains(key));
        for owner in &mut self.owners {
            let done: Vec<Key> = owner.open.keys().copied().filter(everywhere).collect();
            for key in done {
                owner.open.remove(&key);
                owner.completed.insert(key);
            }
        }
    }

    /// Everything open is rolled forward, at every site, and nothing that nobody logged.
    async fn taken_over(
        &mut self,
        c: &Arc<Coordinator>,
        directory: &Directory,
        life: &Life,
    ) -> Result<(), Dark> {
        for (id, notes) in DATA.into_iter().zip(&self.notes) {
            directory.set(ServerId(id), Target::InProcess(Arc::clone(notes) as _));
        }
        tokio::task::spawn_local(Arc::clone(c).run());
        loop {
            let settled = wire::private::<SettledRes>(&**c, PeerProc::Settled as u32, &());
            match life.lit(settled).await?.map(|res| res.unsettled) {
                Some(0) => break,
                _ => life.lit(tokio::task::yield_now()).await?,
            }
        }
        for notes in &self.notes {
            let mut noted = std::mem::take(&mut *notes.0.lock());
            for owner in &self.owners {
                for key in owner.open.keys() {
                    assert!(noted.remove(key), "{key:?} was logged, and is not rolled forward everywhere");
                }
                noted.retain(|key| !owner.completed.contains(key));
            }
            assert!(noted.is_empty(), "rolled forward, and logged by nobody: {noted:?}");
        }
        for owner in &mut self.owners {
            owner.completed.extend(std::mem::take(&mut owner.open).into_keys());
        }
        Ok(())
    }
}

/// Every server registers, adopts, and sees the table.
async fn form(c: &Arc<Coordinator>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::task::spawn_local(Arc::clone(c).serve_control(listener));
    let client = Client::new(&address, wire::identity(), Arc::new(SystemClock)).unwrap();
    for (role, server) in SERVERS {
        let come = pb::RegisterRequest {
            server,
            role: pb::Role::from(role).into(),
            address: format!("127.0.0.1:{server}"),
            min_wire_version: MIN_WIRE_VERSION,
            max_wire_version: MAX_WIRE_VERSION,
            fresh: true,
            stamped: Vec::new(),
            pid: 7,
            filesystem: 1,
        };
        client.register(come).await.unwrap();
    }
    for (_, server) in SERVERS {
        let mut events = client.watch(pb::WatchRequest { server }).await.unwrap();
        let Some(pb::watch_event::Event::Adopt(adopt)) = events.next().await.unwrap().unwrap().event else {
            panic!("server {server} is not asked to adopt");
        };
        client.adopted(pb::AdoptedRequest { server, sites: adopt.sites }).await.unwrap();
    }
    serving.abort();
}

impl Role for Intents {
    const NAME: &'static str = "coordinator";
    const CHANGES: u64 = 250;

    fn new(mut rng: StdRng) -> Self {
        let owner = |number| Owner {
            number,
            next: 0,
            open: BTreeMap::new(),
            doubt: None,
            completed: BTreeSet::new(),
            acknowledged: 0,
            rng: StdRng::seed_from_u64(rng.random()),
        };
        let owners = (1..=OWNERS).map(owner).collect();
        Self { owners, lives: 0, epoch: TableEpoch(0), notes: Default::default(), rng }
    }

    fn format(data: &Path) -> Result<(), String> {
        let plan = Plan {
            expected: Expected { dir: 1, small: 1, block: 2 },
            volumes: vec![],
            placements: vec![Placement { copies: 1 }],
        };
        wire::make_once(data, || {
            Coordinator::format(&config(data, 0), plan).map_err(|error| error.to_string())
        })
    }

    async fn make(&mut self, data: &Path) {
        let (sender, follower) = tables();
        let directory = Directory::new(None);
        let c = Coordinator::open(config(data, 0), sender, directory, Arc::new(SystemClock)).await.unwrap();
        form(&c).await;
        self.epoch = follower.current().epoch;
        assert!(self.epoch > TableEpoch(0), "no table");
    }

    async fn live(&mut self, life: &Life) -> Result<(), Dark> {
        self.lives += 1;
        let (sender, follower) = tables();
        let directory = Directory::new(None);
        let opened = Coordinator::open(
            config(life.data(), self.lives),
            sender,
            directory.clone(),
            Arc::new(SystemClock),
        )
        .await;
        let c = life.good("it does not open", opened.map_err(|error| error.to_string()))?;
        let epoch = follower.current().epoch;
        assert!(epoch > self.epoch, "at another address, and epoch {epoch:?} after {:?}", self.epoch);
        self.epoch = epoch;
        self.done();
        for owner in &mut self.owners {
            owner.judge(&c, life).await?;
        }
        // In the others nobody completes for those that are gone: intentions grow old through several cuts.
        if life.last || self.rng.random_ratio(1, 4) {
            self.taken_over(&c, &directory, life).await?;
        }
        if life.last {
            c.shutdown().await;
            return Ok(());
        }
        life.load();
        try_join_all(self.owners.iter_mut().map(|owner| async {
            loop {
                owner.step(&c, life).await?;
            }
        }))
        .await
        .map(|_: Vec<()>| ())
    }

    fn acknowledged(&self) -> u64 {
        self.owners.iter().map(|owner| owner.acknowledged).sum()
    }
}
