//! What a kernel's hard mount does for its programs: a call is sent, and sent again with the same transaction id over
//! whatever connection there is, until it is answered. A client that speaks through it never sees a connection break.
//!
//! Each mount reaches the µproxy from an address of its own, as each machine does: the address is who a client is
//! (DESIGN §4, §10).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use slice_load::Client;
use slice_load::frame::{self, Deframer, Frame};
use slice_proto::nfs3::NfsStat3;
use slice_proto::rpc_msg::{ReplyHeader, ReplyStatus, peek_xid};
use slice_proto::xdr::Reader;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::LOOK;

/// Silence after which all that is unanswered is sent again; a second time on the same connection, then on a new one.
const RETRANSMIT_AFTER: Duration = Duration::from_secs(4);
/// Linux waits 5 s when a server says JUKEBOX, and asks again under another transaction id.
const JUKEBOX_PAUSE: Duration = Duration::from_millis(500);
/// A call that is answered by then was a pause; later, a hang.
const HANGS_AFTER: Duration = Duration::from_secs(100);
/// Room that every read is given.
const READ_CHUNK: usize = 256 << 10;

/// What a hard mount had to do, and nobody saw.
#[derive(Debug, Default)]
pub struct Endured {
    pub calls: Cell<u64>,
    pub connections: Cell<u64>,
    pub sent_again: Cell<u64>,
    pub jukebox: Cell<u64>,
    /// The longest that a call waited for its answer.
    pub longest: Cell<Duration>,
}

/// A way to the µproxy that does not end.
#[derive(Debug)]
pub struct HardMount {
    pub client: Client,
    pub endured: Rc<Endured>,
    cut: Rc<Notify>,
}

/// A call that is not answered.
struct Call {
    /// As it is sent, its transaction id included.
    record: BytesMut,
    /// The id that the client knows it by: another only after JUKEBOX.
    told: u32,
    since: Instant,
    /// Not to be sent before, where the server asked for patience.
    not_before: Option<Instant>,
}

struct Task {
    server: SocketAddr,
    from: Ipv4Addr,
    cut: Rc<Notify>,
    endured: Rc<Endured>,
    calls: BTreeMap<u64, Call>,
    count: u64,
    /// Transaction ids for calls that are asked anew.
    fresh: u32,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

impl HardMount {
    /// A mount of the µproxy at `server`, as the `nth` client. Must run within a `LocalSet`.
    pub async fn new(server: SocketAddr, nth: u8) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let (cut, endured) = (Rc::new(Notify::new()), Rc::new(Endured::default()));
        let task = Task {
            server,
            from: Ipv4Addr::new(127, 0, 7, nth),
            cut: Rc::clone(&cut),
            endured: Rc::clone(&endured),
            calls: BTreeMap::new(),
            count: 0,
            fresh: rand::random(),
        };
        tokio::task::spawn_local(async move {
            let (client, _) = listener.accept().await.unwrap();
            client.set_nodelay(true).unwrap();
            task.run(client).await;
        });
        Self { client: Client::connect(at).await.unwrap(), endured, cut }
    }

    /// Breaks its connection to the µproxy, if it has one.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }
}

/// Why a connection to the µproxy is over.
enum Over {
    /// It broke, was cut, or was silent for too long.
    Server,
    /// The client has gone.
    Client,
}

/// A stream's two halves, with what was read and not understood yet, and what is to be written.
struct Side {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    buffer: BytesMut,
    deframer: Deframer,
    out: BytesMut,
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        let (read, write) = stream.into_split();
        let buffer = BytesMut::new();
        Self { read, write, buffer, deframer: Deframer::default(), out: BytesMut::new() }
    }

    /// Whole records that there are now.
    fn records(&mut self) -> Vec<Bytes> {
        let mut all = Vec::new();
        while let Frame::Record(record) = self.deframer.next(&mut self.buffer).unwrap() {
            all.push(record);
        }
        all
    }

    fn put(&mut self, record: &[u8]) {
        frame::append(&mut self.out, |w| w.extend_from_slice(record));
    }
}

/// Reads something, or the end.
async fn read(from: &mut OwnedReadHalf, into: &mut BytesMut) -> io::Result<()> {
    into.reserve(READ_CHUNK);
    match from.read_buf(into).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

impl Task {
    async fn run(mut self, client: TcpStream) {
        let mut client = Side::new(client);
        loop {
            let server = self.connect().await;
            count(&self.endured.connections);
            let mut server = Side::new(server);
            self.send_again(&mut server);
            match self.carry(&mut client, &mut server).await {
                Over::Client => return,
                Over::Server => drop(server.write.as_ref().set_zero_linger()),
            }
        }
    }

    /// Connects as soon as somebody listens.
    async fn connect(&self) -> TcpStream {
        loop {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from((self.from, 0))).unwrap();
            if let Ok(stream) = socket.connect(self.server).await {
                stream.set_nodelay(true).unwrap();
                return stream;
            }
            self.judge();
            sleep(LOOK).await;
        }
    }

    /// Fails the test if a call hangs.
    fn judge(&self) {
        for call in self.calls.values() {
            let waits = call.since.elapsed();
            assert!(waits < HANGS_AFTER, "a call is not answered for {waits:?}: {:02x?}", &call.record[..24]);
        }
    }

    /// All that is not answered, in the order in which it was asked.
    fn send_again(&mut self, server: &mut Side) {
        for call in self.calls.values().filter(|call| call.not_before.is_none()) {
            count(&self.endured.sent_again);
            server.put(&call.record);
        }
    }

    /// Carries calls and replies while the connection lives.
    async fn carry(&mut self, client: &mut Side, server: &mut Side) -> Over {
        let cut = Rc::clone(&self.cut);
        let cut = cut.notified();
        tokio::pin!(cut);
        let (mut heard, mut silences) = (Instant::now(), 0);
        loop {
            let patience = self.calls.values().filter_map(|call| call.not_before).min();
            let wake = patience.unwrap_or(heard + RETRANSMIT_AFTER).min(heard + RETRANSMIT_AFTER);
            tokio::select! {
                () = &mut cut => return Over::Server,
                done = read(&mut client.read, &mut client.buffer) => {
                    if done.is_err() {
                        return Over::Client;
                    }
                    if self.calls.is_empty() {
                        (heard, silences) = (Instant::now(), 0);
                    }
                    for record in client.records() {
                        self.ask(&record);
                        server.put(&record);
                    }
                }
                done = read(&mut server.read, &mut server.buffer) => {
                    if done.is_err() {
                        return Over::Server;
                    }
                    (heard, silences) = (Instant::now(), 0);
                    for record in server.records() {
                        if let Some(answer) = self.answered(&record) {
                            client.put(&answer);
                        }
                    }
                }
                done = server.write.write_buf(&mut server.out), if !server.out.is_empty() => {
                    if done.is_err() {
                        return Over::Server;
                    }
                }
                done = client.write.write_buf(&mut client.out), if !client.out.is_empty() => {
                    if done.is_err() {
                        return Over::Client;
                    }
                }
                _ = timeout_at(wake, std::future::pending::<()>()) => {
                    self.judge();
                    self.ask_anew(server);
                    if heard.elapsed() >= RETRANSMIT_AFTER && !self.calls.is_empty() {
                        silences += 1;
                        if silences == 2 {
                            return Over::Server;
                        }
                        self.send_again(server);
                    }
                    if heard.elapsed() >= RETRANSMIT_AFTER {
                        heard = Instant::now();
                    }
                }
            }
        }
    }

    fn ask(&mut self, record: &[u8]) {
        count(&self.endured.calls);
        self.count += 1;
        let told = peek_xid(record).unwrap().0;
        let call = Call { record: record.into(), told, since: Instant::now(), not_before: None };
        self.calls.insert(self.count, call);
    }

    /// What the client is told, unless nobody waits for this reply any more or it asks for patience.
    fn answered(&mut self, reply: &[u8]) -> Option<BytesMut> {
        let xid = peek_xid(reply).unwrap();
        let (&at, call) = self.calls.iter_mut().find(|(_, call)| call.record[..4] == xid.0.to_be_bytes())?;
        let header = ReplyHeader::decode(reply).unwrap();
        let status = Reader::at(reply, header.body_at).u32();
        if header.status == ReplyStatus::Success && status == Ok(NfsStat3::JUKEBOX.0) {
            count(&self.endured.jukebox);
            self.fresh = self.fresh.wrapping_add(1);
            call.record[..4].copy_from_slice(&self.fresh.to_be_bytes());
            call.not_before = Some(Instant::now() + JUKEBOX_PAUSE);
            return None;
        }
        let call = self.calls.remove(&at)?;
        self.endured.longest.set(self.endured.longest.get().max(call.since.elapsed()));
        let mut answer = BytesMut::from(reply);
        answer[..4].copy_from_slice(&call.told.to_be_bytes());
        Some(answer)
    }

    /// Calls whose time has come after JUKEBOX.
    fn ask_anew(&mut self, server: &mut Side) {
        let now = Instant::now();
        for call in self.calls.values_mut().filter(|call| call.not_before.is_some_and(|at| at <= now)) {
            call.not_before = None;
            server.put(&call.record);
        }
    }
}
