//! A server's tie to the coordinator: registers, adopts what it is dealt, follows the routing table, says that it is
//! alive. When the coordinator is away it goes on with what it knows, and ties itself again.

use crate::error::{Error, Result};
use crate::hosted::Hosted;
use crate::targets::Targets;
use futures_util::StreamExt;
use parking_lot::Mutex;
use slice_coordinator::client::{Client, ClientError};
use slice_proto::control::{pb, sites_from_wire, sites_to_wire};
use slice_proto::ids::{Role, ServerId};
use slice_proto::peer::hello::{MAX_WIRE_VERSION, MIN_WIRE_VERSION};
use slice_proto::table::{RoutingTable, Volume};
use slice_proxy::{Space, SpaceSource};
use slice_rpc::tables::Tables;
use std::sync::Arc;
use std::time::Duration;

/// How often a server says that it is alive: what FSSTAT and `slice status` show is at most this old.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The same while nobody has told of space yet: FSSTAT has nothing to say then, and the mount waits for it.
const FIRST_HEARTBEATS: Duration = Duration::from_millis(50);
/// Heartbeats between two look-ups of servers whose addresses are names.
const LOOK_UP_EVERY: u32 = 5;
/// Pauses between attempts to reach a coordinator that is away: nothing tells when it is back.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// FSSTAT's figures as the last heartbeat's answer told them.
#[derive(Debug, Default)]
pub struct Told(Mutex<Space>);

impl SpaceSource for Told {
    fn space(&self) -> Space {
        *self.0.lock()
    }
}

/// Tells what a server does.
pub type Activity = Box<dyn Fn() -> pb::Activity>;

/// Who registers.
pub struct Agent {
    /// Its id.
    pub server: ServerId,
    /// What it does.
    pub role: Role,
    /// `host:port` at which the others reach it.
    pub address: String,
    /// Names the file system of its store, 0 if it has none.
    pub filesystem: u64,
    /// Whether its store was made just now.
    pub fresh: bool,
    /// The coordinator.
    pub client: Client,
    /// The server itself.
    pub hosted: Arc<dyn Hosted>,
    /// Where tables go.
    pub targets: Arc<Targets>,
    /// What it does, for those who watch.
    pub activity: Activity,
    /// Where FSSTAT's figures go.
    pub space: Arc<Told>,
}

impl Agent {
    /// Ties the server to the coordinator until it is refused. Runs in a `LocalSet`, is ended by being dropped.
    ///
    /// # Errors
    /// The coordinator's sentence, if it will not have the server; a failure to adopt.
    pub async fn run(self) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        let mut told = String::new();
        loop {
            let outcome = self.tied(&mut pause).await;
            if let Err(error) = &outcome {
                // Once for each reason, not for each attempt.
                let reason = error.to_string();
                if reason != told && pause > FIRST_PAUSE {
                    tracing::warn!(server = %self.server, role = %self.role, error = %reason, "not tied to the coordinator");
                    told = reason;
                }
            } else {
                told.clear();
            }
            match outcome {
                Ok(()) => tracing::info!(server = %self.server, "the coordinator ended the watch"),
                Err(Error::Control(e)) if e.is_passing() => {}
                Err(e) => return Err(e),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One tie, until it breaks.
    async fn tied(&self, pause: &mut Duration) -> Result<()> {
        self.client.register(self.registration()).await?;
        *pause = FIRST_PAUSE;
        tokio::select! {
            watched = self.watch() => watched,
            beaten = self.beat() => beaten,
        }
    }

    fn registration(&self) -> pb::RegisterRequest {
        let stamped = self.hosted.stamped();
        pb::RegisterRequest {
            server: self.server.0,
            role: pb::Role::from(self.role).into(),
            address: self.address.clone(),
            min_wire_version: MIN_WIRE_VERSION,
            max_wire_version: MAX_WIRE_VERSION,
            fresh: self.fresh && stamped.is_empty(),
            stamped: sites_to_wire(&stamped),
            pid: std::process::id(),
            filesystem: self.filesystem,
        }
    }

    /// Does what the coordinator wants.
    async fn watch(&self) -> Result<()> {
        use pb::watch_event::Event;
        let mut events = self.client.watch(pb::WatchRequest { server: self.server.0 }).await?;
        while let Some(event) = events.next().await {
            match event.map_err(|status| self.client.broken(&status))?.event {
                Some(Event::Adopt(adopt)) => self.adopt(adopt).await?,
                Some(Event::Table(table)) => {
                    let table = RoutingTable::try_from(table).map_err(ClientError::from)?;
                    self.targets.publish(table).await;
                }
                // Of a newer coordinator.
                None => {}
            }
        }
        Ok(())
    }

    async fn adopt(&self, adopt: pb::Adopt) -> Result<()> {
        let sites = sites_from_wire(&adopt.sites).map_err(ClientError::from)?;
        let volumes: std::result::Result<Vec<Volume>, _> =
            adopt.volumes.into_iter().map(Volume::try_from).collect();
        let volumes = volumes.map_err(ClientError::from)?;
        self.hosted
            .adopt(&sites, &volumes)
            .await
            .map_err(|source| Error::Service { role: self.role, source })?;
        let done = pb::AdoptedRequest { server: self.server.0, sites: sites_to_wire(&sites) };
        self.client.adopted(done).await?;
        Ok(())
    }

    /// Says that the server is alive, until the coordinator does not know it.
    async fn beat(&self) -> Result<()> {
        let tables: Tables = self.targets.tables();
        for count in 1u32.. {
            if count.is_multiple_of(LOOK_UP_EVERY) {
                self.targets.refresh().await;
            }
            let beat = pb::HeartbeatRequest {
                server: self.server.0,
                stats: Some((&self.hosted.stats()).into()),
                table_epoch: tables.current().epoch.0,
                activity: Some((self.activity)()),
            };
            let reply = self.client.heartbeat(beat).await?;
            if !reply.known {
                return Ok(());
            }
            *self.space.0.lock() = Space {
                total: reply.space_total,
                free: reply.space_free,
                available: reply.space_available,
                files: reply.files,
            };
            tokio::time::sleep(if reply.space_total == 0 { FIRST_HEARTBEATS } else { HEARTBEAT }).await;
        }
        Ok(())
    }
}
