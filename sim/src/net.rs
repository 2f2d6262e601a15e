//! Connections, and what becomes of what is on its way.
//!
//! A connection delivers records in order, each way, each after a delay of its own drawing; different connections do not
//! wait for each other. One that is cut loses what is on its way: of the requests some first ones may still arrive, no
//! reply does. Whoever has called connects again, with pauses, and sends again what is unanswered, as `rpc`'s channels do
//! (`rpc/src/channel/link.rs`). Servers are called by record, as `rpc`'s in-process channel calls them; µproxies get their
//! clients' records as a byte stream, as from a socket.

use crate::world::{Host, MS, Ns, World, world};
use bytes::{Bytes, BytesMut};
use rand::Rng;
use slice_proto::rpc_msg::{peek_xid, record_mark};
use slice_rpc::{Handled, Limits, Message, Peer, Service, serve_stream};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// A life of the server or µproxy of a node.
    Node(usize, u64),
    /// A client.
    Client(usize),
}

/// A connection, or rather all that follow each other between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Who has made it.
    pub from: Party,
    /// The node that it leads to.
    pub to: usize,
}

/// Records that came before a cut and still arrive, at most.
const TAIL: u64 = 8;
/// Pauses between tries to connect.
const FIRST_PAUSE: Ns = 5 * MS;
const LONGEST_PAUSE: Ns = 1_000 * MS;

struct Call {
    record: Bytes,
    answer: oneshot::Sender<Message>,
}

#[derive(Default)]
struct Conn {
    /// Counts connections.
    epoch: u64,
    up: bool,
    connecting: bool,
    /// Its caller is gone: nobody connects again.
    dead: bool,
    tries: u32,
    /// When the last record that is on its way arrives.
    free_to: Ns,
    free_back: Ns,
    calls: BTreeMap<u64, Call>,
    next: u64,
    /// Records sent on this connection.
    sent: u64,
    /// Of the connection before: what still arrives.
    tail: Option<(u64, u64)>,
    /// Into a µproxy's stream.
    inbox: Option<mpsc::UnboundedSender<Bytes>>,
}

/// What is between the nodes.
#[derive(Default)]
pub struct Net {
    conns: BTreeMap<Key, Conn>,
    /// Pairs that do not reach each other. Clients stand behind the nodes.
    parted: BTreeSet<(usize, usize)>,
    /// Everything is slow until then.
    pub slow_until: Ns,
}

/// How a life of one node reaches another: what stands in its directory of servers.
#[derive(Debug)]
pub struct Link {
    /// The connection.
    pub key: Key,
}

impl Service for Link {
    fn call(&self, _: &Peer, record: BytesMut, _: &mut Message) -> Handled {
        let answer = world().submit(self.key, None, record.freeze());
        // It ends without an answer only with the world.
        Handled::Later(Box::pin(async move { answer.await.unwrap_or_default() }))
    }
}

impl World {
    fn end_of(&self, party: Party) -> usize {
        match party {
            Party::Node(node, _) => node,
            Party::Client(client) => self.nodes.len() + client,
        }
    }

    fn parted(&self, key: Key) -> bool {
        let (a, b) = (self.end_of(key.from), key.to);
        self.net.borrow().parted.contains(&(a.min(b), a.max(b)))
    }

    /// Two ends do not reach each other any more, or do again.
    pub fn part(self: &Rc<Self>, a: usize, b: usize, parted: bool) {
        let pair = (a.min(b), a.max(b));
        if !parted {
            self.net.borrow_mut().parted.remove(&pair);
            return;
        }
        self.net.borrow_mut().parted.insert(pair);
        for key in self.keys(|key| key.to == pair.0 || key.to == pair.1) {
            if self.parted(key) {
                self.cut(key);
            }
        }
    }

    /// All reach each other.
    pub fn heal_net(&self) {
        let mut net = self.net.borrow_mut();
        net.parted.clear();
        net.slow_until = 0;
    }

    fn keys(&self, which: impl Fn(&Key) -> bool) -> Vec<Key> {
        self.net.borrow().conns.keys().copied().filter(which).collect()
    }

    /// Connections that are there.
    #[must_use]
    pub fn connections(&self) -> Vec<Key> {
        self.net.borrow().conns.iter().filter(|(_, c)| c.up).map(|(k, _)| *k).collect()
    }

    fn delay(&self) -> Ns {
        let slow = self.net.borrow().slow_until > self.now();
        self.draw(|rng| match rng.random_range(0..1000) {
            _ if slow => rng.random_range(0..400 * MS),
            0..700 => rng.random_range(0..2 * MS),
            700..950 => rng.random_range(0..15 * MS),
            950..995 => rng.random_range(0..100 * MS),
            _ => rng.random_range(0..1_000 * MS),
        })
    }

    fn with<T>(&self, key: Key, f: impl FnOnce(&mut Conn) -> T) -> T {
        f(self.net.borrow_mut().conns.entry(key).or_default())
    }

    /// Makes a call, under a number of the caller's or the next one. The answer comes once, however often it is sent.
    pub fn submit(
        self: &Rc<Self>,
        key: Key,
        number: Option<u64>,
        record: Bytes,
    ) -> oneshot::Receiver<Message> {
        let (tx, rx) = oneshot::channel();
        let (number, up) = self.with(key, |c| {
            c.next += 1;
            let number = number.unwrap_or(c.next);
            c.calls.insert(number, Call { record, answer: tx });
            (number, c.up)
        });
        if up {
            self.transmit(key, number)
        } else {
            self.connect(key)
        }
        rx
    }

    /// Sends a call once more, if it is unanswered.
    pub fn transmit(self: &Rc<Self>, key: Key, number: u64) {
        let delay = self.delay();
        let now = self.now();
        let sent = self.with(key, |c| {
            let call = c.calls.get(&number).filter(|_| c.up)?;
            let record = call.record.clone();
            c.free_to = c.free_to.max(now + delay);
            c.sent += 1;
            Some((c.epoch, c.sent, c.free_to, record))
        });
        if let Some((epoch, order, when, record)) = sent {
            self.at(when, move |w| w.arrive(key, epoch, order, number, &record));
        }
    }

    fn arrive(self: &Rc<Self>, key: Key, epoch: u64, order: u64, number: u64, record: &Bytes) {
        let (current, inbox) = self.with(key, |c| {
            let tail = c.tail.is_some_and(|(old, upto)| old == epoch && order <= upto);
            (tail || (c.up && c.epoch == epoch), c.inbox.clone())
        });
        let node = &self.nodes[key.to];
        let host = node.host.borrow().clone();
        match (host, current) {
            (Some(Host::Server(service)), true) => {
                self.note(|| format!("{key:?} #{number} arrives at {}, {} bytes", node.name, record.len()));
                let record = BytesMut::from(&record[..]);
                let proved = match key.from {
                    Party::Node(from, _) => Some((self.nodes[from].role, self.nodes[from].id)),
                    Party::Client(_) => None,
                };
                let peer = Peer { addr: SocketAddr::from(([10, 1, 0, 1], 1)), proved };
                let task = async move {
                    let mut reply = Message::default();
                    let reply = match service.call(&peer, record, &mut reply) {
                        Handled::Done => reply,
                        Handled::Later(later) => later.await,
                        Handled::Close | Handled::Detached => panic!("a server closes a peer's connection"),
                    };
                    world().answer(key, epoch, number, reply);
                };
                if let Some(set) = &*node.set.borrow() {
                    drop(set.spawn_local(task));
                }
            }
            (Some(Host::Proxy(_)), true) => {
                self.note(|| format!("{key:?} #{number} arrives at {}, {} bytes", node.name, record.len()));
                // A stream that its µproxy has closed takes nothing: the caller's patience ends it.
                let _ = inbox.map(|inbox| inbox.send(record.clone()));
            }
            _ => {}
        }
    }

    /// A call is answered, as far as its server is concerned.
    fn answer(self: &Rc<Self>, key: Key, epoch: u64, number: u64, reply: Message) {
        let (delay, now) = (self.delay(), self.now());
        let when = self.with(key, |c| {
            c.free_back = c.free_back.max(now + delay);
            c.free_back
        });
        self.at(when, move |w| {
            let call = w.with(key, |c| if c.up && c.epoch == epoch { c.calls.remove(&number) } else { None });
            if let Some(call) = call {
                w.note(|| format!("{key:?} #{number} answered, {} bytes", reply.len()));
                w.with(key, |c| c.tries = 0);
                // A caller that is gone wants nothing.
                let _ = call.answer.send(reply);
                w.answered(key.to);
            }
        });
    }

    /// An answer of a node has arrived. It may have been its last.
    fn answered(self: &Rc<Self>, node: usize) {
        let doom = self.nodes[node].doom.take();
        match doom {
            Some((0, strike)) => self.at(self.now(), |_| strike()),
            Some((more, strike)) => *self.nodes[node].doom.borrow_mut() = Some((more - 1, strike)),
            None => {}
        }
    }

    /// Sees to it that there is a connection soon.
    fn connect(self: &Rc<Self>, key: Key) {
        let tries = self.with(key, |c| {
            let start = !c.connecting && !c.dead && !c.up;
            c.connecting |= start;
            start.then_some(c.tries)
        });
        let Some(tries) = tries else { return };
        let longest = if tries == 0 { 2 * MS } else { (FIRST_PAUSE << tries.min(10)).min(LONGEST_PAUSE) };
        let pause = self.draw(|rng| rng.random_range(longest / 2..=longest));
        self.after(pause, move |w| w.try_connect(key));
    }

    fn try_connect(self: &Rc<Self>, key: Key) {
        let open = self.nodes[key.to].host.borrow().is_some() && !self.parted(key);
        let epoch = self.with(key, |c| {
            c.connecting = false;
            c.tries += 1;
            if c.dead || c.up || !open {
                return None;
            }
            c.up = true;
            c.epoch += 1;
            (c.sent, c.free_to, c.free_back) = (0, 0, 0);
            Some(c.epoch)
        });
        let Some(epoch) = epoch else {
            return self.connect(key);
        };
        self.note(|| format!("{key:?} connected"));
        self.open_stream(key, epoch);
        let numbers: Vec<u64> = self.with(key, |c| c.calls.keys().copied().collect());
        numbers.into_iter().for_each(|number| self.transmit(key, number));
    }

    /// A connection breaks.
    pub fn cut(self: &Rc<Self>, key: Key) {
        let left = self.draw(|rng| if rng.random() { rng.random_range(0..TAIL) } else { TAIL });
        let cut = self.with(key, |c| {
            let up = std::mem::take(&mut c.up);
            if up {
                c.tail = Some((c.epoch, c.sent.saturating_sub(left)));
                c.inbox = None;
            }
            up
        });
        if cut {
            self.note(|| format!("{key:?} cut"));
            self.connect(key);
        }
    }

    /// A node is gone: its callers have lost their connections, and those it called their caller.
    pub fn lose(self: &Rc<Self>, node: usize) {
        for key in self.keys(|key| key.to == node) {
            self.cut(key);
            self.with(key, |c| c.tail = None);
        }
        for key in self.keys(|key| matches!(key.from, Party::Node(from, _) if from == node)) {
            let calls = self.with(key, |c| {
                c.dead = true;
                std::mem::take(&mut c.calls)
            });
            // Outside the borrow: their ends may wake somebody.
            drop(calls);
            self.cut(key);
        }
    }

    fn open_stream(self: &Rc<Self>, key: Key, epoch: u64) {
        let node = &self.nodes[key.to];
        let Some(Host::Proxy(service)) = node.host.borrow().clone() else { return };
        let Party::Client(client) = key.from else { panic!("only clients call a µproxy") };
        let addr = client_addr(client);
        let (near, far) = tokio::io::duplex(1 << 22);
        let (tx, mut rx) = mpsc::unbounded_channel::<Bytes>();
        self.with(key, |c| c.inbox = Some(tx));
        let (mut read, mut write) = tokio::io::split(near);
        let feed = async move {
            while let Some(record) = rx.recv().await {
                let record = [&record_mark(record.len()), &record[..]].concat();
                if write.write_all(&record).await.is_err() {
                    break;
                }
            }
            // It may have closed it first.
            let _ = write.shutdown().await;
        };
        let drain = async move {
            while let Ok(mark) = read.read_u32().await {
                assert!(mark & 0x8000_0000 != 0, "a reply in fragments");
                let mut record = vec![0; (mark & 0x7fff_ffff) as usize];
                if read.read_exact(&mut record).await.is_err() {
                    break;
                }
                let number = peek_xid(&record).expect("a reply has an xid").0;
                world().answer(key, epoch, number.into(), BytesMut::from(&record[..]).into());
            }
        };
        let peer = Peer { addr: SocketAddr::from((addr, 900)), proved: None };
        let serve = serve_stream(far, peer, service, Limits::clients());
        if let Some(set) = &*node.set.borrow() {
            drop(set.spawn_local(async move {
                tokio::join!(serve, feed, drain);
            }));
        }
    }
}

/// A client's address, by which servers know it.
#[must_use]
pub fn client_addr(client: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, client as u8 + 1))
}
