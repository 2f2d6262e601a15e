//! RPC over UDP (RFC 5531 section 11: no record mark, one message a datagram): portmap and MOUNT, which stock clients
//! ask that way.

use crate::error::Error;
use crate::service::{Handled, Message, Peer, Service};
use crate::socket;
use crate::worker::Workers;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::UdpSocket;

/// Longest datagram that we read: portmap and MOUNT calls, with the largest credentials (RFC 5531 section 8.2), are
/// well below.
const MAX_DATAGRAM: usize = 8 << 10;

/// Requests that wait for their reply; more are dropped, as UDP may.
const MAX_PENDING: usize = 64;

/// Serves `service` to datagrams at `addr`, on thread `worker`. Returns the address bound.
///
/// # Errors
/// [`Error::Listen`] if the address is taken or not ours.
pub fn serve_udp(
    workers: &Workers,
    worker: usize,
    addr: SocketAddr,
    service: Arc<dyn Service>,
) -> Result<SocketAddr, Error> {
    let socket = socket::datagrams(addr).map_err(|source| Error::Listen { addr, source })?;
    let addr = socket.local_addr()?;
    workers.spawn_on(worker, move || async move {
        match UdpSocket::from_std(socket) {
            Ok(socket) => run(&socket, &*service).await,
            Err(error) => tracing::error!(%addr, %error, "cannot watch the datagram socket"),
        }
    });
    Ok(addr)
}

async fn run(socket: &UdpSocket, service: &dyn Service) {
    let mut later = FuturesUnordered::new();
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut reply = Message::default();
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                // Errors are those of earlier sends (port unreachable): the next datagram is as good as ever.
                let Ok((len, addr)) = received else { continue };
                let record = BytesMut::from(buffer.get(..len).unwrap_or_default());
                match service.call(&Peer { addr, proved: None }, record, &mut reply) {
                    Handled::Done => send(socket, std::mem::take(&mut reply), addr).await,
                    Handled::Later(f) if later.len() < MAX_PENDING => later.push(async move { (f.await, addr) }),
                    Handled::Later(_) | Handled::Close | Handled::Detached => reply = Message::default(),
                }
            }
            Some((message, addr)) = later.next() => send(socket, message, addr).await,
        }
    }
}

async fn send(socket: &UdpSocket, message: Message, addr: SocketAddr) {
    let datagram: Bytes = message.into_record().freeze();
    if !datagram.is_empty() {
        // Lost datagrams are asked for again.
        let _ = socket.send_to(&datagram, addr).await;
    }
}
