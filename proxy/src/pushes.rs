//! The task that pushes growth and times within a second of the write (DESIGN §8). It runs only while something is due.

use crate::front::Front;
use slice_proto::ids::FileId;
use slice_proto::nfs3::NfsStat3;
use std::rc::Rc;
use tokio::time::Instant;

impl Front {
    /// Sees to it that the task runs.
    pub(crate) fn start_pushing(&self) {
        if let Some(front) = self.rc()
            && !self.pushing.replace(true)
        {
            tokio::task::spawn_local(front.push_due());
        }
    }

    async fn push_due(self: Rc<Self>) {
        loop {
            let next = self.soft.borrow().next_due();
            let Some(due) = next else { break };
            tokio::time::sleep_until(due).await;
            let now = Instant::now();
            loop {
                let Some(file) = self.soft.borrow_mut().take_due(now) else { break };
                if self.soft.borrow().get(file).is_some_and(|s| s.is_dirty()) {
                    // Side by side: one home site that is away holds nobody else's up. There are at most MAX_DIRTY.
                    let front = Rc::clone(&self);
                    tokio::task::spawn_local(async move { front.push_one(file).await });
                }
            }
        }
        self.pushing.set(false);
        self.note_held();
    }

    /// Pushes a file until the home site has it or the file is gone.
    async fn push_one(&self, file: FileId) {
        match self.push(file, None).await {
            Ok(_) | Err(NfsStat3::STALE) => {}
            Err(status) => {
                tracing::warn!(%file, %status, "growth and times could not be pushed; again in a second")
            }
        }
        // Written meanwhile, or not pushed: it is due again.
        let again = {
            let mut soft = self.soft.borrow_mut();
            let dirty = soft.get(file).is_some_and(|s| s.is_dirty());
            dirty && soft.dirtied(file, Instant::now())
        };
        if again {
            self.start_pushing();
        }
    }

    /// Pushes everything, at the end.
    pub(crate) async fn push_all(&self) {
        let files = self.soft.borrow().dirty();
        futures_util::future::join_all(files.into_iter().map(|file| self.push_one(file))).await;
    }
}
