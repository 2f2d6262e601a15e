//! Whole servers. Whatever comes in on a connection, it is answered or closed, in bounded time, and nobody panics.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use slice_proto::ids::{Role, ServerId, Xid};
use slice_proto::rpc_msg::{
    FRAGMENT_LENGTH, OpaqueAuth, encode_call, peek_xid, program, record_mark, version,
};
use slice_rpc::service::{Handled, Message, Peer};

use crate::world::{judge, world, world_of_peers};

/// A server that neither answers nor closes for so long hangs. No claim on speed.
const HANGS_AFTER: Duration = Duration::from_secs(60);
/// Calls of a peer may wait for what never comes (a newer table, a hold that somebody has): their caller gives up.
const PATIENCE: Duration = Duration::from_millis(20);

/// Connects, and sends this. The server may close on us meanwhile.
fn send(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(HANGS_AFTER)).unwrap();
    let _ = stream.write_all(bytes);
    stream
}

/// Reads as much as this; false at the end of the connection.
fn read(stream: &mut TcpStream, into: &mut [u8]) -> bool {
    match stream.read_exact(into) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("neither answered nor closed in {HANGS_AFTER:?}")
        }
        done => done.is_ok(),
    }
}

/// The next reply record; `None` at the end.
fn reply(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut mark = [0; 4];
    read(stream, &mut mark).then_some(())?;
    let mut record = vec![0; (u32::from_be_bytes(mark) & FRAGMENT_LENGTH) as usize];
    read(stream, &mut record).then_some(record)
}

fn marked(record: &[u8]) -> Vec<u8> {
    [&record_mark(record.len())[..], record].concat()
}

/// A stream of bytes, and nothing more: what is whole in it is executed, the rest goes with the connection.
fn pour(to: SocketAddr, bytes: &[u8]) {
    let mut stream = send(to, bytes);
    let _ = stream.shutdown(Shutdown::Write);
    while read(&mut stream, &mut [0]) {}
}

/// A record, and a NULL behind it: that one is answered, unless the record has ended the connection.
fn call(to: SocketAddr, record: &[u8]) {
    const LAST: Xid = Xid(0xfeed_f00d);
    let mut null = BytesMut::new();
    encode_call(&mut null, LAST, program::NFS, version::NFS3, 0, &OpaqueAuth::NONE);
    let mut stream = send(to, &[marked(record), marked(&null)].concat());
    while reply(&mut stream).is_some_and(|record| peek_xid(&record) != Some(LAST)) {}
}

/// A µproxy, as a client reaches it: with an odd first byte the rest is a record, with an even one all that a connection brings.
pub fn proxy(data: &[u8]) {
    match data.split_first() {
        Some((first, record)) if first % 2 == 1 => call(world().proxy, record),
        Some((_, stream)) => pour(world().proxy, stream),
        None => pour(world().proxy, &[]),
    }
    judge();
}

/// What the µproxy answers to a record.
pub fn ask_proxy(record: &[u8]) -> Option<Vec<u8>> {
    reply(&mut send(world().proxy, &marked(record)))
}

/// A directory server: with a first byte below 128, as a stranger reaches it; else a record of a peer that has proved itself.
pub fn dirserver(data: &[u8]) {
    let world = world_of_peers();
    let (first, rest) = data.split_first().map_or((0, data), |(first, rest)| (*first, rest));
    if first < 128 {
        pour(world.dir, &if first % 2 == 1 { marked(rest) } else { rest.to_vec() });
    } else {
        let role = [Role::Proxy, Role::Dir, Role::Admin, Role::Coordinator][usize::from(first % 4)];
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let peer = Peer { addr, proved: Some((role, ServerId(u64::from(first)))) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut reply = Message::default();
            if let Handled::Later(later) = world.service.call(&peer, BytesMut::from(rest), &mut reply) {
                let _ = tokio::time::timeout(PATIENCE, later).await;
            }
        });
    }
    judge();
}
