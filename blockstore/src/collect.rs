//! Tombstones that have served their time.
//!
//! A tombstone refuses WRITEs that were on their way when the file was purged. It stays longer than a connection
//! can stay silent and still deliver one.

use crate::error::Result;
use crate::layout::Leaf;
use crate::node::Node;
use crate::object::{Object, State};
use slice_proto::ids::FileId;
use slice_rpc::clock::Clock;
use slice_store::data_keys::{TOMBSTONE_KEPT, grave_key, object_key, old_graves};
use slice_store::{Batch, Ticket};
use std::collections::BTreeSet;
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
        let here = Arc::clone(self);
        let files: BTreeSet<FileId> = old.iter().map(|(_, f)| *f).collect();
        self.blocking(move || here.remove_for_good(&files)).await??;
        let mut last = self.store.durable();
        for (at, file) in &old {
            let object = self.object(*file).await?;
            last = self.exhume(&object, *at)?;
            self.cache.forget(object);
        }
        self.store.wait(last).await?;
        Ok(old.len())
    }

    /// Forgets a tombstone of that time, in memory and store at once: a PURGE that comes again makes a new one.
    fn exhume(&self, object: &Object, at: u64) -> Result<Ticket> {
        let mut state = object.state.write();
        let mut batch = Batch::new();
        batch.delete(grave_key(at, object.file));
        // Purged again meanwhile: then another tombstone stands for it.
        if state.purged_ns == Some(at) {
            batch.delete(object_key(object.file));
            *state = State::default();
        }
        Ok(self.store.submit(batch)?)
    }

    /// Makes durable that the files are gone: their tombstones no longer say so.
    fn remove_for_good(&self, files: &BTreeSet<FileId>) -> Result<()> {
        for file in files {
            self.layout.remove_object(*file)?;
        }
        let leaves: BTreeSet<Leaf> = files.iter().map(|f| Leaf::of(*f)).collect();
        leaves.into_iter().try_for_each(|leaf| self.layout.sync_leaf(leaf))
    }
}
