//! Watching this process while it works: `--metrics ADDR:PORT` answers what Prometheus scrapes and, where the coordinator
//! runs, the status page.
//!
//! ```text
//!   GET /metrics      every server of this process            exposition  (text format 0.0.4)
//!   GET /             the status page                         slice_coordinator::page::HTML
//!   GET /status.json  what the page shows                     Coordinator::page_data
//! ```
//!
//! On the main thread: nothing here runs beside requests.

mod exposition;
mod http;
pub mod process;

use crate::error::{Error, Result};
use crate::hosted::Hosted;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::RwLock;
use slice_coordinator::{Coordinator, page};
use slice_metrics::Samples;
use slice_proto::ids::{Role, ServerId};
use slice_rpc::tables::Tables;
use slice_rpc::{Listener, Metered};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// A server of this process.
#[derive(Clone)]
pub struct Watched {
    /// What it does.
    pub role: Role,
    /// Its id.
    pub server: ServerId,
    /// The server, but for the coordinator.
    pub hosted: Option<Arc<dyn Hosted>>,
    /// What it was called for; a µproxy counts for itself.
    pub metered: Option<Arc<Metered>>,
    /// Where its peers connect.
    pub listener: Option<Listener>,
}

/// What is watched: everything that runs in this process.
#[derive(Clone)]
pub struct Watch(Arc<RwLock<Inner>>);

struct Inner {
    tables: Tables,
    servers: Vec<Watched>,
    coordinator: Option<Arc<Coordinator>>,
}

impl Watch {
    /// Nothing yet, of a process that routes by `tables`.
    #[must_use]
    pub fn new(tables: Tables) -> Self {
        Self(Arc::new(RwLock::new(Inner { tables, servers: Vec::new(), coordinator: None })))
    }

    /// One more server.
    pub fn add(&self, watched: Watched) {
        self.0.write().servers.push(watched);
    }

    /// The coordinator runs here.
    pub fn coordinator(&self, coordinator: Arc<Coordinator>) {
        self.0.write().coordinator = Some(coordinator);
    }

    /// Answers at `addr`, until this process ends. Returns where, with the port that the system chose if none was given. To be
    /// called in a `LocalSet`.
    ///
    /// # Errors
    /// A sentence if the address is taken or not ours.
    pub async fn serve(&self, addr: SocketAddr) -> Result<SocketAddr> {
        let listen = |source| Error::Listen { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(listen)?;
        let at = listener.local_addr().map_err(listen)?;
        tracing::info!(%at, "metrics and status answer here");
        tokio::task::spawn_local(http::serve(listener, self.router()));
        Ok(at)
    }

    fn router(&self) -> Router {
        let (metrics, page, data) = (self.clone(), self.clone(), self.clone());
        Router::new()
            .route("/metrics", get(move || async move { metrics.metrics() }))
            .route("/", get(move || async move { page.page() }))
            .route("/status.json", get(move || async move { data.data() }))
    }

    fn metrics(&self) -> Response {
        let mut samples = Samples::default();
        self.gather(&mut samples);
        match exposition::text(samples) {
            Ok(text) => ([(header::CONTENT_TYPE, exposition::FORMAT)], text).into_response(),
            Err(error) => {
                tracing::error!(%error, "the metrics cannot be written");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }

    fn page(&self) -> Response {
        match self.0.read().coordinator {
            Some(_) => {
                // Nothing but what stands in the page itself, and its data from here.
                let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
                let head = [
                    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                    (header::CONTENT_SECURITY_POLICY, policy),
                    (header::CACHE_CONTROL, "no-store"),
                ];
                (head, page::HTML).into_response()
            }
            None => (StatusCode::NOT_FOUND, "the status page is at the coordinator; /metrics is here\n")
                .into_response(),
        }
    }

    fn data(&self) -> Response {
        let coordinator = self.0.read().coordinator.clone();
        let Some(coordinator) = coordinator else { return StatusCode::NOT_FOUND.into_response() };
        let head = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
        (head, coordinator.page_data()).into_response()
    }

    fn gather(&self, out: &mut Samples) {
        out.gauge("slice_build_info", "The program.", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        process::samples(out);
        let inner = self.0.read();
        for watched in &inner.servers {
            let id = watched.server.to_string();
            out.under(&[("role", watched.role.name()), ("server", &id)]);
            let epoch = inner.tables.current().epoch.0;
            out.gauge(
                "slice_table_epoch",
                "Epoch of the routing table that it routes by.",
                &[],
                epoch as f64,
            );
            watched.samples(out);
            if let Some(coordinator) =
                inner.coordinator.as_ref().filter(|_| watched.role == Role::Coordinator)
            {
                coordinator.samples(out);
            }
        }
    }
}

impl Watched {
    fn samples(&self, out: &mut Samples) {
        if let Some(metered) = &self.metered {
            metered.samples(out);
        }
        if let Some(listener) = &self.listener {
            out.gauge("slice_connections", "Connections open now.", &[], listener.connections() as f64);
        }
        let Some(hosted) = &self.hosted else { return };
        hosted.samples(out);
        if self.role == Role::Proxy {
            return;
        }
        let stats = hosted.stats();
        let mut gauge = |name, help, value: u64| out.gauge(name, help, &[], value as f64);
        gauge("slice_objects", "Files, entries or objects held, or held in memory.", stats.objects);
        gauge("slice_sites", "Sites owned.", u64::from(stats.sites));
        gauge(
            "slice_unsettled_effects",
            "Effects owed to others, holds, operations under way.",
            stats.unsettled,
        );
        let help = "Bytes of the file system that the store lies on.";
        gauge("slice_space_capacity_bytes", help, stats.space_total);
        gauge("slice_space_free_bytes", "Bytes still available to files.", stats.space_free);
    }
}
