//! What the µproxy costs: CPU microseconds per small call and milliseconds per MiB, of the µproxy's process alone,
//! between a client and a server that does next to nothing. Pin it to one core, as FACTS' figures are:
//!
//! ```text
//! cargo build --release -p slice-proxy --example cost
//! taskset -c 1 target/release/examples/cost [ROUNDS [CALL [IN FLIGHT PER CONNECTION]]]
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a measuring program

use bytes::{BufMut, Bytes, BytesMut};
use slice_proto::handle::{Handle, KeyRing};
use slice_proto::ids::{EnsembleId, FileId, Role, SITES_PER_ROLE, ServerId, Site, TableEpoch, VolumeId, Xid};
use slice_proto::nfs3::*;
use slice_proto::peer;
use slice_proto::placement::MAX_FILE_SIZE;
use slice_proto::rpc_msg::{AuthSys, CallHeader, Cred, Gids, encode_call, encode_success, program};
use slice_proto::secret::Identity;
use slice_proto::table::{NamePolicy, RoutingTable, ServerEntry, Volume};
use slice_proto::trailer::{ResultTrailer, Stamp};
use slice_proto::xdr::Encode;
use slice_proxy::{Exports, Proxy, ProxyConfig, Space};
use slice_rpc::clock::SystemClock;
use slice_rpc::{
    CallError, Channel, Directory, Gate, Handled, Limits, Message, Options, Peer, Placement, ReplySink,
    Service, Target, Workers, serve,
};
use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Connections, calls in flight on each, calls in all.
type Depth = (usize, usize, usize);

const MIB: usize = 1 << 20;
const FILE: FileId = FileId::new(Site(3), 9);

fn identity() -> Identity {
    Identity { ensemble: EnsembleId(1), secret: [1; 32] }
}

/// Answers as every role, from constants.
struct Server {
    mib: Bytes,
    attr: Fattr3,
    stamp: Stamp,
}

impl Server {
    fn shared() -> Arc<dyn Service> {
        let t = NfsTime3::from_ns(1_700_000_000_000_000_000);
        let attr = Fattr3 {
            ftype: FType3::Reg,
            mode: 0o644,
            nlink: 1,
            uid: 500,
            gid: 500,
            size: 64 * MIB as u64,
            used: 64 * MIB as u64,
            rdev: SpecData3::default(),
            fsid: 1,
            fileid: FILE,
            atime: t,
            mtime: t,
            ctime: t,
        };
        let stamp = Stamp { file: FILE, reach: MAX_FILE_SIZE, ..Stamp::default() };
        Arc::new(Self { mib: Bytes::from(vec![7; MIB]), attr, stamp })
    }

    fn end(w: &mut BytesMut, stamps: &[Stamp]) {
        ResultTrailer::append_parts(w, stamps, TableEpoch(1), 0);
    }
}

impl Service for Server {
    fn call(&self, _: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let Ok(call) = CallHeader::decode(&record) else { return Handled::Close };
        let w = &mut reply.head;
        encode_success(w, call.xid);
        if call.prog == peer::PROGRAM {
            if call.proc == peer::PeerProc::Extend as u32 {
                peer::data::DataRes { status: 0, epoch: self.stamp.epoch, table: TableEpoch(1) }.encode(w);
            } else {
                let mut attr = BytesMut::new();
                self.attr.encode(&mut attr);
                let current = Some((attr[..].try_into().unwrap(), self.stamp));
                peer::attrs::AttrRes { status: 0, current, table: TableEpoch(1), now_ns: 0 }.encode(w);
            }
            return Handled::Done;
        }
        w.put_u32(0);
        match Proc3::from_u32(call.proc).unwrap() {
            Proc3::Getattr => {
                self.attr.encode(w);
                Self::end(w, &[self.stamp]);
            }
            Proc3::Lookup => {
                let fh = KeyRing::new(&identity(), 0).seal(&handle());
                LookupOk { object: &fh, attr: Some(self.attr), dir_attr: None }.encode(w);
                Self::end(w, &[self.stamp]);
            }
            Proc3::Read => {
                let mut r = slice_proto::xdr::Reader::at(&record, call.args_at);
                let args = <ReadArgs<'_> as slice_proto::xdr::Decode<'_>>::decode(&mut r).unwrap();
                w.put_u32(0);
                w.put_u32(args.count);
                w.put_u32(0);
                w.put_u32(args.count);
                reply.body = self.mib.slice(..args.count as usize);
                Self::end(&mut reply.tail, &[]);
            }
            Proc3::Write => {
                let at = peek::extent_at(&record, call.args_at).unwrap();
                let (committed, verf) = (StableHow::Unstable, Verifier([1; 8]));
                WriteOk { wcc: WccData::default(), count: at.count, committed, verf }.encode(w);
                Self::end(w, &[]);
            }
            other => panic!("{other:?}"),
        }
        Handled::Done
    }
}

fn handle() -> Handle {
    Handle { ftype: 1, volume: VolumeId(0), policy: 0, file: FILE, snapshot: 0 }
}

fn table() -> RoutingTable {
    let sites = || (0..SITES_PER_ROLE).map(|_| vec![ServerId(1)]).collect();
    let volume = Volume {
        id: VolumeId(0),
        path: "/".into(),
        root: FileId::new(Site(0), 1),
        policy: NamePolicy::MkdirSwitching { affinity_ppm: 900_000 },
        seed: 1,
        placement: 0,
        root_uid: 0,
        root_gid: 0,
        root_mode: 0o755,
    };
    RoutingTable {
        epoch: TableEpoch(1),
        dir: sites(),
        small: sites(),
        block: sites(),
        servers: [(ServerId(1), ServerEntry { role: Role::Dir, address: String::new() })].into(),
        volumes: vec![volume],
        ..RoutingTable::default()
    }
}

fn options() -> Options {
    let limits = Limits { pending_bytes: 64 << 20, ..Limits::peers() };
    Options { gate: Gate::Open, placement: Placement::Accepting, limits }
}

fn serve_forever(backend: Option<SocketAddr>) {
    let workers = Workers::start("measured", 1).unwrap();
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut kept = None;
    let addr = match backend {
        None => serve(&workers, local, Server::shared(), options()).unwrap().local_addr(),
        Some(backend) => {
            let (tx, rx) = slice_rpc::tables::tables();
            tx.publish(table());
            let directory = Directory::new(None);
            directory.set(ServerId(1), Target::Socket(backend));
            let config = ProxyConfig {
                listen: local,
                portmap: None,
                identity: identity(),
                id: ServerId(9),
                exports: Exports::default(),
                space: Arc::new(Space::default()),
            };
            let proxy = Proxy::new(config, rx, directory, Arc::new(SystemClock)).unwrap();
            let addr = proxy.start(&workers).unwrap();
            kept = Some((proxy, tx));
            addr
        }
    };
    println!("{addr}");
    // Until the measuring process closes our standard input.
    let _ = std::io::stdin().lines().count();
    drop(kept);
}

struct Process {
    child: Child,
    addr: SocketAddr,
}

impl Process {
    fn start(args: &[String]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, addr: line.trim().parse().unwrap() }
    }

    /// CPU time of all its threads, in seconds.
    fn cpu(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let ns = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            stat.split(' ').next().unwrap().parse::<f64>().unwrap()
        };
        tasks.map(ns).sum::<f64>() / 1e9
    }

    /// Resident memory, in MiB.
    fn resident(&self) -> f64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0 / MIB as f64
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A closed loop: so many calls in flight, each reply makes the next call.
struct Load {
    channels: RefCell<Vec<Channel>>,
    template: Vec<u8>,
    /// A channel's own: all channels begin with one transaction id, and equal calls of one host under one id are copies.
    bodies: RefCell<Vec<Bytes>>,
    buffer: RefCell<BytesMut>,
    to_send: Cell<usize>,
    to_come: Cell<usize>,
    done: tokio::sync::Notify,
}

impl Load {
    fn send(&self, token: u64) {
        if self.to_send.get() == 0 {
            return;
        }
        self.to_send.set(self.to_send.get() - 1);
        let head = {
            let mut buffer = self.buffer.borrow_mut();
            buffer.reserve(self.template.len().max(64 << 10));
            buffer.extend_from_slice(&self.template);
            buffer.split()
        };
        let (channel, body) = {
            let (channels, bodies) = (self.channels.borrow(), self.bodies.borrow());
            let at = token as usize % channels.len();
            (channels[at].clone(), bodies[at].clone())
        };
        channel.forward(Message { head, body, tail: BytesMut::new() }, token);
    }
}

impl ReplySink for Load {
    fn on_reply(&self, token: u64, reply: Result<BytesMut, CallError>) {
        let reply = reply.unwrap();
        assert!(reply.len() == 24 || reply[24..28] == [0; 4], "an error came back");
        self.to_come.set(self.to_come.get() - 1);
        if self.to_come.get() == 0 {
            self.done.notify_one();
        }
        self.send(token);
    }
}

/// A call: its head and its bulk.
fn template(op: &str) -> (Vec<u8>, Bytes) {
    let keys = KeyRing::new(&identity(), 0);
    let fh = keys.seal(&handle());
    let dir = keys.seal(&Handle { ftype: 2, file: FileId::new(Site(0), 1), ..handle() });
    let mut w = BytesMut::new();
    let cred = Cred { uid: 500, gid: 500, gids: Gids::new(&[500, 4, 24, 27]) };
    let auth = AuthSys { stamp: 7, machine: b"client.example", cred };
    let mut call = |proc: Proc3, args: &dyn Fn(&mut BytesMut)| {
        encode_call(&mut w, Xid(0), program::NFS, 3, proc as u32, &auth);
        args(&mut w);
    };
    let mut body = Bytes::new();
    match op {
        "NULL" => call(Proc3::Null, &|_| ()),
        "GETATTR" => call(Proc3::Getattr, &|w| GetattrArgs { object: &fh }.encode(w)),
        "LOOKUP" => {
            call(Proc3::Lookup, &|w| LookupArgs { what: DirOp { dir: &dir, name: b"some-name.c" } }.encode(w))
        }
        "READ 4K" => call(Proc3::Read, &|w| ReadArgs { file: &fh, offset: 0, count: 4096 }.encode(w)),
        "READ 1M" => {
            call(Proc3::Read, &|w| ReadArgs { file: &fh, offset: MIB as u64, count: MIB as u32 }.encode(w))
        }
        _ => {
            let (offset, len) = if op == "WRITE 4K" { (0, 4096) } else { (MIB as u64, MIB) };
            let stable = StableHow::Unstable;
            let args = WriteArgsHead { file: &fh, offset, stable, data_len: len as u32 };
            call(Proc3::Write, &|w| args.encode(w));
            body = Bytes::from(vec![3; len]);
        }
    }
    (w.to_vec(), body)
}

fn load(target: SocketAddr, op: &str, connections: usize, depth: usize, calls: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (template, body) = template(op);
        let load = Rc::new(Load {
            channels: RefCell::default(),
            template,
            bodies: RefCell::default(),
            buffer: RefCell::default(),
            to_send: Cell::new(calls),
            to_come: Cell::new(calls),
            done: tokio::sync::Notify::new(),
        });
        for _ in 0..connections {
            let sink = Rc::clone(&load) as Rc<dyn ReplySink>;
            let mut own = body.to_vec();
            own.iter_mut().zip(rand::random::<[u8; 16]>()).for_each(|(to, from)| *to = from);
            load.bodies.borrow_mut().push(own.into());
            load.channels.borrow_mut().push(Channel::open(
                ServerId(0),
                Target::Socket(target),
                None,
                Some(sink),
            ));
        }
        for token in 0..connections * depth {
            load.send(token as u64);
        }
        load.done.notified().await;
    });
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("server") => return serve_forever(None),
        Some("proxy") => return serve_forever(Some(args[1].parse().unwrap())),
        _ => {}
    }
    let rounds: usize = args.first().map_or(5, |a| a.parse().unwrap());
    let only = args.get(1).cloned();
    let only_depth: Option<usize> = args.get(2).map(|d| d.parse().unwrap());
    let server = Process::start(&["server".into()]);
    let proxy = Process::start(&["proxy".into(), server.addr.to_string()]);
    println!("µproxy alone: {:.1} MiB resident, idle", proxy.resident());
    println!("{:<10}{:>8}{:>12}{:>14}", "call", "depth", "calls/s", "µproxy CPU µs");
    let small = [(1, 1, 20_000), (1, 64, 1_000_000), (8, 16, 300_000)];
    let four = [(1, 1, 10_000), (8, 16, 200_000)];
    let bulk = [(1, 1, 1000), (1, 4, 1000), (16, 4, 2000)];
    let table: [(&str, &[Depth]); 7] = [
        ("NULL", &small),
        ("GETATTR", &small),
        ("LOOKUP", &small),
        ("READ 4K", &four),
        ("WRITE 4K", &four),
        ("READ 1M", &bulk),
        ("WRITE 1M", &bulk),
    ];
    for (op, depths) in
        table.into_iter().filter(|(op, _)| only.as_ref().is_none_or(|o| op.starts_with(o.as_str())))
    {
        for (connections, depth, calls) in depths.iter().filter(|d| only_depth.is_none_or(|o| o == d.1)) {
            let (mut rates, mut costs) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                load(proxy.addr, op, *connections, *depth, calls / 20);
                let (before, begun) = (proxy.cpu(), Instant::now());
                load(proxy.addr, op, *connections, *depth, *calls);
                rates.push(*calls as f64 / begun.elapsed().as_secs_f64());
                costs.push((proxy.cpu() - before) / *calls as f64 * 1e6);
            }
            rates.sort_by(f64::total_cmp);
            costs.sort_by(f64::total_cmp);
            let at = format!("{connections}×{depth}");
            let (rate, cost) = (rates[rounds / 2], costs[rounds / 2]);
            println!("{op:<10}{at:>8}{rate:>12.0}{cost:>14.2}{:>10.1} MiB", proxy.resident());
        }
    }
    println!("µproxy: {:.1} MiB resident, after all", proxy.resident());
}
