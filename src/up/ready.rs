//! Whether the mount works, asked as a client asks: MNT (RFC 1813 section 5.2.1) at the µproxy's own address, then FSSTAT:
//! a file system without a byte would look full to whoever copies into it.

use crate::error::{Error, Result};
use bytes::BytesMut;
use slice_coordinator::client::Client;
use slice_proto::ids::{ServerId, Xid};
use slice_proto::mount::{MntRes, MountStat};
use slice_proto::nfs3::{FsstatRes, Proc3};
use slice_proto::rpc_msg::{OpaqueAuth, ReplyHeader, ReplyStatus, encode_call, program, version};
use slice_proto::xdr::{Decode, Put, Reader};
use slice_rpc::{Channel, Message, Target};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// MOUNTPROC3_MNT.
const MNT: u32 = 1;
/// Pause before asking again: the µproxy has no table yet, and nothing tells when it has.
const PAUSE: Duration = Duration::from_millis(20);

/// Resolves when the µproxy at `addr` answers MNT of `path` and knows of space. Waits for ever; inside a `LocalSet`.
///
/// # Errors
/// A sentence if who answers there is no NFS server.
pub async fn mounted(addr: SocketAddr, path: &str) -> Result<()> {
    let addr = reachable(addr);
    let channel = Channel::open(ServerId(0), Target::Socket(addr), None, None);
    let ask = async |program, version, proc, argument: &[u8]| {
        let mut call = BytesMut::new();
        encode_call(&mut call, Xid(0), program, version, proc, &OpaqueAuth::NONE);
        call.put_opaque(argument);
        let no_server = |_| Error::usage(format!("what answers at {addr} is no NFS server"));
        channel.call(Message::from(call)).await.map_err(no_server)
    };
    loop {
        let reply = ask(program::MOUNT, version::MOUNT3, MNT, path.as_bytes()).await?;
        match result::<MntRes<'_>>(&reply) {
            Some(MntRes::Ok { handle, .. }) => {
                let reply = ask(program::NFS, version::NFS3, Proc3::Fsstat as u32, handle).await?;
                if let Some(FsstatRes::Ok(space)) = result(&reply)
                    && space.tbytes > 0
                {
                    return Ok(());
                }
            }
            // The export rules do not let this machine in, but the µproxy is up.
            Some(MntRes::Err(MountStat::ACCES)) => return Ok(()),
            _ => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The result that a reply carries, if the call was accepted.
fn result<'a, T: Decode<'a>>(reply: &'a [u8]) -> Option<T> {
    let header = ReplyHeader::decode(reply).ok().filter(|h| h.status == ReplyStatus::Success)?;
    T::decode(&mut Reader::at(reply, header.body_at)).ok()
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
