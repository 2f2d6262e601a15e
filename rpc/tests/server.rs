//! The server side against raw sockets: framing, order, bounds, bad input, endings.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test may stop at the first surprise

mod common;

use common::*;
use slice_proto::rpc_msg::{peek_xid, record_mark};
use slice_rpc::framing::{MAX_FRAGMENTS, MAX_RECORD};
use slice_rpc::{Gate, Limits, Listener, Options, Placement, Service, Workers, serve, serve_udp};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

fn open(limits: Limits) -> Options {
    Options { gate: Gate::Open, placement: Placement::Accepting, limits }
}

fn start(workers: &Workers, limits: Limits) -> (Arc<Bench>, Listener) {
    let service = Bench::new();
    let listener = serve(workers, local(), Arc::clone(&service) as Arc<dyn Service>, open(limits)).unwrap();
    (service, listener)
}

/// Whether a connection of its own is answered.
async fn others_are_served(listener: &Listener) {
    let mut other = Raw::connect(listener.local_addr()).await;
    other.send(77, ECHO, b"well").await;
    let reply = other.reply().await;
    assert_eq!((peek_xid(&reply).unwrap().0, results(&reply)), (77, &b"well"[..]));
}

#[test]
fn a_stream_cut_anywhere_is_answered() {
    run(async {
        let workers = workers(1);
        let (_, listener) = start(&workers, Limits::clients());
        let mut raw = Raw::connect(listener.local_addr()).await;
        // Byte by byte, and as fragments cut within the header.
        for byte in framed(1, ECHO, b"bytewise") {
            raw.write(&[byte]).await;
            raw.0.flush().await.unwrap();
        }
        assert_eq!(results(&raw.reply().await), b"bytewise");
        let record = framed(2, ECHO, b"fragments")[4..].to_vec();
        let (a, b) = record.split_at(7);
        let (b, c) = b.split_at(20);
        let mut bytes = Vec::new();
        for (fragment, last) in [(a, 0), (&[][..], 0), (b, 0), (c, 1u32 << 31)] {
            bytes.extend_from_slice(&(last | fragment.len() as u32).to_be_bytes());
            bytes.extend_from_slice(fragment);
        }
        bytes.extend(framed(3, ECHO, b"and another"));
        raw.write(&bytes).await;
        assert_eq!(results(&raw.reply().await), b"fragments");
        assert_eq!(results(&raw.reply().await), b"and another");
        workers.stop();
    });
}

#[test]
fn the_longest_records_pass_in_both_directions() {
    run(async {
        let workers = workers(1);
        let (_, listener) = start(&workers, Limits::clients());
        let raw = Raw::connect(listener.local_addr()).await;
        let overhead = framed(0, ECHO, b"").len() - 4;
        let long = vec![42; MAX_RECORD - overhead];
        let (read, mut write) = raw.0.into_split();
        let sending = tokio::task::spawn_local(async move {
            for xid in 0..8 {
                write.write_all(&framed(xid, ECHO, &long)).await.unwrap();
                write.write_all(&framed(100 + xid, BULK, &(1u32 << 20).to_be_bytes())).await.unwrap();
            }
            write
        });
        let mut read = tokio::io::BufReader::new(read);
        for xid in 0..8 {
            let echoed = reply_of(&mut read).await;
            assert_eq!((peek_xid(&echoed).unwrap().0, results(&echoed).len()), (xid, MAX_RECORD - overhead));
            assert!(results(&echoed).iter().all(|b| *b == 42));
            let bulk = reply_of(&mut read).await;
            assert_eq!((peek_xid(&bulk).unwrap().0, results(&bulk).len()), (100 + xid, (1 << 20) + 4));
            assert!(results(&bulk).ends_with(b"tail"));
        }
        sending.await.unwrap();
        workers.stop();
    });
}

async fn reply_of(read: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    use tokio::io::AsyncReadExt;
    let mark = read.read_u32().await.unwrap();
    let mut record = vec![0; (mark & 0x7fff_ffff) as usize];
    read.read_exact(&mut record).await.unwrap();
    record
}

#[test]
fn late_replies_overtake_each_other() {
    run(async {
        let workers = workers(1);
        let (service, listener) = start(&workers, Limits::clients());
        let mut raw = Raw::connect(listener.local_addr()).await;
        let mut batch = Vec::new();
        (0..50).for_each(|xid| batch.extend(framed(xid, GATED, &[])));
        batch.extend(framed(1000, ECHO, b"first"));
        raw.write(&batch).await;
        // What waits does not hold up what does not.
        assert_eq!(peek_xid(&raw.reply().await).unwrap().0, 1000);
        service.gate.add_permits(50);
        let mut got = BTreeSet::new();
        for _ in 0..50 {
            got.insert(peek_xid(&raw.reply().await).unwrap().0);
        }
        assert_eq!(got, (0..50).collect());
        workers.stop();
    });
}

#[test]
fn bad_input_closes_its_connection_and_no_other() {
    run(async {
        let workers = workers(1);
        let (service, listener) = start(&workers, Limits::clients());
        let reply_record = [&[0u8; 4][..], &1u32.to_be_bytes(), &[0; 40]].concat();
        let version_3 = {
            let mut call = framed(1, ECHO, b"")[4..].to_vec();
            call[11] = 3;
            call
        };
        let with_mark = |record: &[u8]| [&record_mark(record.len())[..], record].concat();
        let hostile: Vec<(&str, Vec<u8>)> = vec![
            ("a record one byte too long", record_mark(MAX_RECORD + 1).to_vec()),
            ("2 GiB announced", u32::MAX.to_be_bytes().to_vec()),
            ("fragments without end", vec![0; 4 * (MAX_FRAGMENTS as usize + 1)]),
            ("fragments that add up", {
                let mut chain = Vec::new();
                for _ in 0..3 {
                    chain.extend_from_slice(&(500_000u32).to_be_bytes());
                    chain.extend(vec![0; 500_000]);
                }
                chain
            }),
            ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
            ("TLS", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[9; 64]].concat()),
            ("an empty record", with_mark(&[])),
            ("a record of three bytes", with_mark(&[1, 2, 3])),
            ("a reply", with_mark(&reply_record)),
            ("RPC version 3", with_mark(&version_3)),
            ("a call cut short", with_mark(&framed(1, ECHO, b"")[4..30])),
            ("a call that asks for it", framed(1, CLOSE, b"")),
        ];
        let mut bystander = Raw::connect(listener.local_addr()).await;
        for (what, bytes) in hostile {
            let mut raw = Raw::connect(listener.local_addr()).await;
            // The server may close before it has read everything.
            let _ = raw.0.write_all(&bytes).await;
            assert!(raw.closed().await, "{what}");
            bystander.send(5, ECHO, what.as_bytes()).await;
            assert_eq!(results(&bystander.reply().await), what.as_bytes());
        }
        others_are_served(&listener).await;
        assert!(service.count() > 0);
        workers.stop();
    });
}

#[test]
fn what_came_before_the_offence_is_answered() {
    run(async {
        let workers = workers(1);
        let (_, listener) = start(&workers, Limits::clients());
        let mut raw = Raw::connect(listener.local_addr()).await;
        let bytes = [framed(1, ECHO, b"good"), framed(2, CLOSE, b"")].concat();
        raw.write(&bytes).await;
        assert_eq!(results(&raw.reply().await), b"good");
        assert!(raw.closed().await);
        workers.stop();
    });
}

#[test]
fn pending_requests_are_bounded_and_the_rest_waits_in_the_socket() {
    run(async {
        let workers = workers(1);
        let (service, listener) = start(&workers, Limits { pending: 4, ..Limits::clients() });
        let mut raw = Raw::connect(listener.local_addr()).await;
        let mut batch = Vec::new();
        (0..100).for_each(|xid| batch.extend(framed(xid, GATED, &[])));
        raw.write(&batch).await;
        service.has_seen(4).await;
        for _ in 0..10 {
            others_are_served(&listener).await;
        }
        assert_eq!(service.count(), 4 + 10);
        service.gate.add_permits(100);
        let mut got = BTreeSet::new();
        for _ in 0..100 {
            got.insert(peek_xid(&raw.reply().await).unwrap().0);
        }
        assert_eq!(got, (0..100).collect());
        workers.stop();
    });
}

#[test]
fn pending_bytes_are_bounded_too() {
    run(async {
        let workers = workers(1);
        let (service, listener) = start(&workers, Limits { pending_bytes: 100_000, ..Limits::clients() });
        let raw = Raw::connect(listener.local_addr()).await;
        let (mut read, mut write) = raw.0.into_split();
        let sending = tokio::task::spawn_local(async move {
            for xid in 0..40 {
                write.write_all(&framed(xid, GATED, &[1; 30_000])).await.unwrap();
            }
            write
        });
        service.has_seen(4).await;
        for _ in 0..10 {
            others_are_served(&listener).await;
        }
        assert_eq!(service.count(), 4 + 10);
        service.gate.add_permits(40);
        for _ in 0..40 {
            assert_eq!(results(&reply_of(&mut read).await).len(), 30_000);
        }
        sending.await.unwrap();
        workers.stop();
    });
}

#[test]
fn who_does_not_take_replies_is_not_read_from() {
    run(async {
        const CALLS: u32 = 400;
        let workers = workers(1);
        let (service, listener) = start(&workers, Limits { unsent_bytes: 64 << 10, ..Limits::clients() });
        let mut raw = Raw::connect(listener.local_addr()).await;
        let mut batch = Vec::new();
        (0..CALLS).for_each(|xid| batch.extend(framed(xid, BULK, &(1u32 << 20).to_be_bytes())));
        raw.write(&batch).await;
        service.has_seen(1).await;
        for _ in 0..10 {
            others_are_served(&listener).await;
        }
        // The kernel's buffers hold a few replies, the server's own at most two; not hundreds of MiB.
        assert!(service.count() < CALLS as usize / 2, "{}", service.count());
        for xid in 0..CALLS {
            let reply = raw.reply().await;
            assert_eq!((peek_xid(&reply).unwrap().0, results(&reply).len()), (xid, (1 << 20) + 4));
        }
        workers.stop();
    });
}

#[test]
fn a_record_that_never_ends_is_closed_but_one_that_we_hold_up_is_not() {
    run(async {
        let workers = workers(1);
        let limits = Limits { stall: Duration::from_millis(100), pending: 1, ..Limits::clients() };
        let (service, listener) = start(&workers, limits);
        // Held up by our own bound: a whole request waits behind one that is pending.
        let mut held = Raw::connect(listener.local_addr()).await;
        held.write(&[framed(1, GATED, b""), framed(2, GATED, b"")].concat()).await;
        service.has_seen(1).await;
        // Idle between records.
        let mut idle = Raw::connect(listener.local_addr()).await;
        idle.send(3, ECHO, b"").await;
        idle.reply().await;
        for _ in 0..3 {
            let mut slow = Raw::connect(listener.local_addr()).await;
            let bytes = framed(1, ECHO, &[0; 100]);
            slow.write(&bytes[..50]).await;
            assert!(slow.closed().await);
        }
        service.gate.add_permits(2);
        held.reply().await;
        held.reply().await;
        idle.send(4, ECHO, b"").await;
        idle.reply().await;
        workers.stop();
    });
}

/// A connection from this host of the loopback network.
async fn from_host(host: u8, listener: &Listener) -> Raw {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, host], 0).into()).unwrap();
    Raw(socket.connect(listener.local_addr()).await.unwrap())
}

/// Has a connection answered, so that it is known to be served.
async fn is_served(raw: &mut Raw) {
    raw.send(1, ECHO, b"in").await;
    assert_eq!(results(&raw.reply().await), b"in");
}

#[test]
fn connections_are_bounded_and_one_with_nothing_under_way_makes_room() {
    run(async {
        let workers = workers(1);
        let (service, listener) =
            start(&workers, Limits { connections: 2, silent: Duration::ZERO, ..Limits::clients() });
        let mut busy = Raw::connect(listener.local_addr()).await;
        busy.send(9, GATED, b"under way").await;
        service.has_seen(1).await;
        let mut idle = Raw::connect(listener.local_addr()).await;
        is_served(&mut idle).await;
        let mut third = Raw::connect(listener.local_addr()).await;
        is_served(&mut third).await;
        assert!(idle.closed().await);
        third.send(9, GATED, b"under way").await;
        service.has_seen(4).await;
        // Nobody has nothing under way.
        assert!(Raw::connect(listener.local_addr()).await.closed().await);
        service.gate.add_permits(2);
        for raw in [&mut busy, &mut third] {
            assert_eq!(results(&raw.reply().await), b"under way");
        }
        others_are_served(&listener).await;
        workers.stop();
    });
}

#[test]
fn the_longest_idle_connection_of_the_host_with_most_makes_room_on_whichever_thread() {
    run(async {
        let workers = workers(3);
        let limits = Limits { connections: 5, ..Limits::clients() };
        let listener =
            serve(&workers, local(), Bench::new(), Options { limits, ..Options::clients() }).unwrap();
        let mut few = from_host(2, &listener).await;
        is_served(&mut few).await;
        let mut many = Vec::new();
        for _ in 0..4 {
            let mut raw = from_host(1, &listener).await;
            is_served(&mut raw).await;
            many.push(raw);
        }
        // Heard again: the second is silent for longest now.
        is_served(&mut many[0]).await;
        let mut newcomers = Vec::new();
        for host in 3..6 {
            let mut newcomer = from_host(host, &listener).await;
            is_served(&mut newcomer).await;
            newcomers.push(newcomer);
            assert!(many.remove(1).closed().await);
        }
        for raw in newcomers.iter_mut().chain([&mut few, &mut many[0]]) {
            is_served(raw).await;
        }
        workers.stop();
    });
}

#[test]
fn one_host_cannot_take_all_connections() {
    run(async {
        let workers = workers(1);
        let limits = Limits { connections: 10, per_host: 2, silent: Duration::ZERO, ..Limits::clients() };
        let (service, listener) = start(&workers, limits);
        let mut taken = Vec::new();
        for n in 1..=2 {
            let mut raw = Raw::connect(listener.local_addr()).await;
            raw.send(1, GATED, b"in").await;
            service.has_seen(n).await;
            taken.push(raw);
        }
        assert!(Raw::connect(listener.local_addr()).await.closed().await);
        is_served(&mut from_host(2, &listener).await).await;
        service.gate.add_permits(2);
        for raw in &mut taken {
            raw.reply().await;
        }
        // Now there is one to make room, of the same host's.
        others_are_served(&listener).await;
        assert!(taken[0].closed().await);
        is_served(&mut taken[1]).await;
        workers.stop();
    });
}

#[test]
fn who_was_heard_a_moment_ago_stays_where_its_own_host_wants_more() {
    run(async {
        let workers = workers(1);
        // Longer than any test.
        let limits = Limits { connections: 2, silent: Duration::from_secs(3600), ..Limits::clients() };
        let (_, listener) = start(&workers, limits);
        let (mut first, mut second) = (from_host(1, &listener).await, from_host(1, &listener).await);
        is_served(&mut first).await;
        is_served(&mut second).await;
        assert!(from_host(1, &listener).await.closed().await);
        is_served(&mut first).await;
        // Another host's has a right to a place.
        is_served(&mut from_host(2, &listener).await).await;
        assert!(second.closed().await);
        is_served(&mut first).await;
        workers.stop();
    });
}

#[test]
fn who_is_slow_makes_room_after_who_is_idle_and_who_has_left_after_both() {
    run(async {
        let workers = workers(1);
        let (service, listener) =
            start(&workers, Limits { connections: 3, silent: Duration::ZERO, ..Limits::clients() });
        let mut left = Raw::connect(listener.local_addr()).await;
        left.send(9, GATED, b"").await;
        service.has_seen(1).await;
        left.0.shutdown().await.unwrap();
        let mut slow = Raw::connect(listener.local_addr()).await;
        is_served(&mut slow).await;
        slow.write(&framed(2, ECHO, b"never whole")[..20]).await;
        let mut idle = Raw::connect(listener.local_addr()).await;
        is_served(&mut idle).await;
        let mut newcomers = Vec::new();
        for victim in [&mut idle, &mut slow, &mut left] {
            let mut newcomer = Raw::connect(listener.local_addr()).await;
            newcomer.send(9, GATED, b"stays").await;
            newcomers.push(newcomer);
            service.has_seen(3 + newcomers.len()).await;
            assert!(victim.closed().await);
        }
        assert!(Raw::connect(listener.local_addr()).await.closed().await);
        workers.stop();
    });
}

#[test]
fn who_sends_no_more_still_gets_what_is_pending() {
    run(async {
        let workers = workers(1);
        let (service, listener) = start(&workers, Limits::clients());
        let mut raw = Raw::connect(listener.local_addr()).await;
        let begun = &framed(3, ECHO, b"begun")[..9];
        raw.write(&[&framed(1, GATED, b"late"), &framed(2, ECHO, b"at once"), begun].concat()).await;
        raw.0.shutdown().await.unwrap();
        assert_eq!(results(&raw.reply().await), b"at once");
        others_are_served(&listener).await;
        service.gate.add_permits(1);
        assert_eq!(results(&raw.reply().await), b"late");
        assert!(raw.closed().await);
        while listener.connections() > 0 {
            tokio::task::yield_now().await;
        }
        workers.stop();
    });
}

#[test]
fn a_listener_that_stops_answers_what_is_pending() {
    run(async {
        let workers = workers(2);
        let (service, listener) = start(&workers, Limits::clients());
        let mut raw = Raw::connect(listener.local_addr()).await;
        let mut idle = Raw::connect(listener.local_addr()).await;
        idle.send(1, ECHO, b"").await;
        idle.reply().await;
        raw.send(9, GATED, b"to the end").await;
        service.has_seen(2).await;
        let stopping = {
            let listener = listener.clone();
            tokio::task::spawn_local(async move { listener.stop(Duration::from_secs(60)).await })
        };
        assert!(idle.closed().await);
        service.gate.add_permits(1);
        assert_eq!(results(&raw.reply().await), b"to the end");
        assert!(raw.closed().await);
        stopping.await.unwrap();
        assert_eq!(listener.connections(), 0);
        // The address is free again.
        let again = serve(&workers, listener.local_addr(), Bench::new(), open(Limits::clients())).unwrap();
        others_are_served(&again).await;
        workers.stop();
    });
}

#[test]
fn a_listener_does_not_wait_for_ever_for_requests_that_never_end() {
    run(async {
        let workers = workers(1);
        let (service, listener) = start(&workers, Limits::clients());
        let mut raw = Raw::connect(listener.local_addr()).await;
        raw.send(9, GATED, b"").await;
        service.has_seen(1).await;
        listener.stop(Duration::from_millis(50)).await;
        assert!(raw.closed().await);
        workers.stop();
    });
}

#[test]
fn an_address_that_is_taken_is_an_error_even_for_ourselves() {
    run(async {
        let workers = workers(2);
        let (_, listener) = start(&workers, Limits::clients());
        let error =
            serve(&workers, listener.local_addr(), Bench::new(), open(Limits::clients())).err().unwrap();
        assert!(error.to_string().contains(&listener.local_addr().to_string()), "{error}");
        workers.stop();
    });
}

#[test]
fn what_has_begun_ends_though_its_client_is_gone() {
    run(async {
        let workers = workers(1);
        let (service, listener) = start(&workers, Limits::clients());
        let mut raw = Raw::connect(listener.local_addr()).await;
        raw.send(9, GATED, b"").await;
        service.has_seen(1).await;
        drop(raw);
        others_are_served(&listener).await;
        assert_eq!(service.gate.available_permits(), 0);
        service.gate.add_permits(1);
        // The abandoned request takes its permit and gives its place back.
        while listener.connections() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(service.gate.available_permits(), 0);
        workers.stop();
    });
}

#[test]
fn datagrams_are_answered() {
    run(async {
        let workers = workers(1);
        let service = Bench::new();
        let addr = serve_udp(&workers, 0, local(), Arc::clone(&service) as Arc<dyn Service>).unwrap();
        let socket = tokio::net::UdpSocket::bind(local()).await.unwrap();
        socket.connect(addr).await.unwrap();
        let mut buffer = [0; 2048];
        // Garbage is passed over, silence is silence, and what waits is answered later.
        for bytes in [&b"garbage"[..], &[], &framed(1, SILENCE, b"")[4..], &framed(2, GATED, b"later")[4..]] {
            socket.send(bytes).await.unwrap();
        }
        socket.send(&framed(3, ECHO, b"now")[4..]).await.unwrap();
        let n = socket.recv(&mut buffer).await.unwrap();
        assert_eq!(results(&buffer[..n]), b"now");
        service.gate.add_permits(1);
        let n = socket.recv(&mut buffer).await.unwrap();
        assert_eq!(results(&buffer[..n]), b"later");
        workers.stop();
    });
}
