//! One directory server called without a µproxy before it, beside the same calls through one: what the µproxy adds to the
//! latency of a lone GETATTR, how long a durable CREATE takes, how many a second there are, and what a million files
//! cost in memory. `benches/direct.sh` starts the servers and runs it.
//!
//! ```text
//! direct latency IDENTITY DIRSERVER PROXY [ROUNDS]      GETATTR alone, in turn directly and through the µproxy
//! direct create  IDENTITY DIRSERVER PROXY [CALLS]       CREATE alone, then 64 in flight, directly
//! direct files   IDENTITY DIRSERVER PROXY FILES PID     makes files, 1000 a directory; resident memory of PID
//! ```
//! IDENTITY is the ensemble's identity file, the others are addresses. There must be no other directory server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a measuring program

use bytes::BytesMut;
use slice_proto::control::auth::unhex;
use slice_proto::ids::{EnsembleId, Role, ServerId, TableEpoch, Xid};
use slice_proto::mount::{DirPath, MountProc};
use slice_proto::nfs3::*;
use slice_proto::rpc_msg::{
    AuthSys, Cred, OpaqueAuth, ReplyHeader, ReplyStatus, encode_call, program, version,
};
use slice_proto::secret::Identity;
use slice_proto::trailer::{CallTrailer, ClientId, ResultTrailer};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::hello::Me;
use slice_rpc::{Channel, Message, Target};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

/// Lone GETATTRs of one round, each way.
const LONE: usize = 5000;
/// Calls in flight where many are.
const MANY: usize = 64;
/// Files in one directory.
const FILES_PER_DIR: usize = 1000;

/// Calls one server.
struct Caller {
    channel: Channel,
    /// Whether calls have a trailer behind them, and replies: the directory server's do.
    trailers: bool,
    client: ClientId,
    xid: Cell<u32>,
}

impl Caller {
    fn new(addr: SocketAddr, me: Option<Arc<Me>>) -> Rc<Self> {
        let trailers = me.is_some();
        let channel = Channel::open(ServerId(0), Target::Socket(addr), me, None);
        // A client of its own each time: a number used again would be a retransmission.
        let mut client = ClientId([0; 16]);
        client.0[..4].copy_from_slice(&std::process::id().to_be_bytes());
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        client.0[8..].copy_from_slice(&(now as u64).to_be_bytes());
        Rc::new(Self { channel, trailers, client, xid: Cell::new(1) })
    }

    /// The result of a call, behind the reply's header.
    async fn call(&self, prog: u32, proc: u32, args: &impl Encode) -> Vec<u8> {
        let xid = Xid(self.xid.get());
        self.xid.set(xid.0 + 1);
        let mut w = BytesMut::new();
        if prog == program::NFS {
            let auth = AuthSys { stamp: 0, machine: b"direct", cred: Cred::ROOT };
            encode_call(&mut w, xid, prog, version::NFS3, proc, &auth);
        } else {
            encode_call(&mut w, xid, prog, 3, proc, &OpaqueAuth::NONE);
        }
        args.encode(&mut w);
        if self.trailers {
            // An ensemble's first table: a server that has none yet waits for it, one that has a newer one goes by that.
            let trailer =
                CallTrailer { client: self.client, xid, table: TableEpoch(1), ..CallTrailer::default() };
            trailer.append(&mut w);
        }
        let reply = self.channel.call(Message::from(w)).await.unwrap();
        let header = ReplyHeader::decode(&reply).unwrap();
        assert_eq!(header.status, ReplyStatus::Success);
        let front = if self.trailers { ResultTrailer::split(&reply).unwrap().0 } else { &reply[..] };
        front[header.body_at..].to_vec()
    }

    async fn mount(&self) -> Vec<u8> {
        let result = self.call(program::MOUNT, MountProc::Mnt as u32, &DirPath(b"/")).await;
        let mut r = Reader::new(&result);
        assert_eq!(r.u32().unwrap(), 0, "MNT of /");
        r.opaque(64).unwrap().to_vec()
    }

    async fn getattr(&self, object: &[u8]) {
        let result = self.call(program::NFS, Proc3::Getattr as u32, &GetattrArgs { object }).await;
        assert_eq!(result[..4], [0; 4]);
    }

    async fn made(&self, proc: Proc3, args: &impl Encode) -> Vec<u8> {
        let result = self.call(program::NFS, proc as u32, args).await;
        let res = Res3::<CreateOk<'_>, WccData>::decode(&mut Reader::new(&result)).unwrap();
        res.into_result().unwrap().object.unwrap().to_vec()
    }

    async fn mkdir(&self, dir: &[u8], name: &str) -> Vec<u8> {
        let attr = Sattr3 { mode: Some(0o755), ..Sattr3::default() };
        self.made(Proc3::Mkdir, &MkdirArgs { at: DirOp { dir, name: name.as_bytes() }, attr }).await
    }

    async fn create(&self, dir: &[u8], name: &str) -> Vec<u8> {
        let how = CreateHow::Guarded(Sattr3 { mode: Some(0o644), ..Sattr3::default() });
        self.made(Proc3::Create, &CreateArgs { at: DirOp { dir, name: name.as_bytes() }, how }).await
    }
}

/// Latencies in µs.
#[derive(Default)]
struct Times(Vec<f64>);

impl Times {
    async fn time<T>(&mut self, call: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let out = call.await;
        self.0.push(begun.elapsed().as_secs_f64() * 1e6);
        out
    }

    fn at(&mut self, share: f64) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0[((self.0.len() - 1) as f64 * share) as usize]
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn identity(path: &str) -> Identity {
    let text = std::fs::read_to_string(path).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)).expect(name);
        line.trim_matches([' ', '=', '"']).to_owned()
    };
    Identity {
        ensemble: EnsembleId(u64::from_str_radix(&field("ensemble"), 16).unwrap()),
        secret: unhex(&field("secret")).unwrap(),
    }
}

async fn latency(direct: &Caller, through: &Caller, dir: &[u8], rounds: usize) {
    let file = direct.create(dir, "lone").await;
    let (mut d50, mut d99, mut t50, mut t99, mut added) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..rounds {
        let (mut a, mut b) = (Times::default(), Times::default());
        for _ in 0..LONE {
            a.time(direct.getattr(&file)).await;
        }
        for _ in 0..LONE {
            b.time(through.getattr(&file)).await;
        }
        d50.push(a.at(0.5));
        d99.push(a.at(0.99));
        t50.push(b.at(0.5));
        t99.push(b.at(0.99));
        added.push(b.at(0.5) - a.at(0.5));
    }
    println!("GETATTR alone, medians of {rounds} rounds of {LONE}:");
    println!("  directly            p50 {:>7.1} µs  p99 {:>7.1} µs", median(d50), median(d99));
    println!("  through the µproxy  p50 {:>7.1} µs  p99 {:>7.1} µs", median(t50), median(t99));
    println!("  the µproxy adds     p50 {:>7.1} µs", median(added));
}

async fn create(direct: &Rc<Caller>, dir: &[u8], calls: usize) {
    let mut lone = Times::default();
    for i in 0..calls.div_ceil(20) {
        lone.time(direct.create(dir, &format!("lone-{i}"))).await;
    }
    println!("CREATE alone: p50 {:.0} µs  p99 {:.0} µs", lone.at(0.5), lone.at(0.99));
    let mut together = Times::default();
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for lane in 0..MANY {
        let (direct, dir) = (Rc::clone(direct), dir.to_vec());
        running.spawn_local(async move {
            let mut times = Times::default();
            for i in 0..calls / MANY {
                times.time(direct.create(&dir, &format!("many-{lane}-{i}"))).await;
            }
            times.0
        });
    }
    while let Some(times) = running.join_next().await {
        together.0.extend(times.unwrap());
    }
    let rate = together.0.len() as f64 / begun.elapsed().as_secs_f64();
    println!(
        "CREATE, {MANY} in flight: {rate:.0}/s  p50 {:.0} µs  p99 {:.0} µs",
        together.at(0.5),
        together.at(0.99)
    );
}

/// Resident memory of a process, in MiB.
fn resident(pid: u32) -> f64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0 / f64::from(1 << 20)
}

async fn files(direct: &Rc<Caller>, dir: &[u8], files: usize, pid: u32) {
    println!("{:>9} files: {:.0} MiB resident", 0, resident(pid));
    let begun = Instant::now();
    for d in 0..files.div_ceil(FILES_PER_DIR) {
        let sub: Rc<[u8]> = direct.mkdir(dir, &format!("d{d}")).await.into();
        let next = Rc::new(Cell::new(0));
        let mut running = JoinSet::new();
        for _ in 0..MANY {
            let (direct, sub, next) = (Rc::clone(direct), Rc::clone(&sub), Rc::clone(&next));
            running.spawn_local(async move {
                while next.get() < FILES_PER_DIR {
                    let i = next.replace(next.get() + 1);
                    direct.create(&sub, &format!("file-{i:04}.c")).await;
                }
            });
        }
        while let Some(ended) = running.join_next().await {
            ended.unwrap();
        }
        let made = (d + 1) * FILES_PER_DIR;
        if made.is_multiple_of(files.div_ceil(10)) {
            let rate = made as f64 / begun.elapsed().as_secs_f64();
            println!("{made:>9} files: {:.0} MiB resident, {rate:.0} CREATEs a second", resident(pid));
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [what, path, server, proxy, rest @ ..] = &args[..] else {
        panic!("direct latency|create|files IDENTITY DIRSERVER PROXY …: see the head of this file");
    };
    let number = |n: usize, default: usize| rest.get(n).map_or(default, |a| a.parse().unwrap());
    let me = Me { identity: identity(path), role: Role::Proxy, server: ServerId(u64::MAX) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let direct = Caller::new(server.parse().unwrap(), Some(Arc::new(me)));
        let through = Caller::new(proxy.parse().unwrap(), None);
        let root = through.mount().await;
        let dir = direct.mkdir(&root, &format!("direct-{what}-{}", std::process::id())).await;
        match &what[..] {
            "latency" => latency(&direct, &through, &dir, number(0, 7)).await,
            "create" => create(&direct, &dir, number(0, 20_000)).await,
            _ => files(&direct, &dir, number(0, 1_000_000), number(1, 0) as u32).await,
        }
    });
}
