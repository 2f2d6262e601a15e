//! Connections that nobody accepted: for a simulation, whose network is its own.

use super::Limits;
use super::connection::Connection;
use super::task::Task;
use crate::framing::MAX_RECORD;
use crate::intake::Intake;
use crate::service::{LocalService, Peer};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncRead, AsyncWrite};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Serves one connection to its end, as a listener would once it has accepted it and its hello is done. Inside a
/// `LocalSet`.
pub async fn serve_stream<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: Peer,
    service: Rc<dyn LocalService>,
    limits: Limits,
) {
    let connection = Connection::new(NEXT_ID.fetch_add(1, Ordering::Relaxed), peer);
    Task::new(stream, Intake::new(MAX_RECORD), connection, service, limits).run().await;
}
