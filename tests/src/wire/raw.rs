//! Records and sockets below any client: for retransmissions, other programs, and nonsense.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use slice_load::Error;
use slice_load::conn::{Conn, Reply};
use slice_proto::ids::Xid;
use slice_proto::rpc_msg::{AuthSys, Cred, OpaqueAuth, encode_call, record_mark};
use slice_proto::xdr::Encode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// A call record without its mark.
#[must_use]
pub fn call(xid: u32, prog: u32, vers: u32, proc: u32, cred: Cred, args: &impl Encode) -> Vec<u8> {
    let mut w = BytesMut::new();
    encode_call(&mut w, Xid(xid), prog, vers, proc, &AuthSys { stamp: 0, machine: b"slice-tests", cred });
    args.encode(&mut w);
    w.to_vec()
}

/// A call without a credential.
#[must_use]
pub fn call_none(xid: u32, prog: u32, vers: u32, proc: u32, args: &impl Encode) -> Vec<u8> {
    let mut w = BytesMut::new();
    encode_call(&mut w, Xid(xid), prog, vers, proc, &OpaqueAuth::NONE);
    args.encode(&mut w);
    w.to_vec()
}

/// Bytes that are arguments already.
#[derive(Debug, Clone, Copy)]
pub struct Verbatim<'a>(pub &'a [u8]);

impl Encode for Verbatim<'_> {
    fn encode(&self, w: &mut BytesMut) {
        w.put_slice(self.0);
    }
}

/// Sends a record as it is, and returns the whole reply record.
pub async fn send(conn: &Conn, record: &[u8]) -> Result<Bytes, Error> {
    conn.start_record(record)?.await
}

/// A call of any program with AUTH_NONE.
pub async fn ask(conn: &Conn, prog: u32, vers: u32, proc: u32, args: &impl Encode) -> Result<Reply, Error> {
    conn.start(prog, vers, proc, &OpaqueAuth::NONE, args).reply().await
}

/// A call over UDP, asked again until it is answered: datagrams may be lost.
pub async fn ask_udp(to: SocketAddr, record: &[u8]) -> Reply {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    socket.connect(to).await.unwrap();
    let mut buffer = vec![0; 65_536];
    loop {
        socket.send(record).await.unwrap();
        let answer = tokio::time::timeout(std::time::Duration::from_secs(2), socket.recv(&mut buffer)).await;
        match answer {
            Ok(Ok(len)) => return Reply::new(Bytes::copy_from_slice(&buffer[..len])).unwrap(),
            Ok(Err(error)) => panic!("over UDP to {to}: {error}"),
            Err(_) => {}
        }
    }
}

/// A record with its mark.
#[must_use]
pub fn marked(record: &[u8]) -> Vec<u8> {
    [&record_mark(record.len()), record].concat()
}

/// A socket on which anything can be said.
#[derive(Debug)]
pub struct Raw {
    pub stream: TcpStream,
}

/// What a server does with what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// It answers with this record.
    Record(Vec<u8>),
    /// It closes the connection, in good order or not.
    Closed,
}

impl Raw {
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Sends; true unless the server has closed the connection meanwhile.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Says that nothing more comes.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await; // It has closed the connection first.
    }

    /// Waits for a whole record, or the end.
    pub async fn reaction(&mut self) -> Reaction {
        let mut record = Vec::new();
        loop {
            let Ok(mark) = self.stream.read_u32().await else { return Reaction::Closed };
            let mut part = vec![0; (mark & 0x7fff_ffff) as usize];
            if self.stream.read_exact(&mut part).await.is_err() {
                return Reaction::Closed;
            }
            record.extend(part);
            if mark & 0x8000_0000 != 0 {
                return Reaction::Record(record);
            }
        }
    }

    /// Reads until the end; the records that came before it.
    pub async fn until_closed(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Reaction::Record(record) = self.reaction().await {
            all.push(record);
        }
        all
    }
}
