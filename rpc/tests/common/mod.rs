//! What the tests of the engine share: a service with a bit of everything, raw clients, a runtime.
#![allow(dead_code)] // each test program uses a part of it
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may stop at the first surprise

use bytes::{Bytes, BytesMut};
use slice_proto::ids::{EnsembleId, Role, ServerId, Xid};
use slice_proto::rpc_msg::{
    CallHeader, OpaqueAuth, ReplyHeader, encode_call, encode_success, patch_xid, record_mark,
};
use slice_proto::secret::Identity;
use slice_rpc::{Handled, Me, Message, Peer, Service, Workers};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::watch;

pub const PROGRAM: u32 = 0x2000_0007;

/// Procedures of [`Bench`].
pub const ECHO: u32 = 0;
/// As ECHO, but waits for a permit of the gate.
pub const GATED: u32 = 1;
/// Replies with as many bytes as the argument says, in parts.
pub const BULK: u32 = 2;
/// Closes the connection.
pub const CLOSE: u32 = 3;
/// Says nothing.
pub const SILENCE: u32 = 4;
/// Who calls, as role and id.
pub const WHO: u32 = 5;
/// As ECHO, but after as many yields as the first byte of the argument says.
pub const YIELDS: u32 = 6;

/// A service that does what its caller says, and counts.
pub struct Bench {
    pub gate: Arc<Semaphore>,
    pub calls: AtomicUsize,
    pub seen: watch::Sender<usize>,
    pub closes_left: AtomicUsize,
}

impl Bench {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: Arc::new(Semaphore::new(0)),
            calls: AtomicUsize::new(0),
            seen: watch::Sender::new(0),
            closes_left: AtomicUsize::new(usize::MAX),
        })
    }

    /// Waits until `n` calls have come in.
    pub async fn has_seen(&self, n: usize) {
        self.seen.subscribe().wait_for(|seen| *seen >= n).await.unwrap();
    }

    pub fn count(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Service for Bench {
    fn call(&self, peer: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        assert!(reply.is_empty());
        let n = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.send_if_modified(|s| {
            *s = n.max(*s);
            true
        });
        let Ok(call) = CallHeader::decode(&record) else { return Handled::Close };
        let args = &record[call.args_at..];
        match call.proc {
            ECHO => {
                encode_success(&mut reply.head, call.xid);
                reply.head.extend_from_slice(args);
                Handled::Done
            }
            GATED => {
                let (xid, args, gate) = (call.xid, args.to_vec(), Arc::clone(&self.gate));
                Handled::Later(Box::pin(async move {
                    gate.acquire().await.unwrap().forget();
                    echo(xid, &args)
                }))
            }
            YIELDS => {
                let (xid, args) = (call.xid, args.to_vec());
                Handled::Later(Box::pin(async move {
                    for _ in 0..args[0] {
                        tokio::task::yield_now().await;
                    }
                    echo(xid, &args)
                }))
            }
            BULK => {
                let len = u32::from_be_bytes(args[..4].try_into().unwrap()) as usize;
                encode_success(&mut reply.head, call.xid);
                reply.body = Bytes::from(vec![len as u8; len]);
                reply.tail.extend_from_slice(b"tail");
                Handled::Done
            }
            CLOSE if self.closes_left.fetch_sub(1, Ordering::SeqCst) > 0 => Handled::Close,
            CLOSE => {
                encode_success(&mut reply.head, call.xid);
                Handled::Done
            }
            SILENCE => Handled::Done,
            WHO => {
                encode_success(&mut reply.head, call.xid);
                if let Some((role, server)) = peer.proved {
                    reply.head.extend_from_slice(format!("{role} {server}").as_bytes());
                }
                Handled::Done
            }
            _ => Handled::Close,
        }
    }
}

fn echo(xid: Xid, args: &[u8]) -> Message {
    let mut head = BytesMut::new();
    encode_success(&mut head, xid);
    head.extend_from_slice(args);
    head.into()
}

/// A call record.
pub fn call(procedure: u32, args: &[u8]) -> BytesMut {
    let mut record = BytesMut::new();
    encode_call(&mut record, Xid(0), PROGRAM, 1, procedure, &OpaqueAuth::NONE);
    record.extend_from_slice(args);
    record
}

/// The results in a reply record.
pub fn results(reply: &[u8]) -> &[u8] {
    &reply[ReplyHeader::decode(reply).unwrap().body_at..]
}

pub fn local() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

pub fn me(secret: u8, role: Role, server: u64) -> Arc<Me> {
    let identity = Identity { ensemble: EnsembleId(5), secret: [secret; 32] };
    Arc::new(Me { identity, role, server: ServerId(server) })
}

pub fn workers(n: usize) -> Workers {
    Workers::start("test", n).unwrap()
}

/// Runs a test on a thread as the workers' are. A test that hangs has failed.
pub fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test hangs")
    })
}

/// A client without our engine.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    pub async fn send(&mut self, xid: u32, procedure: u32, args: &[u8]) {
        let bytes = framed(xid, procedure, args);
        self.write(&bytes).await;
    }

    /// The next reply record.
    pub async fn reply(&mut self) -> Vec<u8> {
        let mark = self.0.read_u32().await.unwrap();
        assert!(mark >> 31 == 1, "our replies are one fragment");
        let mut record = vec![0; (mark & 0x7fff_ffff) as usize];
        self.0.read_exact(&mut record).await.unwrap();
        record
    }

    /// Whether the server has closed the connection (rather than said something).
    pub async fn closed(&mut self) -> bool {
        let mut byte = [0];
        matches!(self.0.read(&mut byte).await, Ok(0) | Err(_))
    }
}

/// A call with its record mark.
pub fn framed(xid: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
    let mut record = call(procedure, args);
    patch_xid(&mut record, Xid(xid));
    [&record_mark(record.len())[..], &record].concat()
}
