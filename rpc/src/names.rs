//! Names of machines: from `host:port` to an address, without the C library.
//!
//! The C library's resolver loads modules at run time, as /etc/nsswitch.conf names them. A static binary must not do that: it may
//! meet another C library's modules on the machine where it runs (docs/decisions/0007-names.md). So names are
//! looked up in /etc/hosts, then with the name servers of /etc/resolv.conf. Both files are read, and the servers asked, at
//! every look-up: a machine may come back under another number, sooner than its record's time to live says.

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{IntoName, RecordType};
use hickory_resolver::{Hosts, Resolver, TokioResolver};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

/// A name that is not found within this is not found: who waits for it has other servers to look up.
const DEADLINE: Duration = Duration::from_secs(3);

/// Looks an address up that may be a name. An address in numbers asks nobody.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] if it is no `host:port`; [`io::ErrorKind::NotFound`] if nobody knows the name;
/// [`io::ErrorKind::TimedOut`] after three seconds.
pub async fn look_up(address: &str) -> io::Result<SocketAddr> {
    if let Ok(addr) = address.parse() {
        return Ok(addr);
    }
    let no_address =
        || io::Error::new(io::ErrorKind::InvalidInput, format!("{address:?} is no host:port address"));
    let (host, port) = address.rsplit_once(':').ok_or_else(no_address)?;
    let port = port.parse().map_err(|_| no_address())?;
    let found = tokio::time::timeout(DEADLINE, find(host)).await;
    let ip = found.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no name server knows {host:?} within 3 s"))
    })??;
    Ok(SocketAddr::new(ip, port))
}

/// Connects to an address that may be a name.
///
/// # Errors
/// As [`look_up`]; what the system says if the connection cannot be made.
pub async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(look_up(address).await?).await?;
    crate::socket::prepare(&stream)?;
    Ok(stream)
}

async fn find(host: &str) -> io::Result<IpAddr> {
    let unknown = |why: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::NotFound, format!("the name {host:?} is not known: {why}"))
    };
    // Read here, not by the resolver: it would look for the name only with a search domain behind it.
    let hosts = Hosts::from_system().unwrap_or_default();
    if let Some(ip) = in_hosts(&hosts, host) {
        return Ok(ip);
    }
    let resolver = resolver().map_err(|e| unknown(&e))?;
    let answer = resolver.lookup_ip(host).await.map_err(|e| unknown(&e))?;
    answer.iter().next().ok_or_else(|| unknown(&"it has no address"))
}

/// IPv4 first, as everywhere here.
fn in_hosts(hosts: &Hosts, host: &str) -> Option<IpAddr> {
    let name = host.into_name().ok()?;
    [RecordType::A, RecordType::AAAA].into_iter().find_map(|kind| {
        let found = hosts.lookup_static_host(&Query::query(name.clone(), kind))?;
        found.answers().iter().find_map(|record| record.data.ip_addr())
    })
}

/// As /etc/resolv.conf says now; without it no name server is asked. Nothing is remembered.
fn resolver() -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
        let none = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
        Resolver::builder_with_config(none, TokioRuntimeProvider::default())
    });
    let options = builder.options_mut();
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn numbers_ask_nobody_and_nonsense_is_refused() {
        assert_eq!(look_up("10.1.2.3:4").await.unwrap(), "10.1.2.3:4".parse().unwrap());
        assert_eq!(look_up("[::1]:4").await.unwrap(), "[::1]:4".parse().unwrap());
        for wrong in ["", "host", "host:", "host:70000", ":"] {
            assert_eq!(look_up(wrong).await.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_hosts_file_and_nobody_for_a_name_that_cannot_be() {
        assert!(look_up("localhost:7").await.unwrap().ip().is_loopback());
        // RFC 6761 section 6.4: no such name, ever. Without a network the servers may not answer in time.
        let kind = look_up("nobody.invalid:7").await.unwrap_err().kind();
        assert!(matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::TimedOut), "{kind:?}");
    }
}
