//! Socket options: the one place that knows what we ask of the kernel.

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

/// Connections that wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 1024;

/// An idle connection whose peer's machine is gone is noticed after about a minute…
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// … and one with data on the way after this long.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// `count` non-blocking sockets that listen on the same address; the kernel deals connections out among them.
///
/// # Errors
/// `AddrInUse` if anybody listens there already, ourselves included.
pub(crate) fn listen(addr: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    if addr.port() != 0 {
        // SO_REUSEPORT would let a second process of the same user share the port, and split the clients between the
        // two. A socket without it finds out whether the port is free.
        tcp(addr)?.bind(&addr.into())?;
    }
    let mut addr = addr;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count.max(1) {
        let socket = tcp(addr)?;
        socket.set_reuse_port(count > 1)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        let socket = std::net::TcpListener::from(socket);
        addr = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(sockets)
}

fn tcp(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A restarted server must not wait for its old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// A non-blocking datagram socket.
pub(crate) fn datagrams(addr: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Options of every stream: no Nagle (we batch ourselves), and dead peers are found out.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

/// Raises the soft limit of open files to the hard one: every connection is an open file, and the customary soft limit
/// of 1024 is meant for programs that use select(2).
pub(crate) fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused, accepting more than the limit fails, and says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The same number for all connections of one client host, whatever their ports.
#[must_use]
pub(crate) fn hash_of_host(addr: &SocketAddr) -> u64 {
    let ip = match addr.ip() {
        // A dual-stack listener shows IPv4 clients as mapped addresses.
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 @ IpAddr::V4(_) => v4,
    };
    // Fixed keys: every listener of the process must agree.
    let mut hasher =
        std::hash::BuildHasherDefault::<std::collections::hash_map::DefaultHasher>::default().build_hasher();
    std::hash::Hash::hash(&ip, &mut hasher);
    hasher.finish()
}
