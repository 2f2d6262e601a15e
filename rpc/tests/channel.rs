//! The client side against our own server side: both kinds of channel, order, breaks, moves, refusals.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test may stop at the first surprise

mod common;

use bytes::{Bytes, BytesMut};
use common::*;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use slice_proto::ids::{Role, ServerId};
use slice_rpc::{
    CallError, Channel, Directory, Gate, Limits, Listener, Message, Options, Placement, ReplySink, Service,
    Target, Workers, serve,
};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const SERVER: ServerId = ServerId(1);

fn listen(workers: &Workers, addr: SocketAddr, service: &Arc<Bench>) -> Listener {
    let options = Options { gate: Gate::Open, placement: Placement::Accepting, limits: Limits::peers() };
    serve(workers, addr, Arc::clone(service) as Arc<dyn Service>, options).unwrap()
}

fn to(target: Target) -> Channel {
    Channel::open(SERVER, target, None, None)
}

/// A channel of each kind to the same service.
fn both(workers: &Workers, service: &Arc<Bench>) -> [Channel; 2] {
    let listener = listen(workers, local(), service);
    [
        to(Target::Socket(listener.local_addr())),
        to(Target::InProcess(Arc::clone(service) as Arc<dyn Service>)),
    ]
}

#[test]
fn both_kinds_of_channel_give_the_same_replies() {
    run(async {
        let workers = workers(1);
        let service = Bench::new();
        let [socket, in_process] = both(&workers, &service);
        assert!(in_process.is_in_process() && !socket.is_in_process());
        let mut seed = 0x5eed_u64;
        for round in 0..300 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
            let procedure = [ECHO, BULK, YIELDS, WHO][(seed >> 33) as usize % 4];
            let len = [4, 40, 5_000, 70_000][(seed >> 40) as usize % 4];
            let args = match procedure {
                BULK => (len as u32).to_be_bytes().to_vec(),
                _ => vec![(seed >> 50) as u8 % 8; len],
            };
            let replies = [&socket, &in_process].map(|c| c.call(call(procedure, &args).into()));
            let [a, b] = <[_; 2]>::try_from(join_all(replies).await).unwrap_or_else(|_| unreachable!());
            assert_eq!(results(&a.unwrap()), results(&b.unwrap()), "procedure {procedure}, {len} bytes");
        }
        assert_eq!(socket.in_flight() + in_process.in_flight(), 0);
        workers.stop();
    });
}

#[test]
fn calls_in_parts_arrive_whole_and_replies_in_parts_stay_so_in_process() {
    run(async {
        let workers = workers(1);
        let service = Bench::new();
        for channel in both(&workers, &service) {
            let message = Message {
                head: call(ECHO, b"head"),
                body: Bytes::from(vec![7; 1 << 20]),
                tail: BytesMut::from(&b"tail"[..]),
            };
            let reply = channel.call(message).await.unwrap();
            assert_eq!(results(&reply).len(), 8 + (1 << 20));
            assert!(results(&reply).starts_with(b"head\x07") && results(&reply).ends_with(b"\x07tail"));
            let bulk = channel.call_split(call(BULK, &500_000u32.to_be_bytes()).into()).await.unwrap();
            assert_eq!(bulk.body.len(), if channel.is_in_process() { 500_000 } else { 0 });
            assert_eq!(results(&bulk.into_record()).len(), 500_004);
        }
        workers.stop();
    });
}

#[test]
fn a_thousand_calls_in_flight_each_get_their_own_reply() {
    run(async {
        let workers = workers(1);
        let service = Bench::new();
        for channel in both(&workers, &service) {
            let mut calls = FuturesUnordered::new();
            for i in 0..1000u32 {
                // The first byte decides how late the reply is.
                let args = [&[(i.wrapping_mul(2_654_435_761) >> 28) as u8][..], &i.to_be_bytes()].concat();
                let reply = channel.call(call(YIELDS, &args).into());
                calls.push(async move { (args, reply.await.unwrap()) });
            }
            let mut n = 0;
            while let Some((args, reply)) = calls.next().await {
                assert_eq!(results(&reply), args);
                n += 1;
            }
            assert_eq!((n, channel.in_flight()), (1000, 0));
        }
        workers.stop();
    });
}

#[test]
fn long_calls_pipeline() {
    run(async {
        let workers = workers(1);
        let service = Bench::new();
        for channel in both(&workers, &service) {
            let calls = (0..32u8).map(|i| channel.call(call(ECHO, &vec![i; 1 << 20]).into()));
            for (i, reply) in join_all(calls).await.into_iter().enumerate() {
                assert_eq!(results(&reply.unwrap()), vec![i as u8; 1 << 20]);
            }
        }
        workers.stop();
    });
}

#[derive(Default)]
struct Sink {
    got: RefCell<Vec<(u64, Result<BytesMut, CallError>)>>,
    news: tokio::sync::Notify,
}

impl ReplySink for Sink {
    fn on_reply(&self, token: u64, reply: Result<BytesMut, CallError>) {
        self.got.borrow_mut().push((token, reply));
        self.news.notify_one();
    }
}

impl Sink {
    async fn has(&self, n: usize) {
        while self.got.borrow().len() < n {
            self.news.notified().await;
        }
    }
}

#[test]
fn forwarded_calls_come_back_to_the_sink_with_their_tokens() {
    run(async {
        let workers = workers(1);
        let service = Bench::new();
        let listener = listen(&workers, local(), &service);
        for target in [
            Target::Socket(listener.local_addr()),
            Target::InProcess(Arc::clone(&service) as Arc<dyn Service>),
        ] {
            let sink = Rc::new(Sink::default());
            let directory = Directory::new(None);
            directory.set(SERVER, target);
            directory.channels().set_sink(Rc::clone(&sink) as Rc<dyn ReplySink>);
            let channel = directory.channel(SERVER).unwrap();
            for token in 0..100u64 {
                let procedure = if token % 2 == 0 { ECHO } else { YIELDS };
                channel.forward(call(procedure, &token.to_le_bytes()).into(), token);
            }
            if channel.is_in_process() {
                assert_eq!(sink.got.borrow().len(), 50, "what is done at once is delivered at once");
            }
            sink.has(100).await;
            for (token, reply) in sink.got.borrow_mut().drain(..) {
                assert_eq!(results(&reply.unwrap()), token.to_le_bytes());
            }
            // A call that cannot be made comes back too.
            channel.forward(Message::from(BytesMut::from(&b"short"[..])), 7);
            sink.has(1).await;
            assert_eq!(sink.got.borrow_mut().pop(), Some((7, Err(CallError::Length(5)))));
        }
        workers.stop();
    });
}

#[test]
fn a_call_waits_for_its_server_and_survives_its_restart() {
    run(async {
        let threads = workers(1);
        let service = Bench::new();
        let first = listen(&threads, local(), &service);
        let addr = first.local_addr();
        let channel = to(Target::Socket(addr));
        channel.call(call(ECHO, b"").into()).await.unwrap();
        let waiting: Vec<_> = (0..20u8).map(|i| channel.call(call(GATED, &[i]).into())).collect();
        service.has_seen(21).await;
        // The server dies with all twenty unanswered.
        threads.stop();
        drop(first);
        let more: Vec<_> = (20..40u8).map(|i| channel.call(call(GATED, &[i]).into())).collect();
        let forgotten = channel.call(call(ECHO, b"never sent").into());
        tokio::task::yield_now().await;
        drop(forgotten);
        let (threads, service) = (workers(1), Bench::new());
        service.gate.add_permits(1000);
        listen(&threads, addr, &service);
        for (i, reply) in join_all(waiting.into_iter().chain(more)).await.into_iter().enumerate() {
            assert_eq!(results(&reply.unwrap()), [i as u8]);
        }
        assert_eq!((service.count(), channel.in_flight()), (40, 0));
        threads.stop();
    });
}

#[test]
fn a_server_that_moves_is_followed() {
    run(async {
        let workers = workers(1);
        let (old, new) = (Bench::new(), Bench::new());
        let (at_old, at_new) = (listen(&workers, local(), &old), listen(&workers, local(), &new));
        let directory = Directory::new(None);
        directory.set(SERVER, Target::Socket(at_old.local_addr()));
        let channel = directory.channel(SERVER).unwrap();
        let reply = channel.call(call(GATED, b"follow").into());
        old.has_seen(1).await;
        new.gate.add_permits(1);
        directory.set(SERVER, Target::Socket(at_new.local_addr()));
        assert_eq!(results(&reply.await.unwrap()), b"follow");
        assert_eq!(new.count(), 1);
        // Into the process: that takes another channel, and the old one says so.
        let reply = channel.call(call(GATED, b"").into());
        directory.set(SERVER, Target::InProcess(Arc::clone(&new) as Arc<dyn Service>));
        assert_eq!(reply.await, Err(CallError::Gone));
        assert!(directory.channel(SERVER).unwrap().is_in_process());
        workers.stop();
    });
}

#[test]
fn a_server_that_is_removed_is_gone() {
    run(async {
        let workers = workers(1);
        let service = Bench::new();
        let listener = listen(&workers, local(), &service);
        for target in [
            Target::Socket(listener.local_addr()),
            Target::InProcess(Arc::clone(&service) as Arc<dyn Service>),
        ] {
            let directory = Directory::new(None);
            assert_eq!(directory.channel(SERVER).err(), Some(CallError::Gone));
            directory.replace([(SERVER, target)]);
            let channel = directory.channel(SERVER).unwrap();
            let before = service.count();
            let reply = channel.call(call(GATED, b"").into());
            service.has_seen(before + 1).await;
            directory.remove(SERVER);
            assert_eq!(reply.await, Err(CallError::Gone));
            assert_eq!(channel.call(call(ECHO, b"").into()).await, Err(CallError::Gone));
            assert_eq!(directory.channel(SERVER).err(), Some(CallError::Gone));
        }
        workers.stop();
    });
}

#[test]
fn an_address_where_nobody_listens_is_tried_until_somebody_does() {
    run(async {
        let workers = workers(1);
        let service = Bench::new();
        let free = std::net::TcpListener::bind(local()).unwrap();
        let addr = free.local_addr().unwrap();
        drop(free);
        let channel = to(Target::Socket(addr));
        let reply = tokio::task::spawn_local(channel.call(call(ECHO, b"patience").into()));
        tokio::time::sleep(Duration::from_millis(30)).await; // lets it fail a few times; nothing rests on how often
        listen(&workers, addr, &service);
        assert_eq!(results(&reply.await.unwrap().unwrap()), b"patience");
        workers.stop();
    });
}

#[test]
fn a_call_that_makes_the_server_close_ends_with_an_error() {
    run(async {
        let workers = workers(1);
        let service = Bench::new();
        let [socket, in_process] = both(&workers, &service);
        let other = socket.call(call(GATED, b"other").into());
        let poison = socket.call(call(CLOSE, b"").into());
        assert!(matches!(poison.await, Err(CallError::Closed(n)) if n > 1));
        service.gate.add_permits(1000);
        // The other call was sent as often, and is given up with the poison at worst; one made now passes.
        assert!(matches!(other.await, Ok(_) | Err(CallError::Closed(_))));
        assert_eq!(results(&socket.call(call(ECHO, b"on").into()).await.unwrap()), b"on");
        assert_eq!(in_process.call(call(CLOSE, b"").into()).await, Err(CallError::Closed(1)));
        // A server that closes a few times and then answers is waited for.
        service.closes_left.store(3, Ordering::SeqCst);
        socket.call(call(CLOSE, b"").into()).await.unwrap();
        workers.stop();
    });
}

#[test]
fn forgotten_calls_free_their_slots_when_their_replies_come() {
    run(async {
        let workers = workers(1);
        let service = Bench::new();
        for channel in both(&workers, &service) {
            let before = service.count();
            channel.call(call(ECHO, b"").into()).await.unwrap();
            let calls: Vec<_> = (0..100u8).map(|i| channel.call(call(GATED, &[i]).into())).collect();
            service.has_seen(before + 101).await;
            drop(calls);
            assert_eq!(channel.in_flight(), 100, "a late reply must not meet another call");
            let fresh: Vec<_> = (0..100u8).map(|i| channel.call(call(YIELDS, &[i]).into())).collect();
            service.gate.add_permits(100);
            for (i, reply) in join_all(fresh).await.into_iter().enumerate() {
                assert_eq!(results(&reply.unwrap()), [i as u8]);
            }
            while channel.in_flight() > 0 {
                tokio::task::yield_now().await;
            }
        }
        workers.stop();
    });
}

#[test]
fn a_server_that_talks_nonsense_is_left_and_tried_again() {
    run(async {
        let workers = workers(1);
        let service = Bench::new();
        let listener = listen(&workers, local(), &service);
        let nonsense: [&[u8]; 5] = [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            &[0xff; 64],
            &[0x80, 0, 0, 2, 1, 2],
            &framed(1, ECHO, b"a call"),
            &[],
        ];
        let front = tokio::net::TcpListener::bind(local()).await.unwrap();
        let channel = to(Target::Socket(front.local_addr().unwrap()));
        let reply = channel.call(call(ECHO, b"sense").into());
        for bytes in nonsense {
            let (mut stream, _) = front.accept().await.unwrap();
            tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1000]).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, bytes).await.unwrap();
        }
        // The real one, at last.
        let (mut stream, _) = front.accept().await.unwrap();
        let mut back = tokio::net::TcpStream::connect(listener.local_addr()).await.unwrap();
        tokio::task::spawn_local(async move { tokio::io::copy_bidirectional(&mut stream, &mut back).await });
        assert_eq!(results(&reply.await.unwrap()), b"sense");
        assert_eq!(results(&channel.call(call(ECHO, b"more").into()).await.unwrap()), b"more");
        workers.stop();
    });
}

#[test]
fn too_many_calls_in_flight_are_refused() {
    run(async {
        let service = Bench::new();
        let channel = to(Target::InProcess(Arc::clone(&service) as Arc<dyn Service>));
        let mut calls: Vec<_> =
            (0..slice_rpc::channel::MAX_IN_FLIGHT).map(|_| channel.call(call(GATED, b"").into())).collect();
        assert_eq!(channel.call(call(GATED, b"").into()).await, Err(CallError::Busy));
        service.gate.add_permits(1);
        futures_util::future::select_all(&mut calls).await.0.unwrap();
        channel.call(call(ECHO, b"").into()).await.unwrap();
    });
}

#[test]
fn peers_prove_themselves_and_are_known_by_name() {
    run(async {
        let workers = workers(2);
        let service = Bench::new();
        let server = me(1, Role::Block, 30);
        let listener = serve(
            &workers,
            local(),
            Arc::clone(&service) as Arc<dyn Service>,
            Options::peers(Arc::clone(&server)),
        )
        .unwrap();
        let at = Target::Socket(listener.local_addr());
        for target in [at.clone(), Target::InProcess(Arc::clone(&service) as Arc<dyn Service>)] {
            let directory = Directory::new(Some(me(1, Role::Dir, 20)));
            directory.set(ServerId(30), target);
            let reply = directory.channel(ServerId(30)).unwrap().call(call(WHO, b"").into()).await.unwrap();
            assert_eq!(results(&reply), b"dirserver 0000000000000014");
        }
        // Whoever answers will do.
        let any = Channel::open(ServerId(0), at.clone(), Some(me(1, Role::Admin, 1)), None);
        any.call(call(WHO, b"").into()).await.unwrap();
        // Another secret is told so in a sentence.
        let stranger = Channel::open(ServerId(30), at.clone(), Some(me(2, Role::Dir, 20)), None);
        match stranger.call(call(WHO, b"").into()).await {
            Err(CallError::Refused(sentence)) => assert!(sentence.contains("secret"), "{sentence}"),
            other => unreachable!("{other:?}"),
        }
        // Without a hello nothing is answered.
        let before = service.count();
        for mut raw in [Raw::connect(listener.local_addr()).await, Raw::connect(listener.local_addr()).await]
        {
            raw.send(1, ECHO, b"").await;
            assert!(raw.closed().await);
        }
        assert_eq!(service.count(), before);
        // Another server at the address is not asked; the call waits until the directory is right.
        let directory = Directory::new(Some(me(1, Role::Dir, 20)));
        let other = serve(&workers, local(), Bench::new(), Options::peers(me(1, Role::Block, 31))).unwrap();
        directory.set(ServerId(30), Target::Socket(other.local_addr()));
        let reply = directory.channel(ServerId(30)).unwrap().call(call(WHO, b"").into());
        while other.connections() == 0 {
            tokio::task::yield_now().await;
        }
        directory.set(ServerId(30), at);
        reply.await.unwrap();
        workers.stop();
    });
}

#[test]
fn hellos_bound_what_a_stranger_may_send() {
    run(async {
        let workers = workers(1);
        let listener =
            serve(&workers, local(), Bench::new(), Options::peers(me(1, Role::Block, 30))).unwrap();
        let long = [0x8000_0000u32 | 2000, 0].map(u32::to_be_bytes).concat();
        let null = |xid: u32| {
            let mut call = BytesMut::new();
            let (program, version) = (slice_proto::peer::PROGRAM, slice_proto::peer::VERSION);
            let none = slice_proto::rpc_msg::OpaqueAuth::NONE;
            slice_proto::rpc_msg::encode_call(
                &mut call,
                slice_proto::ids::Xid(xid),
                program,
                version,
                0,
                &none,
            );
            [&slice_proto::rpc_msg::record_mark(call.len())[..], &call].concat()
        };
        let mut raw = Raw::connect(listener.local_addr()).await;
        raw.write(&long).await;
        assert!(raw.closed().await);
        let mut raw = Raw::connect(listener.local_addr()).await;
        raw.write(&null(3)).await;
        assert_eq!(results(&raw.reply().await), b"");
        for xid in 0..100 {
            // It is closed at some point; what is written then is lost.
            if tokio::io::AsyncWriteExt::write_all(&mut raw.0, &null(xid)).await.is_err() {
                break;
            }
        }
        let mut answered = 0;
        while !raw.closed().await {
            answered += 1;
        }
        assert!(answered < 100 * 28, "NULLs without end");
        workers.stop();
    });
}
