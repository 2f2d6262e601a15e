//! The gRPC face: registration, heartbeats, the table's watchers, status.

use crate::coordinator::{Coordinator, Denied};
use crate::ensemble::{Ensemble, Phase, Registration};
use crate::error::{Error, Result};
use crate::heard::Voice;
use crate::page::alarms::alarms;
use crate::page::history::Now;
use futures_util::stream::{BoxStream, StreamExt};
use slice_proto::control::auth::{AuthError, PROOF_KEY, Proof};
use slice_proto::control::pb::control_server::{Control, ControlServer};
use slice_proto::control::{pb, sites_from_wire, sites_to_wire};
use slice_proto::ids::{Role, ServerId, TableEpoch};
use slice_proto::stats::ServerStats;
use slice_rpc::clock::Clock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::{TcpListenerStream, WatchStream};
use tonic::{Request, Response, Status};

/// Longest request: a registration with all its sites is below 4 KiB.
const MAX_REQUEST: usize = 64 << 10;
/// A watcher whose machine is gone is noticed after this and the next.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Calls that one connection may have under way: a server needs four.
const MAX_CONCURRENT: usize = 64;

/// The proof's method name for each call.
pub(crate) mod method {
    pub const REGISTER: &str = "/slice.control.v1.Control/Register";
    pub const ADOPTED: &str = "/slice.control.v1.Control/Adopted";
    pub const HEARTBEAT: &str = "/slice.control.v1.Control/Heartbeat";
    pub const WATCH: &str = "/slice.control.v1.Control/Watch";
    pub const STATUS: &str = "/slice.control.v1.Control/Status";
}

/// The service that tonic calls.
struct Face(Arc<Coordinator>);

impl Coordinator {
    /// Serves the control plane on `listener` until [`shutdown`](Self::shutdown).
    ///
    /// # Errors
    /// [`Error::Io`] if the listener fails.
    pub async fn serve_control(self: Arc<Self>, listener: TcpListener) -> Result<()> {
        let addr = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        let service = ControlServer::new(Face(Arc::clone(&self))).max_decoding_message_size(MAX_REQUEST);
        let serve = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .concurrency_limit_per_connection(MAX_CONCURRENT)
            .add_service(service)
            // Ends the watches, and with them the connections.
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), self.stopped());
        serve
            .await
            .map_err(|e| Error::io("serve the control plane at", addr.to_string())(std::io::Error::other(e)))
    }
}

impl Face {
    /// Checks the proof of a call.
    fn admit<T>(&self, method: &str, request: &Request<T>) -> std::result::Result<Proof, Status> {
        let now_ns = self.0.clock.now_ns();
        let value = request.metadata().get(PROOF_KEY).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let proof = Proof::check(&self.0.identity, method, value, now_ns)
            .and_then(|proof| self.0.nonces.lock().take(&proof, now_ns).map(|()| proof));
        proof.map_err(|error| {
            tracing::info!(peer = ?request.remote_addr(), %error, "a control call is refused");
            match error {
                // Clocks are set right, and a flood passes: a server that runs must not give up for it.
                AuthError::Clock { .. } | AuthError::Busy => Status::unavailable(error.to_string()),
                AuthError::Missing | AuthError::Wrong | AuthError::Replayed => {
                    Status::unauthenticated(error.to_string())
                }
            }
        })
    }

    /// A reply with our proof.
    fn proved<T>(&self, proof: &Proof, message: T) -> std::result::Result<Response<T>, Status> {
        self.0.calls.control.fetch_add(1, Ordering::Relaxed);
        let mut response = Response::new(message);
        let value = proof.reply(&self.0.identity).parse();
        response
            .metadata_mut()
            .insert(PROOF_KEY, value.map_err(|_| Status::internal("the proof is not ASCII"))?);
        Ok(response)
    }
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Refused(refusal) => Self::failed_precondition(refusal.to_string()),
            Denied::Failed(error) => Self::unavailable(error.to_string()),
        }
    }
}

fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

#[tonic::async_trait]
impl Control for Face {
    type WatchStream = BoxStream<'static, std::result::Result<pb::WatchEvent, Status>>;

    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> std::result::Result<Response<pb::RegisterReply>, Status> {
        let proof = self.admit(method::REGISTER, &request)?;
        let r = request.into_inner();
        let (server, entry) = r.entry().map_err(invalid)?;
        let registration = Registration {
            server,
            entry: entry.clone(),
            wire: (r.min_wire_version, r.max_wire_version),
            fresh: r.fresh,
            stamped: sites_from_wire(&r.stamped).map_err(invalid)?,
        };
        self.0.register(&registration).await.inspect_err(|denied| {
            tracing::warn!(%server, role = %entry.role, ?denied, "a server is not let in");
        })?;
        tracing::info!(%server, role = %entry.role, address = entry.address, "registered");
        let voice = Voice {
            entry,
            pid: r.pid,
            filesystem: r.filesystem,
            at_ns: self.0.steady.now_ns(),
            stats: None,
            table: TableEpoch(0),
        };
        self.0.heard.lock().register(server, voice);
        let reply = pb::RegisterReply { ensemble: self.0.identity.ensemble.0, coordinator: self.0.server.0 };
        self.proved(&proof, reply)
    }

    async fn adopted(
        &self,
        request: Request<pb::AdoptedRequest>,
    ) -> std::result::Result<Response<pb::AdoptedReply>, Status> {
        let proof = self.admit(method::ADOPTED, &request)?;
        let r = request.into_inner();
        let sites = sites_from_wire(&r.sites).map_err(invalid)?;
        self.0.adopted(ServerId(r.server), &sites).await?;
        self.proved(&proof, pb::AdoptedReply {})
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> std::result::Result<Response<pb::HeartbeatReply>, Status> {
        let proof = self.admit(method::HEARTBEAT, &request)?;
        let r = request.into_inner();
        let stats = ServerStats::try_from(r.stats.unwrap_or_default()).map_err(invalid)?;
        let now_ns = self.0.steady.now_ns();
        let unsettled = stats.unsettled;
        let (known, space) = {
            let mut heard = self.0.heard.lock();
            (heard.beat(ServerId(r.server), stats, TableEpoch(r.table_epoch), now_ns), heard.space())
        };
        if let Some(activity) = r.activity.filter(|_| known) {
            self.0.activities.lock().beat(ServerId(r.server), activity, unsettled, now_ns);
        }
        let reply = pb::HeartbeatReply {
            space_total: space.total,
            space_free: space.free,
            space_available: space.available,
            files: space.files,
            table_epoch: self.0.ensemble().table.epoch.0,
            known,
        };
        self.proved(&proof, reply)
    }

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> std::result::Result<Response<Self::WatchStream>, Status> {
        let proof = self.admit(method::WATCH, &request)?;
        let server = ServerId(request.into_inner().server);
        let mut told = Told::default();
        let coordinator = Arc::clone(&self.0);
        let events = WatchStream::new(self.0.watch())
            .filter_map(move |(_, ensemble)| std::future::ready(told.next(&ensemble, server).map(Ok)))
            .take_until(async move { coordinator.stopped().await });
        self.proved(&proof, events.boxed())
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> std::result::Result<Response<pb::StatusReply>, Status> {
        let proof = self.admit(method::STATUS, &request)?;
        self.proved(&proof, self.0.watched().0)
    }
}

/// What a watcher has been told.
#[derive(Debug, Default)]
struct Told {
    adopt: bool,
    epoch: TableEpoch,
}

impl Told {
    /// What a new state means to a watcher.
    fn next(&mut self, ensemble: &Ensemble, server: ServerId) -> Option<pb::WatchEvent> {
        use pb::watch_event::Event;
        let event = if let Some(sites) = ensemble.to_adopt(server).filter(|_| !self.adopt) {
            self.adopt = true;
            let volumes = ensemble.table.volumes.iter().map(Into::into).collect();
            Event::Adopt(pb::Adopt { sites: sites_to_wire(&sites), volumes })
        } else {
            let table = ensemble.published().filter(|t| t.epoch > self.epoch)?;
            self.epoch = table.epoch;
            Event::Table(table.into())
        };
        Some(pb::WatchEvent { event: Some(event) })
    }
}

impl Coordinator {
    /// The [status](Self::status) with what servers do and what to look at; and what each does, in the same order.
    pub(crate) fn watched(&self) -> (pb::StatusReply, Vec<Option<Now>>) {
        let mut status = self.status();
        let now = self.now(&status.servers);
        for (server, now) in status.servers.iter_mut().zip(&now) {
            server.rates = now.as_ref().map(|now| now.rates);
        }
        let up_ms = self.steady.lasted_ns() / 1_000_000;
        status.alarms = alarms(&status, &now, up_ms);
        (status, now)
    }

    /// Membership, and what heartbeats told.
    #[must_use]
    pub fn status(&self) -> pb::StatusReply {
        let ensemble = self.ensemble();
        let now_ns = self.steady.now_ns();
        let (open, oldest_ns) = self.open_intents();
        let ms_since = |ns: u64| now_ns.saturating_sub(ns) / 1_000_000;
        let heard = self.heard.lock();
        let mut entries: Vec<_> = ensemble.members.iter().map(|(id, m)| (*id, &m.entry)).collect();
        let others = heard.all().filter(|(id, _)| !ensemble.members.contains_key(id));
        entries.extend(others.map(|(id, v)| (id, &v.entry)));
        let mut servers: Vec<_> = entries
            .into_iter()
            .map(|(id, entry)| {
                let voice = heard.get(id);
                pb::ServerStatus {
                    id: id.0,
                    role: pb::Role::from(entry.role).into(),
                    address: entry.address.clone(),
                    pid: voice.map_or(0, |v| v.pid),
                    sites: ensemble.sites_of(id).len() as u32,
                    stats: voice.and_then(|v| v.stats.as_ref()).map(Into::into),
                    heartbeat_age_ms: voice.map(|v| ms_since(v.at_ns)),
                    table_epoch: voice.map_or(0, |v| v.table.0),
                    rates: None,
                }
            })
            .collect();
        let own = ensemble.table.servers.get(&self.server).map(|e| e.address.clone());
        servers.push(pb::ServerStatus {
            id: self.server.0,
            role: pb::Role::from(Role::Coordinator).into(),
            address: own.unwrap_or_default(),
            pid: std::process::id(),
            sites: 0,
            stats: Some((&self.stats()).into()),
            heartbeat_age_ms: Some(0),
            table_epoch: ensemble.table.epoch.0,
            rates: None,
        });
        servers.sort_by_key(|s| (s.role, s.id));
        pb::StatusReply {
            ensemble: self.identity.ensemble.0,
            phase: pb::Phase::from(ensemble.phase).into(),
            // At most the number of sites.
            expected_dir: ensemble.expected.dir as u32,
            expected_small: ensemble.expected.small as u32,
            expected_block: ensemble.expected.block as u32,
            table: (ensemble.phase == Phase::Serving).then(|| (&ensemble.table).into()),
            servers,
            intentions_open: open as u64,
            oldest_intention_ms: oldest_ns.map_or(0, ms_since),
            alarms: Vec::new(),
        }
    }
}
