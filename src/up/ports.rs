//! Loopback ports of an ensemble's servers: drawn once, recorded in `layout.json`, found again at every later start.
//!
//! ```text
//!  draw ─▶ UDP P bound and held by `slice up`  ─▶ TCP P free? ─▶ recorded ─▶ a server listens on TCP P
//!             in use: another `slice up` has P      no: draw again
//! ```
//!
//! Between the drawing of a port and its server's listening lie seconds: its store is made meanwhile, and it may be
//! another process. Two ensembles that start at once would draw one port. So a port is first taken where nobody else wants
//! it and where the system gives it to one only: the UDP port of the same number, held as long as `slice up` runs.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::Arc;

/// Ports are drawn from here: below what systems give to outgoing connections, so that a restart finds them free.
const PORTS: Range<u16> = 20_000..32_000;
/// Draws before we give up: by then nothing listens on a single loopback port any more.
const MAX_DRAWS: usize = 1000;

/// The port of every server, by its name; those of them that this process has taken are its own until it ends.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ports {
    of: BTreeMap<String, u16>,
    #[serde(skip)]
    held: BTreeMap<u16, Arc<UdpSocket>>,
}

/// What is recorded counts, not what is held.
impl PartialEq for Ports {
    fn eq(&self, other: &Self) -> bool {
        self.of == other.of
    }
}

impl Eq for Ports {}

impl Ports {
    /// The address of a server: at the port it had, if that can be had, else at another. Never at one of `not`.
    ///
    /// # Errors
    /// A sentence if no port is free.
    pub fn address(&mut self, name: &str, not: &[u16]) -> Result<SocketAddr> {
        self.draw(name, not, PORTS)
    }

    fn draw(&mut self, name: &str, not: &[u16], range: Range<u16>) -> Result<SocketAddr> {
        let before = self.of.get(name).copied();
        if let Some(port) = before
            && self.take(port)?
        {
            return Ok(at(port));
        }
        for _ in 0..MAX_DRAWS {
            // The remainder is below the number of ports.
            let port = range.start + (getrandom::u32()? % u32::from(range.end - range.start)) as u16;
            if !self.of.values().chain(not).any(|p| *p == port) && self.take(port)? {
                if let Some(before) = before {
                    self.held.remove(&before);
                }
                self.of.insert(name.to_owned(), port);
                return Ok(at(port));
            }
        }
        Err(Error::usage(format!(
            "no loopback port between {} and {} is free: stop what listens there",
            range.start,
            range.end - 1
        )))
    }

    /// Takes a port for this process; false if it is another's, or somebody listens there.
    fn take(&mut self, port: u16) -> Result<bool> {
        if let Entry::Vacant(unheld) = self.held.entry(port) {
            match UdpSocket::bind(at(port)) {
                Ok(socket) => drop(unheld.insert(Arc::new(socket))),
                Err(e) if e.kind() == ErrorKind::AddrInUse => return Ok(false),
                Err(source) => return Err(Error::Listen { addr: at(port), source }),
            }
        }
        let free = TcpListener::bind(at(port)).is_ok();
        if !free {
            self.held.remove(&port);
        }
        Ok(free)
    }
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_found_again_unless_it_is_taken() {
        let mut first = Ports::default();
        let address = first.address("a", &[]).unwrap();
        assert_eq!(first.address("a", &[]).unwrap(), address);
        let text = serde_json::to_string(&first).unwrap();
        assert_eq!(text, format!("{{\"a\":{}}}", address.port()));
        drop(first);

        let mut again: Ports = serde_json::from_str(&text).unwrap();
        assert_eq!(again.address("a", &[]).unwrap(), address);
        let stranger = TcpListener::bind(address).unwrap();
        let other = again.address("a", &[]).unwrap();
        assert_ne!(other, address);
        drop(stranger);
        assert_eq!(again.address("a", &[]).unwrap(), other);
    }

    /// Nobody listens yet when all have drawn. Without the holding, 2 × 200 draws out of 600 would meet, all but surely.
    #[test]
    fn two_that_draw_at_once_never_have_one_port() {
        let range = 31_000..31_600;
        let (mut a, mut b) = (Ports::default(), Ports::default());
        for i in 0..200 {
            for ports in [&mut a, &mut b] {
                ports.draw(&i.to_string(), &[], range.clone()).unwrap();
            }
        }
        assert!(a.of.values().all(|port| !b.of.values().any(|p| p == port)));
    }

    #[test]
    fn a_port_that_is_not_to_be_had_is_not_drawn() {
        let mut ports = Ports::default();
        let drawn = ports.draw("a", &[31_800, 31_802], 31_800..31_803);
        // Another program may have the only one that is left.
        assert!(drawn.is_err() || drawn.unwrap().port() == 31_801);
    }
}
