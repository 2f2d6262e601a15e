//! Tombstones that have served their time.
//!
//! A tombstone refuses WRITEs that were on their way when the file was purged. It stays longer than a connection
//! can stay silent and still deliver one.

use crate::core::Object;
use crate::error::Result;
use crate::node::Node;
use slice_proto::ids::FileId;
use slice_rpc::clock::Clock;
use slice_store::Batch;
use slice_store::data_keys::{TOMBSTONE_KEPT, grave_key, object_key, old_graves};
use std::sync::Arc;
use std::time::Duration;

/// How often old ones are looked for.
const COLLECT_EVERY: Duration = Duration::from_secs(60);
/// Tombstones collected in one go: one batch of the store, a few hundred KiB.
const MAX_COLLECTED: usize = 4096;

impl Node {
    /// Collects old tombstones for ever.
    pub(crate) async fn collect_forever(self: &Arc<Self>) {
        let mut tick = tokio::time::interval(COLLECT_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            while match self.collect().await {
                Ok(n) => n == MAX_COLLECTED,
                Err(error) => {
                    tracing::warn!(%error, "old tombstones were not collected");
                    false
                }
            } {}
        }
    }

    /// Collects up to [`MAX_COLLECTED`] tombstones that are old enough; how many.
    pub(crate) async fn collect(self: &Arc<Self>) -> Result<usize> {
        let kept = u64::try_from(TOMBSTONE_KEPT.as_nanos()).unwrap_or(u64::MAX);
        // What was buried in an earlier life bears that life's time, which says nothing here if the clock was set meanwhile: all
        // of them are old enough when this life is.
        if self.steady.lasted_ns() < kept {
            return Ok(0);
        }
        let now = self.steady.now_ns();
        let here = Arc::clone(self);
        let old = self
            .blocking(move || old_graves(&here.store, now.saturating_sub(kept), now, MAX_COLLECTED))
            .await??;
        for (at, file) in &old {
            self.exhume(*at, *file)?;
        }
        // Nothing depends on their going: the next batch takes this along.
        Ok(old.len())
    }

    /// Forgets a tombstone of that time, in memory and store at once: a PURGE that comes again makes a new one.
    fn exhume(&self, at: u64, file: FileId) -> Result<()> {
        let cell = self.cell(file)?;
        {
            let mut object = cell.object.lock();
            let mut batch = Batch::new();
            batch.delete(grave_key(at, file));
            // Purged anew meanwhile: then another tombstone stands for it.
            if object.purged_ns == Some(at) {
                batch.delete(object_key(file));
            }
            self.store.submit_lazy(batch)?;
            if object.purged_ns == Some(at) {
                *object = Object::default();
            }
        }
        drop(cell);
        self.cache.forget(file);
        Ok(())
    }
}
