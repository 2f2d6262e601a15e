//! Kills, stops and cuts, drawn from a seed. Every round plays the same deck in another order, so that no role is ever spared.
//!
//! Connections of clients are cut in the hard mounts. Connections between servers are cut by `ss -K`, where the kernel and
//! our rights allow it; where they do not, that is said, and only kills break them.

use std::collections::{BTreeMap, HashSet};
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use tokio::time::sleep;

use super::hard::HardMount;
use crate::ensemble::{Ensemble, Server};

/// The roles that are killed and stopped.
const ROLES: [&str; 5] = ["proxy", "dirserver", "smallfile", "blockstore", "coordinator"];

/// One deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// SIGKILL to a server of this role.
    Kill(&'static str),
    /// SIGSTOP, a while, SIGCONT.
    Stop(&'static str),
    /// A client's connection breaks.
    CutClient,
    /// All connections of a server of this role break: to other servers, to clients.
    CutServer(&'static str),
}

/// What torments an ensemble.
#[derive(Debug)]
pub struct Tormentor {
    rng: StdRng,
    /// How often each deed was done.
    pub done: BTreeMap<Deed, u32>,
    cuts_servers: bool,
    /// Processes that were killed: on a busy machine they are seen for a while.
    killed: HashSet<u32>,
}

impl Tormentor {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let cuts_servers = can_cut();
        if !cuts_servers {
            println!("ss -K does not work here: connections between servers are not cut");
        }
        Self { rng: StdRng::seed_from_u64(seed), done: BTreeMap::new(), cuts_servers, killed: HashSet::new() }
    }

    /// One deck: every role killed and stopped, connections cut.
    fn deck(&mut self) -> Vec<Deed> {
        let mut deck: Vec<Deed> =
            ROLES.into_iter().flat_map(|role| [Deed::Kill(role), Deed::Stop(role)]).collect();
        deck.extend([Deed::CutClient; 4]);
        deck.extend(["proxy", "dirserver"].map(Deed::Kill));
        if self.cuts_servers {
            // A µproxy's are those of all clients, also of one that has no hard mount here.
            deck.extend(ROLES.map(Deed::CutServer));
        }
        deck.shuffle(&mut self.rng);
        deck
    }

    /// Plays one deck on a running ensemble. Nothing is stopped any more when it ends.
    pub async fn round(&mut self, ensemble: &Ensemble, mounts: &[HardMount]) {
        for deed in self.deck() {
            let pause = Duration::from_millis(self.rng.random_range(30..600));
            sleep(pause).await; // The time for which clients work in peace.
            self.act(deed, ensemble, mounts).await;
            *self.done.entry(deed).or_default() += 1;
        }
    }

    async fn act(&mut self, deed: Deed, ensemble: &Ensemble, mounts: &[HardMount]) {
        match deed {
            Deed::Kill(role) => {
                let victim = self.victim(ensemble, role).await;
                self.killed.insert(victim.pid);
                ensemble.signal(&victim, Signal::KILL).unwrap();
            }
            Deed::Stop(role) => {
                let victim = self.victim(ensemble, role).await;
                ensemble.signal(&victim, Signal::STOP).unwrap();
                let length = Duration::from_millis(self.rng.random_range(50..1000));
                sleep(length / 2).await;
                if self.rng.random_bool(0.5) {
                    mounts.choose(&mut self.rng).unwrap().cut();
                }
                sleep(length / 2).await;
                // It cannot have ended: it is stopped, and nobody else kills it.
                ensemble.signal(&victim, Signal::CONT).unwrap();
            }
            Deed::CutClient => mounts.choose(&mut self.rng).unwrap().cut(),
            Deed::CutServer(role) => {
                let victim = self.victim(ensemble, role).await;
                for address in &victim.addresses {
                    let port = address.rsplit(':').next().unwrap();
                    cut(&format!("( sport = :{port} or dport = :{port} )")).unwrap();
                }
            }
        }
    }

    /// A server of this role that runs.
    async fn victim(&mut self, ensemble: &Ensemble, role: &str) -> Server {
        loop {
            let mut all = ensemble.servers().unwrap();
            all.retain(|s| s.role == role && !self.killed.contains(&s.pid) && ensemble.lives(s));
            if let Some(server) = all.choose(&mut self.rng) {
                return server.clone();
            }
            sleep(super::LOOK).await; // It was killed, and comes again.
        }
    }
}

/// Whether a connection of our own can be cut.
fn can_cut() -> bool {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut one = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (other, _) = listener.accept().unwrap();
    let said = cut(&format!("( sport = :{port} or dport = :{port} )"));
    // Its other end must not end it in good order.
    one.set_nonblocking(true).unwrap();
    let broken = one.read(&mut [0]).is_err_and(|error| error.kind() != ErrorKind::WouldBlock);
    drop(other);
    said.is_some() && broken
}

/// Has the kernel end the connections that a filter finds. None if it may not, or cannot.
fn cut(filter: &str) -> Option<()> {
    let mut command = Command::new("ss");
    command.args(["-K", "-t", "-H", "state", "established"]).arg(filter);
    let output = command.stdin(Stdio::null()).output().ok()?;
    // Refused, it says so and succeeds all the same.
    (output.status.success() && output.stderr.is_empty()).then_some(())
}
