//! A server's or µproxy's view of the routing table: always the newest one that it has been told.

use slice_proto::ids::TableEpoch;
use slice_proto::table::RoutingTable;
use std::sync::Arc;
use tokio::sync::watch;

/// Follows the routing table. Cheap to clone; every thread holds its own.
#[derive(Debug, Clone)]
pub struct Tables(watch::Receiver<Arc<RoutingTable>>);

/// Tells a process's [`Tables`] of a new routing table.
#[derive(Debug, Clone)]
pub struct TablesSender(watch::Sender<Arc<RoutingTable>>);

/// A table and the end that replaces it; it starts empty, at epoch 0.
#[must_use]
pub fn tables() -> (TablesSender, Tables) {
    let (tx, rx) = watch::channel(Arc::new(RoutingTable::default()));
    (TablesSender(tx), Tables(rx))
}

// === impl Tables ===

impl Tables {
    /// The newest table.
    #[must_use]
    pub fn current(&self) -> Arc<RoutingTable> {
        self.0.borrow().clone()
    }

    /// Waits until the table has at least this epoch. Returns `None` if nobody can bring a newer one any more.
    pub async fn at_least(&mut self, epoch: TableEpoch) -> Option<Arc<RoutingTable>> {
        self.0.wait_for(|t| t.epoch >= epoch).await.ok().map(|t| t.clone())
    }

    /// Waits for the next change.
    pub async fn changed(&mut self) -> Option<Arc<RoutingTable>> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().clone())
    }
}

// === impl TablesSender ===

impl TablesSender {
    /// Replaces the table; an older or equal one is ignored.
    pub fn publish(&self, table: RoutingTable) {
        self.0.send_if_modified(|current| {
            let newer = table.epoch > current.epoch;
            if newer {
                *current = Arc::new(table);
            }
            newer
        });
    }
}
