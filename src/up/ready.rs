//! Whether the mount works, asked as a client asks: MNT (RFC 1813 section 5.2.1) at the µproxy's own address.

use crate::error::{Error, Result};
use bytes::BytesMut;
use slice_coordinator::client::Client;
use slice_proto::ids::{ServerId, Xid};
use slice_proto::rpc_msg::{OpaqueAuth, ReplyHeader, ReplyStatus, encode_call, program, version};
use slice_proto::xdr::{Put, Reader};
use slice_rpc::{Channel, Message, Target};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// MOUNTPROC3_MNT.
const MNT: u32 = 1;
/// MNT3ERR_ACCES: the export rules do not let this machine in, but the µproxy is up.
const ACCES: u32 = 13;
/// Pause before asking again: the µproxy has no table yet, and nothing tells when it has.
const PAUSE: Duration = Duration::from_millis(20);

/// Resolves when the µproxy at `addr` answers MNT of `path`. Waits for ever; inside a `LocalSet`.
///
/// # Errors
/// A sentence if who answers there is no NFS server.
pub async fn mounted(addr: SocketAddr, path: &str) -> Result<()> {
    let addr = reachable(addr);
    let channel = Channel::open(ServerId(0), Target::Socket(addr), None, None);
    loop {
        let mut call = BytesMut::new();
        encode_call(&mut call, Xid(0), program::MOUNT, version::MOUNT3, MNT, &OpaqueAuth::NONE);
        call.put_opaque(path.as_bytes());
        let no_server = |_| Error::usage(format!("what answers at {addr} is no NFS server"));
        let reply = channel.call(Message::from(call)).await.map_err(no_server)?;
        let header = ReplyHeader::decode(&reply).ok().filter(|h| h.status == ReplyStatus::Success);
        let status = header.and_then(|h| Reader::at(&reply, h.body_at).u32().ok());
        if matches!(status, Some(0 | ACCES)) {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Resolves when every server of the ensemble has registered since the coordinator started. Waits for ever.
///
/// # Errors
/// A sentence if the coordinator will not say.
pub async fn all_heard(client: &Client) -> Result<()> {
    loop {
        match client.status().await {
            Ok(status) if status.servers.iter().all(|s| s.heartbeat_age_ms.is_some()) => return Ok(()),
            Err(error) if !error.is_passing() => return Err(error.into()),
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// An address of this machine for one that means every address.
#[must_use]
pub fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// The command that mounts what listens at `addr`.
#[must_use]
pub fn mount_command(addr: SocketAddr, path: &str) -> String {
    let (at, port) = (reachable(addr), addr.port());
    let (proto, host) = match at.ip() {
        IpAddr::V4(ip) => ("tcp", ip.to_string()),
        IpAddr::V6(ip) => ("tcp6", format!("[{ip}]")),
    };
    let mountproto = if proto == "tcp" { "" } else { ",mountproto=tcp6" };
    format!(
        "mount -t nfs -o vers=3,proto={proto},port={port},mountport={port}{mountproto},nolock {host}:{path} /mnt"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_command_is_one_that_works() {
        assert_eq!(
            mount_command(([0, 0, 0, 0], 2049).into(), "/"),
            "mount -t nfs -o vers=3,proto=tcp,port=2049,mountport=2049,nolock 127.0.0.1:/ /mnt"
        );
        let v6 = mount_command("[::1]:3049".parse().unwrap(), "/a");
        assert!(v6.contains("proto=tcp6") && v6.contains("[::1]:/a"), "{v6}");
    }
}
