//! From a routing table's addresses to where calls go: a socket, or the server itself if it is in this process.

use futures_util::future::join_all;
use parking_lot::Mutex;
use slice_proto::ids::ServerId;
use slice_proto::table::{RoutingTable, ServerEntry};
use slice_rpc::tables::{Tables, TablesSender, tables};
use slice_rpc::{Directory, Service, Target, names};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// Keeps a process's directory of servers and its routing table together.
pub struct Targets {
    directory: Directory,
    sender: TablesSender,
    tables: Tables,
    /// Servers in this process.
    here: Mutex<HashMap<ServerId, Arc<dyn Service>>>,
    /// Servers whose names did not resolve at the last look-up.
    unknown: Mutex<HashSet<ServerId>>,
}

impl Targets {
    /// For the servers that `directory` leads to.
    #[must_use]
    pub fn new(directory: Directory) -> Arc<Self> {
        let (sender, tables) = tables();
        Arc::new(Self { directory, sender, tables, here: Mutex::default(), unknown: Mutex::default() })
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> Directory {
        self.directory.clone()
    }

    /// The table as everyone in this process sees it.
    #[must_use]
    pub fn tables(&self) -> Tables {
        self.tables.clone()
    }

    /// The end that replaces the table, for the coordinator in this process.
    #[must_use]
    pub fn sender(&self) -> TablesSender {
        self.sender.clone()
    }

    /// A server is in this process: calls to it need no socket.
    pub fn add(&self, server: ServerId, service: Arc<dyn Service>) {
        self.here.lock().insert(server, Arc::clone(&service));
        self.directory.set(server, Target::InProcess(service));
    }

    /// A new table: first its servers can be reached, then it is seen. An older one changes nothing.
    pub async fn publish(&self, table: RoutingTable) {
        if table.epoch <= self.tables.current().epoch {
            return;
        }
        self.reach(&table).await;
        self.sender.publish(table);
    }

    /// Follows tables that come from elsewhere (the coordinator's own), until nobody can bring any.
    pub async fn follow(&self) {
        let mut tables = self.tables();
        let mut table = tables.current();
        loop {
            self.reach(&table).await;
            match tables.changed().await {
                Some(newer) => table = newer,
                None => return,
            }
        }
    }

    /// Looks up again the servers whose addresses are names: a machine may have come back under another number.
    pub async fn refresh(&self) {
        let table = self.tables.current();
        if table.servers.values().any(|e| e.address.parse::<SocketAddr>().is_err()) {
            self.reach(&table).await;
        }
    }

    /// Makes the directory say what the table says.
    async fn reach(&self, table: &RoutingTable) {
        // Side by side: one name server that does not answer must not add up over all servers.
        let targets = join_all(table.servers.iter().map(async |(id, entry)| {
            let here = self.here.lock().get(id).map(|s| Target::InProcess(Arc::clone(s)));
            let target = match here {
                Some(here) => Some(here),
                None => self.resolve(*id, entry).await.map(Target::Socket),
            };
            // A name that does not resolve now may have resolved before.
            target.or_else(|| self.directory.target(*id)).map(|target| (*id, target))
        }));
        let targets: Vec<_> = targets.await.into_iter().flatten().collect();
        self.directory.replace(targets);
    }

    async fn resolve(&self, id: ServerId, entry: &ServerEntry) -> Option<SocketAddr> {
        match names::look_up(&entry.address).await {
            Ok(addr) => {
                self.unknown.lock().remove(&id);
                Some(addr)
            }
            Err(error) => {
                // Once, not at every look-up: a container that is down has no name.
                if self.unknown.lock().insert(id) {
                    tracing::warn!(server = %id, role = %entry.role, %error, "the name of a server does not resolve");
                }
                None
            }
        }
    }
}
