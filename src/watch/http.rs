//! HTTP/1.1 for those who watch: read only, and bounded in connections, in time and in bytes.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at a time; more wait until one is closed. A browser opens six, a Prometheus one.
const MAX_CONNECTIONS: usize = 32;
/// How long a request's head may take, the wait for it included: longer than a scrape interval, so that a connection is kept.
const HEAD: Duration = Duration::from_secs(75);
/// How long a connection may live: who reads slowly gives its place to others.
const LIFE: Duration = Duration::from_secs(600);
/// Longest head of a request, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Pause after a failed accept: no event tells when there is a file descriptor again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::task::spawn_local(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD);
            let served =
                tokio::time::timeout(LIFE, http.serve_connection(TokioIo::new(stream), service)).await;
            if let Ok(Err(error)) = served {
                tracing::debug!(%error, "a watcher's connection ended");
            }
            drop(place);
        });
    }
}
