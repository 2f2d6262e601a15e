//! The coordinator whole: both faces, over restarts, with data servers that only note what they are told.

use crate::client::{Client, ClientError};
use crate::ensemble::{Expected, Plan};
use crate::{Coordinator, CoordinatorConfig};
use bytes::BytesMut;
use futures_util::StreamExt;
use parking_lot::Mutex;
use slice_proto::control::pb;
use slice_proto::ids::{EnsembleId, Epoch, FileId, IntentionId, Role, ServerId, TableEpoch, Xid};
use slice_proto::peer::data::{DataRes, PurgeArgs, TruncateArgs};
use slice_proto::peer::dir::SettledRes;
use slice_proto::peer::hello::{MAX_WIRE_VERSION, MIN_WIRE_VERSION};
use slice_proto::peer::intent::{CompleteArgs, Intent, IntentKind, LogArgs, LogRes};
use slice_proto::peer::{PROGRAM, PeerProc, VERSION};
use slice_proto::rpc_msg::{CallHeader, OpaqueAuth, ReplyHeader, ReplyStatus, encode_call, encode_success};
use slice_proto::secret::Identity;
use slice_proto::table::{Placement, RoutingTable};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::clock::{Clock, SystemClock};
use slice_rpc::service::{Handled, Message, Peer, Service};
use slice_rpc::{Directory, Target};
use slice_store::EngineKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

mod aged;

const ID: ServerId = ServerId(1000);
const SERVERS: [(Role, u64); 4] = [(Role::Dir, 1), (Role::Small, 2), (Role::Block, 3), (Role::Block, 4)];

fn identity() -> Identity {
    Identity { ensemble: EnsembleId(5), secret: [6; 32] }
}

fn config(dir: &Path) -> CoordinatorConfig {
    CoordinatorConfig {
        data: dir.to_owned(),
        engine: EngineKind::Fjall,
        identity: identity(),
        server: ID,
        address: "127.0.0.1:9".into(),
        take_over_after: Duration::ZERO,
    }
}

fn format(dir: &Path) {
    let plan = Plan {
        expected: Expected { dir: 1, small: 1, block: 2 },
        volumes: vec![],
        placements: vec![Placement { copies: 1 }],
    };
    Coordinator::format(&config(dir), plan).unwrap();
}

/// Runs a test as the program runs a coordinator: on one thread, with a `LocalSet`.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// An open coordinator with its control plane on a port.
struct Stage {
    coordinator: Arc<Coordinator>,
    tables: slice_rpc::tables::Tables,
    directory: Directory,
    address: String,
    serving: tokio::task::JoinHandle<crate::Result<()>>,
}

impl Stage {
    async fn open(config: CoordinatorConfig) -> Self {
        let (tx, tables) = slice_rpc::tables::tables();
        let directory = Directory::new(None);
        let clock = Arc::new(SystemClock);
        let coordinator = Coordinator::open(config, tx, directory.clone(), clock).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = tokio::task::spawn_local(Arc::clone(&coordinator).serve_control(listener));
        Self { coordinator, tables, directory, address, serving }
    }

    fn client(&self) -> Client {
        Client::new(&self.address, identity(), Arc::new(SystemClock)).unwrap()
    }

    /// Every server registers, adopts, and sees the table.
    async fn form(&self) {
        for (role, id) in SERVERS {
            self.client().register(come(role, id, &[])).await.unwrap();
        }
        for (_, id) in SERVERS {
            let client = self.client();
            let mut events = client.watch(pb::WatchRequest { server: id }).await.unwrap();
            let Some(pb::watch_event::Event::Adopt(adopt)) = events.next().await.unwrap().unwrap().event
            else {
                panic!("server {id} is not asked to adopt");
            };
            client.adopted(pb::AdoptedRequest { server: id, sites: adopt.sites }).await.unwrap();
        }
    }

    async fn close(self) {
        self.coordinator.shutdown().await;
        self.serving.await.unwrap().unwrap();
    }
}

fn come(role: Role, id: u64, stamped: &[u32]) -> pb::RegisterRequest {
    pb::RegisterRequest {
        server: id,
        role: pb::Role::from(role).into(),
        address: format!("127.0.0.1:{id}"),
        min_wire_version: MIN_WIRE_VERSION,
        max_wire_version: MAX_WIRE_VERSION,
        fresh: stamped.is_empty(),
        stamped: stamped.to_vec(),
        pid: 7,
        filesystem: 1,
    }
}

async fn first_table(client: &Client) -> RoutingTable {
    let mut events = client.watch(pb::WatchRequest { server: 0 }).await.unwrap();
    match events.next().await.unwrap().unwrap().event {
        Some(pb::watch_event::Event::Table(table)) => table.try_into().unwrap(),
        other => panic!("not a table: {other:?}"),
    }
}

#[test]
fn an_ensemble_forms_and_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    format(dir.path());
    run(async {
        let stage = Stage::open(config(dir.path())).await;
        assert_eq!(stage.coordinator.status().phase, pb::Phase::Gathering as i32);
        stage.form().await;
        let table = first_table(&stage.client()).await;
        assert_eq!(table.epoch, TableEpoch(1));
        assert_eq!(*stage.tables.current(), table);
        stage.close().await;

        // Again, the coordinator at another address: all is there, one epoch further.
        let moved = CoordinatorConfig { address: "127.0.0.1:10".into(), ..config(dir.path()) };
        let stage = Stage::open(moved).await;
        let again = first_table(&stage.client()).await;
        assert_eq!((again.epoch, &again.block), (TableEpoch(2), &table.block));
        assert_eq!(again.servers[&ID].address, "127.0.0.1:10");

        // A server at another address: its watchers are told.
        let mut events = stage.client().watch(pb::WatchRequest { server: 0 }).await.unwrap();
        events.next().await.unwrap().unwrap();
        let stamped: Vec<u32> = again.owned(Role::Block, ServerId(3)).map(|s| u32::from(s.0)).collect();
        let r = pb::RegisterRequest { address: "127.0.0.1:33".into(), ..come(Role::Block, 3, &stamped) };
        stage.client().register(r).await.unwrap();
        let Some(pb::watch_event::Event::Table(t)) = events.next().await.unwrap().unwrap().event else {
            panic!()
        };
        assert_eq!(t.epoch, 3);

        // An emptied store is refused with a sentence (I4).
        let refused = stage.client().register(come(Role::Block, 4, &[])).await.unwrap_err();
        assert!(!refused.is_passing());
        assert!(refused.to_string().contains("its store is new and empty"), "{refused}");
        stage.close().await;
    });
}

#[test]
fn the_secret_is_asked_of_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    format(dir.path());
    run(async {
        let stage = Stage::open(config(dir.path())).await;
        let foreign = Identity { secret: [7; 32], ..identity() };
        let client = Client::new(&stage.address, foreign, Arc::new(SystemClock)).unwrap();
        let refused = client.status().await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused(why) if why.contains("--identity")), "{refused}");
        assert!(stage.client().status().await.is_ok());
        stage.close().await;
    });
}

#[test]
fn heartbeats_are_summed_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    format(dir.path());
    run(async {
        let stage = Stage::open(config(dir.path())).await;
        stage.form().await;
        let beat = |server| pb::HeartbeatRequest {
            server,
            stats: Some(pb::Stats {
                space_total: 100,
                space_free: 60,
                objects: 9,
                ops: vec![pb::OpCount { name: "LOOKUP".into(), count: 3 }],
                ..pb::Stats::default()
            }),
            table_epoch: 1,
            activity: None,
        };
        for (_, id) in SERVERS {
            assert!(stage.client().heartbeat(beat(id)).await.unwrap().known);
        }
        let unknown = stage.client().heartbeat(beat(77)).await.unwrap();
        assert!(!unknown.known);
        // All four lie on one file system.
        assert_eq!(
            (unknown.space_total, unknown.space_free, unknown.space_available, unknown.files),
            (100, 60, 60, 9)
        );
        let status = stage.client().status().await.unwrap();
        assert_eq!(status.servers.len(), 5);
        let node = status.servers.iter().find(|s| s.id == 3).unwrap();
        assert_eq!((node.sites, node.pid, node.table_epoch), (128, 7, 1));
        assert_eq!(node.stats.as_ref().unwrap().ops[0].count, 3);
        stage.close().await;
    });
}

/// A data server that notes what it is told and answers Ok.
#[derive(Default)]
struct Notes {
    purged: Mutex<Vec<(FileId, Epoch, usize)>>,
    truncated: Mutex<Vec<(FileId, u64)>>,
}

impl Service for Notes {
    fn call(&self, _: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let call = CallHeader::decode(&record).unwrap();
        let mut args = Reader::at(&record, call.args_at);
        if call.proc == PeerProc::Purge as u32 {
            let args = PurgeArgs::decode(&mut args).unwrap();
            self.purged.lock().push((args.file, args.epoch, args.sites.0.len()));
        } else {
            assert_eq!(call.proc, PeerProc::Truncate as u32);
            let args = TruncateArgs::decode(&mut args).unwrap();
            self.truncated.lock().push((args.file, args.size));
        }
        encode_success(&mut reply.head, call.xid);
        DataRes { status: 0, epoch: Epoch(0), table: TableEpoch(1) }.encode(&mut reply.head);
        Handled::Done
    }
}

async fn ask<R: for<'a> Decode<'a>>(c: &Coordinator, proc: PeerProc, args: &impl Encode) -> R {
    let mut record = BytesMut::new();
    encode_call(&mut record, Xid(1), PROGRAM, VERSION, proc as u32, &OpaqueAuth::NONE);
    args.encode(&mut record);
    let peer = Peer { addr: "127.0.0.1:1".parse().unwrap(), proved: None };
    let mut reply = Message::default();
    let reply = match c.call(&peer, record, &mut reply) {
        Handled::Done => reply,
        Handled::Later(later) => later.await,
        Handled::Close | Handled::Detached => panic!("no reply"),
    };
    let record = reply.into_record();
    let header = ReplyHeader::decode(&record).unwrap();
    assert_eq!(header.status, ReplyStatus::Success);
    R::decode(&mut Reader::at(&record, header.body_at)).unwrap()
}

fn intent(kind: IntentKind, file: u64) -> LogArgs {
    let intent =
        Intent { kind, file: FileId(file), epoch: Epoch(2), size: 100, reach: 4 << 20, owner: ServerId(1) };
    LogArgs { intent }
}

struct Nothing;

impl Encode for Nothing {
    fn encode(&self, _: &mut BytesMut) {}
}

async fn unsettled(c: &Coordinator) -> u64 {
    ask::<SettledRes>(c, PeerProc::Settled, &Nothing).await.unsettled
}

#[test]
fn intentions_are_durable_and_those_left_are_rolled_forward() {
    let dir = tempfile::tempdir().unwrap();
    format(dir.path());
    run(async {
        let stage = Stage::open(config(dir.path())).await;
        stage.form().await;
        let c = &stage.coordinator;
        let first: LogRes = ask(c, PeerProc::IntentLog, &intent(IntentKind::Remove, 7)).await;
        let same: LogRes = ask(c, PeerProc::IntentLog, &intent(IntentKind::Remove, 7)).await;
        assert_eq!(first, same);
        let second: LogRes = ask(c, PeerProc::IntentLog, &intent(IntentKind::Truncate, 8)).await;
        let third: LogRes = ask(c, PeerProc::IntentLog, &intent(IntentKind::Remove, 9)).await;
        assert_eq!((first.status, second.status, third.status), (0, 0, 0));
        let done = CompleteArgs { ids: vec![third.id, IntentionId(12345)] };
        assert_eq!(ask::<u32>(c, PeerProc::IntentComplete, &done).await, 0);
        assert_eq!(unsettled(c).await, 2);
        let moved: LogRes = ask(c, PeerProc::IntentLog, &intent(IntentKind::MoveSite, 9)).await;
        assert_ne!(moved.status, 0);
        stage.close().await;

        // The owners never come back: the next life takes both over.
        let stage = Stage::open(config(dir.path())).await;
        let c = &stage.coordinator;
        assert_eq!(unsettled(c).await, 2);
        let notes = Arc::new(Notes::default());
        for id in 2..=4 {
            stage.directory.set(ServerId(id), Target::InProcess(notes.clone()));
        }
        let running = tokio::task::spawn_local(Arc::clone(c).run());
        while unsettled(c).await > 0 {
            tokio::task::yield_now().await;
        }
        let mut purged = notes.purged.lock().clone();
        purged.sort_unstable();
        // The small-file site, and two of the four stripe units at each storage node.
        assert_eq!(purged, [(FileId(7), Epoch(2), 1), (FileId(7), Epoch(2), 2), (FileId(7), Epoch(2), 2)]);
        assert_eq!(*notes.truncated.lock(), [(FileId(8), 100); 3]);
        assert_eq!(c.stats().unsettled, 0);
        stage.close().await;
        running.await.unwrap();

        // And it is not done again.
        let stage = Stage::open(config(dir.path())).await;
        assert_eq!(unsettled(&stage.coordinator).await, 0);
        stage.close().await;
    });
}

/// A clock that stands until it is set.
#[derive(Default)]
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn young_intentions_are_left_to_their_owners() {
    let dir = tempfile::tempdir().unwrap();
    format(dir.path());
    run(async {
        let (tx, _tables) = slice_rpc::tables::tables();
        let clock = Arc::new(Hands::default());
        let aged = CoordinatorConfig { take_over_after: Duration::from_secs(30), ..config(dir.path()) };
        let c = Coordinator::open(aged, tx, Directory::new(None), clock.clone()).await.unwrap();
        let _: LogRes = ask(&c, PeerProc::IntentLog, &intent(IntentKind::Remove, 7)).await;
        assert_eq!(c.next_due_ns(), Some(30_000_000_000));
        assert_eq!(unsettled(&c).await, 1);
        c.shutdown().await;
    });
}

#[test]
fn nothing_is_formatted_twice_and_nothing_opened_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    format(dir.path());
    let plan =
        Plan { expected: Expected { dir: 1, small: 1, block: 1 }, volumes: vec![], placements: vec![] };
    assert!(matches!(Coordinator::format(&config(dir.path()), plan), Err(crate::Error::Store(_))));
    run(async {
        std::fs::remove_dir_all(dir.path().join("log")).unwrap();
        let (tx, _tables) = slice_rpc::tables::tables();
        let opened =
            Coordinator::open(config(dir.path()), tx, Directory::new(None), Arc::new(SystemClock)).await;
        assert!(matches!(opened, Err(crate::Error::LogAbsent { .. })), "{opened:?}");
    });
}
