//! What calls cost a directory server, without sockets: `cargo run --release -p slice-dirserver --example measure`.
//!
//! Reads are called one after the other on one thread; CREATE and REMOVE with 64 in flight. CPU is the process's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use slice_dirserver::{DirConfig, DirServer};
use slice_proto::handle::KeyRing;
use slice_proto::ids::{EnsembleId, FileId, Role, SITES_PER_ROLE, ServerId, Site, TableEpoch, VolumeId, Xid};
use slice_proto::nfs3::types::DirOp;
use slice_proto::nfs3::{
    CookieVerf, CreateArgs, CreateHow, GetattrArgs, LookupArgs, Proc3, ReaddirplusArgs, RemoveArgs, Sattr3,
};
use slice_proto::rpc_msg::{AuthSys, encode_call, program, version};
use slice_proto::secret::Identity;
use slice_proto::table::{NamePolicy, RoutingTable, ServerEntry, Volume};
use slice_proto::trailer::{CallTrailer, ClientId};
use slice_proto::xdr::{Encode, Reader};
use slice_rpc::clock::SystemClock;
use slice_rpc::service::{Handled, Message, Peer, Service};
use slice_rpc::tables::tables;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ME: ServerId = ServerId(1);
const FILES: usize = 10_000;

fn table() -> RoutingTable {
    let volume = Volume {
        id: VolumeId(0),
        path: "/".to_owned(),
        root: FileId::new(Site(0), 1),
        policy: NamePolicy::Partition,
        seed: 42,
        placement: 0,
        root_uid: 0,
        root_gid: 0,
        root_mode: 0o777,
    };
    RoutingTable {
        epoch: TableEpoch(1),
        dir: vec![vec![ME]; SITES_PER_ROLE],
        servers: [(ME, ServerEntry { role: Role::Dir, address: String::new() })].into(),
        volumes: vec![volume],
        ..RoutingTable::default()
    }
}

struct Bench {
    server: Arc<DirServer>,
    peer: Peer,
    xid: u32,
}

impl Bench {
    fn record(&mut self, proc: Proc3, args: &impl Encode) -> BytesMut {
        self.xid += 1;
        let mut w = BytesMut::with_capacity(256);
        encode_call(&mut w, Xid(self.xid), program::NFS, version::NFS3, proc as u32, &AuthSys::default());
        args.encode(&mut w);
        let trailer = CallTrailer {
            client: ClientId([7; 16]),
            xid: Xid(self.xid),
            table: TableEpoch(1),
            ..CallTrailer::default()
        };
        trailer.append(&mut w);
        w
    }

    fn status(reply: &[u8]) -> u32 {
        Reader::at(reply, 24).u32().unwrap()
    }

    /// Calls that are answered on the spot.
    fn reads(&mut self, what: &str, n: usize, mut make: impl FnMut(&mut Self, usize) -> BytesMut) {
        let records: Vec<BytesMut> = (0..n).map(|i| make(self, i)).collect();
        let mut reply = Message::default();
        let (cpu, wall) = (cpu(), Instant::now());
        for record in records {
            reply.head.clear();
            assert!(matches!(self.server.call(&self.peer, record, &mut reply), Handled::Done));
            assert_eq!(Self::status(&reply.head), 0);
        }
        report(what, n, cpu, wall);
    }

    /// Calls that wait for durability, `flight` at a time.
    async fn writes(
        &mut self,
        what: &str,
        n: usize,
        flight: usize,
        mut make: impl FnMut(&mut Self, usize) -> BytesMut,
    ) {
        let mut records: Vec<BytesMut> = (0..n).map(|i| make(self, i)).collect();
        let (cpu, wall) = (cpu(), Instant::now());
        let mut pending = FuturesUnordered::new();
        while !records.is_empty() || !pending.is_empty() {
            while pending.len() < flight
                && let Some(record) = records.pop()
            {
                let mut reply = Message::default();
                match self.server.call(&self.peer, record, &mut reply) {
                    Handled::Later(later) => pending.push(later),
                    Handled::Done => assert_eq!(Self::status(&reply.head), 0),
                    _ => panic!(),
                }
            }
            if let Some(reply) = pending.next().await {
                assert_eq!(Self::status(&reply.head), 0);
            }
        }
        report(what, n, cpu, wall);
    }
}

/// CPU time of the process so far: user and system.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // In hundredths of a second.
    Duration::from_millis(10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()))
}

fn report(what: &str, n: usize, cpu_before: Duration, since: Instant) {
    let (wall, used) = (since.elapsed(), cpu() - cpu_before);
    println!(
        "{what:<28} {:>9.0}/s   {:>7.2} µs wall   {:>7.2} µs CPU",
        n as f64 / wall.as_secs_f64(),
        wall.as_secs_f64() * 1e6 / n as f64,
        used.as_secs_f64() * 1e6 / n as f64,
    );
}

async fn measure() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity { ensemble: EnsembleId(7), secret: [3; 32] };
    let config = DirConfig::new(dir.path(), identity.clone(), ME);
    DirServer::format(&config).unwrap();
    let (sender, follower) = tables();
    sender.publish(table());
    let directory = slice_rpc::Directory::new(None);
    let server = DirServer::open(config, follower, directory, Arc::new(SystemClock)).await.unwrap();
    let table = table();
    let sites: Vec<Site> = table.owned(Role::Dir, ME).collect();
    server.adopt(&sites, &table.volumes).await.unwrap();
    let peer = Peer { addr: "127.0.0.1:1".parse().unwrap(), proved: None };
    let mut b = Bench { server, peer, xid: 0 };
    let root = table.volumes[0].sealed_root(&KeyRing::new(&identity, 0));
    let names: Vec<Vec<u8>> = (0..FILES).map(|i| format!("some-file-name-{i}.c").into_bytes()).collect();
    let how = CreateHow::Guarded(Sattr3 { mode: Some(0o644), ..Sattr3::default() });
    let create = |b: &mut Bench, name: &[u8]| {
        b.record(Proc3::Create, &CreateArgs { at: DirOp { dir: &root, name }, how })
    };
    b.writes("CREATE, 64 in flight", FILES, 64, |b, i| create(b, &names[i])).await;
    b.writes("CREATE, alone", 500, 1, |b, i| create(b, format!("lone{i}").as_bytes())).await;
    let lookup = |b: &mut Bench, name: &[u8]| {
        b.record(Proc3::Lookup, &LookupArgs { what: DirOp { dir: &root, name } })
    };
    for _ in 0..2 {
        b.reads("LOOKUP", 200_000, |b, i| lookup(b, &names[i * 7 % FILES]));
        b.reads("GETATTR", 200_000, |b, _| b.record(Proc3::Getattr, &GetattrArgs { object: &root }));
    }
    let page = |b: &mut Bench, cookie: u64| {
        let args = ReaddirplusArgs {
            dir: &root,
            cookie,
            verf: CookieVerf::default(),
            dircount: 8 << 10,
            maxcount: 32 << 10,
        };
        b.record(Proc3::Readdirplus, &args)
    };
    b.reads("READDIRPLUS, 32 KiB", 2000, |b, i| page(b, (i as u64 * 31) << 51));
    b.writes("REMOVE, 64 in flight", FILES, 64, |b, i| {
        b.record(Proc3::Remove, &RemoveArgs { object: DirOp { dir: &root, name: &names[i] } })
    })
    .await;
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, measure());
}
