//! Something that is not so yet, and once it is, for good.
//!
//! Those who wait are let through in the order in which they came: a watch channel would wake them in any, and a simulation
//! of this server would not run the same way twice.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: AtomicBool,
    opened: Notify,
}

impl Gate {
    pub(crate) fn new(open: bool) -> Self {
        Self { open: AtomicBool::new(open), opened: Notify::new() }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Lets everybody through from now on.
    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.opened.notify_waiters();
    }

    /// Waits until it is open.
    pub(crate) async fn passed(&self) {
        // Asked for before the look: who opens it in between wakes us.
        let opened = self.opened.notified();
        if !self.is_open() {
            opened.await;
        }
    }
}
