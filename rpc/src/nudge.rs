//! Waking a task of one's own thread, once however many ask.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};

/// The wake-up call of one task.
#[derive(Debug, Default)]
pub(crate) struct Nudge {
    /// The task runs, or will run: it need not be woken.
    scheduled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Nudge {
    /// The task begins to run: until [`Nudge::end`] it looks for work itself.
    pub(crate) fn begin(&self, cx: &Context<'_>) {
        self.scheduled.set(true);
        if !self.waker.borrow().as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            // The old one is dropped after the borrow: it may be a task's last handle.
            drop(self.waker.replace(Some(cx.waker().clone())));
        }
    }

    /// The task has looked for the last time.
    pub(crate) fn end(&self) {
        self.scheduled.set(false);
    }

    /// There is work.
    pub(crate) fn wake(&self) {
        if !self.scheduled.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }
}
