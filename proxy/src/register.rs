//! Registration with a port mapper that runs already (RFC 1833): rpcbind version 4 over its UNIX socket, where it knows
//! who asks, else portmap version 2 over loopback UDP, which most accept from privileged ports only.

use crate::portmapper::Registration;
use bytes::BytesMut;
use slice_proto::ids::Xid;
use slice_proto::portmap::{IPPROTO_TCP, IPPROTO_UDP, Mapping, PORT, Rpcb, netid, proc2, proc3, uaddr};
use slice_proto::rpc_msg::{
    AuthSys, Cred, FRAGMENT_LENGTH, OpaqueAuth, RECORD_MARK_LEN, ReplyHeader, ReplyStatus, encode_call,
    program, record_mark, version,
};
use slice_proto::xdr::{Encode, Reader};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UdpSocket, UnixStream};

/// Where rpcbind listens for local registrations.
const SOCKETS: [&str; 2] = ["/run/rpcbind.sock", "/var/run/rpcbind.sock"];
/// A port mapper that does not answer within this time is not going to.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest reply that is read: SET's is 28 bytes.
const MAX_REPLY: usize = 4096;

/// Registers services; what fails is logged with what to do.
pub(crate) async fn register(services: &[Registration]) {
    unregister(services).await;
    for service in services {
        match set(service, true).await {
            Ok(true) => {}
            Ok(false) => tracing::warn!(
                prog = service.prog,
                vers = service.vers,
                "the port mapper refused our registration: mount with -o port= and mountport=, or start as root"
            ),
            Err(error) => tracing::warn!(
                prog = service.prog, vers = service.vers, %error,
                "no port mapper took our registration: mount with -o port= and mountport="
            ),
        }
    }
}

/// Takes registrations back.
pub(crate) async fn unregister(services: &[Registration]) {
    for service in services {
        // Not registered is as good as unregistered.
        let _ = set(service, false).await;
    }
}

async fn set(service: &Registration, set: bool) -> io::Result<bool> {
    for path in SOCKETS {
        if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, over_unix(path, service, set)).await {
            return Ok(answer);
        }
    }
    tokio::time::timeout(PATIENCE, over_udp(service, set)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

async fn over_unix(path: &str, service: &Registration, set: bool) -> io::Result<bool> {
    let mut stream = UnixStream::connect(path).await?;
    let addr = uaddr(service.addr);
    let args = Rpcb {
        prog: service.prog,
        vers: service.vers,
        netid: netid(service.addr.ip(), service.tcp).as_bytes(),
        addr: addr.as_bytes(),
        owner: b"slice",
    };
    let mut call = BytesMut::new();
    let proc = if set { proc3::SET } else { proc3::UNSET };
    let cred = AuthSys { stamp: 0, machine: b"", cred: Cred::ROOT };
    encode_call(&mut call, Xid(1), program::PORTMAP, version::RPCBIND4, proc, &cred);
    args.encode(&mut call);
    stream.write_all(&record_mark(call.len())).await?;
    stream.write_all(&call).await?;
    let mut mark = [0; RECORD_MARK_LEN];
    stream.read_exact(&mut mark).await?;
    let len = (u32::from_be_bytes(mark) & FRAGMENT_LENGTH) as usize;
    let mut reply = vec![0; len.min(MAX_REPLY)];
    stream.read_exact(&mut reply).await?;
    answer(&reply)
}

async fn over_udp(service: &Registration, set: bool) -> io::Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))).await?;
    let args = Mapping {
        prog: service.prog,
        vers: service.vers,
        prot: if service.tcp { IPPROTO_TCP } else { IPPROTO_UDP },
        port: u32::from(service.addr.port()),
    };
    let mut call = BytesMut::new();
    let proc = if set { proc2::SET } else { proc2::UNSET };
    encode_call(&mut call, Xid(1), program::PORTMAP, version::PORTMAP2, proc, &OpaqueAuth::NONE);
    args.encode(&mut call);
    socket.send(&call).await?;
    let mut reply = vec![0; MAX_REPLY];
    let len = socket.recv(&mut reply).await?;
    answer(reply.get(..len).unwrap_or_default())
}

fn answer(reply: &[u8]) -> io::Result<bool> {
    let bad = |_| io::Error::from(io::ErrorKind::InvalidData);
    let header = ReplyHeader::decode(reply).map_err(bad)?;
    if header.status != ReplyStatus::Success {
        return Ok(false);
    }
    Reader::at(reply, header.body_at).bool().map_err(bad)
}
