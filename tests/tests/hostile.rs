//! Bad input on every port: a clean error or a closed connection, bounded memory, nobody else notices (DESIGN §11).
//!
//! Beside every attack a well-behaved client works on; at the end every process lives, is small, and serves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop at the first surprise"
)]

use std::cell::Cell;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::BufMut;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slice_load::Client;
use slice_load::client::Fh;
use slice_proto::nfs3::{CreateHow, GetattrArgs, NfsStat3, Proc3, ReadArgs, StableHow};
use slice_proto::peer;
use slice_proto::rpc_msg::{Cred, ReplyHeader, ReplyStatus, program};
use slice_tests::ensemble::{Ensemble, Layout, Options, Policy};
use slice_tests::wire::content::{Content, THRESHOLD};
use slice_tests::wire::raw::{Raw, Reaction, Verbatim, call, marked};
use slice_tests::wire::stage::{create, mkdir, size};
use slice_tests::wire::{self, Expect, mode};
use tokio::net::TcpSocket;

/// Most that a process may hold after all of this, in bytes. The largest seen is 63 MiB, all servers in one process; one
/// that believes lengths, keeps what half-sent records brought or makes answers that nobody takes has gigabytes.
const MAX_RESIDENT: u64 = 256 << 20;
/// Connections of the crowd.
const CROWD: usize = 1000;
/// Connections that one host has at least: a client with nconnect=16 and a dozen mounts.
const SERVED: usize = 200;
/// Connections of the multitude, and addresses that they come from: each below what one host may have.
const MULTITUDE: usize = 10_000;
const HOSTS: usize = 50;
/// Addresses of those who open connections and do nothing with them: together they may have all that there are.
const IDLERS: usize = 4;
/// How long a server may take to end a connection that lies: a bound on a hang, not on speed.
const HANGS_AFTER: Duration = Duration::from_secs(90);

/// Where calls can be made: the µproxy's port, and with a process a server all others.
struct Ports {
    client: SocketAddr,
    internal: Vec<SocketAddr>,
}

fn ports(ensemble: &Ensemble) -> Ports {
    let client = SocketAddr::from(([127, 0, 0, 1], ensemble.port()));
    let servers = ensemble.servers().unwrap();
    let all = servers.iter().filter(|s| s.role != "proxy").flat_map(|s| s.addresses.iter());
    Ports { client, internal: all.filter_map(|a| a.parse().ok()).collect() }
}

impl Ports {
    fn all(&self) -> Vec<SocketAddr> {
        [self.client].into_iter().chain(self.internal.iter().copied()).collect()
    }
}

/// Runs `attack` beside a client that works, and looks at every process after it.
fn beside(name: &str, layout: Layout, attack: impl AsyncFn(&Ports, &Fh)) {
    let ensemble = Ensemble::start(&format!("hostile-{name}"), Options::new(Policy::Hash, layout)).unwrap();
    let ports = ports(&ensemble);
    if layout == Layout::Separate {
        assert!(ports.internal.len() >= 8, "ensemble.json has no addresses: {:?}", ports.internal);
    }
    let before = ensemble.servers().unwrap();
    wire::run(async {
        let c = Client::connect(ports.client).await.unwrap();
        let root = c.mnt("/").await.unwrap().root;
        let (under_way, rounds) = (Cell::new(true), Cell::new(0));
        let good = async {
            while under_way.get() || rounds.get() == 0 {
                work(&c, &root, rounds.get()).await;
                rounds.set(rounds.get() + 1);
            }
        };
        let bad = async {
            attack(&ports, &root).await;
            under_way.set(false);
        };
        futures_util::join!(good, bad);
        // Whoever comes new is served, too.
        let fresh = Client::connect(ports.client).await.unwrap();
        work(&fresh, &root, 1_000_000).await;
        println!("{name}: {} rounds of work beside it", rounds.get());
    });
    let after = ensemble.servers().unwrap();
    for server in &after {
        let resident = resident(server.pid);
        println!("{name}: {} {} has {} KiB", server.role, server.pid, resident >> 10);
        assert!(resident < MAX_RESIDENT, "the {} has {resident} bytes resident", server.role);
    }
    let processes = |all: &[slice_tests::ensemble::Server]| {
        let mut all: Vec<_> = all.iter().map(|s| (s.role.clone(), s.pid)).collect();
        all.sort();
        all
    };
    assert_eq!(processes(&before), processes(&after), "a server was restarted: it had ended");
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server's process is gone");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// What a client does: all of it must succeed.
async fn work(c: &Client, root: &Fh, round: usize) {
    let name = format!("work-{round}");
    let dir = mkdir(c, root, &name, 0o755).await;
    let mut content = Content::new(create(c, &dir, "f", 0o644).await);
    content.write(c, 0, 5000, StableHow::Unstable).await;
    content.write(c, THRESHOLD - 100, 9000, StableHow::FileSync).await;
    c.commit(&content.file, 0, 0).await.good();
    content.check(c).await;
    c.rename((&dir, b"f"), (&dir, b"g")).await.good();
    assert_eq!(c.lookup(&dir, b"g").await.good().object, content.file);
    c.remove(&dir, b"g").await.good();
    c.rmdir(root, name.as_bytes()).await.good();
}

/// Waits for the end of a connection; what was answered before it.
async fn ends(raw: &mut Raw, what: &str) -> Vec<Vec<u8>> {
    let end = tokio::time::timeout(HANGS_AFTER, raw.until_closed()).await;
    end.unwrap_or_else(|_| panic!("{what}: neither answered nor closed"))
}

fn getattr(fh: &Fh, xid: u32) -> Vec<u8> {
    call(xid, program::NFS, 3, Proc3::Getattr as u32, Cred::ROOT, &GetattrArgs { object: fh.as_slice() })
}

#[test]
fn lengths_that_lie_end_the_connection() {
    beside("lengths", Layout::Separate, async |ports, _| {
        for to in ports.all() {
            // Longer than any record; fragments that never end; no fragment at all, for ever.
            let mut endless = Vec::new();
            for _ in 0..64 {
                endless.extend((1_u32 << 20).to_be_bytes());
                endless.resize(endless.len() + (1 << 20), 7);
            }
            let lies: [(&str, Vec<u8>); 5] = [
                ("2 GiB", vec![0xff; 4]),
                ("1 GiB", 0xc000_0000_u32.to_be_bytes().to_vec()),
                ("2 GiB, not the last", vec![0x7f, 0xff, 0xff, 0xff, 1, 2, 3]),
                ("a chain of 64 MiB", endless),
                ("a record of nothing", 0x8000_0000_u32.to_be_bytes().to_vec()),
            ];
            for (what, bytes) in lies {
                let mut raw = Raw::connect(to).await;
                raw.send(&bytes).await;
                raw.finish().await;
                let answers = ends(&mut raw, &format!("{what} to {to}")).await;
                assert!(answers.is_empty(), "{what} to {to} is answered");
            }
        }
    });
}

#[test]
fn empty_fragments_without_end_are_not_gathered() {
    beside("fragments", Layout::OneProcess, async |ports, _| {
        let mut raw = Raw::connect(ports.client).await;
        let empty = [0_u8; 4 << 10];
        for _ in 0..4096 {
            if !raw.send(&empty).await {
                break;
            }
        }
        raw.finish().await;
        assert!(ends(&mut raw, "16 MiB of empty fragments").await.is_empty());
    });
}

#[test]
fn records_cut_short_end_with_their_connection() {
    beside("short", Layout::Separate, async |ports, root| {
        for to in ports.all() {
            let record = marked(&getattr(root, 1));
            for len in 0..record.len() {
                let mut raw = Raw::connect(to).await;
                raw.send(&record[..len]).await;
                raw.finish().await;
                assert!(ends(&mut raw, &format!("{len} bytes to {to}")).await.is_empty());
            }
        }
        // And a record that is too short to be a call: no answer, or an error.
        let record = getattr(root, 1);
        for len in 0..40 {
            let mut raw = Raw::connect(ports.client).await;
            raw.send(&marked(&record[..len])).await;
            raw.finish().await;
            for answer in ends(&mut raw, "a header cut short").await {
                assert_ne!(ReplyHeader::decode(&answer).unwrap().status, ReplyStatus::Success);
            }
        }
    });
}

#[test]
fn a_slow_sender_blocks_nobody_and_is_answered() {
    beside("slow", Layout::OneProcess, async |ports, root| {
        let record = marked(&getattr(root, 5));
        let mut slow = Vec::new();
        for _ in 0..50 {
            slow.push(Raw::connect(ports.client).await);
        }
        for byte in &record {
            for raw in &mut slow {
                assert!(raw.send(&[*byte]).await, "closed within a record that is whole in the end");
            }
            tokio::task::yield_now().await;
        }
        for raw in &mut slow {
            let Reaction::Record(reply) = raw.reaction().await else { panic!("closed") };
            assert_eq!(ReplyHeader::decode(&reply).unwrap().status, ReplyStatus::Success);
        }
    });
}

#[test]
fn who_stops_within_a_large_record_keeps_no_more_than_it_sent() {
    beside("stalled", Layout::OneProcess, async |ports, root| {
        // 100 times a WRITE that says 1 MiB and sends 64 KiB; and as many that never read an answer.
        let mut stalled = Vec::new();
        let args = Verbatim(&[0; 64 << 10]);
        let record = call(1, program::NFS, 3, Proc3::Write as u32, Cred::ROOT, &args);
        let large = [&(0x8000_0000_u32 | (1 << 20)).to_be_bytes()[..], &record].concat();
        for _ in 0..100 {
            let mut raw = Raw::connect(ports.client).await;
            raw.send(&large).await;
            stalled.push(raw);
        }
        for _ in 0..100 {
            let mut raw = Raw::connect(ports.client).await;
            raw.send(&marked(&getattr(root, 1))).await;
            stalled.push(raw);
        }
        work(&Client::connect(ports.client).await.unwrap(), root, 2_000_000).await;
        drop(stalled);
    });
}

#[test]
fn who_never_reads_is_not_answered_without_end() {
    beside("unread", Layout::OneProcess, async |ports, root| {
        let c = Client::connect(ports.client).await.unwrap();
        let big = create(&c, root, "big", 0o644).await;
        c.setattr(&big, size(8 << 20), None).await.good();
        let args = ReadArgs { file: big.as_slice(), offset: 0, count: 1 << 20 };
        let mut deaf = Vec::new();
        for _ in 0..8 {
            let mut raw = Raw::connect(ports.client).await;
            // 4,000 MiB are asked for by each, and never taken.
            let one = (0..4000).flat_map(|xid| marked(&call(xid, program::NFS, 3, 6, Cred::ROOT, &args)));
            let all: Vec<u8> = one.collect();
            let _ = tokio::time::timeout(Duration::from_secs(2), raw.send(&all)).await; // It need not be read either.
            deaf.push(raw);
        }
        work(&c, root, 3_000_000).await;
        drop(deaf);
        c.remove(root, b"big").await.good();
    });
}

#[test]
fn random_bytes_are_no_calls() {
    const SEED: u64 = 20_260;
    println!("seed {SEED}");
    beside("random", Layout::Separate, async |ports, _| {
        let mut rng = StdRng::seed_from_u64(SEED);
        for to in ports.all() {
            for round in 0..60 {
                let mut bytes = vec![0; rng.random_range(1..3000)];
                rng.fill_bytes(&mut bytes);
                // Half of them as whole records.
                let sent = if round % 2 == 0 { marked(&bytes) } else { bytes };
                let mut raw = Raw::connect(to).await;
                raw.send(&sent).await;
                raw.finish().await;
                ends(&mut raw, &format!("round {round} to {to}")).await;
            }
        }
    });
}

/// Calls that are right but for one word each: the µproxy answers with an error, or as if it were right, and lives.
#[test]
fn calls_with_one_wrong_word_do_no_harm() {
    const SEED: u64 = 7;
    println!("seed {SEED}");
    beside("words", Layout::OneProcess, async |ports, root| {
        let mut rng = StdRng::seed_from_u64(SEED);
        let c = Client::connect(ports.client).await.unwrap();
        let dir = mkdir(&c, root, "victims", 0o777).await;
        let file = create(&c, &dir, "f", 0o666).await;
        for proc in 0..22_u32 {
            for round in 0..40 {
                let args = arguments(proc, &dir, &file);
                let mut record = call(9, program::NFS, 3, proc, Cred::ROOT, &Verbatim(&args));
                let at = 4 * rng.random_range(1..record.len() / 4);
                let wrong =
                    [0, 1, 2, 255, 0xffff, 0x7fff_ffff, 0x8000_0000, u32::MAX][rng.random_range(0..8)];
                record[at..at + 4].copy_from_slice(&wrong.to_be_bytes());
                let mut raw = Raw::connect(ports.client).await;
                raw.send(&marked(&record)).await;
                raw.finish().await;
                for answer in ends(&mut raw, &format!("procedure {proc}, round {round}")).await {
                    ReplyHeader::decode(&answer).unwrap();
                }
            }
        }
    });
}

/// Right arguments of every procedure.
fn arguments(proc: u32, dir: &Fh, file: &Fh) -> Vec<u8> {
    let mut w = Vec::new();
    let object = |w: &mut Vec<u8>, fh: &Fh| opaque(w, fh.as_slice());
    let name = |w: &mut Vec<u8>, text: &[u8]| opaque(w, text);
    match proc {
        0 => {}
        1 | 5 | 18..=20 => object(&mut w, file),
        2 => {
            object(&mut w, file);
            words(&mut w, &[0, 0, 0, 0, 0, 0, 0]);
        }
        3 | 12 | 13 => {
            object(&mut w, dir);
            name(&mut w, b"nothing");
        }
        4 => {
            object(&mut w, file);
            words(&mut w, &[0x3f]);
        }
        6 => {
            object(&mut w, file);
            words(&mut w, &[0, 0, 100]);
        }
        7 => {
            object(&mut w, file);
            words(&mut w, &[0, 0, 8, 0]);
            name(&mut w, b"8 bytes!");
        }
        8 => {
            object(&mut w, dir);
            name(&mut w, b"new");
            words(&mut w, &[0, 0, 0, 0, 0, 0, 0]);
        }
        9 => {
            object(&mut w, dir);
            name(&mut w, b"newdir");
            words(&mut w, &[0; 6]);
        }
        10 => {
            object(&mut w, dir);
            name(&mut w, b"link");
            words(&mut w, &[0; 6]);
            name(&mut w, b"target");
        }
        11 => {
            object(&mut w, dir);
            name(&mut w, b"fifo");
            words(&mut w, &[7, 0, 0, 0, 0, 0, 0]);
        }
        14 => {
            object(&mut w, dir);
            name(&mut w, b"new");
            object(&mut w, dir);
            name(&mut w, b"newer");
        }
        15 => {
            object(&mut w, file);
            object(&mut w, dir);
            name(&mut w, b"hard");
        }
        16 => {
            object(&mut w, dir);
            words(&mut w, &[0, 0, 0, 0, 4096]);
        }
        17 => {
            object(&mut w, dir);
            words(&mut w, &[0, 0, 0, 0, 1000, 4096]);
        }
        _ => {
            object(&mut w, file);
            words(&mut w, &[0, 0, 0]);
        }
    }
    w
}

fn words(w: &mut Vec<u8>, all: &[u32]) {
    all.iter().for_each(|word| w.put_u32(*word));
}

fn opaque(w: &mut Vec<u8>, bytes: &[u8]) {
    w.put_u32(bytes.len() as u32);
    w.put_slice(bytes);
    w.put_bytes(0, bytes.len().wrapping_neg() % 4);
}

/// DESIGN §5: a bad MAC is refused. Every byte of a handle counts.
#[test]
fn forged_handles_are_refused() {
    beside("handles", Layout::OneProcess, async |ports, root| {
        let c = Client::connect(ports.client).await.unwrap();
        let file = create(&c, root, "victim", 0o600).await;
        let handle = file.as_slice().to_vec();
        for at in 0..handle.len() {
            for bit in [0x01, 0x80] {
                let mut forged = handle.clone();
                forged[at] ^= bit;
                let forged = Fh::new(&forged);
                c.getattr(&forged).await.fails(NfsStat3::BADHANDLE);
                c.read(&forged, 0, 10).await.fails(NfsStat3::BADHANDLE);
                c.setattr(&forged, size(0), None).await.fails(NfsStat3::BADHANDLE);
                c.remove(&forged, b"x").await.fails(NfsStat3::BADHANDLE);
            }
        }
        for len in 0..handle.len() {
            c.getattr(&Fh::new(&handle[..len])).await.fails(NfsStat3::BADHANDLE);
        }
        let longer = [&handle[..], &[0; 16]].concat();
        c.getattr(&Fh::new(&longer)).await.fails(NfsStat3::BADHANDLE);
        c.remove(root, b"victim").await.good();
    });
}

/// Another ensemble's handle has a right MAC, under another key.
#[test]
fn another_ensembles_handle_is_refused() {
    let other = Ensemble::start("hostile-other", Options::new(Policy::Hash, Layout::OneProcess)).unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], other.port()));
    let stranger = wire::run(async {
        let c = Client::connect(at).await.unwrap();
        let root = c.mnt("/").await.unwrap().root;
        c.getattr(&root).await.good();
        create(&c, &root, "file", 0o644).await
    });
    drop(other);
    beside("stranger", Layout::OneProcess, async |ports, root| {
        let c = Client::connect(ports.client).await.unwrap();
        c.getattr(&stranger).await.fails(NfsStat3::BADHANDLE);
        c.write(&stranger, 0, b"x", StableHow::FileSync).await.fails(NfsStat3::BADHANDLE);
        c.create(&stranger, b"x", CreateHow::Guarded(mode(0o600))).await.fails(NfsStat3::BADHANDLE);
        c.link(&stranger, root, b"mine-now").await.fails(NfsStat3::BADHANDLE);
        c.rename((root, b"a"), (&stranger, b"b")).await.fails(NfsStat3::BADHANDLE);
    });
}

/// DESIGN §4: without the hello a server answers nothing. NULL is the one exception that docs/wire.md's hello makes.
#[test]
fn without_the_hello_servers_answer_nothing() {
    beside("hello", Layout::Separate, async |ports, root| {
        let private = |proc| call(1, peer::PROGRAM, peer::VERSION, proc, Cred::ROOT, &Verbatim(&[0; 64]));
        let mut all: Vec<(String, Vec<u8>)> = vec![("GETATTR".into(), getattr(root, 1))];
        all.extend(
            [10, 11, 20, 21, 22, 23, 24, 30, 31, 32, 33, 40, 41, 50, 51, 52, 53]
                .map(|proc| (format!("private procedure {proc}"), private(proc))),
        );
        all.push(("PROVE without HELLO".into(), private(2)));
        all.push((
            "MOUNT".into(),
            call(1, program::MOUNT, 3, 1, Cred::ROOT, &Verbatim(&[0, 0, 0, 1, b'/', 0, 0, 0])),
        ));
        all.push(("a reply".into(), [&1_u32.to_be_bytes()[..], &1_u32.to_be_bytes(), &[0; 16]].concat()));
        for to in &ports.internal {
            for (what, record) in &all {
                let mut raw = Raw::connect(*to).await;
                raw.send(&marked(record)).await;
                let answers = ends(&mut raw, &format!("{what} to {to}")).await;
                // Whatever is said of a hello that fails: nothing else is ever a success.
                for answer in answers {
                    assert!(what.starts_with("PROVE"), "{what} to {to} is answered: {answer:02x?}");
                    let header = ReplyHeader::decode(&answer).unwrap();
                    let status = answer.get(header.body_at..).unwrap_or_default();
                    assert_ne!(status, [0; 4], "a proof that is none is accepted");
                }
            }
        }
    });
}

#[test]
fn replies_sent_as_calls_are_not_taken_for_any() {
    beside("replies", Layout::Separate, async |ports, _| {
        let reply = [7_u32, 1, 0, 0, 0, 0].map(u32::to_be_bytes).concat();
        for to in ports.all() {
            let mut raw = Raw::connect(to).await;
            raw.send(&marked(&reply)).await;
            raw.finish().await;
            assert!(ends(&mut raw, &format!("a reply to {to}")).await.is_empty());
        }
    });
}

/// One host may be refused some of so many, so that it shuts out nobody; never is one of them left without either.
#[test]
fn a_thousand_connections_are_served_or_refused() {
    beside("crowd", Layout::OneProcess, async |ports, root| {
        let mut crowd = Vec::new();
        for xid in 0..CROWD as u32 {
            let mut raw = Raw::connect(ports.client).await;
            raw.send(&marked(&getattr(root, xid))).await; // It may be refused already.
            crowd.push((xid, raw));
        }
        let mut served = 0;
        for (xid, raw) in &mut crowd {
            if let Reaction::Record(reply) = raw.reaction().await {
                let header = ReplyHeader::decode(&reply).unwrap();
                assert_eq!((header.xid.0, header.status), (*xid, ReplyStatus::Success));
                served += 1;
            }
        }
        println!("{served} of {CROWD} connections are served at once");
        assert!(served >= SERVED);
        // All of them gone at once; and then as many that only come and go.
        drop(crowd);
        for _ in 0..CROWD {
            drop(Raw::connect(ports.client).await);
        }
        // The server learns of their end in its own time: until then a newcomer of this host may be refused.
        loop {
            let mut raw = Raw::connect(ports.client).await;
            raw.send(&marked(&getattr(root, 1))).await;
            if let Reaction::Record(_) = raw.reaction().await {
                break;
            }
        }
    });
}

/// The limit of open files is the process's: one multitude at a time.
static MULTITUDES: Mutex<()> = Mutex::new(());

/// Raises what this process may open; how many connections that lets it have, of `wanted`.
fn allowed(wanted: usize) -> usize {
    const OTHERS: u64 = 1000;
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX).min(wanted as u64 + OTHERS);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum }).unwrap();
    let allowed = wanted.min((most - OTHERS) as usize);
    if allowed < wanted {
        println!("this process may open {most} files: {allowed} connections, not {wanted}");
    }
    allowed
}

/// A connection from another machine: the loopback has many addresses.
async fn connect_from(host: usize, to: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 9, 0, host as u8 + 1), 0))).unwrap();
    let stream = socket.connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    Raw { stream }
}

/// Far more connections than a µproxy takes, from many hosts; every other one sends a record byte by byte and never ends it. It
/// takes some and closes the others; who was there before works on.
#[test]
fn ten_thousand_connections_and_slow_senders_harm_nobody() {
    let _alone = MULTITUDES.lock();
    let multitude = allowed(MULTITUDE);
    beside("multitude", Layout::Separate, async |ports, root| {
        let mut all = Vec::new();
        for xid in 0..multitude {
            let mut raw = connect_from(xid % HOSTS, ports.client).await;
            let call = marked(&getattr(root, xid as u32));
            let sent = if xid % 2 == 0 { &call[..] } else { &call[..5] };
            raw.send(sent).await; // It may be refused already.
            all.push((xid as u32, call, raw));
        }
        let mut slow = 0;
        for at in 5..25 {
            slow = 0;
            for (_, call, raw) in all.iter_mut().filter(|(xid, ..)| xid % 2 == 1) {
                slow += usize::from(raw.send(&call[at..=at]).await);
            }
        }
        let mut served = 0;
        for (xid, _, raw) in all.iter_mut().filter(|(xid, ..)| xid % 2 == 0) {
            if let Reaction::Record(reply) = raw.reaction().await {
                let header = ReplyHeader::decode(&reply).unwrap();
                assert_eq!((header.xid.0, header.status), (*xid, ReplyStatus::Success));
                served += 1;
            }
        }
        println!("of {multitude} connections {served} are served and {slow} slow ones are open");
        assert!(served >= SERVED);
        drop(all);
        // The µproxy learns of their end in its own time: until then a newcomer may be refused.
        loop {
            let mut raw = Raw::connect(ports.client).await;
            raw.send(&marked(&getattr(root, 1))).await;
            if let Reaction::Record(_) = raw.reaction().await {
                break;
            }
        }
    });
}

/// Idle connections from a few addresses take every place that there is; whoever comes new is let in all the same, mounts and works.
#[test]
fn ten_thousand_idle_connections_of_few_hosts_shut_nobody_out() {
    let _alone = MULTITUDES.lock();
    let multitude = allowed(MULTITUDE);
    beside("idlers", Layout::Separate, async |ports, root| {
        let mut idle = Vec::new();
        for xid in 0..multitude {
            let mut raw = connect_from(xid % IDLERS, ports.client).await;
            raw.send(&marked(&getattr(root, xid as u32))).await;
            idle.push(raw);
        }
        for round in 0..20 {
            let c = Client::connect(ports.client).await.unwrap();
            let root = c.mnt("/").await.unwrap().root;
            work(&c, &root, 2_000_000 + round).await;
            let mut waited_us = Vec::new();
            for _ in 0..100 {
                let start = Instant::now();
                c.getattr(&root).await.good();
                waited_us.push(start.elapsed().as_micros());
            }
            waited_us.sort_unstable();
            if round % 5 == 0 {
                println!("a newcomer's GETATTR: p50 {} us, p99 {} us", waited_us[50], waited_us[99]);
            }
        }
        // Those of the idle who were let go learn it, and come again if they have anything to say.
        let mut again = connect_from(0, ports.client).await;
        assert!(again.send(&marked(&getattr(root, 1))).await);
        assert!(matches!(again.reaction().await, Reaction::Record(_)));
        drop(idle);
    });
}
