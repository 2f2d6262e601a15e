//! What the engine costs: CPU microseconds per call in each of three processes (client, µproxy-like forwarder, server)
//! at several depths, and milliseconds per MiB for bulk. Pin it to one core, as FACTS' figures are:
//!
//! ```text
//! cargo build --release -p slice-rpc --example null
//! taskset -c 1 target/release/examples/null
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a measuring program

use bytes::{Bytes, BytesMut};
use slab::Slab;
use slice_proto::ids::{ServerId, Xid};
use slice_proto::rpc_msg::{CallHeader, OpaqueAuth, encode_call, encode_success, patch_xid, peek_xid};
use slice_rpc::{
    CallError, Channel, Connection, Directory, Gate, Handled, Limits, LocalService, Message, Options, Peer,
    Placement, ReplySink, Service, Target, Workers, serve, serve_local,
};
use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Arguments of a small call and results of a small reply: about a GETATTR with AUTH_SYS.
const SMALL_CALL: usize = 110;
const SMALL_REPLY: usize = 88;
const MIB: usize = 1 << 20;

const SMALL: u32 = 0;
const READ: u32 = 1;
const WRITE: u32 = 2;

struct Server {
    mib: Bytes,
}

impl Server {
    fn shared() -> Arc<dyn Service> {
        Arc::new(Self { mib: Bytes::from(vec![7; MIB]) })
    }
}

impl Service for Server {
    fn call(&self, _: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let Ok(call) = CallHeader::decode(&record) else { return Handled::Close };
        encode_success(&mut reply.head, call.xid);
        match call.proc {
            READ => reply.body = self.mib.clone(),
            WRITE => reply.head.extend_from_slice(&[0; 4]),
            _ => reply.head.extend_from_slice(&[0; SMALL_REPLY]),
        }
        Handled::Done
    }

    fn call_message(&self, peer: &Peer, call: Message, reply: &mut Message) -> Handled {
        self.call(peer, call.head, reply)
    }
}

/// What a µproxy does at least: remembers who asked, forwards, restores the xid, replies.
#[derive(Default)]
struct Forwarder {
    waiting: RefCell<Slab<(Connection, Xid)>>,
    channel: RefCell<Option<Channel>>,
}

struct Front(Rc<Forwarder>);

impl LocalService for Front {
    fn call(&self, connection: &Connection, record: BytesMut, _: &mut Message) -> Handled {
        let Some(xid) = peek_xid(&record) else { return Handled::Close };
        let token = self.0.waiting.borrow_mut().insert((connection.clone(), xid));
        let channel = self.0.channel.borrow().clone().unwrap();
        channel.forward(record.into(), token as u64);
        Handled::Detached
    }
}

impl ReplySink for Forwarder {
    fn on_reply(&self, token: u64, reply: Result<BytesMut, CallError>) {
        self.on_message(token, reply.map(Message::from));
    }

    fn on_message(&self, token: u64, reply: Result<Message, CallError>) {
        let (connection, xid) = self.waiting.borrow_mut().remove(token as usize);
        let mut reply = reply.unwrap();
        patch_xid(&mut reply.head, xid);
        connection.answer(&mut reply);
    }
}

/// A closed loop: so many calls in flight, each reply makes the next call.
struct Load {
    channels: RefCell<Vec<Channel>>,
    template: Vec<u8>,
    buffer: RefCell<BytesMut>,
    body: Bytes,
    due: RefCell<Vec<u64>>,
    sending: Cell<bool>,
    to_send: Cell<usize>,
    to_come: Cell<usize>,
    done: tokio::sync::Notify,
}

impl Load {
    /// A server in this process replies within `forward`: what that makes due is sent by the outermost caller, or the
    /// stack would grow with every call.
    fn next(&self, token: u64) {
        self.due.borrow_mut().push(token);
        if self.sending.replace(true) {
            return;
        }
        loop {
            let token = self.due.borrow_mut().pop();
            match token {
                Some(token) => self.send(token),
                None => break,
            }
        }
        self.sending.set(false);
    }

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
        let channel = {
            let channels = self.channels.borrow();
            channels[token as usize % channels.len()].clone()
        };
        channel.forward(Message { head, body: self.body.clone(), tail: BytesMut::new() }, token);
    }
}

impl ReplySink for Load {
    fn on_reply(&self, token: u64, reply: Result<BytesMut, CallError>) {
        self.on_message(token, reply.map(Message::from));
    }

    fn on_message(&self, token: u64, reply: Result<Message, CallError>) {
        assert!(reply.unwrap().len() >= 28);
        self.to_come.set(self.to_come.get() - 1);
        if self.to_come.get() == 0 {
            self.done.notify_one();
        }
        self.next(token);
    }
}

fn load(target: Target, procedure: u32, connections: usize, depth: usize, calls: usize) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut template = BytesMut::new();
        encode_call(&mut template, Xid(0), 100_003, 3, procedure, &OpaqueAuth::NONE);
        template.extend_from_slice(&[1; SMALL_CALL]);
        let load = Rc::new(Load {
            channels: RefCell::default(),
            template: template.to_vec(),
            buffer: RefCell::default(),
            body: if procedure == WRITE { Bytes::from(vec![3; MIB]) } else { Bytes::new() },
            due: RefCell::default(),
            sending: Cell::new(false),
            to_send: Cell::new(calls),
            to_come: Cell::new(calls),
            done: tokio::sync::Notify::new(),
        });
        for _ in 0..connections {
            let sink = Rc::clone(&load) as Rc<dyn ReplySink>;
            load.channels.borrow_mut().push(Channel::open(ServerId(0), target.clone(), None, Some(sink)));
        }
        let begun = Instant::now();
        for token in 0..connections * depth {
            load.next(token as u64);
        }
        load.done.notified().await;
        begun.elapsed().as_secs_f64()
    })
}

fn options() -> Options {
    let limits = Limits { pending_bytes: 64 << 20, ..Limits::peers() };
    Options { gate: Gate::Open, placement: Placement::Accepting, limits }
}

fn serve_forever(role: &str, backend: Option<SocketAddr>) {
    let workers = Workers::start(role, 1).unwrap();
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = match backend {
        None => serve(&workers, local, Server::shared(), options()),
        Some(backend) => {
            let make = move |_| {
                let forwarder = Rc::<Forwarder>::default();
                let directory = Directory::new(None);
                directory.set(ServerId(1), Target::Socket(backend));
                directory.channels().set_sink(Rc::clone(&forwarder) as Rc<dyn ReplySink>);
                *forwarder.channel.borrow_mut() = Some(directory.channel(ServerId(1)).unwrap());
                Rc::new(Front(forwarder)) as Rc<dyn LocalService>
            };
            serve_local(&workers, local, make, options())
        }
    };
    println!("{}", listener.unwrap().local_addr());
    // Until the measuring process closes our standard input.
    let _ = std::io::stdin().lines().count();
}

struct Role {
    child: Child,
    addr: SocketAddr,
}

impl Role {
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
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// CPU time of all threads of a process, in seconds.
fn cpu(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let ns = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        stat.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    tasks.map(ns).sum::<f64>() / 1e9
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("server") => return serve_forever("server", None),
        Some("proxy") => return serve_forever("proxy", Some(args[1].parse().unwrap())),
        _ => {}
    }
    let rounds: usize = args.first().map_or(5, |a| a.parse().unwrap());
    let server = Role::start(&["server".into()]);
    let proxy = Role::start(&["proxy".into(), server.addr.to_string()]);
    let ways: [(&str, Target, Vec<u32>); 3] = [
        ("direct", Target::Socket(server.addr), vec![server.child.id()]),
        ("forwarded", Target::Socket(proxy.addr), vec![proxy.child.id(), server.child.id()]),
        ("in process", Target::InProcess(Server::shared()), vec![]),
    ];
    println!("small calls, CPU µs per call: medians of {rounds} rounds");
    println!(
        "{:<12}{:>8}{:>12}{:>10}{:>10}{:>10}",
        "way", "depth", "calls/s", "client", "forwarder", "server"
    );
    for (connections, depth, calls) in [(1, 1, 30_000), (1, 16, 300_000), (1, 64, 600_000), (8, 16, 400_000)]
    {
        measure(&ways, SMALL, (connections, depth, calls), rounds, 1e6);
    }
    for (name, procedure) in [("READ", READ), ("WRITE", WRITE)] {
        println!("{name} of 1 MiB, CPU ms per MiB");
        for depth in [1, 4] {
            measure(&ways, procedure, (1, depth, 1000), rounds, 1e3);
        }
    }
}

fn measure(
    ways: &[(&str, Target, Vec<u32>)],
    procedure: u32,
    (connections, depth, calls): (usize, usize, usize),
    rounds: usize,
    unit: f64,
) {
    // Ways in turn within each round, so that a noisy moment meets all of them.
    let mut rows = vec![vec![Vec::new(); 4]; ways.len()];
    for _ in 0..rounds {
        for ((_, target, pids), row) in ways.iter().zip(&mut rows) {
            let pids: Vec<u32> = [std::process::id()].iter().chain(pids).copied().collect();
            load(target.clone(), procedure, connections, depth, calls / 20);
            let before: Vec<f64> = pids.iter().map(|p| cpu(*p)).collect();
            let seconds = load(target.clone(), procedure, connections, depth, calls);
            row[0].push(calls as f64 / seconds);
            for (i, (pid, before)) in pids.iter().zip(before).enumerate() {
                // The server stands last, whether or not a forwarder stands before it.
                let column = if i > 0 && i + 1 == pids.len() { 3 } else { i + 1 };
                row[column].push((cpu(*pid) - before) / calls as f64 * unit);
            }
        }
    }
    for ((name, ..), row) in ways.iter().zip(rows) {
        print!("{name:<12}{:>8}", format!("{connections}×{depth}"));
        for (i, figures) in row.into_iter().enumerate() {
            match (figures.is_empty(), i) {
                (true, _) => print!("{:>10}", "–"),
                (_, 0) => print!("{:>12.0}", median(figures)),
                _ => print!("{:>10.2}", median(figures)),
            }
        }
        println!();
    }
}
